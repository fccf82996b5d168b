"""Writes a run as a SavedModel that serves by itself: preprocessing, network and sliding window.

Its signatures take images of any size. It needs TensorFlow alone, and none of this package. After
writing, it is loaded back and held to the network; it appears under its name only if they agree.

Signatures:
  serving_default  images uint8 [B,H,W,C] -> probabilities float32 [B,H,W,K],
                   class_ids uint8 [B,H,W]
  encoded          encoded string [B], image files -> mask_png string [B], class ids as gray PNG
  tiled            image uint8 [H,W,C] -> class_ids uint8 [H,W]

Example:
  flexseg export --run=runs/lung --output=bundles/lung
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from flexseg_errors import FlexsegError, UsageError
from pipelines import label_map as label_maps
from pipelines import storage
from pipelines.preprocessing import Preprocessing
from train import experiment as experiments
from train import runs
from train.runs import Run

if TYPE_CHECKING:
    import tensorflow as tf

    from train.segment import Segmenter

MODEL = "saved_model.pb"
LABEL_MAP = "label_map.yaml"
CARD = "model_card.json"
TOLERANCE = 1e-5  # of probabilities, float32


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("run", None, "Run directory of flexseg train.", flag_values=values)
    flags.DEFINE_string("output", None, "Folder for the SavedModel; new.", flag_values=values)


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    for name in ("run", "output"):
        if not getattr(values, name):
            raise UsageError(f"export needs --{name}. See flexseg export --help.")
    difference = export(runs.load(values.run), values.output)
    print(
        f"{values.output}: written, loaded back, and equal to the network "
        f"(largest difference of a probability: {difference:.1e})."
    )


def export(trained: Run, output: str) -> float:
    """Writes a bundle.

    Args:
      trained: a run with weights.
      output: a folder that is not there yet, or is empty.

    Returns:
      The largest difference between a probability of the bundle and one of the network.

    Raises:
      FlexsegError: where the folder holds something, or the bundle differs from the network.
    """
    import tensorflow as tf

    _refuse_taken(output)
    color = Preprocessing.from_text(trained.preparation.preprocessing).color
    if color:
        raise FlexsegError(
            f"The run {trained.folder} was prepared with the color conversion {color}, which "
            "TensorFlow has no equal of; a bundle cannot hold it. Prepare without it to export."
        )
    if storage.is_remote(output):
        with tempfile.TemporaryDirectory(prefix="flexseg-bundle-") as folder:
            local = os.path.join(folder, "bundle")
            difference = export(trained, local)
            written = sorted(storage.walk(local), key=lambda f: f.name == MODEL)
            for part in written:  # last what makes it a bundle
                storage.upload(part.path, storage.join(output, part.name))
        return difference
    segmenter = trained.segmenter()
    unfinished = output.rstrip("/") + ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # ours, of an export that was interrupted
    assets = unfinished + ".assets"
    os.makedirs(assets, exist_ok=True)
    texts = {
        LABEL_MAP: label_maps.dump(trained.label_map),
        CARD: json.dumps(model_card(trained), indent=1) + "\n",
    }
    for name, text in texts.items():
        with open(os.path.join(assets, name), "w", encoding="utf-8") as file:
            file.write(text)
    module = _bundle(segmenter, [os.path.join(assets, name) for name in texts])
    tf.saved_model.save(module, unfinished, signatures=module.endpoints)
    shutil.rmtree(assets)
    difference = compare(unfinished, segmenter)
    if not difference <= TOLERANCE:
        shutil.rmtree(unfinished)
        raise FlexsegError(
            f"The bundle of {trained.folder} differs from the network by {difference:.1e} "
            f"(at most {TOLERANCE:.0e} is allowed); it was not kept."
        )
    if os.path.isdir(output):
        os.rmdir(output)
    os.replace(unfinished, output)
    return difference


def _refuse_taken(output: str) -> None:
    """Refuses a folder that holds anything but what an upload that broke off has left."""
    inside = set(storage.names(output))
    begun = storage.is_remote(output) and inside <= {"assets", "fingerprint.pb", "variables"}
    if storage.is_file(output) or (inside and not begun):
        raise FlexsegError(
            f"--output={output} holds something already; nothing was touched. Give a new folder."
        )


def model_card(trained: Run) -> dict[str, Any]:
    """What a stranger needs to know of the model, as plain data."""
    import keras
    import tensorflow as tf

    metrics = {}
    for name in storage.names(trained.path("evaluation")):
        if not name.endswith(".json"):
            continue
        evaluation = json.loads(storage.read_bytes(trained.path("evaluation", name)))
        kept = ("images", "size", "dataset_fingerprint", "foreground", "classes")
        metrics[evaluation["split"]] = {key: evaluation[key] for key in kept}
    return {
        "classes": [c.name for c in trained.label_map.classes],
        "channels": trained.channels,
        "tile": list(trained.size),
        "preparation": dataclasses.asdict(trained.preparation),
        "dataset_fingerprint": trained.dataset_fingerprint,
        "experiment": experiments.to_dict(trained.experiment),
        "metrics": metrics,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }


def compare(folder: str, segmenter: Segmenter) -> float:
    """The largest difference between a bundle's probabilities and the segmenter's.

    Two images are tried, of one tile and of several; the class ids of all signatures must agree
    with the probabilities they come from.
    """
    import tensorflow as tf

    loaded = tf.saved_model.load(folder)
    height, width = segmenter.tile
    worst = 0.0
    for h, w in ((height, width), (height + height // 2 + 1, width + 3)):
        image = _test_image(h, w, segmenter.channels)
        expected = segmenter.probabilities(image).numpy()
        served = loaded.signatures["serving_default"](images=tf.constant(image[None]))
        found = served["probabilities"][0].numpy()
        if found.shape != expected.shape:
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max()))
        ids = found.argmax(-1)
        tiled = loaded.signatures["tiled"](image=tf.constant(image))["class_ids"].numpy()
        png = tf.io.encode_png(image)
        mask = loaded.signatures["encoded"](encoded=png[None])["mask_png"][0]
        decoded = tf.io.decode_png(mask).numpy()[..., 0]
        # Ids may differ where two classes are as probable as each other, to rounding.
        top = np.sort(found, -1)
        sure = top[..., -1] - top[..., -2] > TOLERANCE
        for other in (served["class_ids"][0].numpy(), tiled, decoded):
            if other.shape != ids.shape or (other != ids)[sure].any():
                return float("inf")
    return worst


def _bundle(segmenter: Segmenter, assets: Sequence[str]) -> Any:
    import tensorflow as tf

    class Bundle(tf.Module):
        """The signatures, and what they need."""

        def __init__(self) -> None:
            super().__init__()
            self.model = segmenter.model
            self.assets = [tf.saved_model.Asset(path) for path in assets]
            images = tf.TensorSpec([None, None, None, segmenter.channels], tf.uint8, "images")
            image = tf.TensorSpec([None, None, segmenter.channels], tf.uint8, "image")
            encoded = tf.TensorSpec([None], tf.string, "encoded")
            self.endpoints = {
                "serving_default": self.serve.get_concrete_function(images),
                "encoded": self.decode_and_segment.get_concrete_function(encoded),
                "tiled": self.tiled.get_concrete_function(image),
            }

        @tf.function
        def serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
            """Images of one size to probabilities and class ids."""
            classes = segmenter.num_classes
            probabilities = tf.map_fn(
                segmenter.probabilities,
                images,
                fn_output_signature=tf.TensorSpec([None, None, classes], tf.float32),
            )
            return {"probabilities": probabilities, "class_ids": _ids(probabilities)}

        @tf.function
        def decode_and_segment(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
            """Image files, each of its own size, to PNGs of class ids."""

            def one(data: tf.Tensor) -> tf.Tensor:
                image = tf.io.decode_image(
                    data, channels=segmenter.channels, expand_animations=False
                )
                ids = _ids(segmenter.probabilities(image))
                return tf.io.encode_png(ids[..., None])

            return {"mask_png": tf.map_fn(one, encoded, fn_output_signature=tf.string)}

        @tf.function
        def tiled(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
            """One image to class ids."""
            return {"class_ids": _ids(segmenter.probabilities(image))}

    return Bundle()


def _ids(probabilities: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.cast(tf.argmax(probabilities, -1), tf.uint8)


def _test_image(height: int, width: int, channels: int) -> np.ndarray:
    """Smooth shapes with noise on them: neither flat nor noise alone, and always the same."""
    rng = np.random.default_rng(0)
    y, x, c = np.mgrid[:height, :width, :channels]
    waves = 128 + 80 * np.sin(x / 9 + c) * np.cos(y / 7)
    return np.clip(waves + rng.normal(0, 20, waves.shape), 0, 255).astype(np.uint8)
