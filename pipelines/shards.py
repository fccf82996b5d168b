"""One shard from plan to file: read, categorize, prepare, tile, encode, write, rename.

A shard is the unit of parallel work, of retry and of resume. Its plan is a small file; its pixels
never leave the worker that makes it, which holds one source, or one record, at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flexseg_errors import FlexsegError
from pipelines import augment, examples, formats, records, storage, volumes
from pipelines import label_map as label_maps
from pipelines.augment import AugmentPlan
from pipelines.manifest import Tally
from pipelines.masks import MaskReading
from pipelines.preparation import Preparation
from pipelines.slices import VolumeReading
from pipelines.sources import Rejected, Source, keyed_hash

WORK_FOLDER = ".shards"  # inside the dataset: plans, and what each finished shard says of itself
TRAINING_FORM = "_train"  # follows a fold's name where its training examples are written apart
CODE_VERSION = 3  # raise it when the same sources and options would give other bytes


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides a dataset's bytes, apart from the sources.

    Attributes:
      label_map: names, colours and class ids.
      preparation: size or scale of the sources.
      split: shares of the splits, as text; "" where the sources came with splits.
      split_method: "exact" or "stable".
      split_seed: seed of the split and of the order of records.
      folds: into how many folds what is not "test" is divided; 0 for none.
      group_regex: finds the group in a source's path; "" makes each source its own group.
      groups_from_file: whether a file names the groups. What it says is in each source.
      split_from: checksum of the splits of the earlier dataset that were to be kept.
      mask_suffix: what a mask's stem has beyond its image's.
      tile_size: side of the square tiles, in pixels; 0 for whole images.
      tile_overlap: pixels that neighbouring tiles share at least.
      empty_tiles: share of the tiles, or slices of volumes, without foreground that is kept.
      empty_tiles_in: "train", or "all" where they are left out of every split.
      add_reduced: whether "train" also holds each source as a whole, reduced to a tile's size.
      image_encoding: "png", "raw" or "jpeg:QUALITY", of images; masks are always PNG.
      masks: how masks are read.
      volumes: how volumes are cut into slices.
      shard_size_mb: the size that shards are to have, in MB; 0 for the rule of `plan`.
      num_shards: shards of each split; 0 leaves it to their size.
      max_pixels: the largest image that is decoded.
      augment: what is made of every source of the split "train"; None for nothing.
    """

    label_map: label_maps.LabelMap
    preparation: Preparation
    split: str = ""
    split_method: str = ""
    split_seed: int = 0
    folds: int = 0
    group_regex: str = ""
    groups_from_file: bool = False
    split_from: str = ""
    mask_suffix: str = ""
    tile_size: int = 0
    tile_overlap: int = 0
    empty_tiles: float = 1.0
    empty_tiles_in: str = "train"
    add_reduced: bool = False
    image_encoding: str = "png"
    masks: MaskReading = MaskReading()
    volumes: VolumeReading = VolumeReading()
    shard_size_mb: int = 0
    num_shards: int = 0
    max_pixels: int = formats.MAX_PIXELS
    augment: AugmentPlan | None = None

    @property
    def trains_on_other(self) -> bool:
        """Whether training examples differ from the sources as they are."""
        drops = self.empty_tiles < 1 and self.empty_tiles_in == "train"
        return self.augment is not None or self.add_reduced or drops

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in the order of the fields."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **data,
            "label_map": self.label_map.to_dict(),
            "preparation": dataclasses.asdict(self.preparation),
            "masks": dataclasses.asdict(self.masks),
            "volumes": dataclasses.asdict(self.volumes),
            "augment": self.augment.to_dict() if self.augment else None,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Options:
        label_map = label_maps.from_dict(data["label_map"])
        preparation = Preparation.from_dict(data["preparation"])
        plan = augment.from_dict(data["augment"], "augment") if data["augment"] else None
        known = {
            "label_map": label_map,
            "preparation": preparation,
            "masks": MaskReading(**data["masks"]),
            "volumes": VolumeReading(**data["volumes"]),
            "augment": plan,
        }
        return cls(**{**data, **known})


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """Which sources go into one shard.

    Attributes:
      name: the file's name, `<split>-00007-of-00016.tfrecord`.
      split: the split, or "<fold>_train" for the training form of a fold.
      channels: 1 or 3, of every record of the dataset.
      sources: what it is made of, in the order of their keyed hash.
    """

    name: str
    split: str
    channels: int
    sources: tuple[Source, ...]

    @property
    def training(self) -> bool:
        """Whether it holds training examples: augmented, mixed, and maybe not all of them."""
        return self.split == "train" or self.split.endswith(TRAINING_FORM)

    def fingerprint(self, options: Options, states: dict[str, Any]) -> str:
        """A checksum that changes with the options and with any of the files.

        Args:
          options: the dataset's.
          states: path -> `storage.state`; filled where a path is missing.
        """
        state = [CODE_VERSION, options.to_dict(), self.name, self.channels]
        for source in self.sources:
            for path in (source.image, source.mask):
                if path not in states:
                    of_path = storage.state if source.slice is None else volumes.state
                    states[path] = of_path(path)
            seen = [states[source.image], states[source.mask]]
            state.append([dataclasses.asdict(source), *seen])
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def write_plan(
    folder: str, plan: ShardPlan, options: Options, fingerprint: str, states: Mapping[str, Any]
) -> None:
    """Leaves the plan where a worker finds it by the shard's name.

    Args:
      folder: the dataset's folder.
      plan: the shard's.
      options: the dataset's.
      fingerprint: what `ShardPlan.fingerprint` gave.
      states: path -> its state when the job was planned.
    """
    paths = [path for source in plan.sources for path in (source.image, source.mask)]
    data = {
        "shard": dataclasses.asdict(plan),
        "options": options.to_dict(),
        "fingerprint": fingerprint,
        "absent": [path for path in paths if states[path][0] < 0],
    }
    storage.write_whole(_work_path(folder, plan.name, "plan"), json.dumps(data).encode())


