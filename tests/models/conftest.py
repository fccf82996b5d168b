"""What tests of networks share: TensorFlow's own operations on the weights of a network."""

import keras
import numpy as np
import pytest
import tensorflow as tf


class Recipe:
    """A network's layers by their names, computed in float64 without Keras."""

    def __init__(self, model):
        self.model = model

    def weights(self, name):
        return [tf.cast(weight.value, tf.float64) for weight in self.model.get_layer(name).weights]

    def conv(self, x, name, dilation=1):
        kernel, *bias = self.weights(name)
        x = tf.nn.conv2d(x, kernel, 1, "SAME", dilations=dilation)
        return x + bias[0] if bias else x

    def up(self, x, name):
        """A transposed convolution, 2 x 2 with stride 2."""
        kernel, bias = self.weights(name)
        batch, height, width, _ = x.shape
        shape = [batch, 2 * height, 2 * width, kernel.shape[2]]
        return tf.nn.conv2d_transpose(x, kernel, shape, 2, "SAME") + bias

    def norm(self, x, name):
        """Batch normalization with its moving moments."""
        gamma, beta, mean, variance = self.weights(name)
        return (x - mean) / tf.sqrt(variance + 1e-3) * gamma + beta

    def pool(self, x, factor=2):
        return tf.nn.max_pool2d(x, factor, factor, "VALID")

    def enlarge(self, x, factor=2):
        """Bilinear, by the positions of the new pixels' centers; the edge goes on."""
        for axis in (1, 2):
            length = x.shape[axis]
            at = (np.arange(length * factor) + 0.5) / factor - 0.5
            below = np.floor(at).astype(int)
            share = (at - below).reshape([-1 if a == axis else 1 for a in range(4)])
            low, high = (tf.gather(x, np.clip(below + k, 0, length - 1), axis=axis) for k in (0, 1))
            x = low * (1 - share) + high * share
        return x


@pytest.fixture
def recipe():
    """`recipe(model)`: the model's layers without Keras, after all its weights became telling.

    No bias is 0 any more, no scale 1, no moment trivial.
    """

    def of(model):
        rng = np.random.default_rng(0)
        for weight in model.weights:
            if not weight.path.endswith(("/kernel", "/laplacian")):
                weight.assign(rng.uniform(0.1, 0.9, weight.shape))
        return Recipe(model)

    return of


@pytest.fixture
def abstract():
    """Models of tens of millions of parameters whose weights are never made."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()
