"""Run directories with drawn figures, as training and evaluation leave them, without weights."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import os

import numpy as np

from pipelines import label_map as label_maps
from pipelines.preparation import Preparation
from train import experiment as experiments
from train import film, runs

NAMES = ("background", "vessel", "cell")
FINGERPRINT = "ab" * 32
HALVED = Preparation(scale=0.5)
RULES = {"classes": "Pixels are pooled.", "legacy": "Soft figures, not to be taken for Dice."}


def label_map(names=NAMES):
    """Classes of these names."""
    classes = [
        {"id": i, "name": n, "color": [40 * i % 256, 255 - i, 9]} for i, n in enumerate(names)
    ]
    return label_maps.from_dict({"classes": classes})


def make(
    folder, names=NAMES, *, epochs=5, splits=("test",), keys=None, seed=0, fingerprint=FINGERPRINT,
    evaluation=None, data="/nowhere/records", preparation=HALVED, init_from=None,
):  # fmt: skip
    """Writes a run directory and hands its path back.

    Args:
      folder: where.
      names: of its classes.
      epochs: how many are done; 0 is a run that was killed at its first step.
      splits: on which it was scored.
      keys: nested values of its experiment.
      seed: of all figures.
      fingerprint: of its dataset.
      evaluation: what of the evaluations is other than drawn.
      data: where its dataset is said to be.
      preparation: of its dataset.
      init_from: what its weights began with.
    """
    rng = np.random.default_rng(seed)
    run = runs.Run(
        folder=str(folder),
        data=data,
        experiment=experiments.from_dict(keys or {}),
        label_map=label_map(names),
        channels=3,
        size=(32, 48),
        preparation=preparation,
        dataset_fingerprint=fingerprint,
        init_from=init_from,
    )
    runs.claim(run)
    os.makedirs(run.path("checkpoints"))
    if epochs:
        history = history_of(rng, names, epochs)
        _write(run.path("history.json"), history)
        os.makedirs(run.path("best"))
        best = {key: values[-1] for key, values in history.items()}
        _write(run.path(runs.BEST), {"epoch": epochs - 1, **best})
        for step, ended_by in ((9, ""), (10 * epochs, "patience")):
            os.makedirs(run.path("checkpoints", f"step-{step:09d}"))
            state = {"format": 2, "step": step, "ended_by": ended_by}
            _write(run.path("checkpoints", f"step-{step:09d}", "state.json"), state)
        os.makedirs(run.path(film.SHEETS))
        picture = rng.integers(0, 256, (40, 120, 3)).astype(np.uint8)
        film.previews.write_png(run.path(film.SHEETS, "strip_valid.png"), picture)
    for split in splits:
        matrices = rng.integers(0, 60, (7, len(names), len(names))) + 20 * np.eye(
            len(names), dtype=int
        )
        found = evaluation_of(names, matrices, split, fingerprint) | (evaluation or {})
        os.makedirs(run.path("evaluation"), exist_ok=True)
        _write(run.path("evaluation", f"{split}.json"), found)
        with open(run.path("evaluation", f"{split}_images.csv"), "w", encoding="utf-8") as file:
            file.write(images_of(names, matrices))
    return str(folder)


def history_of(rng, names, epochs):
    """Figures of epochs under the names of `train.monitor`."""
    keys = [*("loss", "dice", "iou"), *(f"dice/{n}" for n in names[1:])]
    keys = [*keys, "learning_rate", *(f"val_{key}" for key in keys)]
    return {key: rng.uniform(0, 1, epochs).tolist() for key in keys}


def scores(matrix, k):
    """Figures of a class, by their definitions."""
    tp = int(matrix[k, k])
    fn, fp = int(matrix[k].sum()) - tp, int(matrix[:, k].sum()) - tp
    tn = int(matrix.sum()) - tp - fn - fp
    return {
        "dice": 2 * tp / (2 * tp + fp + fn),
        "iou": tp / (tp + fp + fn),
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "matthews": 0.25 + k / 100,
    }


def evaluation_of(names, matrices, split, fingerprint):
    """The content of `evaluation/<split>.json`."""
    total = matrices.sum(0)
    classes = [
        {"id": k, "name": name, **scores(total, k), "images": len(matrices) - k}
        for k, name in enumerate(names)
    ]

    def each(**figures):
        return [
            {"id": k, "name": name, **{key: value(k) for key, value in figures.items()}}
            for k, name in enumerate(names)
        ]

    fore = {f"{f}_macro": float(np.mean([c[f] for c in classes[1:]])) for f in scores(total, 0)}
    return {
        "split": split,
        "dataset_fingerprint": fingerprint,
        "size": "as prepared",
        "prediction": {"tta": "none", "scales": [1.0], "postprocessing": None},
        "images": len(matrices),
        "classes": classes,
        "foreground": {**fore, "dice_pooled": 0.4321, "classes": len(names) - 1},
        "background": scores(total, 0),
        "overall": {"pixel_accuracy": 0.5, "matthews": 0.3},
        "confusion": total.tolist(),
        "intervals": {
            "level": 0.9,
            "resamples": 100,
            "drawn": "groups",
            "units": 6,
            "foreground_dice_macro": [0.2111, 0.8222],
            "classes": each(dice=lambda k: [0.1 + k / 1000, 0.9 + k / 1000]),
        },
        "per_image": {
            "classes": each(
                images=lambda k: 3 + k,
                dice_mean=lambda k: 0.31 + k / 100,
                dice_median=lambda k: 0.32 + k / 100,
                dice_std=lambda k: 0.33 + k / 100,
            )
        },
        "detection": {
            "classes": each(
                images_with=lambda k: 5,
                missed_images=lambda k: k,
                images_without=lambda k: 2,
                false_alarm_images=lambda k: 1,
            )
        },
        "calibration": {
            "ece": 0.0123,
            "brier": 0.0456,
            "classes": each(ece=lambda k: 0.06 + k / 100, brier=lambda k: 0.07 + k / 100),
        },
        "boundary": {
            "nsd_tolerance": 1.5,
            "spacing": [0.5, 0.25],
            "classes": [
                {
                    "id": k, "name": name, "hd95": 3.5 + k, "average_surface_distance": 1.25 + k,
                    "nsd": 0.75, "cl_dice": None, "images": 4, "distance_images": 4, "one_sided": 2,
                }
                for k, name in enumerate(names)
            ][1:],
        },
        "legacy": {"dice_coef_multiclass": 0.9876, "binary_accuracy": 0.9765},
        "rules": RULES,
    }  # fmt: skip


def images_of(names, matrices):
    """The content of `evaluation/<split>_images.csv`."""
    header = ["source_id", "pixels", "dice_macro", *(f"dice_{n}" for n in names)]
    lines = []
    for place, matrix in enumerate(matrices):
        dice = [round(scores(matrix, k)["dice"], 6) for k in range(len(names))]
        macro = round(float(np.mean(dice[1:])), 6)
        lines.append([f"image {place}", int(matrix.sum()), macro, *dice])
    lines.append(["empty image", 100, "", 1.0, *[""] * (len(names) - 1)])
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *sorted(lines, key=lambda x: (x[2] == "", x[2]))])
    return text.getvalue()


def _write(path, data):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(data, file)


class Seen(html.parser.HTMLParser):
    """What a page says: tables by caption, text by section, pictures, and elements by tag."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tables, self.folded_tables, self.texts = {}, set(), {"": []}
        self.tags, self.pictures, self.code = {}, [], []
        self._open, self._row, self._cell, self._caption = [], None, None, None
        self._section = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        own = dict(attributes)
        self.tags.setdefault(tag, []).append(own)
        if tag not in ("meta", "link", "img", "br", "input", "path", "use", "rect"):
            self._open.append(tag)
        if tag == "section":
            self._section = own["id"]
            self.texts[self._section] = []
        elif tag == "img":
            self.pictures.append(own)
        elif tag == "caption":
            self._caption = ""
        elif tag == "tr":
            self._row = []
        elif tag in ("th", "td"):
            self._cell = ""
        elif tag == "pre":
            self.code.append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass
        if tag == "caption":
            self.tables[self._caption] = []
            if "details" in self._open:
                self.folded_tables.add(self._caption)
        elif tag in ("th", "td"):
            self._row.append(self._cell)
            self._cell = None
        elif tag == "tr":
            list(self.tables.values())[-1].append(self._row)
            self._row = None
        elif tag == "section":
            self._section = ""

    def handle_data(self, data):
        if "script" in self._open or "style" in self._open:
            return
        self.texts[self._section].append(data)
        if "pre" in self._open:
            self.code[-1] += data
        if self._cell is not None:
            self._cell += data
        elif "caption" in self._open:
            self._caption += data

    def text(self, section=""):
        """All text of a section; of the page's head where none is named."""
        return " ".join(" ".join(self.texts[section]).split())
