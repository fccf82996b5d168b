"""Recipes on real images, each with the same processor time.

For every set: prepare (by group, in folds), train on all folds but the first for as many steps as
the processor time allows, and score the first fold, which nothing in the training has looked at:
there is one evaluation, after the last step. The figure is foreground macro Dice of whole images,
all pixels of the fold in one pool. Processor time is that of all threads of the training process,
its start included; what a step costs is measured before, by two short runs. Prints a table; asserts
nothing.

    PYTHONPATH=. python tests/benchmarks/quality.py --data=FOLDER [--sets=lung,faz]
        [--recipes=published,flexseg] [--minutes=8] [--without="augment.rotation=0 augment.scale=0"]
        [--keep=FOLDER]

FOLDER holds SET/images and SET/masks; a recipe is the experiment RECIPE_SET of train/experiments.
--without changes keys of every recipe, to see what they are worth; it may be given several times,
each a training of its own beside the recipe as it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile

import yaml

SIDE = 256
BINARY = "{(0,0,0):0,(255,255,255):1}"
EXPERIMENTS = os.path.join("train", "experiments")


@dataclasses.dataclass(frozen=True)
class Set:
    """How a set is prepared.

    Attributes:
      prepare: flags that both recipes share.
      folds: into how many the groups are divided.
      minutes: processor time of a training, unless told.
      augment: the offline copies that the published recipe trained on; "" for none.
      score: flags, instead of those of `prepare`, of the images that are scored; () for the same.
    """

    prepare: tuple[str, ...]
    folds: int
    minutes: float = 8.0
    augment: str = ""
    score: tuple[str, ...] = ()


def _sized(*flags: str) -> tuple[str, ...]:
    return (f"--image_size={SIDE},{SIDE}", *flags)


_MBH = "{(0,0,0):0,(255,0,0):1,(0,0,255):2,(255,255,0):3,(0,255,255):4,(0,255,0):5}"
_PANNUKE = "{(0,0,0):0,(0,255,0):1,(255,0,0):2,(0,0,255):3,(255,255,0):4,(0,255,255):5}"
SETS = {
    "faz": Set(_sized(f"--label_map={BINARY}"), 5),
    "lung": Set(_sized(f"--label_map={BINARY}", "--max_rejected=2"), 4, 4.0, "seed-lung"),
    "pannuke": Set(_sized(f"--label_map={_PANNUKE}"), 4),
    # The published images are 700x605, enlarged five times: at a fifth nothing is lost.
    "stare": Set(
        (f"--label_map={BINARY}", "--scale=0.2", f"--tile_size={SIDE}", "--tile_overlap=64"),
        3,
        6.0,
        "seed-stare",
        score=(f"--label_map={BINARY}", "--tile_size=512"),
    ),
    "mbh": Set(_sized(f"--label_map={_MBH}", r"--group_regex=^\d{3}"), 4),
}


def flexseg(*arguments: str) -> float:
    """Runs a command and returns the processor seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "flexseg.py", *arguments], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"flexseg {' '.join(arguments)}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepared(source: str, name: str, folder: str, flags: tuple[str, ...]) -> str:
    """A dataset in folds, made where it is not there."""
    flexseg(
        "prepare",
        f"--dataset={os.path.join(source, name)}",
        f"--output={folder}",
        "--split=train:1",
        f"--folds={SETS[name].folds}",
        *flags,
    )
    return folder


def train(experiment: str, data: str, run: str, steps: int, changes: tuple[str, ...]) -> float:
    """Trains so many steps, with one evaluation, after the last; returns processor seconds."""
    return flexseg(
        "train",
        f"--experiment={experiment}",
        f"--data={data}",
        f"--run={run}",
        "--config.data.fold=0",
        "--config.train.epochs=1",
        f"--config.train.steps_per_epoch={steps}",
        "--config.train.patience=0",
        "--config.train.previews=0",
        *(f"--config.{change}" for change in changes),
    )


def steps_within(seconds: float, experiment: str, data: str, changes: tuple[str, ...]) -> int:
    """How many steps a training of so many processor seconds has, start and evaluation included."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = 4, 40
        short = train(experiment, data, os.path.join(folder, "short"), few, changes)
        long = train(experiment, data, os.path.join(folder, "long"), many, changes)
    step = max(1e-3, (long - short) / (many - few))
    # A little less, since two short runs tell a step's cost to some percent only.
    return max(1, int((0.96 * seconds - short) / step) + few)


def figures(
    source: str, name: str, recipe: str, minutes: float, changes: tuple[str, ...], folder: str
) -> str:
    """Prepares, trains and scores; returns a row of the table."""
    it = SETS[name]
    experiment = os.path.join(EXPERIMENTS, f"{recipe}_{name}.yaml")
    copies = (f"--augment={it.augment}",) if recipe == "published" and it.augment else ()
    data = prepared(
        source, name, os.path.join(folder, f"data_{name}_{recipe}"), it.prepare + copies
    )
    whole = data
    if it.score:
        whole = prepared(source, name, os.path.join(folder, f"data_{name}_whole"), it.score)
    steps = steps_within((minutes or it.minutes) * 60, experiment, data, changes)
    run = os.path.join(folder, f"run_{name}_{recipe}_{'_'.join(changes)}".replace("/", "-"))
    seconds = train(experiment, data, run, steps, changes)
    flexseg("evaluate", f"--run={run}", f"--data={whole}", "--split=valid")
    with open(os.path.join(run, "evaluation", "valid.json"), encoding="utf-8") as file:
        found = json.load(file)
    with open(experiment, encoding="utf-8") as file:
        batch = yaml.safe_load(file).get("data", {}).get("batch_size", "default")
    dice = found["foreground"]["dice_macro"]
    return (
        f"{name:<10}{recipe:<11}{steps:>6} steps of {batch}{seconds / 60:>7.1f} min  "
        f"Dice {dice:.4f}  {' '.join(changes)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument(
        "--recipes", default="published,flexseg", help="RECIPE_SET.yaml of train/experiments"
    )
    parser.add_argument(
        "--minutes", type=float, default=0, help="processor minutes a training; 0: the set's own"
    )
    parser.add_argument(
        "--without", action="append", default=[], metavar="KEY=VALUE [KEY=VALUE ...]"
    )
    parser.add_argument("--keep", default="", help="folder in which datasets and runs stay")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or temporary
        for name in arguments.sets.split(","):
            for recipe in arguments.recipes.split(","):
                for changes in ((), *(tuple(c.split()) for c in arguments.without)):
                    row = figures(arguments.data, name, recipe, arguments.minutes, changes, folder)
                    print(row, flush=True)


if __name__ == "__main__":
    main()
