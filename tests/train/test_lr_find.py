"""The learning-rate range test: rates, divergence and suggestion; and the program around them."""

import csv

import cv2
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from flexseg_errors import FlexsegError
from pipelines import manifest as manifests
from train import experiment as experiments
from train import lr_find, schedules
from train.experiment import OptimizerConfig

from .conftest import TINY


def curve(function, low=1e-6, high=1.0, steps=100, *, diverged=False):
    rates = np.geomspace(low, high, steps)
    return lr_find.Curve(rates, np.array([function(r) for r in rates]), diverged)


def valley(rate, lowest=1e-2):
    """A loss that falls with the logarithm of the rate and is lowest at `lowest`."""
    return 1 + np.log10(rate / lowest) ** 2 / 8


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss():
    for lowest in (1e-4, 1e-3, 1e-2, 3e-2):
        found = lr_find.suggest(curve(lambda rate, at=lowest: valley(rate, at)))
        assert found.lowest == pytest.approx(lowest, rel=0.16), "within a step"
        assert found.rate == pytest.approx(found.lowest / 10)
        assert found.steepest < found.lowest


def test_noise_does_not_move_it_far():
    rng = np.random.default_rng(0)
    found = lr_find.suggest(curve(lambda rate: valley(rate) + rng.normal(0, 0.05)))
    assert 3e-3 < found.lowest < 3e-2


def test_it_falls_fastest_where_the_slope_is_steepest():
    step = curve(lambda rate: 1 / (1 + (rate / 1e-3) ** 2))  # a logistic curve in log(rate)
    assert lr_find.suggest(step).steepest == pytest.approx(1e-3, rel=0.2)


def test_smoothing_is_a_gaussian_that_mirrors_at_the_ends():
    rng = np.random.default_rng(1)
    made = lr_find.Curve(np.geomspace(1e-6, 1, 100), rng.normal(size=100), False)
    expected = ndimage.gaussian_filter1d(made.losses, 3.0, mode="mirror", radius=9)
    np.testing.assert_allclose(made.smoothed, expected, atol=1e-12)


@pytest.mark.parametrize("losses", [np.geomspace(1, 9, 40), np.full(3, 1.0), np.array([])])
def test_a_curve_that_never_falls_suggests_nothing(losses):
    rates = np.geomspace(1e-6, 1, 40)[: len(losses)]
    with pytest.raises(FlexsegError, match="Give a lower --low"):
        lr_find.suggest(lr_find.Curve(rates, losses, False))


def test_a_loss_that_still_falls_is_told():
    falling = curve(lambda rate: 2 - np.log10(rate) / 10)
    assert "try again with a higher --high" in lr_find.explain(falling, lr_find.suggest(falling))
    assert "higher --high" not in lr_find.explain(
        curve(valley, diverged=True), lr_find.suggest(curve(valley))
    )


@pytest.mark.parametrize(
    ("losses", "steps"),
    [
        ([1.0] * 50, None),
        ([1.0, 0.9, float("nan"), 0.8], 2),
        ([1.0, float("inf")], 1),
        ([float("nan")], 0),
        ([3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.2, 1.1], None),  # the first is not the lowest
    ],
)
def test_divergence_is_what_is_no_number(losses, steps):
    assert lr_find.divergence(losses) == steps


@pytest.mark.parametrize("factor", [2.5, 10.0])
def test_divergence_is_what_rises_far_above_what_was(factor):
    begun = [1.0] * 20
    steps = lr_find.divergence(begun + [factor] * 30)
    assert steps is not None
    assert 20 <= steps < 40
    low = [1.0] * 10 + [0.1] * 30  # four times the lowest, though below the first
    steps = lr_find.divergence(low + [0.9] * 30)
    assert steps is not None
    assert 40 <= steps < 50


def test_one_spike_is_no_divergence():
    assert lr_find.divergence([1.0] * 20 + [4.0] + [1.0] * 20) is None


def test_the_rates_are_those_of_the_exponential_schedule():
    steps, low, high = 40, 1e-5, 0.3
    config = OptimizerConfig(
        learning_rate=high, schedule="exponential", start_share=low / high, warmup_steps=0
    )
    rates = low * (high / low) ** (np.arange(steps) / (steps - 1))
    for step, rate in enumerate(rates):
        got = schedules.learning_rate(config, tf.constant(step), steps - 1).numpy()
        assert got == pytest.approx(rate, rel=1e-4)


@pytest.fixture(scope="module")
def measured(dataset):
    keys = {**TINY, "train.steps_per_call": 7, "model.base_filters": 4}
    experiment = experiments.load(None, {k: str(v) for k, v in keys.items()})
    manifest = manifests.load(str(dataset))
    return lr_find.measure(experiment, manifest, steps=40, low=1e-5, high=100.0)


def test_a_real_network_learns_at_some_rates_and_diverges_at_others(measured):
    assert measured.rates[0] == 1e-5
    assert len(measured.rates) == len(measured.losses) <= 40
    assert np.isfinite(measured.losses).all()
    found = lr_find.suggest(measured)
    assert measured.smoothed.min() < 0.9 * measured.losses[:3].mean()
    assert 1e-5 < found.rate < 1.0


def test_the_program_writes_a_table_and_a_curve_and_nothing_else(command, dataset, tmp_path):
    keys = {**TINY, "train.steps_per_call": 10, "model.base_filters": 4}
    flags = [f"--config.{k}={v}" for k, v in keys.items()]
    out = tmp_path / "rates"
    outcome = command("lr-find", dataset, f"--output={out}", "--steps=30", "--low=1e-5", *flags)
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("--config.optimizer.learning_rate=")
    assert "a tenth of" in outcome.out
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["lr_find.csv", "lr_find.png", "rates"]
    with open(out / "lr_find.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "learning_rate", "loss", "smoothed"]
    assert [int(row["step"]) for row in rows] == list(range(len(rows)))
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, np.geomspace(1e-5, 1, 30)[: len(rates)], rtol=1e-5)
    losses = np.array([float(row["loss"]) for row in rows])
    smoothed = lr_find.Curve(np.array(rates), losses, False).smoothed
    np.testing.assert_allclose([float(r["smoothed"]) for r in rows], smoothed, atol=1e-5)
    assert cv2.imread(str(out / "lr_find.png")).shape == (600, 800, 3)


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        ([], 2, "lr-find needs --output"),
        (["--output=OUT", "--steps=3"], 2, "expected at least 20"),
        (["--output=OUT", "--low=1", "--high=0.1"], 2, "the lower one first"),
        (["--output=OUT", "--low=0"], 2, "above 0"),
        (["--output=OUT", "--config.model.levels=9"], 1, "data.crop_size"),
        (["--output=FILE"], 1, "is a file"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(
    command, dataset, tmp_path, flags, status, message
):
    (tmp_path / "file").write_text("")
    places = {"OUT": str(tmp_path / "out"), "FILE": str(tmp_path / "file")}
    for name, path in places.items():
        flags = [flag.replace(f"={name}", f"={path}") for flag in flags]
    outcome = command("lr-find", dataset, *flags)
    assert outcome.status == status
    assert message in outcome.err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
