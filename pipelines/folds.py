"""A dataset with folds, as one run sees it: train on all folds but one, validate on that one."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from flexseg_errors import FlexsegError
from pipelines.manifest import Manifest, Split
from pipelines.shards import TRAINING_FORM
from pipelines.splits import fold_names, is_fold

_FLAG = "--config.data.fold"


def count(manifest: Manifest) -> int:
    """How many folds a dataset has; 0 where it has none."""
    return sum(map(is_fold, manifest.splits))


def view(manifest: Manifest, fold: int | None) -> Manifest:
    """The dataset that a run on one fold sees.

    Args:
      manifest: the dataset.
      fold: the fold to validate on, from 0; None where the dataset has no folds.

    Returns:
      A manifest whose split "train" holds all other folds, in training form where they are written
      so, whose "valid" is the fold itself, and whose "test" is the dataset's, if it has one. It has
      a fingerprint of its own. A dataset without folds comes back as it is.

    Raises:
      FlexsegError: where a fold is asked for that the dataset does not have, or none where it has
        folds.
    """
    number = count(manifest)
    if fold is None and not number:
        return manifest
    if not number:
        raise FlexsegError(
            f"{_FLAG}={fold}: the dataset {manifest.folder} has no folds (it has "
            f"{', '.join(manifest.splits)}). Leave {_FLAG} out, or prepare it with --folds."
        )
    if fold is None or not 0 <= fold < number:
        wrong = f"the dataset {manifest.folder} has {number} folds"
        given = "" if fold is None else f"{_FLAG}={fold}: "
        raise FlexsegError(f"{given}{wrong}; choose one with {_FLAG}=0 to {number - 1}.")
    names = fold_names(number)
    training = [
        manifest.splits.get(name + TRAINING_FORM, manifest.split(name))
        for name in names
        if name != names[fold]
    ]
    splits = {"train": join(training), "valid": manifest.split(names[fold])}
    if "test" in manifest.splits:
        splits["test"] = manifest.split("test")
    key = f"{manifest.fingerprint}:{names[fold]}"
    return dataclasses.replace(
        manifest,
        fingerprint=hashlib.sha256(key.encode()).hexdigest(),
        splits=splits,
        audit=None,
    )


def join(parts: Sequence[Split]) -> Split:
    """One split that holds what several hold, which have neither sources nor groups in common."""
    return Split(**{name: combine(parts) for name, combine in _COMBINE.items()})


def _summed(key: str) -> Callable[[Sequence[Split]], int]:
    return lambda parts: sum(getattr(p, key) for p in parts)


def _each(key: str, pick: Callable[..., int]) -> Callable[[Sequence[Split]], tuple[int, ...]]:
    return lambda parts: tuple(map(pick, zip(*(getattr(p, key) for p in parts), strict=True)))


def _weighted(parts: Sequence[Split], moment: Callable[[Split], list[float]]) -> list[float]:
    """The mean over pixels of what each part says of each channel."""
    weights = [p.pixels for p in parts]
    channels = zip(*map(moment, parts), strict=True)
    return [
        sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        for values in channels
    ]


def _channel_mean(parts: Sequence[Split]) -> tuple[float, ...]:
    return tuple(round(m, 6) for m in _weighted(parts, lambda p: list(p.channel_mean)))


def _channel_std(parts: Sequence[Split]) -> tuple[float, ...]:
    means = _weighted(parts, lambda p: list(p.channel_mean))
    squares = _weighted(
        parts, lambda p: [s * s + m * m for s, m in zip(p.channel_std, p.channel_mean, strict=True)]
    )
    return tuple(round(max(0.0, s - m * m) ** 0.5, 6) for m, s in zip(means, squares, strict=True))


# What becomes of each field of `Split`; a test holds the names to the dataclass.
_COMBINE: dict[str, Callable[[Sequence[Split]], Any]] = {
    "examples": _summed("examples"),
    "sources": _summed("sources"),
    "groups": _summed("groups"),
    "pixels": _summed("pixels"),
    "class_pixels": _each("class_pixels", sum),
    "class_examples": _each("class_examples", sum),
    "class_sources": _each("class_sources", sum),
    "channel_mean": _channel_mean,
    "channel_std": _channel_std,
    "min_size": _each("min_size", min),
    "max_size": _each("max_size", max),
    "unmatched_pixels": _summed("unmatched_pixels"),
    "shards": lambda parts: tuple(shard for p in parts for shard in p.shards),
}
