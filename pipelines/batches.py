"""Shards -> batches, streaming.

Training examples come as one endless stream: epoch after epoch, each in an order that is a pure
function of (seed, epoch). Step k takes examples k B to (k + 1) B - 1 of the stream, whatever came
before, so that the whole state of the input is the step's number. Memory is bounded by the shuffle
buffer, which holds encoded records, and does not grow with the dataset.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from flexseg_errors import FlexsegError
from pipelines import object_stores, records, storage
from pipelines.label_map import IGNORE_ID
from pipelines.manifest import Manifest
from pipelines.online_augment import Augmentation, augment

_READERS = 16  # shards read side by side
_PARSED = ("image", "mask")


@dataclasses.dataclass(frozen=True)
class TrainInput:
    """What decides the stream of training batches, apart from the dataset.

    Attributes:
      batch_size: examples in a global batch.
      seed: decides order and augmentation.
      crop_size: (height, width) of the examples; None takes the records as they are, which then
        must all be of one size.
      augmentation: what to draw from; None leaves the examples as they are.
      shuffle_bytes: memory for shuffling, in bytes of encoded records.
    """

    batch_size: int
    seed: int = 0
    crop_size: tuple[int, int] | None = None
    augmentation: Augmentation | None = None
    shuffle_bytes: int = 256 << 20


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


def train(manifest: Manifest, options: TrainInput, start_step: int = 0) -> tf.data.Dataset:
    """The endless stream of training batches from a step on.

    Args:
      manifest: the dataset; its split "train" is read.
      options: what decides the stream.
      start_step: the first batch is the one that this step of an unbroken run sees.

    Returns:
      Batches {"image": uint8 [B, H, W, C], "mask": uint8 [B, H, W]}.
    """
    split = manifest.split("train")
    paths = tf.constant(_paths(manifest, "train"))
    count, seed = split.examples, options.seed
    size = sum(s.bytes for s in split.shards)
    buffer = max(1, min(count, options.shuffle_bytes * count // max(1, size)))
    first_epoch, offset = divmod(start_step * options.batch_size, count)
    height, width = example_size(manifest, options.crop_size)

    def epoch_order(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        tf.random.set_seed(1)  # of this graph; shuffle() would mix in the program's global seed
        shards = tf.random.experimental.stateless_shuffle(paths, key)
        dataset = tf.data.Dataset.from_tensor_slices(shards).interleave(
            tf.data.TFRecordDataset,
            cycle_length=min(_READERS, len(split.shards)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        shuffle_seed = tf.random.stateless_uniform([], key, None, None, tf.int64)
        dataset = dataset.shuffle(buffer, seed=shuffle_seed, reshuffle_each_iteration=False)
        # A shard that lost records would shift all that follows; better to stop and say so.
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
        return dataset.enumerate(epoch * count)

    def example(position: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        image, mask = _decode(serialized, manifest)
        if options.augmentation is not None or options.crop_size is not None:
            image, mask = augment(
                image,
                mask,
                seed,
                position,
                options.augmentation or Augmentation(),
                options.crop_size,
            )
        image = tf.ensure_shape(image, [height, width, manifest.channels])
        return {"image": image, "mask": tf.ensure_shape(mask, [height, width])}

    dataset = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch_order).skip(offset)
    dataset = dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(options.batch_size, drop_remainder=True)
    return _with_options(dataset.prefetch(2))


def evaluation(
    manifest: Manifest, split: str, batch_size: int, crop_size: tuple[int, int] | None = None
) -> tf.data.Dataset:
    """All records of a split, once, in order, unaugmented.

    Records larger than `crop_size` are cut into tiles that cover them, smaller ones are padded; a
    pixel that is seen a second time, or is padding, carries the ignore id. The last batch is filled
    up in the same way, so that every batch is whole and every pixel counts once.

    Returns:
      Batches {"image": uint8 [B, H, W, C], "mask": uint8 [B, H, W]}.
    """
    size = example_size(manifest, crop_size)
    dataset = tf.data.TFRecordDataset(_paths(manifest, split))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(manifest.split(split).examples))

    def tiles(serialized: tf.Tensor) -> tf.data.Dataset:
        image, mask = _decode(serialized, manifest)
        if crop_size is None:
            parts = image[None], mask[None]
        else:
            parts = _cover(image, mask, crop_size)
        return tf.data.Dataset.from_tensor_slices(dict(zip(_PARSED, parts, strict=True)))

    def whole(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        missing = batch_size - tf.shape(batch["mask"])[0]
        image = tf.pad(batch["image"], [[0, missing], [0, 0], [0, 0], [0, 0]])
        mask = tf.pad(batch["mask"], [[0, missing], [0, 0], [0, 0]], constant_values=IGNORE_ID)
        return {
            "image": tf.ensure_shape(image, [batch_size, *size, manifest.channels]),
            "mask": tf.ensure_shape(mask, [batch_size, *size]),
        }

    dataset = dataset.interleave(
        tiles, cycle_length=1, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return _with_options(dataset.batch(batch_size).map(whole).prefetch(2))


def whole_images(manifest: Manifest, split: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The prepared sources of a split, one after the other, put back together from their tiles.

    Augmented copies are left out. One image is held at a time; of the split "train", where tiles
    lie mixed, one shard's images.

    Yields:
      (source id, image uint8 [H, W, C], mask of class ids uint8 [H, W])
    """
    for path in manifest.paths(split):
        open_images: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        with storage.open_read(path) as file:
            for _, data in records.read_framed(file, path):
                features = records.parse_features(data)
                if features[records.AUGMENTATION][0]:
                    continue
                source_id = features[records.SOURCE_ID][0].decode()
                if source_id not in open_images:
                    if split != "train":
                        yield from _close(open_images)
                    size = features[records.SOURCE_SIZE]
                    open_images[source_id] = (
                        np.zeros([*size, manifest.channels], np.uint8),
                        np.full(size, IGNORE_ID, np.uint8),
                    )
                image, mask = open_images[source_id]
                y, x = features[records.TILE_ORIGIN]
                tile, ids = records.pixels_of(features)
                window = np.s_[y : y + tile.shape[0], x : x + tile.shape[1]]
                image[window] = tile
                mask[window] = ids
        yield from _close(open_images)


