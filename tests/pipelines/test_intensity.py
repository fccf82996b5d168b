"""Deep values become 8-bit ones by the formula, with the limits of the whole image or volume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flexseg_errors import FlexsegError
from pipelines import intensity
from pipelines.intensity import Intensity

DTYPES = (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, np.bool_)
ADAPTIVE = ("minmax", "minmax-slice", "percentile:1,99", "percentile-slice:0.5,90")


def volumes() -> st.SearchStrategy[np.ndarray]:
    shapes = hnp.array_shapes(min_dims=3, max_dims=3, max_side=5)
    numbers = {"allow_nan": False, "allow_infinity": False, "min_value": -1e6, "max_value": 1e6}
    return st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(
            dtype, shapes, elements=numbers if np.dtype(dtype).kind == "f" else None
        )
    )


def mapped(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The formula, value by value, in plain Python."""
    scaled = [255 * (float(v) - low) / (high - low) for v in values.ravel()]
    clipped = [min(max(v, 0), 255) for v in scaled]
    return np.array([int(v + 0.5) for v in clipped]).reshape(values.shape)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("none", "none"),
        (" minmax ", "minmax"),
        ("minmax-slice", "minmax-slice"),
        ("percentile:1.0,99", "percentile:1,99"),
        ("percentile-slice:0.05, 99.95", "percentile-slice:0.05,99.95"),
        ("window:40,80", "window:40,80"),
        ("window:-600,1500.5", "window:-600,1500.5"),
        ("window:0.1,1e-3", "window:0.1,0.001"),
    ],
)
def test_a_map_survives_its_text(text, canonical):
    assert str(intensity.parse(text)) == canonical
    assert intensity.parse(canonical) == intensity.parse(text)


@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9))
def test_any_window_survives_its_text(centre, width):
    chosen = Intensity("window", centre, width)
    assert intensity.parse(str(chosen)) == chosen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("minmx", r'"minmx": expected none, minmax.*Did you mean "minmax"'),
        ("", "expected none, minmax"),
        ("window", "window takes two numbers, such as window:40,80"),
        ("window:40", "window takes two numbers"),
        ("window:40,80,1", "window takes two numbers"),
        ("window:wide,80", "window takes two numbers"),
        ("minmax:1,2", "minmax takes no number"),
        ("percentile", "percentile takes two numbers, such as percentile:1,99"),
        ("percentile:99,1", "percentile:99,1: expected two rising percentiles"),
        ("percentile:-1,99", "two rising percentiles"),
        ("percentile-slice:5,5", "two rising percentiles"),
        ("window:40,0", "window's width, its second number, must be above 0"),
        ("window:nan,80", "both numbers must be finite"),
        ("window:40,inf", "both numbers must be finite"),
    ],
)
def test_what_is_no_map_is_refused_with_its_reason(text, message):
    with pytest.raises(FlexsegError, match=message):
        intensity.parse(text)


@given(volumes())
@settings(max_examples=100)
def test_the_limits_of_a_volume_are_those_of_numpy(volume):
    real = volume.astype(np.float64)
    assert intensity.parse("minmax").limits(volume) == (real.min(), real.max())
    for lower, upper in ((1, 99), (0, 100), (12.5, 60)):
        chosen = Intensity("percentile", lower, upper)
        expected = np.percentile(real, [lower, upper])
        np.testing.assert_allclose(chosen.limits(volume), expected, rtol=1e-12, atol=1e-9)


@given(volumes())
@settings(max_examples=50)
def test_the_limits_of_slices_are_those_of_the_volume_that_they_make(volume):
    for text in ADAPTIVE:
        chosen = intensity.parse(text)
        assert chosen.limits(iter(volume)) == chosen.limits(volume)


@given(volumes(), st.sampled_from([*ADAPTIVE, "window:40,80", "window:0.5,3e5"]))
@settings(max_examples=100)
def test_values_are_mapped_by_the_formula(volume, text):
    chosen = intensity.parse(text)
    result, (low, high) = chosen.apply(volume), chosen.limits(volume)
    assert result.dtype == np.uint8
    assert result.shape == volume.shape
    if low == high:
        assert not result.any()
    else:
        # One gray level apart only where a value lies at a half, to rounding.
        expected = mapped(volume, low, high)
        apart = np.abs(result.astype(int) - expected)
        assert apart.max() <= 1
        exact = 255 * (volume.astype(np.float64) - low) / (high - low)
        assert np.abs(exact[apart > 0] % 1 - 0.5).max(initial=0) < 1e-6