def materialize(folder: str, name: str) -> dict[str, Any]:
    """Makes one shard, or finds it made already.

    Args:
      folder: the dataset's folder, in which the plan lies.
      name: the shard's name.

    Returns:
      What the shard says of itself: name, split, fingerprint, bytes, sha256, tally, sources,
      class_sources, groups, unmatched_pixels, rejected, audit.

    Raises:
      FlexsegError: where the plan cannot be found.
    """
    path = _work_path(folder, name, "plan")
    try:
        data = json.loads(storage.read_bytes(path))
    except FileNotFoundError as error:
        raise FlexsegError(
            f"A worker finds no {path}. Where workers are on other machines, sources and --output "
            "must lie where all of them find them under the same path: a shared folder, or s3://."
        ) from error
    done = finished(folder, name, data["fingerprint"])
    if done is not None:
        return done
    shard = data["shard"]
    plan = ShardPlan(**{**shard, "sources": tuple(Source(**s) for s in shard["sources"])})
    result = _make(folder, plan, Options.from_dict(data["options"]), data["absent"])
    result["fingerprint"] = data["fingerprint"]
    storage.write_whole(_work_path(folder, name, "done"), json.dumps(result).encode())
    return result


def finished(folder: str, name: str, fingerprint: str | None = None) -> dict[str, Any] | None:
    """What a shard says of itself, or None where it is not there.

    Where a fingerprint is given, a shard of another one is not there, nor one whose bytes are not
    those that were written.
    """
    path = storage.join(folder, name)
    try:
        done = json.loads(storage.read_bytes(_work_path(folder, name, "done")))
        whole = storage.size(path) == done["bytes"]
        if whole and fingerprint is not None:
            whole = done["fingerprint"] == fingerprint and done["sha256"] == storage.sha256(path)
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged
        return None
    return done if whole else None


