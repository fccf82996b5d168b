"""Deep pixels to 8 bits: the linear maps behind `--intensity`.

A map is chosen once for a dataset and kept with it. Where its limits come from the data, they come
from a whole image or a whole volume: slices that are each stretched to their own limits do not
show the same tissue in the same gray.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from flexseg_errors import FlexsegError, nearest

# Kind -> how many numbers follow it.
KINDS = {
    "none": 0,
    "minmax": 0,
    "minmax-slice": 0,
    "percentile": 2,
    "percentile-slice": 2,
    "window": 2,
}
_FORMS = "none, minmax, percentile:1,99, window:CENTRE,WIDTH, minmax-slice or percentile-slice:1,99"
_BLOCK = 1 << 20  # values that are mapped at a time, so that a deep image is not held as float64
_MAX_SPAN = 1 << 20  # integers that spread no further are counted by index instead of sorted

Limits = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Intensity:
    """A linear map of values to 0..255, with what lies outside its limits clipped.

    Attributes:
      kind: "none" takes 8-bit images as they are; "minmax" stretches from the least to the greatest
        finite value; "percentile" from one percentile to another; "window" from CENTRE - WIDTH / 2
        to CENTRE + WIDTH / 2, in the units of the file (Hounsfield for CT). "minmax-slice" and
        "percentile-slice" take their limits from each slice of a volume for itself.
      first: the lower percentile, or the window's centre.
      second: the upper percentile, or the window's width.
    """

    kind: str = "none"
    first: float = 0.0
    second: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FlexsegError(
                f'--intensity="{self.kind}": expected one of {_FORMS}.' + nearest(self.kind, KINDS)
            )
        if not (math.isfinite(self.first) and math.isfinite(self.second)):
            raise FlexsegError(f"--intensity={self}: both numbers must be finite.")
        if self.kind.startswith("percentile") and not 0 <= self.first < self.second <= 100:
            raise FlexsegError(
                f"--intensity={self}: expected two rising percentiles from 0 to 100, such as "
                "percentile:1,99."
            )
        if self.kind == "window" and self.second <= 0:
            raise FlexsegError(
                f"--intensity={self}: the window's width, its second number, must be above 0."
            )

    def __str__(self) -> str:
        """The text that `parse` reads back to the same map."""
        if not KINDS[self.kind]:
            return self.kind
        return f"{self.kind}:{_number(self.first)},{_number(self.second)}"

    @property
    def per_slice(self) -> bool:
        """Whether each slice of a volume has limits of its own."""
        return self.kind.endswith("-slice")

    @property
    def adapts(self) -> bool:
        """Whether the limits depend on the pixels, so that a volume is read once to find them."""
        return self.kind.startswith(("minmax", "percentile"))

    def limits(self, values: np.ndarray | Iterable[np.ndarray]) -> Limits | None:
        """The values that become 0 and 255.

        Args:
          values: real numbers of any shape and type; or several such arrays, the slices of one
            volume, of which one at a time is held. NaN and infinities are left out.

        Returns:
          (low, high) in the units of the values; (0, 0) where no value is finite; None for "none".
          Percentiles are interpolated linearly between order statistics, as NumPy does.
        """
        if self.kind == "none":
            return None
        if self.kind == "window":
            return self.first - self.second / 2, self.first + self.second / 2
        parts = [values] if isinstance(values, np.ndarray) else values
        if self.kind.startswith("minmax"):
            return _extremes(parts)
        return _percentiles(parts, self.first, self.second)

    def apply(
        self, values: np.ndarray, limits: Limits | None = None, path: str = "The image"
    ) -> np.ndarray:
        """Maps values to 8 bits: 255 (value - low) / (high - low), clipped, halves rounded up.

        Args:
          values: real numbers of any shape and type.
          limits: what `limits` gave for the whole image or volume; None takes these values' own.
          path: names the file in an error.

        Returns:
          uint8, of the same shape. NaN and infinities become 0, and so does everything where low
          and high are equal.

        Raises:
          FlexsegError: where the values are not 8-bit and the kind is "none".
        """
        if self.kind == "none":
            if values.dtype == np.uint8:
                return values
            raise FlexsegError(
                f"{path} holds {values.dtype} values, more than 8 bits can show. Say with "
                "--intensity how they become 8-bit: window:CENTRE,WIDTH for CT in Hounsfield units "
                "(window:40,80 shows the brain), percentile:1,99 or minmax for other images."
            )
        found = self.limits(values) if limits is None else limits
        assert found is not None  # only "none" has no limits
        low, high = found
        mapped = np.zeros(values.shape, np.uint8)
        if high <= low or not values.size:
            return mapped
        rows = np.atleast_1d(values)  # a view, like the next: what is written lands in `mapped`
        out = np.atleast_1d(mapped)
        step = max(1, _BLOCK * len(rows) // rows.size)
        for start in range(0, len(rows), step):
            block = rows[start : start + step].astype(np.float64)
            finite = np.isfinite(block)
            block[~finite] = low
            block = (np.clip(block, low, high) - low) * 255 / (high - low)
            out[start : start + step] = np.floor(block + 0.5)
        return mapped


def parse(text: str) -> Intensity:
    """Reads `none`, `minmax`, `percentile:1,99`, `window:CENTRE,WIDTH`, or a `-slice` kind.

    Raises:
      FlexsegError: where the kind is unknown, or its numbers are missing, too many or out of range.
    """
    kind, _, rest = text.strip().partition(":")
    if kind not in KINDS:
        raise FlexsegError(f'--intensity="{text}": expected {_FORMS}.' + nearest(kind, KINDS))
    try:
        numbers = [float(part) for part in rest.split(",")] if rest else []
    except ValueError:
        numbers = [math.nan] * 3
    if len(numbers) != KINDS[kind]:
        takes = "no number" if not KINDS[kind] else "two numbers, such as " + _example(kind)
        raise FlexsegError(f'--intensity="{text}": {kind} takes {takes}.')
    return Intensity(kind, *numbers)


def _example(kind: str) -> str:
    return "window:40,80" if kind == "window" else f"{kind}:1,99"


def _number(value: float) -> str:
    """The shortest text that is read back to the same number; 40 and not 40.0."""
    return repr(float(value)).removesuffix(".0")


def _finite(values: np.ndarray) -> np.ndarray:
    """The finite values, flat; booleans as 0 and 1."""
    if values.dtype == bool:
        values = values.astype(np.uint8)
    values = values.ravel()
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


def _extremes(parts: Iterable[np.ndarray]) -> Limits:
    found = [(v.min(), v.max()) for v in map(_finite, parts) if v.size]
    if not found:
        return 0.0, 0.0
    return float(min(low for low, _ in found)), float(max(high for _, high in found))


def _percentiles(parts: Iterable[np.ndarray], lower: float, upper: float) -> Limits:
    """Exact percentiles in the memory of the distinct values, which in scans are few."""
    distinct, counts = np.empty(0), np.empty(0, np.int64)
    for part in parts:
        values, times = _counts(_finite(part))
        merged, inverse = np.unique(np.concatenate([distinct, values]), return_inverse=True)
        summed = np.zeros(merged.size, np.int64)
        np.add.at(summed, inverse, np.concatenate([counts, times]))
        distinct, counts = merged, summed
    if not distinct.size:
        return 0.0, 0.0
    ends = np.cumsum(counts)  # the rank, from 0, at which each distinct value has been passed
    return _quantile(distinct, ends, lower / 100), _quantile(distinct, ends, upper / 100)


def _counts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values, float64, in rising order, and how often each occurs."""
    if values.size and values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        if high - low < _MAX_SPAN:
            times = np.bincount(values.astype(np.int64) - low)
            present = np.flatnonzero(times)
            return (present + low).astype(np.float64), times[present]
    distinct, times = np.unique(values, return_counts=True)
    return distinct.astype(np.float64), times


def _quantile(distinct: np.ndarray, ends: np.ndarray, share: float) -> float:
    rank = share * (int(ends[-1]) - 1)
    below = math.floor(rank)
    low, high = (
        float(distinct[np.searchsorted(ends, r, side="right")]) for r in (below, math.ceil(rank))
    )
    return low + (high - low) * (rank - below)
