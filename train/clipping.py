"""Clipping of gradients that were summed over replicas."""

from __future__ import annotations

import tensorflow as tf


def clip(gradients: list[tf.Tensor], kind: str, limit: float) -> list[tf.Tensor]:
    """Clips by "value", by each variable's "norm", or by the "global_norm" of all; or by "none".

    - value: every number to [-limit, limit].
    - norm: a variable's g becomes g limit / max(|g|, limit).
    - global_norm: every g becomes g limit / max(n, limit), n^2 being the sum of all |g|^2 (Pascanu
      et al. 2013).
    """
    if kind == "value":
        return [tf.clip_by_value(g, -limit, limit) for g in gradients]
    if kind == "norm":
        return [tf.clip_by_norm(g, limit) for g in gradients]
    if kind == "global_norm":
        return tf.clip_by_global_norm(gradients, limit)[0]
    return gradients
