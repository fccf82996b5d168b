"""A TFLite or ONNX file of a bundle as a member of `predictors`: images of any size."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from flexseg_errors import FlexsegError
from pipelines import label_map as label_maps
from pipelines import storage
from pipelines.preparation import Preparation
from train import experiment as experiments
from train import postprocessing

if TYPE_CHECKING:
    from export.predictions.members import Member

SUFFIXES = (".tflite", ".onnx")
_ASSETS, _CARD, _LABEL_MAP = "assets", "model_card.json", "label_map.yaml"


def is_model_file(path: str) -> bool:
    """Whether that is the name of a file that `load` takes."""
    return path.endswith(SUFFIXES)


def load(path: str, window: dict[str, Any]) -> Member:
    """Loads a model file, with what the bundle that it lies in says of it.

    Preparation and sliding window are those of the run, outside the file.

    Args:
      path: of the file; it may be remote.
      window: values of `InferenceConfig` that replace the run's own.

    Raises:
      FlexsegError: there is no such file, it does not lie in a bundle, or it is not what the
        bundle's card says.
    """
    from export.other_formats import onnx, tflite
    from export.predictions.members import Member
    from train.segment import Segmenter

    if not storage.is_file(path):
        raise FlexsegError(f"--model={path}: there is no such file.")
    folder, _, name = path.replace(os.sep, "/").rpartition("/")
    assets = storage.join(folder or ".", _ASSETS)
    try:
        card = json.loads(storage.read_bytes(storage.join(assets, _CARD)))
    except (OSError, ValueError) as error:
        raise FlexsegError(
            f"--model={path} does not lie in a bundle of `flexseg export`: {assets}/{_CARD}, which "
            "says how images are prepared for it, cannot be read. Move it back beside its assets."
        ) from error
    with storage.local_copy(assets) as local:
        label_map = label_maps.load(os.path.join(local, _LABEL_MAP))
        chosen = postprocessing.load(os.path.join(local, postprocessing.FILE))
    tile = (card["tile"][0], card["tile"][1])
    with storage.local_copy(path) as local:
        network, _ = tflite.load(local) if name.endswith(".tflite") else onnx.load(local, tile)
    expected = (None, *tile, card["channels"]), label_map.num_classes
    if (network.input_shape, network.outputs[0].shape[-1]) != expected:
        raise FlexsegError(
            f"--model={path} takes {network.input_shape} and tells {network.outputs[0].shape[-1]} "
            f"classes apart; {assets}/{_CARD} speaks of {expected[0]} and {expected[1]}."
        )
    preparation = Preparation.from_dict(card["preparation"])
    inference = experiments.from_dict(card["experiment"], _CARD).inference
    segmenter = Segmenter(network, tile, preparation, inference, **window)
    return Member(
        path=path,
        label_map=label_map,
        channels=card["channels"],
        preparation=preparation,
        postprocessing=chosen,
        slide=lambda image: segmenter.prepared_probabilities(image).numpy(),
        segmenter=segmenter,
    )
