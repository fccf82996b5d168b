"""A tiled prediction is the blend of its tiles, at every size, in a graph and out of it."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg_errors import FlexsegError
from models import registry, sliding_window
from models.sliding_window import SlidingWindow

SIZES = [(1, 1), (1, 50), (3, 3), (7, 40), (16, 24), (17, 24), (16, 25), (31, 47), (70, 101)]


def image_of(size, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, channels), dtype=np.uint8)


def identity(tiles):
    return tf.cast(tiles, tf.float32) / 255


def graph_of(window, channels=2):
    spec = tf.TensorSpec([None, None, channels], tf.uint8)
    return tf.function(window, input_signature=[spec])


@settings(deadline=None, max_examples=150)
@given(data=st.data(), tile=st.integers(1, 600))
def test_tiles_cover_the_axis_with_the_fewest_tiles(data, tile):
    overlap = data.draw(st.integers(0, tile - 1))
    length = data.draw(st.integers(tile, tile + 40 * (tile - overlap)))
    origins = sliding_window.tile_origins(length, tile, overlap).numpy()
    steps = np.diff(origins)
    assert origins[0] == 0
    assert origins[-1] + tile == length, "the last is flush with the edge"
    assert (steps > 0).all()
    assert (steps <= tile - overlap).all(), "neighbours share the overlap at least"
    assert steps.size == 0 or steps.max() - steps.min() <= 1, "evenly spaced"
    assert len(origins) == 1 or tile + (len(origins) - 2) * (tile - overlap) < length, "fewest"


@pytest.mark.parametrize("length", [1, 2, 5, 512])
def test_an_axis_no_longer_than_a_tile_has_one_tile(length):
    assert sliding_window.tile_origins(length, 512, 128).numpy().tolist() == [0]


def test_origins_are_known_by_hand():
    assert sliding_window.tile_origins(110, 64, 32).numpy().tolist() == [0, 23, 46]
    assert len(sliding_window.tile_origins(3025, 512, 128)) == 8
    assert len(sliding_window.tile_origins(3500, 512, 128)) == 9


def test_origins_of_long_axes_do_not_overflow():
    length, tile, overlap = 100_000, 4, 3
    count = length - tile + 1
    expected = [(i * (length - tile) + (count - 1) // 2) // (count - 1) for i in range(count)]
    for value in (length, tf.constant(length, tf.int32)):
        origins = sliding_window.tile_origins(value, tile, overlap)
        assert origins.dtype == tf.int64
        np.testing.assert_array_equal(origins, expected)


@pytest.mark.parametrize(
    ("tile", "overlap", "pixels"),
    [(512, 0.25, 128), (512, 0, 0), (10, 0.99, 9), (1, 0.9, 0), (7, 0.5, 4), (100, 0.333, 33)],
)
def test_the_overlap_in_pixels_is_less_than_the_tile(tile, overlap, pixels):
    assert sliding_window.overlap_pixels(tile, overlap) == pixels


@pytest.mark.parametrize("pixels", [1, 2, 100, 511])
def test_an_overlap_from_1_on_is_pixels(pixels):
    for overlap in (pixels, float(pixels)):
        assert sliding_window.overlap_pixels(512, overlap) == pixels


@pytest.mark.parametrize("length", range(1, 12))
@pytest.mark.parametrize("target", [1, 4, 11, 50])
def test_padding_reflects_as_numpy_does(length, target):
    missing = max(0, target - length)
    expected = np.pad(np.arange(length), (missing // 2, missing - missing // 2), mode="reflect")
    np.testing.assert_array_equal(sliding_window.reflected_indices(length, target), expected)


@pytest.mark.parametrize("tile", [1, 2, 7, 512])
def test_gaussian_weights_are_scipys(tile):
    weights = sliding_window.gaussian_weights(tile)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, scipy.signal.windows.gaussian(tile, tile / 8), rtol=1e-5)
    assert weights.min() > 3e-4


def test_gaussian_weights_are_monais_above_its_floor():
    """MONAI: exp(-x^2 / (2 sigma^2)) about (n - 1) / 2, in two axes, at least max(least, 1e-3)."""
    tile = (40, 64)
    profiles = [sliding_window.gaussian_weights(side) for side in tile]
    y, x = np.ogrid[: tile[0], : tile[1]]
    exponent = sum(
        (p - (n - 1) / 2) ** 2 / (2 * (n / 8) ** 2) for p, n in zip((y, x), tile, strict=True)
    )
    monai = np.maximum(np.exp(-exponent), max(np.exp(-exponent).min(), 1e-3))
    ours = np.outer(*profiles)
    above = monai > 1e-3
    assert above.mean() > 0.5
    np.testing.assert_allclose(ours[above], monai[above], rtol=1e-4)
    assert (ours[~above] <= 1.0001e-3).all()


@pytest.mark.parametrize("tile", [(33, 33), (65, 41)])
def test_gaussian_weights_are_nnunets_where_its_centre_is_a_pixel(tile):
    """nnU-Net filters an impulse at n // 2 with sigma = n / 8 and divides by the greatest value."""
    impulse = np.zeros(tile)
    impulse[tile[0] // 2, tile[1] // 2] = 1
    nnunet = scipy.ndimage.gaussian_filter(impulse, [n / 8 for n in tile], mode="constant")
    ours = np.outer(*(sliding_window.gaussian_weights(n) for n in tile))
    np.testing.assert_allclose(ours, nnunet / nnunet.max(), rtol=1e-4, atol=1e-9)


@settings(deadline=None, max_examples=100)
@given(data=st.data(), tile=st.integers(1, 80), mode=st.sampled_from(sliding_window.MODES))
def test_the_parts_of_all_tiles_sum_to_one_at_every_pixel(data, tile, mode):
    overlap = data.draw(st.integers(0, tile - 1)) or 0.0
    length = data.draw(st.integers(1, tile + 20 * (tile - int(overlap))))
    axis = sliding_window.Axis.of(length, tile, overlap, mode)
    total = np.zeros(max(length, tile))
    for origin, share in zip(axis.origins.numpy(), axis.shares.numpy(), strict=True):
        total[origin : origin + tile] += share
    np.testing.assert_allclose(total, 1, atol=1e-6)


@settings(deadline=None, max_examples=100)
@given(data=st.data(), tile=st.integers(2, 60))
def test_margins_are_cut_off_in_the_middle_of_what_neighbours_share(data, tile):
    overlap = data.draw(st.integers(0, tile - 1)) or 0.0
    length = data.draw(st.integers(tile, tile + 10 * (tile - int(overlap))))
    axis = sliding_window.Axis.of(length, tile, overlap, "margin")
    origins, shares = axis.origins.numpy(), axis.shares.numpy()
    kept = [(o + np.flatnonzero(share)) for o, share in zip(origins, shares, strict=True)]
    assert set(np.unique(shares)) <= {0, 1}
    np.testing.assert_array_equal(np.concatenate(kept), np.arange(length), "each pixel once")
    for i in range(len(origins) - 1):
        shared = origins[i] + tile - origins[i + 1]
        cut_left = origins[i] + tile - 1 - kept[i][-1]
        cut_right = kept[i + 1][0] - origins[i + 1]
        assert cut_left + cut_right == shared
        assert abs(cut_left - cut_right) <= 1
        assert min(cut_left, cut_right) >= overlap // 2, "at least half the overlap is context"


@pytest.mark.parametrize("overlap", [0, 0.25, 4, 7, 0.8])
def test_the_margin_mode_is_a_plain_crop_and_paste(overlap):
    """Tile by tile: predict, cut the margins that have a neighbour off, paste. Nothing is added."""
    tile = (12, 20)
    ramp = (np.arange(12)[:, None] * 100 + np.arange(20)).astype(np.float32)

    def predict(tiles):  # says where in its tile a pixel lies
        return tf.cast(tiles[..., :1], tf.float32) * 0.0 + ramp[..., None]

    graph = graph_of(SlidingWindow(predict, tile, overlap, "margin", batch_size=3))
    for size in [(12, 20), (13, 61), (60, 21), (55, 83)]:
        canvas, cuts = np.full(size, -1.0), []
        for n, t in zip(size, tile, strict=True):
            origins = sliding_window.tile_origins(
                n, t, sliding_window.overlap_pixels(t, overlap)
            ).numpy()
            spans = []
            for i, o in enumerate(origins):
                first = 0 if i == 0 else o + (origins[i - 1] + t - o) // 2
                last = n if i == len(origins) - 1 else origins[i + 1]
                last += 0 if i == len(origins) - 1 else (o + t - origins[i + 1]) // 2
                spans.append((o, first, last))
            cuts.append(spans)
        for y, top, bottom in cuts[0]:
            for x, left, right in cuts[1]:
                canvas[top:bottom, left:right] = ramp[top - y : bottom - y, left - x : right - x]
        assert canvas.min() >= 0
        np.testing.assert_array_equal(graph(image_of(size))[..., 0], canvas)


def test_pixels_and_the_same_share_are_the_same():
    image = image_of((61, 90))

    def predict(tiles):
        ramp = tf.linspace(0.0, 1.0, 24)[:, None]
        return tf.cast(tiles, tf.float32) * ramp

    share, pixels = (
        SlidingWindow(predict, (16, 24), overlap, batch_size=3) for overlap in (0.25, 6)
    )
    assert (share.axes(61, 90)[1].origins == pixels.axes(61, 90)[1].origins).numpy().all()
    square = [SlidingWindow(predict, (24, 24), o)(image).numpy() for o in (0.25, 6)]
    np.testing.assert_array_equal(*square)


@pytest.mark.parametrize("weights", sliding_window.MODES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 1, 15])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_identity_returns_the_image_at_every_size(weights, overlap, batch_size):
    window = SlidingWindow(identity, (16, 24), overlap, weights, batch_size)
    graph = graph_of(window)
    for size in SIZES:
        image = image_of(size)
        result = graph(image)
        assert result.shape == (*size, 2)
        assert result.dtype == tf.float32
        np.testing.assert_allclose(result, image / 255, atol=1e-6, err_msg=f"{size}")


