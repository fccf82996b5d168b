"""The sections of an experiment: what each key means, and what it may be.

This module imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flexseg_errors import FlexsegError
from models import registry
from models.knobs import check, knob
from train import monitor

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network. Its own knobs stand beside `name` and `head` in YAML and flags."""

    name: str = knob("flex_unet", "Architecture.", choices=tuple(registry.ARCHITECTURES))
    head: str = knob(
        "softmax",
        "softmax: a logit per class. sigmoid: one logit, for label maps of two classes.",
        choices=("softmax", "sigmoid"),
    )
    network: Any = dataclasses.field(default_factory=lambda: registry.configure("flex_unet"))

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """How the dataset is read."""

    batch_size: int = knob(8, "Examples in a global batch, over all replicas.", minimum=1)
    crop_size: Size | None = knob(
        None, "Height,width of random crops, in pixels; none takes records as they are.", minimum=1
    )
    fold: int | None = knob(
        None,
        "The fold to validate on, from 0, of a dataset made with --folds; the others are trained "
        "on. none is for datasets without folds.",
        minimum=0,
    )
    shuffle_mb: int = knob(256, "Memory for shuffling encoded records, in MiB.", minimum=1)
    foreground_share: float = knob(
        0.0,
        "Share of the examples that are made to show foreground, from 0 to 1: records that hold "
        "it, cropped about one of its pixels. The dataset is read through once at the start.",
        minimum=0,
        below=1.000001,
    )
    foreground_classes: tuple[str, ...] = knob(
        (), "Names or ids of the classes that are foreground; empty: all but class 0."
    )
    empty_rate: float = knob(
        1.0,
        "Share of the records without foreground that an epoch of training sees, each epoch "
        "others. Below 1 the dataset is read through once at the start.",
        minimum=0,
        below=1.000001,
    )
    cache: str = knob(
        "none",
        "Keep decoded training records, after decoding all of them at the start: in memory, or on "
        "disk in a file that goes with the process.",
        choices=("none", "memory", "disk"),
    )
    on_corrupt: str = knob(
        "stop",
        "A damaged record: stop, naming file and byte; or skip, after looking through all files "
        "at the start, and tell how many.",
        choices=("stop", "skip"),
    )
    service: str = knob(
        "none", "Address, grpc://HOST:PORT, of a tf.data service that makes the batches, or none."
    )
    threads: int = knob(
        0, "Threads of the input's own; 0 shares TensorFlow's, one for each core.", minimum=0
    )
    ram_mb: int = knob(
        1024, "What tf.data's buffers may take by its own choice, in MiB.", minimum=1
    )

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Online augmentation of training examples; a fresh draw for each in every epoch."""

    flip_horizontal: bool = knob(True, "Mirror left and right in half of the cases.")
    flip_vertical: bool = knob(False, "Mirror top and bottom in half of the cases.")
    rotate90: bool = knob(False, "Turn by a random multiple of 90 degrees.")
    rotation: float = knob(15.0, "Turn by up to this many degrees either way.", minimum=0)
    scale: float = knob(0.2, "Enlarge or reduce by up to this share.", minimum=0, below=4)
    brightness: float = knob(
        0.1, "Add up to this share of the full range, either way.", minimum=0, below=1
    )
    contrast: float = knob(
        0.2, "Stretch about the mean by up to this share, either way.", minimum=0, below=1
    )
    shear: float = knob(
        0.0, "Slant by up to this many pixels sideways for each pixel down.", minimum=0, below=1
    )
    elastic: float = knob(
        0.0,
        "Move pixels smoothly by up to this share of the shorter side; 0.03 is plenty.",
        minimum=0,
        below=0.1,
    )
    gamma: float = knob(
        0.0, "Darken or lighten by exponents from 1 / (1 + gamma) to 1 + gamma.", minimum=0, below=4
    )
    hue: float = knob(
        0.0, "Turn hue by up to this share of the circle; needs colors.", minimum=0, below=0.51
    )
    saturation: float = knob(
        0.0, "Multiply saturation by 1 minus to 1 plus this; needs colors.", minimum=0, below=1
    )
    blur: float = knob(0.0, "Smooth by a Gaussian of up to this many pixels.", minimum=0, below=16)
    noise: float = knob(
        0.0, "Add noise of a deviation of up to this share of the full range.", minimum=0, below=1
    )
    cutout: float = knob(
        0.0,
        "Fill a box of up to this share of each side with the mean; the mask stays.",
        minimum=0,
        below=1,
    )
    cutmix: float = knob(
        0.0,
        "Share of the examples that get a box, with its mask, from another of the batch.",
        minimum=0,
        below=1.000001,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its learning rate over the steps."""

    name: str = knob(
        "adamw",
        "Optimizer; sgd has Nesterov's momentum.",
        choices=("adam", "adamw", "sgd", "lion"),
    )
    learning_rate: float = knob(1e-3, "Highest learning rate.", minimum=0)
    weight_decay: float = knob(
        1e-4,
        "Share of the learning rate by which adamw, sgd and lion shrink weights, but not biases, "
        "norms and the like; adam has none.",
        minimum=0,
    )
    beta_1: float = knob(
        0.9, "Decay of the first moment, which for sgd is its momentum.", minimum=0, below=1
    )
    beta_2: float | None = knob(
        None,
        "Decay of the second moment, for lion of its momentum; none is 0.999, for lion 0.99.",
        minimum=0,
        below=1,
    )
    epsilon: float = knob(1e-7, "Keeps the update of adam and adamw finite.", minimum=0)
    clip: str = knob(
        "global_norm",
        "How gradients are clipped; norm takes each variable by itself.",
        choices=("none", "value", "norm", "global_norm"),
    )
    clip_threshold: float = knob(1.0, "Value or norm at which gradients are clipped.", minimum=0)
    accumulate_steps: int = knob(
        1,
        "Batches whose gradients are averaged for one update, where a larger batch would not fit. "
        "A step is one update.",
        minimum=1,
    )
    schedule: str = knob(
        "cosine",
        "The learning rate after warm-up. one_cycle rises and falls; exponential rises to the "
        "end, which shows what a network can bear.",
        choices=("constant", "cosine", "polynomial", "step", "one_cycle", "exponential"),
    )
    warmup_steps: int = knob(50, "Steps of linear warm-up.", minimum=0)
    start_share: float = knob(
        0.04,
        "Of one_cycle and exponential: the first learning rate after warm-up, as a share of the "
        "highest.",
        minimum=1e-12,
        below=1,
    )
    final_share: float = knob(
        0.0,
        "Of cosine, polynomial and one_cycle: the learning rate where the run ends, as a share of "
        "the highest.",
        minimum=0,
        below=1,
    )
    power: float = knob(0.9, "Of polynomial: 1 is a straight line, more falls faster.", minimum=0)
    milestones: tuple[float, ...] = knob(
        (0.5, 0.75),
        "Of step: the shares of the run after warm-up where the learning rate drops.",
        minimum=0,
        below=1,
    )
    step_factor: float = knob(0.1, "Of step: what it is multiplied with there.", minimum=0, below=1)

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The course of the training."""

    epochs: int = knob(50, "Epochs at most.", minimum=1)
    steps_per_epoch: int = knob(
        0, "Steps between two evaluations; 0 is about one pass over the data.", minimum=0
    )
    steps_per_call: int = knob(10, "Steps run before Python looks again.", minimum=1)
    loss: str = knob(
        "ce+dice",
        "Sum of losses with weights and parameters, such as ce+dice or ce+0.5*focal(gamma=2).",
    )
    class_weights: str = knob(
        "none",
        "What classes weigh in ce, bce and focal, from how often they occur in the train split.",
        choices=("none", "inverse", "median", "effective"),
    )
    class_weight_beta: float = knob(
        0.999999,
        "Of effective: a class with more than 1 / (1 - beta) pixels is not rare.",
        minimum=0,
        below=1,
    )
    class_weight_cap: float = knob(
        10.0, "The largest class weight, as a multiple of the smallest.", minimum=1
    )
    deep_supervision_weights: tuple[float, ...] = knob(
        (), "Weights of the losses of several outputs, the main one first; empty: 2^-i.", minimum=0
    )
    precision: str = knob(
        "float32",
        "Precision of the layers; weights and logits stay float32.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    stop_on_divergence: bool = knob(
        True,
        "Stop where the loss has been far above its beginning for 200 steps, or has lost what it "
        "had gained for 500. A loss that is no number stops in any case.",
    )
    jit_compile: str = knob(
        "auto",
        "Compile the training step by XLA. auto: on a single GPU; never otherwise, as it makes "
        "CPUs slower and cannot serve several replicas.",
        choices=("auto", "always", "never"),
    )
    deterministic: bool = knob(
        False,
        "Equal bits from equal runs on a GPU too: slower, and what has no such form stops. On "
        "one CPU device runs are equal anyway. Waiting for input is not measured then.",
    )
    ema_decay: float = knob(
        0.0,
        "Decay of a moving average of the weights, such as 0.999, which is then what is "
        "validated and kept as the best; 0 keeps none.",
        minimum=0,
        below=1,
    )
    seed: int = knob(0, "Seed of weights, order, augmentation and dropout.", minimum=0)
    monitor: str = knob(
        "val_dice",
        "What makes an epoch the best, and what patience waits for: val_loss, val_dice, val_iou, "
        "val_precision, val_recall (means over foreground classes), val_accuracy (of all pixels), "
        "val_dice/CLASS; without val_ the same of the train split.",
    )
    patience: int = knob(
        0, "Stop after this many epochs without a better one; 0 never stops.", minimum=0
    )
    plateau_patience: int = knob(
        0, "Reduce the learning rate after as many epochs; 0 never does.", minimum=0
    )
    plateau_factor: float = knob(0.4, "What it is then multiplied with.", minimum=0, below=1)
    checkpoint_steps: int = knob(
        0, "Steps between checkpoints; 0 is at the end of each epoch only.", minimum=0
    )
    keep_checkpoints: int = knob(2, "Newest checkpoints that are kept.", minimum=1)
    previews: int = knob(4, "Validation images drawn after each epoch; 0 draws none.", minimum=0)
    preview_folder: str = knob(
        "none", "Folder of images of any size that are segmented after each epoch too, or none."
    )
    preview_count: int = knob(6, "How many of them, the first by name.", minimum=1)
    preview_mode: str = knob(
        "whole",
        "How. whole: shrunk to the network's input, into epoch_change_infer/. tiled: as flexseg "
        "predict does, into epoch_change_tiled_infer/.",
        choices=("whole", "tiled", "both"),
    )

    def __post_init__(self) -> None:
        check(self)
        monitor.refuse_unknown(self.monitor)

    @property
    def has_preview_folder(self) -> bool:
        """Whether `preview_folder` names one."""
        return self.preview_folder not in ("", "none")


@dataclasses.dataclass(frozen=True)
class DistributeConfig:
    """Where the training runs."""

    strategy: str = knob(
        "auto",
        "auto: the workers of TF_CONFIG if it names several; else all GPUs of this machine; else "
        "one device. one, mirrored, multi_worker: as said.",
        choices=("auto", "one", "mirrored", "multi_worker"),
    )
    cpu_devices: int = knob(
        1, "Logical CPU devices, to try several replicas without GPUs.", minimum=1
    )

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class InferenceConfig:
    """The sliding window over whole images, in evaluation, prediction and the bundle."""

    overlap: float = knob(
        0.25,
        "What a tile's neighbour sees too: below 1 a share of the tile, from 1 on pixels.",
        minimum=0,
    )
    weights: str = knob(
        "gaussian",
        "How tiles are blended. margin: not at all; the overlap is context alone, cut off.",
        choices=("gaussian", "uniform", "margin"),
    )
    batch_size: int = knob(4, "Tiles in one call of the network.", minimum=1)
    blend: str = knob("probabilities", "What is blended.", choices=("probabilities", "logits"))

    def __post_init__(self) -> None:
        check(self)
        if self.overlap >= 1 and self.overlap != int(self.overlap):
            raise FlexsegError(
                f"overlap must be a share of the tile below 1, or a whole number of pixels, not "
                f"{self.overlap}."
            )

    def changed(self, **values: Any) -> InferenceConfig:
        """The same with other values; what is None stays as it is."""
        given = {key: value for key, value in values.items() if value is not None}
        return dataclasses.replace(self, **given)
