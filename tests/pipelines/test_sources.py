"""Image and mask are paired by stem, what has no partner is named, and groups stay together."""

from __future__ import annotations

import re

import numpy as np
import pytest

from flexseg_errors import FlexsegError
from pipelines import sources
from pipelines.slices import VolumeReading
from pipelines.sources import Layout, Rejected


def folder_of(tmp_path, images, masks, split=""):
    """Empty files; pairing looks at names alone."""
    root = tmp_path / split
    for kind, names in (("images", images), ("masks", masks)):
        (root / kind).mkdir(parents=True)
        for name in names:
            (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
            (root / kind / name).touch()
    return Layout(split, str(root / "images"), str(root / "masks"))


def paired(layout, group_regex):
    found = sources.pair(layout, group_regex)
    return found.sources, found.rejected


def test_image_and_mask_are_paired_by_stem_whatever_their_suffixes(tmp_path):
    names = ["b.jpg", "a.PNG", "patient.1.tif", "patient.2.tif", "deep/er/a.bmp", "notes.txt"]
    masks = ["deep/er/a.png", "a.png", "b.png", "patient.2.png", "patient.1.png", "Thumbs.db"]
    found, rejected = paired(folder_of(tmp_path, names, masks), None)
    assert not rejected
    assert [(s.id, s.filename) for s in found] == [
        ("a", "a.PNG"),
        ("b", "b.jpg"),
        ("deep/er/a", "deep/er/a.bmp"),
        ("patient.1", "patient.1.tif"),
        ("patient.2", "patient.2.tif"),
    ]
    for source in found:
        assert source.image == str(tmp_path / "images" / source.filename)
        assert source.mask == str(tmp_path / "masks" / (source.id + ".png"))
        assert source.group == source.id, "each source is its own group"


def test_hidden_files_and_folders_are_no_sources(tmp_path):
    layout = folder_of(tmp_path, ["a.png", "._a.png", ".cache/b.png"], ["a.png", ".cache/b.png"])
    found, rejected = paired(layout, None)
    assert [s.id for s in found] == ["a"]
    assert not rejected


def test_what_has_no_partner_is_reported_by_name_on_both_sides(tmp_path):
    layout = folder_of(tmp_path, ["a.png", "only_image.png"], ["a.png", "sub/only_mask.png"])
    found, rejected = paired(layout, None)
    assert [s.id for s in found] == ["a"]
    assert [(r.path, r.stage, r.reason) for r in rejected] == [
        (
            str(tmp_path / "images/only_image.png"),
            "pair",
            f"the image has no mask in {tmp_path / 'masks'}",
        ),
        (
            str(tmp_path / "masks/sub/only_mask.png"),
            "pair",
            f"the mask has no image in {tmp_path / 'images'}",
        ),
    ]


@pytest.mark.parametrize(
    ("images", "masks"),
    [(["a.png", "a.jpg"], ["a.png"]), (["a.png"], ["a.png", "a.bmp"]), (["a.png", "a.jpg"], [])],
)
def test_files_that_share_a_stem_are_rejected_and_all_named(tmp_path, images, masks):
    found, rejected = paired(folder_of(tmp_path, images, masks), None)
    assert not found
    assert len(rejected) == 1
    assert 'share the stem "a"' in rejected[0].reason
    for name in images + masks:
        assert name in rejected[0].reason


def test_a_folder_without_images_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FlexsegError, match=rf"no images in {tmp_path}/images"):
        sources.pair(folder_of(tmp_path, ["readme.txt"], ["a.png"]), None)


@pytest.mark.parametrize(
    ("expression", "groups"),
    [
        (r"patient\d+", ["patient1", "patient1", "patient22"]),
        (r"patient(\d+)", ["1", "1", "22"]),
        (r"_([a-z])\.(png)$", ["a", "b", "c"]),
        (r"^site/", ["site/", "site/", "site/"]),
        (None, ["site/patient1_a", "site/patient1_b", "site/patient22_c"]),
    ],
)
def test_the_group_is_the_first_parenthesis_or_else_the_whole_match(tmp_path, expression, groups):
    names = ["site/patient1_a.png", "site/patient1_b.png", "site/patient22_c.png"]
    found, rejected = paired(folder_of(tmp_path, names, names), expression)
    assert not rejected
    assert [s.group for s in found] == groups


@pytest.mark.parametrize("expression", [r"p(\d+)", r"p\d+\.", r"(p\d+)|other"])
def test_a_source_in_which_no_group_is_found_is_rejected(tmp_path, expression):
    names = ["p1.png", "other.png"]
    found, rejected = paired(folder_of(tmp_path, names, names), expression)
    assert [s.id for s in found] == ["p1"]
    assert rejected[0].stage == "group"
    assert f'--group_regex "{expression}" does not match' in rejected[0].reason


def test_a_bad_group_expression_is_shown():
    with pytest.raises(FlexsegError, match=r'--group_regex="\(" is not a regular expression'):
        sources.compile_group_regex("(")


