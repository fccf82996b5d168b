"""The page of a run that was really trained: its pictures are what evaluate scored."""

import base64
import dataclasses
import io
import json
import os
import pathlib
import shutil

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import flexseg
from export.reports import run_facts, run_page, run_pictures, step_log
from export.reports.options import Options
from pipelines import label_map as label_maps
from pipelines import manifest as manifests
from pipelines import storage, whole_images
from tests.export.reports.drawn_runs import Seen
from train import evaluate, film, postprocessing, previews, runs, software, test_time
from train.postprocessing import ClassRule, Postprocessing

COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
COUNT = 2
KEYS = {"model.base_filters": 4, "model.levels": 2, "data.batch_size": 2, "train.epochs": 2}
KEYS |= {
    "optimizer.warmup_steps": 0,
    "optimizer.learning_rate": 0.01,
    "train.previews": 2,
    "train.steps_per_epoch": 30,
}


LABEL_MAP = """classes:
- {id: 0, name: ground, color: [0, 0, 0]}
- {id: 1, name: "<i>square</i>", color: [255, 0, 0]}
- {id: 2, name: "{{7*7}}", color: [0, 255, 0]}
"""


def call(*arguments):
    assert flexseg.main([str(a) for a in arguments]) == 0


def _move(run, rng):
    """Moves the best weights so that every class is found somewhere; that takes long to learn."""
    model = run.load_model()
    for variable in model.weights:
        moved = variable.numpy() + rng.normal(0, 0.4, variable.shape)
        variable.assign(abs(moved) if "variance" in variable.path else moved)
    images = [i for _, i, _ in whole_images.whole_images(manifests.load(run.data), "test")]
    probe = np.stack(images).astype(np.float32)
    model.get_layer("logits").bias.assign_sub(model(probe).numpy().mean((0, 1, 2)))
    model.save_weights(run.path(runs.BEST_WEIGHTS))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a dataset of noisy squares, `records`, and a run on it, `run`, scored."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(8)
    (folder / "classes.yaml").write_text(LABEL_MAP)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for i in range(14):
        ids = np.zeros((32, 48), np.uint8)
        for k in (1, 2):
            y, x = rng.integers(0, 20), rng.integers(0, 34)
            ids[y : y + rng.integers(6, 14), x : x + rng.integers(6, 14)] = k
        pixels = (40 + 80 * ids[..., None] + rng.normal(0, 20, (32, 48, 1))).clip(0, 255)
        name = f"<b onclick=alert({i})>'&lt;"
        cv2.imwrite(str(folder / "images" / f"{name}.png"), pixels.astype(np.uint8).repeat(3, -1))
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), COLORS[ids][..., ::-1])
    call(
        "prepare",
        f"--dataset={folder}",
        f"--output={folder / 'records'}",
        f"--label_map={folder / 'classes.yaml'}",
        "--direct_num_workers=1",
        "--split=train:0.4,valid:0.2,test:0.4",
    )
    keys = [f"--config.{key}={value}" for key, value in KEYS.items()]
    call("train", f"--data={folder / 'records'}", f"--run={folder / 'run'}", *keys)
    _move(runs.load(str(folder / "run")), rng)
    call("evaluate", f"--run={folder / 'run'}", "--tta=flips")
    return folder


@pytest.fixture
def copied(place, tmp_path):
    """A copy of the run, to be changed."""
    return str(shutil.copytree(place / "run", tmp_path / "run"))


def pixels_of(picture):
    data = picture.uri.partition("base64,")[2]
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGB"))


def gathered(folder, count=COUNT, data=""):
    facts = run_facts.read(str(folder))
    return facts, run_pictures.gather(facts, facts.evaluations[0], count, data)


def test_pictures_show_what_was_scored(place):
    facts, cases = gathered(place / "run")
    assert not cases.note
    assert len(cases.worst) == len(cases.best) == COUNT
    manifest = evaluate.dataset_of(facts.run, None)
    variants = test_time.Variants("flips")
    found = {
        s.source_id: s for s in evaluate.segmented(facts.run, manifest, "test", variants=variants)
    }
    images = {i: image for i, image, _ in whole_images.whole_images(manifest, "test")}
    for case in (*cases.worst, *cases.best):
        own = found[case.dice.source_id]
        colors = facts.run.label_map
        np.testing.assert_array_equal(pixels_of(case.truth), COLORS[own.truth])
        np.testing.assert_array_equal(pixels_of(case.found), COLORS[own.class_ids])
        assert label_maps.colorize(own.class_ids, colors).shape == pixels_of(case.found).shape
        image = images[case.dice.source_id]
        assert abs(pixels_of(case.image).astype(int) - image).mean() < 8  # a JPEG
        error = pixels_of(case.error)
        for color, wrong in (
            (previews.FALSE_ALARM, (own.truth == 0) & (own.class_ids > 0)),
            (previews.MISSED, (own.truth > 0) & (own.class_ids == 0)),
            (
                previews.CONFUSED,
                (own.truth > 0) & (own.class_ids > 0) & (own.truth != own.class_ids),
            ),
        ):
            np.testing.assert_array_equal((error == color).all(-1), wrong)


