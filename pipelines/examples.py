"""One source -> its records: read, categorize, prepare, augment, tile."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from flexseg_errors import FlexsegError
from pipelines import audit, augment, intensity, masks, readers, records, slices, storage, volumes
from pipelines.preparation import resize_image, resize_mask
from pipelines.records import Record
from pipelines.sources import Rejected, Source, keyed_hash
from pipelines.tiles import TileGrid

if TYPE_CHECKING:
    from pipelines.shards import Options


class SourceError(FlexsegError):
    """A source that cannot be used; becomes a line of `rejected.jsonl`."""

    def __init__(self, path: str, stage: str, reason: str):
        reason = reason.removeprefix(path).lstrip(" :")
        super().__init__(f"{path}: {reason}")
        self.rejected = Rejected(path, stage, reason)


@dataclasses.dataclass(frozen=True)
class ReadSource:
    """A source as prepared.

    Attributes:
      source: the source.
      image: uint8 [H, W, C].
      ids: class ids, uint8 [H, W].
      class_pixels: pixels of each class before any change of size, int64 [K].
      unmatched: pixels of its mask that were far from every colour.
      audit: what `audit.examine` says of it.
    """

    source: Source
    image: np.ndarray
    ids: np.ndarray
    class_pixels: np.ndarray
    unmatched: int
    audit: dict[str, Any]


def read(source: Source, options: Options, channels: int) -> ReadSource:
    """Reads a source, maps its mask to class ids, and brings both to the wanted size.

    Raises:
      SourceError: where it cannot be used.
    """
    image = _read_image(source, options, channels)
    reading = options.masks
    if reading.kind == "colors" and (
        readers.is_one_hot(source.mask) or volumes.is_volume(source.mask)
    ):
        reading = dataclasses.replace(reading, kind="index")  # both hold class ids
    mask = _read_mask(source, options, reading)
    if image.shape[:2] != mask.shape[:2]:
        sizes = "image is {}x{}, the mask {}x{}".format(*image.shape[:2], *mask.shape[:2])
        raise SourceError(source.image, "read", f"sizes differ: the {sizes} ({source.mask})")
    try:
        mapped = masks.to_ids(mask, options.label_map, reading)
    except FlexsegError as error:
        raise SourceError(source.mask, "categorize", str(error)) from error
    ids = mapped.ids
    name = source.filename if source.slice is None else source.id
    counts = records.class_pixels(ids, options.label_map.num_classes)
    found = audit.examine(name, source.mask, image, mask, ids, mapped.colors, counts)
    del mask
    image, ids = options.preparation.image(image), options.preparation.mask(ids)
    if options.tile_size and min(ids.shape) < options.tile_size:
        raise SourceError(
            source.image,
            "tile",
            "the image is {}x{}, smaller than a tile of {}; give a smaller --tile_size or a larger "
            "--scale".format(*ids.shape, options.tile_size),
        )
    return ReadSource(source, image, ids, counts, mapped.unmatched, found)


def make(read: ReadSource, options: Options, training: bool) -> Iterator[Record]:
    """The records of one source, each made when it is asked for.

    For training these are the variants of the augmentation, cut into tiles, of which empty ones may
    be left out, and each variant as a whole, reduced, if that is wanted. For anything else it is
    the source alone, complete.

    Raises:
      SourceError: where the augmentation cannot be made of it.
    """
    source = read.source
    drops = options.empty_tiles < 1 and (training or options.empty_tiles_in == "all")
    for image, ids, text in _variants(read, options, training):
        size = (ids.shape[0], ids.shape[1])
        whole = Record(image, ids, source.id, source.filename, (0, 0), size, text)
        if not options.tile_size:
            if not (drops and source.slice is not None) or _is_kept(whole, options):
                yield whole
            continue
        for tile in _tiles(whole, options):
            if not drops or _is_kept(tile, options):
                yield tile
        if training and options.add_reduced:
            small = (options.tile_size, options.tile_size)
            yield dataclasses.replace(
                whole,
                image=resize_image(image, small),
                mask=resize_mask(ids, small),
                source_size=small,
                augmentation=f"reduced: {text}" if text else "reduced",
            )


def _read_image(source: Source, options: Options, channels: int) -> np.ndarray:
    """uint8 [H, W, C]."""
    mapping = intensity.parse(options.preparation.intensity)
    try:
        if source.slice is not None:
            image = slices.read_image(
                source.image, source.slice, options.volumes, mapping, options.max_pixels
            )[..., None]
            return np.repeat(image, channels, axis=-1) if channels > 1 else image
        with _local(source.image) as path:
            return readers.read_image(path, channels, mapping, options.max_pixels)
    except FlexsegError as error:
        raise SourceError(source.image, "read", str(error)) from error


def _read_mask(source: Source, options: Options, reading: masks.MaskReading) -> np.ndarray:
    """[H, W] or [H, W, 3]; see `masks.to_ids`."""
    try:
        if source.slice is not None and volumes.is_volume(source.mask):
            return slices.read_mask(
                source.image, source.mask, source.slice, options.volumes, options.max_pixels
            )
        read_mask = readers.read_index if reading.kind == "index" else readers.read_mask
        with _local(source.mask) as path:
            mask = read_mask(path, options.max_pixels)
        if source.slice is not None:  # the one slice of a volume is turned, and so is its mask
            mask = np.ascontiguousarray(np.rot90(mask, options.volumes.rotation // 90))
        return mask
    except FlexsegError as error:
        raise SourceError(source.mask, "read", str(error)) from error


@contextlib.contextmanager
def _local(path: str) -> Iterator[str]:
    """A file on this machine; what is said of a copy is said of the file itself."""
    try:
        with storage.local_copy(path) as local:
            try:
                yield local
            except FlexsegError as error:
                raise FlexsegError(str(error).replace(local, path)) from error
    except FileNotFoundError as error:
        raise FlexsegError(f"{path} is missing.") from error


def _variants(
    read: ReadSource, options: Options, training: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """(image, class ids, what was done as text)."""
    if not training or options.augment is None:
        yield read.image, read.ids, ""
        return
    try:
        yield from augment.apply(
            options.augment, read.image, read.ids, options.split_seed, read.source.id
        )
    except FlexsegError as error:
        raise SourceError(read.source.image, "augment", str(error)) from error


def _tiles(whole: Record, options: Options) -> Iterator[Record]:
    tile = options.tile_size
    for y, x in TileGrid(*whole.source_size, tile, options.tile_overlap):
        window = np.s_[y : y + tile, x : x + tile]
        yield dataclasses.replace(
            whole,
            image=whole.image[window],
            mask=whole.mask[window],
            origin=(y, x),
        )


def _is_kept(tile: Record, options: Options) -> bool:
    """Whether a tile or slice is kept: all that have foreground, and a share of the empty."""
    if options.empty_tiles >= 1 or ((tile.mask > 0) & (tile.mask != 255)).any():
        return True
    key = f"{tile.source_id}:{tile.augmentation}:{tile.origin}"
    return keyed_hash(options.split_seed, key) < options.empty_tiles * 2**128
