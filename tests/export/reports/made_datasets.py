"""Small datasets whose every number is known, made by `flexseg prepare`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import yaml
from absl import flags

import flexseg
from pipelines import label_map as label_maps
from pipelines import manifest as manifests
from pipelines import prepare as preparing

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


def prepare_odd(folder: Path) -> Path:
    """Makes a dataset that has much of what is rare.

    Ten gray images of ten sizes, four fifths of whose pixels are 130 or 131; 45 classes, of which
    44 is nowhere; two images to a group; and two sources that cannot be used, one of a name that
    holds U+2028.

    Returns:
      The dataset's folder.
    """
    rng = np.random.default_rng(3)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for k in range(10):
        size = (20 + k, 30)
        image = rng.integers(0, 256, size, np.uint8)
        image[: size[0] * 4 // 5] = rng.integers(130, 132, (size[0] * 4 // 5, 30))
        mask = np.zeros(size, np.uint8)
        mask[0, :24] = np.arange(24) * (k + 1) % 44
        mask[1, :22] = np.arange(22, 44)
        for kind, pixels in (("images", image), ("masks", mask)):
            assert cv2.imwrite(str(folder / kind / f"g{k // 2}_{k}.png"), pixels)
    for name in ("torn\u2028line", "lonely"):
        (folder / "images" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "masks" / "torn\u2028line.png").write_bytes(b"no mask")
    listed = [{"id": k, "name": f"kind {k}", "color": [k, 5 * k, 255 - k]} for k in range(45)]
    (folder / "classes.yaml").write_text(yaml.safe_dump({"classes": listed}))
    arguments = [f"--dataset={folder}", f"--label_map={folder / 'classes.yaml'}"]
    arguments += [f"--output={folder / 'records'}", "--direct_num_workers=1", "--max_rejected=2"]
    arguments += ["--mask_kind=index", "--group_regex=g\\d", "--split=train:0.6,test:0.4"]
    assert flexseg.main(["prepare", *arguments]) == 0
    return folder / "records"


def options_of(arguments):
    """The options that flexseg prepare makes of its flags."""
    values = flags.FlagValues()
    preparing.define_flags(values)
    assert values(["prepare", *arguments], known_only=False)[1:] == []
    return preparing.options_from(values, label_maps.load(values.label_map), False)


def manifest_of(dataset, options):
    """A dataset's manifest as if it had been prepared with other options."""
    described = json.loads(json.dumps(options.to_dict()))
    del described["label_map"], described["preparation"]
    return dataclasses.replace(
        manifests.load(str(dataset)),
        label_map=options.label_map,
        preparation=options.preparation,
        options=described,
    )
