"""Measures which learning rates a network can bear: the range test of L. N. Smith (2017).

The experiment's network is trained on the dataset's real stream while the learning rate rises
exponentially from --low to --high, and the loss of every step is written down. It first falls
slowly, then fast, then turns and grows; the test stops where it does. The suggestion is a tenth of
the rate at which the smoothed loss is lowest. Weights are not kept.

lr_find.csv and lr_find.png, the curve, lie in --output; look at it before you trust the number.

Examples:
  flexseg lr-find records --output=runs/rates
  flexseg lr-find records --experiment=experiment.yaml --output=runs/rates --steps=200
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence

import numpy as np
from absl import flags

from flexseg_console import detail, progress, result
from flexseg_errors import FlexsegError, UsageError
from pipelines import folds
from pipelines import manifest as manifests
from pipelines.manifest import Manifest
from train import experiment as experiments
from train import old_config, runs, shipped
from train.experiment import Experiment

POSITIONAL = ("DATASET",)
NAME = "lr_find"
_SMOOTHING = 0.03  # standard deviation of the smoothing, as a share of the steps
_FACTOR = 10.0  # the suggestion is the rate of the lowest loss over this
_DIVERGED = 4.0  # times the lowest running mean
_RISEN = 2.0  # times the first one
_RUNNING = 0.8  # what a running mean keeps of its past
_FIRST = 5  # steps before which nothing is said of divergence
_LEAST_STEPS = 20


@dataclasses.dataclass(frozen=True)
class Curve:
    """What a range test measured.

    Attributes:
      rates: learning rate of each step, rising, float64 [N].
      losses: loss of each step, before its update, float64 [N].
      diverged: whether it was stopped because the loss grew.
    """

    rates: np.ndarray
    losses: np.ndarray
    diverged: bool

    @property
    def smoothed(self) -> np.ndarray:
        """The losses, averaged with a Gaussian of 3% of the steps; mirrored at the ends."""
        deviation = max(1.0, _SMOOTHING * len(self.losses))
        reach = min(len(self.losses) - 1, math.ceil(3 * deviation))
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
        padded = np.pad(self.losses, reach, mode="reflect")
        return np.convolve(padded, kernel / kernel.sum(), mode="valid")


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """What a curve suggests.

    Attributes:
      rate: a tenth of `lowest`.
      lowest: the rate at which the smoothed loss is lowest.
      steepest: the rate at which it falls fastest with the rate's logarithm.
    """

    rate: float
    lowest: float
    steepest: float


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "output",
        None,
        "Folder for lr_find.csv and lr_find.png; made if it is not there. Required.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "experiment",
        None,
        "YAML file with some or all of the keys below, the INI config of an older project, or the "
        f"name of an experiment that comes with flexseg: {', '.join(shipped.names())}. Default: "
        "the defaults of the keys.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "steps", 100, "Steps of training, from --low to --high.", flag_values=values
    )
    flags.DEFINE_float("low", 1e-6, "Learning rate of the first step.", flag_values=values)
    flags.DEFINE_float("high", 1.0, "Learning rate of the last step.", flag_values=values)
    experiments.define_flags(values)


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    if not values.output:
        raise UsageError("lr-find needs --output. See flexseg lr-find --help.")
    if os.path.lexists(values.output) and not os.path.isdir(values.output):
        raise FlexsegError(f"--output={values.output} is a file; expected a folder.")
    if values.steps < _LEAST_STEPS:
        raise UsageError(f"--steps={values.steps}: expected at least {_LEAST_STEPS}.")
    if not 0 < values.low < values.high < math.inf:
        raise UsageError(
            f"--low={values.low:g} --high={values.high:g}: expected two numbers above 0, the lower "
            "one first."
        )
    experiment = old_config.load_experiment(values.experiment, experiments.overrides_from(values))
    manifest = folds.view(manifests.load(rest[0]), experiment.data.fold)
    curve = measure(experiment, manifest, steps=values.steps, low=values.low, high=values.high)
    found = suggest(curve)
    write(values.output, curve, found)
    detail(f"{values.output}: {NAME}.csv and {NAME}.png of {len(curve.losses)} steps")
    result(explain(curve, found))


def measure(
    experiment: Experiment, manifest: Manifest, *, steps: int, low: float, high: float
) -> Curve:
    """Trains while the learning rate rises, until the loss diverges or the steps are done.

    Args:
      experiment: what is trained; its schedule, warm-up and learning rate are left aside.
      manifest: of the dataset, as the run sees it.
      steps: from the lowest to the highest rate.
      low: rate of the first step.
      high: rate of the last step.

    Raises:
      FlexsegError: as a training's start would.
    """
    from train import rehearsal

    # A schedule of T steps ends just before the rate it rises to, so T = steps - 1 and the last
    # step, at T, has that rate.
    optimizer = dataclasses.replace(
        experiment.optimizer,
        learning_rate=high,
        schedule="exponential",
        start_share=low / high,
        warmup_steps=0,
    )
    run = runs.plan("", dataclasses.replace(experiment, optimizer=optimizer), manifest)
    rehearsed = rehearsal.rehearse(run, manifest, total=steps - 1)
    iterator = rehearsed.iterator()
    rates = low * (high / low) ** (np.arange(steps) / (steps - 1))
    losses: list[float] = []
    diverged = False
    with progress(total=steps, unit="step") as bar:
        while len(losses) < steps and not diverged:
            count = min(experiment.train.steps_per_call, steps - len(losses))
            losses += rehearsed.steps.train(iterator, len(losses), count).losses.tolist()
            end = divergence(losses)
            if end is not None:
                losses, diverged = losses[:end], True
            bar.update(count)
            bar.set_postfix_str(
                f"learning rate {rates[len(losses) - 1]:.2g}, loss {losses[-1]:.4f}"
            )
    return Curve(rates[: len(losses)], np.array(losses, np.float64), diverged)


def divergence(losses: Sequence[float]) -> int | None:
    """How many steps come before the loss has diverged; None where it has not.

    It has where it is no number, or where its running mean (bias-corrected, as Adam's) is four
    times its lowest or twice its first value.
    """
    mean, lowest, first = 0.0, math.inf, math.inf
    for step, loss in enumerate(losses):
        if not math.isfinite(loss):
            return step
        mean = _RUNNING * mean + (1 - _RUNNING) * loss
        value = mean / (1 - _RUNNING ** (step + 1))
        if step < _FIRST:
            first = value
        elif value > _DIVERGED * lowest or value > _RISEN * first:
            return step
        lowest = min(lowest, value)
    return None


def suggest(curve: Curve) -> Suggestion:
    """Reads a curve.

    Raises:
      FlexsegError: where it says nothing: the loss was lowest at the first rates.
    """
    few = len(curve.losses) < _FIRST + 2
    smoothed = curve.losses if few else curve.smoothed
    at = int(np.argmin(smoothed)) if len(smoothed) else 0
    if few or at < 2:
        raise FlexsegError(
            f"The loss did not fall between the learning rates {_first(curve):.2g} and "
            f"{_last(curve):.2g}, of which {len(curve.losses)} steps were made. Give a lower "
            "--low, or more --steps; if that is no help, look at labels and loss."
        )
    slopes = np.gradient(smoothed, np.log(curve.rates))[: at + 1]
    return Suggestion(
        rate=float(curve.rates[at] / _FACTOR),
        lowest=float(curve.rates[at]),
        steepest=float(curve.rates[int(np.argmin(slopes))]),
    )


def explain(curve: Curve, found: Suggestion) -> str:
    """The suggestion, its rule, and what to beware of, for the person."""
    lines = [
        f"--config.optimizer.learning_rate={found.rate:.1e}",
        f"  a tenth of {found.lowest:.2g}, where the loss, smoothed, is lowest; it falls fastest "
        f"at {found.steepest:.2g}",
    ]
    if curve.diverged:
        lines.append(f"  the loss diverged at {_last(curve):.2g}")
    elif found.lowest > curve.rates[-1] / 2:
        lines.append("  the loss still fell at the highest rate: try again with a higher --high")
    return "\n".join(lines)


def write(folder: str, curve: Curve, found: Suggestion) -> None:
    """Writes lr_find.csv (step,learning_rate,loss,smoothed) and lr_find.png into a folder."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, NAME)
    lines = ["step,learning_rate,loss,smoothed"]
    rows = zip(curve.rates, curve.losses, curve.smoothed, strict=True)
    lines += [f"{i},{r:.6e},{loss:.6f},{s:.6f}" for i, (r, loss, s) in enumerate(rows)]
    with open(path + ".csv.tmp", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(curve.rates, curve.losses, color="tab:gray", alpha=0.5, label="loss of a step")
    axes.plot(curve.rates, curve.smoothed, color="tab:blue", label="smoothed")
    axes.axvline(found.rate, color="tab:green", label=f"suggested: {found.rate:.1e}")
    axes.axvline(found.steepest, color="tab:orange", linestyle=":", label="falls fastest")
    axes.axvline(found.lowest, color="tab:red", linestyle="--", label="lowest")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.grid(visible=True)
    axes.legend(loc="upper left")
    figure.savefig(path + ".png.tmp", format="png")
    for suffix in (".csv", ".png"):
        os.replace(path + suffix + ".tmp", path + suffix)


def _first(curve: Curve) -> float:
    return float(curve.rates[0]) if len(curve.rates) else math.nan


def _last(curve: Curve) -> float:
    return float(curve.rates[-1]) if len(curve.rates) else math.nan
