"""The figures of a dataset's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from export.reports import figures, page
from pipelines.manifest import Manifest

MOST_CLASSES = 40  # rows of a figure

_MARKERS = "osD^vPX<>h"
_SHOWN_LINES = 4  # splits that can be told apart as lines
_BINS = 64
_LEGEND = 56  # letters that a line of a legend has room for
_PEAK = 3  # a bin so many times above all others is cut off, and its share written beside it


def counts(manifest: Manifest) -> Markup:
    """Images, sources and groups of each split, as bars."""
    splits = manifest.splits
    rows = {
        "examples": [s.examples for s in splits.values()],
        "sources": [s.sources for s in splits.values()],
        "groups": [s.groups for s in splits.values()],
    }
    for earlier, later in (("sources", "groups"), ("examples", "sources")):
        if rows[earlier] == rows[later]:  # nothing that a second bar would say
            del rows[later]
    thick = 0.8 / len(rows)
    with figures.drawing(height=0.7 + 0.26 * len(rows) * len(splits)) as figure:
        axes = figure.subplots()
        for i, (name, values) in enumerate(rows.items()):
            at = np.arange(len(values)) + (i - (len(rows) - 1) / 2) * thick
            bars = axes.barh(at, values, 0.9 * thick, label=name)
            axes.bar_label(bars, fmt="{:,.0f}", padding=3)
        axes.set_yticks(range(len(splits)), [figures.label(name) for name in splits])
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x")
        if len(rows) > 1:
            figure.legend(loc="outside upper left", ncols=len(rows))
        told = "; ".join(
            f"{name}: " + ", ".join(f"{rows[kind][i]:,} {kind}" for kind in rows)
            for i, name in enumerate(splits)
        )
        return figures.svg(figure, "Examples of each split", told + ".")


def class_shares(manifest: Manifest, pixels: bool) -> Markup:
    """For each class, its share of the pixels, or of the examples, of each split.

    Args:
      manifest: the dataset.
      pixels: shares of pixels, on a logarithmic axis; else of the examples that show the class.
    """
    values = shares(manifest, pixels)
    shown = _shown(values)
    names = [figures.label(manifest.label_map.names[k]) for k in shown]
    some = values[values > 0]
    floor = 10 ** np.floor(np.log10(some.min())) / 2 if pixels and some.size else 0
    with figures.drawing(height=0.9 + 0.3 * len(shown) + 0.06 * len(values)) as figure:
        axes = figure.subplots()
        for i, split in enumerate(manifest.splits):
            row = values[i, shown]
            axes.plot(
                np.maximum(row, floor),
                np.arange(len(shown)) + _spread(i, len(values)),
                _MARKERS[i % len(_MARKERS)],
                label=figures.label(split),
                markersize=6,
                clip_on=False,
                fillstyle="full",
            )
        for at, k in enumerate(shown):
            if not values[:, k].any():
                axes.annotate("nowhere", (floor, at), xytext=(8, -3), textcoords="offset points")
        axes.set_yticks(range(len(shown)), names)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        if pixels and some.size:
            axes.set_xscale("log")
            axes.set_xlim(floor, 1)
            axes.minorticks_off()
        else:
            axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.6g}%")
        axes.grid(True)
        longest = max(len(figures.label(split)) for split in manifest.splits)
        columns = max(1, min(len(values), _LEGEND // (longest + 5)))
        figure.legend(loc="outside upper left", ncols=columns, handletextpad=0.2)
        what = "pixels" if pixels else "examples"
        told = f"Share of the {what} of each split; the numbers are in the table. "
        told += "A mark at the left edge stands for none." if pixels else ""
        return figures.svg(figure, f"Share of {what} of each class", told)


def shares(manifest: Manifest, pixels: bool) -> np.ndarray:
    """Each class's share of the labelled pixels, or the examples, of each split: [splits, K]."""
    splits = manifest.splits.values()
    if pixels:
        return np.array([np.array(s.class_pixels) / max(1, sum(s.class_pixels)) for s in splits])
    return np.array([np.array(s.class_examples) / max(1, s.examples) for s in splits])


