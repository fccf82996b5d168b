"""The TensorBoard log of a run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf


class EventLog:
    """Scalars and pictures by step; opened when the first is written."""

    def __init__(self, folder: str):
        self._folder = folder
        self._writer: tf.summary.SummaryWriter | None = None

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Writes values by name; None writes nothing."""
        with self._open().as_default(step=step):
            for name, value in values.items():
                if value is not None:
                    tf.summary.scalar(name, value)
        self.flush()  # after a crash the log must reach as far as the last checkpoint

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Writes a picture, uint8 [H, W, 3] RGB."""
        with self._open().as_default(step=step):
            tf.summary.image(name, picture[None])

    def flush(self) -> None:
        """Writes what is held back."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> tf.summary.SummaryWriter:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._folder)
        return self._writer
