"""Evaluation's batches: every pixel of a split once, in order, however it is cut up."""

from __future__ import annotations

import tensorflow as tf

from flexseg_errors import FlexsegError
from pipelines import damage, reading, records
from pipelines.label_map import IGNORE_ID
from pipelines.manifest import Manifest
from pipelines.parts import Part

_END = b""  # stands behind the last record


def example_size(manifest: Manifest, crop_size: tuple[int, int] | None) -> tuple[int, int]:
    """The (height, width) that a network will be given.

    Raises:
      FlexsegError: where the records are not all of one size and no crop is asked for.
    """
    if crop_size is not None:
        return crop_size
    sizes = [s for split in manifest.splits.values() for s in (split.min_size, split.max_size)]
    if len(set(sizes)) > 1:
        low, high = min(sizes), max(sizes)
        raise FlexsegError(
            f"The records of {manifest.folder} are of several sizes ({low[0]}x{low[1]} to "
            f"{high[0]}x{high[1]}). Set data.crop_size, or prepare the dataset with --image_size "
            "or --tile_size."
        )
    return sizes[0]


def evaluation(
    manifest: Manifest,
    split: str,
    batch_size: int,
    crop_size: tuple[int, int] | None = None,
    part: Part | None = None,
    on_corrupt: str = "stop",
) -> tf.data.Dataset:
    """All records of a split, once, in order, unaugmented.

    Records larger than `crop_size` are cut into tiles that cover them, smaller ones are padded; a
    pixel that is seen a second time, or is padding, carries the ignore id. The last batch is filled
    up in the same way, so that every batch is whole and every pixel counts once.

    Args:
      manifest: the dataset.
      split: the name of the split.
      batch_size: examples in a global batch.
      crop_size: (height, width) of the examples; None takes the records as they are.
      part: which slice of every global batch this worker sees, of several; None for all. All
        workers see equally many batches, whatever `part.by` says.
      on_corrupt: "skip" leaves damaged records out (see `damage`); what is left counts as above.

    Returns:
      Batches {"image": uint8 [B, H, W, C], "mask": uint8 [B, H, W]}, where B is the worker's share
      of the global batch.
    """
    size = example_size(manifest, crop_size)
    paths, examples = reading.files(manifest, split), manifest.split(split).examples
    if on_corrupt == "skip":
        paths, shards, _ = damage.without_damage(paths, manifest.split(split).shards)
        examples = sum(s.examples for s in shards)
    low, high = part.rows(batch_size) if part else (0, batch_size)
    dataset = tf.data.TFRecordDataset(paths)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(examples))
    dataset = dataset.concatenate(tf.data.Dataset.from_tensors(tf.constant(_END)))

    def count(before: tf.Tensor, serialized: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """Numbers the tiles through all records, without decoding any."""
        if crop_size is None:
            tiles = tf.constant(1, tf.int64)
        else:
            tiles = tf.cond(
                serialized == _END,
                lambda: tf.constant(0, tf.int64),
                lambda: _tiles_in(records.parse(serialized)["size"], crop_size),
            )
        tiles = tf.where(serialized == _END, -before % batch_size, tiles)
        rows = tf.range(before, before + tiles) % batch_size
        own = tf.where((low <= rows) & (rows < high))[:, 0]
        return before + tiles, (serialized, tf.cast(own, tf.int32))

    def tiles(serialized: tf.Tensor, own: tf.Tensor) -> tf.data.Dataset:
        image, mask = tf.cond(
            serialized == _END,
            lambda: _filling(tf.size(own), (*size, manifest.channels)),
            lambda: _tiles(serialized, own, manifest, crop_size),
        )
        image = tf.ensure_shape(image, [None, *size, manifest.channels])
        mask = tf.ensure_shape(mask, [None, *size])
        return tf.data.Dataset.from_tensor_slices({"image": image, "mask": mask})

    dataset = dataset.scan(tf.constant(0, tf.int64), count)
    dataset = dataset.filter(lambda _, own: tf.size(own) > 0)  # decode no record of others
    dataset = dataset.interleave(
        tiles, cycle_length=1, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return reading.with_options(dataset.batch(high - low, drop_remainder=True).prefetch(2))


def _tiles(
    serialized: tf.Tensor, own: tf.Tensor, manifest: Manifest, crop_size: tuple[int, int] | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """The tiles of one record that are this worker's, [N, h, w, ...]."""
    image, mask = reading.decode(serialized, manifest)
    return (image[None], mask[None]) if crop_size is None else _cover(image, mask, crop_size, own)


def _filling(count: tf.Tensor, shape: tuple[int, int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Tiles that do not count."""
    image = tf.zeros([count, *shape], tf.uint8)
    return image, tf.fill([count, *shape[:2]], tf.constant(IGNORE_ID, tf.uint8))


def _cover(
    image: tf.Tensor, mask: tf.Tensor, size: tuple[int, int], wanted: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts one example into tiles [N, h, w, ...]; pixels of an earlier tile carry the ignore id."""
    missing = tf.maximum(tf.constant(size) - tf.shape(mask), 0)
    image = tf.pad(image, [[0, missing[0]], [0, missing[1]], [0, 0]])
    mask = tf.pad(mask, [[0, missing[0]], [0, missing[1]]], constant_values=IGNORE_ID)
    starts, fresh = zip(
        *(_origins(tf.shape(mask)[axis], size[axis]) for axis in (0, 1)), strict=True
    )

    def tile(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        row, column = index // tf.size(starts[1]), index % tf.size(starts[1])
        y, x = starts[0][row], starts[1][column]
        cut = mask[y : y + size[0], x : x + size[1]]
        new = (tf.range(size[0]) >= fresh[0][row])[:, None] & (
            tf.range(size[1]) >= fresh[1][column]
        )[None]
        cut = tf.where(new, cut, tf.constant(IGNORE_ID, tf.uint8))
        return image[y : y + size[0], x : x + size[1]], cut

    return tf.map_fn(tile, wanted, fn_output_signature=(tf.uint8, tf.uint8))


def _tiles_in(shape: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """How many tiles `_cover` cuts an example into: int64."""
    tile = tf.constant(size, tf.int64)
    return tf.reduce_prod(-(-(tf.maximum(shape, tile) - tile) // tile) + 1)


def _origins(length: tf.Tensor, tile: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Tile origins along an axis, and each tile's first pixel that no earlier tile has seen."""
    count = -(-(length - tile) // tile) + 1
    gaps = tf.maximum(count - 1, 1)
    origins = (tf.range(count) * (length - tile) + gaps // 2) // gaps
    ends = tf.concat([[0], origins[:-1] + tile], 0)
    return origins, ends - origins
