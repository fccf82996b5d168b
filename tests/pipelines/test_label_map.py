"""Colours map to class ids as the map says, and what is no label map is refused with a reason."""

from __future__ import annotations

import re
import tracemalloc
from collections import Counter

import numpy as np
import pytest
import scipy.spatial
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flexseg_errors import FlexsegError
from pipelines import label_map as label_maps
from pipelines.label_map import Categorizer, LabelClass, LabelMap

LITERAL = "{(0,0,0):0,(255,0,0):2,(0,0,255):1,(255,255,0):2}"
YAML = """
classes:
- {id: 2, name: vessel, colors: [[255, 0, 0], [255, 255, 0]]}
- {id: 0, color: [0, 0, 0]}
- {id: 1, name: nerve, color: [0, 0, 255]}
"""


def channel() -> st.SearchStrategy[int]:
    # Few values, so that ties and hits occur, and any value.
    return st.sampled_from([0, 50, 100, 101, 150, 200, 255]) | st.integers(0, 255)


@st.composite
def maps(draw: st.DrawFn, gray: bool = False) -> LabelMap:
    color = channel().map(lambda v: (v, v, v)) if gray else st.tuples(*[channel()] * 3)
    palette = draw(st.lists(color, min_size=1, max_size=7, unique=True))
    count = draw(st.integers(1, len(palette)))
    ids = [*range(count), *(draw(st.integers(0, count - 1)) for _ in palette[count:])]
    classes = [
        LabelClass(i, f"c{i}", tuple(c for c, k in zip(palette, ids, strict=True) if k == i))
        for i in range(count)
    ]
    return LabelMap(tuple(classes))


def test_ids_come_from_the_values_not_from_the_order():
    label_map = label_maps.load(LITERAL)
    assert [c.id for c in label_map.classes] == [0, 1, 2]
    assert label_map.classes[1].colors == ((0, 0, 255),)
    assert label_map.colors.tolist() == [[0, 0, 0], [0, 0, 255], [255, 0, 0]]
    assert label_map.names == ("background", "class_1", "class_2")


def test_a_class_may_have_several_colors_and_is_painted_with_the_first():
    label_map = label_maps.load(LITERAL)
    assert label_map.classes[2].colors == ((255, 0, 0), (255, 255, 0))
    painted = np.array([[[255, 0, 0], [255, 255, 0]]], np.uint8)
    ids = Categorizer(label_map)(painted).ids
    assert ids.tolist() == [[2, 2]]
    assert label_maps.colorize(ids, label_map)[0].tolist() == [[255, 0, 0], [255, 0, 0]]


def test_a_yaml_file_and_a_literal_give_the_same_classes(tmp_path):
    file = tmp_path / "classes.yaml"
    file.write_text(YAML)
    label_map = label_maps.load(str(file))
    assert label_map.names == ("background", "nerve", "vessel")
    assert [c.colors for c in label_map.classes] == [
        c.colors for c in label_maps.load(LITERAL).classes
    ]


@given(maps())
@settings(max_examples=40)
def test_a_label_map_survives_yaml_and_plain_data(label_map):
    import yaml

    assert label_maps.from_dict(label_map.to_dict()) == label_map
    assert label_maps.from_dict(yaml.safe_load(label_maps.dump(label_map))) == label_map


