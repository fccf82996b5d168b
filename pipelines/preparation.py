"""What is done to a source before a model sees it, and how its geometry is undone.

Kept with the dataset, the run and the bundle, so that whoever predicts need not remember it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from flexseg_errors import FlexsegError
from pipelines.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What is done to every source; the defaults leave it as it is.

    Attributes:
      image_size: (height, width) to which every source is stretched; not together with scale.
      scale: factor by which both sides are enlarged (above 1) or reduced.
      intensity: how values of more than 8 bits become 8-bit, as text (`intensity.parse`).
      preprocessing: what is done to colours before resizing, as text (`Preprocessing.from_text`).
      volume_axis: along which volumes are cut; see `slices.VolumeReading`, as of the next.
      volume_rotation: degrees by which slices are turned. These two make no two preparations
        unequal: what is made of slices may be evaluated on images.
    """

    image_size: tuple[int, int] | None = None
    scale: float = 1.0
    intensity: str = "none"
    preprocessing: str = ""
    volume_axis: str = dataclasses.field(default="auto", compare=False)
    volume_rotation: int = dataclasses.field(default=0, compare=False)

    def __post_init__(self) -> None:
        if self.image_size and self.scale != 1:
            raise FlexsegError("Give --image_size or --scale, not both.")
        if self.image_size and min(self.image_size) < 1:
            raise FlexsegError(f"--image_size={self.image_size}: both sides must be at least 1.")
        if not 0 < self.scale <= 64:
            raise FlexsegError(f"--scale={self.scale}: expected a factor above 0 and up to 64.")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preparation:
        size = data.get("image_size")
        return cls(
            (int(size[0]), int(size[1])) if size else None,
            float(data.get("scale", 1.0)),
            str(data.get("intensity", "none")),
            str(data.get("preprocessing", "")),
            str(data.get("volume_axis", "auto")),
            int(data.get("volume_rotation", 0)),
        )

    def in_words(self) -> list[str]:
        """What is done, in its order, each in a few words; nothing of what the defaults leave."""
        done = []
        if self.intensity != "none":
            done.append(f"values to 8 bits by {self.intensity}")
        if self.preprocessing:
            done.append(f"colors changed by {self.preprocessing}")
        if self.image_size:
            done.append("resized to {} x {} pixels".format(*self.image_size))
        if self.scale != 1:
            done.append(f"scaled by {self.scale:g}")
        if self.volume_rotation:
            done.append(f"slices of volumes turned by {self.volume_rotation} degrees")
        return done

    @property
    def resizes(self) -> bool:
        """Whether a source's size changes."""
        return self.image_size is not None or self.scale != 1

    def unresized(self) -> Preparation:
        """The same without a change of size or colours: what is read is what the file shows."""
        return Preparation(intensity=self.intensity)

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """The size of a source of that size once prepared; halves are rounded up."""
        if self.image_size:
            return self.image_size
        return max(1, int(height * self.scale + 0.5)), max(1, int(width * self.scale + 0.5))

    def image(self, image: np.ndarray) -> np.ndarray:
        """Prepares an image that was read, uint8 [H, W, C]."""
        image = Preprocessing.from_text(self.preprocessing).image(image)
        return resize_image(image, self.size_of(*image.shape[:2]))

    def mask(self, ids: np.ndarray) -> np.ndarray:
        """Prepares a mask of class ids, uint8 [H, W], by nearest neighbour."""
        return resize_mask(ids, self.size_of(*ids.shape))


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes [H, W, C] to (height, width).

    The mean over areas where both sides shrink, else linear.
    """
    height, width = image.shape[:2]
    if (height, width) == tuple(size):
        return image
    shrinks = size[0] <= height and size[1] <= width
    resized = cv2.resize(
        image, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return resized[..., None] if resized.ndim == 2 else resized  # OpenCV drops a single channel


def resize_mask(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes class ids [H, W] to (height, width) by nearest neighbour, pixel centres aligned."""
    if ids.shape == tuple(size):
        return ids
    return cv2.resize(ids, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
