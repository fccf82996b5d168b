"""What a network makes of a whole image, reduced to the size of its input."""

from __future__ import annotations

import json
from collections.abc import Callable

import cv2
import numpy as np

from export import bundle
from export.predictions.members import Member
from export.predictions.predictors import Predictor
from pipelines import storage
from train import test_time

Choose = Callable[[np.ndarray], np.ndarray]


def class_ids(predictor: Predictor, image: np.ndarray, choose: Choose) -> np.ndarray:
    """Segments an image at the size of one tile, and enlarges the class ids to that of the image.

    The image is stretched to the tile of the first network as an image of the data it learnt on
    would be, by areas or linearly; class ids take the nearest pixel.

    Args:
      predictor: the model.
      image: uint8 [H, W, C].
      choose: probabilities float32 [h, w, K] to class ids uint8 [h, w].

    Returns:
      class ids uint8 [H, W].
    """
    small = test_time.resize_image(image, whole_size(predictor.members[0], image.shape[:2]))
    ids = choose(predictor.probabilities(small))
    return cv2.resize(ids, image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def whole_size(member: Member, size: tuple[int, ...]) -> tuple[int, int]:
    """Height and width at which an image, as it comes, becomes a single tile of the network.

    Args:
      member: the network.
      size: of the image; what is left where the preparation brings every image to one tile.
    """
    tile = _tile(member)
    preparation = member.preparation
    if preparation.image_size:
        return size[0], size[1]
    return _unscaled(tile[0], preparation.scale), _unscaled(tile[1], preparation.scale)


def _unscaled(side: int, scale: float) -> int:
    return max(1, round(side / scale))


def _tile(member: Member) -> tuple[int, int]:
    if member.segmenter is not None:
        return member.segmenter.tile
    card = json.loads(storage.read_bytes(storage.join(member.path, "assets", bundle.CARD)))
    return card["tile"][0], card["tile"][1]