def test_the_page_names_each_image_with_its_dice_and_describes_its_pictures(place):
    page = Seen(run_page.page(str(place / "run"), Options(pictures=COUNT)))
    facts = run_facts.read(str(place / "run"))
    ranked = [i for i in facts.evaluations[0].per_image if i.foreground is not None]
    text = page.text("images")
    alts = [p["alt"] for p in page.pictures]
    for image in (*ranked[:COUNT], *ranked[-COUNT:]):
        assert f"{image.source_id} : Dice {image.foreground:.4f}" in text
        for what in ("image", "truth of", "prediction for", "errors of the prediction for"):
            assert f"{what} {image.source_id}" in alts
    strips = [a for a in alts if "valid split" in a]
    assert len(page.pictures) == 8 * COUNT + len(strips)
    assert len(strips) == 1
    assert all(a for a in alts)
    assert not {"b", "i"} & set(page.tags)
    assert "<i>square</i> {{7*7}}" in text


def test_the_page_is_always_the_same(place):
    pages = {run_page.page(str(place / "run"), Options(pictures=COUNT)) for _ in range(2)}
    assert len(pages) == 1


def test_more_pictures_than_images_show_each_image_once(place):
    facts, cases = gathered(place / "run", 50)
    ids = [c.dice.source_id for c in (*cases.worst, *cases.best)]
    images = [i.source_id for i in facts.evaluations[0].per_image if i.foreground is not None]
    assert sorted(ids) == sorted(images)
    assert len(ids) > 2 * COUNT


def test_pictures_that_do_not_fit_are_left_out_from_both_ends_alike(place, monkeypatch):
    _, every = gathered(place / "run", 50)
    sizes = [c.bytes for pair in zip(every.worst, every.best, strict=False) for c in pair]
    monkeypatch.setattr(run_pictures.pictures, "MOST_BYTES", sum(sizes[:3]))
    _, cases = gathered(place / "run", 50)
    assert (cases.worst, cases.best) == (every.worst[:2], every.best[:1])
    total = len(every.worst) + len(every.best)
    assert f"{total - 3} more are left out" in cases.note


def test_masks_are_cleaned_as_they_were_when_they_were_scored(copied):
    facts = run_facts.read(copied)
    cleaning = Postprocessing((ClassRule(1, minimum_size=400), ClassRule(2, minimum_size=30)))
    found = dataclasses.replace(facts.evaluations[0], postprocessing=cleaning)
    plain = run_pictures.gather(facts, facts.evaluations[0], COUNT, "")
    cleaned = run_pictures.gather(facts, found, COUNT, "")
    changed = 0
    for one, other in zip(
        (*plain.worst, *plain.best), (*cleaned.worst, *cleaned.best), strict=True
    ):
        colors = pixels_of(one.found)
        ids = ((colors[..., 0] > 0) * 1 + (colors[..., 1] > 0) * 2).astype(np.uint8)
        np.testing.assert_array_equal(pixels_of(other.found), COLORS[cleaning.apply(ids)])
        changed += (pixels_of(other.found) != colors).any()
    assert changed
    assert postprocessing.of_run(facts.run).is_identity


def test_pictures_of_weights_that_changed_since_are_said_to_be_so(copied):
    facts = run_facts.read(copied)
    model = facts.run.load_model()
    model.get_layer("logits").bias.assign([0.0, 9.0, -9.0])
    model.save_weights(facts.run.path(runs.BEST_WEIGHTS))
    _, cases = gathered(copied)
    assert cases.worst
    assert "weights have changed" in cases.note


def test_data_that_have_moved_are_said_to_be_gone_until_they_are_named(place, copied, tmp_path):
    facts = run_facts.read(copied)
    with open(facts.run.path(runs.INPUT), encoding="utf-8") as file:
        text = file.read()
    with open(facts.run.path(runs.INPUT), "w", encoding="utf-8") as file:
        file.write(text.replace(facts.run.data, "/nowhere/records"))
    _, cases = gathered(copied)
    assert not cases.worst
    assert "/nowhere/records" in cases.note
    page = Seen(run_page.page(copied, Options(pictures=COUNT)))
    assert "/nowhere/records" in page.text("images")
    assert "not at hand" in page.text("provenance")
    assert [p for p in page.pictures if "truth of" in p["alt"]] == []
    _, cases = gathered(copied, data=str(place / "records"))
    assert len(cases.worst) == COUNT
    assert not cases.note


@pytest.mark.parametrize(
    ("fingerprint", "words"), [("ef" * 32, "another dataset"), ("", "does not say which dataset")]
)
def test_other_data_are_not_shown_as_those_that_were_scored(copied, fingerprint, words):
    facts = run_facts.read(copied)
    other = dataclasses.replace(facts.evaluations[0], fingerprint=fingerprint)
    cases = run_pictures.gather(facts, other, COUNT, "")
    assert not cases.worst
    assert words in cases.note


