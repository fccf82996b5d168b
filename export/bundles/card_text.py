"""A model card for people: in Markdown, and in lines under titles."""

from __future__ import annotations

from typing import Any


def text(card: dict[str, Any]) -> str:
    """The card for people, in Markdown."""
    lines = [f"# A segmentation model: {', '.join(card['classes'])}"]
    for title, content in sections(card).items():
        lines += ["", f"## {title}", ""]
        lines += content if title == "Metrics" else [f"- {line}" for line in content]
    return "\n".join(lines) + "\n"


def sections(card: dict[str, Any]) -> dict[str, list[str]]:
    """What the card says, in lines under titles; of an older card what it has."""
    colors = card.get("colors") or [None] * len(card["classes"])
    found = {
        "Classes": [
            f"{i} {name}" + (f", painted {_color(color)}" if color else "")
            for i, (name, color) in enumerate(zip(card["classes"], colors, strict=True))
        ],
        "Signatures": _signatures(card.get("signatures") or {}),
        "Data": _data_lines(card),
        "Metrics": _metric_lines(card["metrics"]),
        "Post-processing": _postprocessing_lines(card.get("postprocessing")),
        "Other formats": [format_line(k, v) for k, v in card.get("formats", {}).items()],
        "Limits": card.get("limits", []),
        "Trained with": card.get("trained_with", []),
        "Made with": [f"{name} {version}" for name, version in card["versions"].items()],
    }
    experiment = card.get("experiment", {})
    if "model" in experiment:
        found["Made with"].insert(0, f"the network {experiment['model'].get('name')}")
    return {title: lines for title, lines in found.items() if lines}


def format_line(name: str, figures: dict[str, Any]) -> str:
    """What another format is and how it compares with the network, in a line."""
    found = figures.get("parity", {})
    parts = [
        f"{name}: {', '.join(figures.get('files', []))}",
        f"{figures.get('bytes', 0) / 1e6:.1f} MB",
    ]
    if "agreement" in found:
        parts += [
            f"{found['agreement']:.4%} of pixels alike",
            f"probabilities differ by at most {found['max_difference']:.1e}",
            f"{found['images']} images: {found['source']}",
        ]
    if found.get("dice_lost") is not None:
        parts.append(f"foreground Dice lost {found['dice_lost']:+.4f}")
    return "; ".join(parts)


def _signatures(signatures: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {_specs(entry['inputs'])} -> {_specs(entry['outputs'])}"
        for name, entry in signatures.items()
    ]


def _specs(specs: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {spec['dtype']} [" + ",".join("?" if n is None else str(n) for n in spec["shape"])
        + "]"
        for name, spec in specs.items()
    )  # fmt: skip


def _color(color: list[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color) + f" ({', '.join(map(str, color))})"


def _data_lines(card: dict[str, Any]) -> list[str]:
    lines = [f"fingerprint {card.get('dataset_fingerprint', 'unknown')}"]
    data = card.get("data")
    if not data:
        return [*lines, "The dataset itself was not where it had been when the run was exported."]
    for name, split in data["splits"].items():
        with_class = ", ".join(
            f"{label} in {count}"
            for label, count in zip(card["classes"], split["class_sources"], strict=True)
        )
        lines.append(
            f"{name}: {split['sources']} images in {split['groups']} groups, "
            f"{split['examples']} examples ({with_class})"
        )
    return [f"dataset {data['name']}", *lines]


def _metric_lines(metrics: dict[str, Any]) -> list[str]:
    """A table in Markdown for each split, which a terminal shows well, too."""
    lines: list[str] = []
    for name, figures in metrics.items():
        intervals = figures.get("intervals") or {}
        ranges = [c["dice"] for c in intervals.get("classes", [])] or [None] * len(
            figures["classes"]
        )
        rows = [
            (c["name"], _figure(c.get("dice")), _range(r), _figure(c.get("iou")), c.get("images"))
            for c, r in zip(figures["classes"], ranges, strict=True)
        ]
        foreground = figures["foreground"]
        rows.append(
            (
                "foreground, mean",
                _figure(foreground.get("dice_macro")),
                _range(intervals.get("foreground_dice_macro")),
                _figure(foreground.get("iou_macro")),
                figures["images"],
            )
        )
        size = figures.get("size", "unknown")
        lines += ["", f"{name}: {figures['images']} images, size {size}", ""]
        lines += _table([("class", "Dice", "95% interval", "IoU", "images"), *rows])
    return lines[1:]


def _table(rows: list[tuple[Any, ...]]) -> list[str]:
    cells = [[str(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(v.ljust(w) for v, w in zip(r, widths, strict=True)) + " |" for r in cells
    ]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _range(interval: list[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _postprocessing_lines(chosen: dict[str, Any] | None) -> list[str]:
    if not chosen:
        return []
    lines = []
    for rule in chosen["classes"]:
        rest = ", ".join(f"{k} {v}" for k, v in rule.items() if k != "id")
        lines.append(f"class {rule['id']}: {rest}")
    return [*lines, "by flexseg predict, not by the signatures"]
