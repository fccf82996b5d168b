"""Writes a dataset's records back as image and mask files.

A record becomes OUTPUT/SPLIT/images/NAME.png and OUTPUT/SPLIT/masks/NAME.png. NAME is the path of
its source; a tile gets its origin appended (NAME_y512_x0), an augmented copy what was done to it
put in front (hflipped_NAME). Images are written as they are stored; JPEG stays the same JPEG. Masks
are palette PNGs (pixel value = class id), or PNGs in colors, or gray PNGs of class ids.
OUTPUT/label_map.yaml says which color and id is which class.

A split appears when all of it has been written. Run again after an interruption, the command goes
on where it stopped.

Examples:
  flexseg extract records --output=files
  flexseg extract records --output=files --split=valid,test --mask_format=index
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from absl import flags

from flexseg_console import detail, progress
from flexseg_errors import FlexsegError, UsageError
from pipelines import augment, convert_masks, records
from pipelines import label_map as label_maps
from pipelines import manifest as manifests
from pipelines.manifest import Manifest

POSITIONAL = ("DATASET",)

LABEL_MAP = "label_map.yaml"

_SUFFIXES = {"png": ".png", "jpeg": ".jpg"}  # formats whose bytes are a file as they stand


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "output",
        None,
        "Folder for the files; made if it is not there. Required.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "split",
        None,
        "Splits to write, such as train or valid,test. Default: all.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "mask_format",
        "palette",
        ["palette", "rgb", "index"],
        "Of the masks. palette: class ids with the label map's colors as palette. rgb: the colors. "
        "index: class ids as gray values.",
        flag_values=values,
    )


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    if not values.output:
        raise UsageError("extract needs --output. See flexseg extract --help.")
    manifest = manifests.load(rest[0])
    wanted = values.split.split(",") if values.split else manifest.splits
    splits = list(dict.fromkeys(name.strip() for name in wanted))
    for split in splits:
        manifest.split(split)  # refuses a name that the dataset does not have
    claim_output(values.output, manifest, values.mask_format)
    for split in splits:
        if os.path.isdir(os.path.join(values.output, split)):
            print(f"{values.output}: {split} is already there.")
            continue
        detail(f"writing the split {split}")
        write_split(manifest, split, values.output, values.mask_format)
        print(f"{values.output}: {split}, {manifest.split(split).examples} images and masks.")


def claim_output(output: str, manifest: Manifest, masks: str) -> None:
    """Makes the output folder this extraction's own, or refuses it.

    The label map's file names the dataset and the form of the masks; beside it there may be splits
    of that dataset in that form, finished or not.

    Raises:
      FlexsegError: where the folder holds anything else, or lies inside the dataset.
    """
    inside_dataset = os.path.realpath(manifest.folder) + os.sep
    if (os.path.realpath(output) + os.sep).startswith(inside_dataset):
        raise FlexsegError(
            f"--output={output} lies inside the dataset {manifest.folder}; give another folder."
        )
    if os.path.exists(output) and not os.path.isdir(output):
        raise FlexsegError(f"--output={output} is a file; expected a folder.")
    path = os.path.join(output, LABEL_MAP)
    text = f"# Masks as {masks}, of the dataset with the fingerprint {manifest.fingerprint}.\n"
    text += label_maps.dump(manifest.label_map)
    own = {LABEL_MAP, LABEL_MAP + ".tmp"}
    if os.path.isfile(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            there = file.read()
        if there != text:
            raise FlexsegError(
                f"--output={output} holds files of another dataset, or with masks in another form "
                f"(see {path}); nothing was touched. Give a new folder."
            )
        own |= {name for s in manifest.splits for name in (s, _unfinished(manifest, s, masks))}
    inside = sorted(os.listdir(output)) if os.path.isdir(output) else []
    foreign = [name for name in inside if name not in own]
    if foreign:
        raise FlexsegError(
            f"--output={output} holds something else ({', '.join(foreign[:5])}"
            f"{', ...' if len(foreign) > 5 else ''}); nothing was touched. Give a new folder."
        )
    os.makedirs(output, exist_ok=True)
    _write(path + ".tmp", text.encode())
    os.replace(path + ".tmp", path)


def write_split(manifest: Manifest, split: str, output: str, masks: str) -> None:
    """Writes all records of a split below `<output>/<split>`, which appears when they are there.

    Args:
      manifest: the dataset.
      split: the split's name.
      output: the folder, claimed by `claim_output`.
      masks: "palette", "rgb" or "index".

    Raises:
      FlexsegError: where a record is damaged, naming its file.
    """
    # Where the sources came with splits, their ids begin with the split, as do the folders here.
    prefix = "" if manifest.options.get("split") else split + "/"
    folder = os.path.join(output, _unfinished(manifest, split, masks))
    used: set[str] = set()
    for name in ("images", "masks"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    for path, features in progress(
        _features(manifest, split),
        total=manifest.split(split).examples,
        unit="record",
    ):
        name = _unused(record_name(features, prefix, path), used)
        suffix, image = image_file(features)
        ids = _pixels(features, records.MASK_ENCODED, records.MASK_FORMAT)[..., 0]
        mask = convert_masks.encode(np.ascontiguousarray(ids), masks, manifest.label_map)
        _write(os.path.join(folder, "images", name + suffix), image)
        _write(os.path.join(folder, "masks", name + ".png"), mask)
    os.replace(folder, os.path.join(output, split))


def record_name(features: Mapping[str, list[Any]], prefix: str = "", origin: str = "") -> str:
    """What a record's files are called, without suffix.

    Args:
      features: a record, as `records.parse_features` gives it.
      prefix: taken off the front of the source's id where it is there.
      origin: the record's file, for the error.

    Returns:
      `<folders>/<variant>_<stem>_y<y>_x<x>`; the variant where the record is an augmented copy, the
      origin, in pixels of the prepared source, where it is a tile of something larger.

    Raises:
      FlexsegError: where the source's id is no path below a folder.
    """
    source_id = features[records.SOURCE_ID][0].decode().removeprefix(prefix)
    folder, slash, name = source_id.rpartition("/")
    if not name or ".." in source_id.split("/") or os.path.isabs(source_id):
        raise FlexsegError(
            f"{origin} holds a record of the source {source_id!r}, which is no path below a "
            "folder; the dataset was not made by flexseg prepare."
        )
    text = _text(features, records.AUGMENTATION)
    variant = augment.variant_name(text).strip().replace("/", "_")
    if variant:
        name = f"{variant}_{name}"
    size = features[records.HEIGHT][0], features[records.WIDTH][0]
    if size != tuple(features[records.SOURCE_SIZE]):
        name += "_y{}_x{}".format(*features[records.TILE_ORIGIN])
    return folder + slash + name


def image_file(features: Mapping[str, list[Any]]) -> tuple[str, bytes]:
    """The suffix and bytes of a record's image as a file; no pixel changes."""
    form = _text(features, records.FORMAT)
    if form in _SUFFIXES:
        return _SUFFIXES[form], features[records.ENCODED][0]
    pixels = _pixels(features, records.ENCODED, records.FORMAT)
    if pixels.shape[-1] == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise RuntimeError(f"OpenCV cannot encode an array of shape {pixels.shape} as PNG.")
    return ".png", data.tobytes()


