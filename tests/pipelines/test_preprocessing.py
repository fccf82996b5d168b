"""Images are prepared as the old loaders did with OpenCV, and alike in NumPy and in the graph."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flexseg_errors import FlexsegError
from pipelines import preprocessing
from pipelines.preprocessing import Preprocessing

IMAGE = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
FULL = "gamma=1.5,sharpen=1,invert,contrast=1.5:40,color=BGR2HSV"


def steps(color: bool = True) -> st.SearchStrategy[Preprocessing]:
    return st.builds(
        Preprocessing,
        gamma=st.sampled_from([1.0, 0.5, 1.5, 2.0]) | st.floats(0.05, 20),
        sharpen=st.sampled_from([0.0, 1.0, 2.0, 0.5]) | st.floats(0, 100),
        invert=st.booleans(),
        contrast=st.none() | st.tuples(st.floats(-9, 9), st.floats(-300, 300)),
        color=st.sampled_from(["", *preprocessing.COLORS]) if color else st.just(""),
    )


def as_the_old_loaders_did(image: np.ndarray, chosen: Preprocessing) -> np.ndarray:
    """The same steps by OpenCV's functions, on BGR, in the old order."""
    image = image[..., ::-1].copy()
    if chosen.gamma != 1:
        table = ((np.arange(256) / 255) ** chosen.gamma * 255).clip(0, 255).astype(np.uint8)
        image = cv2.LUT(image, table)
    if chosen.sharpen:
        kernel = np.full((3, 3), -chosen.sharpen)
        kernel[1, 1] = 1 + 8 * chosen.sharpen
        image = cv2.filter2D(image, ddepth=-1, kernel=kernel)
    if chosen.invert:
        image = cv2.bitwise_not(image)
    if chosen.contrast is not None:
        image = cv2.convertScaleAbs(image, alpha=chosen.contrast[0], beta=chosen.contrast[1])
    if chosen.color:
        return cv2.cvtColor(image, getattr(cv2, "COLOR_" + chosen.color))
    return image[..., ::-1]


@given(steps())
def test_steps_survive_their_text(chosen):
    assert Preprocessing.from_text(str(chosen)) == chosen


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        (FULL, FULL),
        ("color=cv2.COLOR_BGR2HSV_FULL, invert", "invert,color=BGR2HSV_FULL"),
        ("color=COLOR_BGR2LAB", "color=BGR2Lab"),
        ("color=bgr2ycr_cb", "color=BGR2YCrCb"),
        ("contrast=1:-0.5,gamma=0.250", "gamma=0.25,contrast=1:-0.5"),
        ("gamma=1,sharpen=0", ""),
    ],
)
def test_a_text_has_one_canonical_form(text, canonical):
    assert str(Preprocessing.from_text(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gama=1.5", r'"gama" is not a step; expected some of gamma.*Did you mean "gamma"'),
        ("sharpening=1", r'Did you mean "sharpen"'),
        ("gamma=1,gamma=2", "gamma is given twice"),
        ("gamma", r'gamma in "gamma": expected a number\.'),
        ("gamma=bright", "expected a number"),
        ("gamma=0", "expected a number above 0"),
        ("gamma=inf", "expected a number above 0"),
        ("sharpen=-1", "expected a number from 0 to 100"),
        ("sharpen=1:2", "expected a number"),
        ("invert=yes", "invert takes no value"),
        ("contrast=1.5", "expected two numbers alpha:beta, such as 1.5:40"),
        ("contrast=1:nan", "expected finite numbers"),
        ("color=", "expected one of BGR2HLS"),
        ("color=BGR2HVS", r'expected one of BGR2HLS.*Did you mean "BGR2HSV"'),
        ("color=BGR2GRAY", "expected one of BGR2HLS"),
    ],
)
def test_what_is_no_step_is_refused_with_its_reason(text, message):
    with pytest.raises(FlexsegError, match=message):
        Preprocessing.from_text(text)


