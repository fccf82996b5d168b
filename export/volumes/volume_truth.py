"""A volume's truth, held against what was found, slice by slice."""

from __future__ import annotations

import dataclasses

import numpy as np

from export.predictions import predict_truth, report
from export.predictions.items import Item
from export.predictions.report import Report
from flexseg_errors import FlexsegError
from pipelines import formats, masks, slices, volumes
from pipelines.label_map import LabelMap
from pipelines.masks import MaskReading
from pipelines.slices import VolumeReading
from pipelines.volumes import Volume


class VolumeTruth:
    """Counts what was found against what is true; nothing where the item has no truth.

    The truth is a volume of class ids that lies where its image does (see `alignment`), or, of a
    volume of one slice, an image.

    Attributes:
      error: why it cannot be read or does not fit, once that is met; "" before.
    """

    def __init__(
        self, item: Item, volume: Volume, reading: VolumeReading, label_map: LabelMap, kind: str
    ):
        """Reads nothing yet.

        Args:
          item: the volume's.
          volume: the image.
          reading: how it becomes slices.
          label_map: the classes.
          kind: what images of a truth hold; see `masks.parse_kind`.
        """
        self.error = ""
        self._item = item
        self._volume = volume
        self._reading = reading
        self._label_map = label_map
        self._kind = kind
        self._matrix = np.zeros((label_map.num_classes,) * 2, np.int64)

    def add(self, index: int, ids: np.ndarray) -> None:
        """Takes what was found in a slice, class ids uint8 [H, W]."""
        if not self._item.truth or self.error:
            return
        try:
            truth = self._slice(index)
        except FlexsegError as error:
            self.error = str(error)
            return
        self._matrix += report.confusion_of(truth, ids, self._label_map.num_classes)

    def score(self, done: Report) -> Report:
        """The report with what was counted, or with why nothing could be."""
        if not self._item.truth or self.error or done.row is None:
            return dataclasses.replace(done, error=self.error)
        row = dataclasses.replace(done.row, confusion=tuple(map(tuple, self._matrix.tolist())))
        return dataclasses.replace(
            done,
            row=row,
            truth=self._item.truth,
            truth_state=predict_truth.state(self._item),
            truth_kind=self._kind,
        )

    def _slice(self, index: int) -> np.ndarray:
        item, geometry = self._item, self._volume.geometry
        if not volumes.is_volume(item.truth):
            if len(self._volume) > 1:
                raise FlexsegError(
                    f"{item.path} has {len(self._volume)} slices, but its truth is one image "
                    f"({item.truth})."
                )
            size = self._volume.along(geometry.axis).shape[1:]
            mask = predict_truth.read(item, size, self._label_map, self._kind)
            return np.rot90(mask, geometry.rotation // 90)
        values = slices.read_mask(item.path, item.truth, index, self._reading, formats.MAX_PIXELS)
        try:
            return masks.to_ids(values, self._label_map, MaskReading("index")).ids
        except FlexsegError as error:
            raise FlexsegError(f"{item.truth}: {error}") from error
