"""Boundary metrics are those of distance maps and of loops, and of published measurements."""

import numpy as np
import pytest
import skimage.morphology
from scipy import ndimage

from train import surface
from train.surface import BoundaryOptions

OPTIONS = [BoundaryOptions(), BoundaryOptions(1.0), BoundaryOptions(0.9, (0.5, 0.3))]


def regions(seed, shape=(40, 52)):
    """Two ragged regions that overlap in part, at the image's borders too."""
    rng = np.random.default_rng(seed)
    base = ndimage.gaussian_filter(rng.normal(size=shape), 4)
    other = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    return base > 0.3 * base.std(), base + 0.15 * other > 0.5 * base.std()


def disc(radius, shift=0, size=400):
    y, x = np.mgrid[:size, :size] - size // 2
    return y**2 + (x - shift) ** 2 <= radius**2


def by_distance_maps(truth, predicted, options):
    """The definitions by erosion with a cross and Euclidean distance maps of the whole image."""
    edges = [region & ~ndimage.binary_erosion(region) for region in (truth, predicted)]
    maps = [ndimage.distance_transform_edt(~edge, sampling=options.spacing) for edge in edges]
    there, back = maps[1][edges[0]], maps[0][edges[1]]
    both = np.concatenate([there, back])
    return {
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "average_surface_distance": both.mean(),
        "nsd": ((there <= options.nsd_tolerance).sum() + (back <= options.nsd_tolerance).sum())
        / (len(there) + len(back)),
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", OPTIONS)
def test_figures_are_those_of_whole_distance_maps(seed, options):
    truth, predicted = regions(seed)
    found = surface.compare(truth, predicted, options)
    for name, value in by_distance_maps(truth, predicted, options).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-12), name
    assert not found.one_sided


def test_distances_are_those_of_all_pairs_of_boundary_pixels():
    truth, predicted = regions(0, (25, 22))
    spacing = np.array([2.0, 0.7])

    def outline(region):
        padded = np.pad(region, 1)
        return [
            (y, x)
            for y, x in np.argwhere(region)
            if not all(padded[y + i, x + j] for i, j in [(0, 1), (2, 1), (1, 0), (1, 2)])
        ]

    a, b = outline(truth), outline(predicted)
    pairs = np.array([[np.hypot(*((np.subtract(p, q)) * spacing)) for q in b] for p in a])
    there, back = surface.surface_distances(truth, predicted, tuple(spacing))
    assert sorted(there) == pytest.approx(sorted(pairs.min(1)))
    assert sorted(back) == pytest.approx(sorted(pairs.min(0)))


def test_discs_that_are_shifted_have_the_measured_figures():
    """Of MONAI 1.6 and of distance maps: radius 60, shifted by 3 pixels."""
    for tolerance, nsd in [(2.0, 0.4405), (1.0, 0.3214)]:
        found = surface.compare(disc(60), disc(60, 3), BoundaryOptions(tolerance))
        assert found.hd95 == 3.0
        assert round(found.nsd, 4) == nsd


@pytest.mark.parametrize("radius", [20, 60, 150])
def test_hd95_of_a_shift_is_the_shift(radius):
    assert surface.compare(disc(radius), disc(radius, 3)).hd95 == 3.0


def test_hd95_is_that_of_the_worse_direction():
    """A far blob is in one boundary alone; pooled distances would hide it."""
    truth = disc(60, size=300)
    predicted = truth.copy()
    predicted[10:20, 10:20] = True
    found = surface.compare(truth, predicted)
    assert found.hd95 > 50
    assert found.hd95 == surface.compare(predicted, truth).hd95
    there, back = surface.surface_distances(truth, predicted)
    assert there.max() == 0
    assert np.percentile(np.concatenate([there, back]), 95) < found.hd95


def test_spacing_scales_distances():
    truth, predicted = regions(1)
    one = surface.compare(truth, predicted, BoundaryOptions(2.0))
    fine = surface.compare(truth, predicted, BoundaryOptions(0.2, (0.1, 0.1)))
    assert fine.hd95 == pytest.approx(one.hd95 / 10)
    assert fine.average_surface_distance == pytest.approx(one.average_surface_distance / 10)
    assert fine.nsd == one.nsd


