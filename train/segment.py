"""A network applied to whole images: prepare, slide, undo, in one graph.

Evaluation, prediction and the exported bundle all go through here, so that they agree.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from models.sliding_window import SlidingWindow
from pipelines.preparation import Preparation
from pipelines.preprocessing import Preprocessing
from train.deep_supervision import main_logits
from train.experiment import InferenceConfig


def probabilities(logits: tf.Tensor) -> tf.Tensor:
    """Logits [..., K] to softmax [..., K]; one logit [..., 1] to those of two classes [..., 2]."""
    logits = tf.cast(logits, tf.float32)
    if logits.shape[-1] == 1:
        return tf.sigmoid(tf.concat([-logits, logits], -1))
    return tf.nn.softmax(logits)


def resize(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resizes float32 [H, W, C] as `preparation.resize_image` does.

    Mean over areas where both sides shrink, else linear, pixel centres aligned.
    """
    shape = tf.shape(image)[:2]

    def area() -> tf.Tensor:
        return tf.image.resize(image, size, method="area")

    def linear() -> tf.Tensor:
        return tf.image.resize(image, size, method="bilinear")

    def changed() -> tf.Tensor:
        return tf.cond(tf.reduce_all(size <= shape), area, linear)

    return tf.cond(tf.reduce_all(size == shape), lambda: image, changed)


class Segmenter(tf.Module):
    """A model with all that it needs to segment an image of any size.

    Attributes:
      model: images [B, h, w, C] 0..255 to logits.
      tile: (h, w) in pixels, of the prepared image.
      channels: of the images.
      num_classes: K, classes that are told apart.
    """

    def __init__(
        self,
        model: keras.Model,
        tile: tuple[int, int],
        preparation: Preparation,
        inference: InferenceConfig,
    ):
        super().__init__()
        self.model = model
        self.tile = tile
        self.channels = model.input_shape[-1]
        self.num_classes = max(2, model.outputs[0].shape[-1])
        self._preparation = preparation
        self._preprocessing = Preprocessing.from_text(preparation.preprocessing)
        self._window = SlidingWindow(
            predict=lambda tiles: probabilities(main_logits(model(tiles, training=False))),
            tile=tile,
            overlap=inference.overlap,
            weights=inference.weights,
            batch_size=inference.batch_size,
        )
        spec = tf.TensorSpec([None, None, self.channels], tf.uint8)
        self.probabilities = tf.function(self._probabilities, input_signature=[spec])
        self.prepared_probabilities = tf.function(self._slide, input_signature=[spec])

    def _probabilities(self, image: tf.Tensor) -> tf.Tensor:
        """An image as it comes, uint8 [H, W, C], to probabilities float32 [H, W, K]."""
        image = self._preprocessing.to_graph(tf.convert_to_tensor(image))
        size = tf.shape(image)[:2]
        prepared = tf.cast(image, tf.float32)
        if self._preparation.resizes:
            prepared = resize(prepared, self._prepared_size(size))
            # The network learnt on whole gray values.
            prepared = tf.round(tf.clip_by_value(prepared, 0.0, 255.0))
        result = self._window(tf.cast(prepared, tf.uint8))
        return resize(result, size) if self._preparation.resizes else result

    def _slide(self, image: tf.Tensor) -> tf.Tensor:
        """The same for an image that was prepared already."""
        return self._window(image)

    def _prepared_size(self, size: tf.Tensor) -> tf.Tensor:
        if self._preparation.image_size:
            return tf.constant(self._preparation.image_size, tf.int32)
        scaled = tf.cast(size, tf.float64) * self._preparation.scale + 0.5
        return tf.maximum(tf.cast(scaled, tf.int32), 1)
