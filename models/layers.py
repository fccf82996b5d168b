"""What the networks share: layers by name, seeded layers, the way in and the way out.

Every function that makes weights or dropout masks takes the network's seed and the layer's name and
derives the layer's own seed from both. So two builds with one seed are equal, no two layers of a
network start alike, and a layer added somewhere leaves the others' start as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import keras

from flexseg_errors import FlexsegError
from models.enlarge import Enlarge
from models.sizes import check_size

# The names on the left are those of `knobs.ACTIVATIONS`; "swish" is the older name of "silu".
_ACTIVATIONS = {
    "relu": keras.activations.relu,
    "leaky_relu": keras.activations.leaky_relu,
    "elu": keras.activations.elu,
    "gelu": keras.activations.gelu,
    "mish": keras.activations.mish,
    "selu": keras.activations.selu,
    "silu": keras.activations.silu,
    "swish": keras.activations.silu,
}
_INPUT_SCALES = {"unit": 1 / 255, "none": 1.0}


def layer_seed(seed: int, name: str) -> int:
    """The seed of one layer: 31 bits of a hash of the network's seed and the layer's name."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def activation(kind: str, *, name: str) -> keras.layers.Layer:
    """The activation of that name (one of `knobs.ACTIVATIONS`) as a layer."""
    return keras.layers.Activation(_ACTIVATIONS[kind], name=name)


def normalization(
    kind: str, filters: int, *, epsilon: float = 1e-3, name: str
) -> keras.layers.Layer | None:
    """The normalization of that name (one of `knobs.NORMALIZATIONS`); None for "none".

    "batch": Ioffe and Szegedy 2015; its moments are those of the global batch under tf.distribute,
    so that the number of replicas does not change the result. "group": Wu and He 2018, in
    `group_count(filters)` groups. "instance": Ulyanov et al. 2016, every channel of every image by
    itself. The last two do not depend on the batch, which suits batches of few images.

    Args:
      kind: the name.
      filters: the channels of what it normalizes.
      epsilon: what is added to the variance; weights that were trained elsewhere want theirs.
      name: the layer's.
    """
    if kind == "none":
        return None
    if kind == "batch":
        return batch_normalization(epsilon=epsilon, name=name)
    groups = group_count(filters) if kind == "group" else filters
    return keras.layers.GroupNormalization(groups=groups, epsilon=epsilon, name=name)


def batch_normalization(*, epsilon: float = 1e-3, name: str) -> keras.layers.BatchNormalization:
    """Batch normalization with the moments of the global batch, and quick to follow them."""
    synchronized = keras.backend.backend() == "tensorflow"  # Keras refuses it under the others
    return keras.layers.BatchNormalization(
        momentum=0.9, epsilon=epsilon, synchronized=synchronized, name=name
    )


