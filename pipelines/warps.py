"""Where each pixel of a warped image comes from: flips, turns, lenses, elastic sheets.

A warp maps points of its result to points of its source. Warps therefore chain by moving the same
points one after the other, and image and mask are resampled once however long the chain is, at the
very same points: the image linearly or cubically, the mask always by nearest neighbour.

Points are float32 [2, h, w], the plane of x (to the right) before that of y (down), in pixels with
the centre of the first pixel at (0, 0). A size is (height, width).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np

from flexseg_errors import FlexsegError

Size = tuple[int, int]

INTERPOLATIONS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "corner": cv2.BORDER_CONSTANT,
    "reflect": cv2.BORDER_REFLECT_101,
    "replicate": cv2.BORDER_REPLICATE,
}
LONGEST_SIDE = 32766  # OpenCV holds the whole part of a point in 16 bits

_BAND = 1 << 20  # pixels warped at a time: what bounds the memory of the points
_CORNER = 2  # the row and column whose pixel fills what lies outside, where that is "corner"
_REFERENCE_SIDE = 512  # pixels, to which the smoothness of a distortion refers
_CELLS = 8  # a smooth field is drawn with so many cells to a sigma, and enlarged


class Warp(Protocol):
    """A backward map."""

    def at(self, points: np.ndarray, top: int | None) -> np.ndarray:
        """Where these points of the result lie in the source.

        Args:
          points: float32 [2, h, w].
          top: the first row, where the points are the pixels of whole rows; None where they lie
            anywhere.
        """


@dataclasses.dataclass(frozen=True)
class Affine:
    """Turns, flips, scales and shears: (x, y) comes from (a x + b y + c, d x + e y + f).

    Attributes:
      matrix: ((a, b, c), (d, e, f)).
    """

    matrix: tuple[tuple[float, ...], ...]

    def at(self, points: np.ndarray, top: int | None) -> np.ndarray:
        if top is None:
            x, y = points
            return np.stack([a * x + b * y + c for a, b, c in self.matrix])
        x = np.arange(points.shape[2], dtype=np.float64)
        y = np.arange(top, top + points.shape[1], dtype=np.float64)[:, None]
        moved = np.empty_like(points)
        for plane, (a, b, c) in zip(moved, self.matrix, strict=True):
            # Rounded to single precision once, from exact products: whole numbers stay whole.
            np.add(b * y + c, a * x, out=plane, casting="same_kind")
        return moved

    def after(self, other: Affine) -> Affine:
        """The one map that does what `other` and then this one do to points."""
        product = np.array([*self.matrix, (0, 0, 1)]) @ np.array([*other.matrix, (0, 0, 1)])
        return Affine(tuple(tuple(row) for row in product[:2].tolist()))


@dataclasses.dataclass(frozen=True)
class Radial:
    """Barrel (amount above 0) or pincushion (below 0) distortion of discs.

    A point at distance r < R from a disc's centre comes from the same direction, at distance
    r sin(pi r / (2 R))^amount; all others stay. The image of one disc is what the next distorts.

    Attributes:
      centers: (x, y) of the discs in pixels, in the order in which they are distorted.
      radius: R, in pixels.
      amount: the exponent.
    """

    centers: tuple[tuple[float, float], ...]
    radius: float
    amount: float

    def at(self, points: np.ndarray, top: int | None) -> np.ndarray:
        moved = points.copy()
        x, y = moved.reshape(2, -1)  # views: what is assigned below lands in `moved`
        for cx, cy in reversed(self.centers):
            dx, dy = x - np.float32(cx), y - np.float32(cy)
            # Single precision will do to choose: at the rim points stay where they are anyway.
            inside = np.flatnonzero(dx * dx + dy * dy < np.float32(self.radius**2))
            dx, dy = x[inside].astype(np.float64) - cx, y[inside].astype(np.float64) - cy
            r = np.sqrt(dx * dx + dy * dy)
            r[r == 0] = self.radius  # the centre itself stays
            factor = np.sin(math.pi / 2 / self.radius * r) ** self.amount
            x[inside], y[inside] = factor * dx + cx, factor * dy + cy
        return moved


@dataclasses.dataclass(frozen=True, eq=False)
class Displacement:
    """Every pixel p comes from p + field[p]; between pixels the field is linear.

    Attributes:
      field: float32 [2, H, W], in pixels.
    """

    field: np.ndarray

    def at(self, points: np.ndarray, top: int | None) -> np.ndarray:
        if top is not None:
            return points + self.field[:, top : top + points.shape[1]]
        x, y = points
        sampled = [
            cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for plane in self.field
        ]
        return points + np.stack(sampled)


def hflip(size: Size) -> Affine:
    """Mirrors left and right."""
    return Affine(((-1.0, 0.0, size[1] - 1.0), (0.0, 1.0, 0.0)))


def vflip(size: Size) -> Affine:
    """Mirrors top and bottom."""
    return Affine(((1.0, 0.0, 0.0), (0.0, -1.0, size[0] - 1.0)))


def rotation(size: Size, angle: float) -> Affine:
    """Turns counterclockwise about the middle of the image, ((W - 1) / 2, (H - 1) / 2).

    By a right angle pixels fall upon pixels: where one side is even and the other odd, half a pixel
    beside the middle.

    Args:
      size: of the image.
      angle: in degrees.
    """
    quarters, rest = divmod(angle, 90)
    if rest:
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    else:
        cos, sin = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(quarters) % 4]
    turned = _about_middle(size, ((cos, -sin), (sin, cos)))
    if rest:
        return turned
    return Affine(tuple((a, b, float(math.floor(c))) for a, b, c in turned.matrix))


def shrink(size: Size, factor: float) -> Affine:
    """Reduces (factor below 1) or enlarges what is seen, about the middle of the image.

    Below a half, pixels of the source are passed over.
    """
    return _about_middle(size, ((1 / factor, 0.0), (0.0, 1 / factor)))


def shear(size: Size, factor: float) -> Affine:
    """Moves each column down by factor (x - (W - 1) / 2) pixels."""
    return _about_middle(size, ((1.0, 0.0), (-factor, 1.0)))


def radial(
    size: Size, radius: float, amount: float, centers: tuple[tuple[float, float], ...]
) -> Radial:
    """Barrel or pincushion distortion.

    Args:
      size: of the image.
      radius: of the discs, as a share of the width.
      amount: the exponent; see `Radial`.
      centers: (x, y) of the discs, as shares of the width and of the height.
    """
    height, width = size
    return Radial(tuple((x * width, y * height) for x, y in centers), radius * width, amount)


def elastic(size: Size, alpha: float, sigma: float, rng: np.random.Generator) -> Displacement:
    """Elastic deformation; see `elastic_field`."""
    noise = rng.random((2, *size), np.float32)
    noise *= 2
    noise -= 1
    return Displacement(elastic_field(noise, alpha, sigma))


def elastic_field(noise: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """The displacements of an elastic deformation: alpha c (G_sigma * noise).

    After Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks applied to
    Visual Document Analysis" (2003). What made an alpha of 1300 usual is a filter that runs over an
    array with its channels, so that it averages away most of the noise: of three channels, the
    middle one keeps c = sqrt(w0^2 + 2 w1^2), where wk is the kernel's weight at distance k. With
    that factor the field is as strong as the usual one, and the same for all channels: alpha 1300
    with sigma 8 moves pixels by 2.3 pixels (standard deviation along each axis).

    Args:
      noise: float32 [2, H, W], uniform in -1..1.
      alpha: strength, in pixels.
      sigma: smoothness, in pixels.

    Returns:
      float32 [2, H, W], in pixels.
    """
    kernel = _gaussian(sigma)
    middle = kernel.size // 2
    gain = alpha * math.sqrt(float(kernel[middle] ** 2 + 2 * kernel[middle + 1] ** 2))
    return np.stack([_filter(plane, kernel * gain, kernel, cv2.BORDER_CONSTANT) for plane in noise])


def distortion(size: Size, share: float, rsigma: float, rng: np.random.Generator) -> Displacement:
    """A wavy distortion; see `distortion_field`."""
    height, width = (min(side, math.ceil(_REFERENCE_SIDE * _CELLS / rsigma)) for side in size)
    noise = rng.standard_normal((height, width), np.float32)
    return Displacement(distortion_field(noise, size, share, rsigma))


def distortion_field(noise: np.ndarray, size: Size, share: float, rsigma: float) -> np.ndarray:
    """The displacements of a wavy distortion: the gradient of smoothed noise, scaled.

    Strength and smoothness both go with the image's size, so that an image and its enlargement are
    distorted alike and a large one does not fold over itself. As the field is smooth, a coarse grid
    holds it.

    Args:
      noise: float32 [h, w], normally distributed, drawn on a grid that spans the image.
      size: of the image.
      share: the largest displacement along x, as a share of the width, and along y, of the height.
      rsigma: smoothness, in 512ths of the width and of the height.

    Returns:
      float32 [2, H, W], in pixels.
    """
    sigma_y, sigma_x = (rsigma * cells / _REFERENCE_SIDE for cells in noise.shape)
    gaussian_x, gaussian_y = _gaussian(sigma_x), _gaussian(sigma_y)
    planes = (
        _filter(noise, _slope(gaussian_x), gaussian_y, cv2.BORDER_REFLECT),
        _filter(noise, gaussian_x, _slope(gaussian_y), cv2.BORDER_REFLECT),
    )
    field = np.empty((2, *size), np.float32)
    for plane, largest, out in zip(planes, (share * size[1], share * size[0]), field, strict=True):
        fine = cv2.resize(plane, size[::-1], interpolation=cv2.INTER_CUBIC)
        reach = float(np.abs(fine).max())
        np.multiply(fine, -largest / reach if reach > 0 else 0.0, out=out)
    return field


def sampling_map(
    warps: Sequence[Warp], size: Size, top: int = 0, rows: int | None = None
) -> np.ndarray:
    """Where the pixels of a chain's result lie in its source.

    Args:
      warps: in the order in which they are done to the image.
      size: of image and result.
      top: the first row wanted.
      rows: how many; None for all.

    Returns:
      Points, float32 [2, rows, W].
    """
    points = _pixels(size, top, size[0] if rows is None else rows)
    first: int | None = top  # as long as the points are still the pixels themselves
    for warp in reversed(_folded(warps)):
        points, first = warp.at(points, first), None
    return points


def resample(
    image: np.ndarray,
    mask: np.ndarray,
    warps: Sequence[Warp],
    interpolation: str = "linear",
    border: str = "reflect",
    fill: Sequence[int] = (0,),
    reuse: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Does a chain of warps to an image and its mask, in one resampling of each.

    What lies outside is filled alike in both where the border is "reflect" or "replicate"; with
    "constant" and "corner" the mask is filled with class 0. Flips and right-angle turns alone copy
    pixels. OpenCV rounds points to a 32nd of a pixel when it interpolates.

    Args:
      image: uint8 [H, W, C].
      mask: class ids, uint8 [H, W].
      warps: in the order in which they are done.
      interpolation: of the image, a key of `INTERPOLATIONS`.
      border: a key of `BORDERS`.
      fill: of "constant": one value, or one for each channel.
      reuse: whether other images of the same size will be warped by the same chain.

    Returns:
      (uint8 [H, W, C], uint8 [H, W])

    Raises:
      FlexsegError: a side is longer than OpenCV can warp.
    """
    size = mask.shape
    chain = _folded(warps)
    copied = _copied(image, mask, chain)
    if copied:
        return copied
    if max(size) > LONGEST_SIDE:
        raise FlexsegError(
            f"An image of {size[0]}x{size[1]} is too large to warp: OpenCV takes sides up to "
            f"{LONGEST_SIDE} pixels. Reduce it with --scale, or leave out --augment."
        )
    if border == "corner":
        fill = image[min(_CORNER, size[0] - 1), min(_CORNER, size[1] - 1)].tolist()
    value = tuple(fill) * (image.shape[2] if len(fill) == 1 else 1)
    warped, warped_mask = np.empty_like(image), np.empty_like(mask)
    for top, points in _bands(chain, (size[0], size[1]), reuse):
        band = slice(top, top + points.shape[1])
        pixels = cv2.remap(
            image, *points, INTERPOLATIONS[interpolation], None, BORDERS[border], value
        )
        warped[band] = pixels.reshape(warped[band].shape)  # OpenCV drops a single channel
        warped_mask[band] = cv2.remap(mask, *points, cv2.INTER_NEAREST, None, BORDERS[border], 0)
    return warped, warped_mask


