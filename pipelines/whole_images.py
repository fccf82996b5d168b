"""The images of a dataset, put back together from their tiles."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipelines import records, storage
from pipelines.label_map import IGNORE_ID
from pipelines.manifest import Manifest


def whole_images(manifest: Manifest, split: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The prepared sources of a split, one after the other, put back together from their tiles.

    Augmented copies are left out. One image is held at a time; of the split "train", where tiles
    lie mixed, one shard's images.

    Yields:
      (source id, image uint8 [H, W, C], mask of class ids uint8 [H, W])
    """
    for path in manifest.paths(split):
        open_images: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        with storage.open_read(path) as file:
            for _, data in records.read_framed(file, path):
                features = records.parse_features(data)
                if features[records.AUGMENTATION][0]:
                    continue
                source_id = features[records.SOURCE_ID][0].decode()
                if source_id not in open_images:
                    if split != "train":
                        yield from _close(open_images)
                    size = features[records.SOURCE_SIZE]
                    open_images[source_id] = (
                        np.zeros([*size, manifest.channels], np.uint8),
                        np.full(size, IGNORE_ID, np.uint8),
                    )
                image, mask = open_images[source_id]
                y, x = features[records.TILE_ORIGIN]
                tile, ids = records.pixels_of(features)
                window = np.s_[y : y + tile.shape[0], x : x + tile.shape[1]]
                image[window] = tile
                mask[window] = ids
        yield from _close(open_images)


def _close(
    open_images: dict[str, tuple[np.ndarray, np.ndarray]],
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields and forgets what is open, in the order of opening."""
    while open_images:
        source_id = next(iter(open_images))
        yield source_id, *open_images.pop(source_id)
