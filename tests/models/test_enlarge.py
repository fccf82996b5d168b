"""Enlarging is bilinear interpolation, whether or not sizes are known."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.enlarge import Enlarge

IMAGES = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)


def expected(factor):
    """Sampled at every new pixel's center, by hand."""
    out = IMAGES.astype(np.float64)
    for axis in (1, 2):
        length = out.shape[axis]
        at = (np.arange(length * factor) + 0.5) / factor - 0.5
        below = np.floor(at).astype(int)
        share = (at - below).reshape([-1 if a == axis else 1 for a in range(4)])
        low, high = (np.take(out, np.clip(below + k, 0, length - 1), axis) for k in (0, 1))
        out = low * (1 - share) + high * share
    return out


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_enlarging_samples_between_the_centers_of_pixels(factor):
    layer = Enlarge(factor, name="e")
    np.testing.assert_allclose(layer(IMAGES), expected(factor), atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
@pytest.mark.parametrize("unknown", [[1, 2], [1], [2]])
def test_unknown_sizes_in_a_graph_change_nothing(factor, unknown):
    shape = [None if axis in unknown else side for axis, side in enumerate(IMAGES.shape)]
    model = keras.Sequential([keras.Input(shape[1:]), Enlarge(factor, name="e")])
    graph = tf.function(model, input_signature=[tf.TensorSpec(shape)], autograph=False)
    assert graph.get_concrete_function().outputs[0].shape.rank == 4
    np.testing.assert_allclose(graph(IMAGES), expected(factor), atol=1e-5)


def test_the_factor_survives_the_config_and_tells_the_shape():
    layer = Enlarge.from_config(Enlarge(4, name="e").get_config())
    assert (layer.factor, layer.name) == (4, "e")
    assert layer.compute_output_shape((None, None, 6, 2)) == (None, None, 24, 2)