def _about_middle(size: Size, turn: tuple[tuple[float, float], ...]) -> Affine:
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    (a, b), (d, e) = turn
    return Affine(((a, b, x - a * x - b * y), (d, e, y - d * x - e * y)))


def _folded(warps: Sequence[Warp]) -> tuple[Warp, ...]:
    """The chain with neighbouring affine maps made one."""
    chain: list[Warp] = []
    for warp in warps:
        before = chain[-1] if chain else None
        if isinstance(warp, Affine) and isinstance(before, Affine):
            chain[-1] = before.after(warp)
        else:
            chain.append(warp)
    return tuple(chain)


def _copied(
    image: np.ndarray, mask: np.ndarray, chain: Sequence[Warp]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Both mirrored or turned pixel by pixel; None where more than that is to be done."""
    if not chain:
        return image, mask
    if len(chain) > 1 or not isinstance(chain[0], Affine):
        return None
    (a, b, c), (d, e, f) = chain[0].matrix
    height, width = mask.shape
    straight = (b, d) == (0, 0) and abs(a) == abs(e) == 1
    crosswise = (a, e) == (0, 0) and abs(b) == abs(d) == 1
    x = sorted((c, a * (width - 1) + b * (height - 1) + c))
    y = sorted((f, d * (width - 1) + e * (height - 1) + f))
    if not (straight or crosswise) or x != [0, width - 1] or y != [0, height - 1]:
        return None
    upside_down, mirrored = ((b < 0), (d < 0)) if crosswise else ((e < 0), (a < 0))

    def copy(pixels: np.ndarray) -> np.ndarray:
        turned = cv2.transpose(pixels) if crosswise else pixels
        if upside_down or mirrored:
            turned = cv2.flip(turned, -1 if upside_down and mirrored else int(mirrored))
        return turned.reshape(pixels.shape)  # OpenCV drops a single channel

    return copy(image), copy(mask)


def _bands(chain: tuple[Warp, ...], size: Size, reuse: bool) -> Iterator[tuple[int, np.ndarray]]:
    """The points of the whole result, some rows at a time: (first row, points)."""
    height, width = size
    rows = max(1, _BAND // width)
    if reuse and rows >= height and any(isinstance(warp, Radial) for warp in chain):
        yield 0, _kept_map(chain, size)
        return
    for top in range(0, height, rows):
        yield top, sampling_map(chain, size, top, min(rows, height - top))


@functools.lru_cache(maxsize=16)  # at most 128 MiB: 8 bytes for each pixel of a band
def _kept_map(chain: tuple[Warp, ...], size: Size) -> np.ndarray:
    return sampling_map(chain, size)


def _pixels(size: Size, top: int, rows: int) -> np.ndarray:
    points = np.empty((2, rows, size[1]), np.float32)
    points[0] = np.arange(size[1])
    points[1] = np.arange(top, top + rows)[:, None]
    return points


def _gaussian(sigma: float) -> np.ndarray:
    """Weights of a normal distribution out to 4 sigma, which sum to 1: float64 [2 radius + 1]."""
    radius = int(4 * sigma + 0.5)
    distance = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    return weights / weights.sum()


def _slope(gaussian: np.ndarray) -> np.ndarray:
    """Weights that take the slope of what that kernel smooths, up to a factor."""
    radius = gaussian.size // 2
    return np.arange(-radius, radius + 1) * gaussian


def _filter(
    plane: np.ndarray, kernel_x: np.ndarray, kernel_y: np.ndarray, border: int
) -> np.ndarray:
    return cv2.sepFilter2D(plane, cv2.CV_32F, kernel_x, kernel_y, borderType=border)
