"""The classes of a folder of masks are found from its colours, whatever borders were smoothed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flexseg_errors import FlexsegError
from pipelines import label_map as label_maps
from pipelines import propose

COLORS = np.array(
    [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]], np.uint8
)


def blobs(seed: int, count: int, side: int = 96) -> np.ndarray:
    """Class ids, uint8 [side, side]: disks of each class but 0, ever fewer of them, on class 0."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((side, side), np.uint8)
    for k in range(1, count):
        for _ in range(2 * (count - k)):
            centre = tuple(rng.integers(8, side - 8, 2).tolist())
            cv2.circle(ids, centre, int(rng.integers(4, 8)), k, -1)
    return ids


def write(folder, pictures):
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i}.png")


def clean(picture: np.ndarray) -> np.ndarray:
    return picture


def enlarged(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)


def cubic(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, None, fx=3.3, fy=3.3, interpolation=cv2.INTER_CUBIC)


def blurred(picture: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), 1.0)


def jpeg(picture: np.ndarray) -> np.ndarray:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
    large = enlarged(enlarged(picture))[..., ::-1]
    return cv2.imdecode(cv2.imencode(".jpg", large, quality)[1], cv2.IMREAD_COLOR)[..., ::-1]


def found(folder) -> list[tuple[int, int, int]]:
    return [d.color for d in propose.propose(str(folder)).dominants]


@pytest.mark.parametrize("damage", [clean, enlarged, cubic, blurred])
@given(st.integers(0, 99), st.integers(2, 6))
@settings(max_examples=5)
def test_the_classes_are_found_behind_smoothed_borders(tmp_path_factory, damage, seed, count):
    folder = tmp_path_factory.mktemp("masks")
    write(folder, [damage(COLORS[blobs(seed + i, count)]) for i in range(3)])
    assert sorted(found(folder)) == sorted(map(tuple, COLORS[:count].tolist()))


@pytest.mark.parametrize("count", [2, 4])
def test_the_classes_are_found_in_jpeg_but_for_a_few_steps_of_color(tmp_path, count):
    write(tmp_path, [jpeg(COLORS[blobs(i, count)]) for i in range(3)])
    for color in found(tmp_path):
        assert np.abs(COLORS[:count].astype(int) - color).max(-1).min() <= 4
    assert len(found(tmp_path)) == count


def test_counts_are_of_pixels_and_files(tmp_path):
    first, second = np.zeros((10, 10), np.uint8), np.zeros((10, 20), np.uint8)
    first[:4, :5] = 255
    first[4, 0] = 250  # near white
    write(tmp_path / "deep" / "er", [first])
    write(tmp_path, [second])
    proposal = propose.propose(str(tmp_path))
    assert (proposal.masks, proposal.pixels, proposal.colors) == (2, 300, 3)
    assert proposal.dominants == (
        propose.Dominant((0, 0, 0), 279, 279, 2),
        propose.Dominant((255, 255, 255), 20, 21, 1),
    )
    assert proposal.strays == 0


def test_black_is_the_background_and_without_it_the_most_frequent(tmp_path):
    ids = np.zeros((30, 30), np.uint8)
    ids[:8] = 1
    ids[20:25] = 2
    write(tmp_path / "black", [np.array([[255, 0, 0], [0, 0, 0], [0, 0, 255]], np.uint8)[ids]])
    write(tmp_path / "none", [np.array([[9, 99, 9], [200, 0, 0], [0, 0, 200]], np.uint8)[ids]])
    assert found(tmp_path / "black") == [(0, 0, 0), (255, 0, 0), (0, 0, 255)]
    assert found(tmp_path / "none") == [(9, 99, 9), (200, 0, 0), (0, 0, 200)]
    proposal = propose.propose(str(tmp_path / "none"))
    assert proposal.label_map.names == ("background", "class_1", "class_2")


def test_a_shade_between_two_classes_is_a_class_where_it_fills_areas(tmp_path):
    ids = blobs(1, 3)
    write(tmp_path / "clean", [np.array([0, 128, 255], np.uint8)[ids]])
    write(tmp_path / "smooth", [blurred(np.array([0, 128, 255], np.uint8)[ids])])
    for name in ("clean", "smooth"):
        assert [c[0] for c in sorted(found(tmp_path / name))] == [0, 128, 255]


def test_a_blend_that_is_more_frequent_than_its_class_does_not_stand_for_it(tmp_path):
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[4:36, 10:12] = 255, 0, 0
    for x in (8, 9, 12, 13):  # single columns of four shades, each far from the others
        picture[4:36, x] = {8: 60, 9: 120, 12: 180, 13: 90}[x], 0, 0
    write(tmp_path, [picture])
    assert found(tmp_path) == [(0, 0, 0), (255, 0, 0)]