def test_halves_are_rounded_up_and_what_is_outside_the_limits_is_clipped():
    chosen = intensity.parse("window:255,510")  # two units to a gray level
    values = np.array([-7, 0, 1, 2, 3, 509, 510, 600], np.int16)
    assert chosen.apply(values).tolist() == [0, 0, 1, 1, 2, 255, 255, 255]


def test_the_old_saturation_of_hounsfield_units_is_a_window():
    values = np.array([-1000, -1, 0, 1, 128, 254, 255, 256, 3000], np.float32)
    chosen = intensity.parse("window:127.5,255")
    assert chosen.apply(values).tolist() == [0, 0, 0, 1, 128, 254, 255, 255, 255]


def test_a_slice_gets_the_limits_of_its_volume_unless_each_is_to_have_its_own():
    volume = np.stack([np.arange(6).reshape(2, 3) * scale for scale in (10, 100)]).astype(np.int16)
    whole = intensity.parse("minmax")
    assert not whole.per_slice
    limits = whole.limits(volume)
    assert whole.apply(volume[0], limits).max() == 26  # 50 of 0..500
    assert whole.apply(volume[1], limits).max() == 255
    own = intensity.parse("minmax-slice")
    assert own.per_slice
    assert [own.apply(s).max() for s in volume] == [255, 255]


@pytest.mark.parametrize("text", [*ADAPTIVE, "window:5,10"])
def test_what_is_not_finite_is_left_out_and_becomes_zero(text):
    chosen = intensity.parse(text)
    finite = np.linspace(0, 10, 101)
    odd = np.array([np.nan, np.inf, -np.inf])
    both = np.concatenate([finite, odd])
    assert chosen.limits(both) == chosen.limits(finite)
    assert (chosen.apply(both)[:101] == chosen.apply(finite)).all()
    assert chosen.apply(both)[101:].tolist() == [0, 0, 0]
    assert not chosen.apply(odd).any()


@pytest.mark.parametrize("text", ADAPTIVE)
def test_a_constant_image_becomes_zero(text):
    chosen = intensity.parse(text)
    assert not chosen.apply(np.full((3, 4), 1200, np.int16)).any()
    assert chosen.apply(np.empty((0, 4), np.int16)).shape == (0, 4)


def test_limits_that_are_almost_equal_still_tell_values_apart():
    values = np.array([0.0, 5e-324, 1e-323, np.inf])
    assert intensity.parse("minmax").apply(values).tolist() == [0, 128, 255, 0]


def test_a_large_image_is_mapped_like_its_parts(monkeypatch):
    values = np.random.default_rng(0).integers(-1000, 3000, (37, 23, 3), dtype=np.int16)
    chosen = intensity.parse("percentile:1,99")
    whole = chosen.apply(values)
    monkeypatch.setattr(intensity, "_BLOCK", 100)
    assert (chosen.apply(values) == whole).all()
    assert (chosen.apply(values.transpose(1, 0, 2)) == whole.transpose(1, 0, 2)).all()


def test_without_a_map_only_8_bit_images_pass_and_pass_unchanged():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    chosen = intensity.parse("none")
    assert chosen.apply(values) is values
    assert chosen.limits(values) is None
    with pytest.raises(
        FlexsegError,
        match=r"deep.png holds uint16 values.*--intensity.*window:CENTRE,WIDTH.*percentile:1,99",
    ):
        chosen.apply(values.astype(np.uint16), path="deep.png")


@pytest.mark.parametrize(
    ("text", "adapts"),
    [(t, True) for t in ADAPTIVE] + [("none", False), ("window:40,80", False)],
)
def test_a_volume_is_read_twice_only_where_its_limits_depend_on_it(text, adapts):
    assert intensity.parse(text).adapts is adapts
