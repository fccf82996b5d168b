"""A run or a bundle, whichever it is, as one thing that segments images."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable

import numpy as np

from export import bundle
from flexseg_errors import FlexsegError
from pipelines import intensity, storage
from pipelines import label_map as label_maps
from pipelines.intensity import Intensity
from pipelines.preprocessing import Preprocessing
from train import runs


@dataclasses.dataclass(frozen=True)
class Predictor:
    """What segments images.

    Attributes:
      label_map: the classes.
      channels: of the images it takes, 1 or 3.
      intensity: how images of more than 8 bits become 8-bit.
      probabilities: uint8 [H, W, channels] -> float32 [H, W, K].
    """

    label_map: label_maps.LabelMap
    channels: int
    intensity: Intensity
    probabilities: Callable[[np.ndarray], np.ndarray]


def load(path: str) -> Predictor:
    """Loads a run directory or a bundle.

    Raises:
      FlexsegError: where it is neither.
    """
    if storage.is_file(storage.join(path, runs.EXPERIMENT)):
        return _of_run(runs.load(path))
    if storage.is_file(storage.join(path, bundle.MODEL)):
        return _load_bundle(path)
    if not storage.is_folder(path):
        raise FlexsegError(f"--model={path}: there is no such folder.")
    raise FlexsegError(
        f"--model={path} is neither a run of `flexseg train` nor a bundle of `flexseg export`."
    )


def _of_run(run: runs.Run) -> Predictor:
    from train.segment import Segmenter

    preparation = run.preparation
    first = Preprocessing.from_text(preparation.preprocessing)
    if first.color:  # OpenCV's conversions have no equal in the graph; do it all before
        preparation = dataclasses.replace(preparation, preprocessing="")
    else:
        first = Preprocessing()
    segmenter = Segmenter(run.load_model(), run.size, preparation, run.experiment.inference)
    return Predictor(
        run.label_map,
        run.channels,
        intensity.parse(run.preparation.intensity),
        lambda image: segmenter.probabilities(first.image(image)).numpy(),
    )


def _load_bundle(path: str) -> Predictor:
    import tensorflow as tf

    try:
        card = json.loads(storage.read_bytes(storage.join(path, "assets", bundle.CARD)))
    except (OSError, json.JSONDecodeError) as error:
        raise FlexsegError(
            f"--model={path} is a SavedModel, but no bundle of `flexseg export`: "
            f"assets/{bundle.CARD} cannot be read."
        ) from error
    with storage.local_copy(path) as local:
        label_map = label_maps.load(os.path.join(local, "assets", bundle.LABEL_MAP))
        loaded = tf.saved_model.load(local)
    serve = loaded.signatures["serving_default"]

    def probabilities(image: np.ndarray) -> np.ndarray:
        assert loaded is not None  # the signatures live as long as the module does
        return serve(images=tf.constant(image[None]))["probabilities"][0].numpy()

    mapping = intensity.parse(card["preparation"]["intensity"])
    return Predictor(label_map, card["channels"], mapping, probabilities)
