"""The table of a prediction, and what its truths say of it."""

import csv
import functools

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.metrics import confusion_matrix, f1_score

from export.predictions import predict_table, predict_truth, predictors, report
from export.predictions.items import Item
from export.predictions.report import Report, Row
from flexseg_errors import FlexsegError
from pipelines import label_map as label_maps
from train import evaluate

THREE = label_maps.load("{(10,20,30):0,(255,0,0):1,(0,200,90):2}")
TWO = label_maps.load("{(0,0,0):0,(255,255,0):1}")


@pytest.fixture(scope="module")
def loaded():
    """Models by what they were loaded with: to trace a network takes longer than to use it."""
    load = predictors.load
    return functools.cache(lambda paths, options: load(paths, options))


@pytest.fixture
def predict(command, untrained_runs, pictures, tmp_path, loaded, monkeypatch):
    monkeypatch.setattr(predictors, "load", lambda paths, options: loaded(tuple(paths), options))

    def run(*flags, images=pictures):
        where = [f"--output={tmp_path / 'out'}", f"--table={tmp_path / 'table.csv'}"]
        where += [f"--model={untrained_runs['colour'].folder}", f"--images={images}"]
        return command("predict", *where, *flags)

    return run


@pytest.fixture
def lines(tmp_path):
    """A function that reads the table: {source_id: {column: text}}."""

    def read():
        with open(tmp_path / "table.csv", newline="") as file:
            return {line["source_id"]: line for line in csv.DictReader(file)}

    return read


def mask_of(tmp_path, stem):
    return np.array(Image.open(tmp_path / "out" / f"{stem}.png"))


def write_truths(tmp_path, stems, how="palette"):
    """Truths that resemble what was predicted: moved by some pixels, a corner to be ignored."""
    truths = {}
    for stem in stems:
        truth = np.roll(mask_of(tmp_path, stem), (2, 3), (0, 1))
        if how == "index":
            truth[:3, :3] = 255
        path = tmp_path / "truths" / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = THREE.colors[truth][..., ::-1] if how == "rgb" else truth
        cv2.imwrite(str(path), picture)
        truths[stem] = truth
    return truths


def test_the_table_has_a_line_for_each_image(predict, lines, tmp_path):
    assert predict().status == 0
    found = lines()
    assert list(found) == ["deep/er/large", "deep/photo", "odd", "small", "tile"]
    for stem, line in found.items():
        ids = mask_of(tmp_path, stem)
        assert (line["slices"], int(line["height"]), int(line["width"])) == ("1", *ids.shape)
        for label in THREE.classes:
            pixels = int((ids == label.id).sum())
            assert int(line[f"predicted_{label.name}"]) == pixels
            assert float(line[f"share_{label.name}"]) == pytest.approx(pixels / ids.size, abs=1e-6)
            if label.id:
                objects = ndimage.label(ids == label.id, np.ones((3, 3)))[1]
                assert int(line[f"objects_{label.name}"]) == objects
    assert any(int(line["objects_class_1"]) > 3 for line in found.values())
    assert not any(column.startswith("dice") for column in found["odd"])


@pytest.mark.parametrize("how", ["rgb", "index"])
def test_truths_score_each_image_and_all_together(predict, lines, tmp_path, how):
    assert predict().status == 0
    truths = write_truths(tmp_path, ["deep/er/large", "odd", "tile"], how)
    flags = [f"--truth={tmp_path / 'truths'}"] + ["--mask_kind=index"] * (how == "index")
    done = predict(*flags)
    assert done.status == 0, done.err
    found = lines()
    pooled = np.zeros((3, 3), np.int64)
    for stem, truth in truths.items():
        ids, known = mask_of(tmp_path, stem), truth < 3
        pooled += confusion_matrix(truth[known], ids[known], labels=[0, 1, 2])
        present = np.union1d(truth[known], ids[known])
        dice = f1_score(truth[known], ids[known], labels=[0, 1, 2], average=None, zero_division=0)
        for k, label in enumerate(THREE.classes):
            assert int(found[stem][f"pixels_{label.name}"]) == int((truth == k).sum())
            if k in present:
                assert float(found[stem][f"dice_{label.name}"]) == pytest.approx(dice[k], abs=1e-6)
            else:
                assert found[stem][f"dice_{label.name}"] == ""
        macro = np.mean([dice[k] for k in present if k])
        assert float(found[stem]["dice_macro"]) == pytest.approx(macro, abs=1e-6)
    assert found["small"]["dice_macro"] == found["small"]["pixels_class_1"] == ""
    assert int(found["small"]["predicted_background"]) >= 0
    dice = 2 * np.diag(pooled) / (pooled.sum(0) + pooled.sum(1))
    assert "truth: 3 images" in done.out
    for k, label in enumerate(THREE.classes):
        assert f"{label.name:<10}  {dice[k]:7.4f}" in done.out
    assert "2 have no mask in --truth and are not scored" in done.out
    assert "small.png" in done.out.partition("no mask in --truth")[2]


