"""The signatures of a bundle: what it takes, what it answers, and nothing but TensorFlow inside.

Each image of a batch is prepared, segmented by the sliding window and brought back to its size. A
batch of files, of records or of equal images is worked through image by image: what a caller gains
by a batch is fewer calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from export.bundles import graph_decoding, graph_intensity
from pipelines import intensity as intensities
from pipelines import records
from pipelines.intensity import Intensity
from train.segment import Segmenter

_STRINGS = tf.TensorSpec([None], tf.string)
# Two images at a time: one is decoded, or its mask encoded, while the other is in the network; more
# would hold the probabilities of more.
_AT_A_TIME = 2


class Bundle(tf.Module):
    """A network with its signatures, ready for `tf.saved_model.save`.

    Attributes:
      model: the network, whose weights are saved.
      endpoints: concrete functions by signature:
        serving_default: images uint8 [B, H, W, C] -> probabilities float32 [B, H, W, K] and
          class_ids uint8 [B, H, W].
        encoded: encoded string [B], image files -> mask_png string [B].
        rest: the same with names for JSON, image_bytes -> mask_png_bytes: TensorFlow Serving's REST
          interface writes strings as base64 only where an output's name ends like that.
        tiled: image uint8 [H, W, C] -> class_ids uint8 [H, W].
        examples: examples string [B], serialized tf.Example -> mask_png and source_id, string [B].
    """

    def __init__(self, segmenter: Segmenter):
        """Traces the signatures."""
        super().__init__()
        preparation = segmenter.preparation
        self.model = segmenter.model
        self._segmenter = segmenter
        self._intensity = intensities.parse(preparation.intensity)
        self._prepares = preparation.resizes or bool(preparation.preprocessing)
        self._masks_of_files = tf.function(self._files, input_signature=[_STRINGS])  # for two
        channels = segmenter.channels
        images = tf.TensorSpec([None, None, None, channels], tf.uint8)
        image = tf.TensorSpec([None, None, channels], tf.uint8)
        self.endpoints = {
            "serving_default": _signature(self._serve, images=images),
            "encoded": _signature(self._encoded, encoded=_STRINGS),
            "rest": _signature(self._rest, image_bytes=_STRINGS),
            "tiled": _signature(self._tiled, image=image),
            "examples": _signature(self._examples, examples=_STRINGS),
        }

    def _serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Images of one size to probabilities and class ids."""
        spec = tf.TensorSpec([None, None, self._segmenter.num_classes], tf.float32)
        probabilities = _each(self._segmenter.probabilities, images, spec)
        return {"probabilities": probabilities, "class_ids": class_ids(probabilities)}

    def _tiled(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """One image to class ids."""
        return {"class_ids": class_ids(self._segmenter.probabilities(image))}

    def _encoded(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"mask_png": self._masks_of_files(encoded)}

    def _rest(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"mask_png_bytes": self._masks_of_files(image_bytes)}

    def _files(self, files: tf.Tensor) -> tf.Tensor:
        """Image files, each of its own size, to PNG files of class ids."""
        return _each(self._mask_of_file, files, tf.TensorSpec([], tf.string))

    def _examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Records, each of its own size, to PNG files of class ids.

        Those that `flexseg prepare` wrote, which tell where in the prepared source they lie, were
        prepared already; all others are prepared here.
        """
        features = {
            records.ENCODED: tf.io.FixedLenFeature([], tf.string),
            records.FORMAT: tf.io.FixedLenFeature([], tf.string, ""),
            records.HEIGHT: tf.io.FixedLenFeature([], tf.int64, 0),
            records.WIDTH: tf.io.FixedLenFeature([], tf.int64, 0),
            records.SOURCE_ID: tf.io.FixedLenFeature([], tf.string, ""),
            records.TILE_ORIGIN: tf.io.RaggedFeature(tf.int64),
        }
        parsed = tf.io.parse_example(examples, features)
        parsed["prepared"] = parsed.pop(records.TILE_ORIGIN).row_lengths() > 0
        source_ids = parsed.pop(records.SOURCE_ID)
        masks = _each(self._mask_of_record, parsed, tf.TensorSpec([], tf.string))
        return {"mask_png": masks, "source_id": source_ids}

    def _mask_of_file(self, data: tf.Tensor) -> tf.Tensor:
        image = graph_decoding.decode(data, self._segmenter.channels, self._intensity)
        return _png(self._segmenter.probabilities(image))

    def _mask_of_record(self, record: Mapping[str, tf.Tensor]) -> tf.Tensor:
        prepared, segmenter = record["prepared"], self._segmenter
        if self._intensity.kind == "none":
            image = self._pixels(record, self._intensity)
        else:
            image = tf.cond(
                prepared,
                lambda: self._pixels(record, Intensity()),
                lambda: self._pixels(record, self._intensity),
            )
        if not self._prepares:
            return _png(segmenter.probabilities(image))
        return _png(
            tf.cond(
                prepared,
                lambda: segmenter.prepared_probabilities(image),
                lambda: segmenter.probabilities(image),
            )
        )

    def _pixels(self, record: Mapping[str, tf.Tensor], intensity: Intensity) -> tf.Tensor:
        """The image of a record, uint8 [H, W, C]."""
        channels, data = self._segmenter.channels, record[records.ENCODED]

        def raw() -> tf.Tensor:
            size = [record[records.HEIGHT], record[records.WIDTH], channels]
            flat = tf.io.decode_raw(data, tf.uint8)
            checked = tf.debugging.Assert(
                tf.size(flat, tf.int64) == tf.reduce_prod(tf.stack(size)),
                [
                    f'An example of the format "raw" must hold {records.HEIGHT} x {records.WIDTH} '
                    f"x {channels} bytes; it has, and says:",
                    tf.size(flat),
                    *size,
                ],
            )
            with tf.control_dependencies([checked]):
                pixels = tf.reshape(flat, size)
            if intensity.kind != "none":
                pixels = graph_intensity.to_uint8(pixels, intensity)
            return tf.ensure_shape(pixels, [None, None, channels])

        return tf.cond(
            record[records.FORMAT] == "raw",
            raw,
            lambda: graph_decoding.decode(data, channels, intensity),
        )


def class_ids(probabilities: tf.Tensor) -> tf.Tensor:
    """Probabilities [..., K] to the most probable class, uint8 [...]; of equals the first."""
    return tf.cast(tf.argmax(probabilities, -1), tf.uint8)


def described(endpoints: Mapping[str, Any]) -> dict[str, Any]:
    """What the signatures take and give, as plain data.

    Args:
      endpoints: concrete functions by signature, of a `Bundle` or of what was loaded.

    Returns:
      name -> {"inputs": {name: {"dtype", "shape"}}, "outputs": ...}; None in a shape is free.
    """

    def plain(spec: Any) -> dict[str, Any]:
        return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}

    return {
        name: {
            "inputs": {
                spec.name: plain(spec)
                for spec in tf.nest.flatten(function.structured_input_signature)
            },
            "outputs": {
                key: plain(spec) for key, spec in sorted(function.structured_outputs.items())
            },
        }
        for name, function in endpoints.items()
    }


def _signature(function: Callable[..., Any], **specs: tf.TensorSpec) -> Any:
    named = [tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in specs.items()]
    return tf.function(function).get_concrete_function(*named)


def _each(function: Callable[[Any], tf.Tensor], values: Any, spec: tf.TensorSpec) -> tf.Tensor:
    return tf.map_fn(function, values, fn_output_signature=spec, parallel_iterations=_AT_A_TIME)


def _png(probabilities: tf.Tensor) -> tf.Tensor:
    """Class ids as a gray PNG, string scalar."""
    return tf.io.encode_png(class_ids(probabilities)[..., None])
