"""Chooses on validation what is done to a run's class ids: stray components removed, holes filled.

Every image of the split is segmented once. Then, class by class, steps are tried: keep the largest
component alone; remove components below a size; fill holes up to one. A step is accepted where both
the class's Dice over all pixels and its mean Dice over images rise, and neither falls for any class
(the background included); of several sizes, the one with the highest mean over images. What was
chosen is written into the run as postprocessing.yaml, also where it is nothing; evaluate, predict
and export apply it from then on.

Examples:
  flexseg tune-postprocessing --run=runs/lung
  flexseg tune-postprocessing --run=runs/lung --data=records --sizes=50,100,200 --dry_run
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import yaml
from absl import flags

from flexseg_console import detail, result
from flexseg_errors import FlexsegError, UsageError
from pipelines import storage
from pipelines.label_map import LabelMap
from train import evaluate, postprocessing, runs
from train.postprocessing import ClassRule, Postprocessing
from train.yaml_text import comment, flow

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_LEAST = 1e-9  # by which a figure must rise: less is rounding


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "run", None, "Run directory of flexseg train. Required.", flag_values=values
    )
    flags.DEFINE_string(
        "data",
        None,
        "Dataset made by flexseg prepare. Default: the one that the run was trained on.",
        flag_values=values,
    )
    flags.DEFINE_string("split", "valid", "Split to choose on.", flag_values=values)
    flags.DEFINE_string(
        "sizes",
        ",".join(map(str, SIZES)),
        "Sizes of components and holes to try, in pixels of the prepared images.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "dry_run", False, "Tell what would be chosen; write nothing.", flag_values=values
    )


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    if not values.run:
        raise UsageError("tune-postprocessing needs --run. See flexseg tune-postprocessing --help.")
    sizes = _parse_sizes(values.sizes)
    trained = runs.load(values.run)
    manifest = evaluate.dataset_of(trained, values.data)
    images = [
        PackedImage.of(image.class_ids, image.truth, image.area)
        for image in evaluate.segmented(trained, manifest, values.split)
    ]
    detail(f"{len(images)} images segmented; now trying {len(sizes)} sizes")
    outcome = tune(images, trained.label_map.num_classes, sizes)
    # Without a file there is nothing else that tells it.
    (result if values.dry_run else print)(table(outcome, trained.label_map))
    path = trained.path(postprocessing.FILE)
    if values.dry_run:
        print(f"--dry_run: {path} was not written.")
        return
    chosen_on = {
        "split": values.split,
        "images": len(images),
        "dataset_fingerprint": manifest.fingerprint,
        postprocessing.WEIGHTS: postprocessing.weights_sha256(trained),
        "dice_before": _rounded(outcome.before.dice),
        "dice_after": _rounded(outcome.after.dice),
        "dice_per_image_before": _rounded(outcome.before.per_image),
        "dice_per_image_after": _rounded(outcome.after.per_image),
    }
    storage.write_whole(path, dump(outcome.chosen, chosen_on, trained.label_map).encode())
    print(f"{path}: written.")


@dataclasses.dataclass(frozen=True)
class PackedImage:
    """Predicted and true class ids of an image, compressed; some hundredths of the pixels' bytes.

    Attributes:
      shape: (height, width).
      predicted: the bytes of uint8 [H, W], by zlib.
      truth: the same.
      area: of a pixel of the prepared image, in pixels of this one.
      present: the classes that were predicted.
    """

    shape: tuple[int, int]
    predicted: bytes
    truth: bytes
    area: float
    present: frozenset[int]

    @classmethod
    def of(cls, predicted: np.ndarray, truth: np.ndarray, area: float = 1.0) -> PackedImage:
        def packed(ids: np.ndarray) -> bytes:
            return zlib.compress(np.ascontiguousarray(ids).data, 1)

        present = frozenset(np.flatnonzero(np.bincount(predicted.ravel())).tolist())
        height, width = predicted.shape
        return cls((height, width), packed(predicted), packed(truth), area, present)

    def unpack(self) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and true class ids, uint8 [H, W]."""
        predicted, truth = (
            np.frombuffer(zlib.decompress(data), np.uint8).reshape(self.shape)
            for data in (self.predicted, self.truth)
        )
        return predicted, truth


