"""Asks TensorFlow Serving for the mask of an image file over REST, with Python alone.

Usage: python rest_client.py [--server=http://localhost:8501] IMAGE MASK.png

The mask is a gray PNG, pixel value = class id.
"""

from __future__ import annotations

import argparse
import base64
import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path

MODEL = "@NAME@"
SIGNATURE = "rest"
TIMEOUT = 120.0  # seconds


def body_for(files: Sequence[bytes]) -> bytes:
    """The body of a request for the masks of image files (PNG, JPEG, BMP, GIF) of any sizes."""
    coded = [{"b64": base64.b64encode(data).decode()} for data in files]
    return json.dumps({"signature_name": SIGNATURE, "inputs": {"image_bytes": coded}}).encode()


def masks_of(answer: bytes) -> list[bytes]:
    """The masks in the order of the files, as PNG files."""
    return [base64.b64decode(mask["b64"]) for mask in json.loads(answer)["outputs"]]


def main() -> None:
    """Asks for a mask and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="http://localhost:8501")
    parser.add_argument("image", type=Path)
    parser.add_argument("mask", type=Path)
    arguments = parser.parse_args()
    request = urllib.request.Request(
        f"{arguments.server}/v1/models/{MODEL}:predict",
        body_for([arguments.image.read_bytes()]),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        (mask,) = masks_of(response.read())
    arguments.mask.write_bytes(mask)
    print(arguments.mask)


if __name__ == "__main__":
    main()
