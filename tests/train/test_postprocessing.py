"""Components go and holes are filled as a slow and literal reading of the rules has it."""

import dataclasses

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from flexseg_errors import FlexsegError
from pipelines import label_map as label_maps
from train import postprocessing
from train.postprocessing import ClassRule, Postprocessing

EIGHT, FOUR = np.ones((3, 3), int), None


def regions(mask, structure):
    labels, count = ndimage.label(mask, structure)
    return [labels == n for n in range(1, count + 1)]  # in the order of their first pixel by rows


def neighbours(ids, region, steps):
    """The class of each neighbour outside, once for every pair."""
    found = []
    for y, x in zip(*np.nonzero(region), strict=True):
        for dy, dx in steps:
            v, u = y + dy, x + dx
            if 0 <= v < ids.shape[0] and 0 <= u < ids.shape[1] and not region[v, u]:
                found.append(int(ids[v, u]))
    return found


CROSS = [(-1, 0), (1, 0), (0, -1), (0, 1)]
RING = [*CROSS, (-1, -1), (-1, 1), (1, -1), (1, 1)]


def literal(ids, rules, area=1.0):
    """The oracle: the module's words, pixel by pixel, with SciPy's components."""
    ids = ids.copy()
    for rule in sorted(rules, key=lambda r: r.id):
        found = regions(ids == rule.id, EIGHT)
        keep = list(found)
        if rule.largest_component and found:
            keep = [max(found, key=lambda r: r.sum())]  # the first of the largest
        if rule.minimum_size > 1:
            keep = [r for r in keep if r.sum() >= rule.minimum_size * area]
        gone = [r for r in found if not any(r is k for k in keep)]
        new = []
        for region in gone:
            around = neighbours(ids, region, RING)
            new.append(min(set(around), key=lambda c: (-around.count(c), c)) if around else rule.id)
        for region, value in zip(gone, new, strict=True):
            ids[region] = value
    before = ids.copy()
    for hole in regions(before == 0, FOUR):
        edge = hole[0].any() or hole[-1].any() or hole[:, 0].any() or hole[:, -1].any()
        around = set(neighbours(before, hole, CROSS))
        if edge or len(around) != 1:
            continue
        (own,) = around
        if any(r.id == own and hole.sum() <= r.fill_holes * area for r in rules):
            ids[hole] = own
    return ids


def masks(most=14):
    """Class ids 0..3, either noise or blobs of a few pixels."""
    sizes = st.tuples(st.integers(1, most), st.integers(1, most))
    noise = sizes.flatmap(lambda s: arrays.arrays(np.uint8, s, elements=st.integers(0, 3)))
    holes = sizes.flatmap(
        lambda s: arrays.arrays(np.uint8, s, elements=st.sampled_from([1, 1, 1, 1, 0, 2]))
    )
    return (
        noise | holes | noise.map(lambda ids: np.kron(ids, np.ones((3, 2), np.uint8))[: 2 * most])
    )


rules = st.lists(
    st.builds(
        ClassRule,
        st.integers(1, 3),
        st.booleans(),
        st.integers(0, 12),
        st.integers(0, 12),
    ),
    unique_by=lambda r: r.id,
    max_size=3,
)


@settings(max_examples=400)
@given(masks(), rules, st.sampled_from([1.0, 0.25, 3.7]))
def test_it_does_what_its_rules_say(ids, rules, area):
    before = ids.copy()
    found = Postprocessing(tuple(rules)).apply(ids, area)
    np.testing.assert_array_equal(found, literal(ids, rules, area))
    np.testing.assert_array_equal(ids, before)  # what is given is left alone
    assert found.dtype == np.uint8


@pytest.mark.parametrize("size", [0, 1])
def test_a_least_size_of_one_pixel_removes_nothing_at_any_scale(size):
    ids = np.array([[0, 1]], np.uint8)
    process = Postprocessing((ClassRule(1, largest_component=True, minimum_size=size),))
    np.testing.assert_array_equal(process.apply(ids, 3.7), ids)


@settings(max_examples=300)
@given(masks(), rules)
def test_twice_is_once_and_no_class_appears(ids, rules):
    process = Postprocessing(tuple(rules))
    once = process.apply(ids)
    np.testing.assert_array_equal(process.apply(once), once)
    assert set(np.unique(once)) <= set(np.unique(ids))
    for rule in rules:
        sizes = [r.sum() for r in regions(once == rule.id, EIGHT)]
        if sizes != [once.size]:  # what fills the image stays
            assert all(size >= rule.minimum_size for size in sizes)
        if rule.largest_component:
            assert len(sizes) <= 1


def picture(text):
    return np.array([[int(c) for c in line] for line in text.split()], np.uint8)


def test_a_stray_component_becomes_what_surrounds_it():
    ids = picture("""
        00000000
        02000110
        00001111
        00001211
        00001111
    """)
    found = Postprocessing((ClassRule(2, minimum_size=2),)).apply(ids)
    expected = ids.copy()
    expected[1, 1], expected[3, 5] = 0, 1
    np.testing.assert_array_equal(found, expected)


def test_components_that_touch_at_a_corner_are_one():
    ids = picture("""
        1000
        0100
        0000
        0001
    """)
    found = Postprocessing((ClassRule(1, largest_component=True),)).apply(ids)
    np.testing.assert_array_equal(np.argwhere(found), [[0, 0], [1, 1]])


