"""Records come back as files: the very pixels and class ids, under names that tell their origin."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flexseg_errors import FlexsegError
from pipelines import extract, manifest, records
from pipelines import label_map as label_maps
from pipelines.manifest import Manifest

STEMS = [*"abcdefgh", "deep/er/i", "deep/j.0.5"]


@pytest.fixture
def dataset(draw, prepare, tmp_path) -> Path:
    """Ten drawn pairs in tmp_path/data, prepared into tmp_path/out."""
    draw(tmp_path / "data", STEMS)
    assert prepare().status == 0
    return tmp_path / "out"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_source_comes_back_with_its_pixels_and_ids(command, dataset, draw, tmp_path):
    pairs = draw(tmp_path / "again", STEMS)  # the same, for they are drawn from their names
    result = command("extract", dataset, f"--output={tmp_path / 'files'}")
    assert result.status == 0, result.err
    images = {p: tmp_path / "files" / p for p in tree(tmp_path / "files") if "/images/" in p}
    assert {p.partition("/images/")[2] for p in images} == {f"{s}.png" for s in STEMS}
    for name, path in images.items():
        stem = name.partition("/images/")[2].removesuffix(".png")
        assert (pixels(path) == pairs[stem].image).all()
        mask = tmp_path / "files" / name.replace("/images/", "/masks/")
        assert (pixels(mask) == pairs[stem].ids).all()
    counts = {
        s: len(list((tmp_path / "files" / s).rglob("images/**/*.png"))) for s in _splits(dataset)
    }
    assert counts == {s: split.examples for s, split in _splits(dataset).items()}


def _splits(dataset: Path) -> Any:
    return manifest.load(str(dataset)).splits


@pytest.mark.parametrize("masks", ["palette", "rgb", "index"])
def test_masks_take_the_form_that_is_asked_for(command, dataset, draw, tmp_path, colors, masks):
    pairs = draw(tmp_path / "again", STEMS)
    output = tmp_path / "files"
    assert command("extract", dataset, f"--output={output}", f"--mask_format={masks}").status == 0
    for path in output.rglob("masks/**/*.png"):
        stem = str(path.relative_to(output)).partition("/masks/")[2].removesuffix(".png")
        with Image.open(path) as mask:
            assert mask.mode == {"palette": "P", "rgb": "RGB", "index": "L"}[masks]
            shown = np.array(mask.convert("RGB"))
        ids = pairs[stem].ids
        if masks == "index":
            assert (shown[..., 0] == ids).all()
        else:
            assert (shown == colors[ids]).all()


@pytest.mark.parametrize("masks", ["palette", "rgb"])
@pytest.mark.parametrize("gray", [False, True])
def test_what_was_extracted_prepares_to_the_same_records(
    command, draw, prepare, read_split, tmp_path, masks, gray
):
    draw(tmp_path / "data", STEMS, gray=gray)
    assert prepare().status == 0
    files = tmp_path / "files"
    assert (
        command("extract", tmp_path / "out", f"--output={files}", f"--mask_format={masks}").status
        == 0
    )
    again = tmp_path / "again"
    result = prepare(
        f"--dataset={files}", f"--output={again}", f"--label_map={files}/label_map.yaml"
    )
    assert result.status == 0, result.err
    for split in _splits(tmp_path / "out"):
        first = {r["id"]: r for r in read_split(tmp_path / "out", split)}
        second = {r["id"]: r for r in read_split(again, split)}
        assert {f"{split}/{i}" for i in first} == set(second)
        for source_id, record in first.items():
            other = second[f"{split}/{source_id}"]
            assert record["image"].shape == other["image"].shape
            assert (record["image"] == other["image"]).all()
            assert (record["mask"] == other["mask"]).all()
    # Extracted once more, the split's name is not put in front of the names again.
    twice = tmp_path / "twice"
    assert command("extract", again, f"--output={twice}", f"--mask_format={masks}").status == 0
    names = {name for name in tree(files) if name != extract.LABEL_MAP}
    assert {name for name in tree(twice) if name != extract.LABEL_MAP} == names


def test_tiles_carry_their_origin_and_cover_their_source(command, draw, prepare, tmp_path):
    pairs = draw(tmp_path / "data", "abc", size=(20, 26))
    assert prepare("--tile_size=12", "--tile_overlap=2").status == 0
    output = tmp_path / "files"
    assert command("extract", tmp_path / "out", f"--output={output}").status == 0
    seen = {stem: np.zeros(pair.ids.shape, bool) for stem, pair in pairs.items()}
    for path in output.rglob("images/*.png"):
        stem, y, x = path.stem.split("_")
        window = np.s_[int(y[1:]) : int(y[1:]) + 12, int(x[1:]) : int(x[1:]) + 12]
        assert (pixels(path) == pairs[stem].image[window]).all()
        mask = path.parents[1] / "masks" / path.name
        assert (pixels(mask) == pairs[stem].ids[window]).all()
        seen[stem][window] = True
    assert all(s.all() for s in seen.values())


# Names.


def features(source_id="deep/a", augmentation="", origin=(0, 0), source_size=(4, 6)) -> Any:
    record = records.Record(
        image=np.arange(72, dtype=np.uint8).reshape(4, 6, 3),
        mask=np.array([[0, 1, 2, 3, 0, 255]] * 4, np.uint8),
        source_id=source_id,
        filename=source_id + ".png",
        origin=origin,
        source_size=source_size,
        augmentation=augmentation,
    )
    return records.parse_features(records.encode(record, 4))


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (features(), "deep/a"),
        (features("a.0.5"), "a.0.5"),
        (features(source_size=(8, 6), origin=(4, 0)), "deep/a_y4_x0"),
        (features(source_size=(4, 7)), "deep/a_y0_x0"),
        (features(augmentation="hflipped"), "deep/hflipped_a"),
        (features(augmentation="rotated_90: about the centre"), "deep/rotated_90_a"),
        (features(augmentation="a/b: c"), "deep/a_b_a"),
        (
            features(augmentation="hflipped", source_size=(8, 8), origin=(0, 2)),
            "deep/hflipped_a_y0_x2",
        ),
        (features("train/a"), "a"),
        (features("valid/a"), "valid/a"),
    ],
)
def test_a_name_tells_source_tile_and_augmentation(made, name):
    assert extract.record_name(made, "train/") == name


@pytest.mark.parametrize("source_id", ["../a", "deep/../../a", "/a", "", "deep/"])
def test_a_record_cannot_name_a_file_elsewhere(source_id):
    with pytest.raises(FlexsegError, match="no path below a folder"):
        extract.record_name(features(source_id), origin="shard")


def handmade(folder: Path, serialized: list[bytes]) -> Manifest:
    """The dataset in `folder`, its split "train" replaced by the records given."""
    whole = manifest.load(str(folder))
    split = whole.split("train")
    with open(folder / "handmade.tfrecord", "wb") as file:
        for data in serialized:
            file.writelines(records.framed(data))
    shard = dataclasses.replace(split.shards[0], name="handmade.tfrecord", examples=len(serialized))
    split = dataclasses.replace(split, shards=(shard,), examples=len(serialized))
    return dataclasses.replace(whole, splits={"train": split})


def encoded(name: str, value: int, augmentation: str = "") -> bytes:
    image, mask = np.full((4, 6, 3), value, np.uint8), np.full((4, 6), value % 4, np.uint8)
    record = records.Record(image, mask, name, name + ".png", (0, 0), (4, 6), augmentation)
    return records.encode(record, 4)


def test_no_record_overwrites_another_one_of_its_name(dataset, tmp_path):
    made = [
        encoded("hflipped_a", 1),
        encoded("a", 2, "hflipped"),
        encoded("a", 3, "hflipped: with other details"),
        encoded("hflipped_a_2", 4),
        encoded("a", 5),
    ]
    extract.write_split(handmade(dataset, made), "train", str(tmp_path), "index")
    found = {p.stem: int(pixels(p)[0, 0, 0]) for p in (tmp_path / "train/images").iterdir()}
    assert found == {
        "hflipped_a": 1,
        "hflipped_a_2": 2,
        "hflipped_a_3": 3,
        "hflipped_a_2_2": 4,
        "a": 5,
    }
    masks = {p.stem: int(pixels(p)[0, 0]) for p in (tmp_path / "train/masks").iterdir()}
    assert masks == {name: value % 4 for name, value in found.items()}


def changed(serialized: bytes, **values: bytes) -> dict[str, list[Any]]:
    made = records.parse_features(serialized)
    return {**made, **{getattr(records, key): [value] for key, value in values.items()}}


def test_a_stored_jpeg_stays_the_same_bytes_and_raw_pixels_become_a_png(tmp_path):
    jpeg = changed(encoded("a", 1), FORMAT=b"jpeg", ENCODED=b"\xff\xd8 any bytes \xff\xd9")
    assert extract.image_file(jpeg) == (".jpg", b"\xff\xd8 any bytes \xff\xd9")
    for channels in (1, 3):
        image = np.random.default_rng(0).integers(0, 256, (4, 6, channels), dtype=np.uint8)
        raw = changed(encoded("a", 1), FORMAT=b"raw", ENCODED=image.tobytes())
        suffix, data = extract.image_file(raw)
        (tmp_path / f"raw{suffix}").write_bytes(data)
        assert suffix == ".png"
        assert (pixels(tmp_path / "raw.png").reshape(image.shape) == image).all()


# What is written, and what is left alone.


def test_a_choice_of_splits_can_be_written_one_after_the_other(command, dataset, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert command("extract", dataset, f"--output={whole}").status == 0
    assert command("extract", dataset, f"--output={parts}", "--split=test,valid").status == 0
    assert sorted(p.name for p in parts.iterdir()) == ["label_map.yaml", "test", "valid"]
    result = command("extract", dataset, f"--output={parts}", "--split=train,valid")
    assert result.status == 0
    assert "valid is already there" in result.out
    assert tree(parts) == tree(whole)
    text = (whole / "label_map.yaml").read_text()
    assert label_maps.load(str(whole / "label_map.yaml")) == manifest.load(str(dataset)).label_map
    assert manifest.load(str(dataset)).fingerprint in text


def test_an_interrupted_extraction_goes_on_and_ends_with_the_same_bytes(
    command, dataset, tmp_path, monkeypatch
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert command("extract", dataset, f"--output={whole}").status == 0
    encode, calls = extract.convert_masks.encode, []

    def stop_at_the_third(*arguments: Any) -> bytes:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(*arguments)

    monkeypatch.setattr(extract.convert_masks, "encode", stop_at_the_third)
    assert command("extract", dataset, f"--output={broken}").status == 130
    assert not (broken / "train").exists()
    monkeypatch.undo()
    assert command("extract", dataset, f"--output={broken}").status == 0
    assert tree(broken) == tree(whole)


def test_an_output_that_holds_something_else_is_refused(command, dataset, prepare, draw, tmp_path):
    own = tmp_path / "own"
    assert command("extract", dataset, f"--output={own}").status == 0
    (tmp_path / "holds").mkdir()
    (tmp_path / "holds" / "note.txt").write_text("mine")
    (tmp_path / "splits" / "valid").mkdir(parents=True)
    (tmp_path / "a_file").write_text("mine")
    draw(tmp_path / "data", ["one", "more"])
    assert prepare(f"--output={tmp_path / 'other'}").status == 0
    before = tree(tmp_path)
    cases: list[tuple[Path, Path, str, str]] = [
        (dataset, tmp_path / "holds", "palette", "holds something else (note.txt)"),
        (dataset, tmp_path / "splits", "palette", "holds something else (valid)"),
        (dataset, tmp_path / "a_file", "palette", "is a file; expected a folder"),
        (dataset, dataset, "palette", "lies inside the dataset"),
        (dataset, dataset / "files", "palette", "lies inside the dataset"),
        (dataset, own, "rgb", "or with masks in another form"),
        (tmp_path / "other", own, "palette", "holds files of another dataset"),
    ]
    for records_folder, output, masks, message in cases:
        result = command(
            "extract",
            records_folder,
            f"--output={output}",
            f"--mask_format={masks}",
            "--split=train",
        )
        assert result.status == 1
        assert message in result.err
        assert str(output) in result.err
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        ([], 2, "extract needs --output"),
        (["--output=x", "--split=training"], 1, 'has no split "training"; it has train'),
        (["--output=x", "--mask_format=gray"], 2, "--mask_format"),
    ],
)
def test_what_cannot_be_done_is_refused(
    command, dataset, tmp_path, monkeypatch, flags, status, message
):
    monkeypatch.chdir(tmp_path)
    result = command("extract", dataset, *flags)
    assert result.status == status
    assert message in result.err
    assert not (tmp_path / "x").exists()


def test_a_missing_or_damaged_shard_is_named(command, dataset, tmp_path):
    shard = next(iter(sorted(dataset.glob("train-*"))))
    content = shard.read_bytes()
    for damage, message in (
        (lambda: shard.write_bytes(content[:-1]), "is cut off"),
        (shard.unlink, "cannot be read"),
    ):
        damage()
        result = command("extract", dataset, f"--output={tmp_path / 'files'}")
        assert result.status == 1
        assert shard.name in result.err
        assert message in result.err
        assert not (tmp_path / "files" / "train").exists()


def test_it_works_without_tensorflow(dataset, tmp_path):
    code = (
        "import sys; sys.modules['tensorflow'] = None; import flexseg; "
        f"sys.exit(flexseg.main(['extract', {str(dataset)!r}, '--output={tmp_path / 'files'}']))"
    )
    run: Callable[..., Any] = subprocess.run
    root = Path(extract.__file__).parents[1]
    assert run([sys.executable, "-c", code], cwd=root, stdout=subprocess.DEVNULL).returncode == 0
    assert (tmp_path / "files" / "train").is_dir()
