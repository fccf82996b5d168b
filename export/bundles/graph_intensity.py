"""Deep pixels to 8 bits inside a TensorFlow graph, to the byte as `Intensity.apply` does it."""

from __future__ import annotations

import tensorflow as tf

from pipelines.intensity import Intensity


def to_uint8(values: tf.Tensor, intensity: Intensity) -> tf.Tensor:
    """Maps the values of one image: 255 (value - low) / (high - low), clipped, halves rounded up.

    Args:
      values: whole numbers of any shape and dtype that float64 holds.
      intensity: any kind but "none". Limits that come from the data come from these values.

    Returns:
      uint8, of the same shape; 0 everywhere where low and high are equal.
    """
    values = tf.cast(values, tf.float64)
    low, high = _limits(values, intensity)
    span = tf.where(high > low, high - low, tf.ones_like(low))
    mapped = tf.floor((tf.clip_by_value(values, low, high) - low) * 255 / span + 0.5)
    return tf.cast(tf.where(high > low, mapped, tf.zeros_like(mapped)), tf.uint8)


def _limits(values: tf.Tensor, intensity: Intensity) -> tuple[tf.Tensor, tf.Tensor]:
    if intensity.kind == "window":
        found = intensity.limits([])
        assert found is not None
        return tf.constant(found[0], tf.float64), tf.constant(found[1], tf.float64)
    if intensity.kind.startswith("minmax"):
        return tf.reduce_min(values), tf.reduce_max(values)
    ordered = tf.sort(tf.reshape(values, [-1]))
    return _quantile(ordered, intensity.first / 100), _quantile(ordered, intensity.second / 100)


def _quantile(ordered: tf.Tensor, share: float) -> tf.Tensor:
    """Interpolated linearly between order statistics, as NumPy does by default."""
    rank = tf.constant(share, tf.float64) * tf.cast(tf.size(ordered) - 1, tf.float64)
    below, above = tf.floor(rank), tf.math.ceil(rank)
    low = tf.gather(ordered, tf.cast(below, tf.int64))
    high = tf.gather(ordered, tf.cast(above, tf.int64))
    return low + (high - low) * (rank - below)
