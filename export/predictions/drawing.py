"""Pictures of predictions: outlines, masks in one colour, sums of image and mask, maps."""

from __future__ import annotations

import cv2
import numpy as np

from pipelines.label_map import IGNORE_ID, LabelMap, colorize
from train import previews

Color = tuple[int, int, int]


def overlay(
    image: np.ndarray, ids: np.ndarray, label_map: LabelMap, opacity: float, contour: int = 0
) -> np.ndarray:
    """A mask over an image, its foreground outlined.

    Args:
      image: uint8 [H, W, C], C of 1 or 3.
      ids: class ids uint8 [H, W].
      label_map: gives the colours.
      opacity: of the mask, 0..1; outlines are opaque.
      contour: width of the outlines in pixels; see `outlines`.

    Returns:
      uint8 [H, W, 3], RGB.
    """
    picture = previews.overlay(image, ids, label_map, opacity)
    if contour:
        lines = outlines(ids, contour)
        picture[lines] = colorize(ids[lines], label_map)
    return picture


def outlines(ids: np.ndarray, width: int) -> np.ndarray:
    """Where the outlines of the foreground's regions are.

    An outline lies inside its region, so that those of neighbours do not cover one another: it is
    made of the pixels from which another class is at most `width` pixels away, in rows or columns,
    whichever is further (chessboard distance). Along the image's edge there is none.

    Args:
      ids: class ids uint8 [H, W].
      width: in pixels.

    Returns:
      bool [H, W].
    """
    window = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    # Beyond the image OpenCV takes the least value for dilation and the greatest for erosion.
    same = cv2.dilate(ids, window) == cv2.erode(ids, window)
    return ~same & (ids > 0) & (ids != IGNORE_ID)


def strength(ids: np.ndarray, probabilities: np.ndarray | None = None) -> np.ndarray:
    """How strongly each pixel is painted: float32 [H, W], 0..1.

    Args:
      ids: class ids uint8 [H, W].
      probabilities: float32 [H, W, K]; paints by the probability of the foreground, 1 less that of
        class 0. None paints the foreground's pixels fully.
    """
    if probabilities is None:
        return ((ids > 0) & (ids != IGNORE_ID)).astype(np.float32)
    return np.clip(1 - probabilities[..., 0], 0, 1)


def one_color(amount: np.ndarray, color: Color, background: Color = (0, 0, 0)) -> np.ndarray:
    """Paints between two colours, linearly.

    Args:
      amount: float32 [H, W], 0 for the background, 1 for the colour.
      color: RGB.
      background: RGB.

    Returns:
      uint8 [H, W, 3], RGB.
    """
    low, high = (np.array(c, np.float32) for c in (background, color))
    return np.round(low + amount[..., None] * (high - low)).astype(np.uint8)


def in_class_colors(
    ids: np.ndarray, probabilities: np.ndarray | None, label_map: LabelMap
) -> np.ndarray:
    """Paints the foreground's classes in their colours on black.

    Args:
      ids: class ids uint8 [H, W].
      probabilities: float32 [H, W, K]; paints by them, the sum over the foreground's classes of
        probability times colour. None paints the class ids.
      label_map: gives the colours.

    Returns:
      uint8 [H, W, 3], RGB.
    """
    if probabilities is None:
        return colorize(ids, label_map) * strength(ids)[..., None].astype(np.uint8)
    painted = probabilities[..., 1:] @ label_map.colors[1:].astype(np.float32)
    return np.round(np.clip(painted, 0, 255)).astype(np.uint8)


def merged(image: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Adds a picture to an image; what exceeds 255 is 255.

    Args:
      image: uint8 [H, W, C], C of 1 or 3.
      picture: uint8 [H, W, 3].

    Returns:
      uint8 [H, W, 3], RGB.
    """
    base = np.repeat(image, 3, -1) if image.shape[-1] == 1 else image
    return cv2.add(base, picture)


def gray(amount: np.ndarray) -> np.ndarray:
    """A map of 0..1, float32 [H, W], as gray uint8 [H, W]: 255 is 1."""
    return np.round(np.clip(amount, 0, 1) * 255).astype(np.uint8)


def png(picture: np.ndarray) -> bytes:
    """The bytes of a PNG of uint8 [H, W] or [H, W, 3] (RGB)."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", picture)
    if not done:
        raise RuntimeError(f"OpenCV cannot encode a picture of shape {picture.shape}.")
    return data.tobytes()
