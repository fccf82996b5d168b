"""One network of those that segment together: a run, or a bundle, loaded.

A run's image is prepared outside the graph and its variants are made of the prepared image. A
bundle prepares inside its graph, so that its variants are made of the image as it comes; mirrored
and turned that is the same, but for the rounding where it is resized.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from export import bundle
from flexseg_errors import FlexsegError
from pipelines import folder_kind, storage
from pipelines import label_map as label_maps
from pipelines.preparation import Preparation
from train import postprocessing, runs, test_time
from train.postprocessing import Postprocessing
from train.test_time import Variants

if TYPE_CHECKING:
    from train.segment import Segmenter


@dataclasses.dataclass(frozen=True)
class Member:
    """A loaded run or bundle.

    Attributes:
      path: where it lies.
      label_map: its classes.
      channels: of the images it takes, 1 or 3.
      preparation: what was done to the sources of its dataset.
      postprocessing: what was chosen for its class ids.
      slide: an image to probabilities, uint8 [h, w, C] -> float32 [h, w, K]; of a run, an image
        that is prepared; of a bundle, one as it comes.
      segmenter: a run's; None for a bundle.
      ids: a bundle's signature for class ids alone, uint8 [H, W, C] -> uint8 [H, W].
    """

    path: str
    label_map: label_maps.LabelMap
    channels: int
    preparation: Preparation
    postprocessing: Postprocessing
    slide: Callable[[np.ndarray], np.ndarray]
    segmenter: Segmenter | None = None
    ids: Callable[[np.ndarray], np.ndarray] | None = None

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """An image as it comes, uint8 [H, W, C], to what `slide` takes, uint8 [h, w, C]."""
        if self.segmenter is None:
            return image
        return test_time.prepare(image, self.preparation)

    def refuse_variants(self, variants: Variants) -> None:
        """Sees to it that a bundle can be shown an image's variants.

        Raises:
          FlexsegError: where the bundle stretches every image to one size, so that another scale
            would be undone and a turned image stretched otherwise.
        """
        size = self.preparation.image_size
        if self.segmenter is not None or size is None:
            return
        turned = any(s.transpose for s in variants.symmetries) and size[0] != size[1]
        if turned or variants.scales != (1.0,):
            what = f"--tta={variants.tta}" if turned else "--scales"
            raise FlexsegError(
                f"{self.path}: the bundle stretches every image to {size[0]}x{size[1]} inside its "
                f"graph, which {what} cannot be combined with. Give the run instead."
            )


def load(path: str, window: dict[str, Any]) -> Member:
    """Loads a run directory, a bundle, or a TFLite or ONNX file of one.

    Args:
      path: its folder, or the file.
      window: values of `InferenceConfig` that replace the run's own.

    Raises:
      FlexsegError: where it is neither, or a bundle's sliding window is to be another.
    """
    from export.other_formats import predictor

    if predictor.is_model_file(path):
        return predictor.load(path, window)
    if storage.is_file(storage.join(path, runs.EXPERIMENT)):
        return _of_run(runs.load(path), window)
    if storage.is_file(storage.join(path, bundle.MODEL)):
        if window:
            raise FlexsegError(
                f"--model={path} is a bundle, whose sliding window is part of its graph: "
                f"{', '.join(f'--{name}' for name in window)} cannot be changed. Give the run."
            )
        return _of_bundle(path)
    if not storage.is_folder(path):
        raise FlexsegError(f"--model={path}: there is no such folder.{folder_kind.hint(path)}")
    raise FlexsegError(
        f"--model={path} is neither a run of `flexseg train` nor a bundle of `flexseg export`."
        + folder_kind.hint(path, folder_kind.RUN, folder_kind.BUNDLE)
    )


def _of_run(run: runs.Run, window: dict[str, Any]) -> Member:
    from train.segment import Segmenter

    # Images are prepared outside: OpenCV's colour conversions have no equal in the graph.
    segmenter = Segmenter(
        run.load_model(), run.size, run.preparation, run.experiment.inference, **window
    )
    return Member(
        path=run.folder,
        label_map=run.label_map,
        channels=run.channels,
        preparation=run.preparation,
        postprocessing=postprocessing.of_run(run),
        slide=lambda image: segmenter.prepared_probabilities(image).numpy(),
        segmenter=segmenter,
    )


def _of_bundle(path: str) -> Member:
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
        chosen = postprocessing.load(os.path.join(local, "assets", postprocessing.FILE))
        loaded = tf.saved_model.load(local)

    def slide(image: np.ndarray) -> np.ndarray:
        serve = loaded.signatures["serving_default"]  # they live as long as the module does
        probabilities: np.ndarray = serve(images=tf.constant(image[None]))["probabilities"].numpy()
        return probabilities[0]

    def ids(image: np.ndarray) -> np.ndarray:
        tiled = loaded.signatures["tiled"]
        found: np.ndarray = tiled(image=tf.constant(image))["class_ids"].numpy()
        return found

    chosen.refuse_misfit(label_map, f"{path}/assets/{postprocessing.FILE}")
    return Member(
        path=path,
        label_map=label_map,
        channels=card["channels"],
        preparation=Preparation.from_dict(card["preparation"]),
        postprocessing=chosen,
        slide=slide,
        ids=ids,
    )
