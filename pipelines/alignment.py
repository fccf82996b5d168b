"""A mask's voxels brought into the order of its image's, where both lie in the same places.

The same scan may be stored with its axes in another order or reversed: a DICOM series as (z, y, x),
a NIfTI mask as (x, y, z), a mask flipped by the program in which it was drawn. Slices of equal size
would pair, and pair wrongly.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from flexseg_errors import FlexsegError
from pipelines.geometry import Geometry
from pipelines.volumes import Volume

TOLERANCE = 1e-2  # of a voxel's side; headers are rounded, at worst to float32

_Axes = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Order:
    """Where a mask's voxels lie among its image's.

    Attributes:
      axes: for each stored axis of the image the stored axis of the mask that runs along it.
      reversed: for each stored axis of the image whether the mask's runs the other way.
    """

    axes: _Axes = (0, 1, 2)
    reversed: tuple[bool, bool, bool] = (False, False, False)


def find(image: Volume, mask: Volume) -> Order:
    """Finds the order in which a mask's voxels are its image's.

    Where both files say where their voxels lie, the affines decide: with A of image and mask from
    stored indices to millimetres, inv(A_image) A_mask must be a permutation of axes, some reversed,
    that takes the corners of the mask to the corners of the image within `TOLERANCE` voxels.
    Otherwise the voxels are taken to be stored alike, if the formats order their axes alike.

    Raises:
      FlexsegError: where the voxels lie elsewhere, saying how far, or are of another number, and
        where nothing tells how the axes of one correspond to those of the other.
    """
    places = _affine(image.geometry), _affine(mask.geometry)
    if places[0] is None or places[1] is None:
        silent = image if places[0] is None else mask
        return _as_stored(image, mask, silent)
    return _by_place(image, mask, places[0], places[1])


def take(mask: Volume, order: Order, image: Geometry, index: int) -> np.ndarray:
    """The slice of a mask that lies on a slice of its image.

    Args:
      mask: the volume, of which axis and rotation are not looked at.
      order: what `find` gave.
      image: the image's geometry, which says along which axis slices are taken, and how turned.
      index: of the image's slice.

    Returns:
      [H, W] as the image's slice, of the mask's values.

    Raises:
      FlexsegError: where the mask is truncated or damaged there.
    """
    along = order.axes[image.axis]
    rows, columns = (axis for axis in range(3) if axis != image.axis)
    place = image.shape[image.axis] - 1 - index if order.reversed[image.axis] else index
    plane = mask.along(along).slice(place)
    if order.axes[rows] > order.axes[columns]:
        plane = plane.T
    plane = plane[:: -1 if order.reversed[rows] else 1, :: -1 if order.reversed[columns] else 1]
    return np.ascontiguousarray(np.rot90(plane, image.rotation // 90))


def _affine(geometry: Geometry) -> np.ndarray | None:
    """4x4, stored indices -> millimetres in RAS+; None where the file does not say."""
    if geometry.affine is None or geometry.direction is None or geometry.assumed:
        return None
    if abs(np.linalg.det(np.reshape(geometry.direction, (3, 3)))) < 1e-6:
        return None  # two axes of one direction: a damaged header
    affine = np.array(geometry.affine)
    return affine if geometry.stored_order == "x y z" else affine[:, [2, 1, 0, 3]]


def _as_stored(image: Volume, mask: Volume, silent: Volume) -> Order:
    ours, theirs = image.geometry, mask.geometry
    if ours.stored_order != theirs.stored_order:
        raise FlexsegError(
            f"{mask.path} cannot be laid on {image.path}: one is stored as {theirs.stored_order}, "
            f"the other as {ours.stored_order}, and {silent.path} does not say where its voxels "
            "lie, so that its axes could be any. Write both in one format, or both in formats "
            "that say it (NIfTI, MetaImage, DICOM)."
        )
    if ours.shape != theirs.shape:
        raise FlexsegError(_sizes_differ(image, mask))
    return Order()


def _by_place(image: Volume, mask: Volume, ours: np.ndarray, theirs: np.ndarray) -> Order:
    corners = np.array(list(itertools.product((0, 1), repeat=3)))  # [8, 3], of the mask
    to_image = np.linalg.inv(ours) @ theirs
    ends = corners * (np.array(mask.geometry.shape) - 1)
    found = ends @ to_image[:3, :3].T + to_image[:3, 3]

    def off(order: Order) -> np.ndarray:
        """[8, 3], voxels of the image from the corners' places to where they should be."""
        turned = corners[:, order.axes]
        turned = np.where(order.reversed, 1 - turned, turned)
        return found - turned * (np.array(image.geometry.shape) - 1)

    remedy = (
        "Resample the mask onto the image first: SimpleITK.Resample(mask, image, "
        "SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)."
    )
    orders = _orders(image.geometry.shape, mask.geometry.shape)
    if not orders:
        raise FlexsegError(f"{_sizes_differ(image, mask)} {remedy}")
    best = min(orders, key=lambda order: np.abs(off(order)).max())
    voxels = np.abs(off(best)).max()
    if voxels > TOLERANCE:
        far = np.linalg.norm(off(best) @ ours[:3, :3].T, axis=1).max()
        raise FlexsegError(
            f"{mask.path} does not lie on {image.path}: by their headers its voxels are up to "
            f"{far:.3g} mm ({voxels:.3g} voxels) from the image's. {remedy} Where only the mask's "
            "header is wrong, write the mask anew with the image's."
        )
    return best


def _orders(image: _Axes, mask: _Axes) -> list[Order]:
    """All permutations and reversals of the mask's axes that give it the image's sizes."""
    return [
        Order((axes[0], axes[1], axes[2]), (turned[0], turned[1], turned[2]))
        for axes in itertools.permutations(range(3))
        if tuple(mask[axis] for axis in axes) == image
        for turned in itertools.product((False, True), repeat=3)
    ]


def _sizes_differ(image: Volume, mask: Volume) -> str:
    sizes = [
        f"{volume.path} has {'x'.join(map(str, volume.geometry.shape))} voxels "
        f"({volume.geometry.stored_order})"
        for volume in (mask, image)
    ]
    return f"{sizes[0]}, {sizes[1]}; a mask has one value for each voxel of its image."
