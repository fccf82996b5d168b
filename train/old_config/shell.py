"""An older project's config -> the commands that do the same work, as text for a shell."""

from __future__ import annotations

import dataclasses
import posixpath
import shlex
from collections.abc import Sequence

from flexseg_errors import FlexsegError
from pipelines.preprocessing import Preprocessing
from train.old_config import labels, predictions
from train.old_config.tables import API, FLEX
from train.old_config.values import Values

RECORDS = "records"
TEST_RECORDS = "records_test"
_LINKS = "flexseg_sources"
_SECTIONS = {
    FLEX: {"train": "train", "valid": "valid", "test": "test"},
    API: {"train": "train", "valid": "eval", "test": "test"},
}
_FOLDER_KEYS = {FLEX: ("images_dir", "masks_dir"), API: ("image_datapath", "mask_datapath")}


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of `flexseg`.

    Attributes:
      name: such as "prepare".
      flags: in order, not quoted.
      before: lines for the shell that come before it.
    """

    name: str
    flags: Sequence[str]
    before: Sequence[str] = ()

    def __str__(self) -> str:
        words = [f"flexseg {self.name}", *map(shlex.quote, self.flags)]
        return "\n".join([*self.before, " \\\n    ".join(words)])


def convert(values: Values, augmented: bool, folder: str) -> list[Command]:
    """The commands from folders to masks, in their order.

    Args:
      values: the config.
      augmented: whether the dataset holds the generator's variants.
      folder: where the converted files lie, as the commands are to name it.
    """
    run = posixpath.join(_folder(values, "train", "model_dir") or "models", "flexseg")
    splits = _splits(values)
    commands = _prepare(values, splits, augmented, folder)
    experiment = posixpath.join(folder, "experiment.yaml")
    commands.append(
        Command("train", [f"--experiment={experiment}", f"--data={RECORDS}", f"--run={run}"])
    )
    commands += _evaluate(values, splits, run)
    commands += _predict(values, run)
    return commands


def _splits(values: Values) -> dict[str, tuple[str, str]]:
    """Split -> its folders of images and masks, of the splits that the config has."""
    found = {}
    for split, section in _SECTIONS[values.dialect].items():
        images, masks = (_folder(values, section, key) for key in _FOLDER_KEYS[values.dialect])
        if images and masks:
            found[split] = (images, masks)
        elif images or masks:
            values.note("prepare", f"[{section}] has images or masks alone; it needs both.")
    return found


def _folder(values: Values, section: str, key: str) -> str | None:
    """A folder as the commands name it: without a slash at its end."""
    path = values.get(section, key)
    if not path:
        return None
    if not path.isprintable():
        values.note_on(
            section,
            key,
            "could not have worked: a backslash before a letter such as t "
            "is no backslash to Python. Write / instead.",
        )
    if "\\" in path:
        path = path.replace("\\", "/")
        values.note_on(section, key, "is written for Windows; the commands have / for \\.")
    return path.rstrip("/") or "/"


def _prepare(
    values: Values, splits: dict[str, tuple[str, str]], augmented: bool, folder: str
) -> list[Command]:
    size = values.get("model", "image_height"), values.get("model", "image_width")
    if size[0] != size[1]:
        values.note(
            "prepare",
            "[model] image_height and image_width differ; the old program "
            "exchanged them on the way, so that only squares worked.",
        )
    if min(size) < 1:
        values.note(
            "prepare",
            f"[model] image_height {size[0]} and image_width {size[1]} could not"
            " have worked; 512 is taken.",
        )
        size = 512, 512
    flags = [
        f"--label_map={posixpath.join(folder, 'label_map.yaml')}",
        f"--image_size={size[0]},{size[1]}",
        *labels.mask_flags(values),
        *_preprocessing(values),
    ]
    _note_reading(values)
    full = [*flags, f"--augment={posixpath.join(folder, 'augmentation.yaml')}"] * augmented or flags
    if values.dialect == API and "train" in splits and "valid" not in splits:
        return _split_train(values, splits, full, flags)
    source = _root(splits)
    if source:
        return [Command("prepare", [f"--dataset={source}", f"--output={RECORDS}", *full])]
    lines = [f"mkdir -p {' '.join(posixpath.join(_LINKS, split) for split in splits)}"]
    for split, folders in splits.items():
        for kind, path in zip(("images", "masks"), folders, strict=True):
            target = posixpath.join(_LINKS, split, kind)
            lines.append(f'ln -sfn "$(realpath {shlex.quote(path)})" {target}')
    return [Command("prepare", [f"--dataset={_LINKS}", f"--output={RECORDS}", *full], lines)]


def _split_train(
    values: Values,
    splits: dict[str, tuple[str, str]],
    full: Sequence[str],
    flags: Sequence[str],
) -> list[Command]:
    """Without folders for validation the old program took a fifth of those for training."""
    values.note(
        "prepare",
        "[eval] has no folders: the old program validated on a fifth of the "
        "training images, the last by name; here groups are drawn.",
    )
    images, masks = splits["train"]
    folders = [f"--images={images}", f"--masks={masks}", f"--output={RECORDS}"]
    commands = [Command("prepare", [*folders, *full, "--split=train:0.8,valid:0.2"])]
    if "test" in splits:
        images, masks = splits["test"]
        folders = [f"--images={images}", f"--masks={masks}", f"--output={TEST_RECORDS}"]
        commands.append(Command("prepare", [*folders, *flags, "--split=test:1"]))
    return commands


def _root(splits: dict[str, tuple[str, str]]) -> str | None:
    """The folder of a dataset that lies as `flexseg prepare --dataset` wants it; or None."""
    roots = set()
    for split, (images, masks) in splits.items():
        parent, name = posixpath.split(images)
        if (name, masks) != ("images", posixpath.join(parent, "masks")):
            return None
        if posixpath.basename(parent) != split:
            return None
        roots.add(posixpath.dirname(parent) or ".")
    return roots.pop() if len(roots) == 1 else None


def _preprocessing(values: Values) -> list[str]:
    if values.dialect == FLEX:
        return []
    gamma, k = values.get("image", "gamma"), values.get("image", "sharpening")
    parts = []
    if gamma > 0:
        parts.append(f"gamma={gamma}")
    if k > 0:
        parts.append(f"sharpen={k}")
    if values.get("image", "reverse"):
        parts.append("invert")
    contrast = [values.get("image", key) for key in ("contrast_alpah", "contrast_best")]
    if values.get("image", "contrast_adjuster"):
        parts.append(f"contrast={contrast[0]}:{contrast[1]}")
    else:
        for key in ("contrast_alpah", "contrast_best"):
            if values.given("image", key):
                values.note_on(
                    "image", key, "had no effect: [image] contrast_adjuster is not True."
                )
    converter = values.get("image", "color_converter")
    if converter:
        parts.append(f"color={converter}")
    taken: list[str] = []
    for part in parts:
        try:
            Preprocessing.from_text(",".join([*taken, part]))
        except FlexsegError as error:
            values.note("prepare", f"[image] {part} is left out: {error}")
        else:
            taken.append(part)
    return [f"--preprocessing={','.join(taken)}"] if taken else []


def _note_reading(values: Values) -> None:
    """What the dataset does otherwise, because of what the config says."""
    if values.get("model", "image_channels") != 3:
        values.note_on(
            "model",
            "image_channels",
            "could not have worked: the old program read "
            "every image with 3 channels; here the files say how many there are.",
        )
    if values.dialect == FLEX:
        name = values.get("dataset", "class_name")
        if name != "ImageCategorizedMaskDataset":
            values.note_on(
                "dataset",
                "class_name",
                "could not have worked: the old program had ImageCategorizedMaskDataset alone.",
            )
        if values.get("image", "color_order").upper() != "RGB":
            values.note_on(
                "image",
                "color_order",
                "has no counterpart: images are RGB here, in training and in prediction.",
            )
        return
    if values.given("dataset", "color_order"):
        values.note_on(
            "dataset",
            "color_order",
            "has no counterpart: the old program trained on "
            "BGR and predicted from RGB unless this said bgr; here both are RGB.",
        )
    if values.get("dataset", "datasetclass") == "NormalizedImageMaskDataset":
        values.note(
            "prepare",
            "NormalizedImageMaskDataset stored images divided by 255 as whole "
            "numbers, 0 and 1, unless [dataset] image_normalize was True; here they stay "
            "0..255.",
        )
    elif values.given("mask", "normalized_threshold"):
        values.note_on(
            "mask",
            "normalized_threshold",
            "had no effect: [dataset] datasetclass is not NormalizedImageMaskDataset.",
        )
    if values.given("train", "dataset_splitter") and values.given("eval", "image_datapath"):
        values.note_on("train", "dataset_splitter", "had no effect: [eval] has its own folders.")


def _evaluate(values: Values, splits: dict[str, tuple[str, str]], run: str) -> list[Command]:
    split = "test"
    if values.dialect == API:
        section = values.get("model", "evaluation")
        known = {"train": "train", "eval": "valid", "valid": "valid", "test": "test"}
        split = known.get(section, "test")
        if section not in known:
            values.note_on(
                "model",
                "evaluation",
                "could not have worked: there is no section of that name; test is taken.",
            )
    own = values.dialect == API and "valid" not in splits
    if split not in splits and not (own and split == "valid"):
        values.note("evaluate", f"The config has no folders of a {split} split to evaluate.")
        return []
    data = [f"--data={TEST_RECORDS}"] if own and split == "test" else []
    return [Command("evaluate", [f"--run={run}", *data, f"--split={split}"])]


def _predict(values: Values, run: str) -> list[Command]:
    commands = []
    sections = ["infer", "tiledinfer"] + ["infer3d"] * (values.dialect == FLEX)
    for section in sections:
        images, output = (_folder(values, section, key) for key in ("images_dir", "output_dir"))
        if not images:
            continue
        output = output or f"{section}_output"
        flags = [f"--model={run}", f"--images={images}", f"--output={output}"]
        if section == "infer3d":
            flags += predictions.volumes(values)
        elif values.dialect == API:
            flags += predictions.painted(values, section)
        elif section == "tiledinfer":
            flags += predictions.margin(values)
        commands.append(Command("predict", flags))
        if section == "tiledinfer":
            _note_tiles(values)
    if commands:
        values.note(
            "predict", "The old program emptied its output folders first; nothing is deleted here."
        )
    return commands


def _note_tiles(values: Values) -> None:
    values.note(
        "predict",
        "A dataset prepared with --image_size makes predict stretch images to "
        "that size. To cut them into tiles at their own size, as [tiledinfer] did, prepare "
        "the dataset without --image_size (its images must all have the network's size, "
        "or be cut with --tile_size) and train on that.",
    )
