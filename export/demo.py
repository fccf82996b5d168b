"""The whole road on images it draws itself: prepare, train, evaluate, predict, export, verify.

Some hundred pictures of cells, vessels and crystals on uneven ground, with masks saved as JPEG so
that their colors are blended at every border. Takes some minutes on two cores and needs no
download.

Examples:
  flexseg demo
  flexseg demo --output=demo --verbose
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import yaml
from absl import flags

from export import bundle, predict
from flexseg_errors import FlexsegError
from pipelines import label_map as label_maps
from pipelines import manifest as manifests
from pipelines import prepare, verify
from train import evaluate, previews, runs, train

LABEL_MAP = """\
classes:
- {id: 0, name: background, color: [0, 0, 0]}
- {id: 1, name: vessel, color: [255, 0, 0]}
- {id: 2, name: cell, color: [0, 255, 0]}
- {id: 3, name: crystal, color: [0, 0, 255]}
"""

EXPERIMENT = """\
# The demo's experiment; flexseg train --help explains every key.
model: {name: flex_unet, base_filters: 12, levels: 4, dropout_rate: 0.02}
data: {batch_size: 8}
augment: {flip_horizontal: true, flip_vertical: true, rotate90: true, rotation: 0.0, scale: 0.0}
optimizer: {learning_rate: 3.0e-3, warmup_steps: 20}
train: {epochs: 18, loss: ce+dice}
"""

_SIDE = 128  # pixels
_IMAGES = 120
_SEED = 7


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "output",
        "flexseg_demo",
        "Folder for all of it; made if it is not there.",
        flag_values=values,
    )


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    root = values.output
    marker = os.path.join(root, "experiment.yaml")
    inside = os.listdir(root) if os.path.isdir(root) else []
    if os.path.isfile(root) or (inside and not os.path.isfile(marker)):
        raise FlexsegError(
            f"--output={root} holds something else; nothing was touched. Give a new folder."
        )
    began = time.monotonic()
    place = {
        name: os.path.join(root, name)
        for name in ("images", "masks", "label_map.yaml", "experiment.yaml", "records", "run")
    }
    place |= {name: os.path.join(root, name) for name in ("predictions", "bundle", "contact.png")}
    os.makedirs(root, exist_ok=True)
    for name, text in (("experiment.yaml", EXPERIMENT), ("label_map.yaml", LABEL_MAP)):
        with open(place[name], "w", encoding="utf-8") as file:
            file.write(text)
    draw_pairs(place["images"], place["masks"], _IMAGES, _SIDE, _SEED)

    _call(
        prepare,
        f"--images={place['images']}",
        f"--masks={place['masks']}",
        f"--label_map={place['label_map.yaml']}",
        f"--output={place['records']}",
        "--split=train:0.7,valid:0.15,test:0.15",
    )
    _call(verify, place["records"])
    _call(
        train,
        f"--experiment={place['experiment.yaml']}",
        f"--data={place['records']}",
        f"--run={place['run']}",
    )
    _call(evaluate, f"--run={place['run']}", "--split=test")
    _call(
        predict,
        f"--model={place['run']}",
        f"--images={place['images']}",
        f"--output={place['predictions']}",
    )
    if not os.path.isdir(place["bundle"]):  # written in an earlier call otherwise
        _call(bundle, f"--run={place['run']}", f"--output={place['bundle']}")
    untrained = _untrained_dice(place["run"])
    trained = _contact_sheet(place["run"], place["contact.png"])
    lines = [
        ("images", "what was drawn, and their masks in masks/"),
        ("records", "the dataset: TFRecords and dataset.json"),
        ("run", "the trained run: weights, curves, previews, evaluation"),
        ("predictions", "masks of all images"),
        ("bundle", "the SavedModel"),
        ("contact.png", "test images, truth, and prediction"),
    ]
    print("\nWhere everything lies:")
    for name, what in lines:
        print(f"  {place[name]:<{len(root) + 13}} {what}")
    print(
        f"\nForeground macro Dice on the test split: {trained:.4f} "
        f"(the same network untrained: {untrained:.4f}). {time.monotonic() - began:.0f} s in all."
    )


def _call(program: Any, *arguments: str) -> None:
    """Runs a program as the command line does, after showing the command."""
    name = {bundle: "export"}.get(program, program.__name__.rpartition(".")[2])
    print(f"\n$ flexseg {name} {' '.join(arguments)}", file=sys.stderr, flush=True)
    values = flags.FlagValues()
    program.define_flags(values)
    program.run(values, values([name, *arguments])[1:])


def draw_pairs(images: str, masks: str, count: int, side: int, seed: int) -> None:
    """Draws pictures with their masks: images as PNG, masks as JPEG of soft-edged colors."""
    label_map = _label_map()
    os.makedirs(images, exist_ok=True)
    os.makedirs(masks, exist_ok=True)
    for i in range(count):
        image, colors = draw(np.random.default_rng([seed, i]), side, label_map)
        name = f"sample_{i:03d}"
        cv2.imwrite(os.path.join(images, name + ".png"), image[..., ::-1])
        quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
        cv2.imwrite(os.path.join(masks, name + ".jpg"), colors[..., ::-1], quality)


def draw(
    rng: np.random.Generator, side: int, label_map: label_maps.LabelMap
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one picture and its mask in colors, each uint8 [side, side, 3] RGB."""
    fine = 4  # everything is drawn larger and reduced, which softens the borders
    size = side * fine
    ids = np.zeros((size, size), np.uint8)
    for _ in range(rng.integers(2, 5)):
        _vessel(rng, ids, size)
    for _ in range(rng.integers(3, 7)):
        centre = rng.integers(0, size, 2).tolist()
        axes = rng.integers(size // 24, size // 9, 2).tolist()
        cv2.ellipse(ids, centre, axes, float(rng.uniform(0, 180)), 0, 360, 2, -1)
    for _ in range(rng.integers(2, 5)):
        angles = (
            rng.uniform(0, 2 * np.pi) + np.arange(3) * 2 * np.pi / 3 + rng.uniform(-0.4, 0.4, 3)
        )
        spokes = np.stack([np.cos(angles), np.sin(angles)], -1) * rng.uniform(size / 16, size / 9)
        cv2.fillConvexPoly(ids, (rng.integers(0, size, 2) + spokes).astype(np.int32), 3)
    ground = cv2.resize(rng.uniform(90, 150, (4, 4, 3)).astype(np.float32), (size, size))
    shade = np.array([[0, 0, 0], [45, -35, -30], [-20, 25, 30], [35, 45, 55]], np.float32)
    image = ground + shade[ids]
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    image += rng.normal(0, 12, image.shape)
    colors = label_map.colors[ids]
    colors = cv2.resize(colors, (side, side), interpolation=cv2.INTER_AREA)
    return np.clip(np.round(image), 0, 255).astype(np.uint8), colors


def _vessel(rng: np.random.Generator, ids: np.ndarray, size: int) -> None:
    """A thin curve from one border to another, some three pixels wide in the finished picture."""
    t = np.linspace(0, 1, 64)
    start, end = rng.uniform(0, size, 2), rng.uniform(0, size, 2)
    x = t * size
    y = start[0] + (end[0] - start[0]) * t
    y += size / 10 * np.sin(2 * np.pi * (t * rng.uniform(0.5, 2) + rng.uniform()))
    points = np.stack([x, y] if rng.uniform() < 0.5 else [y, x], -1).astype(np.int32)
    cv2.polylines(ids, [points], False, 1, int(rng.integers(size // 56, size // 32)))


def _label_map() -> label_maps.LabelMap:
    return label_maps.from_dict(yaml.safe_load(LABEL_MAP))


def _untrained_dice(folder: str) -> float:
    """Foreground macro Dice on the test split of the run's network as it was before training."""
    run = runs.load(folder)
    segmenter = run.segmenter(run.build())
    result = evaluate.evaluate(run, manifests.load(run.data), "test", segmenter)
    return result["foreground"]["dice_macro"] or 0.0


def _contact_sheet(folder: str, path: str) -> float:
    """Draws test images with truth and prediction; returns the evaluation's foreground Dice."""
    from pipelines import batches

    run = runs.load(folder)
    segmenter = run.segmenter()
    images, masks = [], []
    for _, image, truth in batches.whole_images(manifests.load(run.data), "test"):
        found = segmenter.prepared_probabilities(image).numpy().argmax(-1).astype(np.uint8)
        images.append(image)
        masks.append((truth, found))
        if len(images) == 6:
            break
    halves = [previews.sheet(images[i::2], masks[i::2], run.label_map) for i in (0, 1)]
    previews.write_png(path, np.hstack(halves))
    with open(run.path("evaluation", "test.json"), encoding="utf-8") as file:
        return json.load(file)["foreground"]["dice_macro"]
