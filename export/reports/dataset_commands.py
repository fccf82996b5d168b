"""The commands that make a dataset again, as its manifest has them."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

import yaml

from pipelines import label_map as label_maps
from pipelines.manifest import Manifest
from pipelines.shards import Options

LABEL_MAP = "label_map.yaml"
AUGMENTATION = "augmentation.yaml"
OUTPUT = "records_again"

_SOURCES, _GROUPS, _EARLIER = "SOURCES", "GROUPS.csv", "EARLIER_DATASET"
_MEANINGS = {
    _SOURCES: "the folder of images and masks, which a dataset does not remember",
    _GROUPS: "the file that gave each image its group",
    _EARLIER: "the dataset whose splits were kept",
}
_PLAIN = (  # options that are flags of the same name
    "split",
    "split_method",
    "split_seed",
    "folds",
    "group_regex",
    "mask_suffix",
    "tile_size",
    "tile_overlap",
    "empty_tiles",
    "empty_tiles_in",
    "add_reduced",
    "image_encoding",
    "shard_size_mb",
    "num_shards",
    "max_pixels",
)
_DEFAULTS = {"split_method": "exact", "split_seed": 137, "image_encoding": "png"}


@dataclasses.dataclass(frozen=True)
class Commands:
    """What to give to a shell, and what it needs.

    Attributes:
      lines: the commands.
      files: name -> lines of each file that they read.
      placeholders: words in capitals in the commands -> what they stand for.
    """

    lines: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    placeholders: dict[str, str]


def commands(manifest: Manifest) -> Commands:
    """How to make a dataset again from its sources: the same bytes, if those are the same."""
    flags = [
        ("dataset", _SOURCES),
        ("output", OUTPUT),
        ("label_map", LABEL_MAP),
        *_flags(manifest),
    ]
    if manifest.rejected:
        flags.append(("max_rejected", manifest.rejected))
    files = {LABEL_MAP: _lines(label_maps.dump(manifest.label_map))}
    if manifest.options.get("augment"):
        plan = yaml.safe_dump(manifest.options["augment"], sort_keys=False, allow_unicode=True)
        files[AUGMENTATION] = _lines(plan)
    words = ["flexseg", "prepare", *(_flag(name, value) for name, value in flags)]
    values = {value for _, value in flags}
    return Commands(
        lines=(" ".join(words), f"flexseg verify {OUTPUT}"),
        files=files,
        placeholders={word: text for word, text in _MEANINGS.items() if word in values},
    )


def _flags(manifest: Manifest) -> list[tuple[str, Any]]:
    """The flags that say what the defaults do not."""
    preparation, options = manifest.preparation, manifest.options
    flags: list[tuple[str, Any]] = []
    if preparation.image_size:
        flags.append(("image_size", "{},{}".format(*preparation.image_size)))
    for name in ("scale", "intensity", "preprocessing", "volume_axis", "volume_rotation"):
        value = getattr(preparation, name)
        if value != next(f.default for f in dataclasses.fields(preparation) if f.name == name):
            flags.append((name, value))
    defaults = {f.name: f.default for f in dataclasses.fields(Options)} | _DEFAULTS
    for name in _PLAIN:
        value = options.get(name, defaults[name])
        if value not in ("", defaults[name]):
            flags.append((name, value))
    if options.get("groups_from_file"):
        flags.append(("groups", _GROUPS))
    if options.get("split_from"):
        flags.append(("split_from", _EARLIER))
    reading = options.get("masks", {})
    kind, threshold = reading.get("kind", "colors"), reading.get("threshold", "")
    if kind != "colors":
        flags.append(("mask_kind", f"{kind}:{threshold}" if threshold else kind))
    tolerance = reading.get("color_tolerance", manifest.label_map.blend_tolerance)
    if tolerance != manifest.label_map.blend_tolerance:
        flags.append(("color_tolerance", tolerance))
    if reading.get("unmatched", "error") != "error":
        flags.append(("unmatched", reading["unmatched"]))
    for name, key in (("volume_dataset", "dataset"), ("mask_dataset", "mask_dataset")):
        if value := options.get("volumes", {}).get(key):
            flags.append((name, value))
    if options.get("augment"):
        flags.append(("augment", AUGMENTATION))
    return flags


def _flag(name: str, value: Any) -> str:
    if value is True:
        return f"--{name}"
    return f"--{name}={shlex.quote(str(value))}"


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.rstrip("\n").split("\n"))
