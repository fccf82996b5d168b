"""The losses: names, formulas and parameters."""

from __future__ import annotations

from markdown_text import code, escape, prose, sections, table
from source_docs import doc, fields, module_doc, table_of

_LEGACY = "train.legacy_losses"


def page() -> str:
    """The page of all losses, as Markdown."""
    losses = table_of("train.losses", "LOSSES")
    lines = [
        "# Losses",
        "",
        "`train.loss` in the [experiment](experiment.md) is a sum of losses by name, with weights "
        "and with parameters in parentheses:",
        "",
        "```yaml",
        'train: {loss: "0.5*focal(gamma=2)+tversky(false_negatives=0.7)"}',
        "```",
        "",
        "In the formulas p is the probability that the network gives a class, g its truth, 0 or 1, "
        "y the true class of a pixel, K the number of classes, and s the parameter `smooth`. "
        "Pixels that are to be ignored take part in none.",
        "",
    ]
    for name, (module, kind) in losses.items():
        if module != _LEGACY:
            lines += [f"## {name}", "", *_body(module, kind)]
    lines += ["## Of the older projects", "", prose(module_doc(_LEGACY)), ""]
    rows = [
        (code(name), escape(doc(module, kind)))
        for name, (module, kind) in losses.items()
        if module == _LEGACY
    ]
    return "\n".join([*lines, table(("name", "formula"), rows), ""])


def _body(module: str, kind: str) -> list[str]:
    lines = [prose(sections(doc(module, kind))[""]), ""]
    knobs = [field for field in fields(module, kind) if field.doc]
    if knobs:
        rows = [(code(f.name), code(_default(f.default)), escape(f.doc)) for f in knobs]
        lines += [table(("parameter", "default", "meaning"), rows), ""]
    if any(field.name == "class_weights" for field in fields(module, kind)):
        lines += ["Takes `train.class_weights`.", ""]
    return lines


def _default(text: str) -> str:
    return {"True": "true", "False": "false"}.get(text, text)
