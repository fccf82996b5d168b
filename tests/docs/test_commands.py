"""Every command and every line of Python in README.md and docs/ works, or says why it is not run.

A page's blocks are run one after another in a folder that holds small made-up data under the names
that the pages use, and what the README's steps made of them. What would take long is cut down by
`CUTS`, flags that are put behind those of the page.
"""

from __future__ import annotations

import configparser
import importlib
import os
import re
import runpy
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from absl import flags

import flexseg
import flexseg_flags
from pipelines import augment, beam_job
from pipelines import label_map as label_maps
from tests.docs.markdown_pages import (
    LONG,
    MARKERS,
    PAGES,
    ROOT,
    blocks,
    commands,
    inline_code,
    name_of,
    prose,
)
from train import experiment as experiments

LANGUAGES = ("sh", "python", "yaml", "text")
CUTS = {
    "prepare": {
        "image_size": "32,32",
        "tile_size": "32",
        "tile_overlap": "8",
        "scale": "0.5",
        "": "--direct_num_workers=1",
    },
    "train": {
        "config.train.epochs": "1",
        "config.train.steps_per_epoch": "2",
        "config.data.batch_size": "2",
        "": "--config.model.base_filters=2 --config.model.levels=2 --config.train.previews=1 "
        "--config.optimizer.warmup_steps=0",
    },
    "lr-find": {"": "--steps=20"},
    "report": {"": "--pictures=1"},
}
# What other pages have made when these are read.
EARLIER = {
    "docs/how-to/training.md": [
        "prepare --dataset=mbh --output=records/mbh --label_map=classes.yaml --image_size=32,32"
    ],
    "docs/how-to/predicting.md": [
        f"train --data=records/lung --run=runs/fold{k} --config.train.seed={k}" for k in range(3)
    ],
}
ALLOWED = {"make", "pip", "tensorboard", "python", "export", "serving/lung/serve.sh"}
COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
WHITE = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)
CLASSES = """\
classes:
- {id: 0, name: background, color: [0, 0, 0]}
- {id: 1, name: EDH, color: [255, 0, 0]}
- {id: 2, name: IPH, color: [0, 0, 255]}
"""
OLD_CONFIG = """\
[model]
model = "TensorFlowFlexUNet"
num_classes = 2
image_width = 64
image_height = 64
[train]
images_dir = "./lung/images"
masks_dir = "./lung/masks"
epochs = 3
[mask]
rgb_map = {(0,0,0):0,(255,255,255):1}
"""


def draw(folder: Path, names: list[str], size: tuple[int, int], colors: np.ndarray) -> None:
    """Noisy images of a disc for each class but the first, and their masks in colours."""
    rng = np.random.default_rng(len(names) + size[0])
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for name in names:
        ids = np.zeros(size, np.uint8)
        for k in range(1, len(colors)):
            center = rng.integers(8, size[1] - 8), rng.integers(8, size[0] - 8)
            cv2.circle(ids, [int(c) for c in center], int(rng.integers(5, 9)), k, -1)
        pixels = 40 + 70 * ids[..., None] + rng.normal(0, 10, (*size, 3))
        cv2.imwrite(str(folder / "images" / f"{name}.png"), pixels.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), colors[ids][..., ::-1])


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """The folder that the pages speak of, after the steps of the README."""
    folder = tmp_path_factory.mktemp("pages")
    draw(folder / "lung", [str(400 + i) for i in range(10)], (64, 64), WHITE)
    patients = [f"1{p:02d}" for p in range(10, 20)]
    draw(folder / "mbh", [f"{p}{s:03d}" for p in patients for s in (17, 18)], (64, 64), COLORS)
    draw(folder / "stare", [f"im{i:04d}" for i in range(6)], (96, 128), WHITE)
    rng = np.random.default_rng(3)
    for kind in ("images", "masks"):
        (folder / "ct" / kind).mkdir(parents=True)
    for i in range(4):
        labels = np.zeros((6, 40, 40), np.uint8)
        labels[2:4, 10:20, 10 + i : 20 + i] = 1
        voxels = (60 + 80 * labels.astype(int) + rng.normal(0, 9, labels.shape)).astype(np.int16)
        np.save(folder / "ct" / "images" / f"scan{i}.npy", voxels)
        np.save(folder / "ct" / "masks" / f"scan{i}.npy", labels)
    (folder / "new_scans").mkdir()
    for i, name in enumerate(("scan.png", "new_scans/a.png", "new_scans/b.png")):
        shutil.copy(folder / "lung" / "images" / f"{400 + i}.png", folder / name)
    (folder / "classes.yaml").write_text(CLASSES)
    listed = [f"{p}{s:03d}.png,{p}" for p in patients for s in (17, 18)]
    (folder / "patients.csv").write_text("\n".join(["path,group", *listed]) + "\n")
    (folder / "train_eval_infer.config").write_text(OLD_CONFIG)
    run_page(ROOT / "README.md", folder)
    return folder