def group_count(filters: int) -> int:
    """The most groups, up to the paper's 32, that divide `filters` and hold 4 channels or more."""
    return max(n for n in range(1, 33) if filters % n == 0 and (n == 1 or filters // n >= 4))


def conv(
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    bias: bool = True,
    seed: int,
    name: str,
) -> keras.layers.Conv2D:
    """A linear convolution, He normal weights, zero bias; it divides the size by its stride."""
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        dilation_rate=dilation,
        use_bias=bias,
        kernel_initializer=keras.initializers.HeNormal(layer_seed(seed, name)),
        name=name,
    )


def upsample(filters: int, *, seed: int, name: str) -> keras.layers.Conv2DTranspose:
    """A linear transposed convolution, 2 x 2 with stride 2, that doubles the size; Glorot weights.

    Its kernel is as wide as its stride, so that every output pixel has one source: no overlap, and
    none of the checkerboard that overlap leaves.
    """
    return keras.layers.Conv2DTranspose(
        filters,
        2,
        strides=2,
        padding="same",
        kernel_initializer=keras.initializers.GlorotUniform(layer_seed(seed, name)),
        name=name,
    )


def logits(
    num_classes: int, *, kernel: int = 1, seed: int, name: str = "logits"
) -> keras.layers.Conv2D:
    """The last convolution, to the classes; float32 under any policy, as losses need the bits."""
    return keras.layers.Conv2D(
        num_classes,
        kernel,
        padding="same",
        kernel_initializer=keras.initializers.GlorotUniform(layer_seed(seed, name)),
        dtype="float32",
        name=name,
    )


def image_input(
    size: tuple[int | None, int | None],
    channels: int,
    *,
    scaling: str,
    divisor: int,
    minimum: int = 1,
) -> tuple[Any, Any]:
    """A network's way in: takes uint8 or float images, checks their size, scales their values.

    All of it is float32 under any policy: bfloat16 has 8 significant bits, too few for values
    between whole numbers or their 255th part. The first convolution casts down by itself.

    Args:
      size: (height, width) in pixels, None where it varies.
      channels: of the images.
      scaling: "unit" for 0..255 to 0..1, "none" to leave the values.
      divisor: what the sides must be multiples of, in pixels.
      minimum: the least side, in pixels.

    Returns:
      (images, scaled): the symbolic input [B, H, W, channels] and what to compute from, float32 of
      the same shape.
    """
    images = keras.Input((*size, channels), dtype="float32", name="images")
    checked = SizeCheck(divisor, minimum, name="size_check")(images)
    scale = keras.layers.Rescaling(_INPUT_SCALES[scaling], dtype="float32", name="scale")
    return images, scale(checked)


@keras.saving.register_keras_serializable(package="flexseg")
class SizeCheck(keras.layers.Layer):
    """Hands images through unless their size does not fit the network.

    Sizes that are unknown while a function is traced pass.

    Args:
      divisor: what both sides must be multiples of, in pixels.
      minimum: the least side, in pixels.
      **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, divisor: int, minimum: int = 1, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # it hands through, it does not compute
        self.divisor = divisor
        self.minimum = minimum

    def call(self, images: Any) -> Any:
        height, width = images.shape[1:3]
        try:
            check_size((height, width), self.divisor, self.minimum)
        except FlexsegError as error:
            # Keras wraps what a layer raises in a dump of its arguments unless it finds this mark.
            error._keras_call_info_injected = True  # type: ignore[attr-defined]
            raise
        return images

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "divisor": self.divisor, "minimum": self.minimum}


@keras.saving.register_keras_serializable(package="flexseg")
class Dropout(keras.layers.Dropout):
    """Keras' dropout, with the state of its random numbers in TensorFlow's checkpoints.

    Keras keeps the state in a `SeedGenerator`, which `tf.train.Checkpoint` does not see: a run that
    was restored would repeat the masks from the first step on. TensorFlow asks an object for what
    to save and restore by the method below; other backends never call it. The state does not become
    a weight, so parameter counts and weight files stay those of the network.
    """

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        children = super()._trackable_children(save_type, **kwargs)
        return {**children, "seed_state": self.seed_generator.state}


def dropout(rate: float, *, seed: int, name: str) -> keras.layers.Layer | None:
    """Dropout (Srivastava et al. 2014) with a seed of its own; None for a rate of 0.

    Args:
      rate: share of the values set to 0 in training, in [0, 1).
      seed: the network's.
      name: the layer's.
    """
    return Dropout(rate, seed=layer_seed(seed, name), name=name) if rate > 0 else None


def stochastic_depth(rate: float, *, seed: int, name: str) -> keras.layers.Layer | None:
    """Drops a residual branch for whole images (Huang et al. 2016, arXiv:1603.09382).

    What is kept is divided by the share kept, so that the mean stays.

    Args:
      rate: share of the images whose branch is set to 0 in training, in [0, 1); None for 0.
      seed: the network's.
      name: the layer's.
    """
    if rate <= 0:
        return None
    return Dropout(rate, noise_shape=(None, 1, 1, 1), seed=layer_seed(seed, name), name=name)


def supervised_logits(
    features: Sequence[tuple[Any, int]], num_classes: int, *, kernel: int = 1, seed: int
) -> list[Any]:
    """Logits of the image's size from several resolutions, for deep supervision.

    Args:
      features: (map [B, H / factor, W / factor, C], factor), the full resolution first; it gets
        the layer "logits", the others "logits_1" and so on, each enlarged bilinearly.
      num_classes: how many logits each pixel gets.
      kernel: side of the kernels that make them, in pixels.
      seed: the network's.

    Returns:
      As many tensors [B, H, W, num_classes], float32.
    """
    outputs = []
    for index, (x, factor) in enumerate(features):
        name = f"logits_{index}" if index else "logits"
        x = logits(num_classes, kernel=kernel, seed=seed, name=name)(x)
        outputs.append(enlarge(factor, name=f"{name}_up", dtype="float32")(x) if factor > 1 else x)
    return outputs


def enlarge(factor: int, *, name: str, dtype: str | None = None) -> keras.layers.Layer:
    """Bilinear interpolation to `factor` times the size, between pixels' centers."""
    return Enlarge(factor, name=name, dtype=dtype)


@keras.saving.register_keras_serializable(package="flexseg")
class Spread(keras.layers.Layer):
    """Repeats one vector per image over a map's pixels: [B, 1, 1, C], [B, H, W, D] -> [B, H, W, C].

    The map only says how large the result is.
    """

    def call(self, inputs: Any) -> Any:
        vectors, image_map = inputs
        _, height, width, _ = keras.ops.shape(image_map)
        return vectors * keras.ops.ones((1, height, width, 1), dtype=vectors.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        vectors, image_map = input_shape
        return (*image_map[:3], vectors[-1])
