"""Offline augmentation: which changed copies of a source a dataset holds, and how each is made.

A plan is a list of variants; a variant is a chain of steps. The geometric steps of a chain make one
sampling map, at which image and mask are resampled once; then the photometric steps change the
image alone. What is left to chance depends on seed, source and variant alone.

A plan is written as YAML:

    preset: seed-lung        # start from the variants of a preset; may be left out
    keep_source: true        # whether the source itself is among the examples
    border: reflect          # what lies outside: reflect, replicate, corner or constant
    interpolation: linear    # of images: linear or cubic; masks always take the nearest pixel
    variants:
    - hflip                  # a step with its defaults
    - rotation: {angle: 90}  # a step with parameters
    - [hflip, elastic]       # a chain
    - name: turned           # a chain with all there is to say
      repeat: 3              # so many draws of it: turned_1, turned_2, turned_3
      border: constant
      fill: 0                # one value, or one for each channel
      steps:
      - rotation: {angle: [-15, 15]}                   # drawn for each source
      - gamma: {gamma: [0.7, 1.4], probability: 0.5}   # done in half of the cases
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard, cast

import numpy as np
import yaml

from flexseg_errors import FlexsegError, nearest
from pipelines import photometric, warps
from pipelines.augment_presets import PRESETS
from pipelines.sources import keyed_hash

Pairs = tuple[tuple[float, float], ...]
Value = float | tuple[float, float] | Pairs  # a number, a range to draw from, a list of points


@dataclasses.dataclass(frozen=True)
class Parameter:
    """What a step's parameter may be.

    Attributes:
      default: taken where none is given.
      minimum: the least number, of each item where it is a list of points.
      maximum: the largest.
      drawn: whether it may be a range, from which a number is drawn for each source.
    """

    default: float | Pairs
    minimum: float
    maximum: float
    drawn: bool = True


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a step's name stands for.

    Attributes:
      function: makes a `warps.Warp` from a size, or an image from an image; its docstring says what
        the parameters mean.
      geometric: whether it moves pixels; if not, it changes the image alone.
      parameters: by name.
      noisy: whether the function draws numbers itself, and so takes `rng`.
    """

    function: Callable[..., Any]
    geometric: bool
    parameters: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)
    noisy: bool = False


_PROBABILITY = Parameter(1.0, 0.0, 1.0, drawn=False)  # of every step
_RADIUS = Parameter(0.5, 0.01, 10.0)
_CENTERS = Parameter(((0.5, 0.5),), -1.0, 2.0, drawn=False)

