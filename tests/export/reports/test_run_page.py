"""A run's page says what its directory holds, of whatever release, and nothing else."""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from export import bundle
from export.reports import (
    comparison_page,
    curve_figures,
    figures,
    run_commands,
    run_facts,
    run_figures,
    run_page,
    run_pictures,
    run_plots,
    run_tables,
)
from export.reports.evaluation_facts import ImageDice
from export.reports.options import Options
from flexseg_errors import FlexsegError
from pipelines import folds
from pipelines import manifest as manifests
from pipelines.preparation import Preparation
from tests.export.reports import drawn_runs
from tests.export.reports.drawn_runs import Seen
from train import evaluate, experiment, train, tune_postprocessing
from train.runs import Origin

BARE = Options(pictures=0)
HOSTILE = (
    "<script>alert(1)</script>",
    "{{7*7}}{% for %}",
    "\"><img src=x onerror='alert(2)'>",
    "line\nbreak\u202etfel",
    "$\\frac{1}{0}$_^&amp;",
)


def seen(folder, options=BARE):
    return Seen(run_page.page(str(folder), options))


@pytest.fixture
def run(tmp_path):
    return drawn_runs.make(tmp_path / "run", splits=("valid", "test"))


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made, but not written as SVG, which takes the most time."""
    monkeypatch.setattr(figures, "svg", lambda *_: Markup("<svg></svg>"))


def evaluation(run, split="test"):
    with open(os.path.join(run, "evaluation", f"{split}.json"), encoding="utf-8") as file:
        return json.load(file)


def put(run, name, content):
    with open(os.path.join(run, name), "w", encoding="utf-8") as file:
        json.dump(content, file)


# ---- What it says --------------------------------------------------------------------------------


def test_foreground_and_background_stand_apart_with_their_intervals(run):
    found, page = evaluation(run), seen(run)
    columns = ["dice", "iou", "precision", "recall", "specificity", "matthews"]
    rows = {}
    for c in found["classes"]:
        low, high = 0.1 + c["id"] / 1000, 0.9 + c["id"] / 1000
        own = [f"{c[key]:.4f}" for key in columns]
        rows[c["name"]] = [own[0], f"{low:.4f} to {high:.4f}", *own[1:], str(c["images"])]
    fore = page.tables["Classes of the foreground (test split)"]
    assert fore[0][2] == "90% interval"
    assert {row[0]: row[1:] for row in fore[1:]} == {n: rows[n] for n in drawn_runs.NAMES[1:]}
    back = page.tables["Background, which is in no figure of the foreground (test split)"]
    assert back[1:] == [["background", *rows["background"]]]
    mean, pool = page.tables["Foreground (test split)"][1:]
    assert mean[1:4] == [
        f"{found['foreground']['dice_macro']:.4f}",
        "0.2111 to 0.8222",
        f"{found['foreground']['iou_macro']:.4f}",
    ]
    assert pool[1] == "0.4321"
    assert "0.2111 to 0.8222" in page.text()


def test_the_other_figures_of_an_evaluation_are_told_and_old_ones_are_folded_away(run):
    page = seen(run)
    assert page.tables["Single images (test split)"][2] == [
        "cell", "0.3300", "0.3400", "0.3500", "5", "2 of 5", "1 of 2",
    ]  # fmt: skip
    assert page.tables["Outlines (test split)"][1] == [
        "vessel", "4.500", "2.250", "0.7500", "–", "4", "2",
    ]  # fmt: skip
    assert "0.5 x 0.25" in page.text("evaluation-1")
    assert "1.5" in page.text("evaluation-1")
    assert page.tables["Calibration (test split)"][1:3] == [
        ["All classes", "0.0123", "0.0456"],
        ["background", "0.0600", "0.0700"],
    ]
    old = page.tables["Figures of older projects (test split)"]
    assert old[1:] == [["dice_coef_multiclass", "0.9876"], ["binary_accuracy", "0.9765"]]
    shown = {c for c in page.tables if "(test split)" in c} - page.folded_tables
    assert "Figures of older projects (test split)" not in shown
    assert "Classes of the foreground (test split)" in shown
    assert drawn_runs.RULES["legacy"] in page.text("evaluation-1")


def test_the_confusion_matrix_and_the_images_are_behind_their_figures(run):
    found, page = evaluation(run), seen(run)
    matrix = page.tables["Pixels; rows are the true class, columns the predicted one (test split)"]
    for row, own in zip(matrix[1:], found["confusion"], strict=True):
        assert [int(v.replace(",", "")) for v in row[1:]] == [*own, sum(own)]
    images = page.tables["Dice of each image, the worst first (test split)"]
    assert [r[0] for r in images[1:]][-1] == "empty image"
    assert images[-1][1:] == ["–", "1.0000", "–", "–"]
    dice = [float(r[1]) for r in images[1:-1]]
    assert dice == sorted(dice)
    assert len(dice) == 7


def test_each_row_of_the_confusion_matrix_adds_up_to_all_of_its_class(run):
    facts = run_facts.read(run)
    for share in ([0.00001, 0.99999], [0, 1], [0.5, 0.5]):
        texts = [run_figures.percent(v) for v in share]
        assert (texts[0] == "0") == (share[0] == 0)
        assert (texts[1] == "100") == (share[1] == 1)
    page = run_page.page(run, BARE)
    for name, row in zip(
        drawn_runs.NAMES, facts.evaluation("test").confusion, strict=True
    ):  # fmt: skip
        right = row[drawn_runs.NAMES.index(name)] / sum(row)
        assert f"{name}: {run_figures.percent(right)} right" in page


def test_curves_are_those_of_the_history_with_the_best_epoch_marked(run):
    page = seen(run)
    with open(os.path.join(run, "history.json"), encoding="utf-8") as file:
        history = json.load(file)
    for caption, names in {
        "Loss of each epoch": ["loss", "val_loss"],
        "Foreground Dice of each epoch": ["dice", "val_dice"],
        "Dice of each class, valid split, by epoch": ["val_dice/vessel", "val_dice/cell"],
        "Learning rate of each epoch": ["learning_rate"],
    }.items():
        rows = page.tables[caption]
        assert rows[0] == ["Epoch", *names]
        assert [r[0] for r in rows[1:]] == ["0", "1", "2", "3", "4 (best)"]
        wanted = [
            [f"{v:.4g}" for v in values]
            for values in zip(*(history[n] for n in names), strict=True)
        ]
        assert [r[1:] for r in rows[1:]] == wanted
    assert "best: epoch 4" in page.text("curves")
    assert "stopped early" in page.text()
    assert "5 of 50 epochs" in page.text()


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"train": {"epochs": 7, "loss": "ce"}, "data": {"fold": 2, "crop_size": [64, 32]}},
        {"model": {"name": "segformer"}},
        {"model": {"name": "attention_unet", "base_filters": 4}, "optimizer": {"beta_2": 0.5}},
    ],
)
def test_what_differs_from_the_defaults_is_told_first(tmp_path, keys):
    """A network of another kind differs in its name; its own knobs have its own defaults."""
    page = seen(drawn_runs.make(tmp_path / "run", keys=keys))
    wanted = {f"{s}.{k}" for s, values in keys.items() for k in values}
    table = page.tables.get("Settings that differ from their defaults", [[]])
    assert {row[0] for row in table[1:]} == wanted
    assert "Settings that differ from their defaults" not in page.folded_tables
    every = page.tables["All settings"]
    assert "All settings" in page.folded_tables
    own = experiment.to_dict(experiment.from_dict(keys))
    assert {r[0] for r in every[1:]} == {f"{s}.{k}" for s, part in own.items() for k in part}
    assert all(row[3] for row in every[1:])  # each says what it is


def test_very_many_classes_and_images_are_cut_down_to_the_worst_and_that_is_said(
    tmp_path, monkeypatch
):
    names = ("background", *(f"class {k:02d}" for k in range(1, 51)))
    folder = drawn_runs.make(tmp_path / "run", names)
    monkeypatch.setattr(run_tables, "MOST_IMAGES", 3)
    page, text = seen(folder), run_page.page(folder, BARE)
    assert len(page.tables["Classes of the foreground"]) == 51
    dice = {c["name"]: c["dice"] for c in evaluation(folder)["classes"][1:]}
    lowest = sorted(dice, key=dice.get)[: run_figures.MOST_ROWS]
    descriptions = re.findall(r"<(?:svg:)?desc[^>]*>([^<]*)<", text)
    (told,) = [d for d in descriptions if re.match(r"class \d+: 0\.\d+ \(", d)]
    assert {name for name in dice if f"{name}: " in told} == set(lowest)
    assert "The 40 lowest of 50 classes." in page.text("evaluation-1")
    assert "The 12 lowest of 50 classes." in page.text("curves")
    listed = page.tables["Dice of each image, the worst first: the first 3 of 8"]
    assert len(listed) == 4


def test_the_command_writes_these_pages(command, run, tmp_path):
    other = drawn_runs.make(tmp_path / "other", seed=3)
    for paths, page in (
        ([run], run_page.page(run, BARE)),
        ([run, other], comparison_page.page([run, other], BARE)),
    ):
        output = tmp_path / f"{len(paths)}.html"
        done = command("report", *paths, "--pictures=0", f"--output={output}")
        assert done.status == 0, done.err
        assert output.read_text(encoding="utf-8") == page


RULES = [
    {"id": 1, "largest_component": True, "minimum_size": 7, "fill_holes": 30},
    {"id": 2, "largest_component": False, "minimum_size": 0, "fill_holes": 4},
]


def test_how_images_were_segmented_is_said_in_words(tmp_path):
    how = {"tta": "d4", "scales": [0.75, 1.0], "postprocessing": RULES}
    text = seen(drawn_runs.make(tmp_path / "run", evaluation={"prediction": how})).text
    assert "Test-time augmentation: d4, scales 0.75, 1." in text("evaluation-1")
    assert (
        "Masks were cleaned. vessel: only the largest component is kept, components below 7 "
        "pixels are removed, holes of up to 30 pixels are filled; cell: holes of up to 4 pixels "
        "are filled." in text("evaluation-1")
    )
    how["postprocessing"] = [{"id": 1, "minimum_size": 1}]
    text = seen(drawn_runs.make(tmp_path / "one", evaluation={"prediction": how})).text
    assert "cleaned." not in text("evaluation-1"), "components of a pixel at least are all"


@pytest.mark.parametrize(
    ("preparation", "said"),
    [
        (Preparation(), "none"),
        (Preparation(volume_rotation=90), "slices of volumes turned by 90 degrees"),
        (Preparation(image_size=(32, 48)), "resized to 32 x 48 pixels"),
        (
            Preparation(scale=0.5, intensity="window:40,80", preprocessing="invert"),
            "values to 8 bits by window:40,80, colors changed by invert, scaled by 0.5",
        ),
    ],
)
def test_what_was_done_to_the_sources_is_said(tmp_path, preparation, said):
    folder = drawn_runs.make(tmp_path / "run", epochs=0, splits=(), preparation=preparation)
    assert dict(run_page.provenance(run_facts.read(folder)))["Preparation"] == said


def test_a_run_that_began_with_another_says_so_and_so_does_the_command(tmp_path):
    origin = Origin("runs/a first", "0123456789abcdef" * 4)
    page = seen(drawn_runs.make(tmp_path / "run", epochs=0, splits=(), init_from=origin))
    assert "Weights began as the best of runs/a first (0123456789ab)" in page.text("provenance")
    assert "--init_from='runs/a first'" in page.code[0]
    plain = seen(drawn_runs.make(tmp_path / "plain", epochs=0, splits=()))
    assert "Weights began as drawn by the seed" in plain.text("provenance")
    assert "--init_from" not in plain.code[0]


def test_a_run_of_a_release_that_did_not_say_why_it_ended_is_finished_after_its_epochs(tmp_path):
    run = drawn_runs.make(tmp_path / "run", keys={"train": {"epochs": 5}}, splits=())
    put(run, "checkpoints/step-000000050/state.json", {"format": 2, "step": 50})
    assert run_page.state(run_facts.read(run)) == "finished, 5 of 5 epochs"


def test_where_the_newest_checkpoint_is_torn_the_one_before_says_how_far_it_came(run):
    newest = os.path.join(run, "checkpoints", "step-000000050", "state.json")
    for content in ("{", "[]", '{"step": null}', None):
        os.remove(newest)
        if content is not None:
            with open(newest, "w", encoding="utf-8") as file:
                file.write(content)
        text = seen(run).text() if content is None else run_page.state(run_facts.read(run))
        assert "not finished, 5 of 50 epochs, checkpoint at step 9" in text


def without(run, *classes):
    """Lets classes be neither in truth nor in prediction of the test split."""
    found = evaluation(run)
    for k in classes:
        found["confusion"][k] = [0] * len(found["confusion"])
        for row in found["confusion"]:
            row[k] = 0
        parts = [found["classes"], found["intervals"]["classes"], found["per_image"]["classes"]]
        for part in parts:
            (entry,) = (e for e in part if e["id"] == k)
            entry.update({key: None for key in entry if key not in ("id", "name")})
    if len(classes) == len(found["classes"]) - 1:
        found["foreground"] = {**dict.fromkeys(found["foreground"]), "classes": 0}
        found["intervals"]["foreground_dice_macro"] = None
    put(run, "evaluation/test.json", found)
    path = os.path.join(run, "evaluation", "test_images.csv")
    with open(path, encoding="utf-8") as file:
        lines = [line.split(",") for line in file.read().splitlines()]
    for line in lines[1:]:
        for k in classes:
            line[3 + k] = ""
        line[2] = "" if len(classes) == len(found["classes"]) - 1 else line[2]
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(",".join(line) + "\n" for line in lines))


def test_a_class_that_is_nowhere_has_no_figures_and_a_gray_row_without_text(tmp_path):
    run = drawn_runs.make(tmp_path / "run")
    before = run_page.page(run, BARE)
    without(run, 2)
    text, page = run_page.page(run, BARE), seen(run)
    row = page.tables["Classes of the foreground"][2]
    assert row == ["cell", *["–"] * 8]
    assert page.tables["Single images"][2][:5] == ["cell", *["–"] * 4]
    assert "cell: no pixels." in text
    assert "cell: no figure." in text
    assert "cell: no pixels." not in before
    gray = "#c8c8c8"
    assert (before.count(gray), text.count(gray)) == (0, 3), "a cell for each class"
    pixels = page.tables["Pixels; rows are the true class, columns the predicted one"]
    assert pixels[3] == ["cell", "0", "0", "0", "0"]
    assert "vessel: 7 images from" in text
    assert "cell: 7 images from" not in text


def test_an_evaluation_without_any_foreground_is_shown_and_says_so(tmp_path):
    run = drawn_runs.make(tmp_path / "run")
    without(run, 1, 2)
    page = seen(run, Options(pictures=2))
    assert page.tables["Foreground"][1:] == [
        [name, *["–"] * 7] for name in ("Mean over its classes", "All its pixels in one pool")
    ]
    assert "No image has foreground in its truth or in its prediction." in page.text("images")
    assert not [p for p in page.pictures if "truth of" in p["alt"]]
    assert "Dice of single images" not in page.text("evaluation-1")


def test_a_figure_that_no_epoch_has_is_not_drawn(tmp_path):
    run = drawn_runs.make(tmp_path / "run", splits=())
    with open(os.path.join(run, "history.json"), encoding="utf-8") as file:
        history = json.load(file)
    gone = ("dice", "val_dice", "val_dice/vessel", "val_dice/cell")
    put(run, "history.json", {k: [None] * 5 if k in gone else v for k, v in history.items()})
    page = seen(run)
    assert "Loss of each epoch" in page.tables
    assert not [caption for caption in page.tables if "Dice" in caption]
    assert "Dice" not in page.text("curves")


def test_classes_that_are_nowhere_take_no_line_from_those_that_have_figures(tmp_path):
    names = ("background", *(f"class {k:02d}" for k in range(1, 31)))
    run = drawn_runs.make(tmp_path / "run", names, splits=())
    dice = {f"class {k:02d}": [0.9, 1 - k / 100, None] for k in range(14, 31)}
    every = {name: dice.get(name, [None] * 3) for name in names[1:]}
    put(run, "history.json", {f"val_dice/{name}": values for name, values in every.items()})
    (plot,) = run_plots.curves(run_facts.read(run))
    drawn = set(re.findall(r"class \d\d", plot.svg))
    assert drawn == {f"class {k:02d}" for k in range(19, 31)}
    assert plot.caption.endswith("The 12 lowest of 17 classes.")


def test_images_have_rows_for_the_classes_that_they_show_alone(tmp_path):
    names = ("background", *(f"class {k:02d}" for k in range(1, 46)))
    run = drawn_runs.make(tmp_path / "run", names, epochs=0)
    without(run, *range(1, 4))
    text = seen(run).text("evaluation-1")
    assert "where there is one. The 40 lowest of 45 classes." in text
    assert "a line at the median. The 40 lowest of 42 classes." in text


# ---- The dataset in its place --------------------------------------------------------------------


def test_another_dataset_in_the_place_of_the_own_is_told_and_not_described(dataset, tmp_path):
    own = manifests.load(str(dataset)).fingerprint
    for name, fingerprint in (("own", own), ("other", "ef" * 32)):
        page = seen(
            drawn_runs.make(
                tmp_path / name, epochs=0, splits=(), data=str(dataset), fingerprint=fingerprint
            )
        )
        text = page.text("provenance")
        told = f"{dataset} holds another dataset than the run was trained on."
        assert (told in text) == (name == "other")
        shares = "Split by groups: train:0.5,valid:0.25,test:0.25, seed 137."
        assert (shares in text) == (name == "own")
        assert ("What the dataset holds" in page.tables) == (name == "own")
        assert ("flexseg prepare" in page.code[0]) == (name == "own")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "train:1", "folds": 0, "split_seed": 3}, "Split by groups: train:1, seed 3."),
        (
            {"split": "train:0.9,test:0.1", "folds": 3, "split_seed": 3},
            "Split by groups: train:0.9,test:0.1; train in 3 folds, seed 3.",
        ),
        (
            {"split": "", "folds": 3, "split_seed": 3},
            "The sources came with their splits; train in 3 folds, seed 3.",
        ),
        ({"split": "", "folds": 0, "split_seed": 3}, "The sources came with their splits."),
        ({}, "The sources came with their splits."),
    ],
)
def test_how_the_dataset_was_split_is_said(dataset, tmp_path, options, said):
    manifest = dataclasses.replace(manifests.load(str(dataset)), options=options)
    (tmp_path / manifests.FILENAME).write_text(manifests.dump(manifest), encoding="utf-8")
    run = drawn_runs.make(
        tmp_path / "run", epochs=0, splits=(), data=str(tmp_path), fingerprint=manifest.fingerprint
    )
    assert run_page.dataset_at(run_facts.read(run), str(tmp_path))[1] == said


def test_a_run_on_a_fold_shows_the_dataset_as_it_saw_it(dataset, tmp_path):
    whole = manifests.load(str(dataset))
    parts = dict(zip(("fold0", "fold1", "fold2"), whole.splits.values(), strict=True))
    folded = dataclasses.replace(
        whole, splits=parts, options={**whole.options, "folds": 3, "split": "train:1"}
    )
    (tmp_path / manifests.FILENAME).write_text(manifests.dump(folded), encoding="utf-8")
    page = seen(
        drawn_runs.make(
            tmp_path / "run",
            epochs=0,
            splits=(),
            keys={"data": {"fold": 1}},
            data=str(tmp_path),
            fingerprint=folds.view(folded, 1).fingerprint,
        )
    )
    rows = {row[0]: [int(n) for n in row[1:4]] for row in page.tables["What the dataset holds"][1:]}
    counts = {n: [s.sources, s.groups, s.examples] for n, s in parts.items()}
    train = [a + b for a, b in zip(counts["fold0"], counts["fold2"], strict=True)]
    assert rows == {"train": train, "valid": counts["fold1"]}
    assert "Fold for validation 1 " in page.text("provenance")
    assert "--folds=3" in page.code[0], "prepare makes all folds"


# ---- What is missing or damaged ------------------------------------------------------------------

PARTS = ["history.json", "best", "checkpoints", "previews", "evaluation", "evaluation/test.json"]
PARTS += ["evaluation/test_images.csv"]

ENTRIES = [{"id": 0, "name": "background"}, {"id": 1, "name": "cell"}]
BASE = {"split": "test", "images": 1, "classes": ENTRIES, "foreground": {}}
BACKWARDS = json.dumps({**BASE, "classes": ENTRIES[::-1]})
NARROW = json.dumps({**BASE, "confusion": [[1, 2]]})
NO_SUCH_CLASS = json.dumps({**BASE, "prediction": {"postprocessing": [{"id": 2}]}})


@pytest.mark.parametrize("part", PARTS)
def test_a_run_that_lacks_a_part_is_shown_without_it(run, part, undrawn):
    path = os.path.join(run, part)
    os.rename(path, path + ".gone")
    page = seen(run)
    assert "findings" not in " ".join(a.get("class", "") for a in page.tags.get("ul", []))
    text = " ".join(page.text(section) for section in page.texts)
    assert not re.search(r"\b(None|nan|Undefined)\b", text)


def test_a_run_that_was_killed_at_its_first_step_is_shown(tmp_path):
    page = seen(drawn_runs.make(tmp_path / "run", epochs=0, splits=()))
    assert "begun; no epoch is done" in page.text()
    assert "nothing to draw" in page.text("curves")
    assert "none yet" in page.text("evaluation")
    assert not page.pictures
    assert "images" not in page.texts


@pytest.mark.parametrize(
    "key",
    ["dataset_fingerprint", "size", "prediction", "overall", "confusion", "intervals", "per_image",
     "detection", "calibration", "boundary", "legacy", "rules"],
)  # fmt: skip
def test_an_evaluation_of_an_older_release_is_shown_as_far_as_it_goes(run, key, undrawn):
    path = os.path.join(run, "evaluation", "test.json")
    found = evaluation(run)
    del found[key]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(found, file)
    page = seen(run)
    assert len(page.tables["Classes of the foreground (test split)"]) == 3
    assert "is damaged" not in page.text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("history.json", "{"),
        ("history.json", "[1]"),
        ("history.json", '{"loss": ["a"]}'),
        ("best/best.json", "{}"),
        ("best/best.json", "[]"),
        ("evaluation/test.json", "{"),
        ("evaluation/test.json", '{"split": "test"}'),
        ("evaluation/test.json", "[]"),
        ("evaluation/test.json", BACKWARDS),
        ("evaluation/test.json", NARROW),
        ("evaluation/test.json", NO_SUCH_CLASS),
        ("evaluation/test_images.csv", "a,b\n1,2\n"),
        ("evaluation/test_images.csv", "source_id,pixels,dice_macro,a,b,c\nx,1,two,3,4,5\n"),
        ("postprocessing.yaml", "classes: [{id: 9, fill_holes: 3}]"),
        ("postprocessing.yaml", "]"),
    ],
)
def test_what_is_damaged_is_named_and_the_rest_is_shown(run, name, content, undrawn):
    with open(os.path.join(run, name), "w", encoding="utf-8") as file:
        file.write(content)
    page = seen(run)
    assert name.rpartition("/")[2].replace("_images.csv", ".json") in page.text()
    assert "Classes of the foreground" in " ".join(page.tables)  # of the valid split at the least


def test_a_strip_that_is_damaged_is_left_out(run):
    with open(os.path.join(run, "previews", "strip_valid.png"), "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n and no more")
    assert "epochs" not in seen(run).texts


@pytest.mark.parametrize("name", ["experiment.yaml", "input.yaml", "label_map.yaml"])
def test_what_is_no_run_is_an_error_that_names_it(run, name):
    os.remove(os.path.join(run, name))
    with pytest.raises(FlexsegError, match=name):
        run_page.page(run, BARE)


def test_the_report_of_figures_alone_needs_no_tensorflow_and_is_always_the_same(run):
    text = (
        "import sys; from export.reports import run_page; from export.reports.options import "
        f"Options; page = run_page.page({run!r}, Options(pictures=0)); "
        "assert 'tensorflow' not in sys.modules; sys.stdout.buffer.write(page.encode())"
    )
    pages = {run_page.page(run, BARE).encode()}
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": f"UTC{seed}"}
        done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        pages.add(done.stdout)
    assert len(pages) == 1


# ---- Names that want to be code ------------------------------------------------------------------


def test_hostile_names_are_shown_and_do_nothing(tmp_path):
    names = ("background", *HOSTILE)
    folder = drawn_runs.make(
        tmp_path / "<b onclick=alert(3)>'\"run",
        names,
        splits=("test",),
        data="/no <script>alert(4)</script>",
        evaluation={"rules": {"<i>": "<img src=x>"}},
    )
    path = os.path.join(folder, "evaluation", "test_images.csv")
    with open(path, encoding="utf-8") as file:
        table = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(table.replace("image 0", HOSTILE[0]).replace("image 1", HOSTILE[4]))
    plain = seen(drawn_runs.make(tmp_path / "plain", ("background", *"abcde")))
    page = seen(folder)
    assert {t: len(a) for t, a in page.tags.items() if t in ("script", "img", "style", "b")} == {
        t: len(a) for t, a in plain.tags.items() if t in ("script", "img", "style", "b")
    }
    attributes = {name for own in page.tags.values() for a in own for name in a}
    assert not {name for name in attributes if name.startswith("on")}
    assert "style" not in attributes
    rows = [row[0] for row in page.tables["Classes of the foreground"][1:]]
    assert rows[:3] == list(HOSTILE[:3])
    assert rows[3:] == ["line\\nbreak\\u202etfel", HOSTILE[4]]
    images = [row[0] for row in page.tables["Dice of each image, the worst first"]]
    assert {HOSTILE[0], HOSTILE[4]} <= set(images)
    assert "<b onclick=alert(3)>'\"run" in page.text()
    assert "49" not in rows[1]
    assert "<img src=x>" in page.text("evaluation-1")


# ---- Commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run", 'a run\'s "first"', "$(touch x); `y` &", "ä ö"])
def test_commands_are_read_by_the_programs_as_they_were_meant(tmp_path, name):
    data = f"/records of/{name}"
    how = {"tta": "d4", "scales": [0.75, 1.0], "postprocessing": None}
    folder = drawn_runs.make(
        tmp_path / name, data=data, evaluation={"prediction": how, "dataset_fingerprint": "other"}
    )
    steps = run_commands.steps(run_facts.read(folder), data, None)
    lines = [line for step in steps for line in step.commands.lines]
    again = f"{folder}_again"
    wanted = {
        "train": (train, {"data": data, "run": again, "experiment": f"{folder}/experiment.yaml"}),
        "evaluate": (
            evaluate,
            {"run": again, "split": "test", "tta": "d4", "scales": "0.75,1", "boundary": True,
             "spacing": "0.5,0.25", "nsd_tolerance": 1.5, "data": "DATASET_OF_THE_EVALUATION"},
        ),
        "export": (bundle, {"run": again, "output": f"{again}_bundle"}),
    }  # fmt: skip
    for line in lines:
        program, command, *arguments = shlex.split(line)
        assert program == "flexseg"
        module, expected = wanted.pop(command)
        values = flags.FlagValues()
        module.define_flags(values)
        assert values([command, *arguments]) == [command]
        assert {n: values[n].value for n in values if values[n].present} == expected
    assert not wanted
    page = seen(folder)
    assert [line for text in page.code for line in text.strip().split("\n")][-3:] == lines


def test_what_is_as_by_default_is_not_among_the_flags(tmp_path):
    boundary = {"nsd_tolerance": 2.0, "spacing": [1, 1], "classes": []}
    run = drawn_runs.make(tmp_path / "run", evaluation={"boundary": boundary})
    (step,) = (s for s in run_commands.steps(run_facts.read(run), "data", None)
               if s.title == "Evaluate")  # fmt: skip
    told = f"flexseg evaluate --run={run}_again --split=test --boundary --nsd_tolerance=2"
    assert step.commands == run_commands.Commands((told,), {}, {})


@pytest.mark.parametrize("where", ["the run", "an evaluation", "neither"])
def test_masks_that_were_cleaned_are_cleaned_again_and_those_that_were_not_are_not(tmp_path, where):
    """The run that is trained again has no rules before they are chosen again."""
    how = {"tta": "none", "scales": [1.0], "postprocessing": RULES}
    cleaned = {"prediction": how} if where == "an evaluation" else None
    run = drawn_runs.make(tmp_path / "run", splits=("test",), evaluation=cleaned)
    drawn_runs.make(tmp_path / "plain", splits=("valid",))
    put(run, "evaluation/valid.json", evaluation(tmp_path / "plain", "valid"))
    if where == "the run":
        put(run, "postprocessing.yaml", {"classes": RULES})
    steps = run_commands.steps(run_facts.read(run), "data", None)
    lines = [line for step in steps for line in step.commands.lines]
    tune = f"flexseg tune-postprocessing --run={run}_again"
    assert (tune in lines) == (where != "neither")
    at = {line.split()[1]: place for place, line in enumerate(lines)}
    if where != "neither":
        assert at["train"] < at["tune-postprocessing"] < at["evaluate"]
        values = flags.FlagValues()
        tune_postprocessing.define_flags(values)
        assert values(shlex.split(tune)[1:]) == ["tune-postprocessing"]
    plain = {split for split in ("test", "valid") for line in lines
             if f"--split={split}" in line and "--nopostprocessing" in line}  # fmt: skip
    wanted = {"the run": {"test", "valid"}, "an evaluation": {"valid"}, "neither": set()}
    assert plain == wanted[where]


# ---- Which images are shown ----------------------------------------------------------------------

DICE = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1))


@given(st.lists(DICE, max_size=12), st.integers(1, 6))
def test_the_worst_and_the_best_images_are_chosen_and_none_is_both(values, count):
    images = [ImageDice(f"i{n:02d}", value, ()) for n, value in enumerate(values)]
    worst, best = run_pictures.choose(images, count)
    known = sorted(v for v in values if v is not None)
    ids = [i.source_id for i in (*worst, *best)]
    assert len(set(ids)) == len(ids) == min(len(known), 2 * count)
    assert max(len(worst), len(best)) <= count
    assert len(best) <= len(worst)
    assert [i.foreground for i in worst] == known[: len(worst)]
    assert [i.foreground for i in best] == known[::-1][: len(best)]
    assert (worst, best) == run_pictures.choose(images[::-1], count)


@given(st.dictionaries(st.integers(0, 500), st.floats(0, 1), max_size=60), st.integers(1, 20))
def test_a_long_log_is_thinned_to_means_that_keep_its_mean(values, most):
    values = dict(sorted(values.items()))
    found = curve_figures.thinned(values, most)
    assert len(found) <= most
    assert set(found) <= set(values)
    steps = list(values)
    before = -1
    for step, value in found.items():
        part = steps[before + 1 : steps.index(step) + 1]
        before = steps.index(step)
        assert value == pytest.approx(sum(values[s] for s in part) / len(part))
    assert before == len(steps) - 1
