"""The cases of inference.py that need a trained run and real images.

whole: all images are segmented as `flexseg predict` does it, read and written: one after the other,
and as many at a time as it takes together. The share of the time that is the network's own: the
same number of tiles, in the same batches, alone, over the whole. Megapixels per second against the
old way with the same weights: crops of --split=512 with a margin of --margin=64 pixels, black
beyond the border, scaled to the network's input, one a call, argmax, scaled back by nearest
neighbour, pasted hard. Foreground Dice of both against the masks.

seams: the mean difference of a probability between two neighbouring pixels on the two sides of a
tile's border, over that of all other neighbours; for each way of blending, and at the same places
where the image is one tile. 1 is no seam. And class ids that differ from those of one tile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

MODES = (
    ("margin", 0.0),
    ("uniform", 0.25),
    ("margin", 0.25),
    ("gaussian", 0.25),
    ("gaussian", 0.5),
)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


def whole(arguments: argparse.Namespace) -> None:
    if not (arguments.run and arguments.images):
        print("whole was not measured: it needs --run=RUN and --images=FOLDER.")
        return
    from export.predictions import predictors, side_by_side
    from export.predictions.items import find_items
    from export.predictions.outputs import Outputs
    from train import previews, runs

    run, predictor = runs.load(arguments.run), predictors.load(arguments.run)
    segmenter = predictor.members[0].segmenter
    items = find_items(image_folder(arguments), "elsewhere")[: arguments.limit]
    read = reader(run)
    images = [read(item.path) for item in items]
    pixels = sum(image.shape[0] * image.shape[1] for image in images) / 1e6
    print(
        f"whole: {len(items)} images of {pixels:.1f} megapixels, tile {run.size}, "
        f"{run.preparation}, {segmenter.inference}"
    )
    network = old_network(segmenter)
    network(np.zeros((1, *run.size, run.channels), np.uint8))

    def ours(at_a_time: int) -> None:
        side_by_side.AT_A_TIME = at_a_time
        with tempfile.TemporaryDirectory() as target:
            reports = side_by_side.segment_items(items, predictor, Outputs(target))
        assert not any(report.error for report in reports)

    def old() -> None:
        for item in items:
            ids = old_way(read(item.path), network, arguments, run)
            with tempfile.TemporaryDirectory() as target:
                previews.write_mask(f"{target}/mask.png", ids, run.label_map)

    ways: dict[str, Callable[[], Any]] = {
        "the network alone": lambda: [network_seconds(segmenter, image) for image in images],
        "one after the other": lambda: ours(1),
        "as predict does it": lambda n=side_by_side.AT_A_TIME: ours(n),
        "the old way": old,
    }
    ways["one after the other"]()  # warm
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeat):  # by turns
        for name, way in ways.items():
            took, found = timed(way)
            seconds[name].append(sum(found) if found else took)
    middle = {name: statistics.median(taken) for name, taken in seconds.items()}
    print(f"{'':>20} {'seconds':>8} {'MP/s':>7} {'network':>8} {'old way':>8}")
    for name, taken in middle.items():
        share = statistics.median(
            n / t for n, t in zip(seconds["the network alone"], seconds[name], strict=True)
        )
        print(
            f"{name:>20} {taken:>8.2f} {pixels / taken:>7.2f} {share:>8.2f} "
            f"{middle['the old way'] / taken:>7.2f}x"
        )
    overlaps = {"ours": [0.0, 0.0], "old": [0.0, 0.0]}
    print(f"{'image':>20} {'Dice':>6} {'old':>6}")
    for item, image in zip(items, images, strict=True):
        truth = truth_of(arguments.images, os.path.basename(item.path), run)
        found = {
            "ours": predictor.class_ids(image),
            "old": old_way(image, network, arguments, run),
        }
        dice = [dice_of(ids, truth, overlaps[way]) for way, ids in found.items()]
        print(f"{item.stem[:20]:>20} {dice[0]} {dice[1]}", flush=True)
    pooled = {way: 2 * top / bottom if bottom else None for way, (top, bottom) in overlaps.items()}
    print(
        f"foreground Dice pooled over pixels {_figure(pooled['ours'])}, old way "
        f"{_figure(pooled['old'])}"
    )


def seams(arguments: argparse.Namespace) -> None:
    if not (arguments.run and arguments.images):
        print("seams were not measured: they need --run=RUN and --images=FOLDER.")
        return
    from export.predictions.items import find_items
    from train import runs, test_time
    from train.segment import Segmenter

    run = runs.load(arguments.run)
    model, read = run.load_model(), reader(run)
    items = find_items(image_folder(arguments), "elsewhere")[: arguments.limit]
    divisor = run.experiment.model.network.size_divisor
    print(f"seams: {len(items)} images, tile {run.size}; mean differences of a probability")
    print(
        f"{'weights':>9} {'overlap':>8} {'across':>9} {'elsewhere':>10} {'ratio':>6} "
        f"{'one tile':>9} {'ids that differ':>16}"
    )
    whole_ones: dict[tuple[int, ...], Any] = {}
    sums = {mode: np.zeros((2, 2, 2)) for mode in MODES}  # of mode or one tile; across or not
    differ = {mode: [0, 0] for mode in MODES}
    segmenters = {
        mode: Segmenter(
            model,
            run.size,
            run.preparation,
            run.experiment.inference,
            weights=mode[0],
            overlap=mode[1],
        )
        for mode in MODES
    }
    for item in items:
        image = test_time.prepare(read(item.path), run.preparation)
        side = tuple(-(-n // divisor) * divisor for n in image.shape[:2])
        if side not in whole_ones:
            whole_ones[side] = Segmenter(model, side, run.preparation, run.experiment.inference)
        one = whole_ones[side].prepared_probabilities(image).numpy()
        for mode, segmenter in segmenters.items():
            found = segmenter.prepared_probabilities(image).numpy()
            axes = segmenter._window.axes(*image.shape[:2])
            for index, values in enumerate((found, one)):
                for number, axis in enumerate(axes):
                    across = borders(axis, run.size[number], mode[0])
                    steps = np.abs(np.diff(values[..., 1:], axis=number)).mean(-1)
                    steps = np.moveaxis(steps, number, 0)
                    mask = np.zeros(len(steps), bool)
                    mask[across - 1] = True
                    for which, chosen in enumerate((steps[mask], steps[~mask])):
                        sums[mode][index, which] += chosen.sum(), chosen.size
            differ[mode][0] += int((found.argmax(-1) != one.argmax(-1)).sum())
            differ[mode][1] += one[..., 0].size
    for mode in MODES:
        ours, single = sums[mode][..., 0] / sums[mode][..., 1]
        print(
            f"{mode[0]:>9} {mode[1]:>8} {ours[0]:>9.5f} {ours[1]:>10.5f} "
            f"{ours[0] / ours[1]:>6.2f} {single[0] / single[1]:>9.2f} "
            f"{differ[mode][0] / differ[mode][1]:>16.5%}",
            flush=True,
        )


def borders(axis: Any, tile: int, weights: str) -> np.ndarray:
    """Where a tile begins to count or ends to, in pixels of the image, edges left out."""
    origins = axis.origins.numpy()
    if weights == "margin":
        found = (origins[:-1] + origins[1:] + tile) // 2
    else:
        found = np.concatenate([origins, origins + tile])
    found = np.unique(found - int(axis.before))
    return found[(found > 0) & (found < int(axis.length))]


def image_folder(arguments: argparse.Namespace) -> str:
    folder = os.path.join(arguments.images, "images")
    return folder if os.path.isdir(folder) else arguments.images


def reader(run: Any) -> Callable[[str], np.ndarray]:
    from pipelines import intensity, readers

    mapping = intensity.parse(run.preparation.intensity)
    return lambda path: readers.read_image(path, run.channels, mapping)


def network_seconds(segmenter: Any, image: np.ndarray) -> float:
    """The network alone, on as many tiles, in the batches that the window makes."""
    size = segmenter.preparation.size_of(*image.shape[:2])
    rows, columns = (len(axis.origins) for axis in segmenter._window.axes(*size))
    prepared = np.random.default_rng(0).integers(
        0, 256, (segmenter.inference.batch_size, *segmenter.tile, segmenter.channels), np.uint8
    )
    at_a_time = segmenter.inference.batch_size
    batches = [min(at_a_time, columns - first) for first in range(0, columns, at_a_time)] * rows
    for count in set(batches):
        segmenter.tile_probabilities(prepared[:count])
    seconds, _ = timed(
        lambda: [segmenter.tile_probabilities(prepared[:count]).numpy() for count in batches]
    )
    return seconds


def old_network(segmenter: Any) -> Callable[[np.ndarray], np.ndarray]:
    """One image a call, as the old programs did: `model.predict` without its progress bar."""
    return lambda tile: segmenter.tile_probabilities(tile).numpy()


def old_way(
    image: np.ndarray,
    network: Callable[[np.ndarray], np.ndarray],
    arguments: argparse.Namespace,
    run: Any,
) -> np.ndarray:
    """The tiled inference of the old projects; class ids uint8 [H, W].

    Crops of S x S with a margin of M on the sides where the whole margin lies inside the image,
    black beyond the right and the lower border; to the network's size (bicubic), and back
    (nearest).
    """
    from PIL import Image

    side, margin = arguments.split, arguments.margin
    height, width = image.shape[:2]
    model_height, model_width = run.size
    gray = image.shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if gray else image)
    canvas = Image.new("L", (width, height))
    for upper in range(0, height, side):
        for left in range(0, width, side):
            right, lower = left + side, upper + side
            before_x = margin if left - margin >= 0 else 0
            before_y = margin if upper - margin >= 0 else 0
            after_x = margin if right + margin <= width else 0
            after_y = margin if lower + margin <= height else 0
            box = (left - before_x, upper - before_y, right + after_x, lower + after_y)
            crop = picture.crop(box)
            scaled = np.asarray(crop.resize((model_width, model_height), Image.Resampling.BICUBIC))
            values = network(scaled.reshape(1, model_height, model_width, -1))[0]
            mask = Image.fromarray(values.argmax(-1).astype(np.uint8))
            mask = mask.resize(crop.size, Image.Resampling.NEAREST)
            kept = mask.crop((before_x, before_y, before_x + side, before_y + side))
            canvas.paste(kept, (left, upper))
    return np.asarray(canvas)


def truth_of(folder: str, name: str, run: Any) -> np.ndarray | None:
    """The mask's class ids, nearest colour; None where there is none."""
    from pipelines import readers

    stem = readers.stem(name)
    folder = os.path.join(folder, "masks")
    if not os.path.isdir(folder):
        return None
    for other in sorted(os.listdir(folder)):
        if readers.is_mask(other) and readers.stem(other) == stem:
            return _nearest(readers.read_mask(os.path.join(folder, other)), run.label_map)
    return None


def _nearest(pixels: np.ndarray, label_map: Any) -> np.ndarray:
    """Class ids of the nearest of the map's colours, block by block."""
    colors = np.array(label_map.colors, np.int32)
    pixels = np.repeat(pixels[..., None], 3, -1) if pixels.ndim == 2 else pixels
    ids = np.empty(pixels.shape[:2], np.uint8)
    for start in range(0, len(pixels), 256):
        block = pixels[start : start + 256].astype(np.int32)
        distances = [((block - color) ** 2).sum(-1) for color in colors]
        ids[start : start + 256] = np.argmin(distances, 0)
    return ids


def dice_of(found: np.ndarray, truth: np.ndarray | None, sums: list[float]) -> str:
    """Foreground Dice of hard labels, as text; adds to the sums over all images."""
    if truth is None or truth.shape != found.shape:
        return f"{'-':>6}"
    both = float(((found == truth) & (truth > 0)).sum())
    either = float((found > 0).sum() + (truth > 0).sum())
    sums[0] += both
    sums[1] += either
    return f"{2 * both / either if either else 1.0:>6.3f}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