@given(maps())
@settings(max_examples=40)
def test_a_label_map_survives_the_literal_but_for_its_names(label_map):
    text = str({color: c.id for c in label_map.classes for color in c.colors})
    assert [c.colors for c in label_maps.load(text).classes] == [
        c.colors for c in label_map.classes
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{(0,0,0):0,(255,0,0):2}", r"ids are \[0, 2\].*missing: \[1\]"),
        ("{(0,0,0):1}", r"ids are \[1\].*missing: \[0\]"),
        ("{(0,0,0):0,(9,9,9):1,(0,0,0):1}", r"color \(0, 0, 0\) twice"),
        ("{(0,0,0):0,(0,0,0):0}", r"color \(0, 0, 0\) twice"),
        ("{(0,0,0):__import__('os')}", "cannot be read as data"),
        ("{(0,0,0):0, **{}}", "cannot be read as data"),
        ("{(0,0,0):0", "cannot be read as data"),
        ("{[0,0,0]:0}", "cannot be read as data"),
        ("{}", "expected classes with id, name and color"),
        ("{(0,0,0)}", "expected classes with id, name and color"),
        ("{(0,0):0}", r"\(0, 0\) is not a color"),
        ("{(0,0,256):0}", r"\(0, 0, 256\) is not a color"),
        ("{(0,0,-1):0}", r"is not a color"),
        ("{(0,0,0.5):0}", r"is not a color"),
        ("{'red':0}", "'red' is not a color"),
        ("{(0,0,0):-1}", "-1 is not a class id"),
        ("{(0,0,0):True}", "True is not a class id"),
        ("{(0,0,0):'0'}", "'0' is not a class id"),
        ("{'classes': 3}", '"classes" must be a list'),
        ("{'classes': []}", "holds no class"),
        ("{'classes': [{'id': 0}]}", "needs id and color"),
        ("{'classes': [7]}", "needs id and color"),
        ("{'classes': [{'id': 0, 'colour': [0,0,0]}]}", "needs id and color"),
        ("{'classes': [{'id': 0, 'colors': 5}]}", '"colors" must be a list'),
        ("{'classes': [{'id': 0, 'colors': []}]}", "no color"),
        (
            "{'classes': [{'id': 0, 'color': [0,0,0]}, {'id': 0, 'color': [9,9,9]}]}",
            r"ids \[0\] are given more than once",
        ),
        (
            "{'classes': [{'id': 0, 'color': [0,0,0]}, {'id': 1, 'color': [0,0,0]}]}",
            r"color \(0, 0, 0\) twice, to the classes 0 and 1",
        ),
    ],
)
def test_what_is_no_label_map_is_refused_with_its_reason(text, message):
    with pytest.raises(FlexsegError, match=re.compile(message, re.DOTALL)):
        label_maps.load(text)


def test_a_literal_is_never_evaluated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FlexsegError, match="cannot be read as data"):
        label_maps.load("{(0,0,0): open('evaluated', 'w').close() or 0}")
    assert not (tmp_path / "evaluated").exists()


def test_more_classes_than_a_mask_can_hold_are_refused():
    text = str({(i // 16, i % 16, 0): i for i in range(256)})
    with pytest.raises(FlexsegError, match="at most 255 classes"):
        label_maps.load(text)


def test_a_missing_file_is_named_with_the_form_that_a_literal_has():
    with pytest.raises(FlexsegError, match=r"no label map file 'nowhere.yaml'.*\{\(0,0,0\):0"):
        label_maps.load("nowhere.yaml")


@pytest.mark.parametrize("text", ["classes: [", "!!python/object/apply:os.getcwd []", "\x00"])
def test_a_file_that_is_no_plain_yaml_is_named(tmp_path, text):
    file = tmp_path / "classes.yaml"
    file.write_text(text)
    with pytest.raises(FlexsegError, match=r"classes.yaml is not a YAML file"):
        label_maps.load(str(file))


def test_an_empty_file_is_named(tmp_path):
    file = tmp_path / "classes.yaml"
    file.write_text("")
    with pytest.raises(FlexsegError, match=r"classes.yaml: expected classes"):
        label_maps.load(str(file))


@given(st.data())
@settings(max_examples=60)
def test_a_color_becomes_the_nearest_class_ties_to_the_lower_id(data):
    label_map = data.draw(maps())
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=6))
    mask = data.draw(hnp.arrays(np.uint8, (*shape, 3), elements=channel()))
    tolerance = data.draw(st.integers(0, 300))
    result = Categorizer(label_map, tolerance)(mask)
    # The distance to each class, squared and exact; argmin takes the first, the lower id.
    distances = [
        np.min([((mask.astype(int) - color) ** 2).sum(-1) for color in label.colors], 0)
        for label in label_map.classes
    ]
    assert result.ids.dtype == np.uint8
    assert (result.ids == np.argmin(distances, 0)).all()
    outside = np.min(distances, 0) > tolerance**2
    assert result.unmatched == outside.sum()
    counts = Counter(map(tuple, mask[outside].tolist()))
    most = [color for color, count in counts.items() if count == max(counts.values())]
    assert result.example in most if most else result.example is None


def by_brute_force(mask, label_map, tolerance):
    """(ids, far) by the distance to every colour; argmin takes the first, the lower id."""
    rgb = np.stack([mask] * 3, -1) if mask.ndim == 2 else mask
    colors = [(c, label.id) for label in label_map.classes for c in label.colors]
    distance = np.stack([((rgb.astype(int) - c) ** 2).sum(-1) for c, _ in colors], -1)
    ids = np.array([i for _, i in colors])[distance.argmin(-1)]
    return ids, distance.min(-1) > tolerance**2


@given(st.data())
@settings(max_examples=60)
def test_a_mask_of_many_blocks_is_mapped_as_by_brute_force(data):
    label_map = data.draw(maps())
    tolerance = data.draw(st.sampled_from([0, 20, 60, 120, 300]))
    gray = data.draw(st.booleans())
    seed, height, width = (data.draw(st.integers(*range_)) for range_ in [(0, 99), (1, 9), (1, 9)])
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, 4)  # a small choice, so that colours come again and tie
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_maps, "_BLOCK", data.draw(st.integers(1, 30)))
        patch.setattr(label_maps, "TOP_COLORS", data.draw(st.integers(1, 5)))
        patch.setattr(label_maps._ColorCounts, "_FEW", data.draw(st.integers(0, 40)))
        categorizer = Categorizer(label_map, tolerance)
        for _ in range(3):  # colours are met before and for the first time
            mask = rng.choice(values, (height, width) if gray else (height, width, 3))
            mask = np.where(rng.random(mask.shape) < 0.8, mask, rng.integers(0, 256, mask.shape))
            mask = mask.astype(np.uint8)
            result = categorizer(mask)
            ids, far = by_brute_force(mask, label_map, tolerance)
            assert (result.ids == ids).all()
            assert result.far.shape == far.shape
            assert (result.far == far).all()
            assert result.unmatched == far.sum()
            rgb = np.stack([mask] * 3, -1) if gray else mask
            counts = Counter(map(tuple, rgb[far].tolist()))
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            assert list(result.colors.items()) == ordered[: label_maps.TOP_COLORS]
            assert result.example == (ordered[0][0] if ordered else None)


