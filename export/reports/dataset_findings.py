"""What is suspicious in a dataset, the most serious first, and what to do about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from export.reports.page import number, percent
from pipelines.audit import Audit, Finding
from pipelines.label_map import Color
from pipelines.manifest import Manifest

SERIOUS, LOOK, NOTE = "serious", "look", "note"
LEVELS = {SERIOUS: "Serious", LOOK: "To be looked at", NOTE: "To be known"}

_FEW_GROUPS = 5  # below, a split's figures hang on single groups
_RARE = 0.001  # share of pixels
_MANY_EMPTY = 0.5  # share of masks
_MANY_UNMATCHED = 0.001  # share of pixels
_HELD_OUT = ("valid", "test")


@dataclasses.dataclass(frozen=True)
class Noticed:
    """One thing that was noticed.

    Attributes:
      level: a key of `LEVELS`.
      title: what it is, in a few words.
      text: what it means, and what to do.
      names: the sources concerned, or some of them; of equal images, those that are equal.
      sources: the same, one by one.
      more: how many others there are.
      colors: (RGB, what it is) of colours concerned.
    """

    level: str
    title: str
    text: str
    names: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    more: int = 0
    colors: tuple[tuple[Color, str], ...] = ()


def noticed(manifest: Manifest) -> list[Noticed]:
    """All that is suspicious, the most serious first."""
    found = [*_of_numbers(manifest)]
    if manifest.audit:
        found += [*_of_masks(manifest.audit, manifest), *_of_images(manifest.audit)]
        found += _of_classes(manifest.audit, manifest)
    order = list(LEVELS)
    return sorted(found, key=lambda one: order.index(one.level))


def _of_masks(audit: Audit, manifest: Manifest) -> Iterator[Noticed]:
    if audit.misread_masks.count:
        yield _about(
            SERIOUS,
            "Masks with two values that were read as one class",
            "The values are 0 and 1 where colors were expected, or 0 and 255 where class ids "
            "were. Their foreground is lost. See --mask_kind and --label_map of flexseg prepare.",
            audit.misread_masks,
        )
    if audit.zero_one_masks.count:
        yield _about(
            SERIOUS,
            "Masks of 0 and 1 among masks of 0 and 255",
            "Read as colors, the former are background only; read as class ids, the latter hold "
            "ignored pixels. --mask_kind=binary:0 reads both alike.",
            audit.zero_one_masks,
        )
    for split, empty in audit.empty_masks.items():
        if empty.count:
            share = empty.count / audit.sources[split]
            yield _about(
                LOOK if share > _MANY_EMPTY else NOTE,
                f"Masks without foreground in {split}",
                f"{percent(share)} of its masks show background alone. They may be right; then "
                "they teach what is not there. --empty_tiles keeps a share of them.",
                empty,
            )
    for suffix, lossy in audit.lossy_masks.items():
        yield _about(
            NOTE,
            f"Masks saved as {suffix}",
            "This format changes colors a little, most at the edges, so that edges are uncertain "
            "by a pixel or two.",
            lossy,
        )
    pixels = sum(s.pixels for s in manifest.splits.values())
    unmatched = sum(s.unmatched_pixels for s in manifest.splits.values())
    if audit.unmatched_colors or unmatched:
        yield Noticed(
            LOOK if unmatched > _MANY_UNMATCHED * pixels else NOTE,
            "Mask colors that match none of the label map",
            f"{number(unmatched)} mask pixels are far from every color of the label map. A color "
            "that many of them have may be a class that the label map lacks.",
            colors=tuple(
                (
                    color.color,
                    f"{color.color[0]}, {color.color[1]}, {color.color[2]}: {number(color.pixels)} "
                    f"pixels in {_count(color.masks, 'mask')}; nearest is "
                    f"{manifest.label_map.names[color.nearest]}, {color.distance:.0f} away",
                )
                for color in audit.unmatched_colors
            ),
        )


def _of_images(audit: Audit) -> Iterator[Noticed]:
    same = audit.duplicates
    if same.contents:
        relabeled = (
            f" {same.relabeled} of them with masks that differ, so that one of the masks is wrong."
            if same.relabeled
            else " Each counts as many times as it is there."
        )
        yield Noticed(
            SERIOUS if same.relabeled else LOOK,
            "Images that are there several times",
            f"{_count(same.contents, 'image')} came as {same.sources} sources."
            f"{relabeled} No image is in two splits.",
            names=tuple(" = ".join(names) for names in same.examples),
            sources=tuple(name for names in same.examples for name in names),
            more=same.contents - len(same.examples),
        )
    if audit.constant_images.count:
        yield _about(
            LOOK,
            "Images of one color everywhere",
            "There is nothing to be seen in them.",
            audit.constant_images,
        )


def _of_classes(audit: Audit, manifest: Manifest) -> Iterator[Noticed]:
    splits = [name for name, count in audit.sources.items() if count]
    for class_id, missing in audit.missing_classes.items():
        name = manifest.label_map.names[class_id]
        where = ", ".join(missing)
        if len(missing) == len(splits):
            yield Noticed(
                SERIOUS,
                f"No mask shows the class {name}",
                "Nothing can be learned of it. Is its color in the label map the one in the masks?",
            )
        elif "train" in missing:
            yield Noticed(
                SERIOUS,
                f"The class {name} is missing from train",
                f"It occurs in {', '.join(s for s in splits if s not in missing)} alone, and a "
                "model can only miss it. Another --split_seed may divide the groups better.",
            )
        else:
            yield Noticed(
                LOOK,
                f"The class {name} is missing from {where}",
                f"What is learned of it cannot be judged on {where}.",
            )


def _of_numbers(manifest: Manifest) -> Iterator[Noticed]:
    if manifest.rejected:
        yield Noticed(
            LOOK,
            "Sources that could not be used",
            f"{_count(manifest.rejected, 'source')} {'is' if manifest.rejected == 1 else 'are'} "
            "not in the dataset; see the list below.",
        )
    for name in _HELD_OUT:
        groups = manifest.splits[name].groups if name in manifest.splits else _FEW_GROUPS
        if groups < _FEW_GROUPS:
            yield Noticed(
                LOOK,
                f"Few groups in {name}",
                f"It holds {_count(groups, 'group')}, so that its figures may say more of those "
                "than of images to come. --folds judges on every group in turn.",
            )
    total = sum(sum(s.class_pixels) for s in manifest.splits.values())
    for label in manifest.label_map.classes:
        pixels = sum(s.class_pixels[label.id] for s in manifest.splits.values())
        if label.id and 0 < pixels < _RARE * total:
            yield Noticed(
                NOTE,
                f"The class {label.name} is rare",
                f"It has {percent(pixels / total)} of the pixels. --config.train.class_weights and "
                "--config.data.foreground_share of flexseg train give it more weight.",
            )


def _about(level: str, title: str, text: str, finding: Finding) -> Noticed:
    return Noticed(
        level,
        f"{title}: {number(finding.count)}",
        text,
        names=finding.examples,
        sources=finding.examples,
        more=finding.count - len(finding.examples),
    )


def _count(value: int, noun: str) -> str:
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"
