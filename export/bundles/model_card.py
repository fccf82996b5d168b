"""What a stranger needs to know of an exported model, as data; `card_text` says it in Markdown."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from flexseg_errors import FlexsegError
from pipelines import folds, storage
from pipelines import manifest as manifests
from pipelines.preparation import Preparation
from train import experiment as experiments
from train import postprocessing, software
from train.runs import Run

_OF_AN_EVALUATION = (
    "images",
    "size",
    "dataset_fingerprint",
    "foreground",
    "classes",
    "intervals",
    "calibration",
)


def of_run(trained: Run, signatures: dict[str, Any]) -> dict[str, Any]:
    """The card of a run, as plain data: the same run always gives the same.

    Args:
      trained: a run with weights.
      signatures: what `signatures.described` says; empty where there is no SavedModel.
    """
    import keras
    import tensorflow as tf

    card = {
        "classes": list(trained.label_map.names),
        "colors": trained.label_map.colors.tolist(),
        "channels": trained.channels,
        "tile": list(trained.size),
        "preparation": dataclasses.asdict(trained.preparation),
        "signatures": signatures,
        "dataset_fingerprint": trained.dataset_fingerprint,
        "data": _data(trained),
        "experiment": experiments.to_dict(trained.experiment),
        "metrics": _metrics(trained),
        "postprocessing": _postprocessing(trained),
        "trained_with": [str(used.software) for used in software.read(trained)],
        "versions": {
            "flexseg": software.version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }
    return json.loads(json.dumps({**card, "limits": limits(card)}))


def limits(card: dict[str, Any]) -> list[str]:
    """What the model is for and what it is not, in sentences."""
    preparation = Preparation.from_dict(card["preparation"])
    height, width = card["tile"]
    colors = "gray images" if card["channels"] == 1 else "RGB images"
    found = [
        f"It was trained on {colors}, in pieces of {height} x {width} pixels, and tells apart "
        f"{', '.join(card['classes'])}, nothing else: what is none of these is called one of them.",
        _of_size(preparation),
        _of_intensity(preparation.intensity),
        "Image files may be PNG, JPEG, BMP or GIF (its first frame). The orientation that EXIF "
        "gives in JPEG and PNG is applied: the mask lies on the image as it is displayed.",
    ]
    if card["channels"] == 1:
        found.append("Files with colours are refused.")
    if card["postprocessing"]:
        found.append(
            "Its masks were chosen to be cleaned afterwards (see post-processing). The signatures "
            "do not do that, for TensorFlow cannot find connected components in a graph; flexseg "
            "predict with this bundle does, by assets/postprocessing.yaml."
        )
    if not card["metrics"]:
        found.append("How good it is was not measured before it was exported.")
    elif not any("calibration" in figures for figures in card["metrics"].values()):
        found.append("Whether its probabilities are as often right as they say was not measured.")
    if card["metrics"]:
        found.append(
            "The metrics are those of the splits they name; other instruments, stains or sites "
            "were measured only where these splits have them."
        )
    return found


def _of_size(preparation: Preparation) -> str:
    if preparation.image_size:
        height, width = preparation.image_size
        return (
            f"Every image is stretched to {height} x {width} pixels first, whatever its "
            "proportions, and the mask back: those of the training images were stretched alike."
        )
    if preparation.scale != 1:
        return (
            f"Every image is scaled by {preparation.scale:g} first, and the mask back: send images "
            "as they come, at the magnification of the training images."
        )
    return (
        "Images are not scaled: a pixel should be as large in the world as in the training images."
    )


def _of_intensity(intensity: str) -> str:
    if intensity == "none":
        return (
            "It takes 8 bits per channel; PNG files of 16 bits are refused, for nothing says what "
            "their values mean."
        )
    text = (
        f"Values become 8-bit by {intensity}. encoded, rest and examples do so with every file, of "
        "8 bits or PNG of 16; serving_default and tiled take what has been done already: "
        "255 (value - low) / (high - low), clipped to 0..255, halves rounded up."
    )
    if intensity.startswith(("minmax", "percentile")) and "-slice" not in intensity:
        text += (
            " Limits come from each file; of the slices of a volume they should come from the whole"
            " volume, which flexseg predict does and a file at a time cannot."
        )
    return text


def _data(trained: Run) -> dict[str, Any] | None:
    """What the dataset held, as far as it can still be seen where it was when it was trained on."""
    try:
        manifest = manifests.load(trained.data)
        if trained.experiment.data.fold is not None and folds.count(manifest):
            manifest = folds.view(manifest, trained.experiment.data.fold)
    except FlexsegError:
        return None
    if manifest.fingerprint != trained.dataset_fingerprint:
        return None
    return {
        "name": trained.data.rstrip("/").rpartition("/")[2],
        "rejected": manifest.rejected,
        "splits": {
            name: {
                "sources": split.sources,
                "groups": split.groups,
                "examples": split.examples,
                "class_sources": list(split.class_sources),
            }
            for name, split in manifest.splits.items()
        },
    }


def _metrics(trained: Run) -> dict[str, Any]:
    metrics = {}
    for name in storage.names(trained.path("evaluation")):
        if not name.endswith(".json"):
            continue
        path = trained.path("evaluation", name)
        try:
            evaluation = json.loads(storage.read_bytes(path))
            metrics[evaluation["split"]] = {
                key: evaluation[key] for key in _OF_AN_EVALUATION if key in evaluation
            }
        except (ValueError, KeyError, TypeError) as error:
            raise FlexsegError(
                f"{path} is damaged ({error!r}); run flexseg evaluate again, or remove it."
            ) from error
    return metrics


def _postprocessing(trained: Run) -> dict[str, Any] | None:
    """The chosen post-processing, as plain data; None where it does nothing."""
    chosen = postprocessing.of_run(trained)
    return None if chosen.is_identity else chosen.to_dict()
