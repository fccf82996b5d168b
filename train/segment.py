"""A network applied to whole images: prepare, slide, undo, in one graph.

Evaluation, prediction and the exported bundle all go through here, so that they agree. Images that
are too large for that are segmented by rows, to the same: `Segmenter.rows`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.sliding_window import SlidingWindow
from pipelines.preparation import Preparation
from pipelines.preprocessing import Preprocessing
from train.deep_supervision import main_logits
from train.experiment import InferenceConfig
from train.resize import resize
from train.segment_rows import RowSegmenter


def probabilities(logits: tf.Tensor) -> tf.Tensor:
    """Logits [..., K] to softmax [..., K]; one logit [..., 1] to those of two classes [..., 2]."""
    logits = tf.cast(logits, tf.float32)
    if logits.shape[-1] == 1:
        return tf.sigmoid(tf.concat([-logits, logits], -1))
    return tf.nn.softmax(logits)


def class_ids(probabilities: tf.Tensor) -> tf.Tensor:
    """Probabilities [..., K] to the most probable class, uint8 [...]; of equals the first."""
    if probabilities.shape[-1] == 2:  # argmax takes longer
        return tf.cast(probabilities[..., 1] > probabilities[..., 0], tf.uint8)
    return tf.cast(tf.argmax(probabilities, -1), tf.uint8)


def resized_class_ids(probabilities: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """`class_ids` of probabilities float32 [..., h, w, K] that are resized to (height, width)."""
    if probabilities.shape[-1] == 2:  # each for itself, to lie in memory as they are compared
        first, second = (resize(probabilities[..., k : k + 1], size) for k in range(2))
        return tf.cast(second > first, tf.uint8)[..., 0]
    return class_ids(resize(probabilities, size))


class Segmenter(tf.Module):
    """A model with all that it needs to segment an image of any size.

    Attributes:
      model: images [B, h, w, C] 0..255 to logits.
      tile: (h, w) in pixels, of the prepared image.
      channels: of the images.
      num_classes: K, classes that are told apart.
      preparation: what is done to images first.
      inference: how the window slides.
      probabilities: tf.function from an image as it comes, uint8 [H, W, C], to probabilities
        float32 [H, W, K].
      prepared_probabilities: the same for an image that was prepared already.
      batch_probabilities: as `probabilities`, from [B, H, W, C] to [B, H, W, K]; tiles of all
        images share the network's batches, so that sums may be rounded otherwise.
      batch_class_ids: the same to class ids, uint8 [B, H, W], without holding probabilities at the
        size of the images where they need not be resized.
      prepared_class_ids: the same for images that were prepared already.
      tile_probabilities: tf.function from tiles of a prepared image, uint8 [N, h, w, C], to
        probabilities float32 [N, h, w, K], without any window.
    """

    def __init__(
        self,
        model: keras.Model,
        tile: tuple[int, int],
        preparation: Preparation,
        inference: InferenceConfig,
        *,
        overlap: float | None = None,
        weights: str | None = None,
        batch_size: int | None = None,
        blend: str | None = None,
    ):
        """Takes `inference`, but for what is given beside it.

        Raises:
          FlexsegError: a value is out of its range, or the overlap not less than a tile.
        """
        super().__init__()
        self.model = model
        self.tile = tile
        self.channels = model.input_shape[-1]
        self.num_classes = max(2, model.outputs[0].shape[-1])
        self.preparation = preparation
        self.inference = inference.changed(
            overlap=overlap, weights=weights, batch_size=batch_size, blend=blend
        )
        self._preprocessing = Preprocessing.from_text(preparation.preprocessing)
        self._blends_logits = self.inference.blend == "logits"
        self._window = SlidingWindow(
            predict=self._logits if self._blends_logits else self._tile_probabilities,
            tile=tile,
            overlap=self.inference.overlap,
            weights=self.inference.weights,
            batch_size=self.inference.batch_size,
        )
        self._id_window = dataclasses.replace(self._window, finish=self._ids_of_blended)
        spec = tf.TensorSpec([None, None, self.channels], tf.uint8)
        tiles = tf.TensorSpec([None, *tile, self.channels], tf.uint8)
        self.probabilities = tf.function(self._probabilities, input_signature=[spec])
        self.prepared_probabilities = tf.function(self._slide, input_signature=[spec])
        images = tf.TensorSpec([None, None, None, self.channels], tf.uint8)
        self.batch_probabilities = tf.function(self._probabilities, input_signature=[images])
        self.batch_class_ids = tf.function(self._class_ids, input_signature=[images])
        self.prepared_class_ids = tf.function(self._id_window, input_signature=[images])
        self.tile_probabilities = tf.function(self._tile_probabilities, input_signature=[tiles])
        self._tile_logits = tf.function(self._logits, input_signature=[tiles])

    def rows(self, predict: Callable[[np.ndarray], Any] | None = None) -> RowSegmenter:
        """The same for images of which memory holds no more than some rows.

        Args:
          predict: what to blend in place of the network's own values, say those of test-time
            augmentation around `tile_probabilities`: from tiles uint8 [N, h, w, C] to probabilities
            [N, h, w, K]. None takes what `inference.blend` names.
        """
        activation = None
        if predict is None:
            predict = self._tile_logits if self._blends_logits else self.tile_probabilities
            activation = probabilities if self._blends_logits else None
        return RowSegmenter(predict, self._window, self.preparation, activation)

    def _probabilities(self, image: tf.Tensor) -> tf.Tensor:
        image = self._preprocessing.to_graph(tf.convert_to_tensor(image))
        if not self.preparation.resizes:
            return self._slide(image)
        return resize(self._slide(self._resized(image)), tf.shape(image)[-3:-1])

    def _class_ids(self, image: tf.Tensor) -> tf.Tensor:
        image = self._preprocessing.to_graph(tf.convert_to_tensor(image))
        if not self.preparation.resizes:
            return self._id_window(image)
        return resized_class_ids(self._slide(self._resized(image)), tf.shape(image)[-3:-1])

    def _resized(self, image: tf.Tensor) -> tf.Tensor:
        """At the size that the network knows, uint8 [..., h, w, C]."""
        resized = resize(image, self._prepared_size(tf.shape(image)[-3:-1]))
        # The network learnt on whole gray values.
        return tf.cast(tf.round(tf.clip_by_value(resized, 0.0, 255.0)), tf.uint8)

    def _slide(self, image: tf.Tensor) -> tf.Tensor:
        values = self._window(image)
        return probabilities(values) if self._blends_logits else values

    def _ids_of_blended(self, values: tf.Tensor) -> tf.Tensor:
        return class_ids(probabilities(values) if self._blends_logits else values)

    def _logits(self, tiles: tf.Tensor) -> tf.Tensor:
        return tf.cast(main_logits(self.model(tiles, training=False)), tf.float32)

    def _tile_probabilities(self, tiles: tf.Tensor) -> tf.Tensor:
        return probabilities(self._logits(tiles))

    def _prepared_size(self, size: tf.Tensor) -> tf.Tensor:
        if self.preparation.image_size:
            return tf.constant(self.preparation.image_size, tf.int32)
        scaled = tf.cast(size, tf.float64) * self.preparation.scale + 0.5
        return tf.maximum(tf.cast(scaled, tf.int32), 1)
