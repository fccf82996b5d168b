"""What is suspicious in sources is found, named and counted; an image in two splits is refused."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flexseg_errors import FlexsegError
from pipelines import audit
from pipelines import label_map as label_maps
from pipelines.audit import Audit, Finding
from pipelines.label_map import IGNORE_ID, Categorizer

RED = label_maps.load("{(0,0,0):0,(255,0,0):1,(0,0,255):2}")
WHITE = label_maps.load("{(0,0,0):0,(255,255,255):1}")


def noise(*shape, seed=0, high=256):
    return np.random.default_rng(seed).integers(0, high, shape, dtype=np.uint8)


def note(name="a", seed=None, mask=None, ids=None, image=None, colors=None, path="m.png"):
    """What is said of a source; of another image for each seed or else name."""
    if image is None:
        image = noise(4, 5, 3, seed=sum(map(ord, name)) if seed is None else seed)
    ids = np.array([[0, 1]], np.uint8) if ids is None else np.array(ids, np.uint8)
    mask = ids * np.uint8(255) if mask is None else np.array(mask, np.uint8)
    return audit.examine(name, path, image, mask, ids, colors or {})


# What one source says.


def crc32c(data):
    """Castagnoli's checksum, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@given(st.integers(1, 9), st.integers(1, 6), st.sampled_from([1, 3]), st.integers(1, 12))
