"""The counts of a network are what computing it costs, product by product."""

import itertools

import keras
import numpy as np
import pytest

from flexseg_errors import FlexsegError
from models import attention, describe, registry
from models.sharpen import Sharpen


class Counter:
    """Computes layers value by value, and counts the products."""

    def __init__(self):
        self.products = 0

    def dot(self, a, b):
        self.products += np.size(a)
        return np.sum(np.asarray(a, np.float64) * b)

    def dense(self, x, kernel):
        """[N, I] by [I, O]."""
        return np.array([[self.dot(row, column) for column in kernel.T] for row in x])

    def conv(self, x, kernel, stride=1, depthwise=False):
        """[H, W, I] with "same" padding; a zero beyond the edge costs as much as any value."""
        height, width = (-(-side // stride) for side in x.shape[:2])
        k = kernel.shape[0]
        missing = [
            max(0, (n - 1) * stride + k - s) for n, s in zip((height, width), x.shape, strict=False)
        ]
        x = np.pad(x, [(m // 2, m - m // 2) for m in missing] + [(0, 0)])
        outs = kernel.shape[2] if depthwise else kernel.shape[3]
        result = np.zeros((height, width, outs))
        for i, j, o in itertools.product(range(height), range(width), range(outs)):
            patch = x[i * stride : i * stride + k, j * stride : j * stride + k]
            if depthwise:
                result[i, j, o] = self.dot(patch[..., o], kernel[..., o, 0])
            else:
                result[i, j, o] = self.dot(patch, kernel[..., o])
        return result

    def up(self, x, kernel):
        """A transposed convolution whose kernel [2, 2, O, I] is as wide as its stride."""
        result = np.zeros((2 * x.shape[0], 2 * x.shape[1], kernel.shape[2]))
        for i, j, o in np.ndindex(result.shape):
            result[i, j, o] = self.dot(x[i // 2, j // 2], kernel[i % 2, j % 2, o])
        return result


def small_network():
    """Every kind of layer that multiplies, on one road."""
    images = keras.Input((None, None, 2), name="images")
    x = keras.layers.Conv2D(4, 3, 2, padding="same", use_bias=False, name="conv")(images)
    x = Sharpen(name="sharpen")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = keras.layers.Conv2DTranspose(3, 2, strides=2, use_bias=False, name="up")(x)
    x = keras.layers.SeparableConv2D(5, 3, padding="same", use_bias=False, name="separable")(x)
    x = keras.layers.Dense(4, use_bias=False, name="dense")(x)
    return keras.Model(images, x)


def test_multiply_adds_are_the_products_of_computing_the_network():
    model = small_network()
    image = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
    weights = {w.path: np.array(w, np.float64) for w in model.weights}
    counter = Counter()
    x = counter.conv(image, weights["conv/kernel"], stride=2)
    x = counter.conv(x, weights["sharpen/laplacian"], depthwise=True)
    x = counter.conv(x, weights["depthwise/kernel"], depthwise=True)
    x = counter.up(x, weights["up/kernel"])
    x = counter.conv(x, weights["separable/depthwise_kernel"], depthwise=True)
    x = counter.conv(x, weights["separable/pointwise_kernel"])
    x = counter.dense(x.reshape(-1, 5), weights["dense/kernel"]).reshape(4, 6, 4)
    np.testing.assert_allclose(model(image[None])[0], x, atol=1e-4)
    assert describe.multiply_adds(model, (4, 6)) == counter.products


def test_multiply_adds_of_attention_are_the_products_of_computing_it():
    images = keras.Input((4, 6, 5), name="images")
    tokens = keras.layers.Reshape((24, 5), name="tokens")(images)
    few = keras.layers.MaxPooling1D(3, name="few")(tokens)
    layer = keras.layers.MultiHeadAttention(2, 3, value_dim=4, use_bias=False, name="attention")
    model = keras.Model(images, layer(tokens, few))
    x = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)
    query, key, value, out = (np.array(w, np.float64) for w in layer.weights)
    counter = Counter()
    queries, values = x.reshape(24, 5), x.reshape(8, 3, 5).max(1)
    q, k, v = (
        counter.dense(tokens, kernel.reshape(5, -1)).reshape(len(tokens), 2, -1)
        for tokens, kernel in ((queries, query), (values, key), (values, value))
    )
    heads = []
    for head in range(2):
        scores = counter.dense(q[:, head], k[:, head].T) / np.sqrt(3)
        shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        heads.append(counter.dense(shares, v[:, head]))
    result = counter.dense(np.concatenate(heads, -1), out.reshape(-1, 5))
    np.testing.assert_allclose(model(x[None])[0], result, atol=1e-4)
    assert describe.multiply_adds(model, (4, 6)) == counter.products


def attended(counter, queries, keys, values, heads):
    """Plain attention of [Q, C] to [K, C]; counts the products, and gives no result."""
    width = queries.shape[1] // heads
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = counter.dense(queries[:, part], keys[:, part].T)
        counter.dense(scores, values[:, part])


def test_multiply_adds_of_attention_between_maps():
    big = keras.Input((4, 6, 4), name="big")
    shrunk = keras.layers.MaxPooling2D(2, name="pool")(big)
    model = keras.Model(big, attention.MapAttention(2, seed=0, name="map")([big, shrunk]))
    counter, matrix = Counter(), np.ones((4, 4))
    queries, keys = np.ones((24, 4)), np.ones((6, 4))
    for tokens in (queries, keys, keys, queries):  # query, key, value, projection
        counter.dense(tokens, matrix)
    attended(counter, queries, keys, keys, heads=2)
    assert describe.multiply_adds(model, (4, 6)) == counter.products


# Windows of 4 along sides of 8 and 12 (which they divide), of 9 and 3, and moved by 2.
@pytest.mark.parametrize(
    ("size", "shift", "windows"),
    [((8, 12), 0, 6), ((9, 3), 0, 3), ((8, 12), 2, 12), ((9, 3), 2, 3), ((4, 5), 2, 2)],
)
def test_multiply_adds_of_attention_within_windows(size, shift, windows):
    images = keras.Input((None, None, 4), name="images")
    layer = attention.WindowAttention(2, 4, shift, seed=0, name="window")
    model = keras.Model(images, layer(images))
    counter, pixels, window = Counter(), np.ones((size[0] * size[1], 4)), np.ones((16, 4))
    for _ in range(4):
        counter.dense(pixels, np.ones((4, 4)))
    for _ in range(windows):
        attended(counter, window, window, window, heads=2)
    assert describe.multiply_adds(model, size) == counter.products


def test_products_of_matrices_outside_of_layers_count_too():
    images = keras.Input((4, 6, 5), name="images")
    product = keras.ops.matmul(images, keras.ops.transpose(images, (0, 1, 3, 2)))
    model = keras.Model(images, keras.ops.einsum("bhij,bhjc->bhic", product, images))
    assert describe.multiply_adds(model, (4, 6)) == 2 * 4 * 6 * 6 * 5


# Of the older project's network for 512 x 512, as they were counted by its recipe.
@pytest.mark.parametrize(("kernel", "billions"), [(3, 20.7), (7, 36.8), (9, 57.8), (11, 90.8)])
def test_multiply_adds_are_those_of_the_original(kernel, billions):
    model = describe.abstract(
        "flex_unet", num_classes=2, levels=8, normalization="none", base_kernel=kernel
    )
    assert describe.multiply_adds(model, (512, 512)) == pytest.approx(billions * 1e9, abs=5e7)


def test_rows_tell_level_shape_weights_and_memory():
    model = registry.build("flex_unet", num_classes=2, base_filters=4, levels=3)
    description = describe.describe(model, (16, 24))
    assert (description.name, description.size) == ("flex_unet", (16, 24))
    rows = {row.name: row for row in description.rows}
    row = rows["enc1_conv2"]
    assert (row.kind, row.inputs, row.level, row.shape) == (
        "Conv2D",
        ("enc1_drop",) if "enc1_drop" in rows else ("enc1_act1",),
        1,
        (8, 12, 8),
    )
    assert row.parameters == 9 * 8 * 8  # batch normalization takes the bias away
    assert row.multiply_adds == 8 * 12 * 9 * 8 * 8
    assert row.activation_bytes == 8 * 12 * 8 * 4
    assert rows["dec0_concat"].inputs == ("dec0_up", "enc0_act2")
    assert rows["enc0_pool"].level == 1
    assert (
        description.parameters == model.count_params() == sum(r.parameters for r in rows.values())
    )
    assert description.trainable < description.parameters
    assert description.activation_bytes == sum(row.activation_bytes for row in rows.values())


def test_halves_count_half_under_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = describe.abstract("flex_unet", num_classes=2, base_filters=4, levels=2)
    finally:
        keras.config.set_dtype_policy(before)
    rows = {row.name: row for row in describe.describe(model, (16, 24)).rows}
    assert rows["enc0_conv1"].activation_bytes == 16 * 24 * 4 * 2
    assert rows["logits"].activation_bytes == 16 * 24 * 2 * 4


def test_a_network_inside_a_network_is_refused():
    inner = small_network()
    images = keras.Input((None, None, 2), name="images")
    with pytest.raises(TypeError, match=inner.name):
        describe.describe(keras.Model(images, inner(images)), (4, 6))


@keras.saving.register_keras_serializable(package="flexseg_test")
class Secretive(keras.layers.Layer):
    """Has weights, and does not say what it does with them."""

    def build(self, shape):
        self.matrix = self.add_weight(name="matrix", shape=(shape[-1], 4))
        self.built = True

    def call(self, x):
        return keras.ops.matmul(x, self.matrix)


def test_a_layer_that_does_not_tell_is_refused_by_name():
    images = keras.Input((None, None, 2), name="images")
    model = keras.Model(images, Secretive(name="secret")(images))
    with pytest.raises(TypeError, match=r"layer secret .*Secretive is missing"):
        describe.describe(model, (4, 6))


@pytest.mark.parametrize("name", sorted(registry.ARCHITECTURES))
def test_every_architecture_can_be_described_without_making_its_weights(name):
    config = registry.configure(name)
    side = -(-config.size_minimum // config.size_divisor) * config.size_divisor
    model = describe.abstract(name, num_classes=2, size=(2 * side, 2 * side))
    description = describe.describe(model, (2 * side, 2 * side))
    assert description.parameters == model.count_params()
    # Of every convolution's weights, each is multiplied at least once, most of them often.
    assert description.multiply_adds > description.parameters
    assert description.rows[-1].shape == (2 * side, 2 * side, 2)


def test_weights_that_were_never_made_are_not_made_later_either():
    model = describe.abstract("flex_unet", num_classes=2, base_filters=2, levels=2)
    keras.layers.Dense(2).build((None, 3))
    with keras.StatelessScope():
        keras.layers.Dense(2).build((None, 3))
    assert all(weight._value is None for weight in model.weights)


def test_a_size_that_the_network_cannot_take_is_refused():
    model = describe.abstract("flex_unet", num_classes=2, levels=3)
    with pytest.raises(FlexsegError, match="width 17"):
        describe.describe(model, (16, 17))
