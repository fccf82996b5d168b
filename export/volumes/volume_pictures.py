"""What is seen of a volume's slice: itself, its mask, and one over the other."""

from __future__ import annotations

import dataclasses

import numpy as np

from export.predictions import drawing
from export.predictions.outputs import Outputs
from pipelines import convert_masks
from pipelines.label_map import LabelMap, colorize


@dataclasses.dataclass(frozen=True)
class Slice:
    """A segmented slice.

    Attributes:
      gray: uint8 [H, W], as the model saw it.
      ids: class ids uint8 [H, W].
      label_map: the classes.
      outputs: says how masks and overlays look.
    """

    gray: np.ndarray
    ids: np.ndarray
    label_map: LabelMap
    outputs: Outputs

    def colors(self, kind: str) -> np.ndarray:
        """One of "slices", "masks" and "overlays" as uint8 [H, W, 3], RGB."""
        if kind == "slices":
            return np.repeat(self.gray[..., None], 3, -1)
        if kind == "masks":
            return colorize(self.ids, self.label_map)
        how = self.outputs
        return drawing.overlay(
            self.gray[..., None], self.ids, self.label_map, how.opacity, how.contour
        )

    def encoded(self, kind: str) -> bytes:
        """The same as the bytes of a PNG; slices gray, masks in the format that was asked for."""
        if kind == "masks":
            return convert_masks.encode(self.ids, self.outputs.mask_format, self.label_map)
        return drawing.png(self.gray if kind == "slices" else self.colors(kind))