def cut(words: list[str]) -> list[str]:
    """A command's arguments with what makes it short behind them."""
    command, *arguments = words
    extra = []
    for name, value in CUTS.get(command, {}).items():
        if not name:
            extra += value.split()
        elif any(a.startswith(f"--{name}=") for a in arguments):
            extra.append(f"--{name}={value}")
    if any(a.startswith("--direct_num_workers") for a in arguments):
        extra = [e for e in extra if not e.startswith("--direct_num_workers")]
    return [command, *arguments, *extra]


def run_page(page: Path, folder: Path, long: bool = False) -> None:
    """Runs the blocks of a page that are to be run; `long`: those of the long tests, too."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        for block in blocks(page):
            if block.is_run(long) and block.language == "sh":
                for words in commands(block.text):
                    assert words[0] == "flexseg", f"{block.place}: {words[0]} is not run here"
                    run_command(words[1:], block.place)
            elif block.is_run(long) and block.language == "python":
                script = folder / "block.py"
                script.write_text(block.text)
                runpy.run_path(str(script))
    finally:
        os.chdir(before)


def run_command(words: list[str], place: str) -> None:
    """Runs a command, cut short."""
    status = flexseg.main(cut(words))
    assert status == 0, f"{place}: {' '.join(words)} ended with {status}"


def test_the_steps_of_the_readme_leave_what_they_promise(base):
    made = [
        "records/lung/dataset.json",
        "runs/lung/experiment.yaml",
        "runs/lung/best",
        "runs/lung/eval/train_losses.csv",
        "runs/lung/logs",
        "runs/lung/previews",
        "runs/lung/evaluation/test.json",
        "masks/a.png",
        "masks/b.overlay.png",
        "bundles/lung/saved_model.pb",
    ]
    assert [name for name in made if not (base / name).exists()] == []


RUN_PAGES = [p for p in PAGES[1:] if any(b.is_run() and b.language != "text" for b in blocks(p))]
LONG_PAGES = [p for p in PAGES if any(b.marker == LONG for b in blocks(p))]


@pytest.mark.parametrize("page", RUN_PAGES, ids=name_of)
def test_the_commands_of_a_page_work(base, page, tmp_path):
    check_commands(page, base, tmp_path / "folder")


@pytest.mark.long
@pytest.mark.parametrize("page", LONG_PAGES, ids=name_of)
def test_all_commands_of_a_page_work(base, page, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    shutil.copytree(base, folder)
    monkeypatch.chdir(folder)
    for line in EARLIER.get(name_of(page), ()):
        run_command(line.split(), name_of(page))
    check_commands(page, folder, tmp_path / "again", long=True)


def check_commands(page: Path, base: Path, folder: Path, long: bool = False) -> None:
    """Runs a page in a copy of `base` and looks for what it says that it writes."""
    shutil.copytree(base, folder)
    before = {path.name for path in folder.iterdir()}
    run_page(page, folder, long)
    made = {path.name for path in folder.iterdir()} - before
    outputs = {
        word.partition("=")[2].partition("/")[0]
        for block in blocks(page)
        if block.is_run(long) and block.language == "sh"
        for words in commands(block.text)
        for word in words
        if word.startswith("--output=")
    }
    assert outputs <= made | before


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_run_or_says_why_not(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.place}: say what it is"
        if block.marker:
            assert block.marker in MARKERS, f"{block.place}: {block.marker}"
            assert len(block.reason) > 10, f"{block.place}: say why"
            assert block.language == "sh", f"{block.place}: only shell may be left out"


def test_most_commands_are_run():
    shell = [b for page in PAGES for b in blocks(page) if b.language == "sh"]
    assert sum(len(commands(b.text)) for b in shell if b.is_run()) >= 25
    assert sum(len(commands(b.text)) for b in shell if b.is_run(long=True)) >= 40


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_and_flag_is_known(page):
    for block in blocks(page):
        if block.language == "sh":
            for words in commands(block.text):
                if words[0] == "flexseg":
                    check_flags(words[1:], block.place)
                else:
                    assert words[0] in ALLOWED, f"{block.place}: {words[0]}"
                    check_other(words, block.place)


def check_flags(arguments: list[str], place: str) -> None:
    """Holds a command line to the program's flags, and to Beam's where it takes those."""
    on, rest = flexseg_flags.split_general(arguments)
    if on and not rest:
        return
    name, *rest = rest
    assert name in flexseg.COMMANDS, f"{place}: {name}"
    program = importlib.import_module(flexseg.COMMANDS[name].module)
    values = flags.FlagValues()
    program.define_flags(values)
    left = flexseg_flags.parse(name, program, values, rest)
    if getattr(program, "FOREIGN_FLAGS", False):
        import apache_beam.runners.dask.dask_runner  # noqa: F401  knows --dask_client_address

        beam_job._check_others(left, list(values), name)
    experiments.load(None, experiments.overrides_from(values))  # the keys' values fit, too


def check_other(words: list[str], place: str) -> None:
    """Holds `make TARGET` to the Makefile and `pip install flexseg[EXTRA]` to the extras."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M)
        assert set(words[1:]) <= set(targets), f"{place}: {words}"
    for extra in re.findall(r"flexseg\[(\w+)\]|\.\[(\w+)\]", " ".join(words)):
        assert (extra[0] or extra[1]) in extras(), f"{place}: {words}"


