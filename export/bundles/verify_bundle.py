"""A bundle held to the network that it was made of, signature by signature, before it is kept."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from export.bundles.probe_image import probe
from pipelines import intensity as intensities
from pipelines import records
from train.segment import Segmenter

TOLERANCE = 1e-5  # of probabilities, float32


@dataclasses.dataclass(frozen=True)
class Check:
    """How one signature compares with the network.

    Attributes:
      signature: its name.
      images: that were tried.
      difference: the largest of a probability; None where the signature gives class ids alone.
      wrong_pixels: whose class id is not the most probable one, though that is beyond doubt.
      seconds: what the signature's answers took, the first of which compiles it.
    """

    signature: str
    images: int
    difference: float | None
    wrong_pixels: int
    seconds: float

    @property
    def passed(self) -> bool:
        return self.wrong_pixels == 0 and not (self.difference or 0.0) > TOLERANCE

    def __str__(self) -> str:
        found = (
            [] if self.difference is None else [f"probabilities differ by {self.difference:.1e}"]
        )
        found.append(f"{self.wrong_pixels} pixels differ")
        return f"{self.signature}: {', '.join(found)}"


@dataclasses.dataclass(frozen=True)
class _Answer:
    """What a signature said of each image: class ids, and probabilities where it has them."""

    class_ids: Sequence[np.ndarray]
    probabilities: Sequence[np.ndarray] | None = None


def check(signatures: Mapping[str, Callable[..., Any]], segmenter: Segmenter) -> list[Check]:
    """Calls every signature with three images, of one tile and two of several, and compares.

    Where a signature takes a batch, it gets images of one size together as well as of two sizes.

    Args:
      signatures: those of a bundle that was loaded back.
      segmenter: of the run.

    Returns:
      A check of each signature; where probabilities are wrong in shape or no numbers, their
      difference is infinite.
    """
    height, width = segmenter.tile
    sizes = [(height, width), (height + height // 2 + 1, width + 3)]
    images = [probe(h, w, segmenter.channels) for h, w in sizes]
    images.append(np.ascontiguousarray(images[-1][::-1]))
    expected = [segmenter.probabilities(image).numpy() for image in images]
    # What an image file of 8 bits becomes before the network sees it.
    intensity = intensities.parse(segmenter.preparation.intensity)
    of_files = [segmenter.probabilities(intensity.apply(i)).numpy() for i in images]
    checks = []
    for name, ask in _ASK.items():
        begin = time.perf_counter()
        answer = ask(signatures[name], images)
        seconds = time.perf_counter() - begin
        truth = of_files if name in _TAKE_FILES else expected
        checks.append(_compare(name, answer, truth, seconds))
    return checks


def _compare(name: str, answer: _Answer, expected: Sequence[np.ndarray], seconds: float) -> Check:
    difference, wrong = None, 0
    if answer.probabilities is not None:
        difference = max(map(_difference, answer.probabilities, expected))
    for found, wanted in zip(answer.class_ids, expected, strict=True):
        if found.shape != wanted.shape[:2]:
            wrong += math.prod(wanted.shape[:2])
            continue
        # Ids may differ where two classes are as probable as each other, to rounding.
        top = np.sort(wanted, -1)
        sure = top[..., -1] - top[..., -2] > 2 * TOLERANCE
        wrong += int(np.count_nonzero((found != wanted.argmax(-1)) & sure))
    return Check(name, len(expected), difference, wrong, seconds)


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return math.inf
    difference = float(np.abs(found - expected).max())
    return math.inf if math.isnan(difference) else difference


def _ask_default(signature: Callable[..., Any], images: Sequence[np.ndarray]) -> _Answer:
    found = [signature(images=tf.constant(np.stack(batch))) for batch in (images[:1], images[1:])]
    ids, probabilities = (
        [image for answer in found for image in answer[key].numpy()]
        for key in ("class_ids", "probabilities")
    )
    return _Answer(ids, probabilities)


def _ask_tiled(signature: Callable[..., Any], images: Sequence[np.ndarray]) -> _Answer:
    return _Answer([signature(image=tf.constant(i))["class_ids"].numpy() for i in images])


def _ask_encoded(signature: Callable[..., Any], images: Sequence[np.ndarray]) -> _Answer:
    return _of_files(lambda files: signature(encoded=files)["mask_png"], _pngs(images))


def _ask_rest(signature: Callable[..., Any], images: Sequence[np.ndarray]) -> _Answer:
    return _of_files(lambda files: signature(image_bytes=files)["mask_png_bytes"], _pngs(images))


def _ask_examples(signature: Callable[..., Any], images: Sequence[np.ndarray]) -> _Answer:
    sent = [example(png, b"image %d" % i) for i, png in enumerate(_pngs(images))]
    told: list[bytes] = []

    def ask(examples: tf.Tensor) -> tf.Tensor:
        found = signature(examples=examples)
        told.extend(found["source_id"].numpy().tolist())
        return found["mask_png"]

    answer = _of_files(ask, sent)
    if told != [b"image %d" % i for i in (0, 1, *range(1, len(images)))]:
        return _Answer([np.zeros(0)] * len(images))
    return answer


def _of_files(ask: Callable[[tf.Tensor], tf.Tensor], files: Sequence[bytes]) -> _Answer:
    """Two files of two sizes, and again the second with all others, which are of its size."""
    one, _ = _masks(ask(tf.stack(files[:2])))
    return _Answer([one, *_masks(ask(tf.stack(files[1:])))])


_ASK = {
    "serving_default": _ask_default,
    "encoded": _ask_encoded,
    "rest": _ask_rest,
    "tiled": _ask_tiled,
    "examples": _ask_examples,
}
_TAKE_FILES = ("encoded", "rest", "examples")


def example(encoded: bytes, source_id: bytes) -> bytes:
    """A serialized tf.Example of an image file, as somebody else would make one."""

    def one(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {records.ENCODED: one(encoded), records.SOURCE_ID: one(source_id)}
    message = tf.train.Example(features=tf.train.Features(feature=features))
    return message.SerializeToString(deterministic=True)


def _pngs(images: Sequence[np.ndarray]) -> list[bytes]:
    return [tf.io.encode_png(image).numpy() for image in images]


def _masks(pngs: tf.Tensor) -> list[np.ndarray]:
    """What a client sees in PNG files of class ids, by a decoder that is not TensorFlow's."""
    flat = [np.frombuffer(png, np.uint8) for png in pngs.numpy()]
    return [cv2.imdecode(data, cv2.IMREAD_UNCHANGED) for data in flat]
