"""Throughput of `flexseg prepare` against a hand-written process pool with the same OpenCV calls.

Both read images and masks, map colours to class ids, then cut tiles (--case=tiles) or make the
augmented copies of the preset seed-lung (--case=augment), encode PNG and write TFRecords; the pool
knows no plan, no manifest, no audit, no checksums and no resume. Each figure is the time of a whole
process, its start included. Prints a table; asserts nothing.

    PYTHONPATH=. python tests/benchmarks/prepare.py [--case=tiles] [--data=FOLDER] [--tile=512]
        [--runs=3] [--repeat=1] [--workers=1,2]

Without --data, images are drawn: smooth, with noise, 2048x2048, masks as JPEG.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import cv2
import google_crc32c
import numpy as np

PRESET = "seed-lung"
LITERAL = "{(0,0,0):0,(255,255,255):1}"
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]


def draw(folder: str, count: int = 8, side: int = 2048) -> None:
    for kind in ("images", "masks"):
        os.makedirs(os.path.join(folder, kind))
    for i in range(count):
        rng = np.random.default_rng(i)
        coarse = rng.uniform(0, 255, (16, 16, 3)).astype(np.float32)
        image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        image += rng.normal(0, 4, image.shape)
        mask = np.zeros((side, side), np.uint8)
        for _ in range(12):
            cv2.circle(mask, rng.integers(0, side, 2).tolist(), side // 12, 255, -1, cv2.LINE_AA)
        cv2.imwrite(f"{folder}/images/{i}.png", np.clip(image, 0, 255).astype(np.uint8))
        cv2.imwrite(f"{folder}/masks/{i}.jpg", mask)


def repeated(folder: str, target: str, times: int) -> str:
    """The same files under several names, as links."""
    for kind in ("images", "masks"):
        os.makedirs(f"{target}/{kind}")
        for name in os.listdir(f"{folder}/{kind}"):
            for i in range(times):
                source = os.path.abspath(f"{folder}/{kind}/{name}")
                os.symlink(source, f"{target}/{kind}/{i}_{name}")
    return target


def by_hand(job: tuple[str, str, str, str, int]) -> None:
    """One source to one TFRecord file, as a script would."""
    from pipelines import augment, records
    from pipelines.tiles import tile_origins

    case, image_path, mask_path, output, tile = job
    cv2.setNumThreads(1)
    image = cv2.imread(image_path)
    gray = cv2.imread(mask_path, cv2.IMREAD_GRAYSCALE)
    ids = (gray > 127).astype(np.uint8)
    if case == "tiles":
        parts = [
            (image[y : y + tile, x : x + tile], ids[y : y + tile, x : x + tile])
            for y in tile_origins(image.shape[0], tile, 0)
            for x in tile_origins(image.shape[1], tile, 0)
        ]
    else:
        copies = augment.apply(augment.load(PRESET), image, ids, 0, output)
        parts = [(copy, changed) for copy, changed, _ in copies]
    with open(output, "wb") as file:
        for pair in parts:
            # The message alone; TensorFlow's would take seconds to import.
            example = records._Example()
            feature = example.features.feature
            for key, pixels in zip((records.ENCODED, records.MASK_ENCODED), pair, strict=True):
                data = cv2.imencode(".png", pixels, PNG)[1].tobytes()
                feature[key].bytes_list.value.append(data)
            data = example.SerializeToString()
            length = struct.pack("<Q", len(data))
            for part in (length, data):
                crc = google_crc32c.value(part)
                masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
                file.write(part + struct.pack("<I", masked))


def pool(case: str, folder: str, output: str, tile: int, workers: int) -> None:
    os.makedirs(output)
    masks = {os.path.splitext(n)[0]: n for n in os.listdir(f"{folder}/masks")}
    jobs = [
        (case, f"{folder}/images/{n}", f"{folder}/masks/{masks[s]}", f"{output}/{s}", tile)
        for n in sorted(os.listdir(f"{folder}/images"))
        for s in [os.path.splitext(n)[0]]
    ]
    with multiprocessing.Pool(workers) as workers_pool:
        workers_pool.map(by_hand, jobs, chunksize=1)


def timed(arguments: list[str], output: str) -> float:
    shutil.rmtree(output, ignore_errors=True)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], check=True, env=environment, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=1, help="each source under so many names")
    parser.add_argument("--case", choices=("tiles", "augment"), default="tiles")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--pool", nargs=5)
    arguments = parser.parse_args()
    if arguments.pool:
        case, folder, output, tile, workers = arguments.pool
        pool(case, folder, output, int(tile), int(workers))
        return
    counts = [int(n) for n in arguments.workers.split(",")]
    work = [f"--tile_size={arguments.tile}"]
    if arguments.case == "augment":
        work = [f"--augment={PRESET}"]
    with tempfile.TemporaryDirectory() as root:
        folder = arguments.data or os.path.join(root, "data")
        if not arguments.data:
            draw(folder)
        folder = repeated(folder, os.path.join(root, "repeated"), arguments.repeat)
        output = os.path.join(root, "out")
        rows: dict[tuple[str, int], list[float]] = {}
        examples = 0
        for _ in range(arguments.runs):  # in turn, so that a drift of the machine meets all
            for workers in counts:
                ours = [
                    "flexseg.py",
                    "prepare",
                    f"--dataset={folder}",
                    f"--output={output}",
                    f"--label_map={LITERAL}",
                    "--split=train:1",
                    "--max_rejected=1000",  # masks without an image, which the pool does not see
                    f"--direct_num_workers={workers}",
                    *work,
                ]
                rows.setdefault(("flexseg", workers), []).append(timed(ours, output))
                with open(os.path.join(output, "dataset.json")) as file:
                    examples = json.load(file)["splits"]["train"]["examples"]
                theirs = [__file__, "--pool", arguments.case, folder, output]
                theirs += [str(arguments.tile), str(workers)]
                rows.setdefault(("pool", workers), []).append(timed(theirs, output))
    median = {key: statistics.median(values) for key, values in rows.items()}
    print(f"{arguments.case}: {examples} examples, medians of {arguments.runs}")
    print(f"{'workers':>8} {'flexseg s':>10} {'examples/s':>11} {'pool s':>8} {'pool/flexseg':>13}")
    for workers in counts:
        ours, theirs = median["flexseg", workers], median["pool", workers]
        rate = examples / ours
        print(f"{workers:>8} {ours:>10.2f} {rate:>11.1f} {theirs:>8.2f} {theirs / ours:>13.2f}")
    if counts == [1, 2]:
        print(f"two workers against one: {median['flexseg', 1] / median['flexseg', 2]:.2f}x")


if __name__ == "__main__":
    main()