def _make(folder: str, plan: ShardPlan, options: Options, absent: Sequence[str]) -> dict[str, Any]:
    num_classes = options.label_map.num_classes
    tally = Tally(num_classes, plan.channels)
    rejected: list[Rejected] = []
    audits: list[dict[str, Any]] = []
    class_sources = np.zeros(num_classes, np.int64)
    groups, used, unmatched_pixels = set(), 0, 0
    with _Writer(folder, plan.name) as writer:
        for position, source in enumerate(plan.sources):
            mark = writer.mark()
            of_source = Tally(num_classes, plan.channels)
            try:
                read = examples.read(source, options, plan.channels)
                for index, record in enumerate(examples.make(read, options, plan.training)):
                    counts = records.class_pixels(record.mask, num_classes)
                    of_source.add(record.image, counts)
                    # Training wants neighbours in the file unlike each other; evaluation wants the
                    # tiles of one image together, to put the image back together as it reads.
                    mixed = keyed_hash(options.split_seed, f"{source.id}:{index}")
                    key = (mixed, 0) if plan.training else (position, index)
                    data = records.encode(record, num_classes, options.image_encoding, counts)
                    writer.add(key, data)
            except examples.SourceError as error:
                _refuse_unseen(source, absent)
                rejected.append(error.rejected)
                writer.forget(mark)
                continue
            tally.merge(of_source)
            class_sources += read.class_pixels > 0
            unmatched_pixels += read.unmatched
            audits.append(read.audit)
            used += 1
            groups.add(source.group)
        checksum, size = writer.finish()
    return {
        "name": plan.name,
        "split": plan.split,
        "bytes": size,
        "sha256": checksum,
        "tally": tally.to_dict(),
        "sources": used,
        "class_sources": class_sources.tolist(),
        "groups": sorted(groups),
        "unmatched_pixels": unmatched_pixels,
        "rejected": [dataclasses.asdict(r) for r in rejected],
        "audit": audits,
    }


class _Writer:
    """Takes records in any order and writes them in the order of their keys.

    They wait in a file, not in memory. Both files are removed unless `finish` is reached.
    """

    def __init__(self, folder: str, name: str):
        self._path = storage.join(folder, name)
        # Beside the dataset, so that the last step is a rename; or on this machine, to be sent.
        self._scratch = tempfile.gettempdir() if storage.is_remote(folder) else _work_folder(folder)
        self._temporary = os.path.join(self._scratch, f"{name}.{uuid.uuid4().hex}.tmp")
        self._entries: list[tuple[tuple[int, int], int, int]] = []  # key, offset, length

    def __enter__(self) -> _Writer:
        self._waiting = tempfile.TemporaryFile(dir=self._scratch)
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.close()
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._temporary)

    def add(self, key: tuple[int, int], data: bytes) -> None:
        self._entries.append((key, self._waiting.tell(), len(data)))
        self._waiting.write(data)

    def mark(self) -> int:
        """What `forget` takes to forget all that is added from now on."""
        return len(self._entries)

    def forget(self, mark: int) -> None:
        del self._entries[mark:]

    def finish(self) -> tuple[str, int]:
        """Writes the shard and gives it its name.

        Returns:
          (SHA-256 in hexadecimal, bytes)
        """
        checksum, size = hashlib.sha256(), 0
        with open(self._temporary, "wb") as file:
            for _, offset, length in sorted(self._entries):
                self._waiting.seek(offset)
                for part in records.framed(self._waiting.read(length)):
                    file.write(part)
                    checksum.update(part)
                    size += len(part)
            file.flush()
            os.fsync(file.fileno())
        storage.upload(self._temporary, self._path)
        return checksum.hexdigest(), size


def _refuse_unseen(source: Source, absent: Sequence[str]) -> None:
    """Ends the job where a worker lacks a source that was there when the job was planned.

    To reject it would say that the file is bad, and would be kept for later runs.
    """
    for path in (source.image, source.mask):
        if path not in absent and not storage.exists(path):
            raise FlexsegError(
                f"A worker finds no {path}, which was there when the job was planned. Sources must "
                "lie where all workers find them under the same path."
            )


def _work_folder(folder: str) -> str:
    return storage.join(folder, WORK_FOLDER)


def _work_path(folder: str, name: str, kind: str) -> str:
    return storage.join(folder, WORK_FOLDER, f"{name}.{kind}.json")
