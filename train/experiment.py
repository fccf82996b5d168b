"""What a run is made of: typed dataclasses, read from YAML and from flags `--config.x.y=value`.

One conversion serves both, so that a value means the same wherever it stands. An unknown key is an
error that names the nearest known one. This module imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from absl import flags

from flexseg_errors import FlexsegError, nearest
from models import registry
from models.knobs import check, knob
from train import monitor, shipped

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
        "none", "grpc://HOST:PORT of a tf.data service that makes the batches; none: made here."
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
        0.0, "Turn hue by up to this share of the circle; needs colours.", minimum=0, below=0.51
    )
    saturation: float = knob(
        0.0, "Multiply saturation by 1 minus to 1 plus this; needs colours.", minimum=0, below=1
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
        "Sum of losses with weights and parameters, such as 0.5*ce+0.5*dice or focal(gamma=2).",
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

    overlap: float = knob(0.25, "Share of a tile that its neighbour sees too.", minimum=0, below=1)
    weights: str = knob("gaussian", "How tiles are blended.", choices=("gaussian", "uniform"))
    batch_size: int = knob(4, "Tiles in one call of the network.", minimum=1)

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides a run, apart from the dataset."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    distribute: DistributeConfig = dataclasses.field(default_factory=DistributeConfig)
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)


def from_dict(data: Any, origin: str = "experiment") -> Experiment:
    """Builds an experiment from nested plain data; what is not named keeps its default.

    Raises:
      FlexsegError: naming the key that is unknown, or whose value does not fit.
    """
    return _build(Experiment, data, "", origin)


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """Plain data, complete; `from_dict` is its inverse."""
    data = _plain(dataclasses.asdict(experiment))
    network = data["model"].pop("network")
    data["model"].update(network)
    return data


def load(path: str | None, overrides: Mapping[str, str] | None = None) -> Experiment:
    """Reads an experiment: defaults, over them a YAML file, over that flags.

    Args:
      path: the file, or the name of an experiment that comes with flexseg; None for the defaults.
      overrides: dotted key -> value as text, read as YAML reads it.
    """
    data: Any = {}
    path = shipped.find(path) if path else None
    origin = path or "--config"
    if path:
        try:
            with open(path, encoding="utf-8") as file:
                data = yaml.safe_load(file) or {}
        except OSError as error:
            raise FlexsegError(f"--experiment={path} cannot be read: {error.strerror}.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise FlexsegError(f"--experiment={path} is not a YAML file: {error}") from error
    _build(Experiment, data, "", origin)  # so that an error in the file is told as the file's
    for key, text in (overrides or {}).items():
        *parents, leaf = key.split(".")
        section = data
        for parent in parents:
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
        try:
            section[leaf] = yaml.safe_load(text)
        except yaml.YAMLError:
            section[leaf] = text
        origin = "--config"
    return from_dict(data, origin)


def dump(experiment: Experiment) -> str:
    """The experiment as YAML, complete, the form that `load` reads."""
    return yaml.safe_dump(to_dict(experiment), sort_keys=False, default_flow_style=None)


def differences(one: Experiment, other: Experiment) -> list[str]:
    """The keys in which two experiments differ, with both values, as text."""
    flat_one, flat_other = dict(_flat(to_dict(one))), dict(_flat(to_dict(other)))
    keys = list(dict.fromkeys([*flat_one, *flat_other]))
    return [
        f"{key}: {flat_one.get(key)!r}, now {flat_other.get(key)!r}"
        for key in keys
        if flat_one.get(key) != flat_other.get(key)
    ]


def define_flags(values: flags.FlagValues) -> None:
    """Defines a flag `--config.x.y` for every key of every architecture's experiment."""
    for key, uses in _leaves().items():
        texts: dict[str, list[str]] = {}  # what it means -> the architectures that mean it
        for name, field, default in uses:
            shown = "" if default in (None, ()) else f" Default: {_text(default)}."
            texts.setdefault(field.metadata["doc"] + shown, []).append(name)
        parts = [
            f"({', '.join(names)}) {text}" if names[0] else text for text, names in texts.items()
        ]
        flags.DEFINE_string(f"config.{key}", None, " ".join(parts), flag_values=values)


