"""Small datasets whose every number is known, made by `flexseg prepare`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import yaml

import flexseg

SIDE = 24
COLORS = ((0, 0, 0), (255, 0, 0), (250, 250, 250), (0, 0, 255))


def prepare(folder: Path, names: list[str], classes: list[str], *options: str) -> Path:
    """Draws an image and a mask of each name, and makes a dataset of them.

    The mask of the k-th image shows class k modulo the number of classes in a square of 6x6 at a
    place of its own; so every fourth of four classes is without foreground.

    Args:
      folder: an empty folder.
      names: of the images, without suffix; they may lie in folders.
      classes: names of the classes, the background first; `COLORS` are their colours.
      *options: of prepare.

    Returns:
      The dataset's folder.
    """
    rng = np.random.default_rng(7)
    for k, name in enumerate(names):
        image = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        mask = np.zeros((SIDE, SIDE, 3), np.uint8)
        mask[k % 18 : k % 18 + 6, 3:9] = COLORS[k % len(classes)][::-1]
        for kind, pixels in (("images", image), ("masks", mask)):
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            done, data = cv2.imencode(".png", pixels)
            assert done
            path.write_bytes(data.tobytes())  # imwrite cannot spell every name
    listed = [{"id": k, "name": name, "color": list(COLORS[k])} for k, name in enumerate(classes)]
    label_map = folder / "classes.yaml"
    label_map.write_text(yaml.safe_dump({"classes": listed}), encoding="utf-8")
    output = folder / "records"
    arguments = [f"--dataset={folder}", f"--output={output}", f"--label_map={label_map}"]
    assert flexseg.main(["prepare", *arguments, "--direct_num_workers=1", *options]) == 0
    return output
