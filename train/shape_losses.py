"""Losses that look at shapes: structural similarity, center lines, borders.

Each is computed image by image, on windows, skeletons or distance maps, and then summed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from models.knobs import check, knob
from train import distance_transform
from train.loss_contract import Pixels, Sums, pixels

_WINDOW, _SIGMA = 11, 1.5  # of structural similarity, in pixels
_C1, _C2 = 0.01**2, 0.03**2


@dataclasses.dataclass(frozen=True)
class StructuralSimilarity:
    """1 - SSIM of probability and truth (Wang et al. 2004): the mean over windows and classes.

    Windows are Gaussian, 11 x 11 with sigma 1.5, and lie within the image, as those of
    `tf.image.ssim` with max_val=1, whose mean over images this is where every pixel counts.
    Pixels that do not count have no weight in a window, and a window whose middle does not count
    is left out. In images smaller than 11 the window is as large as the smaller side.
    """

    background: bool = knob(False, "Let class 0 take part.")

    def __post_init__(self) -> None:
        check(self)

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> Sums:
        seen = pixels(logits, labels)
        p, g = self._maps(seen)
        mask = seen.mask[..., None]
        shape = tf.shape(p)
        size = tf.minimum(_WINDOW, tf.minimum(shape[1], shape[2]))
        before, windows = (size - 1) // 2, shape[1:3] - size + 1
        counted = mask[:, before : before + windows[0], before : before + windows[1]]
        blurred = _blur(tf.concat([p, g, p * g, p * p + g * g, mask], -1), size)
        *moments, weight = tf.split(blurred, [p.shape[-1]] * 4 + [1], -1)
        weight = tf.where(counted > 0, weight, 1.0)
        mean_p, mean_g, mean_pg, mean_squares = (m / weight for m in moments)
        product, squares = mean_p * mean_g, mean_p**2 + mean_g**2
        similarity = (2.0 * product + _C1) / (squares + _C1)
        similarity *= (2.0 * (mean_pg - product) + _C2) / (mean_squares - squares + _C2)
        return {
            "loss": tf.reduce_sum(tf.reduce_mean(1.0 - similarity, -1, keepdims=True) * counted),
            "windows": tf.reduce_sum(counted),
        }

    def value(self, sums: Sums) -> tf.Tensor:
        return tf.math.divide_no_nan(sums["loss"], sums["windows"])

    def _maps(self, seen: Pixels) -> tuple[tf.Tensor, tf.Tensor]:
        first = 0 if self.background else 1
        return seen.p[..., first:], seen.truth[..., first:]


@dataclasses.dataclass(frozen=True)
class CenterlineDice:
    """1 - clDice, the mean over foreground classes (Shit et al. 2021), for what is thin and long.

    clDice = 2 T_p T_s / (T_p + T_s), with the precision T_p = (sum S(p) g + s) / (sum S(p) + s) of
    the predicted skeleton and the sensitivity T_s = (sum S(g) p + s) / (sum S(g) + s); S is
    `soft_skeleton`. Skeletons are made image by image, and the sums run over the global batch. To
    be added to a loss of the area, such as 0.5*dice+0.5*cldice.
    """

    iterations: int = knob(10, "Radius of the thickest tube, in pixels, or more.", minimum=1)
    smooth: float = knob(1.0, "s, in pixels.", minimum=1e-6)

    def __post_init__(self) -> None:
        check(self)

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> Sums:
        seen = pixels(logits, labels)
        p, g = seen.p[..., 1:], seen.truth[..., 1:]
        thin_p, thin_g = soft_skeleton(p, self.iterations), soft_skeleton(g, self.iterations)
        axes = [0, 1, 2]
        return {
            "predicted": tf.reduce_sum(thin_p, axes),
            "predicted_inside": tf.reduce_sum(thin_p * g, axes),
            "true": tf.reduce_sum(thin_g, axes),
            "true_found": tf.reduce_sum(thin_g * p, axes),
        }

    def value(self, sums: Sums) -> tf.Tensor:
        precision = (sums["predicted_inside"] + self.smooth) / (sums["predicted"] + self.smooth)
        sensitivity = (sums["true_found"] + self.smooth) / (sums["true"] + self.smooth)
        dice = 2.0 * precision * sensitivity / (precision + sensitivity)
        return tf.reduce_mean(1.0 - dice)


@dataclasses.dataclass(frozen=True)
class Boundary:
    """Mean over pixels and foreground classes of phi p, in pixels (Kervadec et al. 2019).

    phi is `distance_transform.signed_distances` of the class in the truth of the image: what is
    predicted far outside costs most, and what is found deep inside is rewarded, so the loss may be
    negative and is least for the truth itself. It knows nothing of classes that an image lacks,
    and is meant to be added, with a small weight, to a loss of the area, such as
    ce+dice+0.01*boundary. Pixels that do not count are taken as outside of every class.
    """

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> Sums:
        seen = pixels(logits, labels)
        p, g = seen.p[..., 1:], seen.truth[..., 1:]
        distances = _of_maps(distance_transform.signed_distances, g > 0.5)
        by_pixel = tf.reduce_mean(tf.cast(distances, p.dtype) * p, -1)
        return {"loss": tf.reduce_sum(by_pixel), "pixels": tf.reduce_sum(seen.mask)}

    def value(self, sums: Sums) -> tf.Tensor:
        return tf.math.divide_no_nan(sums["loss"], sums["pixels"])


@dataclasses.dataclass(frozen=True)
class Hausdorff:
    """Mean over pixels and foreground classes of (p - g)^2 (d_p^alpha + d_g^alpha).

    Karimi and Salcudean 2019, after whom a wrong pixel costs more the further it is from the
    borders of truth, d_g, and of prediction, d_p, where p > 0.5; distances are those of
    `distance_transform.squared_border_distances`, in pixels, and have no gradient. They are 0 where
    a class is absent or fills the image. Values grow with the image: add it with a small weight.
    """

    alpha: float = knob(2.0, "Exponent of distances.", minimum=0)

    def __post_init__(self) -> None:
        check(self)

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> Sums:
        seen = pixels(logits, labels)
        p, g = seen.p[..., 1:], seen.truth[..., 1:]
        squares = [
            _of_maps(distance_transform.squared_border_distances, region > 0.5) for region in (p, g)
        ]
        # 0 ** 0 is 1, but without a border there is no distance.
        powers = [tf.where(d > 0, d ** (self.alpha / 2), 0.0) for d in squares]
        cost = tf.cast(powers[0] + powers[1], p.dtype)
        by_pixel = tf.reduce_mean((p - g) ** 2 * cost, -1)
        return {"loss": tf.reduce_sum(by_pixel), "pixels": tf.reduce_sum(seen.mask)}

    def value(self, sums: Sums) -> tf.Tensor:
        return tf.math.divide_no_nan(sums["loss"], sums["pixels"])


def soft_skeleton(maps: tf.Tensor, iterations: int) -> tf.Tensor:
    """What opening takes away from ever thinner versions of maps [B, H, W, K] of 0..1.

    Erosion is the least of a cross of five pixels, dilation the most of a square of nine; outside
    the image there is nothing. With opened(x) = dilated(eroded(x)): skeleton = relu(x - opened(x)),
    and then, `iterations` times, x = eroded(x), d = relu(x - opened(x)), skeleton += relu(d -
    skeleton d).
    """
    skeleton = tf.nn.relu(maps - _dilated(_eroded(maps)))
    for _ in range(iterations):
        maps = _eroded(maps)
        rest = tf.nn.relu(maps - _dilated(_eroded(maps)))
        skeleton += tf.nn.relu(rest - skeleton * rest)
    return skeleton


def _eroded(maps: tf.Tensor) -> tf.Tensor:
    columns, rows = (tf.nn.max_pool2d(-maps, k, 1, "SAME") for k in ([3, 1], [1, 3]))
    return -tf.maximum(columns, rows)


def _dilated(maps: tf.Tensor) -> tf.Tensor:
    return tf.nn.max_pool2d(maps, 3, 1, "SAME")


def _blur(maps: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Gaussian means over windows that lie within the maps [B, H, W, C]."""
    offset = tf.cast(tf.range(size), maps.dtype) - tf.cast(size - 1, maps.dtype) / 2.0
    line = tf.nn.softmax(-(offset**2) / (2.0 * _SIGMA**2))
    channels = maps.shape[-1]
    batch, height, width = tf.unstack(tf.shape(maps)[:3])
    fewer = size - 1
    for kernel_shape, result_shape in (
        ([-1, 1, 1, 1], [batch, height - fewer, width, channels]),
        ([1, -1, 1, 1], [batch, height - fewer, width - fewer, channels]),
    ):
        kernel = tf.tile(tf.reshape(line, kernel_shape), [1, 1, channels, 1])
        maps = tf.nn.depthwise_conv2d(maps, kernel, [1, 1, 1, 1], "VALID")
        maps = tf.reshape(maps, result_shape)  # TensorFlow does not make an empty batch smaller
    return maps


def _of_maps(transform: Callable[[tf.Tensor], tf.Tensor], regions: tf.Tensor) -> tf.Tensor:
    """A transform of [N, H, W] applied to each map of bool [B, H, W, K]."""
    shape = tf.shape(regions)
    by_class = tf.transpose(regions, [0, 3, 1, 2])
    stacked = tf.reshape(by_class, [shape[0] * shape[3], shape[1], shape[2]])
    result = tf.reshape(transform(stacked), [shape[0], shape[3], shape[1], shape[2]])
    return tf.transpose(result, [0, 2, 3, 1])