@settings(max_examples=40)
def test_the_checksum_is_that_of_shape_and_pixels(height, width, channels, block):
    image = noise(height, width, channels)
    gray = channels == 1 or (image == image[..., :1]).all()
    pixels = image[..., :1] if gray else image
    head = f"{height} {width} {pixels.shape[2]} ".encode()
    expected = "".join(f"{crc32c(head + pixels[first::4].tobytes()):08x}" for first in range(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "_BLOCK", block)
        assert audit.content_hash(image) == expected
        turned = np.asfortranarray(image)
        assert audit.content_hash(turned) == audit.content_hash(image), "not its order in memory"


def test_a_gray_image_has_one_checksum_however_it_was_read():
    gray = noise(50, 40, 1)
    repeated = gray.repeat(3, -1)
    assert audit.content_hash(gray) == audit.content_hash(repeated)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_an_image_with_a_single_colored_pixel_is_not_gray(monkeypatch, channel):
    monkeypatch.setattr(audit, "_BLOCK", 100)  # the pixel lies in the last of several blocks
    gray = noise(50, 40, 1).repeat(3, -1)
    colored = gray.copy()
    colored[-1, -1, channel] ^= 1
    assert len({audit.content_hash(image) for image in (gray, colored, gray[..., :1])}) == 2


def test_images_of_other_shapes_have_other_checksums():
    pixels = noise(48)
    shapes = [(4, 12, 1), (12, 4, 1), (48, 1, 1), (4, 4, 3), (2, 8, 3)]
    assert len({audit.content_hash(pixels.reshape(shape)) for shape in shapes}) == len(shapes)


@given(st.data())
@settings(max_examples=60)
def test_an_image_is_constant_where_all_its_pixels_are_equal(data):
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    image = np.empty((height, width, data.draw(st.sampled_from([1, 3]))), np.uint8)
    image[:] = data.draw(st.tuples(*[st.integers(0, 255)] * image.shape[2]))
    for _ in range(data.draw(st.integers(0, 1))):
        where = tuple(data.draw(st.integers(0, size - 1)) for size in image.shape)
        image[where] ^= data.draw(st.integers(0, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "_BLOCK", data.draw(st.integers(1, 12)))
        assert audit.is_constant(image) == (
            len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) == 1
        )


def test_what_differs_in_its_first_rows_is_not_looked_at_further(monkeypatch):
    seen = []
    blocks = audit._blocks

    def watched(*arguments, **options):
        for block in blocks(*arguments, **options):
            seen.append(block.shape[0])
            yield block

    monkeypatch.setattr(audit, "_blocks", watched)
    image = np.zeros((500, 30, 3), np.uint8)
    image[0, 29, 2] = 1
    assert not audit.is_constant(image)
    assert seen == [1]
    seen.clear()
    assert audit.is_constant(np.zeros((500, 30, 3), np.uint8))
    assert sum(seen) == 500


@pytest.mark.parametrize("gray", [False, True])
def test_a_large_image_is_not_copied(gray):
    image = noise(3000, 3000, 1).repeat(3, -1) if gray else noise(3000, 3000, 3)
    ids = np.zeros((3000, 3000), np.uint8)
    tracemalloc.start()
    try:
        audit.examine("a", "a.png", image, image, ids, {})
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < image.nbytes / 4


def test_what_a_source_says_is_short():
    ids = np.arange(256, dtype=np.uint8)[None]  # every class, and pixels to ignore
    image = noise(8, 8, 3)
    colors = {(200, 200, i): 10**9 for i in range(100, 130)}
    found = audit.examine("a" * 50, "m.jpeg", image, ids, ids, colors)
    assert len(json.dumps(found)) < 900
    assert len(found["colors"]) == label_maps.TOP_COLORS
    plain = audit.examine("a", "m.png", image, ids[:, :2] * 255, ids[:, :2], {})
    assert plain.keys() == {"name", "content", "labels", "classes", "high"}
    assert len(json.dumps(plain)) < 130


@given(st.lists(st.sampled_from([0, 1, 2, 7, 253, 254, 255]), min_size=1, max_size=20))
@settings(max_examples=30)
def test_the_classes_of_a_mask_are_told(values):
    found = note(ids=[values], mask=[values])
    present = int(found.get("classes", "0"), 16)
    assert {k for k in range(300) if present >> k & 1} == set(values) - {IGNORE_ID}
    assert ("ignored" in found) == (IGNORE_ID in values)
    assert found.get("high", 0) == max(values)


def test_masks_with_other_class_pixels_say_so_and_equal_ones_do_not_depend_on_their_colors():
    one = note(ids=[[0, 1, 1, 2]])
    assert one["labels"] == note(ids=[[0, 1, 1, 2]], mask=[[9, 8, 8, 7]], path="b.bmp")["labels"]
    assert one["labels"] != note(ids=[[0, 1, 2, 2]])["labels"]
    assert one["labels"] != note(ids=[[0, 1, 1, 255]])["labels"]


@pytest.mark.parametrize(
    ("name", "options", "lossy"),
    [
        ("mask.webp", {"quality": 80}, True),
        ("mask.webp", {"lossless": True}, False),
        ("with_profile.WEBP", {"lossless": True, "icc_profile": b"odd"}, False),
        ("with_profile.webp", {"quality": 80, "icc_profile": b"odd"}, True),
        ("large_profile.webp", {"lossless": True, "icc_profile": b"odd" * 33333}, False),
        ("mask.jpg", {}, True),
        ("mask.JPEG", {}, True),
        ("jpg.png", {}, False),
        ("mask.jpg.tif", {}, False),
    ],
)
def test_a_lossy_mask_is_told_by_its_format(tmp_path, name, options, lossy):
    path = tmp_path / name
    Image.fromarray(noise(20, 20, 3)).save(path, **options)
    suffix = path.suffix.lower()
    assert audit.lossy_suffix(str(path)) == (suffix if lossy else "")
    assert note(path=str(path)).get("lossy") == (suffix if lossy else None)


def test_a_lossy_mask_within_an_animation_is_told(tmp_path):
    frames = [Image.fromarray(noise(20, 20, 3, seed=i)) for i in range(2)]
    for lossless in (True, False):
        path = tmp_path / f"{lossless}.webp"
        frames[0].save(path, save_all=True, append_images=frames[1:], lossless=lossless)
        assert audit.lossy_suffix(str(path)) == ("" if lossless else ".webp")


def as_colors(mask, label_map=WHITE):
    found = Categorizer(label_map)(np.array(mask, np.uint8))
    return note(mask=mask, ids=found.ids, colors=found.colors)


@pytest.mark.parametrize(
    ("found", "misread"),
    [
        (as_colors([[0, 1, 1]]), True),
        (as_colors([[[0, 0, 0], [1, 1, 1]]]), True),
        (as_colors([[0, 255, 255]]), False),
        (as_colors([[0, 0, 0]]), False),
        (as_colors([[1, 1, 1]]), False),
        (as_colors([[0, 1, 1]], label_maps.load("{(0,0,0):0,(1,1,1):1}")), False),
        (as_colors([[0, 2, 3]]), False),
        (note(ids=[[0, 1]], mask=[[0, 1]]), False),  # as class ids, or above a threshold of 0
        (note(ids=[[0, 255]], mask=[[0, 255]]), True),  # as class ids
        (note(ids=[[0, 1, 255]], mask=[[0, 1, 255]]), False),
        (note(ids=[[0, 255]], mask=[[0, 255]], path="m.npz"), False),
        # Colours that are ignored by choice are told as colours.
        (note(ids=[[0, 255]], mask=[[0, 255]], colors={(255, 255, 255): 1}), False),
        (note(ids=[[0, 0]], mask=[[0, 1]], path="m.jpg"), False),
    ],
)
def test_a_mask_of_two_values_that_became_one_class_is_misread(found, misread):
    assert ("misread" in found) == misread
    count = audit.summarize({"train": [found]}, RED).misread_masks.count
    assert count == misread


# What follows from what all said.


@given(st.integers(0, 1000))
@settings(max_examples=25)
def test_findings_are_those_of_a_plain_count(seed):
    rng = np.random.default_rng(seed)
    found, expected = {}, {}
    for split in ("train", "valid", "test"):
        found[split], expected[split] = [], []
        for i in range(rng.integers(1, 30)):
            ids = rng.choice([0, 1, 2, 255], (1, rng.integers(1, 4)), p=[0.6, 0.2, 0.1, 0.1])
            image = (
                np.full((2, 2, 1), 7, np.uint8) if rng.random() < 0.3 else noise(4, 4, 1, seed=i)
            )
            path = rng.choice(["m.png", "m.jpg", "m.JPEG"])
            name = f"{split}/{i}"
            found[split].append(note(name, ids=ids, image=image, path=str(path)))
            expected[split].append((name, set(ids.ravel().tolist()), np.ptp(image) == 0, str(path)))
    result = audit.summarize(found, RED)
    everything = [entry for entries in expected.values() for entry in entries]

    def finding(names):
        return Finding(len(names), tuple(names[: audit.MOST_EXAMPLES]))

    assert result.sources == {split: len(entries) for split, entries in expected.items()}
    for split, entries in expected.items():
        assert result.class_sources[split] == tuple(
            sum(k in classes for _, classes, _, _ in entries) for k in range(3)
        )
        empty = [name for name, classes, _, _ in entries if not classes & {1, 2}]
        assert result.empty_masks[split] == finding(empty)
    assert result.constant_images == finding([name for name, _, flat, _ in everything if flat])
    suffixes = {".jpg": "m.jpg", ".jpeg": "m.JPEG"}
    assert result.lossy_masks == {
        suffix: finding([name for name, _, _, p in everything if p == path])
        for suffix, path in sorted(suffixes.items())
        if any(p == path for *_, p in everything)
    }
    missing = {
        k: tuple(s for s, entries in expected.items() if not any(k in e[1] for e in entries))
        for k in range(3)
    }
    assert result.missing_classes == {k: splits for k, splits in missing.items() if splits}


def test_a_split_without_sources_lacks_no_class():
    result = audit.summarize({"train": [note()], "test": []}, WHITE)
    assert result.missing_classes == {}


def test_colors_are_summed_over_masks_with_nearest_class_and_distance():
    found = {
        "train": [note("a", colors={(0, 255, 0): 5, (0, 0, 200): 4})],
        "test": [note("b", colors={(0, 255, 0): 2}), note("c", colors={(250, 0, 0): 9})],
    }
    shown = audit.summarize(found, RED).unmatched_colors
    assert [(c.color, c.pixels, c.masks, c.nearest, c.distance) for c in shown] == [
        ((250, 0, 0), 9, 1, 1, 5.0),
        ((0, 255, 0), 7, 2, 0, 255.0),
        ((0, 0, 200), 4, 1, 2, 55.0),
    ]


def test_a_color_as_near_to_two_classes_is_the_lower_ones():
    found = {"train": [note("a", colors={(128, 0, 127): 1, (100, 0, 100): 1})]}
    label_map = label_maps.load("{(0,0,255):0,(255,0,0):1}")
    nearest = {c.color: c.nearest for c in audit.summarize(found, label_map).unmatched_colors}
    assert nearest == {(128, 0, 127): 1, (100, 0, 100): 0}


def test_among_ever_new_colors_the_frequent_ones_are_kept(monkeypatch):
    monkeypatch.setattr(audit, "_COLORS_HELD", 40)
    sums = audit._ColorSums()
    for i in range(100):
        sums.add([[1, 2, 3, 10], [i, 255, 255, 1]])
        assert len(sums._sums) <= 40
    shown = sums.top(RED)
    assert len(shown) == label_maps.TOP_COLORS
    assert (shown[0].color, shown[0].pixels, shown[0].masks) == ((1, 2, 3), 1000, 100)


ZERO_ONE = note("zero_one", ids=[[0, 1]], mask=[[0, 1]])
ZERO_255 = note("zero_255", ids=[[0, 1]], mask=[[0, 255]])
WITH_IGNORED = note("with_ignored", ids=[[0, 1, 255]], mask=[[0, 1, 255]])
ALL_IGNORED = note("all_ignored", ids=[[0, 255]], mask=[[0, 255]])
OF_FIVE = note("of_five", ids=[[0, 2]], mask=[[0, 5]])


@pytest.mark.parametrize(
    ("notes", "count"),
    [
        ([ZERO_ONE], 0),
        ([ZERO_ONE, ZERO_255], 1),
        ([ZERO_ONE, ZERO_ONE, ZERO_255], 2),
        ([ZERO_255], 0),
        ([ZERO_ONE, WITH_IGNORED], 0),
        ([ZERO_ONE, OF_FIVE], 0),
        ([ZERO_ONE, ALL_IGNORED], 1),
    ],
)
def test_masks_of_0_and_1_are_told_where_others_hold_0_and_255(notes, count):
    assert audit.summarize({"train": notes}, RED).zero_one_masks.count == count
    splits = {f"s{i}": [n] for i, n in enumerate(notes)}
    assert audit.summarize(splits, RED).zero_one_masks.count == count


@given(st.lists(st.integers(0, 6), max_size=25), st.integers(1, 3))
@settings(max_examples=30)
def test_duplicates_are_the_images_that_occur_again(seeds, splits):
    notes = [note(f"{i:02}", seed=seed) for i, seed in enumerate(seeds)]
    found = {f"s{k}": notes[k::splits] for k in range(splits)}
    counts = Counter(seeds)
    repeated = [seed for seed in counts if counts[seed] > 1]
    result = audit.summarize(found, RED).duplicates
    assert result.contents == len(repeated)
    assert result.sources == sum(counts[seed] for seed in repeated)
    assert result.relabeled == 0
    names = sorted(
        tuple(f"{i:02}" for i, s in enumerate(seeds) if s == seed)[: audit.MOST_EXAMPLES]
        for seed in repeated
    )
    assert list(result.examples) == names[: audit.MOST_EXAMPLES]
    # A leak is a duplicate in several splits.
    across = [
        tuple((f"s{i % splits}", f"{i:02}") for i, s in enumerate(seeds) if s == seed)
        for seed in repeated
    ]
    assert audit.leaks(found) == sorted(
        (same for same in across if len({split for split, _ in same}) > 1), key=lambda s: s[0][1]
    )


def test_duplicates_with_other_masks_are_counted():
    notes = [note("a", seed=1), note("b", seed=1), note("c", seed=2), note("d", seed=2, ids=[[1]])]
    result = audit.summarize({"train": notes}, RED).duplicates
    assert (result.contents, result.relabeled) == (2, 1)


def test_constant_images_are_no_duplicates_and_no_leak():
    flat = np.zeros((4, 4, 3), np.uint8)
    found = {"train": [note("a", image=flat)], "test": [note("b", image=flat)]}
    result = audit.summarize(found, RED)
    assert result.duplicates.contents == 0
    assert result.constant_images == Finding(2, ("a", "b"))
    audit.refuse_leaks(found)


def test_the_same_source_in_two_forms_is_no_leak():
    found = {"fold0": [note("a")], "fold0_train": [note("a")]}
    assert audit.leaks(found) == []
    assert audit.summarize(found, RED).duplicates.contents == 0


def test_an_image_in_two_splits_is_refused_with_names_and_remedy():
    found = {
        "train": [note("train/a.png", seed=1), note("train/b.png", seed=2)],
        "valid": [note("valid/c.png", seed=3)],
        "test": [note("test/d.png", seed=1), note("test/e.png", seed=3)],
    }
    with pytest.raises(FlexsegError) as caught:
        audit.refuse_leaks(found)
    message = str(caught.value)
    assert message.startswith("2 images are, pixel for pixel, in more than one split")
    lines = [
        "  test/d.png (test) = train/a.png (train)",
        "  test/e.png (test) = valid/c.png (valid)",
    ]
    assert "\n".join(["", *lines, "Keep one"]) in message
    assert "b.png" not in message
    assert "--group_regex or --groups" in message
    del found["test"]
    audit.refuse_leaks(found)


def test_a_long_list_of_leaks_is_cut_short_but_shows_every_split_of_each():
    train = [note(f"a{i:03}", seed=i % 9) for i in range(90)]
    test = [note(f"b{i}", seed=i) for i in range(9)]
    with pytest.raises(FlexsegError) as caught:
        audit.refuse_leaks({"train": train, "test": test}, most=4)
    lines = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert len(lines) == 5
    for line in lines[:4]:
        assert "(train)" in line
        assert "(test)" in line
        assert line.endswith(" = 3 more")
    assert lines[4] == "  ... and 5 more"


def flagged(count):
    """Sources of which everything that can be found is true, of 40 repeated contents."""
    notes = [note("", ids=[[0, 0]], mask=[[0, 1]]), note("", ids=[[0, 1]], mask=[[0, 255]])]
    made = []
    for i in range(count):
        more = {"content": f"{i % 40:032x}", "lossy": ".jpg", "labels": f"{i:08x}"}
        colors = [[i % 256, i // 256 % 256, k, 10**9] for k in range(label_maps.TOP_COLORS)]
        made.append({**notes[i % 2], **more, "name": f"{i:09}.png", "colors": colors})
        made.append({**notes[i % 2], "name": f"{i:09}.npy"})
    return [{k: v for k, v in n.items() if k != "content" or i % 3} for i, n in enumerate(made)]


def test_the_findings_do_not_grow_with_the_sources_and_survive_json():
    few, many = (
        audit.summarize({"train": flagged(n), "test": flagged(n)}, RED) for n in (400, 2000)
    )
    for result in (few, many):
        assert result.zero_one_masks.count
        assert result.misread_masks.count
        assert result.constant_images.count
        assert result.lossy_masks
        assert result.duplicates.relabeled
        assert Audit.from_dict(json.loads(json.dumps(result.to_dict()))) == result
        assert Audit.from_dict(result.to_dict()) == result
    assert len(json.dumps(many.to_dict())) < len(json.dumps(few.to_dict())) + 200
    assert len(json.dumps(many.to_dict())) < 6000


def test_the_message_for_one_leak_is_in_the_singular():
    with pytest.raises(FlexsegError, match=re.escape("1 image is, pixel for pixel, in more")):
        audit.refuse_leaks({"train": [note("a", seed=1)], "test": [note("b", seed=1)]})