def test_truths_are_the_same_whether_given_at_once_or_later(predict, lines, tmp_path, monkeypatch):
    """And later, nothing is segmented again."""
    assert predict().status == 0
    write_truths(tmp_path, ["odd", "tile"])
    at_once = predict(f"--truth={tmp_path / 'truths'}", "--mask_kind=index", "--overwrite")
    table = (tmp_path / "table.csv").read_bytes()
    assert predict().status == 0
    assert b"dice" not in (tmp_path / "table.csv").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(predictors.Predictor, "class_ids", None)
        later = predict(f"--truth={tmp_path / 'truths'}", "--mask_kind=index")
        assert (tmp_path / "table.csv").read_bytes() == table
        for stem in ("odd", "small"):  # other truths, other figures
            found = (tmp_path / "out" / f"{stem}.png").read_bytes()
            (tmp_path / "truths" / f"{stem}.png").write_bytes(found)
        changed = predict(f"--truth={tmp_path / 'truths'}", "--mask_kind=index")
        others = lines()
    assert at_once.status == later.status == changed.status == 0
    assert later.out.partition("truth:")[2] == at_once.out.partition("truth:")[2]
    assert "truth: 3 images" in changed.out
    assert others["odd"]["dice_macro"] == others["small"]["dice_macro"] == "1.0"
    assert others["tile"]["dice_macro"] != "1.0"


@pytest.mark.parametrize("form", ["rgb", "index", "palette"])
def test_masks_of_every_format_can_be_scored_later(predict, tmp_path, form):
    flag = f"--mask_format={form}"
    assert predict(flag).status == 0
    truths = tmp_path / "truths"
    truths.mkdir()
    (truths / "odd.png").write_bytes((tmp_path / "out" / "odd.png").read_bytes())
    kind = "index" if form == "index" else "colors"
    done = predict(flag, f"--truth={truths}", f"--mask_kind={kind}")
    assert done.status == 0, done.err
    assert f"{'foreground':<10}   1.0000" in done.out


def test_a_truth_that_cannot_be_used_costs_its_score_alone(predict, lines, tmp_path):
    assert predict().status == 0
    write_truths(tmp_path, ["odd", "tile", "small"])
    (tmp_path / "truths" / "deep").mkdir()
    (tmp_path / "truths" / "deep" / "photo.png").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "truths" / "tile.png"), np.zeros((9, 9), np.uint8))
    cv2.imwrite(str(tmp_path / "truths" / "small.png"), np.full((9, 21), 7, np.uint8))
    for _ in range(2):
        flags = [f"--truth={tmp_path / 'truths'}", "--mask_kind=index"]
        done = predict(*flags, "--overwrite")
        assert done.status == 1
        assert "3 could not be done" in done.err
        assert f"{tmp_path}/truths/deep/photo.png cannot be read as an image" in done.err
        assert "tile.png is 9x9, but" in done.err
        assert "small.png: the values 7 are no class ids" in done.err
        assert "truth: 1 images" in done.out
        assert lines()["tile"]["dice_macro"] == ""
        assert lines()["odd"]["dice_macro"] != ""
        assert int(lines()["tile"]["predicted_background"]) >= 0


def test_a_mask_that_was_spoilt_is_made_again_to_be_scored(predict, lines, tmp_path):
    assert predict("--overlay").status == 0
    good = (tmp_path / "out" / "odd.png").read_bytes()
    write_truths(tmp_path, ["odd", "tile"])
    (tmp_path / "out" / "odd.png").write_bytes(good[:90])
    before = (tmp_path / "out" / "tile.png").stat().st_mtime_ns
    done = predict("--overlay", f"--truth={tmp_path / 'truths'}", "--mask_kind=index")
    assert done.status == 0, done.err
    assert "truth: 2 images" in done.out
    assert (tmp_path / "out" / "odd.png").read_bytes() == good
    assert (tmp_path / "out" / "tile.png").stat().st_mtime_ns == before


def test_an_image_that_goes_row_by_row_is_scored_as_others_are(
    predict, lines, tmp_path, pictures, monkeypatch
):
    flags = [f"--truth={tmp_path / 'truths'}", "--mask_kind=index", "--overwrite"]
    assert predict().status == 0
    write_truths(tmp_path, ["deep/er/large", "tile"])
    whole, expected = predict(*flags), lines()
    rows, found = predict(*flags, "--whole_pixels=1000"), lines()
    assert rows.status == whole.status == 0
    assert rows.out.partition("truth:")[2] == whole.out.partition("truth:")[2] != ""
    for column in ("dice_macro", "pixels_class_1", "predicted_class_1"):
        assert found["deep/er/large"][column] == expected["deep/er/large"][column] != ""

    def unreadable(*_):
        raise FlexsegError("out/deep/er/large.png is too large.")

    monkeypatch.setattr(predict_truth, "read_back", unreadable)
    done = predict(*flags, "--whole_pixels=1000")
    assert done.status == 1
    assert f"{pictures}/deep/er/large.png is not scored: out/deep/er/large.png is" in done.err
    assert (
        lines()["deep/er/large"]["predicted_class_1"] == found["deep/er/large"]["predicted_class_1"]
    )