def _features(manifest: Manifest, split: str) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    """Each record of a split with its file, in order."""
    for path in manifest.paths(split):
        try:
            with open(path, "rb") as file:
                for _, data in records.read_framed(file, path):
                    yield path, records.parse_features(data)
        except OSError as error:
            raise FlexsegError(
                f"{path} cannot be read: {error.strerror}. Run `flexseg prepare` again."
            ) from error


def _unused(name: str, used: set[str]) -> str:
    """The name, or NAME_2, NAME_3 ... where it is taken: a source may be called as a copy would."""
    candidate, count = name, 1
    while candidate in used:
        count += 1
        candidate = f"{name}_{count}"
    used.add(candidate)
    return candidate


def _pixels(features: Mapping[str, list[Any]], data_key: str, format_key: str) -> np.ndarray:
    """Decodes an image or mask: uint8 [H, W, C], RGB."""
    data = np.frombuffer(features[data_key][0], np.uint8)
    if _text(features, format_key) == "raw":
        return data.reshape(features[records.HEIGHT][0], features[records.WIDTH][0], -1)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    return pixels[..., None] if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _text(features: Mapping[str, list[Any]], key: str) -> str:
    return b"".join(features.get(key, [])).decode()


def _unfinished(manifest: Manifest, split: str, masks: str) -> str:
    """The folder a split is written in; another dataset or form would never go on in it."""
    key = hashlib.sha256(f"{manifest.fingerprint}:{masks}".encode()).hexdigest()
    return f".{split}-{key[:12]}.partial"


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