STEPS: Mapping[str, Kind] = {
    "hflip": Kind(warps.hflip, True),
    "vflip": Kind(warps.vflip, True),
    "rotation": Kind(warps.rotation, True, {"angle": Parameter(90.0, -360.0, 360.0)}),
    "shrink": Kind(warps.shrink, True, {"factor": Parameter(0.8, 0.1, 10.0)}),
    "shear": Kind(warps.shear, True, {"factor": Parameter(0.1, -2.0, 2.0)}),
    "elastic": Kind(
        warps.elastic,
        True,
        {"alpha": Parameter(1300.0, 0.0, 1e5), "sigma": Parameter(8.0, 1.0, 100.0)},
        noisy=True,
    ),
    "distortion": Kind(
        warps.distortion,
        True,
        {"share": Parameter(0.02, 0.0, 0.5), "rsigma": Parameter(40.0, 4.0, 512.0)},
        noisy=True,
    ),
    "barrel": Kind(
        warps.radial,
        True,
        {"radius": _RADIUS, "amount": Parameter(0.5, 0.0, 10.0), "centers": _CENTERS},
    ),
    "pincushion": Kind(
        warps.radial,
        True,
        # At an amount of -1 the middle of the disc would be torn open.
        {"radius": _RADIUS, "amount": Parameter(-0.5, -0.9, 0.0), "centers": _CENTERS},
    ),
    "sharpen": Kind(photometric.sharpen, False, {"k": Parameter(1.0, 0.0, 10.0)}),
    "brighten": Kind(
        photometric.stretch,
        False,
        {"alpha": Parameter(1.2, 0.0, 10.0), "beta": Parameter(10.0, -255.0, 255.0)},
    ),
    "contrast": Kind(
        photometric.stretch,
        False,
        {"alpha": Parameter(1.5, 0.0, 10.0), "beta": Parameter(40.0, -255.0, 255.0)},
    ),
    "gamma": Kind(photometric.gamma, False, {"gamma": Parameter(1.2, 0.05, 20.0)}),
    "invert": Kind(photometric.invert, False),
    "blur": Kind(photometric.blur, False, {"sigma": Parameter(1.0, 0.1, 100.0)}),
    "noise": Kind(photometric.noise, False, {"sigma": Parameter(8.0, 0.0, 255.0)}, noisy=True),
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One change; made by `make_step`, which checks it.

    Attributes:
      name: a key of `STEPS`.
      values: name and value of every parameter, in the order of the kind.
      probability: with which it is done at all.
    """

    name: str
    values: tuple[tuple[str, Value], ...] = ()
    probability: float = 1.0

    @property
    def kind(self) -> Kind:
        return STEPS[self.name]

    @property
    def drawn(self) -> bool:
        """Whether any of it is left to chance."""
        return self.kind.noisy or self.probability != 1 or any(_is_range(v) for _, v in self.values)

    def draw(self, rng: np.random.Generator) -> Step | None:
        """The step with a number for every range; None where chance leaves it out.

        Numbers drawn are rounded to the six digits that the record's text shows, so that the text
        says all of it.
        """
        if self.probability != 1 and rng.random() >= self.probability:
            return None
        values = []
        for name, value in self.values:
            if _is_range(value):
                low, high = value
                value = float(f"{low + (high - low) * rng.random():.6g}")
            values.append((name, value))
        return Step(self.name, tuple(values))

    def run(self, subject: Any, rng: np.random.Generator) -> Any:
        """Calls the kind's function on a size or an image; the step must have been drawn."""
        generator = {"rng": rng} if self.kind.noisy else {}
        return self.kind.function(subject, **dict(self.values), **generator)

    def to_dict(self) -> dict[str, Any]:
        values = {name: _plain(value) for name, value in self.values}
        return {self.name: {**values, "probability": self.probability}}

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{n}={_text(v)}' for n, v in self.values)})"


def make_step(name: str, parameters: Mapping[str, Any] | None = None, where: str = "") -> Step:
    """A step with its defaults filled in.

    Args:
      name: a key of `STEPS`.
      parameters: numbers, ranges [low, high], or lists of points.
      where: what the error message begins with.

    Raises:
      FlexsegError: an unknown step or parameter, or a value that does not fit.
    """
    if name not in STEPS:
        raise FlexsegError(
            f'{where}there is no step "{name}"; there are {", ".join(STEPS)}.'
            + nearest(name, STEPS)
        )
    known = {**STEPS[name].parameters, "probability": _PROBABILITY}
    if parameters is not None and not isinstance(parameters, Mapping):
        example = next(iter(known))
        raise FlexsegError(
            f'{where}step "{name}" is given {parameters!r}; expected its parameters by name, such '
            f"as {name}: {{{example}: {_text(known[example].default)}}}."
        )
    for given in parameters or ():
        if given not in known:
            raise FlexsegError(
                f'{where}step "{name}" has no parameter "{given}"; it has {", ".join(known)}.'
                + nearest(str(given), known)
            )
    given_values = dict(parameters or {})
    values = {
        key: _checked(given_values.get(key, p.default), p, f"{where}{name}: {key}")
        for key, p in known.items()
    }
    probability = cast(float, values.pop("probability"))
    return Step(name, tuple(values.items()), probability)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One changed copy of every source.

    Attributes:
      name: distinct within the plan, whatever the case of its letters, and fit for a file name.
      steps: what is done, in this order; photometric steps come after all geometric ones.
      border: what fills what lies outside of the image; a key of `warps.BORDERS`.
      fill: of the border "constant": one intensity, or one for each channel.
      interpolation: of the image; a key of `warps.INTERPOLATIONS`.
    """

    name: str
    steps: tuple[Step, ...]
    border: str = "reflect"
    fill: tuple[int, ...] = (0,)
    interpolation: str = "linear"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", self.name):
            raise FlexsegError(
                f'The variant name "{self.name}" is not fit for a file name: expected up to 100 '
                "letters, digits, dots, underscores, plus and minus signs, a letter or digit first."
            )
        for key, known in (("border", warps.BORDERS), ("interpolation", warps.INTERPOLATIONS)):
            value = getattr(self, key)
            if value not in list(known):  # a list, as what YAML gives may be no key at all
                raise FlexsegError(
                    f'Variant "{self.name}": {key} "{value}" is unknown; known are '
                    f"{', '.join(known)}.{nearest(str(value), known)}"
                )
        if not self.fill or any(type(v) is not int or not 0 <= v <= 255 for v in self.fill):
            raise FlexsegError(
                f'Variant "{self.name}": fill must be whole numbers 0..255, one or one for each '
                f"channel, not {list(self.fill)}."
            )

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "steps": [step.to_dict() for step in self.steps],
            "border": self.border,
            "fill": list(self.fill),
            "interpolation": self.interpolation,
        }


@dataclasses.dataclass(frozen=True)
class AugmentPlan:
    """The examples that each source gives.

    Attributes:
      variants: the changed copies.
      keep_source: whether the source itself comes first.
    """

    variants: tuple[Variant, ...]
    keep_source: bool = True

    def __post_init__(self) -> None:
        names = [variant.name.lower() for variant in self.variants]  # some disks know no capitals
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise FlexsegError(
                f'Several variants are called "{twice[0]}". Give each a name of its own with name.'
            )
        if not names and not self.keep_source:
            raise FlexsegError(
                "The augmentation plan leaves nothing: it has no variants and drops the source."
            )

    @property
    def examples_per_source(self) -> int:
        return len(self.variants) + self.keep_source

    def to_dict(self) -> dict[str, Any]:
        """Plain data that says all of it; `from_dict` makes the same plan of it."""
        return {
            "keep_source": self.keep_source,
            "variants": [variant.to_dict() for variant in self.variants],
        }


def apply(
    plan: AugmentPlan, image: np.ndarray, mask: np.ndarray, seed: int, source_id: str
) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """The examples of one source, each made when it is asked for.

    Args:
      plan: what to make.
      image: uint8 [H, W, C].
      mask: class ids, uint8 [H, W].
      seed: of all draws.
      source_id: the source's id; another one draws otherwise.

    Yields:
      (image uint8 [H, W, C], mask uint8 [H, W], text); contiguous, and the arrays given where
      nothing is done to them. The text is "" for the source itself, or else the variant's name, a
      colon, and the steps with what was drawn.
    """
    image, mask = np.ascontiguousarray(image), np.ascontiguousarray(mask)
    if plan.keep_source:
        yield image, mask, ""
    for variant in plan.variants:
        yield apply_variant(variant, image, mask, seed, source_id)


def apply_variant(
    variant: Variant, image: np.ndarray, mask: np.ndarray, seed: int, source_id: str
) -> tuple[np.ndarray, np.ndarray, str]:
    """One example of one source; see `apply`."""
    _check_arrays(image, mask, variant)
    image, mask = np.ascontiguousarray(image), np.ascontiguousarray(mask)
    # A variant's name has no colon, so that no two sources and variants share a key.
    rng = np.random.Generator(np.random.PCG64(keyed_hash(seed, f"{source_id}:{variant.name}")))
    drawn = [step for step in (s.draw(rng) for s in variant.steps) if step]
    moves = [step.run(mask.shape, rng) for step in drawn if step.kind.geometric]
    image, mask = warps.resample(
        image,
        mask,
        moves,
        variant.interpolation,
        variant.border,
        variant.fill,
        reuse=not any(step.drawn for step in variant.steps if step.kind.geometric),
    )
    for step in drawn:
        if not step.kind.geometric:
            image = step.run(image, rng)
    text = f"{variant.name}: {' + '.join(map(str, drawn)) or 'unchanged'}"
    return image, mask, text


def variant_name(text: str) -> str:
    """The variant's name in what a record says of its augmentation; "" for a source itself."""
    return text.partition(":")[0]


def load(file_or_preset: str) -> AugmentPlan:
    """Reads a plan from a YAML file, or takes the preset of that name.

    Raises:
      FlexsegError: where there is neither, or the file is not a plan.
    """
    if file_or_preset in PRESETS:
        return from_dict({"preset": file_or_preset}, "--augment")
    if not os.path.isfile(file_or_preset):
        raise FlexsegError(
            f"--augment={file_or_preset}: there is no such file, nor such a preset; the presets "
            f"are {', '.join(PRESETS)}.{nearest(file_or_preset, PRESETS)}"
        )
    try:
        with open(file_or_preset, encoding="utf-8") as file:
            return from_dict(yaml.safe_load(file), file_or_preset)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FlexsegError(f"{file_or_preset} is not a YAML file: {error}") from error


def from_dict(data: Any, origin: str = "augmentation plan") -> AugmentPlan:
    """Makes a plan of what its YAML form holds, or of what `AugmentPlan.to_dict` gave.

    Args:
      data: a list of variants, or a mapping; see the top of this file.
      origin: what the error message begins with.

    Raises:
      FlexsegError: anything that is not understood, with the nearest name that is known.
    """
    if isinstance(data, list):
        data = {"variants": data}
    if not isinstance(data, Mapping) or not data:
        raise FlexsegError(
            f"{origin}: expected a list of variants, or a mapping with the key preset or variants."
        )
    where = f"{origin}: "
    _refuse_unknown(data, (*_PLAN_KEYS, *_DEFAULT_KEYS), where)
    keep_source = data.get("keep_source", True)
    if not isinstance(keep_source, bool):
        raise FlexsegError(f"{where}keep_source must be true or false, not {keep_source!r}.")
    listed = data.get("variants", [])
    if not isinstance(listed, list):
        raise FlexsegError(f"{where}variants must be a list (lines that begin with a dash).")
    variants: list[Variant] = []
    if "preset" in data:
        variants += _preset(data["preset"], where)
    defaults = {key: data[key] for key in _DEFAULT_KEYS if key in data}
    for number, item in enumerate(listed, 1):
        variants += _variants(item, defaults, f"{where}variant {number}: ")
    try:
        return AugmentPlan(tuple(variants), keep_source)
    except FlexsegError as error:
        raise FlexsegError(f"{where}{error}") from error


_PLAN_KEYS = ("preset", "variants", "keep_source")
_DEFAULT_KEYS = ("border", "fill", "interpolation")  # of all variants listed, or of one
_VARIANT_KEYS = ("name", "steps", "repeat", *_DEFAULT_KEYS)


def _preset(name: Any, where: str) -> Sequence[Variant]:
    if name not in list(PRESETS):  # a list, as what YAML gives may be no key at all
        raise FlexsegError(
            f'{where}there is no preset "{name}"; there are {", ".join(PRESETS)}.'
            + nearest(str(name), PRESETS)
        )
    return from_dict({"variants": PRESETS[name]}, f"preset {name}").variants


def _variants(item: Any, defaults: Mapping[str, Any], where: str) -> list[Variant]:
    if not isinstance(item, Mapping) or not any(key in item for key in _VARIANT_KEYS):
        item = {"steps": item if isinstance(item, list) else [item]}
    _refuse_unknown(item, _VARIANT_KEYS, where)
    listed = item.get("steps")
    if not isinstance(listed, list) or not listed:
        raise FlexsegError(f"{where}steps must be a list of at least one step.")
    steps = tuple(_step(step, where) for step in listed)
    repeat = item.get("repeat", 1)
    if type(repeat) is not int or repeat < 1:
        raise FlexsegError(f"{where}repeat must be a whole number from 1, not {repeat!r}.")
    if repeat > 1 and not any(step.drawn for step in steps):
        raise FlexsegError(
            f"{where}repeat: {repeat} would make {repeat} equal copies, as nothing in the steps is "
            "left to chance. Give a range, such as [-15, 15], or a probability."
        )
    name = item.get("name", "_".join(_given(step) for step in listed))
    if not isinstance(name, str):
        raise FlexsegError(f"{where}name must be text, not {name!r}; put it in quotes.")
    options = {**defaults, **{key: item[key] for key in _DEFAULT_KEYS if key in item}}
    fill = options.get("fill", 0)
    options["fill"] = tuple(fill) if isinstance(fill, (list, tuple)) else (fill,)
    names = [f"{name}_{i}" for i in range(1, repeat + 1)] if repeat > 1 else [name]
    try:
        return [Variant(n, steps, **options) for n in names]
    except FlexsegError as error:
        raise FlexsegError(f"{where}{error}") from error


def _step(item: Any, where: str) -> Step:
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, parameters),) = item.items()
        return make_step(str(name), parameters, where)
    if isinstance(item, str):
        return make_step(item, None, where)
    raise FlexsegError(
        f"{where}{item!r} is not a step; expected a name such as hflip, or one name with its "
        "parameters, such as rotation: {angle: 15}."
    )


