"""Which image sizes a network takes, and what to say of the others. Imports no Keras."""

from __future__ import annotations

from flexseg_errors import FlexsegError


def nearest_valid_sizes(length: int, divisor: int, minimum: int = 1) -> tuple[int | None, int]:
    """The lengths nearest to `length`, in pixels, that are multiples of `divisor`.

    Args:
      length: the side asked for.
      divisor: what a valid side is a multiple of.
      minimum: the least valid side.

    Returns:
      (smaller, larger): the greatest valid side not above `length`, None where there is none, and
      the least valid side not below it. Both are `length` where it is valid.
    """
    least = max(1, -(-minimum // divisor)) * divisor
    smaller = length // divisor * divisor
    larger = max(-(-length // divisor) * divisor, least)
    return (smaller if smaller >= least else None), larger


def check_size(size: tuple[int | None, int | None], divisor: int, minimum: int = 1) -> None:
    """Holds an image's size to what a network can halve and double again without a remainder.

    Args:
      size: (height, width) in pixels; None where not known, which passes.
      divisor: what both sides must be multiples of.
      minimum: the least side.

    Raises:
      FlexsegError: a side does not fit; names the side, the divisor and the nearest sides that do.
    """
    problems = []
    for side, length in zip(("height", "width"), size, strict=True):
        if length is None:
            continue
        smaller, larger = nearest_valid_sizes(length, divisor, minimum)
        if length != larger:
            fitting = f"{larger}" if smaller is None else f"{smaller} or {larger}"
            problems.append(f"{side} {length} (nearest that fits: {fitting})")
    if problems:
        least = f" and at least {minimum}" if minimum > divisor else ""
        raise FlexsegError(
            f"This network takes images whose sides are multiples of {divisor} pixels{least}; "
            f"got {' and '.join(problems)}. Resize, crop or pad the images, or run it in tiles."
        )
