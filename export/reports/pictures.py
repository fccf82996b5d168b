"""Small pictures inside a page, as data URIs."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from pipelines.label_map import IGNORE_ID, Color, LabelMap, colorize
from pipelines.preparation import resize_image, resize_mask

SIDE = 256  # the longest side of a picture, in pixels
MOST_BYTES = 3_500_000  # of the pictures of a page together

_QUALITY = 82
_IGNORED_OPACITY = 128
# Okabe and Ito 2008, the ones that stand out from gray first.
_VIVID = ((213, 94, 0), (86, 180, 233), (240, 228, 66), (0, 158, 115), (204, 121, 167))
_GRAY = 32  # of which red, green and blue differ by less
_FAR = 60  # RGB units at which two colours are two


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture for `<img>`: its data URI, and its width and height in pixels."""

    uri: str
    width: int
    height: int

    @property
    def bytes(self) -> int:
        """What it adds to a page."""
        return len(self.uri)


def photo(image: np.ndarray, side: int = SIDE) -> Picture:
    """An image, uint8 [H, W, C] with C of 1 or 3, RGB, as a JPEG no longer than `side`."""
    small = resize_image(image, _fitting(image, side))
    return _encoded(Image.fromarray(small[..., 0] if small.shape[-1] == 1 else small), "JPEG")


def layer(ids: np.ndarray, label_map: LabelMap, side: int = SIDE) -> Picture:
    """A mask, class ids uint8 [H, W], as a PNG to be laid over its image, no longer than `side`.

    Background (class 0) is clear, ignored pixels are half so.
    """
    picture = Image.fromarray(resize_mask(ids, _fitting(ids, side)), "P")
    picture.putpalette(_palette(label_map))
    clear = bytearray([255] * 256)
    clear[0], clear[IGNORE_ID] = 0, _IGNORED_OPACITY
    return _encoded(picture, "PNG", transparency=bytes(clear))


def mask(ids: np.ndarray, label_map: LabelMap, side: int = SIDE) -> Picture:
    """A mask, class ids uint8 [H, W], in its colours as a PNG no longer than `side`."""
    picture = Image.fromarray(resize_mask(ids, _fitting(ids, side)), "P")
    picture.putpalette(_palette(label_map))
    return _encoded(picture, "PNG")


def drawing(pixels: np.ndarray, side: int = SIDE) -> Picture:
    """What has few colours and sharp edges, uint8 [H, W, 3], RGB, as a PNG."""
    return _encoded(Image.fromarray(resize_mask(pixels, _fitting(pixels, side))), "PNG")


def vivid(label_map: LabelMap) -> LabelMap:
    """The label map with other colours for classes in black, gray or white, except background.

    Over images, which are gray as often as not, such a mask could not be seen.
    """
    others = [label.colors[0] for label in label_map.classes]
    free = [color for color in _VIVID if min(map(_distance(color), others)) > _FAR] or list(_VIVID)
    spare = itertools.cycle(free)
    return LabelMap(
        tuple(
            dataclasses.replace(label, colors=(next(spare),))
            if label.id and max(label.colors[0]) - min(label.colors[0]) < _GRAY
            else dataclasses.replace(label, colors=label.colors[:1])
            for label in label_map.classes
        )
    )


def _distance(color: Color) -> Callable[[Color], float]:
    return lambda other: math.dist(color, other)


def _fitting(pixels: np.ndarray, side: int) -> tuple[int, int]:
    """(height, width) as they are, or reduced so that neither is above `side`."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _palette(label_map: LabelMap) -> bytes:
    return colorize(np.arange(256, dtype=np.uint8)[None], label_map).tobytes()


def _encoded(picture: Image.Image, form: str, **settings: object) -> Picture:
    data = io.BytesIO()
    if form == "JPEG":
        picture.save(data, form, quality=_QUALITY, optimize=True)
    else:
        picture.save(data, form, optimize=True, **settings)
    text = base64.b64encode(data.getvalue()).decode()
    return Picture(f"data:image/{form.lower()};base64,{text}", *picture.size)
