"""One shard from plan to file: read, categorize, prepare, tile, encode, write, rename.

A shard is the unit of parallel work, of retry and of resume. Its plan is a small file; its pixels
never leave the worker that makes it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import Any

from pipelines import augment, examples, records
from pipelines import label_map as label_maps
from pipelines.augment import AugmentPlan
from pipelines.manifest import Tally
from pipelines.masks import MaskReading
from pipelines.preparation import Preparation
from pipelines.sources import Rejected, Source, keyed_hash

WORK_FOLDER = ".shards"  # inside the dataset: plans, and what each finished shard says of itself
CODE_VERSION = 2  # raise it when the same sources and options would give other bytes


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
      empty_tiles: share of the tiles without foreground that the split "train" keeps.
      add_reduced: whether "train" also holds each source as a whole, reduced to a tile's size.
      image_encoding: "png", "raw" or "jpeg:QUALITY", of images; masks are always PNG.
      masks: how masks are read.
      augment: what is made of every source of the split "train"; None for nothing.
    """

    label_map: label_maps.LabelMap
    preparation: Preparation
    split: str
    split_method: str
    split_seed: int
    group_regex: str
    tile_size: int
    tile_overlap: int
    empty_tiles: float
    add_reduced: bool
    image_encoding: str
    masks: MaskReading
    augment: AugmentPlan | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in the order of the fields."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **data,
            "label_map": self.label_map.to_dict(),
            "preparation": dataclasses.asdict(self.preparation),
            "masks": dataclasses.asdict(self.masks),
            "augment": self.augment.to_dict() if self.augment else None,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Options:
        label_map = label_maps.from_dict(data["label_map"])
        preparation = Preparation.from_dict(data["preparation"])
        plan = augment.from_dict(data["augment"], "augment") if data["augment"] else None
        masks = MaskReading(**data["masks"])
        known = {"label_map": label_map, "preparation": preparation, "masks": masks}
        return cls(**{**data, **known, "augment": plan})


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


def _write(folder: str, plan: ShardPlan, options: Options) -> dict[str, Any]:
    num_classes = options.label_map.num_classes
    tally = Tally(num_classes, plan.channels)
    encoded: list[tuple[int, int, bytes]] = []
    rejected: list[Rejected] = []
    groups, used, unmatched_pixels = set(), 0, 0
    for position, source in enumerate(plan.sources):
        try:
            read = examples.read(source, options, plan.channels)
            unmatched_pixels += read.unmatched
            for index, record in enumerate(examples.make(read, options)):
                tally.add(record.image, record.mask)
                # Training wants neighbours in the file unlike each other; evaluation wants the
                # tiles of one image together, so that it can put the image back as it reads.
                mixed = keyed_hash(options.split_seed, f"{source.id}:{index}")
                key = (mixed, 0) if plan.split == "train" else (position, index)
                encoded.append((*key, records.encode(record, num_classes, options.image_encoding)))
        except examples.SourceError as error:
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