def test_a_mask_in_very_many_colors_is_mapped_as_by_brute_force():
    label_map = label_maps.load(LITERAL)
    mask = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    result = Categorizer(label_map, 90)(mask)
    ids, far = by_brute_force(mask, label_map, 90)
    assert (result.ids == ids).all()
    assert (result.far == far).all()
    assert 0 < result.unmatched == far.sum() < far.size


@pytest.mark.parametrize("gray", [True, False])
def test_a_mask_without_pixels_has_no_ids(gray):
    mask = np.zeros((1, 0) if gray else (1, 0, 3), np.uint8)
    result = Categorizer(label_maps.load(LITERAL), 0)(mask)
    assert (result.ids.shape, result.far.shape) == ((1, 0), (1, 0))
    assert (result.unmatched, result.colors, result.example) == (0, {}, None)


def beside(mask, tolerance):
    """The bytes that mapping a mask takes at most, but for what comes of it."""
    categorizer = Categorizer(label_maps.load("{(0,0,0):0,(255,255,255):1}"), tolerance)
    tracemalloc.start()
    try:
        result = categorizer(mask)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    far = result.far.nbytes if result.unmatched else 0
    return most - result.ids.nbytes - far


@pytest.mark.parametrize("tolerance", [None, 5])
@pytest.mark.parametrize(
    ("one", "more"),
    [
        ((2000, 1500), (4, 1)),
        ((2000, 1500, 3), (4, 1, 1)),
        ((1, 3_000_000, 3), (1, 4, 1)),
    ],
)
def test_memory_beside_the_mask_and_its_ids_does_not_grow(one, more, tolerance):
    mask = np.zeros(one, np.uint8)
    mask[:, ::2] = 90  # half of the pixels, and beyond a tolerance of 5
    # Less than a byte for each of the 9 million pixels that are more.
    assert beside(np.tile(mask, more), tolerance) < beside(mask, tolerance) + 4e6


