"""Decoded records, kept so that they need not be decoded again in every epoch.

What is kept are pixels by the number of their record. The order of training is made as ever, only
of numbers instead of records: it is, with its shuffles and draws, the very same, and so is a run
that is resumed. On disk it is a file without a name, mapped into memory: the operating system keeps
of it what there is room for, and nothing of it outlives the process, however that ends.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import shutil
import tempfile

import numpy as np
import tensorflow as tf

from flexseg_errors import FlexsegError
from pipelines import reading
from pipelines.manifest import Manifest
from pipelines.order import Shards

_MARGIN = 0.8  # of what is free, what the cache may take


@dataclasses.dataclass(frozen=True, eq=False)
class PixelCache:
    """Decoded records.

    Attributes:
      pixels: images and masks, one behind the other, uint8 [bytes].
      starts: where each record begins, int64 [N].
      sizes: heights and widths, int64 [N, 2].
      channels: of the images.
    """

    pixels: tf.Tensor
    starts: tf.Tensor
    sizes: tf.Tensor
    channels: int

    def read(self, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Image uint8 [H, W, C] and mask uint8 [H, W] of a record."""
        size, start = self.sizes[number], self.starts[number]
        area = size[0] * size[1]
        middle = start + area * self.channels
        image = tf.reshape(self.pixels[start:middle], tf.concat([size, [self.channels]], 0))
        image = tf.ensure_shape(image, [None, None, self.channels])
        return image, tf.reshape(self.pixels[middle : middle + area], size)


def fill(kind: str, manifest: Manifest, shards: Shards) -> PixelCache:
    """Decodes all records of some shards of the train split.

    Args:
      kind: "memory" or "disk" (in the folder for temporary files, see TMPDIR).
      manifest: the dataset.
      shards: which to keep.

    Raises:
      FlexsegError: where there is no room.
    """
    split, channels = manifest.split("train"), manifest.channels
    most = min(split.pixels, shards.count * split.max_size[0] * split.max_size[1])
    room = _room(kind)
    if most * (channels + 1) > room:
        other = "disk or none" if kind == "memory" else "none"
        raise FlexsegError(
            f"data.cache={kind} needs {most * (channels + 1) / 2**30:.1f} GiB for the decoded "
            f"records, and of what is free {room / 2**30:.1f} GiB may be taken. Set data.cache to "
            f"{other}" + ("." if kind == "memory" else ", or TMPDIR to a larger disk.")
        )
    space = np.frombuffer(_space(kind, max(1, most * (channels + 1))), np.uint8)
    starts, sizes, end = [], [], 0
    dataset = tf.data.TFRecordDataset(list(shards.paths)).map(
        lambda serialized: reading.decode(serialized, manifest),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    for image, mask in reading.with_options(dataset.prefetch(2)).as_numpy_iterator():
        starts.append(end)
        sizes.append(mask.shape)
        for pixels in (image, mask):
            space[end : end + pixels.size] = pixels.ravel()
            end += pixels.size
    if len(starts) != shards.count:
        raise FlexsegError(
            f"The train split of {manifest.folder} holds {len(starts)} records, expected "
            f"{shards.count}. Run `flexseg verify {manifest.folder}`."
        )
    # The very memory, not a copy of it.
    pixels = tf.experimental.dlpack.from_dlpack(space.__dlpack__())
    return PixelCache(pixels, tf.constant(starts, tf.int64), tf.constant(sizes, tf.int64), channels)


def _room(kind: str) -> int:
    if kind == "disk":
        return int(_MARGIN * shutil.disk_usage(tempfile.gettempdir()).free)
    return int(_MARGIN * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _space(kind: str, size: int) -> mmap.mmap:
    if kind == "memory":
        return mmap.mmap(-1, size)
    with tempfile.TemporaryFile(prefix="flexseg-cache-") as file:
        os.truncate(file.fileno(), size)
        return mmap.mmap(file.fileno(), size)  # holds the file after it is closed