def test_a_single_image_takes_a_single_truth(predict, pictures, tmp_path):
    assert predict(images=pictures / "odd.tif").status == 0
    truth = tmp_path / "out" / "odd.png"
    done = predict(f"--truth={truth}", images=pictures / "odd.tif")
    assert "would be overwritten" in done.err  # what it is held against
    other = tmp_path / "named_otherwise.png"
    other.write_bytes(truth.read_bytes())
    done = predict(f"--truth={other}", images=pictures / "odd.tif")
    assert done.status == 0, done.err
    assert "truth: 1 images" in done.out
    done = predict(f"--truth={other}")
    assert done.status == 1
    assert "is one mask, but there are 5 images" in done.err


def test_truths_that_fit_no_image_are_told(predict, tmp_path):
    assert predict(f"--truth={tmp_path / 'nowhere'}").status == 1
    (tmp_path / "truths").mkdir()
    cv2.imwrite(str(tmp_path / "truths" / "other.png"), np.zeros((9, 9), np.uint8))
    done = predict(f"--truth={tmp_path / 'truths'}")
    assert done.status == 1
    assert "holds no mask of any image" in done.err
    assert "expected deep/er/large, for example, and found other" in done.err
    for suffix in ("png", "bmp"):
        cv2.imwrite(str(tmp_path / "truths" / f"odd.{suffix}"), np.zeros((9, 9), np.uint8))
    done = predict(f"--truth={tmp_path / 'truths'}")
    assert "could all be the mask of" in done.err
    assert not (tmp_path / "out").exists()


def test_objects_touch_at_corners_and_classes_apart():
    ids = np.array([[1, 0, 2, 2], [0, 1, 0, 2], [0, 0, 0, 0], [1, 0, 2, 1]], np.uint8)
    row = report.row_of(ids, 3)
    assert row == Row((4, 4), (8, 4, 4), (3, 2))


def test_the_confusion_is_that_of_another_library_whatever_the_block(monkeypatch):
    rng = np.random.default_rng(0)
    truth, ids = rng.integers(0, 4, (37, 29), np.uint8), rng.integers(0, 3, (37, 29), np.uint8)
    truth[truth == 3] = 255
    known = truth < 3
    expected = confusion_matrix(truth[known], ids[known], labels=[0, 1, 2])
    for block in (1, 100, 1 << 20):
        monkeypatch.setattr(report, "_BLOCK", block)
        np.testing.assert_array_equal(report.confusion_of(truth, ids, 3), expected)


def test_a_report_comes_back_from_json_as_it_was():
    row = Row((3, 4, 5), (50, 10), (), ((1, 2), (3, 4)))
    files = {"a/b.png": "mask"}
    for version in (12, "checksum"):
        one = Report(
            "a/b", "in/a/b.nii", (7, version), row, files, {"mask": "0"}, "t", (1, version)
        )
        assert report.from_json(one.to_json()) == one
    failed = Report("a", "in/a.png", error="truncated")
    assert report.from_json(failed.to_json()) == failed


def test_the_sum_is_what_an_evaluation_says_of_the_same_masks():
    """In the same words and figures, as far as class ids tell."""
    from train.scoring import Scoring

    rng = np.random.default_rng(5)
    scoring = Scoring(THREE, one_logit=False)
    reports = []
    for number in range(4):
        truth = cv2.resize(rng.integers(0, 3, (3, 3), np.uint8), (20, 20), interpolation=0)
        ids = np.roll(truth, number, 0)
        truth[truth == 2] = 0 if number == 3 else 2  # found there and nowhere true
        scoring.add(str(number), np.eye(3, dtype=np.float32)[ids], truth)
        matrix = report.confusion_of(truth, ids, 3).tolist()
        row = Row((20, 20), (1, 1, 1), (0, 0), tuple(map(tuple, matrix)))
        reports.append(Report(str(number), "", row=row))
    reports.append(Report("unscored", "", row=Row((1, 1), (1, 0, 0), (0, 0))))
    expected = {"split": "truth", **scoring.summary(None)}
    found = predict_truth.evaluation(reports, THREE)
    assert all(expected[key] == found[key] for key in ("classes", "intervals", "detection"))
    said = evaluate.table(found)
    assert evaluate.table(expected).startswith(said)
    assert len(said.splitlines()) > 10


def test_one_hot_masks_are_truths_too(tmp_path):
    ids = np.array([[0, 1], [1, 0]], np.uint8)
    np.savez(tmp_path / "m.npz", mask=np.eye(2, dtype=np.uint8)[ids])
    item = Item("x.png", "x", truth=str(tmp_path / "m.npz"))
    np.testing.assert_array_equal(predict_truth.read(item, (2, 2), TWO, "colors"), ids)
    with pytest.raises(FlexsegError, match="binary needs a label map of two classes"):
        predict_truth.reading_of(THREE, "binary:127")


def test_a_row_without_objects_leaves_their_cells_empty():
    text = predict_table.table([Report("big", "", row=Row((9, 9), (80, 1), ()))], TWO, False)
    assert text.decode().splitlines()[1] == "big,1,9,9,80,1,0.987654,0.012346,"
