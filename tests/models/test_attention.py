"""Attention, windows, patches and positions against loops, Keras and TensorFlow."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import attention


def maps(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def fill(layer, scale=1.0):
    """Weights of some size, biases included, so that every one of them shows in the result."""
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape) * scale)
    return layer


def test_map_attention_is_kerass_multi_head_attention_without_key_bias():
    queries, keys = maps(2, 3, 4, 8), maps(2, 2, 3, 8, seed=1)
    ours = attention.MapAttention(2, seed=0, name="ours")
    ours([queries, keys])
    fill(ours)
    oracle = keras.layers.MultiHeadAttention(2, 4)
    flat = queries.reshape(2, 12, 8), keys.reshape(2, 6, 8)
    oracle(*flat)
    for part, theirs in (
        (ours.query, oracle.query_dense),
        (ours.key, oracle.key_dense),
        (ours.value, oracle.value_dense),
    ):
        bias = part.bias if part.use_bias else np.zeros(8)
        theirs.set_weights([np.reshape(part.kernel, (8, 2, 4)), np.reshape(bias, (2, 4))])
    kernel = np.reshape(ours.projection.kernel, (2, 4, 8))
    oracle.output_dense.set_weights([kernel, np.array(ours.projection.bias)])
    expected = np.reshape(oracle(*flat), queries.shape)
    np.testing.assert_allclose(ours([queries, keys]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [2, 3])
def test_windows_are_cut_row_by_row_and_put_together_again(window):
    size = (2 * window, 3 * window)
    x = maps(2, *size, 5)
    windows = np.array(attention.partition(x, window))
    assert windows.shape == (2, 6, window**2, 5)
    for index in range(6):
        top, left = window * (index // 3), window * (index % 3)
        expected = x[:, top : top + window, left : left + window].reshape(2, window**2, 5)
        np.testing.assert_array_equal(windows[:, index], expected)
    np.testing.assert_array_equal(attention.join(windows, size, window), x)


def window_layer(heads, window, shift, channels=6):
    layer = attention.WindowAttention(heads, window, shift, seed=0, name="windows")
    layer.build((None, None, None, channels))
    return fill(layer)


def biases_of(layer):
    """(dy, dx) -> the bias of each head of a query at that offset from its key."""
    span = 2 * layer.window - 1
    table = np.array(layer.position_biases).reshape(span, span, -1)
    return lambda dy, dx: table[dy + layer.window - 1, dx + layer.window - 1]


def parts_of(layer, x):
    """Queries, keys and values [B, H, W, heads, d] of a map."""
    shape = (*x.shape[:3], layer.heads, -1)
    return [np.array(part(x)).reshape(shape) for part in (layer.query, layer.key, layer.value)]


def by_pixel(layer, x):
    """Windowed attention pixel by pixel, from its definition."""
    _, height, width, channels = x.shape
    queries, keys, values = parts_of(layer, x)
    bias = biases_of(layer)

    def window_of(place, length):
        shift = layer.shift if length > layer.window else 0
        return (place - shift) // layer.window

    pixels = [(y, x) for y in range(height) for x in range(width)]
    home = {(y, x): (window_of(y, height), window_of(x, width)) for y, x in pixels}
    mixed = np.zeros_like(x)
    for y, column in pixels:
        mates = [p for p in pixels if home[p] == home[y, column]]
        k = np.stack([keys[:, i, j] for i, j in mates], 1)
        v = np.stack([values[:, i, j] for i, j in mates], 1)
        scores = np.einsum("bhd,bkhd->bhk", queries[:, y, column], k)
        scores = scores / np.sqrt(channels / layer.heads)
        scores += np.stack([bias(y - i, column - j) for i, j in mates], -1)
        out = np.einsum("bhk,bkhd->bhd", softmax(scores), v)
        mixed[:, y, column] = out.reshape(len(x), channels)
    return np.array(layer.projection(mixed))


@pytest.mark.parametrize("size", [(6, 9), (7, 5), (3, 8), (2, 2), (1, 4)])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_a_pixel_attends_to_its_window_and_to_nothing_beyond_the_edge(size, shift):
    layer, x = window_layer(2, 3, shift), maps(2, *size, 6)
    expected = by_pixel(layer, x)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)
    unknown = tf.function(layer, input_signature=[tf.TensorSpec([None, None, None, 6])])
    np.testing.assert_allclose(unknown(x), expected, rtol=1e-4, atol=1e-4)


def test_shifted_windows_are_the_papers_roll_with_masks():
    window, shift, size = 4, 2, (8, 12)
    layer, x = window_layer(2, window, shift), maps(1, *size, 6)
    rolled = np.roll(x, (-shift, -shift), (1, 2))
    # The paper's regions: what was brought in from the other side may not see what was there.
    region = np.zeros((1, *size, 1))
    slices = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate((r, c) for r in slices for c in slices):
        region[:, rows, columns] = number
    queries, keys, values = (
        np.array(attention.partition(part(rolled), window)).reshape(-1, window**2, 2, 3)
        for part in (layer.query, layer.key, layer.value)
    )
    bias, pixels = biases_of(layer), [divmod(i, window) for i in range(window**2)]
    biases = np.array([[bias(a - c, b - d) for c, d in pixels] for a, b in pixels])
    cut = np.array(attention.partition(region, window)).reshape(-1, window**2)
    masks = np.where(cut[:, :, None] == cut[:, None], 0, -1e9)
    scores = np.einsum("nqhd,nkhd->nhqk", queries, keys) / np.sqrt(3)
    shares = softmax(scores + biases.transpose(2, 0, 1) + masks[:, None])
    mixed = np.einsum("nhqk,nkhd->nqhd", shares, values).reshape(1, -1, window**2, 6)
    mixed = np.roll(attention.join(mixed, size, window), (shift, shift), (1, 2))
    expected = layer.projection(mixed.astype(np.float32))
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factor", [2, 4])
def test_pixels_go_to_channels_and_back_as_in_tensorflow(factor):
    x = maps(2, 2 * factor, 3 * factor, 5)
    packed = attention.SpaceToDepth(factor)(x)
    np.testing.assert_array_equal(packed, tf.nn.space_to_depth(x, factor))
    np.testing.assert_array_equal(attention.DepthToSpace(factor)(packed), x)
    images = keras.Input((None, 8, 3))
    assert attention.SpaceToDepth(factor)(images).shape == (None, None, 8 // factor, 3 * factor**2)
    back = attention.DepthToSpace(factor)(attention.SpaceToDepth(factor)(images))
    assert back.shape == images.shape


@pytest.mark.parametrize("size", [(4, 4), (7, 10), (3, 4), (1, 8)])
def test_positions_are_stretched_to_the_map(size):
    layer, x = attention.Positions(4, seed=0, name="positions"), maps(2, *size, 5)
    expected = x + tf.image.resize(fill_after(layer, x).positions[None], size)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
    unknown = tf.function(layer, input_signature=[tf.TensorSpec([None, None, None, 5])])
    np.testing.assert_allclose(unknown(x), expected, rtol=1e-5, atol=1e-5)


def fill_after(layer, x):
    layer(x)
    return fill(layer)


def test_one_seed_gives_every_part_weights_of_its_own():
    layers = [
        attention.WindowAttention(2, 3, seed=seed, name=name)
        for seed, name in ((0, "a"), (0, "a"), (0, "b"), (1, "a"))
    ]
    for layer in layers:
        layer.build((None, None, None, 6))
    kernels = [[np.array(w) for w in x.weights if np.std(w) > 0] for x in layers]
    for one, same in zip(kernels[0], kernels[1], strict=True):
        np.testing.assert_array_equal(one, same)
    square = [w for group in (kernels[0], *kernels[2:]) for w in group if w.shape == (6, 6)]
    assert len({w.tobytes() for w in square}) == len(square) == 12
