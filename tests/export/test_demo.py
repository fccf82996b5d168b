"""The demo: the whole road on pictures that it draws itself."""

import json
import re

import cv2
import numpy as np
import pytest

import flexseg
from export import demo

SMALL = {
    "_SIDE": 32,
    "_IMAGES": 40,
    "EXPERIMENT": "model: {base_filters: 2, levels: 2}\n"
    "data: {batch_size: 4}\n"
    "optimizer: {warmup_steps: 0}\n"
    "train: {epochs: 1, steps_per_epoch: 2}\n",
}
MADE = ["images", "masks", "records", "run", "predictions", "bundle", "contact.png"]


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def dices(out):
    """The figures of the demo's last line: trained, untrained."""
    return [float(v) for v in re.findall(r"(?:split|untrained): ([\d.]+)", out)]


def test_it_makes_all_that_it_names_and_a_second_call_makes_none_of_it_anew(
    tmp_path, monkeypatch, capsys
):
    for name, value in SMALL.items():
        monkeypatch.setattr(demo, name, value)
    folder = tmp_path / "demo"
    assert flexseg.main(["demo", f"--output={folder}"]) == 0
    first, made = capsys.readouterr(), contents(folder)
    assert [name for name in MADE if not (folder / name).exists()] == []
    assert all(str(folder / name) in first.out for name in MADE if name != "masks")
    assert len(list((folder / "predictions").glob("*.png"))) == SMALL["_IMAGES"]
    found = json.loads((folder / "run/evaluation/test.json").read_text())
    assert dices(first.out)[0] == round(found["foreground"]["dice_macro"], 4)
    for name in ("prepare", "verify", "train", "evaluate", "predict", "export"):
        assert f"$ flexseg {name} " in first.err
    height, width, _ = cv2.imread(str(folder / "contact.png")).shape
    assert height > 0 < width

    assert flexseg.main(["demo", f"--output={folder}"]) == 0
    second = capsys.readouterr()
    assert dices(second.out) == dices(first.out)
    assert "$ flexseg export " not in second.err
    again = contents(folder)
    assert again.keys() == made.keys()
    kept = ("records", "run/best", "run/checkpoints", "bundle", "predictions")
    changed = [str(name) for name in made if again[name] != made[name]]
    # What is noted of images, in hidden folders, has the times of their files.
    assert [n for n in changed if n.startswith(kept) and "/." not in n] == []


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_is_there_already_is_not_touched(tmp_path, there, capsys):
    place = tmp_path / "mine"
    inside = place if there == "file" else place / "thesis.txt"
    inside.parent.mkdir(exist_ok=True)
    inside.write_text("years of work")
    assert flexseg.main(["demo", f"--output={place}"]) == 1
    assert "holds something else; nothing was touched" in capsys.readouterr().err
    assert contents(tmp_path) == {inside.relative_to(tmp_path): b"years of work"}


def test_pictures_are_the_same_each_time_and_differ_from_one_another():
    label_map = demo._label_map()
    one, again, other = (demo.draw(np.random.default_rng([7, i]), 64, label_map) for i in (0, 0, 1))
    for a, b, c in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


def test_masks_lie_where_the_pictures_show_their_classes():
    label_map = demo._label_map()
    image, colors = (
        np.stack(part).astype(float)
        for part in zip(
            *(demo.draw(np.random.default_rng([7, i]), 64, label_map) for i in range(20)),
            strict=True,
        )
    )
    ground = image[(colors == label_map.colors[0]).all(-1)].mean(0)
    # Vessels are red, cells green and blue, crystals bright; each where its mask has its color.
    wanted = np.array([[45, -35, -30], [-20, 25, 30], [35, 45, 55]])
    for color, shade in zip(label_map.colors[1:], wanted, strict=True):
        seen = image[(colors == color).all(-1)].mean(0) - ground
        np.testing.assert_allclose(seen, shade, atol=8)


@pytest.mark.long
def test_the_network_learns_what_is_drawn(tmp_path, capsys):
    assert flexseg.main(["demo", f"--output={tmp_path / 'demo'}"]) == 0
    trained, untrained = dices(capsys.readouterr().out)
    assert trained > 0.9
    assert untrained < 0.3
