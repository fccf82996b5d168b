"""Every field is held to its type, its choices and its range, and the message names it."""

import dataclasses

import pytest

from flexseg_errors import FlexsegError
from models.knobs import check, knob


@dataclasses.dataclass(frozen=True)
class Config:
    count: int = knob(1, "a whole number", minimum=1)
    rate: float = knob(0.5, "a share", minimum=0, below=1)
    shape: str = knob("round", "a name", choices=("round", "square"))
    sizes: tuple[int, ...] = knob((), "some whole numbers", minimum=1)
    flag: bool = knob(False, "a switch")

    def __post_init__(self):
        check(self)


@pytest.mark.parametrize(
    "values",
    [{}, {"count": 7}, {"rate": 0}, {"rate": 0.999}, {"shape": "square"}, {"sizes": (3, 5)}],
)
def test_what_fits_passes(values):
    Config(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count must be at least 1, not 0"),
        ({"count": "8"}, "count must be a value of type int, not '8'"),
        ({"count": 1.5}, "count must be a value of type int"),
        ({"count": True}, "count must be a value of type int"),
        ({"flag": 1}, "flag must be a value of type bool"),
        ({"rate": 1}, "rate must be less than 1, not 1"),
        ({"rate": -0.1}, "rate must be at least 0, not -0.1"),
        ({"rate": float("nan")}, "rate must be"),
        ({"shape": "sqare"}, r'shape "sqare" is unknown.*Did you mean "square"'),
        ({"sizes": (3, 0)}, "sizes must be at least 1, not 0"),
        ({"sizes": [3]}, "sizes must be a list of int values"),
        ({"sizes": (3, 2.5)}, "sizes must be a list of int values"),
    ],
)
def test_what_does_not_fit_is_named(values, message):
    with pytest.raises(FlexsegError, match=message):
        Config(**values)