def test_a_distance_equal_to_the_tolerance_is_within_it():
    """Three pixels of 0.1 are more than 0.3 in binary fractions."""
    truth, predicted = np.zeros([2, 9, 9], bool)
    truth[2, 2], predicted[2, 5] = True, True
    assert surface.compare(truth, predicted, BoundaryOptions(0.3, (1.0, 0.1))).nsd == 1
    assert surface.compare(truth, predicted, BoundaryOptions(0.299, (1.0, 0.1))).nsd == 0


def test_what_lies_around_changes_nothing():
    """The box around the two regions is cut out first."""
    truth, predicted = (np.pad(np.pad(r, 1), ((0, 30), (17, 5))) for r in regions(2))
    expected = by_distance_maps(truth, predicted, BoundaryOptions())
    found = surface.compare(truth, predicted)
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value)
    assert found.cl_dice == surface.cl_dice(truth, predicted)


def test_regions_that_are_the_same_are_perfect():
    truth, _ = regions(3)
    assert surface.compare(truth, truth) == surface.BoundaryScores(0.0, 0.0, 1.0, 1.0)


def test_empty_regions_follow_the_rule():
    full, empty = regions(0)[0], np.zeros([40, 52], bool)
    assert surface.compare(empty, empty) == surface.BoundaryScores(None, None, None, None)
    one = surface.BoundaryScores(None, None, 0.0, 0.0, one_sided=True)
    assert surface.compare(full, empty) == surface.compare(empty, full) == one
    assert surface.cl_dice(empty, empty) is None
    assert surface.cl_dice(full, empty) == surface.cl_dice(empty, full) == 0


@pytest.mark.parametrize("seed", range(4))
def test_cl_dice_is_its_formula_on_skeletons(seed):
    truth, predicted = regions(seed)
    of_truth, of_predicted = map(skimage.morphology.skeletonize, (truth, predicted))
    precision = (of_predicted & truth).sum() / of_predicted.sum()
    sensitivity = (of_truth & predicted).sum() / of_truth.sum()
    expected = 2 * precision * sensitivity / (precision + sensitivity)
    assert surface.cl_dice(truth, predicted) == pytest.approx(expected)
    assert 0 < expected < 1


def test_cl_dice_asks_for_lines_whole_not_for_their_width():
    """A line of 7 pixels' width: found thin it is whole, found in half it is not."""
    truth, thin, half = np.zeros([3, 60, 90], bool)
    truth[20:27, 5:85], thin[23, 5:85], half[20:27, 5:45] = True, True, True
    assert surface.cl_dice(truth, thin) == pytest.approx(1, abs=0.03)  # forks at the ends
    assert surface.cl_dice(truth, half) == pytest.approx(2 / 3, abs=0.03)
    apart = np.zeros([60, 90], bool)
    apart[40:47, 5:85] = True
    assert surface.cl_dice(truth, apart) == 0


def test_cl_dice_is_left_out_where_it_is_not_asked_for():
    truth, predicted = regions(0)
    assert surface.compare(truth, predicted, lines=False).cl_dice is None
    assert surface.compare(truth, np.zeros_like(truth), lines=False).cl_dice is None
    assert surface.compare(truth, predicted, lines=False).nsd is not None


@pytest.mark.parametrize(
    ("size", "width", "thin"),
    [
        *[((100, 200), 1, True), ((100, 200), 16, True), ((100, 200), 19, False)],
        *[((640, 900), 19, True), ((640, 900), 40, True), ((640, 900), 43, False)],
        ((900, 640), 43, False),
    ],
)
def test_lines_are_thin_however_long(size, width, thin):
    region = np.zeros(size, bool)
    region[10 : 10 + width] = True
    assert surface.is_thin(region) == thin


def test_an_empty_region_is_thin_and_a_full_image_is_not():
    assert surface.is_thin(np.zeros([80, 80], bool))
    assert not surface.is_thin(np.ones([80, 80], bool))