def overrides_from(values: flags.FlagValues) -> dict[str, str]:
    """The experiment's keys that were given as flags."""
    return {
        name.removeprefix("config."): str(values[name].value)
        for name in values
        if name.startswith("config.") and values[name].value is not None
    }


def _leaves() -> dict[str, list[tuple[str, dataclasses.Field[Any], Any]]]:
    """Key -> (architecture, field, default) of each that has it; the architecture is "" for all."""
    leaves: dict[str, list[tuple[str, dataclasses.Field[Any], Any]]] = {}
    for section in dataclasses.fields(Experiment):
        config = getattr(Experiment(), section.name)
        for field in dataclasses.fields(config):
            if field.name != "network":
                use = ("", field, getattr(config, field.name))
                leaves[f"{section.name}.{field.name}"] = [use]
    for architecture in registry.ARCHITECTURES.values():
        config = architecture.config()
        for field in dataclasses.fields(config):
            use = (architecture.name, field, getattr(config, field.name))
            leaves.setdefault(f"model.{field.name}", []).append(use)
    return leaves


def _build(kind: type[Any], data: Any, path: str, origin: str) -> Any:
    if data is None:  # a section's name with nothing below it
        data = {}
    if not isinstance(data, Mapping):
        where = f'"{path}"' if path else "it"
        raise FlexsegError(f"{origin}: {where} must hold keys and values, not {data!r}.")
    if kind is ModelConfig:
        return _build_model(data, path, origin)
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)}
    values = {}
    for key, value in data.items():
        _refuse_unknown(key, fields, path, origin)
        full = f"{path}.{key}" if path else key
        if dataclasses.is_dataclass(hints[key]):
            values[key] = _build(hints[key], value, full, origin)
        else:
            values[key] = _convert(value, hints[key], full, origin)
    return _checked(kind, values, path, origin)


def _build_model(data: Mapping[str, Any], path: str, origin: str) -> ModelConfig:
    architecture = registry.find(str(data.get("name", ModelConfig().name)))
    hints = typing.get_type_hints(architecture.config)
    knobs, own = {}, {}
    for key, value in data.items():
        _refuse_unknown(key, {"name", "head", *hints}, path, f"{origin} ({architecture.name})")
        if key in ("name", "head"):
            own[key] = str(value)
        else:
            knobs[key] = _convert(value, hints[key], f"{path}.{key}", origin)
    network = _checked(architecture.config, knobs, path, origin)
    return _checked(ModelConfig, {**own, "network": network}, path, origin)


def _refuse_unknown(key: Any, known: set[str], path: str, origin: str) -> None:
    if key not in known:
        where = f'"{path}" has no key' if path else "there is no section"
        raise FlexsegError(
            f'{origin}: {where} "{key}"; known are {", ".join(sorted(known))}.'
            + nearest(str(key), known)
        )


def _checked(kind: type[Any], values: dict[str, Any], path: str, origin: str) -> Any:
    try:
        return kind(**values)
    except FlexsegError as error:
        raise FlexsegError(f"{origin}: {path}.{error}" if path else f"{origin}: {error}") from error


def _convert(value: Any, kind: Any, path: str, origin: str) -> Any:
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if value is None or value == "none":
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)), path, origin)
    if typing.get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        items = items if isinstance(items, (list, tuple)) else [items]
        fixed = Ellipsis not in arguments
        if fixed and len(items) != len(arguments):
            raise FlexsegError(
                f"{origin}: {path} needs {len(arguments)} values, such as "
                f"{','.join('256' for _ in arguments)}; got {value!r}."
            )
        return tuple(_convert(item, arguments[0], path, origin) for item in items)
    wrong = FlexsegError(f"{origin}: {path} must be {_KINDS[kind]}; got {value!r}.")
    if kind is bool:
        if not isinstance(value, bool):
            raise wrong
        return value
    if isinstance(value, bool) and kind is not str:
        raise wrong
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise wrong
    if isinstance(value, (list, tuple, Mapping)):
        raise wrong  # str() would make text of them
    if kind is str and not isinstance(value, str):
        value = str(value).lower() if isinstance(value, bool) or value is None else str(value)
    try:
        return kind(value)  # YAML reads 1e-3 as text; float() reads it as a number
    except (TypeError, ValueError) as error:
        raise wrong from error


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _flat(data: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        full = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            yield from _flat(value, full)
        else:
            yield full, value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
