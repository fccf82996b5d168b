"""What is suspicious in a dataset's sources: found by the workers, summed up for the manifest.

A worker says of each source, in a few numbers, what only its pixels can tell (`examine`). From what
all of them said follow the findings of the whole (`summarize`), and whether an image is in two
splits (`refuse_leaks`).
"""

from __future__ import annotations

import dataclasses
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import cv2
import google_crc32c
import numpy as np

from flexseg_errors import FlexsegError
from pipelines import readers, records, storage
from pipelines.label_map import IGNORE_ID, TOP_COLORS, Color, LabelMap

MOST_EXAMPLES = 8  # sources that are named for a finding; the others are counted

_LOSSY = (".jpg", ".jpeg")
_BLOCK = 1 << 20  # pixels that are looked at at a time
_COLORS_HELD = 1 << 16  # colours that are summed up at a time; beyond, the rarest half is dropped

Note = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Finding:
    """How many sources something is true of, and the names of the first `MOST_EXAMPLES`."""

    count: int = 0
    examples: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class UnmatchedColor:
    """A colour of masks that is further from every colour of the label map than the tolerance.

    Attributes:
      color: RGB.
      pixels: how many have it, in the masks of which it is among the most frequent such colours.
      masks: how many masks those are.
      nearest: id of the class with the nearest colour.
      distance: to that colour, Euclidean in RGB units (0..441).
    """

    color: Color
    pixels: int
    masks: int
    nearest: int
    distance: float


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Images that are the same pixel for pixel; those of one value everywhere are left out.

    Attributes:
      contents: how many different images occur more than once.
      sources: how many sources show them.
      relabeled: how many of the contents have masks that differ in the pixels of some class.
      examples: the names of the sources of some contents, `MOST_EXAMPLES` of each at most.
    """

    contents: int = 0
    sources: int = 0
    relabeled: int = 0
    examples: tuple[tuple[str, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class Audit:
    """The findings. Its size depends on the splits and classes, not on the number of sources.

    Attributes:
      sources: split -> sources.
      class_sources: split -> sources whose mask holds each class, [K].
      empty_masks: split -> masks without foreground: nothing but background and ignored pixels.
      unmatched_colors: the most frequent over all masks, most pixels first.
      lossy_masks: suffix -> masks in a format that does not keep pixel values.
      zero_one_masks: masks of 0 and 1 alone, where others reach 255.
      misread_masks: masks that hold two values of which the reading made one class, or one class
        and ignored pixels: 0 and 1 read as colours, 0 and 255 read as class ids.
      constant_images: images with the same colour everywhere.
      duplicates: images that occur more than once.
    """

    sources: Mapping[str, int]
    class_sources: Mapping[str, tuple[int, ...]]
    empty_masks: Mapping[str, Finding]
    unmatched_colors: tuple[UnmatchedColor, ...] = ()
    lossy_masks: Mapping[str, Finding] = dataclasses.field(default_factory=dict)
    zero_one_masks: Finding = Finding()
    misread_masks: Finding = Finding()
    constant_images: Finding = Finding()
    duplicates: Duplicates = Duplicates()

    @property
    def missing_classes(self) -> dict[int, tuple[str, ...]]:
        """Class id -> the splits in which it does not occur, for classes that lack in any."""
        splits = [name for name, count in self.sources.items() if count]
        num_classes = max(map(len, self.class_sources.values()), default=0)
        missing = {
            k: tuple(s for s in splits if not self.class_sources[s][k]) for k in range(num_classes)
        }
        return {k: where for k, where in missing.items() if where}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is its inverse, also after a way through JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Audit:
        return cls(
            sources=dict(data["sources"]),
            class_sources={s: tuple(counts) for s, counts in data["class_sources"].items()},
            empty_masks=_findings(data["empty_masks"]),
            unmatched_colors=tuple(
                UnmatchedColor(**{**color, "color": tuple(color["color"])})
                for color in data["unmatched_colors"]
            ),
            lossy_masks=_findings(data["lossy_masks"]),
            zero_one_masks=_finding(data["zero_one_masks"]),
            misread_masks=_finding(data["misread_masks"]),
            constant_images=_finding(data["constant_images"]),
            duplicates=Duplicates(
                **{
                    **data["duplicates"],
                    "examples": tuple(map(tuple, data["duplicates"]["examples"])),
                }
            ),
        )


def examine(
    name: str,
    mask_path: str,
    image: np.ndarray,
    mask: np.ndarray,
    ids: np.ndarray,
    colors: Mapping[Color, int],
    class_pixels: np.ndarray | None = None,
) -> dict[str, Any]:
    """What one source says, before its size is changed.

    Args:
      name: what the source is called in findings; must not depend on the machine.
      mask_path: where the mask lies. Of the path only the suffix is kept.
      image: uint8 [H, W, C].
      mask: whole numbers as read, [H, W] or [H, W, 3].
      ids: the mask's class ids, uint8 [H, W], 255 where a pixel is ignored.
      colors: the most frequent colours beyond the tolerance, with their counts.
      class_pixels: pixels of each class, int64 [K], where they are counted already.

    Returns:
      Short JSON data, without keys that would say nothing:
        name: as given.
        content: `content_hash`, 32 hexadecimal digits; not there where the image is constant.
        labels: a checksum of the pixels of each class, 8 digits: masks of which it differs differ.
        classes: the class ids that occur, as the bits of a hexadecimal number.
        high: the largest value in the mask.
        ignored: 1 where some pixels are ignored.
        misread: 1 where the mask holds two values that were read as one class.
        lossy: the mask's suffix, where its format does not keep pixel values.
        colors: [[r, g, b, pixels], ...].
    """
    if class_pixels is None:
        class_pixels = records.value_counts(ids)[:IGNORE_ID]
    present = np.flatnonzero(class_pixels).tolist()
    counts = class_pixels[: present[-1] + 1] if present else class_pixels[:0]
    ignored = ids.size > int(class_pixels.sum())
    high = int(mask.max())
    lossy = lossy_suffix(mask_path)
    one_class = high == 1 and len(present) + ignored == 1 and int(mask.min()) == 0
    # As class ids, 255 is ignored; one-hot masks come with 255 where they say nothing of a pixel.
    as_ids = high == IGNORE_ID and ignored and not colors and not readers.is_one_hot(mask_path)
    misread = one_class or (as_ids and present == [0])
    found: dict[str, Any] = {
        "name": name,
        "content": "" if is_constant(image) else content_hash(image),
        "labels": f"{zlib.crc32(counts.astype('<i8').tobytes()):08x}",
        "classes": f"{sum(1 << k for k in present):x}",
        "high": high,
        "ignored": int(ignored),
        "misread": int(misread and not lossy),  # a lossy format makes 1 of 0 by itself
        "lossy": lossy,
        "colors": [[*color, count] for color, count in colors.items()][:TOP_COLORS],
    }
    return {key: value for key, value in found.items() if value or key == "name"}


def is_constant(image: np.ndarray) -> bool:
    """Whether all pixels of an image, [H, W, C], are equal. Most others show it in a row."""
    first = image[0, 0]
    for block in _blocks(image, first_row_alone=True):
        flat, channels = block.reshape(-1), block.shape[2]
        if (block[0, 0] != first).any() or not np.array_equal(flat[channels:], flat[:-channels]):
            return False
    return True


def content_hash(image: np.ndarray) -> str:
    """A checksum of an image's shape and pixels, whatever its file is like.

    Args:
      image: uint8 [H, W, C].

    Returns:
      32 hexadecimal digits: four CRC-32C, each of "H W C " and every fourth row. Images that differ
      in four rows or more that follow one another have the same by chance in one of 2^128 pairs, at
      a fraction of the cost of SHA-256. An image of three equal channels has the checksum of the
      first alone, as if it had been read as gray.
    """
    height, width, channels = image.shape
    gray = channels == 3 and all(map(_is_gray, _blocks(image)))
    start = google_crc32c.value(f"{height} {width} {1 if gray else channels} ".encode())
    sums, y = [start] * 4, 0
    for block in _blocks(image):
        for row in cv2.extractChannel(block, 0) if gray else block:
            sums[y % 4] = google_crc32c.extend(sums[y % 4], row)
            y += 1
    return "".join(f"{value:08x}" for value in sums)


def lossy_suffix(mask_path: str) -> str:
    """The suffix, in lower case, of a mask whose format does not keep pixel values; else ""."""
    suffix = os.path.splitext(mask_path.lower())[1]
    if suffix == ".webp":
        with storage.open_read(mask_path) as file:
            return suffix if _is_lossy_webp(file) else ""
    return suffix if suffix in _LOSSY else ""


def summarize(found: Mapping[str, Sequence[Note]], label_map: LabelMap) -> Audit:
    """The findings over all sources.

    Args:
      found: split -> what `examine` said of each of its sources. A split that is written in two
        forms is given once.
      label_map: the classes.
    """
    num_classes = label_map.num_classes
    class_sources = {split: np.zeros(num_classes, np.int64) for split in found}
    empty = {split: _Collected() for split in found}
    lossy: dict[str, _Collected] = {}
    zero_one, misread, constant = _Collected(), _Collected(), _Collected()
    colors = _ColorSums()
    others_reach_255 = False
    for split, notes in found.items():
        for note in notes:
            name, present = note["name"], int(note.get("classes", "0"), 16)
            class_sources[split] += [present >> k & 1 for k in range(num_classes)]
            if not present >> 1:
                empty[split].add(name)
            if "content" not in note:
                constant.add(name)
            if "misread" in note:
                misread.add(name)
            if "lossy" in note:
                lossy.setdefault(note["lossy"], _Collected()).add(name)
            elif note.get("high") == 1:
                zero_one.add(name)
            # Where masks hold class ids, 255 is an ignored pixel, and no other kind of mask.
            if note.get("high") == 255 and ("ignored" not in note or "misread" in note):
                others_reach_255 = True
            colors.add(note.get("colors", ()))
    return Audit(
        sources={split: len(notes) for split, notes in found.items()},
        class_sources={split: tuple(counts.tolist()) for split, counts in class_sources.items()},
        empty_masks={split: collected.finding() for split, collected in empty.items()},
        unmatched_colors=colors.top(label_map),
        lossy_masks={suffix: lossy[suffix].finding() for suffix in sorted(lossy)},
        zero_one_masks=zero_one.finding() if others_reach_255 else Finding(),
        misread_masks=misread.finding(),
        constant_images=constant.finding(),
        duplicates=_duplicates(found),
    )


def leaks(found: Mapping[str, Sequence[Note]]) -> list[tuple[tuple[str, str], ...]]:
    """The images that are in more than one split: for each, (split, name) of all its sources."""
    return [
        tuple((split, note["name"]) for split, note in same)
        for same in _same_content(found)
        if len({split for split, _ in same}) > 1
    ]


def refuse_leaks(found: Mapping[str, Sequence[Note]], most: int = 50) -> None:
    """Refuses a dataset in which an image is in more than one split.

    Args:
      found: see `summarize`.
      most: how many such images the message lists.

    Raises:
      FlexsegError: listing them, and what to do.
    """
    found_leaks = leaks(found)
    if not found_leaks:
        return
    lines = []
    for same in found_leaks[:most]:
        shown = [f"{name} ({split})" for split, name in _one_of_each_split_first(same)]
        more = len(shown) - MOST_EXAMPLES
        lines.append("  " + " = ".join(shown[:MOST_EXAMPLES]) + (f" = {more} more" * (more > 0)))
    if len(found_leaks) > most:
        lines.append(f"  ... and {len(found_leaks) - most} more")
    several = len(found_leaks) > 1
    raise FlexsegError(
        f"{len(found_leaks)} image{'s are' if several else ' is'}, pixel for pixel, in more than "
        "one split, so that a model would be judged by what it was trained on:\n"
        + "\n".join(lines)
        + "\nKeep one of each and remove the others with their masks; or, where the splits are "
        "drawn here, give those that are equal one group, with --group_regex or --groups."
    )


class _Collected:
    """A finding that grows."""

    def __init__(self) -> None:
        self._count = 0
        self._examples: list[str] = []

    def add(self, name: str) -> None:
        self._count += 1
        if len(self._examples) < MOST_EXAMPLES:
            self._examples.append(name)

    def finding(self) -> Finding:
        return Finding(self._count, tuple(self._examples))


class _ColorSums:
    """Sums up the unmatched colours of many masks, in bounded memory."""

    def __init__(self) -> None:
        self._sums: dict[Color, tuple[int, int]] = {}  # pixels, masks

    def add(self, colors: Sequence[Sequence[int]]) -> None:
        for r, g, b, count in colors:
            pixels, masks = self._sums.get((r, g, b), (0, 0))
            self._sums[r, g, b] = (pixels + count, masks + 1)
        if len(self._sums) > _COLORS_HELD:
            self._sums = dict(self._sorted()[: _COLORS_HELD // 2])

    def top(self, label_map: LabelMap) -> tuple[UnmatchedColor, ...]:
        return tuple(
            UnmatchedColor(color, pixels, masks, *_nearest(color, label_map))
            for color, (pixels, masks) in self._sorted()[:TOP_COLORS]
        )

    def _sorted(self) -> list[tuple[Color, tuple[int, int]]]:
        return sorted(self._sums.items(), key=lambda item: (-item[1][0], item[0]))


def _nearest(color: Color, label_map: LabelMap) -> tuple[int, float]:
    """(Class id, distance in RGB units)."""
    distance, class_id = min(
        (math.dist(color, other), label.id) for label in label_map.classes for other in label.colors
    )
    return class_id, round(distance, 1)


def _duplicates(found: Mapping[str, Sequence[Note]]) -> Duplicates:
    same = _same_content(found)
    return Duplicates(
        contents=len(same),
        sources=sum(map(len, same)),
        relabeled=sum(len({note["labels"] for _, note in sources}) > 1 for sources in same),
        examples=tuple(
            tuple(note["name"] for _, note in sources[:MOST_EXAMPLES])
            for sources in same[:MOST_EXAMPLES]
        ),
    )


def _same_content(found: Mapping[str, Sequence[Note]]) -> list[list[tuple[str, Note]]]:
    """(split, note) of the sources of each content that has several, by name."""
    # Two passes: of a million contents only the repeated ones get a list.
    seen: set[str] = set()
    repeated: dict[str, dict[str, tuple[str, Note]]] = {}
    for notes in found.values():
        for note in notes:
            content = note.get("content")
            if content in seen:
                repeated[content] = {}
            elif content is not None:
                seen.add(content)
    for split, notes in found.items():
        for note in notes:
            if note.get("content") in repeated:
                repeated[note["content"]].setdefault(note["name"], (split, note))
    same = [[by_name[n] for n in sorted(by_name)] for by_name in repeated.values()]
    return sorted((s for s in same if len(s) > 1), key=lambda s: s[0][1]["name"])


def _one_of_each_split_first(same: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """So that a list that is cut short still shows that there are several."""
    first = {split: (split, name) for split, name in reversed(same)}
    chosen = [entry for entry in same if entry in first.values()]
    return chosen + [entry for entry in same if entry not in first.values()]


def _blocks(image: np.ndarray, first_row_alone: bool = False) -> Iterator[np.ndarray]:
    """Runs of rows, contiguous; of an image that is contiguous itself, without a copy."""
    height, width, _ = image.shape
    start, rows = 0, 1 if first_row_alone else max(1, _BLOCK // width)
    while start < height:
        yield np.ascontiguousarray(image[start : start + rows])
        start, rows = start + rows, max(1, _BLOCK // width)


def _is_gray(block: np.ndarray) -> bool:
    first = cv2.extractChannel(block, 0)
    others = (cv2.extractChannel(block, c) for c in (1, 2))
    return all(cv2.norm(first, other, cv2.NORM_INF) == 0 for other in others)


def _is_lossy_webp(file: BinaryIO) -> bool:
    """Whether a WebP file's first picture is of the lossy kind.

    A file is a run of chunks, each of four letters, a length and its data: "VP8 " is a lossy
    picture, "VP8L" one without loss (RFC 9649, section 2). An animation's lie within "ANMF".
    """
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, length = head[:4], int.from_bytes(head[4:], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8 "
        file.seek(16 if kind == b"ANMF" else length + length % 2, os.SEEK_CUR)
    return True  # nothing that says otherwise


def _finding(data: Mapping[str, Any]) -> Finding:
    return Finding(data["count"], tuple(data["examples"]))


def _findings(data: Mapping[str, Any]) -> dict[str, Finding]:
    return {key: _finding(finding) for key, finding in data.items()}
