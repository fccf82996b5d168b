"""The signatures of a bundle: what it takes, what it answers, and nothing but TensorFlow inside.

Each image of a batch is prepared, segmented by the sliding window and brought back to its size. The
tiles of images of one size share the network's batches; files or records of several sizes, or of
many pixels, are worked through image by image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from export.bundles import graph_decoding, graph_intensity
from pipelines import intensity as intensities
from pipelines import records
from pipelines.intensity import Intensity
from train.segment import Segmenter, class_ids

_STRING, _STRINGS = tf.TensorSpec([], tf.string), tf.TensorSpec([None], tf.string)
# Two files at a time: one is decoded while the other is too; the mask of one is encoded while the
# other is in the network; more would hold the probabilities of more.
_AT_A_TIME = 2
# All images of a batch of files together; beyond, each fills the network's batches by itself.
_TOGETHER_PIXELS = 1 << 24


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
        probabilities = self._segmenter.batch_probabilities(images)
        return {"probabilities": probabilities, "class_ids": class_ids(probabilities)}

    def _tiled(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """One image to class ids."""
        return {"class_ids": self._segmenter.batch_class_ids(image[None])[0]}

    def _encoded(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"mask_png": self._masks_of_files(encoded)}

    def _rest(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"mask_png_bytes": self._masks_of_files(image_bytes)}

    def _files(self, files: tf.Tensor) -> tf.Tensor:
        """Image files, each of its own size, to PNG files of class ids."""
        channels = self._segmenter.channels

        def decode(data: tf.Tensor) -> tf.Tensor:
            return graph_decoding.decode(data, channels, self._intensity)

        return self._masks(decode, files)

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
        prepared = parsed["prepared"] if self._prepares else None
        masks = self._masks(self._image_of_record, parsed, prepared)
        return {"mask_png": masks, "source_id": source_ids}

    def _image_of_record(self, record: Mapping[str, tf.Tensor]) -> tf.Tensor:
        if self._intensity.kind == "none":
            return self._pixels(record, self._intensity)
        return tf.cond(
            record["prepared"],
            lambda: self._pixels(record, Intensity()),
            lambda: self._pixels(record, self._intensity),
        )

    def _masks(
        self,
        decode: Callable[[Any], tf.Tensor],
        values: Any,
        prepared: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Images in whatever form to PNG files of class ids, string [B].

        Args:
          decode: from one of `values` to an image, uint8 [H, W, C].
          values: tensors [B, ...].
          prepared: which images were prepared already, bool [B]; None for none.
        """
        channels = self._segmenter.channels

        count = tf.shape(tf.nest.flatten(values)[0])[0]

        def read(index: tf.Tensor, pixels: Any, sizes: Any) -> Any:
            image = decode(tf.nest.map_structure(lambda value: value[index], values))
            flat = pixels.write(index, tf.reshape(image, [-1]))
            return index + 1, flat, sizes.write(index, tf.shape(image))

        _, flat, found = tf.while_loop(
            lambda index, *_: index < count,
            read,
            (
                0,
                tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=[None]),
                tf.TensorArray(tf.int32, count, element_shape=[3]),
            ),
            parallel_iterations=_AT_A_TIME,
        )
        pixels, sizes = flat.concat(), found.stack()
        ends = tf.cumsum(tf.reduce_prod(tf.cast(sizes, tf.int64), -1))
        starts = tf.concat([[0], ends], 0)
        done = tf.zeros([count], tf.bool) if prepared is None else prepared

        def segmented(images: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
            if prepared is None:
                return self._segmenter.batch_class_ids(images)
            return tf.cond(
                which,
                lambda: self._segmenter.prepared_class_ids(images),
                lambda: self._segmenter.batch_class_ids(images),
            )

        alike = tf.reduce_all(sizes == sizes[:1]) & tf.reduce_all(done == done[:1])
        few = tf.size(pixels, tf.int64) // channels <= _TOGETHER_PIXELS
        # Where groups of images begin, and the last ends: one of all, or one of each. One loop over
        # groups, for a second copy of the network would double the graph.
        edges = tf.cond(
            alike & few & (count > 0), lambda: tf.stack([0, count]), lambda: tf.range(count + 1)
        )

        def add_group(group: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            first, last = edges[group], edges[group + 1]
            part = pixels[starts[first] : starts[last]]
            images = tf.reshape(part, tf.concat([[last - first], sizes[first]], 0))
            images = tf.ensure_shape(images, [None, None, None, channels])
            ids = segmented(images, done[first])
            made = tf.map_fn(_png, ids, fn_output_signature=_STRING, parallel_iterations=_AT_A_TIME)
            return group + 1, tf.concat([masks, made], 0)

        _, masks = tf.while_loop(
            lambda group, _: group < tf.size(edges) - 1,
            add_group,
            (0, tf.zeros([0], tf.string)),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])),
            parallel_iterations=_AT_A_TIME,
        )
        return masks

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


def _png(ids: tf.Tensor) -> tf.Tensor:
    """Class ids [H, W] as a gray PNG, string scalar."""
    return tf.io.encode_png(ids[..., None])