def _given(item: Any) -> str:
    """What a step contributes to the name of a variant that was given none."""
    if isinstance(item, str):
        return item
    ((name, parameters),) = item.items()
    numbers = []
    for value in (parameters or {}).values():
        ends = value if isinstance(value, (list, tuple)) else [value]
        if not any(isinstance(end, (list, tuple)) for end in ends):
            numbers.append("to".join(f"{end:g}" for end in ends))
    return "_".join([str(name), *numbers])


def _refuse_unknown(data: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    for key in data:
        if key not in known:
            raise FlexsegError(
                f'{where}unknown key "{key}"; expected {", ".join(known)}.'
                + nearest(str(key), known)
            )


def _checked(value: Any, parameter: Parameter, where: str) -> Value:
    points = isinstance(parameter.default, tuple)
    low, high = parameter.minimum, parameter.maximum
    between = f"from {low:g} to {high:g}"

    def number(item: Any) -> bool:
        return isinstance(item, (int, float)) and not isinstance(item, bool) and low <= item <= high

    def numbers(item: Any) -> bool:
        return isinstance(item, (list, tuple)) and len(item) == 2 and all(map(number, item))

    if points:
        if isinstance(value, (list, tuple)) and value and all(map(numbers, value)):
            return tuple((float(x), float(y)) for x, y in value)
        wanted = f"a list of points such as [[0.3, 0.7], [0.5, 0.5]], with numbers {between}"
    elif number(value):
        return float(value)
    elif parameter.drawn and numbers(value) and value[0] <= value[1]:
        return float(value[0]), float(value[1])
    else:
        drawn = ", or a range of them such as [low, high]" if parameter.drawn else ""
        wanted = f"a number {between}{drawn}"
    raise FlexsegError(f"{where} must be {wanted}, not {value!r}.")


def _is_range(value: Value) -> TypeGuard[tuple[float, float]]:
    return isinstance(value, tuple) and not isinstance(value[0], tuple)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    return f"{value:.6g}"


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _check_arrays(image: np.ndarray, mask: np.ndarray, variant: Variant) -> None:
    if (
        image.ndim != 3
        or image.shape[:2] != mask.shape
        or not image.dtype == mask.dtype == np.uint8
    ):
        raise ValueError(
            "Expected image uint8 [H, W, C] and mask uint8 [H, W], not "
            f"{image.dtype} {list(image.shape)} and {mask.dtype} {list(mask.shape)}."
        )
    if variant.border == "constant" and len(variant.fill) not in (1, image.shape[2]):
        raise FlexsegError(
            f'Variant "{variant.name}": fill {list(variant.fill)} does not fit an image of '
            f"{image.shape[2]} channels; give one number, or one for each channel."
        )
