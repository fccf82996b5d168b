"""The film strips of a run as pictures of a page: how its masks changed over the epochs."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from export.reports import pictures
from export.reports.pictures import Picture
from pipelines import storage
from train import film

if TYPE_CHECKING:
    from export.reports.run_facts import RunFacts

_SIDES = (4000, 2000, 1000)  # pixels, the first that is not too large
_MOST_BYTES = 1_200_000
_TITLES = {
    "valid": "Images of the valid split: image, truth, and the prediction after the epochs named.",
    film.WHOLE: "Images of a folder, shrunk to the network's input: image, and the prediction.",
    film.TILED: "Images of a folder, segmented by tiles: image, and the prediction.",
}


@dataclasses.dataclass(frozen=True)
class Film:
    """A strip and what it shows."""

    caption: str
    picture: Picture


def read(facts: RunFacts) -> list[Film]:
    """The strips of a run; one that is damaged, or is being written, is left out."""
    films = []
    for path in facts.strips:
        name = path.rpartition("/")[2].removeprefix("strip_").removesuffix(".png")
        try:
            with Image.open(io.BytesIO(storage.read_bytes(path))) as picture:
                pixels = np.asarray(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError):
            continue
        caption = _TITLES.get(name, f"{name}, by epoch.")
        films.append(Film(caption, _fitting(pixels)))
    return films


def _fitting(pixels: np.ndarray) -> Picture:
    """A strip, uint8 [h, w, 3], as large as it may be in a page."""
    found = [pictures.photo(pixels, side) for side in _SIDES]
    return next((p for p in found if p.bytes <= _MOST_BYTES), found[-1])