@pytest.mark.parametrize("color", ["", *preprocessing.COLORS])
@pytest.mark.parametrize(
    "text",
    ["gamma=1.5", "gamma=0.7", "sharpen=1", "sharpen=2.5", "invert", "contrast=1.5:40",
     "contrast=-2:100", "gamma=1.5,sharpen=1,invert,contrast=1.5:40"],
)  # fmt: skip
def test_each_step_and_all_in_order_give_what_the_old_loaders_gave(text, color):
    chosen = Preprocessing.from_text(text + (f",color={color}" if color else ""))
    assert (chosen.image(IMAGE) == as_the_old_loaders_did(IMAGE, chosen)).all()


@given(steps(color=False))
@settings(max_examples=100)
def test_one_step_with_any_number_is_within_a_gray_level_of_opencv(chosen):
    for name in ("gamma", "sharpen", "contrast"):
        one = Preprocessing(**{name: getattr(chosen, name)})
        apart = one.image(IMAGE).astype(int) - as_the_old_loaders_did(IMAGE, one)
        assert np.abs(apart).max() <= 1


def test_a_converted_image_keeps_its_channels_in_the_order_of_the_space():
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    hue, saturation, value = Preprocessing.from_text("color=BGR2HSV").image(red)[0, 0]
    assert (hue, saturation, value) == (0, 255, 255)
    assert (Preprocessing.from_text("color=BGR2RGB").image(IMAGE) == IMAGE).all()


@given(steps(color=False), hnp.array_shapes(min_dims=2, max_dims=2, max_side=5))
@settings(max_examples=60)
def test_gray_images_are_prepared_like_each_channel_of_colored_ones(chosen, size):
    gray = IMAGE[: size[0], : size[1], :1]
    result = chosen.image(gray)
    assert result.dtype == np.uint8
    assert result.shape == gray.shape
    assert (chosen.image(gray.repeat(3, -1)) == result.repeat(3, -1)).all()


def test_colors_of_a_gray_image_cannot_be_converted():
    chosen = Preprocessing.from_text("color=BGR2Luv")
    assert chosen.needs_color
    with pytest.raises(FlexsegError, match="color=BGR2Luv needs images of three channels, not 1"):
        chosen.image(IMAGE[..., :1])


def test_nothing_asked_for_is_nothing_done():
    chosen = Preprocessing()
    assert not chosen.needs_color
    assert chosen.image(IMAGE) is IMAGE
    assert (chosen.to_graph(IMAGE).numpy() == IMAGE).all()


def test_an_image_is_sharpened_alike_in_one_piece_and_in_several(monkeypatch):
    chosen = Preprocessing(sharpen=0.3)
    whole = chosen.image(IMAGE)
    monkeypatch.setattr(preprocessing, "_ROWS", 4)
    assert (chosen.image(IMAGE) == whole).all()


def test_an_image_is_not_changed_in_place():
    before = IMAGE.copy()
    Preprocessing.from_text(FULL).image(IMAGE)
    assert (before == IMAGE).all()


@given(steps(color=False), hnp.array_shapes(min_dims=2, max_dims=2, max_side=6))
@settings(max_examples=40, deadline=None)
def test_the_graph_gives_the_very_same_bytes(chosen, size):
    for channels in (1, 3):
        image = np.ascontiguousarray(IMAGE[: size[0], : size[1], :channels])
        assert (chosen.to_graph(image).numpy() == chosen.image(image)).all()


@pytest.mark.parametrize("xla", [False, True])
def test_a_traced_graph_of_any_size_gives_the_very_same_bytes(xla):
    import tensorflow as tf

    chosen = Preprocessing.from_text("gamma=1.5,sharpen=0.3,invert,contrast=1.1:7")
    signature = [tf.TensorSpec([None, None, None, 3], tf.uint8)]
    traced = tf.function(chosen.to_graph, input_signature=signature, jit_compile=xla)
    for height, width in ((23, 31), (8, 5)):
        batch = np.stack([IMAGE[:height, :width], 255 - IMAGE[:height, :width]])
        result = traced(batch)
        assert result.dtype == tf.uint8
        assert (result.numpy() == [chosen.image(image) for image in batch]).all()


def test_the_graph_refuses_a_conversion_of_colors():
    with pytest.raises(FlexsegError, match=r"color=BGR2HSV cannot be part of a model's graph"):
        Preprocessing.from_text(FULL).to_graph(IMAGE)
