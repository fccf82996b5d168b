"""The page of a dataset: splits, classes, intensities, what is suspicious, and a contact sheet."""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from export.reports import (
    dataset_cards,
    dataset_commands,
    dataset_figures,
    dataset_findings,
    dataset_sample,
    pictures,
)
from export.reports import page as pages
from export.reports.dataset_sample import Found
from export.reports.options import Options
from flexseg_errors import FlexsegError
from pipelines import group_files, records, splits, storage
from pipelines import manifest as manifests
from pipelines.manifest import Manifest
from pipelines.shards import TRAINING_FORM

PICTURES = 60  # of the contact sheet

_MEASURED = 32  # records of a split whose intensities are counted
_SIZES = 8  # sizes that are listed
_NAMES = 300  # groups of a split, and rejected sources, that are listed


def page(path: str, options: Options) -> str:
    """The page of a dataset.

    Reads of each split at most `dataset_sample.MOST_READ` records.

    Raises:
      FlexsegError: where the folder holds no finished dataset, or it is damaged.
    """
    manifest = manifests.load(path)
    wanted = PICTURES if options.pictures is None else options.pictures
    found = {name: dataset_sample.find(manifest, name) for name in manifest.splits}
    findings = dataset_findings.noticed(manifest)
    seen = dataset_cards.of_findings(manifest, found, findings if wanted else ())
    room = pictures.MOST_BYTES - sum(card.bytes for some in seen for card in some)
    cards = dataset_cards.sheet(manifest, found, wanted, room)
    label_map = manifest.label_map
    groups = group_files.read_splits(manifest.folder) if _has_groups(manifest) else {}
    rejected, unlisted = _rejected(manifest)
    histograms = _histograms(found)
    return pages.render(
        "dataset.html.j2",
        name=_name(manifest.folder),
        manifest=manifest,
        label_map=label_map,
        layer_colors=pictures.vivid(label_map).colors.tolist(),
        recolored=pictures.vivid(label_map).colors.tolist() != label_map.colors.tolist(),
        alike=_alike(manifest),
        total=_totals(manifest, groups),
        preparation=_preparation(manifest),
        findings=findings,
        seen=seen,
        levels=dataset_findings.LEVELS,
        counts=dataset_figures.counts(manifest),
        forms=[name for name in manifest.splits if name.endswith(TRAINING_FORM)],
        folds=[name for name in manifest.splits if splits.is_fold(name)],
        groups=_by_split(groups),
        most_names=_NAMES,
        pixel_figure=dataset_figures.class_shares(manifest, pixels=True),
        example_figure=dataset_figures.class_shares(manifest, pixels=False),
        pixel_shares=dataset_figures.shares(manifest, pixels=True).tolist(),
        most_classes=dataset_figures.MOST_CLASSES,
        histogram=dataset_figures.intensities(histograms),
        intensity_rows=dataset_figures.intensity_rows(histograms),
        measured=_MEASURED,
        sizes=_sizes(found),
        looked_at=sum(map(len, found.values())),
        cards=cards,
        wanted=wanted,
        shown_classes=sorted({k for card in cards for k in card.found.classes}),
        commands=dataset_commands.commands(manifest),
        options=_flat(manifest.options),
        rejected=rejected,
        unlisted=unlisted,
    )


def _histograms(found: Mapping[str, Sequence[Found]]) -> dict[str, np.ndarray]:
    """Counts of each value, [256, C], in some records of each split."""
    counted = {}
    for name, some in found.items():
        chosen = dataset_sample.shuffled(some)[:_MEASURED]
        values = [records.value_counts(dataset_sample.pixels(one)[0]) for one in chosen]
        counted[name] = np.sum([v.reshape(256, -1) for v in values], axis=0)
    return counted


