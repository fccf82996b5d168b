"""Losses are their formulas, and may be summed up in parts."""

import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from flexseg_errors import FlexsegError
from pipelines.label_map import IGNORE_ID
from train import losses
from train.losses import CrossEntropy, SoftDice

OUTPUTS = [1, 2, 4]  # logits per pixel; one is a sigmoid head
ALL = ["ce", "dice", "0.3*ce+0.7*dice"]


def example(outputs, *, batch=3, size=6, ignored=0.2, seed=0):
    """Logits [B, H, W, outputs] and labels [B, H, W] of which a part is to be ignored."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (batch, size, size, outputs)).astype(np.float32)
    labels = rng.integers(0, max(2, outputs), (batch, size, size)).astype(np.uint8)
    labels[rng.random(labels.shape) < ignored] = IGNORE_ID
    return logits, labels


def probabilities_of(logits):
    """In float64 and by the definition."""
    logits = logits.astype(np.float64)
    if logits.shape[-1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], -1)
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected_ce(logits, labels):
    p = probabilities_of(logits)
    valid = labels < p.shape[-1]
    return sklearn.metrics.log_loss(labels[valid], p[valid], labels=range(p.shape[-1]))


def expected_dice(logits, labels, smooth=1.0):
    p = probabilities_of(logits)
    valid = labels < p.shape[-1]
    truth = labels[valid][:, None] == np.arange(p.shape[-1])
    p = p[valid]
    dice = (2 * (p * truth).sum(0) + smooth) / (p.sum(0) + truth.sum(0) + smooth)
    return 1 - dice[1:].mean()


EXPECTED = {
    "ce": expected_ce,
    "dice": expected_dice,
    "0.3*ce+0.7*dice": lambda z, y: 0.3 * expected_ce(z, y) + 0.7 * expected_dice(z, y),
}


def value_of(loss, logits, labels):
    return loss.value(loss.sums(tf.constant(logits), tf.constant(labels)))


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_a_loss_is_its_formula_over_the_pixels_that_count(text, outputs):
    logits, labels = example(outputs)
    found = value_of(losses.parse(text), logits, labels).numpy()
    np.testing.assert_allclose(found, EXPECTED[text](logits, labels), rtol=1e-5)


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_what_stands_under_ignored_pixels_changes_nothing(text, outputs):
    logits, labels = example(outputs)
    other = np.where((labels == IGNORE_ID)[..., None], -logits * 7 + 3, logits)
    loss = losses.parse(text)
    assert value_of(loss, logits, labels) == value_of(loss, other, labels)


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_sums_of_parts_add_up_to_the_loss_of_the_whole(text, outputs):
    logits, labels = example(outputs, batch=5)
    loss = losses.parse(text)
    parts = [loss.sums(logits[a:b], labels[a:b]) for a, b in ((0, 1), (1, 3), (3, 5))]
    added = {key: sum(part[key] for part in parts) for key in parts[0]}
    np.testing.assert_allclose(
        loss.value(added).numpy(), value_of(loss, logits, labels).numpy(), rtol=1e-5
    )


@pytest.mark.parametrize("text", ALL)
def test_a_batch_of_padding_adds_nothing_to_the_sums(text):
    logits, labels = example(4)
    loss = losses.parse(text)
    nothing = loss.sums(logits, np.full_like(labels, IGNORE_ID))
    assert all(not value.numpy().any() for value in nothing.values())


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("labels", ["background alone", "foreground alone", "nothing counts"])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_value_and_gradient_are_finite_whatever_is_missing(text, outputs, labels, size):
    logits = tf.constant(example(outputs)[0] * size)
    fill = {"background alone": 0, "foreground alone": 1, "nothing counts": IGNORE_ID}[labels]
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = value_of(losses.parse(text), logits, np.full(logits.shape[:3], fill, np.uint8))
    gradient = tape.gradient(value, logits).numpy()
    assert np.isfinite(value.numpy())
    assert np.isfinite(gradient).all()
    if labels == "nothing counts":
        assert value == 0
        assert not gradient.any()


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_the_gradient_is_the_slope_of_the_formula(text, outputs):
    logits, labels = example(outputs, batch=1, size=3)
    with tf.GradientTape() as tape:
        variable = tf.constant(logits)
        tape.watch(variable)
        value = value_of(losses.parse(text), variable, labels)
    found = tape.gradient(value, variable).numpy()
    expected, h = np.zeros(logits.shape), 1e-5
    for index in np.ndindex(*logits.shape):
        step = np.zeros(logits.shape)
        step[index] = h
        up, down = (EXPECTED[text](logits + s, labels) for s in (step, -step))
        expected[index] = (up - down) / (2 * h)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_soft_dice_is_known_by_hand():
    """Two pixels, class 1 at even odds on both, true on one: 1 - (2 * 0.5 + 1) / (1 + 1 + 1)."""
    logits, labels = np.zeros((1, 1, 2, 2), np.float32), np.array([[[0, 1]]], np.uint8)
    np.testing.assert_allclose(value_of(SoftDice(), logits, labels), 1 - 2 / 3, rtol=1e-6)


def test_soft_dice_leaves_the_background_out():
    """Perfect on the background and blind to the rest is no better than its share of the rest."""
    labels = np.zeros((1, 20, 20), np.uint8)
    labels[0, 0, :10] = 1
    logits = np.zeros((1, 20, 20, 2), np.float32)
    logits[..., 0] = 50
    assert value_of(SoftDice(), logits, labels) > 0.9


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("ce", [(1.0, "ce")]),
        ("ce+dice", [(1.0, "ce"), (1.0, "dice")]),
        (" 0.5 * ce + 2*dice ", [(0.5, "ce"), (2.0, "dice")]),
        ("1e-2*dice", [(0.01, "dice")]),
    ],
)
def test_a_loss_is_read_with_its_weights(text, terms):
    read = losses.parse(text).terms
    assert [(weight, name) for weight, name, _ in read] == terms
    assert [type(loss) for *_, loss in read] == [losses.LOSSES[name] for _, name in terms]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("dise", 'Did you mean "dice"'),
        ("ce+", '"" is not a loss'),
        ("", '"" is not a loss'),
        ("half*ce", '"half\\*ce" is not a loss'),
        ("ce dice", "is not a loss"),
        ("ce+dice+ce", "names ce twice"),
        ("1.2.3*ce", '"1.2.3" is not a weight'),
        ("e*ce", '"e" is not a weight'),
        ("-1*ce", '"-1" is not a weight'),
        ("0*ce+dice", '"0" is not a weight'),
    ],
)
def test_a_loss_that_cannot_be_read_is_told(text, wanted):
    with pytest.raises(FlexsegError, match=wanted):
        losses.parse(text)


def test_every_loss_can_be_asked_for_by_name():
    assert set(losses.LOSSES.values()) == {CrossEntropy, SoftDice}
    for name, kind in losses.LOSSES.items():
        assert isinstance(losses.parse(name).terms[0][2], kind)
