"""Which records hold foreground, and where in them a crop should look.

After nnU-Net (Isensee et al., 2021): a share of the examples is forced to show foreground; of its
classes that an image holds one is drawn, and of that class's pixels one, about which the crop lies.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from flexseg_errors import FlexsegError, nearest
from pipelines import records
from pipelines.label_map import LabelMap

_FOCUS = 5  # sets these draws apart from those of augmentation


def class_ids(label_map: LabelMap, wanted: Sequence[str]) -> tuple[int, ...]:
    """The class ids of names or ids; of none, all but 0.

    Raises:
      FlexsegError: where a class is unknown.
    """
    names = label_map.names
    if not wanted:
        return tuple(range(1, label_map.num_classes))
    found = []
    for name in wanted:
        if name in names:
            found.append(names.index(name))
        elif name.isdigit() and int(name) < len(names):
            found.append(int(name))
        else:
            raise FlexsegError(
                f'data.foreground_classes: there is no class "{name}"; known are '
                f"{', '.join(names)} (0 to {len(names) - 1}).{nearest(name, names)}"
            )
    return tuple(sorted(set(found)))


@functools.lru_cache(maxsize=4)
def class_pixels(paths: tuple[str, ...], num_classes: int) -> np.ndarray:
    """Pixels of each class in each record, int64 [N, K]; reads all files once, decodes nothing."""
    spec = {records.MASK_PIXELS: tf.io.FixedLenFeature([num_classes], tf.int64)}
    dataset = tf.data.TFRecordDataset(list(paths), num_parallel_reads=1).batch(64)
    dataset = dataset.map(lambda batch: tf.io.parse_example(batch, spec)[records.MASK_PIXELS])
    found = list(dataset.as_numpy_iterator())
    return np.concatenate(found) if found else np.zeros([0, num_classes], np.int64)


def draw_focus(
    mask: tf.Tensor, wanted: tf.Tensor, classes: Sequence[int], seed: int, place: tf.Tensor
) -> tf.Tensor:
    """A pixel of a drawn class of those that a mask holds.

    Args:
      mask: class ids, uint8 [H, W].
      wanted: bool scalar, whether to look at all.
      classes: the class ids to draw from.
      seed: the run's seed.
      place: int64 scalar, the example's place in the stream.

    Returns:
      (y, x), int64 [2]; (-1, -1) where none is wanted, or the mask holds none of the classes.
    """
    nowhere = tf.constant([-1, -1], tf.int64)

    def look() -> tf.Tensor:
        key = tf.stack([tf.cast(seed, tf.int64), place])
        key = tf.random.experimental.stateless_fold_in(key, _FOCUS)
        draw = tf.random.stateless_uniform([2], key)
        counts = tf.math.bincount(tf.cast(tf.reshape(mask, [-1]), tf.int32), minlength=256)
        candidates = tf.constant(classes, tf.int32)
        present = tf.boolean_mask(candidates, tf.gather(counts, candidates) > 0)

        def pixel() -> tf.Tensor:
            chosen = present[_pick(draw[0], tf.size(present))]
            places = tf.where(mask == tf.cast(chosen, tf.uint8))
            return places[_pick(draw[1], tf.shape(places)[0])]

        return tf.cond(tf.size(present) > 0, pixel, lambda: nowhere)

    return tf.cond(wanted, look, lambda: nowhere)


def _pick(value: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """A number below `count` from a value uniform in [0, 1)."""
    # In double precision: with more than 2^24 pixels a float32 would reach only some of them.
    scaled = tf.cast(value, tf.float64) * tf.cast(count, tf.float64)
    return tf.minimum(tf.cast(scaled, tf.int32), count - 1)
