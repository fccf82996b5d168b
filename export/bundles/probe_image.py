"""The image that bundles are tried with, where none of a dataset is at hand."""

from __future__ import annotations

import numpy as np


def probe(height: int, width: int, channels: int, noise: float = 20.0) -> np.ndarray:
    """Smooth shapes with noise on them: neither flat nor noise alone, and always the same.

    Args:
      height: in pixels.
      width: in pixels.
      channels: C.
      noise: its standard deviation, in gray values.

    Returns:
      uint8 [H, W, C].
    """
    rng = np.random.default_rng(0)
    y, x, c = np.mgrid[:height, :width, :channels]
    waves = 128 + 80 * np.sin(x / 9 + c) * np.cos(y / 7)
    return np.clip(waves + rng.normal(0, noise, waves.shape), 0, 255).astype(np.uint8)
