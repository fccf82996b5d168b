"""What lowers the logits of classes that are not thought to be in an image, as a layer."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="flexseg")
class ClassGuide(keras.layers.Layer):
    """Adds log(sigmoid(c_k)) to every logit of class k.

    Takes logits [B, H, W, K] and c [B, K - 1] for classes 1 .. K - 1, or [B, 1] for a single class.
    Class 0 of several is the background, which is everywhere possible; its logits stay. Under a
    softmax, p_k is multiplied by sigmoid(c_k) before all are made to sum to 1; under a sigmoid it
    is the odds that are multiplied.
    """

    def call(self, inputs: Any) -> Any:
        logits, presence = inputs
        shift = keras.ops.log_sigmoid(presence)
        if logits.shape[-1] > 1:
            shift = keras.ops.pad(shift, ((0, 0), (1, 0)))
        return logits + shift[:, None, None, :]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]
