"""What holds for every loss by name, and how sums of losses are read."""

import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from pipelines.label_map import IGNORE_ID
from train import losses

OUTPUTS = [1, 3]  # logits per pixel; one is a sigmoid head
ALL = [
    *losses.LOSSES,
    "ce(smoothing=0.2)",
    "focal(gamma=0.5)",
    "dice(per_image=true,background=true)",
    "jaccard(smooth=0)",
    "generalized_dice(per_image=true,smooth=0)",
    "generalized_dice(background=false)",
    "lovasz(background=false)",
    "cldice(iterations=2)",
    "0.3*ce+0.7*dice",
]


def example(outputs, *, batch=3, seed=0):
    """Logits [B, 13, 12, outputs] and labels [B, 13, 12] of blocks, with pixels to be ignored."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (batch, 13, 12, outputs)).astype(np.float32)
    blocks = rng.integers(0, max(2, outputs), (batch, 5, 4)).astype(np.uint8)
    labels = blocks.repeat(3, 1).repeat(3, 2)[:, :13]
    labels[rng.random(labels.shape) < 0.1] = IGNORE_ID
    labels[0, :4, :6] = IGNORE_ID
    return logits, labels


def perfect(labels, outputs, size=40.0):
    """Logits that are sure of the truth, whatever that is where pixels do not count."""
    if outputs == 1:
        return np.where(labels[..., None] == 1, size, -size).astype(np.float32)
    return np.where(labels[..., None] == np.arange(outputs), size, -size).astype(np.float32)


def value_of(loss, logits, labels):
    return loss.value(loss.sums(tf.constant(logits), tf.constant(labels)))


def with_gradient(text, logits, labels):
    loss, logits = losses.parse(text), tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = value_of(loss, logits, labels)
    return value.numpy(), tape.gradient(value, logits).numpy()


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_ignored_pixels_change_nothing_and_get_no_gradient(text, outputs):
    logits, labels = example(outputs)
    ignored = labels == IGNORE_ID
    value, gradient = with_gradient(text, logits, labels)
    assert not gradient[ignored].any()
    assert gradient[~ignored].any()
    for anything in (-logits * 1e4 + 3, np.nan):
        other = np.where(ignored[..., None], anything, logits).astype(np.float32)
        elsewhere, same = with_gradient(text, other, labels)
        assert value == elsewhere
        np.testing.assert_array_equal(gradient, same)


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_the_truth_has_the_least_value(text, outputs):
    if "smoothing" in text:
        pytest.skip("Smoothed labels are no certainties.")
    logits, labels = example(outputs)
    loss, sure = losses.parse(text), perfect(labels, outputs)
    least = value_of(loss, sure, labels).numpy()
    if not {"boundary"} & {name for _, name, _ in loss.terms}:
        assert least == pytest.approx(0, abs=1e-6)
    wrong = np.roll(sure, 1, 0)
    assert least < value_of(loss, wrong, labels)
    assert least < value_of(loss, -sure, labels)
    assert least < value_of(loss, logits, labels)
    for at in ((1, 2, 3), (2, 7, 7), (2, 12, 11)):
        almost = sure.copy()
        almost[at] *= -1
        assert least <= value_of(loss, almost, labels) + 1e-7


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_sums_of_parts_add_up_to_the_loss_of_the_whole_in_any_order(text, outputs):
    logits, labels = example(outputs, batch=5)
    loss = losses.parse(text)
    whole = value_of(loss, logits, labels).numpy()
    parts = [loss.sums(logits[a:b], labels[a:b]) for a, b in ((3, 5), (0, 1), (1, 3))]
    added = {key: sum(part[key] for part in parts) for key in parts[0]}
    np.testing.assert_allclose(loss.value(added).numpy(), whole, rtol=2e-6, atol=1e-7)
    order = [3, 0, 4, 2, 1]
    np.testing.assert_allclose(value_of(loss, logits[order], labels[order]), whole, rtol=2e-6)


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("batch", [2, 0])
def test_a_batch_of_padding_or_of_nothing_adds_nothing_to_the_sums(text, outputs, batch):
    logits, labels = example(outputs, batch=2)
    labels[:] = IGNORE_ID
    nothing = losses.parse(text).sums(logits[:batch], labels[:batch])
    assert all(not value.numpy().any() for value in nothing.values())


def extremes(labels, outputs):
    """Name -> logits so large that float16 can just hold them."""
    shape = (*labels.shape, outputs)
    return {
        "anything": np.random.default_rng(1).choice([-1e4, 0, 1e4], shape),
        "high": np.full(shape, 1e4),
        "low": np.full(shape, -1e4),
        "even": np.zeros(shape),
        "right": perfect(labels, outputs, 1e4),
        "wrong": -perfect(labels, outputs, 1e4),
    }


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("truth", ["mixed", "background", "foreground", "nothing counts"])
def test_value_and_gradient_are_finite_for_extreme_float16_logits(text, outputs, truth):
    fill = {"background": 0, "foreground": 1, "nothing counts": IGNORE_ID}
    _, labels = example(outputs, batch=1)
    labels = np.full_like(labels, fill[truth]) if truth in fill else labels
    drawn = extremes(labels, outputs)
    if truth in fill or outputs == 1:  # all as one batch
        drawn = {"all": np.concatenate(list(drawn.values()))}
        labels = labels.repeat(len(extremes(labels, outputs)), 0)
    for name, logits in drawn.items():
        value, gradient = with_gradient(text, logits.astype(np.float16), labels)
        assert np.isfinite(value), name
        assert np.isfinite(gradient).all(), name
        assert gradient.dtype == np.float16
        if truth == "nothing counts":
            assert value == 0
            assert not gradient.any()


@pytest.mark.parametrize("text", ALL)
def test_float16_logits_are_computed_with_in_float32(text):
    logits, labels = example(3)
    half = logits.astype(np.float16)
    value = value_of(losses.parse(text), half, labels)
    assert value.dtype == tf.float32
    assert value == value_of(losses.parse(text), half.astype(np.float32), labels)


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_the_gradient_is_the_slope(text, outputs):
    """By central differences in float64, in four directions of which one moves a single pixel."""
    logits, labels = example(outputs, batch=2)
    logits = logits.astype(np.float64)
    _, gradient = with_gradient(text, logits, labels)
    assert gradient.dtype == np.float64
    loss, rng, h = losses.parse(text), np.random.default_rng(5), 1e-6
    directions = [*rng.normal(size=(3, *logits.shape)), np.zeros(logits.shape)]
    directions[3][1, 6, 6, 0] = 1.0
    for direction in directions:
        up, down = (value_of(loss, logits + s * h * direction, labels).numpy() for s in (1, -1))
        expected = (up - down) / (2 * h)
        assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-5, abs=2e-9)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("ce", [(1.0, "ce")]),
        ("ce+dice", [(1.0, "ce"), (1.0, "dice")]),
        (" 0.5 * ce + 2*dice ", [(0.5, "ce"), (2.0, "dice")]),
        ("1e-2*dice+1e+1*ce", [(0.01, "dice"), (10.0, "ce")]),
        ("focal( gamma = 1e+0 )+ce()", [(1.0, "focal"), (1.0, "ce")]),
    ],
)
def test_a_loss_is_read_with_its_weights(text, terms):
    read = losses.parse(text).terms
    assert [(weight, name) for weight, name, _ in read] == terms


def test_parameters_are_read_by_name_in_their_own_type():
    (_, _, tversky), (_, _, dice), (_, _, cldice) = losses.parse(
        "tversky(false_positives=0.2, false_negatives=8e-1,per_image=true)+dice(smooth=0)"
        "+0.5*cldice(iterations=4)"
    ).terms
    assert (tversky.false_positives, tversky.false_negatives, tversky.per_image) == (0.2, 0.8, True)
    assert (dice.smooth, dice.per_image, cldice.iterations) == (0.0, False, 4)
    assert isinstance(cldice.iterations, int)


def test_a_loss_may_come_twice_with_other_parameters():
    logits, labels = example(3)
    one, other = (value_of(losses.parse(t), logits, labels) for t in ("dice", "dice(smooth=0)"))
    both = value_of(losses.parse("dice+0.5*dice(smooth=0)"), logits, labels)
    np.testing.assert_allclose(both, one + 0.5 * other, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("dise", 'Did you mean "dice"'),
        ("bce_dise_loss", 'Did you mean "bce_dice_loss"'),
        ("ce+", '"" is not a loss'),
        ("", '"" is not a loss'),
        ("half*ce", '"half\\*ce" is not a loss'),
        ("ce dice", "is not a loss"),
        ("focal(gamma=2", "is not a loss"),
        ("focal(gamma=(2))", "is not a loss"),
        ("ce+dice+ce", "names ce twice"),
        ("1.2.3*ce", '"1.2.3" is not a weight'),
        ("e*ce", '"e" is not a weight'),
        ("-1*ce", '"-1" is not a weight'),
        ("0*ce+dice", '"0" is not a weight'),
        ("1e999*ce", '"1e999" is not a weight'),
        ("tversky(false_positive=1)", 'Did you mean "false_positives"'),
        ("ce(class_weights=1)", 'ce has no parameter "class_weights"; known are smoothing'),
        ("focal(2)", '"2" does not say which parameter of focal it is; write gamma='),
        ("focal(gamma=2,)", '"" does not say which parameter'),
        ("focal(gamma=2,gamma=3)", "focal is given gamma twice"),
        ("focal(gamma=two)", 'gamma of focal must be a number, not "two"'),
        ("focal(gamma=nan)", 'must be a number, not "nan"'),
        ("focal(gamma=__import__)", 'must be a number, not "__import__"'),
        ("focal(gamma=-1)", "gamma must be at least 0"),
        ("ce(smoothing=1)", "smoothing must be less than 1"),
        ("cldice(iterations=2.5)", 'must be a whole number, not "2.5"'),
        ("dice(per_image=yes)", 'must be true or false, not "yes"'),
        ("dice_loss(smooth=1)", "dice_loss takes no parameters"),
        ("boundary(scale=1)", "boundary takes no parameters"),
    ],
)
def test_a_loss_that_cannot_be_read_is_told(text, wanted):
    with pytest.raises(FlexsegError, match=wanted) as told:
        losses.parse(text)
    assert "train.loss" in str(told.value)


def test_class_weights_go_to_the_losses_that_take_them_and_to_no_old_one():
    weights = (0.5, 1.0, 1.5)
    read = losses.parse("ce+bce+focal+dice+categorical_crossentropy", weights).terms
    assert [getattr(loss, "class_weights", None) for *_, loss in read] == [weights] * 3 + [None, ()]


def test_class_weights_that_no_loss_takes_are_told():
    with pytest.raises(FlexsegError, match="which are ce, bce, focal; add one of them"):
        losses.parse("dice+bce_dice_loss", (1.0, 1.0))


def test_class_weights_must_fit_the_classes():
    logits, labels = example(3)
    with pytest.raises(FlexsegError, match="2 class weights for 3 classes"):
        losses.parse("ce", (1.0, 1.0)).sums(logits, labels)


def test_every_loss_says_what_it_is_and_every_parameter_what_it_does():
    for name, kind in losses.LOSSES.items():
        assert kind.__doc__, name
        assert not kind.__doc__.startswith(f"{kind.__name__}("), f"{name}: dataclass's own text"
