"""A model applied, tile by tile, to an image larger than its input.

Unlike the networks of this folder, this is TensorFlow and not `keras.ops`: it must run inside a
tf.function, and in an exported SavedModel, on images whose size is known only when they arrive.

Tiles are spread evenly over each axis, the last flush with the edge. Where they overlap, their
predictions p_t are blended by P = sum_t w_t p_t / sum_t w_t. The weight of a pixel is the product
of a weight for its row and one for its column, and the tiles form a grid; so the sum of weights is
such a product too, and dividing the two profiles of each tile beforehand is enough: w_t then sums
to 1 over the tiles at every pixel, and no map of weights is ever held. Cutting tiles off at the
middle of what neighbours share, without any blending, is one more such profile, of 0 and 1.

The tiles of one row are added into a band of the tile's height and the image's width. Rows of the
band that the next row of tiles does not reach are finished: they are put out, and the band moves
on. Memory is that of one band, one batch of tiles, the image and the output; `window_rows` does the
same outside the graph, where image and output need not be held either.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from flexseg_errors import FlexsegError, nearest


def overlap_pixels(tile: int, overlap: float) -> int:
    """The overlap in pixels, less than the tile.

    Args:
      tile: a tile's side, in pixels.
      overlap: below 1 a share of the tile, of which the nearest whole number of pixels is taken;
        from 1 on pixels.

    Raises:
      FlexsegError: it is negative, no whole number of pixels, or not less than the tile.
    """
    if not (0 <= overlap < 1 or (overlap >= 1 and overlap == int(overlap))):
        raise FlexsegError(
            "overlap must be a share of the tile, at least 0 and less than 1, or a whole number of "
            f"pixels from 1 on, not {overlap}."
        )
    if overlap < 1:
        return min(tile - 1, round(overlap * tile))
    if overlap >= tile:
        raise FlexsegError(
            f"overlap is {int(overlap)} pixels, but a tile has {tile}; give fewer, or a share "
            "below 1."
        )
    return int(overlap)


def tile_origins(length: Any, tile: int, overlap: int) -> tf.Tensor:
    """First pixels of the tiles along one axis: evenly spaced, the last flush with the edge.

    n = ceil((length - tile) / (tile - overlap)) + 1 tiles, the fewest whose neighbours share at
    least `overlap` pixels; origin_i = floor((i (length - tile) + (n - 1) // 2) / (n - 1)). An axis
    shorter than a tile has the one origin 0.

    Args:
      length: the axis, in pixels; an int or an integer tensor [].
      tile: a tile's side, in pixels.
      overlap: what neighbours share at least, in pixels; 0 <= overlap < tile.

    Returns:
      [n] int64: i (length - tile) leaves 32 bits on long axes.
    """
    spare = tf.maximum(tf.cast(length, tf.int64) - tile, 0)
    stride = tile - overlap
    gaps = (spare + stride - 1) // stride
    index = tf.range(gaps + 1, dtype=tf.int64)
    return (index * spare + gaps // 2) // tf.maximum(gaps, 1)


def reflected_indices(length: Any, target: int) -> tf.Tensor:
    """Which pixels to read to pad an axis to `target` by reflection, half on either side.

    The edge itself is not repeated. The reflection goes on for as long as it takes, so it works for
    any length down to 1 (as `numpy.pad` with mode "reflect" does, and `tf.pad` does not).

    Args:
      length: the axis, in pixels; an int or an integer tensor [], at least 1.
      target: the padded axis, in pixels; no padding where it is not above `length`.

    Returns:
      [max(length, target)] int64, values in 0 .. length - 1.
    """
    length = tf.cast(length, tf.int64)
    position = tf.range(tf.maximum(length, target)) - _padding_before(length, target)
    period = tf.maximum(2 * (length - 1), 1)
    within = position % period
    return tf.minimum(within, period - within)


def _padding_before(length: tf.Tensor, target: int) -> tf.Tensor:
    return tf.maximum(target - length, 0) // 2


def gaussian_weights(tile: int) -> np.ndarray:
    """The weights of a tile's pixels along one axis, most in the middle, where context is fullest.

    w(x) = exp(-(x - c)^2 / (2 sigma^2)) with c = (tile - 1) / 2 and sigma = tile / 8, as in nnU-Net
    (Isensee et al. 2021). At the edges it is about 3e-4, so it never divides by nothing.

    Args:
      tile: the side, in pixels.

    Returns:
      [tile] float32.
    """
    offset = np.arange(tile) - (tile - 1) / 2
    return np.exp(-(offset**2) / (2 * (tile / 8) ** 2)).astype(np.float32)


def uniform_weights(tile: int) -> np.ndarray:
    """Weights that make the blend a plain mean.

    Args:
      tile: the side, in pixels.

    Returns:
      [tile] float32, all 1.
    """
    return np.ones(tile, np.float32)


WEIGHTS: dict[str, Callable[[int], np.ndarray]] = {
    "gaussian": gaussian_weights,
    "uniform": uniform_weights,
}
MARGIN = "margin"
MODES = (*WEIGHTS, MARGIN)


class Axis(NamedTuple):
    """One axis of an image as its tiles see it.

    Attributes:
      length: of the image, in pixels, [] int64.
      before: how much padding precedes the image, in pixels, [] int64; 0 where it fills a tile.
      origins: first pixel of each tile on the padded axis, [n] int64.
      shares: each tile's part in the blend at each of its pixels, [n, tile] float32; at every pixel
        of the axis the parts of all tiles sum to 1.
    """

    length: tf.Tensor
    before: tf.Tensor
    origins: tf.Tensor
    shares: tf.Tensor

    @classmethod
    def of(cls, length: Any, tile: int, overlap: float, weights: str) -> Axis:
        """An axis of an image.

        Args:
          length: of the image, in pixels; an int or an integer tensor [].
          tile: a tile's side, in pixels.
          overlap: what neighbours share at least, as `overlap_pixels` reads it.
          weights: one of `MODES`.
        """
        length = tf.cast(length, tf.int64)
        origins = tile_origins(length, tile, overlap_pixels(tile, overlap))
        pixels = origins[:, None] + tf.range(tile, dtype=tf.int64)
        end = tf.maximum(length, tile)
        if weights == MARGIN:
            cuts = (origins[:-1] + origins[1:] + tile) // 2  # the middles of what neighbours share
            first = tf.concat([[0], cuts], 0)[:, None]
            last = tf.concat([cuts, end[None]], 0)[:, None]
            shares = tf.cast((pixels >= first) & (pixels < last), tf.float32)
        else:
            profile = WEIGHTS[weights](tile)
            spread = tf.broadcast_to(tf.constant(profile), tf.shape(pixels))
            total = tf.scatter_nd(pixels[..., None], spread, [end])
            shares = profile / tf.gather(total, pixels)
        return cls(length, _padding_before(length, tile), origins, shares)


@dataclasses.dataclass(frozen=True)
class SlidingWindow:
    """Calls a predictor on the overlapping tiles of an image and blends what it says.

    Works eagerly and inside a tf.function with unknown height and width. What `predict` returns is
    averaged, so it should be probabilities or logits, not class ids.

    Attributes:
      predict: from tiles [N, tile height, tile width, C], of the image's dtype, to values
        [N, tile height, tile width, K] of any real dtype. Written in TensorFlow ops.
      tile: (height, width) of a tile in pixels.
      overlap: what neighbouring tiles share at least: a share of the tile below 1, or pixels from
        1 on.
      weights: "gaussian" (see `gaussian_weights`), "uniform", or "margin": of what two tiles share,
        half is cut off from each, so that it serves as context alone; at the image's edges nothing
        is cut off, and nothing is blended.
      batch_size: N, tiles per call of `predict`, at most: each row of tiles, of all images, is cut
        into batches.
      finish: what to make of finished rows, from [h, W, K] float32 to [h, W, ...], pixel by pixel;
        with it (an argmax, say) the values of the whole image need not be held. None to keep them.

    Raises:
      FlexsegError: a value is out of its range or a name unknown.
    """

    predict: Callable[[tf.Tensor], tf.Tensor]
    tile: tuple[int, int]
    overlap: float = 0.25
    weights: str = "gaussian"
    batch_size: int = 1
    finish: Callable[[tf.Tensor], tf.Tensor] | None = None

    def __post_init__(self) -> None:
        if len(self.tile) != 2 or min(self.tile) < 1:
            raise FlexsegError(f"tile must be (height, width) in pixels, not {self.tile}.")
        for side in self.tile:
            overlap_pixels(side, self.overlap)
        if self.weights not in MODES:
            raise FlexsegError(
                f'weights "{self.weights}" are unknown; known are {", ".join(MODES)}.'
                f"{nearest(self.weights, MODES)}"
            )
        if self.batch_size < 1:
            raise FlexsegError(f"batch_size must be at least 1, not {self.batch_size}.")

    def __call__(self, image: Any) -> tf.Tensor:
        """Predicts one image, or several of one size, whose tiles then share batches.

        Args:
          image: [H, W, C] or [B, H, W, C], any size from 1 x 1 on, any dtype that `predict` takes.
            What is smaller than a tile is padded by reflection, and the padding cut off again.

        Returns:
          [H, W, K] float32, or what `finish` makes of it, [H, W, ...]; of several [B, H, W, ...].

        Raises:
          FlexsegError: the image has other axes, or `predict` does not keep its tiles' size.
        """
        image = tf.convert_to_tensor(image)
        if image.shape.rank not in (3, 4):
            raise FlexsegError(
                f"Images must be [H, W, C] or [B, H, W, C], not of shape {image.shape}."
            )
        by_rows = self._rows_first(image if image.shape.rank == 4 else image[None])
        if image.shape.rank == 3:
            one = tf.squeeze(by_rows, 1)  # a slice would be a copy
            return tf.ensure_shape(one, image.shape[:2] + by_rows.shape[3:])
        axes = [1, 0, *range(2, by_rows.shape.rank)]
        return tf.ensure_shape(tf.transpose(by_rows, axes), image.shape[:3] + by_rows.shape[3:])

    def _rows_first(self, images: tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C] to their values, [H, B, W, ...]."""
        predict = self._traced_predict(images.shape[3], images.dtype)
        classes = predict.structured_outputs.shape[-1]
        finish = self._finish.get_concrete_function(tf.TensorSpec([None, None, classes]))
        finished: tf.TensorSpec = finish.structured_outputs

        rows, columns = self.axes(*tf.unstack(tf.shape(images, tf.int64)[1:3]))
        padded = self._pad(images, rows, columns)
        count, _, width = tf.unstack(tf.shape(padded)[:3])
        # How far the images are finished once each row of tiles is added. Padding, which only an
        # image lower than a tile has, is in the band but not in the image.
        ends = tf.concat([rows.origins[1:], [rows.before + rows.length]], axis=0)
        row_count = tf.size(rows.origins)

        def add_row(row: tf.Tensor, band: tf.Tensor, output: tf.TensorArray) -> Any:
            top = rows.origins[row]
            strip = padded[:, top : top + self.tile[0]]
            band = self._add_tiles(band, strip, rows.shares[row], columns, predict)
            done = ends[row] - top
            apart = tf.reshape(band, [count, width, self.tile[0], classes])
            ready = apart[:, columns.before : columns.before + columns.length, rows.before : done]
            lines = tf.transpose(ready, [2, 0, 1, 3])  # rows, images, columns
            across = [tf.shape(lines)[0], count * tf.shape(lines)[2], classes]
            output = output.write(row, finish(tf.reshape(lines, across)))
            return row + 1, tf.pad(band[:, done:], [[0, 0], [0, done], [0, 0]]), output

        band = tf.zeros([count * width, self.tile[0], classes])
        output = tf.TensorArray(
            finished.dtype, row_count, infer_shape=False, element_shape=finished.shape
        )
        *_, output = tf.while_loop(
            lambda row, *_: row < row_count,
            add_row,
            (0, band, output),
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape([None, None, classes]),
                tf.TensorShape(None),
            ),
            parallel_iterations=1,  # more would hold the predictions of several rows
        )
        values = output.concat()
        shape = [tf.cast(n, tf.int32) for n in (rows.length, count, columns.length)]
        return tf.reshape(values, [*shape, *finished.shape[2:]])

    def axes(self, height: Any, width: Any) -> tuple[Axis, Axis]:
        """Where the tiles lie on an image of that size (ints, or integer tensors []), and weigh."""
        return (
            Axis.of(height, self.tile[0], self.overlap, self.weights),
            Axis.of(width, self.tile[1], self.overlap, self.weights),
        )

    def _pad(self, images: tf.Tensor, rows: Axis, columns: Axis) -> tf.Tensor:
        def reflect() -> tf.Tensor:
            padded = tf.gather(images, reflected_indices(rows.length, self.tile[0]), axis=1)
            return tf.gather(padded, reflected_indices(columns.length, self.tile[1]), axis=2)

        small = tf.logical_or(rows.length < self.tile[0], columns.length < self.tile[1])
        return tf.cond(small, reflect, lambda: images)

    def _add_tiles(
        self,
        band: tf.Tensor,
        strip: tf.Tensor,
        row_share: tf.Tensor,
        columns: Axis,
        predict: Callable[[tf.Tensor], tf.Tensor],
    ) -> tf.Tensor:
        """Adds one row of tiles, weighted, to the band.

        Args:
          band: [B x padded width, tile height, K] float32. Columns come first, so that what a tile
            adds is a run of whole slices, which TensorFlow adds in place.
          strip: the pixels of that row of tiles, [B, tile height, padded width, C].
          row_share: the tiles' part in the blend at each of their rows, [tile height] float32.
          columns: where the tiles lie on the strip, and their part at each of their columns.
          predict: from tiles to values.

        Returns:
          The new band.
        """
        height, width = self.tile
        across = tf.size(columns.origins)
        tile_count = across * tf.shape(strip)[0]
        padded_width = tf.shape(strip, tf.int64)[2]

        def add_batch(first: tf.Tensor, band: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            tile = tf.range(first, tf.minimum(first + self.batch_size, tile_count))
            image, column = tf.cast(tile // across, tf.int64), tile % across
            origins = tf.gather(columns.origins, column)
            tiles = tf.map_fn(
                lambda place: strip[place[0], :, place[1] : place[1] + width],
                (image, origins),
                fn_output_signature=tf.TensorSpec([height, width, strip.shape[3]], strip.dtype),
            )
            shares = tf.gather(columns.shares, column)[:, None, :] * row_share[:, None]
            values = tf.transpose(predict(tiles) * shares[..., None], [0, 2, 1, 3])
            starts = image * padded_width + origins
            pixels = starts[:, None] + tf.range(width, dtype=tf.int64)
            band = tf.tensor_scatter_nd_add(
                band,
                tf.reshape(pixels, [-1, 1]),
                tf.reshape(values, [-1, height, band.shape[2]]),
            )
            return first + self.batch_size, band

        _, band = tf.while_loop(
            lambda first, _: first < tile_count,
            add_batch,
            (0, band),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None, band.shape[2]])),
            parallel_iterations=1,
        )
        return band

    # Both are functions of their own so that their results' shapes and dtypes are known before the
    # loops begin, without running or tracing them twice.
    @functools.cached_property
    def _predict(self) -> Any:
        return tf.function(lambda tiles: tf.cast(self.predict(tiles), tf.float32))

    @functools.cached_property
    def _finish(self) -> Any:
        return tf.function(self.finish or tf.identity)

    def _traced_predict(self, channels: int | None, dtype: tf.DType) -> Any:
        """The predictor for tiles of that kind, once it is seen to keep their size."""
        expected = tf.TensorShape([None, *self.tile, None])
        traced = self._predict.get_concrete_function(
            tf.TensorSpec([None, *self.tile, channels], dtype)
        )
        shape = traced.structured_outputs.shape
        if not shape.is_compatible_with(expected) or shape[-1] is None:
            raise FlexsegError(
                f"predict must turn tiles [N, {self.tile[0]}, {self.tile[1]}, C] "
                f"into values of the same size, K of them per pixel; it returned {shape}."
            )
        return traced