def extras() -> set[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return set(setup["options.extras_require"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_yaml_block_is_what_a_program_reads(page):
    for block in blocks(page):
        if block.language == "yaml":
            read_yaml(yaml.safe_load(block.text), block.place)


def read_yaml(data, place: str) -> None:
    if "classes" in data:
        label_maps.from_dict(data, place)
    elif "variants" in data:
        augment.from_dict(data, place)
    else:
        experiments.from_dict(data, place)


def test_every_flag_and_key_in_the_text_is_known():
    known = set(flexseg_flags.GENERAL)
    for command in flexseg.COMMANDS.values():
        values = flags.FlagValues()
        importlib.import_module(command.module).define_flags(values)
        known |= {n for flag in values for n in (flag, f"no{flag}")}
    keys = {name.removeprefix("config.") for name in known if name.startswith("config.")}
    sections = {key.partition(".")[0] for key in keys}
    beam = {"direct_num_workers", "flink_job_server_jar", "spark_job_server_jar"} | {
        "environment_type", "environment_config",
    }  # fmt: skip
    for page in PAGES:
        for text in inline_code(page):
            for flag in re.findall(r"(?<!\S)--([A-Za-z][\w.]*\w)", text):
                if flag == "config.SECTION.KEY":
                    continue
                assert flag in known | beam, f"{name_of(page)}: `{text}`"
            key = re.match(r"([a-z]+)\.([a-z_0-9]+)(=|$)", text)
            if key and key[1] in sections and not text.endswith((".json", ".csv", ".yaml")):
                assert f"{key[1]}.{key[2]}" in keys, f"{name_of(page)}: `{text}`"


def test_every_extra_in_the_text_is_one():
    for page in PAGES:
        for extra in re.findall(r'"(?:flexseg|\.)\[(\w+)\]"', prose(page)):
            assert extra in extras(), name_of(page)
