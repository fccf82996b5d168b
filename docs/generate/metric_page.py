"""The figures of an evaluation, from the docstrings of what computes them."""

from __future__ import annotations

from markdown_text import code, entries, escape, prose, sections, table
from source_docs import doc, fields, module_doc

_PARTS = (
    ("classes", "train.metrics", "ClassScores"),
    ("foreground", "train.metrics", "ForegroundScores"),
    ("overall", "train.metrics", "OverallScores"),
    ("per_image", "train.metrics", "ImageScores"),
    ("detection", "train.metrics", "Detection"),
    ("calibration", "train.calibration", "Scores"),
    ("intervals", "train.intervals", "Intervals"),
    ("boundary", "train.surface", "BoundaryScores"),
)
_LEGACY = (
    "dice_coef", "dice_coef_multiclass", "iou_coef", "sensitivity", "specificity",
    "binary_accuracy",
)  # fmt: skip


def page() -> str:
    """The page of the metrics, as Markdown."""
    lines = [
        "# Metrics",
        "",
        "What `flexseg evaluate` writes into `evaluation/SPLIT.json` of a run, part by part. What "
        "the figures mean for you, and when they mislead: "
        "[reading the metrics](../how-to/metrics.md). A figure that has no meaning, None below, is "
        "`null` in the file and leaves the means.",
        "",
        prose(module_doc("train.metrics")),
        "",
    ]
    for part, module, name in _PARTS:
        text = sections(doc(module, name))
        lines += [f"## {part}", ""]
        if part == "calibration":
            lines += [prose(module_doc(module)), ""]
        if part == "boundary":
            lines += ["With `--boundary` only.", "", prose(module_doc(module)), ""]
        lines += [prose(text[""]), ""]
        meanings = entries(text.get("Attributes", ""))
        rows = [
            (code(f.name), escape(meanings.get(f.name) or _meaning(f.name)))
            for f in fields(module, name)
        ]
        lines += [table(("figure", "meaning"), rows), ""]
    lines += ["## legacy", "", prose(module_doc("train.legacy_metrics")), ""]
    rows = [(code(n), escape(sections(doc("train.legacy_metrics", n))[""])) for n in _LEGACY]
    return "\n".join([*lines, table(("name", "formula"), rows), ""])


def _meaning(name: str) -> str:
    """Of a figure whose name says it, as the docstring of its class explains."""
    figure, _, how = name.rpartition("_")
    if how == "macro":
        return f"mean of {figure} over the classes from 1 that have it."
    if how == "pooled":
        return f"{figure} with all classes from 1 in one pool."
    raise KeyError(f"{name} has no meaning in the docstring of its class")
