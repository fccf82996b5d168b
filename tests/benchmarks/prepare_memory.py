"""Peak memory of the dataset job: with four times the sources, and with one very large image.

The figure is that of the job's whole process tree. Prints a table; asserts nothing.

    PYTHONPATH=. python tests/benchmarks/prepare_memory.py [--data=FOLDER] [--workers=2]
        [--repeat=4] [--large=20000] [--tile=512]

--data is a folder with images/ and masks/; each source is used under --repeat names, and then
under four times as many. Without it, images are drawn, 1024x1024.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

import cv2
import numpy as np
from process_tree import peak_mib

LITERAL = "{(0,0,0):0,(255,255,255):1}"


def draw(folder: str, count: int, side: int) -> None:
    """Noise, which compresses worst, with a disc each; written in bands, since it may be large."""
    for kind in ("images", "masks"):
        os.makedirs(os.path.join(folder, kind))
    for i in range(count):
        rng = np.random.default_rng(i)
        image = np.empty((side, side, 3), np.uint8)
        for start in range(0, side, 1024):
            image[start : start + 1024] = rng.integers(
                0, 256, image[start : start + 1024].shape, np.uint8
            )
        cv2.imwrite(os.path.join(folder, "images", f"{i:05d}.png"), image, FAST)
        mask = np.zeros((side, side, 3), np.uint8)
        center = rng.integers(0, side, 2).tolist()
        cv2.circle(mask, center, side // 4, (255, 255, 255), -1)
        cv2.imwrite(os.path.join(folder, "masks", f"{i:05d}.png"), mask, FAST)


FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]


def repeated(folder: str, target: str, times: int) -> str:
    """The same files under several names, as links."""
    for kind in ("images", "masks"):
        os.makedirs(f"{target}/{kind}")
        for name in os.listdir(f"{folder}/{kind}"):
            for i in range(times):
                source = os.path.abspath(f"{folder}/{kind}/{name}")
                os.symlink(source, f"{target}/{kind}/{i}_{name}")
    return target


def prepared(folder: str, output: str, workers: int, *flags: str) -> float:
    command = [
        sys.executable,
        "flexseg.py",
        "prepare",
        f"--dataset={folder}",
        f"--output={output}",
        f"--label_map={LITERAL}",
        "--split=train:1",
        f"--direct_num_workers={workers}",
        *flags,
    ]
    return peak_mib(command, {"PYTHONPATH": os.getcwd()})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--large", type=int, default=20000, help="side in pixels; 0: not done")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--draw", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.draw:
        draw(arguments.draw[0], int(arguments.draw[1]), int(arguments.draw[2]))
        return

    def drawn(folder: str, count: int, side: int) -> str:  # apart: what it takes is not the job's
        drawing = [sys.executable, __file__, "--draw", folder, str(count), str(side)]
        subprocess.run(drawing, check=True)
        return folder

    tile = f"--tile_size={arguments.tile}"
    with tempfile.TemporaryDirectory() as root:
        data = arguments.data or drawn(f"{root}/data", 8, 1024)
        peaks = []
        for factor in (1, 4):
            folder = repeated(data, f"{root}/{factor}", arguments.repeat * factor)
            count = len(os.listdir(f"{folder}/images"))
            peaks.append(prepared(folder, f"{root}/out{factor}", arguments.workers, tile))
            print(f"{count:>6} sources, {arguments.workers} workers: {peaks[-1]:>6.0f} MiB")
        print(f"four times the sources: {peaks[1] / peaks[0]:.2f}x")
        if arguments.large:
            side = arguments.large
            folder = drawn(f"{root}/large", 1, side)
            peak = prepared(folder, f"{root}/out", 1, tile)
            print(f"one image of {side}x{side}, tiles of {arguments.tile}: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
