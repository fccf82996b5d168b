"""The files that flexseg reads and writes."""

from __future__ import annotations

from markdown_text import code, entries, escape, prose, sections, table
from source_docs import doc, fields, module_doc

from export import bundle
from pipelines import label_map, records

_MEANINGS = {
    "ENCODED": "the image, encoded",
    "FORMAT": "png, jpeg or raw",
    "HEIGHT": "of the image, in pixels",
    "WIDTH": "of the image, in pixels",
    "CHANNELS": "1 or 3",
    "FILENAME": "path of the source image below its root",
    "SOURCE_ID": "the same without suffix",
    "MASK_ENCODED": "class ids, a PNG of one channel",
    "MASK_FORMAT": "png",
    "MASK_PIXELS": "pixels of each class, K whole numbers",
    "TILE_ORIGIN": "y, x of the tile in the prepared source; 0, 0 of a whole image",
    "SOURCE_SIZE": "height, width of the prepared source",
    "AUGMENTATION": "what was done to it, as text; empty for the source itself",
}
_RUN = (
    ("experiment.yaml", "the resolved experiment, every key"),
    ("label_map.yaml", "the classes"),
    ("checkpoints/", "the newest states, from which a run goes on"),
    ("best/", "the weights of the best epoch"),
    ("history.json", "every figure of every epoch"),
    ("software.json", "versions and device that trained it, from which step on"),
    (
        "eval/",
        "losses, metrics and Dice by class as CSV, their curves, confusion.png",
    ),
    ("previews/", "image, truth, prediction and error after each epoch"),
    ("logs/", "for TensorBoard"),
    ("evaluation/SPLIT.json", "what flexseg evaluate found; see [metrics](metrics.md)"),
    ("evaluation/SPLIT.csv", "its figures by class"),
    ("evaluation/SPLIT_images.csv", "each image's Dice, the worst first"),
    ("postprocessing.yaml", "what flexseg tune-postprocessing chose"),
)
_DATASET = (
    ("dataset.json", "the manifest: what the dataset holds and how it was made"),
    ("SPLIT-00007-of-00016.tfrecord", "the records"),
    ("rejected.jsonl", "one line for each source that could not be used: path, stage, reason"),
    ("groups.csv", "which group lies in which split"),
)


def page() -> str:
    """The page of the files, as Markdown."""
    lines = [
        "# Files",
        "",
        "## Label map { #label-map }",
        "",
        "A YAML file, or a literal such as `{(0,0,0):0,(255,0,0):1}` on the command line, which is "
        f"parsed as data and never run. Ids go from 0 without gaps, at most "
        f"{label_map.MAX_CLASSES} classes. {label_map.IGNORE_ID} in a mask of class ids is a pixel "
        "that no loss and no metric looks at.",
        "",
        "```yaml",
        "classes:",
        "- {id: 0, name: background, color: [0, 0, 0]}",
        "- {id: 1, name: vessel, colors: [[255, 0, 0], [200, 0, 0]]}",
        "```",
        "",
        prose(sections(doc("pipelines.label_map", "LabelClass"))[""]),
        "",
        "## Dataset { #dataset }",
        "",
        table(("file", "what it holds"), [(code(n), escape(t)) for n, t in _DATASET]),
        "",
        "### dataset.json { #dataset-json }",
        "",
        _attributes("pipelines.manifest", "Manifest", "The manifest holds"),
        "",
        _attributes("pipelines.manifest", "Split", "Each of `splits` holds"),
        "",
        "### Records { #records }",
        "",
        "Each record is a `tf.train.Example` with these features:",
        "",
        table(
            ("feature", "what it holds"),
            [(code(getattr(records, n)), escape(t)) for n, t in _MEANINGS.items()],
        ),
        "",
        "## Run { #run }",
        "",
        table(("file", "what it holds"), [(code(n), t) for n, t in _RUN]),
        "",
        "## Evaluation { #evaluation }",
        "",
        prose(module_doc("train.scoring")),
        "",
        "The parts of the file, with every figure: [metrics](metrics.md).",
        "",
        "## Bundle { #bundle }",
        "",
        prose(_between(bundle.__doc__ or "", "Signatures:", "With --serving")),
        "",
        "`assets/label_map.yaml` names the classes, `assets/model_card.json` says what the model "
        "was trained on, how it scored, and where its limits lie.",
        "",
    ]
    return "\n".join(lines)


def _attributes(module: str, name: str, intro: str) -> str:
    meanings = entries(sections(doc(module, name)).get("Attributes", ""))
    known = [f.name for f in fields(module, name)]
    rows = [(code(key), escape(text)) for key, text in meanings.items() if key in known]
    return f"{intro}:\n\n" + table(("key", "meaning"), rows)


def _between(text: str, first: str, last: str) -> str:
    start, end = text.find(first), text.find(last)
    return text[start:end] if 0 <= start < end else text
