"""How far a format is from the network that it was made of, on whole images."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from export.other_formats import representative
from flexseg_errors import FlexsegError
from pipelines.whole_images import whole_images
from train import metrics
from train.runs import Run

if TYPE_CHECKING:
    from train.segment import Segmenter

SPLIT = "valid"
MOST_IMAGES = 20
SYNTHETIC = "drawn images, as the dataset is not at hand"


@dataclasses.dataclass(frozen=True)
class Parity:
    """A format beside the network, both with the run's sliding window.

    Attributes:
      source: which images, in words.
      images: how many.
      max_difference: of any probability of any class.
      mean_difference: of all probabilities.
      agreement: share of all pixels with the same class id.
      dice: the network's foreground Dice, mean over classes, against the truth; None without truth,
        or without foreground.
      dice_lost: how much lower that of the format is.
    """

    source: str
    images: int
    max_difference: float
    mean_difference: float
    agreement: float
    dice: float | None
    dice_lost: float | None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        lost = "" if self.dice_lost is None else f", foreground Dice lost {self.dice_lost:+.4f}"
        return (
            f"{self.agreement:.4%} of pixels alike, probabilities differ by at most "
            f"{self.max_difference:.1e}{lost} ({self.images} images: {self.source})"
        )


def compare(trained: Run, network: Segmenter, other: Segmenter) -> Parity:
    """Segments images with both.

    Args:
      trained: the run, for its images.
      network: of the run.
      other: of the format.

    Returns:
      What was found; where a probability is no number, differences are not either, and pixels
      with such ones agree with nothing.
    """
    source, images = _images(trained)
    classes = network.num_classes
    matrices = np.zeros([2, classes, classes], np.int64)
    largest = total = 0.0
    values = pixels = alike = count = 0
    for image, truth in images:
        expected = network.prepared_probabilities(image).numpy()
        found = other.prepared_probabilities(image).numpy()
        difference = np.abs(found - expected)
        largest = float(np.maximum(largest, difference.max()))
        total += float(difference.sum(dtype=np.float64))
        values += difference.size
        ids = [expected.argmax(-1), found.argmax(-1)]
        alike += int(np.count_nonzero((ids[0] == ids[1]) & np.isfinite(found).all(-1)))
        pixels += ids[0].size
        if truth is not None:
            for matrix, own in zip(matrices, ids, strict=True):
                matrix += metrics.confusion(truth, own, classes).numpy()
        count += 1
    dice = [metrics.foreground(matrix).dice_macro for matrix in matrices]
    return Parity(
        source=source,
        images=count,
        max_difference=largest,
        mean_difference=total / values,
        agreement=alike / pixels,
        dice=dice[0],
        dice_lost=None if dice[0] is None or dice[1] is None else dice[0] - dice[1],
    )


def _images(trained: Run) -> tuple[str, Iterator[tuple[np.ndarray, np.ndarray | None]]]:
    """What the images are, and (image uint8 [H, W, C], class ids uint8 [H, W] or None) of each."""
    from export.bundles.probe_image import probe

    try:
        manifest = representative.dataset(trained)
        examples = manifest.split(SPLIT).sources
    except FlexsegError:
        height, width = trained.size
        sizes = ((height, width), (height + height // 2 + 1, width + 3))
        return SYNTHETIC, ((probe(h, w, trained.channels), None) for h, w in sizes)
    first = "" if examples <= MOST_IMAGES else f"the first {MOST_IMAGES} of "
    whole = itertools.islice(whole_images(manifest, SPLIT), MOST_IMAGES)
    return f"{first}the split {SPLIT}", ((image, mask) for _, image, mask in whole)