@pytest.mark.parametrize(("count", "told"), [(1, "1 of them is not"), (2, "2 of them are not")])
def test_images_that_the_dataset_lacks_are_counted(copied, count, told):
    facts = run_facts.read(copied)
    images = facts.evaluations[0].per_image
    lost = [dataclasses.replace(i, source_id=f"gone {n}") for n, i in enumerate(images[:count])]
    other = dataclasses.replace(facts.evaluations[0], per_image=(*lost, *images[count:]))
    cases = run_pictures.gather(facts, other, COUNT, "")
    assert cases.note == f"{told} in the dataset any more."
    assert len(cases.worst) == COUNT - count
    assert len(cases.best) == COUNT


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("best/model.weights.h5", "no weights"),
        ("evaluation/test_images.csv", "no table of its images"),
    ],
)
def test_why_there_are_no_pictures_is_said(copied, gone, words):
    os.remove(os.path.join(copied, gone))
    assert words in Seen(run_page.page(copied, Options())).text("images")


def test_waiting_is_read_from_the_log_as_tensorflow_reads_it(place):
    run = run_facts.read(str(place / "run")).run
    wanted = {}
    for path in (place / "run" / "logs").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag == "train/waiting_share":
                    wanted[event.step] = float(tf.make_ndarray(value.tensor))
    assert len(wanted) > 3
    assert step_log.scalars(run, step_log.WAITING) == wanted
    page = Seen(run_page.page(str(place / "run"), Options(pictures=0)))
    rows = page.tables["Share of the time spent waiting for input"][1:]
    assert {int(r[0]): r[1] for r in rows} == {s: f"{v:.4f}" for s, v in wanted.items()}


def test_of_a_torn_log_what_is_whole_is_read(copied):
    run = run_facts.read(copied).run
    every = step_log.scalars(run, step_log.WAITING)
    (name,) = os.listdir(run.path("logs"))
    with open(run.path("logs", name), "r+b") as file:
        file.truncate(os.path.getsize(file.name) // 2)
    some = step_log.scalars(run, step_log.WAITING)
    assert 0 < len(some) < len(every)
    assert list(some.items()) == list(every.items())[: len(some)]
    shutil.rmtree(run.path("logs"))
    assert step_log.scalars(run, step_log.WAITING) == {}


def test_the_strip_is_the_one_that_training_drew(place):
    page = Seen(run_page.page(str(place / "run"), Options(pictures=0)))
    (shown,) = page.pictures
    with Image.open(place / "run" / film.SHEETS / "strip_valid.png") as strip:
        wanted = np.asarray(strip.convert("RGB")).astype(int)
    data = base64.b64decode(shown["src"].partition("base64,")[2])
    with Image.open(io.BytesIO(data)) as picture:
        assert abs(np.asarray(picture.convert("RGB")).astype(int) - wanted).mean() < 8
    assert page.text("provenance").count("train") >= 1
    assert f"TensorFlow {tf.__version__}" in page.text("provenance")
    splits = manifests.load(str(place / "records")).splits
    rows = page.tables["What the dataset holds"][1:]
    assert {row[0]: int(row[1]) for row in rows} == {n: s.sources for n, s in splits.items()}


def test_each_change_of_software_is_shown_with_its_step(place, copied):
    path = runs.load(copied).path(software.FILE)
    (first,) = json.loads(pathlib.Path(path).read_text())
    later = {**first, "from_step": 1234, "tensorflow": "9.9.9"}
    pathlib.Path(path).write_text(json.dumps([first, later]))
    text = run_page.provenance(run_facts.read(copied))
    assert [name for name, _ in text if "Trained" in name] == [
        "Trained with",
        "Trained with, from step 1,234 on",
    ]
    assert "TensorFlow 9.9.9" in dict(text)["Trained with, from step 1,234 on"]
    pathlib.Path(path).write_text("{")
    facts = run_facts.read(copied)
    assert facts.software == ()
    assert any("software.json" in note for note in facts.notes)


def test_what_lies_on_a_store_has_the_page_that_it_has_here(place, bucket, tmp_path):
    for name in ("run", "records"):
        for file in storage.walk(str(place / name)):
            storage.upload(file.path, f"{bucket}/{name}/{file.name}", keep=True)
    pages = {}
    for where, root in (("here", str(place)), ("there", bucket)):
        pages[where] = Seen(run_page.page(f"{root}/run", Options(2, data=f"{root}/records")))
    here, there = pages["here"], pages["there"]
    assert len(here.pictures) > 2
    assert there.pictures == here.pictures
    assert there.tables == here.tables
    assert there.text("provenance") == here.text("provenance").replace(
        f"{place}/run", "s3://bucket/run"
    )
    assert f"--data={bucket}/records" in "".join(there.code)

    output = f"{bucket}/pages/records.html"
    call("report", f"{bucket}/records", f"--output={output}", "--pictures=3")
    call("report", place / "records", f"--output={tmp_path / 'records.html'}", "--pictures=3")
    told = storage.read_bytes(output).decode().replace(f"{bucket}/records", f"{place}/records")
    assert told == (tmp_path / "records.html").read_text()
