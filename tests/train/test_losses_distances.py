"""Distances in the graph are those of SciPy."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from train import distance_transform

edt = scipy.ndimage.distance_transform_edt


def maps():
    """Name -> bool [N, H, W]."""
    rng = np.random.default_rng(0)
    drawn = {
        f"{h}x{w}, {share}": rng.random((3, h, w)) < share
        for h, w in ((1, 1), (1, 17), (17, 1), (2, 3), (16, 16), (33, 20), (20, 33))
        for share in (0.02, 0.5, 0.98)
    }
    corner = np.zeros((1, 40, 30), bool)
    corner[0, -1, 0] = True
    disc = np.hypot(*(np.mgrid[:50, :60] - np.array([25, 20])[:, None, None])) < 14
    return {**drawn, "corner": corner, "disc": disc[None], "ring": (disc ^ np.roll(disc, 5))[None]}


@pytest.mark.parametrize("pairs", [1 << 22, 900])
@pytest.mark.parametrize("name", maps())
def test_squared_distances_are_exact(name, pairs, monkeypatch):
    """With few pairs at a time the rows come in many chunks, of which the last is not full."""
    monkeypatch.setattr(distance_transform, "_PAIRS", pairs)
    targets = maps()[name]
    found = distance_transform.squared_distances(tf.constant(targets)).numpy()
    assert found.shape == targets.shape
    for one, target in zip(found, targets, strict=True):
        if target.any():
            np.testing.assert_array_equal(one, np.rint(edt(~target) ** 2))
        else:
            assert (one >= sum(target.shape) ** 2).all()


@pytest.mark.parametrize("name", maps())
def test_distances_to_the_border_are_those_of_scipy(name):
    regions = maps()[name]
    signed = distance_transform.signed_distances(tf.constant(regions)).numpy()
    squares = distance_transform.squared_border_distances(tf.constant(regions)).numpy()
    for region, phi, square in zip(regions, signed, squares, strict=True):
        if region.any() and not region.all():
            expected = np.where(region, 1 - edt(region), edt(~region))
            np.testing.assert_allclose(phi, expected, rtol=1e-6)
            np.testing.assert_array_equal(square, np.rint((edt(region) + edt(~region)) ** 2))
        else:
            assert not phi.any()
            assert not square.any()


def test_sizes_may_be_known_only_when_maps_arrive():
    spec = tf.TensorSpec([None, None, None], tf.bool)
    compiled = tf.function(distance_transform.squared_distances, input_signature=[spec])
    for name in ("33x20, 0.02", "1x17, 0.5", "disc"):
        regions = maps()[name]
        expected = distance_transform.squared_distances(tf.constant(regions))
        np.testing.assert_array_equal(compiled(regions), expected)
    assert compiled(np.zeros([0, 5, 6], bool)).shape == (0, 5, 6)
