"""Boundary metrics of one class on one image: how far apart two outlines run.

Tools disagree about these by as much as networks do (Podobnik and Vrtovec 2024), so the definitions
are fixed here; they are MONAI's. The boundary of a region are its pixels that have a pixel outside
the region, or outside the image, above, below, left or right of them. Distances are Euclidean,
between pixel centres, exact. With D the distances of each boundary's pixels to the other boundary:

  HD95 = the larger of the two 95th percentiles of D, one for each direction
  average surface distance = mean of D over both boundaries together
  NSD at a tolerance = share of both boundaries' pixels with D within it
  clDice (Shit et al. 2021) = 2 a b / (a + b), with a the share of the prediction's skeleton within
    the truth, b that of the truth's within the prediction; skeletons by Zhang and Suen 1984

Where a region is in neither truth nor prediction there is no figure. Where it is in one alone, NSD
and clDice are 0, and distances have no value: such images are counted instead. clDice is for lines;
of thick regions skeletons say little and take long.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

PERCENTILE = 95.0
# The widest that a line may be: a share of the image's shorter side, or so many pixels. In retinal
# images of 3025 x 3500 vessels are up to 104 pixels wide; regions such as lungs are beyond a tenth.
THIN_SHARE, THIN_PIXELS = 1 / 16, 16
_ROUNDING = 1 + 1e-9  # three pixels of 0.1 are within 0.3, whatever binary fractions say
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclasses.dataclass(frozen=True)
class BoundaryOptions:
    """How boundaries are compared.

    Attributes:
      nsd_tolerance: largest distance that counts as the same, in the unit of `spacing`.
      spacing: (height, width) of a pixel, such as in millimetres; (1, 1) measures in pixels.
    """

    nsd_tolerance: float = 2.0
    spacing: tuple[float, float] = (1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class BoundaryScores:
    """Figures of one class on one image; None where there is none.

    Attributes:
      hd95: in the unit of the spacing.
      average_surface_distance: the same.
      nsd: 0..1.
      cl_dice: 0..1.
      one_sided: whether the class is in the truth alone or in the prediction alone.
    """

    hd95: float | None
    average_surface_distance: float | None
    nsd: float | None
    cl_dice: float | None
    one_sided: bool = False


def compare(
    truth: np.ndarray,
    predicted: np.ndarray,
    options: BoundaryOptions | None = None,
    *,
    lines: bool = True,
) -> BoundaryScores:
    """Compares two regions, bool [H, W].

    Args:
      truth: the one.
      predicted: the other.
      options: tolerance and size of a pixel.
      lines: whether to take clDice.
    """
    options = options or BoundaryOptions()
    truth, predicted = _crop(truth, predicted)
    if not truth.any() or not predicted.any():
        if not truth.any() and not predicted.any():
            return BoundaryScores(None, None, None, None)
        return BoundaryScores(None, None, 0.0, 0.0 if lines else None, one_sided=True)
    there, back = surface_distances(truth, predicted, options.spacing)
    both = np.concatenate([there, back])
    return BoundaryScores(
        hd95=float(max(np.percentile(there, PERCENTILE), np.percentile(back, PERCENTILE))),
        average_surface_distance=float(both.mean()),
        nsd=float((both <= options.nsd_tolerance * _ROUNDING).mean()),
        cl_dice=cl_dice(truth, predicted) if lines else None,
    )


def boundary(region: np.ndarray) -> np.ndarray:
    """The pixels of a region, bool [H, W], that touch what is not the region by a side."""
    pixels = region.astype(np.uint8)
    inner = cv2.erode(pixels, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return region & (inner == 0)


def surface_distances(
    truth: np.ndarray, predicted: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Distances between the boundaries of two regions, bool [H, W], neither of them empty.

    Returns:
      Of each boundary pixel of the truth to the prediction's boundary, float64 [N], and of each of
      the prediction's to the truth's, float64 [M]; in the unit of the spacing.
    """
    from scipy.spatial import cKDTree  # type: ignore[import-untyped]

    # Trees of boundary pixels: several times faster than distance maps of large images, and exact
    # for pixels that are not square.
    a, b = (np.argwhere(boundary(region)) * spacing for region in (truth, predicted))
    return cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]


def cl_dice(truth: np.ndarray, predicted: np.ndarray) -> float | None:
    """Centre-line Dice of two regions, bool [H, W]: how much of thin lines is found, whole.

    Returns:
      0..1; 0 where one region is empty, None where both are.
    """
    from skimage.morphology import skeletonize

    if not truth.any() and not predicted.any():
        return None
    if not truth.any() or not predicted.any():
        return 0.0
    precision = float(truth[skeletonize(predicted)].mean())
    sensitivity = float(predicted[skeletonize(truth)].mean())
    total = precision + sensitivity
    return 2 * precision * sensitivity / total if total else 0.0


def is_thin(region: np.ndarray) -> bool:
    """Whether no circle wider than a line may be fits into a region, bool [H, W]."""
    widest = max(THIN_PIXELS, THIN_SHARE * min(region.shape))
    region, _ = _crop(region, region)
    if not region.size:
        return True
    padded = np.pad(region.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return 2 * float(depth.max()) - 1 <= widest


def _crop(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both regions within the box around the two; what lies beyond changes no figure."""
    either = truth | predicted
    rows, columns = (np.flatnonzero(either.any(axis)) for axis in (1, 0))
    if not len(rows):
        return truth[:0, :0], predicted[:0, :0]
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(truth[box]), np.ascontiguousarray(predicted[box])
