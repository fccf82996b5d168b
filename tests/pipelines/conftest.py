"""Folders of images and masks that are drawn for a test, and the records that come of them.

Test files cannot import one another, so what they share comes as fixtures that are functions.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import flexseg
from pipelines import records

_COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 0], [40, 40, 255]], np.uint8)
_LITERAL = "{(0,0,0):0,(255,0,0):1,(0,200,0):2,(40,40,255):3}"


@dataclasses.dataclass(frozen=True)
class Pair:
    """What was drawn: image uint8 [H, W, 1 or 3], mask of class ids uint8 [H, W]."""

    image: np.ndarray
    ids: np.ndarray


def _save(path: Path, pixels: np.ndarray, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).save(path, **how)


def _draw(
    folder: Path, stems: Iterable[str], size: tuple[int, int] = (12, 16), gray: bool = False
) -> dict[str, Pair]:
    pairs = {}
    for stem in stems:
        rng = np.random.default_rng(zlib.crc32(stem.encode()))
        image = rng.integers(0, 256, (*size, 1 if gray else 3), dtype=np.uint8)
        classes = rng.integers(2, len(_COLORS) + 1)  # not every mask holds every class
        blocks = rng.integers(0, classes, (size[0] // 3 + 1, size[1] // 3 + 1))
        ids = blocks.repeat(3, 0).repeat(3, 1)[: size[0], : size[1]].astype(np.uint8)
        _save(folder / "images" / f"{stem}.png", image)
        _save(folder / "masks" / f"{stem}.png", _COLORS[ids])
        pairs[stem] = Pair(image, ids)
    return pairs


def _decode(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)))  # not the decoder that the product uses


def _read_shard(path: Path) -> list[dict[str, Any]]:
    found = []
    with open(path, "rb") as file:
        for _, data in records.read_framed(file, str(path)):
            features = records.parse_features(data)
            image = _decode(features[records.ENCODED][0])
            features["image"] = image[..., None] if image.ndim == 2 else image
            features["mask"] = _decode(features[records.MASK_ENCODED][0])
            features["id"] = features[records.SOURCE_ID][0].decode()
            found.append(features)
    return found


@pytest.fixture(scope="session")
def colors() -> np.ndarray:
    """The colours of the drawn masks, uint8 [K, 3]."""
    return _COLORS


@pytest.fixture(scope="session")
def literal() -> str:
    """The label map of the drawn masks."""
    return _LITERAL


@pytest.fixture(scope="session")
def save() -> Callable[..., None]:
    """`save(path, pixels)` writes uint8 [H, W], [H, W, 1] or [H, W, 3 or 4], making folders."""
    return _save


@pytest.fixture(scope="session")
def draw() -> Callable[..., dict[str, Pair]]:
    """`draw(folder, stems, size, gray)` draws FOLDER/{images,masks}/STEM.png: noise, and blocks."""
    return _draw


@pytest.fixture(scope="session")
def read_shard() -> Callable[[Path], list[dict[str, Any]]]:
    """`read_shard(path)` -> the features of each record, with its `image`, `mask` and `id`."""
    return _read_shard


@pytest.fixture(scope="session")
def read_split() -> Callable[[Path, str], list[dict[str, Any]]]:
    """`read_split(output, split)` -> the records of all its shards, in order."""

    def read(output: Path, split: str) -> list[dict[str, Any]]:
        return [r for path in sorted(output.glob(f"{split}-*")) for r in _read_shard(path)]

    return read


@pytest.fixture(scope="session")
def read_manifest() -> Callable[[Path], dict[str, Any]]:
    """`read_manifest(output)` -> dataset.json as plain data."""
    return lambda output: json.loads((output / "dataset.json").read_text())


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """`contents(output)` -> name and bytes of all files that a dataset shows."""
    return lambda output: {p.name: p.read_bytes() for p in output.iterdir() if p.is_file()}


@pytest.fixture(scope="session")
def prepare_quietly() -> Callable[..., None]:
    """`prepare_quietly(source, output, ...)`: for fixtures that need a dataset."""

    def run(source: Path, output: Path, *flags: str) -> None:
        given = [f"--dataset={source}", f"--output={output}", f"--label_map={_LITERAL}"]
        assert flexseg.main(["prepare", *given, "--direct_num_workers=1", *flags]) == 0

    return run


@pytest.fixture
def prepare(command: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """`prepare("--flag=value", ...)` prepares tmp_path/data into tmp_path/out with one worker."""

    def run(*flags: str) -> Any:
        defaults = {
            "--dataset": tmp_path / "data",
            "--output": tmp_path / "out",
            "--label_map": _LITERAL,
            "--direct_num_workers": 1,
        }
        given = {flag.partition("=")[0] for flag in flags}
        if given & {"--images", "--masks"}:
            del defaults["--dataset"]
        shown = [f"{name}={value}" for name, value in defaults.items() if name not in given]
        return command("prepare", *shown, *flags)

    return run