def _sizes(found: Mapping[str, Sequence[Found]]) -> list[tuple[str, int]]:
    """The most frequent sizes among the records that were looked at, and the rest."""
    counted = collections.Counter(one.size for some in found.values() for one in some)
    rows = [
        (f"{height} × {width}", count)
        for (height, width), count in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    ]
    if len(rows) > _SIZES:
        rest = rows[_SIZES - 1 :]
        rows = [*rows[: _SIZES - 1], (f"{len(rest)} others", sum(count for _, count in rest))]
    return rows


def _totals(manifest: Manifest, groups: Mapping[str, str]) -> dict[str, Any]:
    every = list(manifest.splits.values())
    own = [s for name, s in manifest.splits.items() if not name.endswith(TRAINING_FORM)]
    low = [min(s.min_size[i] for s in every) for i in (0, 1)]
    high = [max(s.max_size[i] for s in every) for i in (0, 1)]
    size = "{} × {}".format(*low)
    return {
        "examples": sum(s.examples for s in every),
        "sources": sum(s.sources for s in own),
        "groups": len(groups) or sum(s.groups for s in own),
        "bytes": sum(shard.bytes for s in every for shard in s.shards),
        "shards": sum(len(s.shards) for s in every),
        "size": size if low == high else size + " to {} × {}".format(*high),
    }


def _preparation(manifest: Manifest) -> list[str]:
    """What was done to the sources, each in a few words."""
    options, done = manifest.options, manifest.preparation.in_words()
    if tile := options.get("tile_size"):
        overlap = options.get("tile_overlap")
        done.append(
            f"cut into tiles of {tile} pixels" + (f" with an overlap of {overlap}" * bool(overlap))
        )
    if options.get("add_reduced"):
        done.append("each training source also as a whole, reduced to a tile")
    if plan := options.get("augment"):
        copies = len(plan["variants"])
        done.append(
            f"{copies} changed {'copy' if copies == 1 else 'copies'} of each training source"
            + ("" if plan["keep_source"] else " in its place")
        )
    if options.get("image_encoding", "").startswith("jpeg"):
        done.append("stored as JPEG")
    return done


def _by_split(groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Split -> the names of its groups, sorted."""
    by_split: dict[str, list[str]] = {}
    for group, split in sorted(groups.items()):
        by_split.setdefault(split, []).append(group)
    return by_split


def _alike(manifest: Manifest) -> bool:
    """Whether all channels have the same values, as in gray images that are stored as RGB."""
    return all(
        len(set(values)) == 1
        for split in manifest.splits.values()
        for values in (split.channel_mean, split.channel_std)
    )


def _has_groups(manifest: Manifest) -> bool:
    return storage.is_file(storage.join(manifest.folder, group_files.FILE))


def _rejected(manifest: Manifest) -> tuple[list[tuple[str, str, str]], int]:
    """(path, stage, reason) of sources that could not be used, and how many are not listed."""
    path = storage.join(manifest.folder, manifests.REJECTED)
    if not manifest.rejected or not storage.is_file(path):
        return [], manifest.rejected
    try:
        # Names may hold what else ends a line of text, such as U+2028.
        lines = storage.read_bytes(path).decode("utf-8", "replace").removesuffix("\n").split("\n")
        told = [json.loads(line) for line in lines[:_NAMES]]
        return [(t["path"], t["stage"], t["reason"]) for t in told], len(lines) - len(told)
    except (ValueError, KeyError, TypeError) as error:
        raise FlexsegError(
            f"{path} is damaged ({error!r}); run `flexseg prepare` again."
        ) from error


def _flat(options: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    """Nested options as (dotted name, value as text)."""
    rows: list[tuple[str, str]] = []
    for key, value in options.items():
        if isinstance(value, Mapping) and key != "augment":
            rows += _flat(value, f"{path}{key}.")
        else:
            rows.append((path + key, "" if value is None else _short(value)))
    return rows


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:199] + "…"


def _name(folder: str) -> str:
    whole = folder if storage.is_remote(folder) else os.path.abspath(folder)
    return whole.rstrip("/").rpartition("/")[2] or whole
