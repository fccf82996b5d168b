"""One shard from plan to file: read, categorize, prepare, tile, encode, write, rename.

A shard is the unit of parallel work, of retry and of resume. Its plan is a small file; its pixels
never leave the worker that makes it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from flexseg_errors import FlexsegError
from pipelines import label_map as label_maps
from pipelines import readers, records
from pipelines.manifest import Tally
from pipelines.preparation import Preparation
from pipelines.sources import Rejected, Source, keyed_hash
from pipelines.tiles import TileGrid

WORK_FOLDER = ".shards"  # inside the dataset: plans, and what each finished shard says of itself
CODE_VERSION = 1  # raise it when the same sources and options would give other bytes

# A mask with a larger share of pixels far from every colour is a mask in other colours.
UNMATCHED_LIMIT = 0.01


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides a dataset's bytes, apart from the sources.

    Attributes:
      label_map: names, colours and class ids.
      preparation: size or scale of the sources.
      split: shares of the splits, as text; "" where the sources came with splits.
      split_method: "exact" or "stable".
      split_seed: seed of the split and of the order of records.
      group_regex: finds the group in a source's path; "" makes each source its own group.
      tile_size: side of the square tiles, in pixels; 0 for whole images.
      tile_overlap: pixels that neighbouring tiles share at least.
      color_tolerance: RGB distance up to which a colour is taken for the nearest of the map.
      unmatched: "error" rejects a mask with many pixels beyond it, "nearest" takes it all the same.
    """

    label_map: label_maps.LabelMap
    preparation: Preparation
    split: str
    split_method: str
    split_seed: int
    group_regex: str
    tile_size: int
    tile_overlap: int
    color_tolerance: float
    unmatched: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in the order of the fields."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **data,
            "label_map": self.label_map.to_dict(),
            "preparation": dataclasses.asdict(self.preparation),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Options:
        label_map = label_maps.from_dict(data["label_map"])
        preparation = Preparation.from_dict(data["preparation"])
        return cls(**{**data, "label_map": label_map, "preparation": preparation})


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """Which sources go into one shard.

    Attributes:
      name: the file's name, `<split>-00007-of-00016.tfrecord`.
      split: the split.
      channels: 1 or 3, of every record of the dataset.
      sources: what it is made of, in the order of their keyed hash.
    """

    name: str
    split: str
    channels: int
    sources: tuple[Source, ...]

    def fingerprint(self, options: Options) -> str:
        """A checksum that changes with the options and with any of the files (size or time)."""
        state = [CODE_VERSION, options.to_dict(), self.name, self.channels]
        for source in self.sources:
            state.append([dataclasses.asdict(source), _stat(source.image), _stat(source.mask)])
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def write_plan(folder: str, plan: ShardPlan, options: Options) -> None:
    """Leaves the plan where a worker finds it by the shard's name."""
    data = {
        "shard": dataclasses.asdict(plan),
        "options": options.to_dict(),
        "fingerprint": plan.fingerprint(options),
    }
    write_whole(_work_path(folder, plan.name, "plan"), json.dumps(data).encode())


def materialize(folder: str, name: str) -> dict[str, Any]:
    """Makes one shard, or finds it made already.

    Args:
      folder: the dataset's folder, in which the plan lies.
      name: the shard's name.

    Returns:
      What the shard says of itself: name, fingerprint, bytes, sha256, tally, sources, groups,
      unmatched_pixels, rejected.
    """
    with open(_work_path(folder, name, "plan"), encoding="utf-8") as file:
        data = json.load(file)
    done = finished(folder, name, data["fingerprint"])
    if done is not None:
        return done
    shard = data["shard"]
    plan = ShardPlan(**{**shard, "sources": tuple(Source(**s) for s in shard["sources"])})
    result = _write(folder, plan, Options.from_dict(data["options"]))
    result["fingerprint"] = data["fingerprint"]
    write_whole(_work_path(folder, name, "done"), json.dumps(result).encode())
    return result


def finished(folder: str, name: str, fingerprint: str | None = None) -> dict[str, Any] | None:
    """What a shard says of itself, or None where it is not there.

    Where a fingerprint is given, a shard of another one is not there, nor one whose bytes are not
    those that were written.
    """
    path = os.path.join(folder, name)
    try:
        with open(_work_path(folder, name, "done"), encoding="utf-8") as file:
            done = json.load(file)
        whole = os.path.getsize(path) == done["bytes"]
        if whole and fingerprint is not None:
            whole = done["fingerprint"] == fingerprint and done["sha256"] == _sha256(path)
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged
        return None
    return done if whole else None