@dataclasses.dataclass(frozen=True)
class Figures:
    """Dice of every class; None where there is none.

    Attributes:
      dice: over all pixels.
      per_image: mean over the images that have the class in truth or prediction.
    """

    dice: tuple[float | None, ...]
    per_image: tuple[float | None, ...]

    @classmethod
    def of(cls, counts: np.ndarray) -> Figures:
        """Sums up tallies, int [N, 3, K]; see `metrics.tallies`."""
        from train import metrics

        pooled = metrics.dice_of(counts.sum(0)).tolist()
        return cls(
            tuple(None if np.isnan(d) else d for d in pooled),
            tuple(score.dice_mean for score in metrics.per_image(counts)),
        )


@dataclasses.dataclass(frozen=True)
class Step:
    """A step that was tried.

    Attributes:
      rule: what the class's rule would be.
      what: the step in words.
      figures: of all classes with it.
      refused: why it was not accepted; "" where it was.
    """

    rule: ClassRule
    what: str
    figures: Figures
    refused: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was chosen.

    Attributes:
      chosen: the post-processing.
      before: the figures without any.
      after: the figures with it.
      steps: for each class and kind of step the one accepted, or the best of those refused.
    """

    chosen: Postprocessing
    before: Figures
    after: Figures
    steps: tuple[Step, ...]


def tune(images: Sequence[PackedImage], num_classes: int, sizes: Sequence[int] = SIZES) -> Outcome:
    """Chooses a post-processing; the same for the same images in any order.

    Args:
      images: predictions and truths.
      num_classes: K.
      sizes: of components and holes to try, in pixels of the prepared images.
    """
    chosen = postprocessing.IDENTITY
    counts = _count(images, chosen, num_classes)
    before = now = Figures.of(counts)
    steps: list[Step] = []
    for k in range(1, num_classes):
        concerned = [i for i, image in enumerate(images) if k in image.present]
        for kind in (_largest, _removals, _fillings):
            tried: list[tuple[Step, np.ndarray]] = []
            for rule, what in kind(chosen.of(k), sizes):
                # On other images nothing changes: what another class loses to class k lies beside
                # pixels of class k.
                own = _count([images[i] for i in concerned], chosen.with_rule(rule), num_classes)
                with_it = counts.copy()
                with_it[concerned] = own
                figures = Figures.of(with_it)
                tried.append((Step(rule, what, figures, _refusal(k, now, figures)), with_it))
            best, its_counts = max(tried, key=lambda pair: _merit(pair[0], k))
            steps.append(best)
            if not best.refused:
                chosen, counts, now = chosen.with_rule(best.rule), its_counts, best.figures
    return Outcome(chosen, before, now, tuple(steps))


def table(outcome: Outcome, label_map: LabelMap) -> str:
    """What was tried and what came of it, for a person."""
    names = label_map.names
    width = max(10, *map(len, names))
    head = f"{'class':<{width}}  {'Dice':<18}  {'mean over images':<18}"
    lines = [head.rstrip(), "-" * len(head)]
    before, after = outcome.before, outcome.after
    for k, name in enumerate(names):
        pairs = (before.dice[k], after.dice[k]), (before.per_image[k], after.per_image[k])
        lines.append(f"{name:<{width}}  {'  '.join(_change(*pair) for pair in pairs)}".rstrip())
    lines += ["-" * len(head), ""]
    for step in outcome.steps:
        verdict = f"no: {_named(step.refused, names)}" if step.refused else "accepted"
        lines.append(f"{names[step.rule.id]:<{width}}  {step.what}: {verdict}")
    if outcome.chosen.is_identity:
        lines.append("Nothing helps; class ids stay as they are.")
    return "\n".join(lines)


def dump(chosen: Postprocessing, chosen_on: dict[str, Any], label_map: LabelMap) -> str:
    """The file: what `postprocessing.load` reads, and how it was chosen."""
    lines = comment(
        "What is done to predicted class ids, as flexseg tune-postprocessing chose it. Sizes are "
        "in pixels of the prepared image. Delete the file to leave class ids alone."
    )
    entries = chosen.to_dict()["classes"]
    lines.append("classes:" if entries else "classes: []")
    for entry in entries:
        text = yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=99).rstrip()
        lines.append(f"- {text}  # {label_map.names[entry['id']]}")
    lines.append(f"{postprocessing.CHOICE}:")
    lines += [f"  {key}: {flow(value)}" for key, value in chosen_on.items()]
    return "\n".join(lines) + "\n"


def _largest(rule: ClassRule, sizes: Sequence[int]) -> Iterable[tuple[ClassRule, str]]:
    yield dataclasses.replace(rule, largest_component=True), "largest component alone"


def _removals(rule: ClassRule, sizes: Sequence[int]) -> Iterable[tuple[ClassRule, str]]:
    for size in sizes:
        changed = dataclasses.replace(rule, minimum_size=size)
        yield changed, f"components of at least {size} pixels"


def _fillings(rule: ClassRule, sizes: Sequence[int]) -> Iterable[tuple[ClassRule, str]]:
    for size in sizes:
        yield dataclasses.replace(rule, fill_holes=size), f"holes filled up to {size} pixels"


def _count(images: Sequence[PackedImage], cleaning: Postprocessing, num_classes: int) -> np.ndarray:
    """The tallies of images, int64 [N, 3, K]; see `metrics.tallies`."""
    from train import metrics

    counts = np.zeros((len(images), 3, num_classes), np.int64)
    for place, image in enumerate(images):
        predicted, truth = image.unpack()
        predicted = cleaning.apply(predicted, image.area)
        valid = truth < num_classes
        pairs = truth[valid].astype(np.int64) * num_classes + predicted[valid]
        matrix = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
        counts[place] = metrics.tallies(matrix)
    return counts


def _refusal(k: int, before: Figures, after: Figures) -> str:
    """Why a step for class k is not accepted; "" where it is. `{3}` stands for a class's name."""
    kinds: tuple[tuple[str, Callable[[Figures], tuple[float | None, ...]]], ...] = (
        ("Dice", lambda f: f.dice),
        ("mean Dice over images", lambda f: f.per_image),
    )
    for name, of in kinds:
        for other in sorted(range(len(of(before))), key=lambda c: c != k):  # its own first
            old, new = of(before)[other], of(after)[other]
            if old is not None and new is None:
                return f"no pixel of {{{other}}} would be left, and there is none in the truth"
            if old is not None and new is not None and new < old - _LEAST:
                return f"{name} of {{{other}}} falls, {_number(old)} to {_number(new)}"
    for name, of in kinds:
        old, new = of(before)[k], of(after)[k]
        if old is None or new is None or new <= old + _LEAST:
            return f"{name} does not rise, {_number(old)} to {_number(new)}"
    return ""


def _merit(step: Step, k: int) -> tuple[bool, float, float]:
    """What of several steps of one kind is best; of equals the first."""
    own, pooled = step.figures.per_image[k], step.figures.dice[k]
    return not step.refused, -1.0 if own is None else own, -1.0 if pooled is None else pooled


def _named(text: str, names: Sequence[str]) -> str:
    for k, name in enumerate(names):
        text = text.replace(f"{{{k}}}", name)
    return text


def _change(old: float | None, new: float | None) -> str:
    return f"{_number(old):>7} -> {_number(new):>7}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    return [None if v is None else round(v, 6) for v in values]


def _parse_sizes(text: str) -> list[int]:
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 1:
        raise FlexsegError(
            f'--sizes="{text}": expected whole numbers of pixels, such as 16,64,256.'
        )
    return sizes
