"""Class weights are their formulas, capped, with mean 1 over the classes that occur."""

import numpy as np
import pytest
import sklearn.utils.class_weight

from flexseg_errors import FlexsegError
from train.class_weights import KINDS, class_weights, describe

PIXELS, EXAMPLES = (800_000, 150_000, 0, 40_000, 10_000), (20, 15, 0, 2, 10)
OCCUR = [0, 1, 3, 4]


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "none"])
@pytest.mark.parametrize("cap", [1.0, 3.0, 10.0, 1e9])
def test_weights_have_mean_1_over_what_occurs_and_stay_below_the_cap(kind, cap):
    weights = class_weights(kind, PIXELS, EXAMPLES, beta=0.99999, cap=cap)
    some = [weights[c] for c in OCCUR]
    assert np.mean(some) == pytest.approx(1)
    assert max(some) <= cap * min(some) * (1 + 1e-12)
    assert weights[2] == 1, "a class that does not occur"
    assert all(type(w) is float for w in weights)
    if kind != "median":
        assert some == sorted(some), "the rarer, the heavier"


def test_none_gives_none():
    assert class_weights("none", PIXELS, EXAMPLES) == ()


def test_the_cap_holds_the_rarest_alone():
    """Inverse: 1, 5.33, 20 and 80 times the smallest; capped at 10: 1, 5.33, 10, 10."""
    weights = class_weights("inverse", PIXELS, EXAMPLES, cap=10)
    expected = np.array([1, 800 / 150, 10, 10])
    np.testing.assert_allclose([weights[c] for c in OCCUR], expected / expected.mean())


def test_inverse_weights_are_the_balanced_ones_of_scikit_learn():
    labels = np.repeat([0, 1, 2], [50, 30, 4])
    balanced = sklearn.utils.class_weight.compute_class_weight(
        "balanced", classes=np.arange(3), y=labels
    )
    found = class_weights("inverse", np.bincount(labels), (1, 1, 1), cap=1e9)
    np.testing.assert_allclose(found, balanced / balanced.mean())


def test_median_weights_are_those_of_the_masks():
    """Eigen and Fergus: the share of a class is taken over the examples that hold it."""
    rng = np.random.default_rng(0)
    masks = [rng.choice(4, (10, 10), p=p) for p in ([0.7, 0.2, 0.1, 0], [0.5, 0, 0.1, 0.4]) * 3]
    pixels = [sum((m == c).sum() for m in masks) for c in range(4)]
    examples = [sum((m == c).any() for m in masks) for c in range(4)]
    share = np.array([np.mean([(m == c).mean() for m in masks if c in m]) for c in range(4)])
    expected = np.median(share) / share
    found = class_weights("median", pixels, examples, cap=1e9)
    np.testing.assert_allclose(found, expected / expected.mean())
    assert np.argmax(found) == 2, "small wherever it is"
    inverse = class_weights("inverse", pixels, examples, cap=1e9)
    assert inverse[1] / inverse[2] > 1.4 * found[1] / found[2] or examples[1] == examples[2]


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.999])
def test_effective_weights_are_their_formula(beta):
    pixels = (2, 10, 400)
    expected = np.array([(1 - beta) / (1 - beta**n) for n in pixels])
    found = class_weights("effective", pixels, (1, 1, 1), beta=beta, cap=1e9)
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-9)


def test_effective_weights_go_from_equal_to_inverse():
    equal = class_weights("effective", PIXELS, EXAMPLES, beta=0.0)
    np.testing.assert_allclose(equal, 1)
    near = class_weights("effective", PIXELS, EXAMPLES, beta=1 - 1e-12, cap=1e9)
    np.testing.assert_allclose(near, class_weights("inverse", PIXELS, EXAMPLES, cap=1e9), rtol=1e-5)
    huge = class_weights("effective", (10**12, 10**9, 10**4), (1, 1, 1), cap=1e9)
    assert huge[0] == pytest.approx(huge[1]), "both have more than enough"
    assert huge[2] == pytest.approx(huge[0] * 1e6 / 1e4, rel=0.01)


def test_what_makes_no_weights_is_refused():
    with pytest.raises(FlexsegError, match="no pixel of the training examples"):
        class_weights("inverse", (0, 0), (0, 0))
    with pytest.raises(ValueError, match="harmonic is none of none, inverse"):
        class_weights("harmonic", PIXELS, EXAMPLES)


def test_weights_are_shown_with_the_names_of_their_classes():
    text = describe((0.25, 1.75), ("background", "vessel"))
    assert text == "Class weights: background 0.25, vessel 1.75"