def _paths(manifest: Manifest, split: str) -> list[str]:
    """The files of a split; sees to it that TensorFlow can read them."""
    if manifest.folder.startswith("s3://"):  # gs:// it knows by itself
        object_stores.share_s3_settings()
        # It makes the process abort when the interpreter ends; flexseg.entry() knows.
        import tensorflow_io  # noqa: F401  registers s3://
    return manifest.paths(split)


def _close(
    open_images: dict[str, tuple[np.ndarray, np.ndarray]],
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields and forgets what is open, in the order of opening."""
    while open_images:
        source_id = next(iter(open_images))
        yield source_id, *open_images.pop(source_id)


def _decode(serialized: tf.Tensor, manifest: Manifest) -> tuple[tf.Tensor, tf.Tensor]:
    features = records.parse(serialized)
    form, _ = records.parse_encoding(manifest.options["image_encoding"])
    image = records.decode_image(features["image"], manifest.channels, form, features["size"])
    return image, records.decode_mask(features["mask"])


def _cover(image: tf.Tensor, mask: tf.Tensor, size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
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

    count = tf.size(starts[0]) * tf.size(starts[1])
    return tf.map_fn(tile, tf.range(count), fn_output_signature=(tf.uint8, tf.uint8))


def _origins(length: tf.Tensor, tile: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Tile origins along an axis, and each tile's first pixel that no earlier tile has seen."""
    count = -(-(length - tile) // tile) + 1
    gaps = tf.maximum(count - 1, 1)
    origins = (tf.range(count) * (length - tile) + gaps // 2) // gaps
    ends = tf.concat([[0], origins[:-1] + tile], 0)
    return origins, ends - origins


def _with_options(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.ram_budget = 1 << 30
    # The trainer splits batches over replicas itself; files are not to be divided behind its back.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