def write_whole(path: str, data: bytes) -> None:
    """Writes a file so that it appears under its name whole or not at all."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def examples(source: Source, options: Options, channels: int) -> Iterator[tuple[records.Record, int]]:
    """The records of one source, each with the number of its mask pixels that matched no colour.

    Raises:
      SourceError: where the source cannot be used.
    """
    image, ids, unmatched = _read(source, options, channels)
    image, ids = options.preparation.image(image), options.preparation.mask(ids)
    height, width = ids.shape
    tile = options.tile_size
    if not tile:
        yield records.Record(
            image, ids, source.id, source.filename, (0, 0), (height, width)
        ), unmatched
        return
    if min(height, width) < tile:
        raise SourceError(
            source.image,
            "tile",
            f"the image is {height}x{width}, smaller than a tile of {tile}; "
            "give a smaller --tile_size or a larger --scale",
        )
    for y, x in TileGrid(height, width, tile, options.tile_overlap):
        window = np.s_[y : y + tile, x : x + tile]
        yield records.Record(
            np.ascontiguousarray(image[window]),
            np.ascontiguousarray(ids[window]),
            source.id,
            source.filename,
            (y, x),
            (height, width),
        ), unmatched
        unmatched = 0  # counted once a source


class SourceError(FlexsegError):
    """A source that cannot be used; becomes a line of `rejected.jsonl`."""

    def __init__(self, path: str, stage: str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.rejected = Rejected(path, stage, reason)


def _read(source: Source, options: Options, channels: int) -> tuple[np.ndarray, np.ndarray, int]:
    try:
        image = readers.read_image(source.image, channels)
    except FlexsegError as error:
        raise SourceError(source.image, "read", str(error)) from error
    try:
        mask = readers.read_mask(source.mask)
    except FlexsegError as error:
        raise SourceError(source.mask, "read", str(error)) from error
    if image.shape[:2] != mask.shape[:2]:
        sizes = "image is {}x{}, the mask {}x{}".format(*image.shape[:2], *mask.shape[:2])
        raise SourceError(source.image, "read", f"sizes differ: the {sizes} ({source.mask})")
    categorizer = _categorizer(options.label_map, options.color_tolerance)
    result = categorizer(mask)
    share = result.unmatched / mask[..., 0].size if mask.ndim == 3 else result.unmatched / mask.size
    if options.unmatched == "error" and share > UNMATCHED_LIMIT:
        assert result.example is not None
        raise SourceError(
            source.mask,
            "categorize",
            f"{share:.1%} of the pixels are far from every color of the label map (further than "
            f"{categorizer.tolerance:.0f} in RGB), most of them {result.example}, whose nearest is "
            f"{categorizer.nearest(result.example)}; mend --label_map, or take the nearest color "
            "all the same with --unmatched=nearest",
        )
    return image, result.ids, result.unmatched


@functools.lru_cache(maxsize=2)  # its table is what makes the second mask fast
def _categorizer(label_map: label_maps.LabelMap, tolerance: float) -> label_maps.Categorizer:
    return label_maps.Categorizer(label_map, tolerance)


def _write(folder: str, plan: ShardPlan, options: Options) -> dict[str, Any]:
    num_classes = options.label_map.num_classes
    tally = Tally(num_classes, plan.channels)
    encoded: list[tuple[int, int, bytes]] = []
    rejected: list[Rejected] = []
    groups, used, unmatched_pixels = set(), 0, 0
    for position, source in enumerate(plan.sources):
        try:
            for index, (record, unmatched) in enumerate(examples(source, options, plan.channels)):
                unmatched_pixels += unmatched
                tally.add(record.image, record.mask)
                # Training wants neighbours in the file unlike each other; evaluation wants the
                # tiles of one image together, so that it can put the image back as it reads.
                mixed = keyed_hash(options.split_seed, f"{source.id}:{index}")
                key = (mixed, 0) if plan.split == "train" else (position, index)
                encoded.append((*key, records.encode(record, num_classes)))
        except SourceError as error:
            rejected.append(error.rejected)
            continue
        used += 1
        groups.add(source.group)
    path = os.path.join(folder, plan.name)
    temporary = os.path.join(folder, WORK_FOLDER, f"{plan.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        for *_, data in sorted(encoded):
            records.write_framed(file, data)
        file.flush()
        os.fsync(file.fileno())
    checksum, size = _sha256(temporary), os.path.getsize(temporary)
    os.replace(temporary, path)
    return {
        "name": plan.name,
        "split": plan.split,
        "bytes": size,
        "sha256": checksum,
        "tally": tally.to_dict(),
        "sources": used,
        "groups": sorted(groups),
        "unmatched_pixels": unmatched_pixels,
        "rejected": [dataclasses.asdict(r) for r in rejected],
    }


def _work_path(folder: str, name: str, kind: str) -> str:
    return os.path.join(folder, WORK_FOLDER, f"{name}.{kind}.json")


def _sha256(path: str) -> str:
    checksum = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    return checksum.hexdigest()


def _stat(path: str) -> list[int]:
    try:
        stat = os.stat(path)
    except OSError:
        return [-1, -1]
    return [stat.st_size, stat.st_mtime_ns]