def test_of_several_largest_the_first_by_rows_stays():
    ids = picture("""
        00011
        11000
        00011
    """)
    found = Postprocessing((ClassRule(1, largest_component=True),)).apply(ids)
    np.testing.assert_array_equal(np.argwhere(found), [[0, 3], [0, 4]])


def test_only_small_background_within_one_class_is_filled():
    ids = picture("""
        11111112222
        10111012002
        11110012222
        10211112222
        11111222022
    """)
    expected = ids.copy()
    expected[1, 1] = 1  # two pixels, at the class's own limit, would be too many
    expected[1, 8:10] = 2
    found = Postprocessing((ClassRule(1, fill_holes=1), ClassRule(2, fill_holes=2))).apply(ids)
    np.testing.assert_array_equal(found, expected)


def test_holes_that_touch_at_a_corner_are_two():
    ids = picture("""
        1111
        1011
        1101
        1111
    """)
    assert Postprocessing((ClassRule(1, fill_holes=1),)).apply(ids).all()


def test_what_fills_the_image_stays():
    ids = np.ones((3, 4), np.uint8)
    np.testing.assert_array_equal(Postprocessing((ClassRule(1, minimum_size=99),)).apply(ids), ids)


def test_a_large_noisy_mask_is_done_at_once():
    """Tens of thousands of components; the oracle would take minutes."""
    ids = np.random.default_rng(0).integers(0, 12, (400, 500)).astype(np.uint8)
    chosen = Postprocessing(tuple(ClassRule(k, minimum_size=6, fill_holes=4) for k in range(1, 12)))
    found = chosen.apply(ids)
    for k in range(1, 12):
        sizes = ndimage.sum_labels(np.ones(ids.shape), *reversed(label_of(found == k)))
        assert sizes.size == 0 or sizes.min() >= 6


def label_of(mask):
    labels, count = ndimage.label(mask, EIGHT)
    return np.arange(1, count + 1), labels


def test_the_identity_hands_back_its_argument():
    ids = np.zeros((3, 3), np.uint8)
    assert postprocessing.IDENTITY.apply(ids) is ids
    assert postprocessing.IDENTITY.is_identity
    assert Postprocessing((ClassRule(1, minimum_size=1),)).is_identity
    for changed in ({"largest_component": True}, {"minimum_size": 2}, {"fill_holes": 1}):
        assert not Postprocessing((ClassRule(1, **changed),)).is_identity


@given(rules)
def test_what_is_written_is_read_back(tmp_path_factory, rules):
    chosen = Postprocessing(tuple(rules))
    assert Postprocessing.from_dict(chosen.to_dict()) == chosen
    path = tmp_path_factory.mktemp("files") / postprocessing.FILE
    path.write_text(yaml.safe_dump({**chosen.to_dict(), "chosen": {"split": "valid"}}))
    assert postprocessing.load(str(path)) == chosen


def test_without_a_file_nothing_is_done(tmp_path):
    assert postprocessing.load(str(tmp_path / "none.yaml")) == postprocessing.IDENTITY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected classes, each with id and any of largest_component"),
        ("classes: 3", "expected classes"),
        ("classes: [{id: 1, size: 3}]", "expected classes"),
        ("classes: [{minimum_size: 3}]", "expected classes"),
        ("classes: []\nmore: 1", "expected classes"),
        ("classes: [{id: 0}]", "id must be a whole number, at least 1, not 0"),
        ("classes: [{id: 1, minimum_size: 2.5}]", "minimum_size must be a whole number"),
        ("classes: [{id: 1, fill_holes: -1}]", "fill_holes must be a whole number, at least 0"),
        ("classes: [{id: 1, fill_holes: true}]", "fill_holes must be a whole number"),
        ("classes: [{id: 1, largest_component: 1}]", "largest_component true or false"),
        ("classes: [{id: 255}]", "expected an id below 255"),
        ("classes: [{id: 2}, {id: 2}]", "class ids are .2, 2.; expected each once"),
        ("classes: [", "is not a YAML file"),
        (b"\xff\xfe\x00", "is not a YAML file"),
    ],
)
def test_a_file_that_makes_no_sense_is_told(tmp_path, text, message):
    path = tmp_path / postprocessing.FILE
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FlexsegError, match=message):
        postprocessing.load(str(path))


def test_rules_for_classes_that_are_not_there_are_refused():
    two = label_maps.load("{(0,0,0):0,(255,0,0):1}")
    Postprocessing((ClassRule(1, True),)).refuse_misfit(two, "here")
    with pytest.raises(FlexsegError, match=r"here: .* class ids \[2\], .* 2 classes"):
        Postprocessing((ClassRule(2, True),)).refuse_misfit(two, "here")


def test_a_rule_replaces_the_one_before():
    chosen = Postprocessing((ClassRule(2, True),)).with_rule(ClassRule(1, minimum_size=9))
    assert chosen.classes == (ClassRule(1, minimum_size=9), ClassRule(2, True))
    rule = dataclasses.replace(chosen.of(1), fill_holes=3)
    assert chosen.with_rule(rule).of(1) == ClassRule(1, False, 9, 3)
    assert chosen.with_rule(ClassRule(1)).classes == (ClassRule(2, True),)
    assert chosen.of(3) == ClassRule(3)
