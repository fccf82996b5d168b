"""One source -> its records: read, categorize, prepare, augment, tile."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from flexseg_errors import FlexsegError
from pipelines import augment, intensity, masks, readers
from pipelines.preparation import resize_image, resize_mask
from pipelines.records import Record
from pipelines.sources import Rejected, Source, keyed_hash
from pipelines.tiles import TileGrid

if TYPE_CHECKING:
    from pipelines.shards import Options

_TRAIN = "train"  # the split that is augmented, and from which tiles may be left out


class SourceError(FlexsegError):
    """A source that cannot be used; becomes a line of `rejected.jsonl`."""

    def __init__(self, path: str, stage: str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.rejected = Rejected(path, stage, reason)


@dataclasses.dataclass(frozen=True)
class ReadSource:
    """A source as prepared: image uint8 [H, W, C], ids uint8 [H, W].

    `unmatched` counts the pixels of its mask that were far from every colour.
    """

    source: Source
    image: np.ndarray
    ids: np.ndarray
    unmatched: int


def read(source: Source, options: Options, channels: int) -> ReadSource:
    """Reads a source, maps its mask to class ids, and brings both to the wanted size.

    Raises:
      SourceError: where it cannot be used.
    """
    try:
        mapping = intensity.parse(options.preparation.intensity)
        image = readers.read_image(source.image, channels, mapping)
    except FlexsegError as error:
        raise SourceError(source.image, "read", str(error)) from error
    reading = options.masks
    if readers.is_one_hot(source.mask):  # comes out as class ids
        reading = dataclasses.replace(reading, kind="index")
    try:
        read_mask = readers.read_index if reading.kind == "index" else readers.read_mask
        mask = read_mask(source.mask)
    except FlexsegError as error:
        raise SourceError(source.mask, "read", str(error)) from error
    if image.shape[:2] != mask.shape[:2]:
        sizes = "image is {}x{}, the mask {}x{}".format(*image.shape[:2], *mask.shape[:2])
        raise SourceError(source.image, "read", f"sizes differ: the {sizes} ({source.mask})")
    try:
        ids, unmatched = masks.to_ids(mask, options.label_map, reading)
    except FlexsegError as error:
        raise SourceError(source.mask, "categorize", str(error)) from error
    image, ids = options.preparation.image(image), options.preparation.mask(ids)
    if options.tile_size and min(ids.shape) < options.tile_size:
        raise SourceError(
            source.image,
            "tile",
            "the image is {}x{}, smaller than a tile of {}; give a smaller --tile_size or a larger "
            "--scale".format(*ids.shape, options.tile_size),
        )
    return ReadSource(source, image, ids, unmatched)


def make(read: ReadSource, options: Options) -> Iterator[Record]:
    """The records of one source, each made when it is asked for.

    In the split "train" these are the variants of the augmentation, cut into tiles, of which empty
    ones may be left out, and each variant as a whole, reduced, if that is wanted. The other splits
    hold the source alone, complete.
    """
    source = read.source
    train = source.split == _TRAIN
    if train and options.augment is not None:
        variants = augment.apply(
            options.augment, read.image, read.ids, options.split_seed, source.id
        )
    else:
        variants = iter([(read.image, read.ids, "")])
    for image, ids, text in variants:
        height, width = ids.shape
        size = (height, width)
        whole = Record(image, ids, source.id, source.filename, (0, 0), size, text)
        if not options.tile_size:
            yield whole
            continue
        for tile in _tiles(whole, options):
            if not train or _is_kept(tile, options):
                yield tile
        if train and options.add_reduced:
            small = (options.tile_size, options.tile_size)
            yield dataclasses.replace(
                whole,
                image=resize_image(image, small),
                mask=resize_mask(ids, small),
                source_size=small,
                augmentation=f"reduced: {text}" if text else "reduced",
            )


def _tiles(whole: Record, options: Options) -> Iterator[Record]:
    tile = options.tile_size
    for y, x in TileGrid(*whole.source_size, tile, options.tile_overlap):
        window = np.s_[y : y + tile, x : x + tile]
        yield dataclasses.replace(
            whole,
            image=np.ascontiguousarray(whole.image[window]),
            mask=np.ascontiguousarray(whole.mask[window]),
            origin=(y, x),
        )


def _is_kept(tile: Record, options: Options) -> bool:
    """Whether a tile of "train" is kept: all that have foreground, and a share of the empty."""
    if options.empty_tiles >= 1 or ((tile.mask > 0) & (tile.mask != 255)).any():
        return True
    key = f"{tile.source_id}:{tile.augmentation}:{tile.origin}"
    return keyed_hash(options.split_seed, key) < options.empty_tiles * 2**128