@pytest.mark.parametrize("size", SIZES)
def test_eager_and_static_shapes_give_the_same(size):
    window, image = SlidingWindow(identity, (16, 24), batch_size=3), image_of(size)
    static = tf.function(window, input_signature=[tf.TensorSpec(image.shape, tf.uint8)])
    for result in (window(image), static(image)):
        assert result.shape == image.shape
        np.testing.assert_allclose(result, image / 255, atol=1e-6)


def by_hand(predict, image, tile, overlap, profiles):
    """The same in plain loops and float64, over an image that is padded as a whole."""
    missing = [max(0, t - n) for n, t in zip(image.shape, tile, strict=False)]
    padding = [(m // 2, m - m // 2) for m in missing]
    padded = np.pad(image, [*padding, (0, 0)], mode="reflect")
    origins = []
    for length, side in zip(padded.shape, tile, strict=False):
        gaps = int(np.ceil((length - side) / (side - round(overlap * side))))
        origins.append([(i * (length - side) + gaps // 2) // max(gaps, 1) for i in range(gaps + 1)])
    weight = np.outer(*[profile.astype(np.float64) for profile in profiles])[..., None]
    total, norm = 0.0, 0.0
    for y in origins[0]:
        for x in origins[1]:
            where = np.s_[y : y + tile[0], x : x + tile[1]]
            values = predict(padded[where][None].astype(np.float64))[0]
            if np.isscalar(total):
                total = np.zeros((*padded.shape[:2], values.shape[-1]))
                norm = np.zeros((*padded.shape[:2], 1))
            total[where] += weight * values
            norm[where] += weight
    (top, _), (left, _) = padding
    return (total / norm)[top : top + image.shape[0], left : left + image.shape[1]]


@pytest.mark.parametrize("weights", sliding_window.WEIGHTS)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.8])
def test_the_blend_is_that_of_plain_loops(weights, overlap):
    tile = (12, 20)
    ramp = np.linspace(0, 1, tile[0])[:, None] + np.linspace(0, 3, tile[1]) ** 2

    def in_numpy(tiles):
        first, second = tiles[..., :1] / 255, tiles[..., 1:] / 255
        ramps = np.broadcast_to(ramp[..., None], first.shape)
        return np.concatenate([first * ramps, second + ramps, ramps], -1)

    def in_tensorflow(tiles):
        first, second = tf.split(tf.cast(tiles, tf.float32) / 255, 2, axis=-1)
        ramps = tf.broadcast_to(tf.constant(ramp[..., None], tf.float32), tf.shape(first))
        return tf.concat([first * ramps, second + ramps, ramps], -1)

    graph = graph_of(SlidingWindow(in_tensorflow, tile, overlap, weights, batch_size=3))
    profiles = [sliding_window.WEIGHTS[weights](side) for side in tile]
    for size in [(5, 9), (12, 20), (13, 61), (60, 21), (55, 83)]:
        image = image_of(size)
        expected = by_hand(in_numpy, image, tile, overlap, profiles)
        np.testing.assert_allclose(graph(image), expected, atol=1e-5, err_msg=f"{size}")


def test_predict_sees_one_batch_shape_and_is_traced_once():
    seen = []

    def predict(tiles):
        seen.append((tiles.shape, tiles.dtype))
        return identity(tiles)

    window = SlidingWindow(predict, (16, 24), batch_size=3)
    graph = graph_of(window)
    for size in SIZES:
        graph(image_of(size))
    assert [(shape.as_list(), dtype) for shape, dtype in seen] == [([None, 16, 24, 2], tf.uint8)]
    window(image_of((30, 30)))
    assert len(seen) == 1
    assert graph.experimental_get_tracing_count() == 1


def test_no_tile_is_predicted_twice():
    counted = tf.Variable(0)

    def predict(tiles):
        counted.assign_add(tf.shape(tiles)[0])
        return identity(tiles)

    SlidingWindow(predict, (16, 24), overlap=0.0, batch_size=4)(image_of((40, 120)))
    assert counted.numpy() == 3 * 5


@pytest.mark.parametrize("size", SIZES)
def test_finishing_rows_is_finishing_the_whole(size):
    def argmax(rows):
        return tf.argmax(rows, -1, tf.int32)

    def class_ids(rows):
        return tf.cast(argmax(rows), tf.uint8)

    image = image_of(size, channels=4)
    whole = argmax(SlidingWindow(identity, (16, 24), 0.5)(image))
    window = SlidingWindow(identity, (16, 24), 0.5, finish=class_ids)
    for result in (window(image), graph_of(window, channels=4)(image)):
        assert result.dtype == tf.uint8
        np.testing.assert_array_equal(result, whole)


def test_rows_are_finished_as_the_band_moves_on():
    heights = []

    def note(height):
        heights.append(int(height))
        return height

    def finish(rows):
        noted = tf.numpy_function(note, [tf.shape(rows)[0]], tf.int32)
        with tf.control_dependencies([noted]):
            return tf.identity(rows)

    window = SlidingWindow(identity, (16, 24), 0.5, finish=finish)
    graph_of(window)(image_of((70, 30)))
    origins = sliding_window.tile_origins(70, 16, 8).numpy().tolist()
    assert heights == np.diff([*origins, 70]).tolist()


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64, tf.uint8])
def test_values_of_any_dtype_are_blended_in_float32(dtype):
    image = image_of((20, 50)) // 32
    result = SlidingWindow(lambda tiles: tf.cast(tiles, dtype), (16, 24))(image)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, image, atol=1e-5)