def intensities(histograms: Mapping[str, np.ndarray]) -> Markup:
    """How often each intensity occurs, a picture for each channel, a line for each split.

    Args:
      histograms: split -> counts [256, C].
    """
    histograms = _drawn(histograms)
    titles = _channels(histograms) or ("share of pixels",)
    channels = len(titles)
    with figures.drawing(height=1.0 + (1.2 if channels > 1 else 1.6) * channels) as figure:
        rows = figure.subplots(channels, 1, sharex=True, squeeze=False)[:, 0]
        for c, axes in enumerate(rows):
            lines = [counted[:, c].reshape(_BINS, -1).sum(1) for counted in histograms.values()]
            lines = [binned / max(1, binned.sum()) for binned in lines]
            for i, (split, binned) in enumerate(zip(histograms, lines, strict=True)):
                axes.stairs(
                    binned,
                    np.linspace(0, 256, _BINS + 1),
                    label=figures.label(split) if not c else None,
                    color=figures.PALETTE[i],
                    linestyle=figures.LINES[i],
                    linewidth=1.5,
                )
            axes.set_ylabel(titles[c])
            axes.set_yticks([])
            axes.set_ylim(0, _cut(axes, np.array(lines)))
            axes.grid(True, axis="x")
        rows[-1].set_xlim(0, 256)
        rows[-1].set_xticks([0, 64, 128, 192, 255])
        rows[-1].set_xlabel("value of a pixel")
        figure.legend(loc="outside upper left", ncols=len(histograms))
        return figures.svg(
            figure,
            "Intensities of the images",
            "How often each value from 0 to 255 occurs in each channel; mean and standard "
            "deviation are in the table.",
        )


def _shown(values: np.ndarray) -> Sequence[int]:
    """The classes that a figure has room for: all, or the rarest, in the order of their ids."""
    count = values.shape[1]
    if count <= MOST_CLASSES:
        return range(count)
    return sorted(np.argsort(values.mean(0), kind="stable")[:MOST_CLASSES].tolist())


def intensity_rows(histograms: Mapping[str, np.ndarray]) -> tuple[list[str], list[list[str]]]:
    """The numbers behind `intensities`, in steps of 16: the head of a table, and its rows."""
    drawn = _drawn(histograms)
    names = _channels(drawn)
    head, columns = ["Values"], []
    for split, counted in drawn.items():
        shares = counted.reshape(16, 16, -1).sum(1) / np.maximum(1, counted.sum(0))
        head += [f"{split}, {name}" for name in names] or [split]
        columns += list(shares.T)
    rows = [
        [f"{16 * i} to {16 * i + 15}", *(page.percent(column[i]) for column in columns)]
        for i in range(16)
    ]
    return head, rows


def _drawn(histograms: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of the first splits, of one channel where all are alike."""
    drawn = dict(list(histograms.items())[:_SHOWN_LINES])
    if all((counted == counted[:, :1]).all() for counted in drawn.values()):
        return {split: counted[:, :1] for split, counted in drawn.items()}
    return drawn


def _channels(histograms: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The names of the channels; none where there is but one."""
    count = next(iter(histograms.values())).shape[1]
    return ("red", "green", "blue") if count == 3 else ()


def _cut(axes: Any, lines: np.ndarray) -> float:
    """Where the axis of lines [splits, bins] ends; a bin far above all others is named there."""
    highest = lines.max(0)
    second, first = np.sort(highest)[-2:]
    if first <= _PEAK * second:
        return 1.1 * first
    at = int(highest.argmax())
    width = 256 // _BINS
    shares = [f"{share:.0%}" for share in sorted(lines[:, at])]
    told = shares[0] if shares[0] == shares[-1] else f"{shares[0]} to {shares[-1]}"
    right = at >= _BINS // 2
    axes.annotate(
        f"{at * width} to {at * width + width - 1}: {told}",
        ((at + 0.5) * width, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-6 if right else 6, -2),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top",
    )
    return 1.5 * second or 1.1 * first


def _spread(index: int, count: int) -> Any:
    """Moves the marks of a row apart, so that equal ones can all be seen."""
    return (index - (count - 1) / 2) * min(0.22, 0.66 / count)
