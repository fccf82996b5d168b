"""Which sizes fit, and that the message says which do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexseg_errors import FlexsegError
from models.sizes import check_size, nearest_valid_sizes


@given(length=st.integers(1, 5000), divisor=st.integers(1, 300), minimum=st.integers(1, 600))
def test_nearest_valid_sizes_are_the_nearest(length, divisor, minimum):
    valid = [n for n in range(divisor, 6000, divisor) if n >= minimum]
    below = [n for n in valid if n <= length]
    expected = (below[-1] if below else None, next(n for n in valid if n >= length))
    assert nearest_valid_sizes(length, divisor, minimum) == expected


@pytest.mark.parametrize("size", [(32, 48), (16, 16), (None, 16), (None, None)])
def test_what_fits_passes(size):
    check_size(size, 16)


def test_the_message_names_side_divisor_and_both_neighbours():
    with pytest.raises(FlexsegError, match=r"multiples of 16 .*width 100 .*96 or 112") as error:
        check_size((32, 100), 16)
    assert "height" not in str(error.value)


def test_below_the_minimum_only_the_larger_neighbour_is_offered():
    with pytest.raises(FlexsegError, match=r"at least 32; got height 16 .*fits: 32\)"):
        check_size((16, None), 16, minimum=32)


def test_every_wrong_side_is_told():
    with pytest.raises(FlexsegError, match=r"height 7 .*fits: 8\) and width 9 .*fits: 8 or 16\)"):
        check_size((7, 9), 8)