def test_float_images_reach_predict_as_they_are():
    image = np.random.default_rng(0).normal(size=(20, 50, 1)).astype(np.float32)
    np.testing.assert_allclose(SlidingWindow(tf.identity, (16, 24))(image), image, atol=1e-6)


def test_a_network_in_a_saved_model_predicts_images_of_any_size(tmp_path):
    model = registry.build("flex_unet", num_classes=3, base_filters=2, levels=2)
    window = SlidingWindow(
        lambda tiles: tf.nn.softmax(model(tiles, training=False)), (16, 24), batch_size=2
    )
    module = tf.Module()
    module.model = model
    module.tiled = graph_of(window, channels=3)
    tf.saved_model.save(module, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    for size in [(1, 1), (16, 24), (37, 61)]:
        image = image_of(size, channels=3)
        result = loaded.tiled(image)
        np.testing.assert_allclose(result, window(image), atol=1e-5)
        np.testing.assert_allclose(np.sum(result, -1), 1, atol=1e-5)
    image = image_of((16, 24), channels=3)
    np.testing.assert_allclose(loaded.tiled(image), tf.nn.softmax(model(image[None]))[0], atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tile": (0, 8)}, "tile must be"),
        ({"tile": (8,)}, "tile must be"),
        ({"overlap": 1.5}, "overlap must be a share"),
        ({"overlap": -0.1}, "overlap must be a share"),
        ({"overlap": float("nan")}, "overlap must be a share"),
        ({"overlap": 8}, "overlap is 8 pixels, but a tile has 8"),
        ({"tile": (80, 8), "overlap": 20}, "overlap is 20 pixels, but a tile has 8"),
        ({"weights": "gausian"}, 'Did you mean "gaussian"'),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(FlexsegError, match=message):
        SlidingWindow(identity, **{"tile": (8, 8), **wrong})


@pytest.mark.parametrize("shape", [(9, 9), (1, 1, 9, 9, 2)])
def test_an_image_has_three_axes_and_a_batch_four(shape):
    with pytest.raises(FlexsegError, match=r"\[B, H, W, C\], not of shape \(.*9, 9"):
        SlidingWindow(identity, (8, 8))(np.zeros(shape, np.uint8))


def local_mean(tiles):
    """Values that depend on what lies around, and on where the tile ends."""
    return tf.nn.avg_pool2d(tf.cast(tiles, tf.float32), 5, 1, "SAME")


@settings(deadline=None, max_examples=40)
@given(
    size=st.tuples(st.integers(1, 45), st.integers(1, 45)),
    count=st.integers(1, 4),
    batch_size=st.integers(1, 7),
    weights=st.sampled_from(["gaussian", "uniform", "margin"]),
    finish=st.sampled_from([None, lambda rows: tf.argmax(rows, -1, tf.int32)]),
)
def test_images_of_a_batch_come_out_as_each_by_itself(size, count, batch_size, weights, finish):
    images = np.stack([image_of(size, seed=i) for i in range(count)])
    window = SlidingWindow(local_mean, (16, 12), 0.3, weights, batch_size, finish)
    expected = np.stack([window(image) for image in images])
    np.testing.assert_allclose(window(images), expected, rtol=1e-6, atol=1e-4)


def test_tiles_of_all_images_share_batches():
    """Five images of 2 x 3 tiles: two rows of fifteen tiles, four at a time."""
    seen = []

    def predict(tiles):
        def note(values):
            seen.append(len(values))
            return values.astype(np.float32)

        return tf.ensure_shape(tf.numpy_function(note, [tiles], tf.float32), tiles.shape)

    window = SlidingWindow(predict, (16, 24), 0.0, batch_size=4)
    spec = tf.TensorSpec([None, None, None, 2], tf.uint8)
    graph = tf.function(window, input_signature=[spec])
    images = np.stack([image_of((32, 72), seed=i) for i in range(5)])
    np.testing.assert_allclose(graph(images), images, atol=1e-3)
    assert seen == [4, 4, 4, 3] * 2


@pytest.mark.parametrize("predict", [lambda t: t[:, ::2], lambda t: t[..., 0]])
def test_a_predictor_that_does_not_keep_the_size_is_refused(predict):
    with pytest.raises(FlexsegError, match="values of the same size"):
        SlidingWindow(predict, (8, 8), batch_size=2)(np.zeros((9, 9, 2), np.uint8))
