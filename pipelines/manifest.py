"""`dataset.json`: what a dataset holds, and whether that is what lies on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from flexseg_errors import FlexsegError, nearest
from pipelines import folder_kind, records, storage
from pipelines import label_map as label_maps
from pipelines.audit import Audit
from pipelines.preparation import Preparation

FILENAME = "dataset.json"
REJECTED = "rejected.jsonl"
FORMAT = "flexseg-dataset/1"

_BLOCK = 1 << 22  # pixels


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file. `bytes` is its size, `sha256` its checksum in hexadecimal."""

    name: str
    examples: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
    """What one split holds.

    Attributes:
      examples: records.
      sources: images that they were made from.
      groups: groups that those belong to.
      pixels: of all records together, ignored ones among them.
      class_pixels: pixels of each class, [K].
      class_examples: records that hold each class, [K].
      class_sources: sources that hold each class, [K].
      channel_mean: mean of each image channel, 0..255.
      channel_std: standard deviation of each image channel.
      min_size: smallest height and width of a record.
      max_size: largest height and width of a record.
      unmatched_pixels: mask pixels further from every colour than the tolerance.
      shards: its files, in order.
    """

    examples: int
    sources: int
    groups: int
    pixels: int
    class_pixels: tuple[int, ...]
    class_examples: tuple[int, ...]
    class_sources: tuple[int, ...]
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    min_size: tuple[int, int]
    max_size: tuple[int, int]
    unmatched_pixels: int
    shards: tuple[Shard, ...]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a dataset holds.

    Attributes:
      folder: where it was read from; not part of the file.
      label_map: its classes.
      channels: of its images, 1 or 3.
      preparation: what was done to the sources.
      options: all else that `flexseg prepare` was told, by the names of `shards.Options`.
      fingerprint: changes with options and content.
      rejected: sources that could not be used.
      splits: what each split holds.
      audit: what was noticed about the sources; None in a view of several splits.
    """

    folder: str
    label_map: label_maps.LabelMap
    channels: int
    preparation: Preparation
    options: Mapping[str, Any]
    fingerprint: str
    rejected: int
    splits: Mapping[str, Split]
    audit: Audit | None = None

    def split(self, name: str) -> Split:
        """The split of that name.

        Raises:
          FlexsegError: where the dataset has none, naming those it has.
        """
        if name not in self.splits:
            raise FlexsegError(
                f'The dataset {self.folder} has no split "{name}"; it has {", ".join(self.splits)}.'
                + nearest(name, self.splits)
            )
        return self.splits[name]

    def paths(self, split: str) -> list[str]:
        """The files of a split, in order."""
        return [storage.join(self.folder, s.name) for s in self.split(split).shards]


@dataclasses.dataclass
class Tally:
    """Sums over records, from which a split's statistics follow.

    They are whole numbers, and so the same in any order.
    """

    num_classes: int
    channels: int

    def __post_init__(self) -> None:
        self.examples = 0
        self.pixels = 0
        self.class_pixels = np.zeros(self.num_classes, np.int64)
        self.class_examples = np.zeros(self.num_classes, np.int64)
        self.channel_sum = np.zeros(self.channels, np.int64)
        self.channel_squares = np.zeros(self.channels, np.int64)
        self.sizes: set[tuple[int, int]] = set()

    def add(self, image: np.ndarray, class_pixels: np.ndarray) -> None:
        """Counts one record: image uint8 [H, W, C], pixels of each class in its mask, [K]."""
        sums, squares = _sums(image)
        self.channel_sum += sums
        self.channel_squares += squares
        height, width = image.shape[:2]
        self.examples += 1
        self.pixels += height * width
        self.class_pixels += class_pixels
        self.class_examples += class_pixels > 0
        self.sizes.add((height, width))

    def merge(self, other: Tally) -> None:
        """Adds what another tally counted."""
        for key, value in vars(other).items():
            if key == "sizes":
                self.sizes |= value
            elif key not in ("num_classes", "channels"):
                setattr(self, key, getattr(self, key) + value)

    def to_dict(self) -> dict[str, Any]:
        return {
            "examples": self.examples,
            "pixels": self.pixels,
            "class_pixels": self.class_pixels.tolist(),
            "class_examples": self.class_examples.tolist(),
            "channel_sum": self.channel_sum.tolist(),
            "channel_squares": self.channel_squares.tolist(),
            "min_size": [min(s[i] for s in self.sizes) for i in (0, 1)] if self.sizes else None,
            "max_size": [max(s[i] for s in self.sizes) for i in (0, 1)] if self.sizes else None,
        }


def _sums(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and sum of squares of each channel of an image uint8 [H, W, C]: int64 [C], exact.

    OpenCV's mean and deviation come from exact sums at a third of the cost of counting values; in
    blocks of so many pixels, float64 gives the whole numbers back.
    """
    height, width, channels = image.shape
    sums, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    rows = max(1, _BLOCK // width)
    for start in range(0, height, rows):
        block = image[start : start + rows]
        mean, deviation = (values[:, 0] for values in cv2.meanStdDev(block))
        pixels = block.shape[0] * width
        sums += np.rint(mean * pixels).astype(np.int64)
        squares += np.rint((deviation**2 + mean**2) * pixels).astype(np.int64)
    return sums, squares


def summarize(shards: Sequence[Mapping[str, Any]]) -> Split:
    """Adds up what the shards of one split say of themselves (see `prepare.materialize`)."""
    tallies = [s["tally"] for s in shards if s["tally"]["examples"]]

    def total(key: str) -> np.ndarray:
        return np.sum([np.array(t[key], object) for t in tallies], axis=0)

    pixels = int(total("pixels"))
    mean = [int(v) / pixels for v in total("channel_sum")]
    squares = [int(v) / pixels for v in total("channel_squares")]
    return Split(
        examples=int(total("examples")),
        sources=sum(s["sources"] for s in shards),
        groups=len({g for s in shards for g in s["groups"]}),
        pixels=pixels,
        class_pixels=tuple(int(v) for v in total("class_pixels")),
        class_examples=tuple(int(v) for v in total("class_examples")),
        class_sources=tuple(
            int(v) for v in np.sum([np.array(s["class_sources"], object) for s in shards], axis=0)
        ),
        channel_mean=tuple(round(m, 6) for m in mean),
        channel_std=tuple(
            round(max(0.0, s - m * m) ** 0.5, 6) for m, s in zip(mean, squares, strict=True)
        ),
        min_size=_size(min, tallies, "min_size"),
        max_size=_size(max, tallies, "max_size"),
        unmatched_pixels=sum(s["unmatched_pixels"] for s in shards),
        shards=tuple(
            Shard(s["name"], s["tally"]["examples"], s["bytes"], s["sha256"]) for s in shards
        ),
    )


def dump(manifest: Manifest) -> str:
    """The text of `dataset.json`; the same manifest always gives the same text."""
    data = {
        "format": FORMAT,
        "label_map": manifest.label_map.to_dict(),
        "channels": manifest.channels,
        "preparation": dataclasses.asdict(manifest.preparation),
        "options": dict(manifest.options),
        "fingerprint": manifest.fingerprint,
        "rejected": manifest.rejected,
        "audit": manifest.audit.to_dict() if manifest.audit else None,
        "splits": {name: dataclasses.asdict(split) for name, split in manifest.splits.items()},
    }
    return json.dumps(data, indent=1) + "\n"


def load(folder: str) -> Manifest:
    """Reads a dataset's manifest.

    Raises:
      FlexsegError: where the folder holds no finished dataset.
    """
    path = storage.join(folder, FILENAME)
    if not storage.is_file(path):
        what = "is no folder" if not storage.is_folder(folder) else f"holds no {FILENAME}"
        raise FlexsegError(
            f"{folder} {what}: it is not a dataset, or `flexseg prepare` has not finished it."
            + folder_kind.hint(folder, folder_kind.DATASET)
        )
    try:
        data = json.loads(storage.read_bytes(path))
        if data["format"] != FORMAT:
            raise FlexsegError(f"{path} has the format {data['format']!r}; expected {FORMAT!r}.")
        return Manifest(
            folder=folder,
            label_map=label_maps.from_dict(data["label_map"], path),
            channels=data["channels"],
            preparation=Preparation.from_dict(data["preparation"]),
            options=data["options"],
            fingerprint=data["fingerprint"],
            rejected=data["rejected"],
            splits={name: _split(split) for name, split in data["splits"].items()},
            audit=Audit.from_dict(data["audit"]) if data["audit"] else None,
        )
    except FlexsegError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FlexsegError(
            f"{path} is damaged ({error!r}); run `flexseg prepare` again."
        ) from error


def verify(folder: str) -> list[str]:
    """Holds a dataset's files to its manifest, reading every byte.

    Returns:
      What is wrong, a line each, naming file and byte offset; empty where all is well.
    """
    manifest = load(folder)
    problems = []
    expected = {s.name for split in manifest.splits.values() for s in split.shards}
    for name in sorted(set(storage.names(folder)) - expected):
        if name.endswith(".tfrecord"):
            problems.append(f"{name}: is not part of the dataset")
    for split in manifest.splits.values():
        for shard in split.shards:
            problems.extend(_verify_shard(folder, shard))
    return problems


def _verify_shard(folder: str, shard: Shard) -> list[str]:
    path = storage.join(folder, shard.name)
    if not storage.is_file(path):
        return [f"{shard.name}: is missing"]
    problems, count, size = [], 0, storage.size(path)
    if size != shard.bytes:
        problems.append(f"{shard.name}: has {size} bytes, expected {shard.bytes}")
    with storage.local_copy(path) as local, open(local, "rb") as file:
        try:
            for offset, data in records.read_framed(file, shard.name):
                count += 1
                try:
                    missing = records.ENCODED not in records.parse_features(data)
                except Exception:  # protobuf's DecodeError, whichever implementation is at work
                    missing = True
                if missing:
                    problems.append(f"{shard.name}: the record at byte {offset} is not an example")
        except FlexsegError as error:
            problems.append(str(error))
            return problems
        file.seek(0)
        checksum = hashlib.sha256()
        while block := file.read(1 << 20):
            checksum.update(block)
    if count != shard.examples:
        problems.append(f"{shard.name}: holds {count} records, expected {shard.examples}")
    if checksum.hexdigest() != shard.sha256:
        problems.append(f"{shard.name}: its SHA-256 is not the one in {FILENAME}")
    return problems


def _split(data: Mapping[str, Any]) -> Split:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return Split(**{**values, "shards": tuple(Shard(**s) for s in data["shards"])})


def _size(pick: Any, tallies: Sequence[Mapping[str, Any]], key: str) -> tuple[int, int]:
    return pick(t[key][0] for t in tallies), pick(t[key][1] for t in tallies)
