"""Class ids are those of the most probable class, also where probabilities are enlarged first."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from train.class_ids import enlarged, most_probable
from train.resize import resize

SIDES = st.integers(1, 40)


def probabilities(size, classes, smooth=True):
    """Probabilities that change often; not smooth, many of them tie."""
    rng = np.random.default_rng([*size, classes])
    if smooth:
        values = rng.random((*size, classes), np.float32)
        return values / values.sum(-1, keepdims=True)
    return rng.integers(0, 2, (*size, classes)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("shape", [(1, 1), (5, 8), (3, 4, 2)])
@pytest.mark.parametrize("smooth", [True, False])
def test_of_equally_probable_classes_the_first_is_taken(classes, shape, smooth):
    values = probabilities(shape, classes, smooth)
    found = most_probable(values)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, values.argmax(-1))


@settings(deadline=None, max_examples=150)
@given(
    size=st.tuples(SIDES, SIDES),
    target=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    classes=st.sampled_from([2, 3, 5]),
    smooth=st.booleans(),
)
def test_enlarged_ids_are_those_of_the_enlarged_probabilities(size, target, classes, smooth):
    values = probabilities(size, classes, smooth)
    found = enlarged(values, target)
    assert found.shape == target
    assert found.dtype == np.uint8
    large = resize(tf.constant(values), tf.constant(target)).numpy()
    expected = large.argmax(-1)
    differ = found != expected
    top = np.sort(large, -1)
    close = top[..., -1] - top[..., -2] < 1e-6  # float rounding may decide there
    assert not (differ & ~close).any()
    if not smooth and size == target:
        assert not differ.any()


@pytest.mark.parametrize("classes", [2, 3])
def test_a_large_enlargement_gives_the_same_ids_everywhere(classes):
    """At pixel 3000 places are rounded; ids follow TensorFlow's places, not exact ones."""
    values = probabilities((605, 9), classes)
    large = resize(tf.constant(values), tf.constant((3025, 47))).numpy()
    np.testing.assert_array_equal(enlarged(values, (3025, 47)), large.argmax(-1))