def test_lines_of_one_pixel_are_a_class_where_they_are_frequent(tmp_path):
    picture = np.zeros((50, 50, 3), np.uint8)
    picture[10] = 0, 255, 0
    write(tmp_path, [picture])
    assert found(tmp_path) == [(0, 0, 0), (0, 255, 0)]


def test_specks_are_no_class_but_are_told(tmp_path):
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[:40] = 255, 0, 0
    picture[70, 70] = 0, 0, 255
    write(tmp_path, [picture])
    proposal = propose.propose(str(tmp_path))
    assert [d.color for d in proposal.dominants] == [(0, 0, 0), (255, 0, 0)]
    assert proposal.strays == 1
    assert "1 pixels (0.0100%) are neither near" in propose.describe(proposal)


def test_the_result_does_not_depend_on_how_a_mask_is_cut_into_bands(tmp_path, monkeypatch):
    write(tmp_path, [COLORS[blobs(3, 4)], blobs(3, 4) * 60])
    whole = propose.count(str(tmp_path))
    monkeypatch.setattr(propose, "_BAND_PIXELS", 96 * 7)
    cut = propose.count(str(tmp_path))
    for name in ("rgb", "pixels", "solid", "files"):
        assert (getattr(whole, name) == getattr(cut, name)).all()
    assert whole.pixels.sum() == 2 * 96 * 96


def test_index_masks_are_recognized_and_keep_their_ids(tmp_path):
    ids = np.zeros((20, 20), np.uint8)
    ids[:5], ids[5:8], ids[8:10] = 1, 3, 255
    write(tmp_path, [ids])
    proposal = propose.propose(str(tmp_path))
    assert proposal.index
    assert [d.color[0] for d in proposal.dominants] == [0, 1, 2, 3]
    assert [d.pixels for d in proposal.dominants] == [200, 100, 0, 60]
    assert proposal.ignored == 40
    assert proposal.label_map.num_classes == 4  # each with a color of its own, or there were none
    assert "gray value = class id" in propose.describe(proposal)


# The command.


def test_what_is_printed_and_written_is_the_label_map(command, tmp_path):
    write(tmp_path / "masks", [enlarged(COLORS[blobs(0, 4)])])
    file = tmp_path / "classes.yaml"
    result = command("propose-label-map", tmp_path / "masks", f"--output={file}")
    assert result.status == 0, result.err
    assert file.read_text() == result.out
    label_map = label_maps.load(str(file))
    assert label_map == propose.propose(str(tmp_path / "masks")).label_map
    assert label_maps.from_dict(yaml.safe_load(result.out)) == label_map
    assert result.out.startswith("# 1 masks, 36864 pixels, ")
    assert "0,0,0 " in result.out
    again = command("propose-label-map", tmp_path / "masks", f"--output={file}")
    assert again.status == 1
    assert "classes.yaml is there already; nothing was touched" in again.err


def test_a_person_may_inspect_masks(command, tmp_path):
    write(tmp_path / "masks", [COLORS[blobs(0, 3)]])
    shown = command("propose-label-map", tmp_path / "masks").out
    assert command("inspect", tmp_path / "masks")[:2] == (0, shown)


def test_photographs_are_no_masks(command, tmp_path):
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (80, 80, 3), dtype=np.uint8), (0, 0), 4)
    write(tmp_path / "color", [cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)])
    write(tmp_path / "gray", [cv2.normalize(smooth[..., 0], None, 0, 255, cv2.NORM_MINMAX)])
    for name in ("color", "gray"):
        result = command("propose-label-map", tmp_path / name)
        assert result.status == 1
        assert "these seem to be no masks" in result.err


def test_too_many_classes_are_refused_with_their_number(command, tmp_path):
    write(tmp_path / "masks", [COLORS[blobs(0, 6)]])
    result = command("propose-label-map", tmp_path / "masks", "--max_classes=3")
    assert result.status == 1
    assert "has 6 dominant colors; at most 3 are proposed" in result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"most": 0}, "--max_classes=0"),
        ({"most": 256}, "--max_classes=256: expected 1 to 255"),
        ({"tolerance": -1.0}, "--color_tolerance=-1.0"),
        ({"tolerance": float("nan")}, "--color_tolerance=nan"),
        ({"min_share": 1.0}, "--min_share=1.0"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, options, message):
    with pytest.raises(FlexsegError, match=message):
        propose.propose(str(tmp_path), **options)


def test_a_folder_without_masks_is_named(tmp_path):
    with pytest.raises(FlexsegError, match="There are no masks in"):
        propose.propose(str(tmp_path))
    with pytest.raises(FlexsegError, match="nowhere: there is no such folder"):
        propose.propose("nowhere")