@given(st.data())
@settings(max_examples=30)
def test_the_nearest_color_is_that_of_a_search_tree(data):
    label_map = data.draw(maps())
    mask = data.draw(hnp.arrays(np.uint8, (5, 5, 3)))
    painted = np.array([c for label in label_map.classes for c in label.colors])
    owner = np.array([label.id for label in label_map.classes for _ in label.colors])
    distance, nearest = scipy.spatial.cKDTree(painted).query(mask.reshape(-1, 3).astype(float))
    result = Categorizer(label_map, 1000.0)(mask)
    chosen = result.ids.ravel()
    differs = chosen != owner[nearest]
    own = [np.linalg.norm(painted[owner == i] - mask.reshape(-1, 3)[p], axis=1).min()
           for p, i in enumerate(chosen)]  # fmt: skip
    assert np.allclose(np.array(own)[differs], distance[differs]), "differs only in ties"


@given(st.data())
@settings(max_examples=30)
def test_a_gray_mask_is_what_its_three_equal_channels_are(data):
    label_map = data.draw(maps(gray=data.draw(st.booleans())))
    gray = data.draw(hnp.arrays(np.uint8, (4, 5), elements=channel()))
    from_gray = Categorizer(label_map, 30)(gray)
    from_rgb = Categorizer(label_map, 30)(gray[..., None].repeat(3, -1))
    assert (from_gray.ids == from_rgb.ids).all()
    assert from_gray.unmatched == from_rgb.unmatched
    assert from_gray.example == from_rgb.example


def test_colors_met_before_are_mapped_as_colors_met_first():
    label_map = label_maps.load(LITERAL)
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 256, (4, 30, 30, 3), dtype=np.uint8)
    learned = Categorizer(label_map, 60)
    for mask in [*masks, *masks]:
        again, fresh = learned(mask), Categorizer(label_map, 60)(mask)
        assert (again.ids == fresh.ids).all()
        assert (again.unmatched, again.example) == (fresh.unmatched, fresh.example)


@given(maps(), st.floats(0, 1))
@example(label_maps.load("{(255,0,0):0,(0,255,0):1}"), 0.5)
@settings(max_examples=60)
def test_any_blend_of_two_colors_of_the_map_is_within_the_blend_tolerance(label_map, share):
    palette = [c for label in label_map.classes for c in label.colors]
    pairs = [(np.array(a, float), np.array(b, float)) for a in palette for b in palette]
    blends = np.array([a + t * (b - a) for a, b in pairs for t in (0.5, share)])
    up, down = np.floor(blends + 0.5), np.ceil(blends - 0.5)  # each channel is rounded either way
    mixed = [np.where(choice, up, down) for choice in ([1, 1, 1], [0, 0, 0], [1, 0, 0], [1, 0, 1])]
    mask = np.stack(mixed).astype(np.uint8)
    assert Categorizer(label_map)(mask).unmatched == 0


def test_a_color_exactly_at_the_tolerance_is_within():
    label_map = label_maps.load("{(0,0,0):0,(255,255,255):1}")
    mask = np.array([[[3, 4, 0], [3, 4, 1], [250, 255, 255]]], np.uint8)
    result = Categorizer(label_map, 5)(mask)
    assert (result.unmatched, result.example) == (1, (3, 4, 1))


def test_a_color_of_something_else_is_outside_the_blend_tolerance():
    label_map = label_maps.load("{(0,0,0):0,(255,0,0):1}")
    assert Categorizer(label_map)(np.array([[[128, 0, 0]]], np.uint8)).unmatched == 0
    result = Categorizer(label_map)(np.array([[[0, 255, 0], [9, 0, 0]]], np.uint8))
    assert (result.unmatched, result.example) == (1, (0, 255, 0))
    assert result.ids.tolist() == [[0, 0]], "the nearest all the same"


@given(st.data())
@settings(max_examples=30)
def test_categorizing_is_the_inverse_of_colorizing(data):
    label_map = data.draw(maps())
    ids = data.draw(
        hnp.arrays(np.uint8, (2, 4, 3), elements=st.integers(0, label_map.num_classes - 1))
    )
    painted = label_maps.colorize(ids, label_map)
    assert painted.dtype == np.uint8
    assert painted.shape == (2, 4, 3, 3)
    for one, colored in zip(ids, painted, strict=True):
        assert (Categorizer(label_map, 0)(colored).ids == one).all()


def test_ids_outside_the_map_are_painted_mid_gray():
    label_map = label_maps.load(LITERAL)
    painted = label_maps.colorize(np.array([[0, 3, label_maps.IGNORE_ID]], np.uint8), label_map)
    assert painted[0].tolist() == [[0, 0, 0], [128, 128, 128], [128, 128, 128]]
