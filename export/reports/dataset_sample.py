"""Some records of a dataset, to be looked at: found without reading all of it, chosen by class."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from flexseg_errors import FlexsegError
from pipelines import augment, records, storage
from pipelines.manifest import Manifest

MOST_READ = 1000  # records of a split, spread over its shards


@dataclasses.dataclass(frozen=True)
class Found:
    """A record: where it lies and what it holds.

    Attributes:
      split: its split.
      path: its shard.
      offset: of its first byte there.
      name: what a person would call it.
      source: its source's id.
      file: its image, a path below the folder of images.
      augmented: whether augmentation changed it.
      size: (height, width).
      class_pixels: pixels of each class, [K].
    """

    split: str
    path: str
    offset: int
    name: str
    source: str
    file: str
    augmented: bool
    size: tuple[int, int]
    class_pixels: tuple[int, ...]

    @property
    def classes(self) -> tuple[int, ...]:
        """The ids of the classes that it shows."""
        return tuple(k for k, count in enumerate(self.class_pixels) if count)


def find(manifest: Manifest, split: str, most: int = MOST_READ) -> list[Found]:
    """Looks at the first records of each shard, without decoding them.

    Args:
      manifest: the dataset.
      split: the split.
      most: how many, of all shards together; a few more where they do not divide evenly.

    Raises:
      FlexsegError: where a shard is not there or damaged.
    """
    paths = manifest.paths(split)
    found = []
    for path in paths:
        try:
            with storage.open_read(path) as file:
                framed = records.read_framed(file, path)
                for offset, data in itertools.islice(framed, -(-most // len(paths))):
                    found.append(_found(split, path, offset, records.parse_features(data)))
        except FileNotFoundError as error:
            raise FlexsegError(
                f"{path} is not there, though {manifest.folder} lists it. `flexseg verify "
                f"{manifest.folder}` says what else is wrong; run `flexseg prepare` again."
            ) from error
    return found


def shuffled(found: Sequence[Found]) -> list[Found]:
    """The records in an order that has nothing to do with them, the same every time."""
    return sorted(found, key=lambda f: hashlib.sha256(f"{f.split} {f.name}".encode()).digest())


def choose(found: Sequence[Found], most: int) -> list[Found]:
    """Chooses records that show every class, from as many sources as can be.

    In turn for each class, the one that the fewest records show first, and for none in particular:
    a record that shows it, of a source that was chosen least.

    Args:
      found: records.
      most: how many to choose.

    Returns:
      Those chosen, in the order of `found`.
    """
    if len(found) <= most:
        return list(found)
    order = shuffled(found)
    holders: dict[int, list[Found]] = collections.defaultdict(list)
    for one in order:
        for k in one.classes:
            holders[k].append(one)
    turns = [*sorted(holders.values(), key=len), order]
    chosen: set[Found] = set()
    used: collections.Counter[str] = collections.Counter()
    for turn in itertools.cycle(turns):
        if len(chosen) == most:
            break
        left = [one for one in turn if one not in chosen]
        if left:
            best = min(left, key=lambda one: used[one.source])
            chosen.add(best)
            used[best.source] += 1
    return [one for one in found if one in chosen]


def shares(available: Mapping[str, int], total: int) -> dict[str, int]:
    """Divides a number of pictures among splits: evenly, and what one cannot use goes to others."""
    given = dict.fromkeys(available, 0)
    for name in itertools.cycle(available):
        if sum(given.values()) >= min(total, sum(available.values())):
            return given
        given[name] += given[name] < available[name]
    return given


def pixels(one: Found) -> tuple[np.ndarray, np.ndarray]:
    """Reads a record: (image uint8 [H, W, C], class ids uint8 [H, W])."""
    with storage.open_read(one.path) as file:
        file.seek(one.offset)
        _, data = next(records.read_framed(file, one.path))
    return records.pixels_of(records.parse_features(data))


def _found(split: str, path: str, offset: int, features: dict) -> Found:
    done = records.AUGMENTATION  # its name says enough; what was drawn would fill a paragraph
    short = {done: [augment.variant_name(features[done][0].decode()).strip().encode()]}
    return Found(
        split=split,
        path=path,
        offset=offset,
        name=records.name_of({**features, **short}),
        source=features[records.SOURCE_ID][0].decode(),
        file=features[records.FILENAME][0].decode(),
        augmented=bool(features[records.AUGMENTATION][0]),
        size=(features[records.HEIGHT][0], features[records.WIDTH][0]),
        class_pixels=tuple(features[records.MASK_PIXELS]),
    )
