"""Requests that TensorFlow Serving sends to a bundle when it loads it, before anybody asks.

The first answers of a signature are slow: graphs are optimized, memory is taken, kernels chosen.
Serving replays what lies in assets.extra/tf_serving_warmup_requests, a TFRecord file of
PredictionLog messages, and only then calls the model available.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

import numpy as np

from export.bundles.probe_image import probe

FOLDER = "assets.extra"
FILE = "tf_serving_warmup_requests"
LIBRARY = "tensorflow_serving"


def available() -> bool:
    """Whether the library is there that knows the messages (tensorflow-serving-api)."""
    return importlib.util.find_spec(LIBRARY) is not None


def write(folder: str, tile: tuple[int, int], channels: int) -> int:
    """Writes a bundle's warm-up file.

    Args:
      folder: the bundle.
      tile: (height, width) of the network's tile, in pixels.
      channels: of its images.

    Returns:
      How many requests it holds.
    """
    import tensorflow as tf

    messages = importlib.import_module(f"{LIBRARY}.apis.prediction_log_pb2")
    os.makedirs(os.path.join(folder, FOLDER), exist_ok=True)
    sent = requests(tile, channels)
    with tf.io.TFRecordWriter(os.path.join(folder, FOLDER, FILE)) as file:
        for signature, inputs in sent:
            log = messages.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            file.write(log.SerializeToString(deterministic=True))
    return len(sent)


def requests(tile: tuple[int, int], channels: int) -> list[tuple[str, dict[str, Any]]]:
    """(signature, inputs) of one image of a tile, and of one of several, for every signature."""
    import tensorflow as tf

    from export.bundles.verify_bundle import example

    height, width = tile
    small = probe(height, width, channels, noise=0)  # compresses well
    large = probe(height + height // 2, width + width // 2, channels, noise=0)
    files = [tf.io.encode_png(small).numpy(), tf.io.encode_jpeg(large).numpy()]
    pixels: list[tuple[str, dict[str, Any]]] = []
    for image in (small, large):
        pixels += [("serving_default", {"images": image[None]}), ("tiled", {"image": image})]
    strings: list[tuple[str, dict[str, Any]]] = []
    for data in files:
        strings += [
            ("encoded", {"encoded": np.array([data], object)}),
            ("rest", {"image_bytes": np.array([data], object)}),
            ("examples", {"examples": np.array([example(data, b"warm-up")], object)}),
        ]
    return pixels + strings