def test_a_dataset_is_images_and_masks_or_splits_that_hold_them(tmp_path):
    plain = tmp_path / "plain"
    folder_of(plain, ["a.png"], ["a.png"])
    assert sources.find_layouts(str(plain)) == (
        Layout("", str(plain / "images"), str(plain / "masks")),
    )
    images, masks = str(plain / "images"), str(plain / "masks")
    assert sources.find_layouts(None, images, masks) == (Layout("", images, masks),)
    split = tmp_path / "split"
    for name in ("test", "train"):
        folder_of(split, ["a.png"], ["a.png"], name)
    assert [x.split for x in sources.find_layouts(str(split))] == ["train", "test"]


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        ([], ("nowhere",), r"--dataset=\S*nowhere: there is no such folder"),
        (["d"], ("d",), r"must hold images/ and masks/.*it holds nothing"),
        (["d/pictures"], ("d",), r"must hold images/ and masks/.*it holds pictures"),
        (["d/images"], ("d",), r"There is no folder \S*d/masks"),
        (["d/train/images", "d/train/masks", "d/valid"], ("d",), r"no folder \S*d/valid/images"),
        (["d/images", "d/train/images"], ("d",), r"holds both images/ and train/"),
        (["i", "m"], (None, "i", None), r"Give --dataset=DIR, or both"),
        (["i", "m"], ("i", "i", "m"), r"not both"),
        (["i"], (None, "i", "m"), r"There is no folder \S*m\."),
    ],
)
def test_a_folder_that_is_no_dataset_is_named_with_what_was_expected(
    tmp_path, make, arguments, message
):
    for name in make:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(FlexsegError, match=re.compile(message, re.DOTALL)):
        sources.find_layouts(*(a and str(tmp_path / a) for a in arguments))


def test_the_same_name_in_two_given_splits_is_two_sources(tmp_path):
    layouts = [folder_of(tmp_path, ["1.png"], ["1.png"], s) for s in ("train", "test")]
    found = [s for layout in layouts for s in sources.pair(layout, None).sources]
    assert [s.id for s in found] == ["train/1", "test/1"]


def test_masks_may_carry_a_suffix_of_their_own_and_others_are_passed_over(tmp_path):
    masks = ["1_EX.tif", "1_HE.tif", "2_EX.png", "deep/3_EX.png", "4_HE.tif"]
    layout = folder_of(tmp_path, ["1.jpg", "2.jpg", "deep/3.jpg"], masks)
    found = sources.pair(layout, None, "_EX")
    assert not found.rejected
    assert [(s.id, s.mask.rpartition("masks/")[2]) for s in found.sources] == [
        ("1", "1_EX.tif"),
        ("2", "2_EX.png"),
        ("deep/3", "deep/3_EX.png"),
    ]
    assert found.passed_over == 2


def test_a_suffix_that_no_mask_has_is_an_error_that_shows_what_there_is(tmp_path):
    layout = folder_of(tmp_path, ["1.jpg"], ["1_HE.tif"])
    with pytest.raises(FlexsegError, match=r'--mask_suffix="_EX".*there is 1_HE'):
        sources.pair(layout, None, "_EX")


def test_the_partner_of_a_mask_with_suffix_is_missed_under_its_own_stem(tmp_path):
    layout = folder_of(tmp_path, ["1.jpg", "2.jpg"], ["1_EX.tif", "3_EX.tif"])
    rejected = sources.pair(layout, None, "_EX").rejected
    assert [r.path.rpartition("/")[2] for r in rejected] == ["2.jpg", "3_EX.tif"]


# ---- Volumes -----------------------------------------------------------------------------------


def volumes_of(tmp_path, images, masks):
    """Arrays of the shapes given by name, paired; and what became of their slices."""
    layout = folder_of(tmp_path, images, masks)
    for kind, shapes in (("images", images), ("masks", masks)):
        for name, shape in shapes.items():
            if name.endswith(".npy"):
                np.save(tmp_path / kind / name, np.zeros(shape, np.uint8))
    found = sources.pair(layout, None)
    made, rejected = sources.with_slices(found.sources, VolumeReading(), 100)
    return made, found.rejected + rejected


def test_a_volume_becomes_a_source_for_each_slice_of_one_group(tmp_path):
    made, rejected = volumes_of(
        tmp_path, {"v.npy": (3, 5, 7), "one.npy": (1, 5, 7)}, {"v.npy": (3, 5, 7), "one.png": ()}
    )
    assert not rejected
    assert [(s.id, s.slice, s.group) for s in made] == [
        ("one/00000", 0, "one"),  # a single slice may have an image for its mask
        ("v/00000", 0, "v"),
        ("v/00001", 1, "v"),
        ("v/00002", 2, "v"),
    ]


@pytest.mark.parametrize(
    ("image", "mask", "named", "stage", "reason"),
    [
        (("v.png", ()), ("v.npy", (3, 5, 7)), "v.png", "pair", "the image is no volume, but its"),
        (("v.npy", (3, 5, 7)), ("v.png", ()), "v.npy", "pair", "the volume has 3 slices, but its"),
        (("v.npy", (3, 11, 10)), ("v.npy", (3, 11, 10)), "v.npy", "header", "is 11x10, 110 pixels"),
        (("v.nii", ()), ("v.nii", ()), "v.nii", "header", "is empty."),
    ],
)
def test_a_volume_that_cannot_be_used_is_rejected_with_its_reason(
    tmp_path, image, mask, named, stage, reason
):
    made, rejected = volumes_of(tmp_path, dict([image]), dict([mask]))
    assert not made
    path = str(tmp_path / "images" / named)
    assert rejected == [Rejected(path, stage, rejected[0].reason)]
    assert rejected[0].reason.startswith(reason), "the path stands before it already"


def test_a_slice_that_has_the_id_of_an_image_is_an_error(tmp_path):
    names = {"v.npy": (3, 5, 7), "v/00001.png": ()}
    with pytest.raises(FlexsegError, match=r'another source has the id "v/00001" too. Rename'):
        volumes_of(tmp_path, names, names)
