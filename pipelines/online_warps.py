"""Where the pixels of an augmented example come from: one map for image and mask, in the graph.

A pixel p of the result, counted from its middle, comes from A (p + e(p)) + c: the affine map A does
flips, turns, scale and shear at once, c is the middle of the window, and e the elastic
displacement. So image and mask are resampled once, whatever is switched on: the image linearly, the
mask by nearest neighbour. What lies outside of the input is its reflection, in both alike.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    from pipelines.online_augment import Augmentation

_KNOTS = 8  # of the elastic sheet, along each side
_MARGIN = 2  # pixels read around a window, for the linear blend and for rounding


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """One draw.

    Attributes:
      matrix: A, float32 [2, 2], takes (x, y) to (x, y).
      centre: c, (y, x) in the input, float32 [2].
      size: (height, width) of the result, int32 [2].
      sheet: elastic displacements at the knots, in pixels, float32 [2, knots, knots], x before y;
        None where there are none.
      reach: the largest displacement, in pixels.
    """

    matrix: tf.Tensor
    centre: tf.Tensor
    size: tf.Tensor
    sheet: tf.Tensor | None
    reach: tf.Tensor


def draw_window(
    source: tf.Tensor,
    size: tf.Tensor,
    augmentation: Augmentation,
    draw: tf.Tensor,
    more: tf.Tensor,
    focus: tf.Tensor | None,
) -> Window:
    """Draws where an example is taken from.

    Args:
      source: (height, width) of the input, int32 [2].
      size: of the result.
      augmentation: what to draw from.
      draw: float32 [10], uniform in [0, 1); 0 to 6 are used.
      more: float32 [1 + 2 x knots²]; of shear and elastic.
      focus: (y, x) of a pixel that must be seen, int64 [2], negative where none must; None for
        never. Where it lies near the border, the window reaches beyond it rather than lose the
        pixel to a turn or an enlargement.
    """

    def coin(value: tf.Tensor, wanted: bool) -> tf.Tensor:
        return tf.where(value < 0.5, -1.0, 1.0) if wanted else tf.constant(1.0)

    mirror_x = coin(draw[0], augmentation.flip_horizontal)
    mirror_y = coin(draw[1], augmentation.flip_vertical)
    angle = (2.0 * draw[2] - 1.0) * augmentation.rotation * math.pi / 180.0
    if augmentation.rotate90:
        angle += tf.floor(draw[3] * 4.0) * (math.pi / 2.0)
    zoom = tf.pow(1.0 + augmentation.scale, 2.0 * draw[4] - 1.0)
    cos, sin = tf.cos(angle) * zoom, tf.sin(angle) * zoom
    a, b = cos * mirror_x, -sin * mirror_y
    c, d = sin * mirror_x, cos * mirror_y
    if augmentation.shear:
        slope = augmentation.shear * (2.0 * more[0] - 1.0)
        b, d = b + slope * a, d + slope * c  # x moves by slope times y, before all else
    target = tf.cast(size, tf.float32)
    reach = augmentation.elastic * tf.reduce_min(target)
    sheet = None
    if augmentation.elastic:
        sheet = (2.0 * tf.reshape(more[1:], [2, _KNOTS, _KNOTS]) - 1.0) * reach
    # The window's centre lies anywhere that keeps it inside the input; larger windows are centred.
    extent = tf.cast(source, tf.float32)
    spare = tf.maximum(extent - target, 0.0)
    middle = (extent - 1.0) / 2.0
    centre = middle + (draw[5:7] - 0.5) * spare
    # Whole pixels, so that a crop alone copies pixels instead of blending them.
    parity = tf.math.floormod(target - 1.0, 2.0) / 2.0
    centre = tf.round(centre - parity) + parity
    if focus is not None:
        wanted = tf.cast(focus, tf.float32) + parity
        inside = tf.clip_by_value(wanted, middle - spare / 2.0, middle + spare / 2.0)
        if augmentation.geometric:
            # Seen whichever way the window is turned: within the circle that touches its sides.
            radius = (tf.reduce_min(target) / 2.0 - 2.0) * zoom / (1.0 + augmentation.shear)
            radius = tf.maximum(radius / math.sqrt(2.0) - 1.5 * reach * zoom, 0.0)
            near = tf.clip_by_value(inside, wanted - radius, wanted + radius)
            inside = tf.where(spare > 0.0, tf.round(near - parity) + parity, inside)
        centre = tf.where(focus[0] < 0, centre, inside)
    matrix = tf.stack([tf.stack([a, b]), tf.stack([c, d])])
    return Window(matrix, centre, size, sheet, reach)


def draws_needed(augmentation: Augmentation) -> int:
    """How many values `draw_window` takes in `more`."""
    return 1 + (2 * _KNOTS * _KNOTS if augmentation.elastic else 0)


def crop(image: tf.Tensor, mask: tf.Tensor, window: Window) -> tuple[tf.Tensor, tf.Tensor]:
    """What a window that is neither turned nor scaled shows, copied pixel by pixel."""
    first = tf.cast(window.centre - tf.cast(window.size - 1, tf.float32) / 2.0, tf.int32)
    within = tf.reduce_all((first >= 0) & (first + window.size <= tf.shape(mask)))
    last = first + window.size
    return tf.cond(
        within,
        lambda: (
            image[first[0] : last[0], first[1] : last[1]],
            mask[first[0] : last[0], first[1] : last[1]],
        ),
        lambda: resample(image, mask, window),
    )


def resample(image: tf.Tensor, mask: tf.Tensor, window: Window) -> tuple[tf.Tensor, tf.Tensor]:
    """What a window shows: (uint8 [h, w, C], uint8 [h, w])."""
    image, mask, window = _cut(image, mask, window)
    if window.sheet is not None:
        return _resample_anywhere(image, mask, window)
    (a, b), (c, d) = (tf.unstack(row) for row in tf.unstack(window.matrix))
    middle = tf.cast(window.size - 1, tf.float32) / 2.0
    x0 = window.centre[1] - a * middle[1] - b * middle[0]
    y0 = window.centre[0] - c * middle[1] - d * middle[0]
    zero = tf.constant(0.0)
    transform = tf.stack([a, b, x0, c, d, y0, zero, zero])[None]

    def warp(pixels: tf.Tensor, interpolation: str) -> tf.Tensor:
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=pixels[None],
            transforms=transform,
            output_shape=window.size,
            fill_value=0.0,
            interpolation=interpolation,
            fill_mode="REFLECT",
        )[0]

    warped = warp(tf.cast(image, tf.float32), "BILINEAR")
    return tf.cast(tf.round(warped), tf.uint8), warp(mask[..., None], "NEAREST")[..., 0]


def _cut(image: tf.Tensor, mask: tf.Tensor, window: Window) -> tuple[tf.Tensor, tf.Tensor, Window]:
    """Leaves away what no pixel of the window comes from, which in large records is nearly all."""
    shape = tf.shape(mask)
    half = tf.cast(window.size - 1, tf.float32) / 2.0 + window.reach
    spread = tf.linalg.matvec(tf.abs(window.matrix), half[::-1])[::-1]  # (y, x)
    low = tf.cast(tf.floor(window.centre - spread), tf.int32) - _MARGIN
    high = tf.cast(tf.floor(window.centre + spread), tf.int32) + 1 + _MARGIN
    # What lies beyond a border is mirrored from as far within.
    low, high = tf.minimum(low, 2 * shape - high), tf.maximum(high, -low)
    low, high = tf.clip_by_value(low, 0, shape - 1), tf.clip_by_value(high, 1, shape)
    moved = dataclasses.replace(window, centre=window.centre - tf.cast(low, tf.float32))
    cut = [p[low[0] : high[0], low[1] : high[1]] for p in (image, mask)]
    return cut[0], cut[1], moved


def _resample_anywhere(
    image: tf.Tensor, mask: tf.Tensor, window: Window
) -> tuple[tf.Tensor, tf.Tensor]:
    """As the operation for affine maps does it, at any points."""
    height, width = tf.shape(mask)[0], tf.shape(mask)[1]
    x, y = _points(window)
    pixels = tf.reshape(image, [-1, image.shape[-1]])
    left, top = tf.floor(x), tf.floor(y)
    total = tf.constant(0.0)
    for dy in (0, 1):
        row = _reflected(tf.cast(top, tf.int32) + dy, height) * width
        share_y = y - top if dy else 1.0 - (y - top)
        for dx in (0, 1):
            share_x = x - left if dx else 1.0 - (x - left)
            place = row + _reflected(tf.cast(left, tf.int32) + dx, width)
            total += tf.cast(tf.gather(pixels, place), tf.float32) * (share_x * share_y)[..., None]
    nearest_x = _reflected(tf.cast(tf.round(x), tf.int32), width)
    nearest_y = _reflected(tf.cast(tf.round(y), tf.int32), height)
    ids = tf.gather(tf.reshape(mask, [-1]), nearest_y * width + nearest_x)
    return tf.cast(tf.round(tf.clip_by_value(total, 0.0, 255.0)), tf.uint8), ids


def _points(window: Window) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the pixels of the result come from: x and y, float32 [h, w] each."""
    assert window.sheet is not None
    y, x = (
        tf.range(tf.cast(n, tf.float32)) - tf.cast(n - 1, tf.float32) / 2.0
        for n in tf.unstack(window.size)
    )
    basis_y, basis_x = (_basis(n) for n in tf.unstack(window.size))
    moves = tf.einsum("hk,ckl,wl->chw", basis_y, window.sheet, basis_x)
    x, y = x[None] + moves[0], y[:, None] + moves[1]
    (a, b), (c, d) = (tf.unstack(row) for row in tf.unstack(window.matrix))
    return a * x + b * y + window.centre[1], c * x + d * y + window.centre[0]


def _basis(length: tf.Tensor) -> tf.Tensor:
    """Cubic B-splines of the knots at the pixels of a side: float32 [length, knots].

    They are positive and sum to 1, so that no displacement exceeds those of the knots.
    """
    places = tf.linspace(1.0, _KNOTS - 2.0, length)
    away = tf.abs(places[:, None] - tf.range(_KNOTS, dtype=tf.float32)[None])
    near = 2.0 / 3.0 - away**2 + away**3 / 2.0
    far = tf.maximum(2.0 - away, 0.0) ** 3 / 6.0
    return tf.where(away < 1.0, near, far)


def _reflected(place: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """[abc] is continued as cba|abc|cba, without end."""
    place = tf.math.floormod(place, 2 * length)
    return tf.minimum(place, 2 * length - 1 - place)
