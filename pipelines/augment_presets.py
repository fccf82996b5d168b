"""The augmentation plans that come with the package, in the form of a plan's `variants` in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# `default`: chains rather than single changes, because a stored copy costs the same whether one
# thing was changed or five, and networks profit from variety. Ranges are those within which an
# expert would still draw the same outline. No turning upside down and no large angles: what is up
# matters in most scans and photographs, and whoever knows that it does not adds `vflip`. What lies
# outside is reflected, labels and all, so that no black wedge tells copies from sources, and the
# scale is rather enlarged than reduced, so that little of it is seen. Cubic, so that thin
# structures stay as sharp as in the source. Six copies: flips, turns, scale and brightness training
# can draw anew in every epoch, at little cost; elastic changes, blur and noise come from here.
_DEFAULT: dict[str, Any] = {
    "name": "default",
    "repeat": 6,
    "border": "reflect",
    "interpolation": "cubic",
    "steps": [
        {"hflip": {"probability": 0.5}},
        {"rotation": {"angle": [-15, 15], "probability": 0.7}},
        {"shrink": {"factor": [0.9, 1.25], "probability": 0.7}},
        {"elastic": {"alpha": [300, 1000], "sigma": [8, 12], "probability": 0.3}},
        {"distortion": {"share": [0.005, 0.015], "rsigma": [20, 40], "probability": 0.5}},
        {"brighten": {"alpha": [0.8, 1.2], "beta": [-15, 15], "probability": 0.5}},
        {"gamma": {"gamma": [0.7, 1.4], "probability": 0.3}},
        {"blur": {"sigma": [0.4, 1.2], "probability": 0.2}},
        {"noise": {"sigma": [2, 10], "probability": 0.2}},
    ],
}


def _elastic(sigma: float) -> dict[str, Any]:
    return {
        "name": f"deformed_alpha_1300_sigmoid_{sigma}",
        "border": "replicate",
        "steps": [{"elastic": {"alpha": 1300, "sigma": sigma}}],
    }


def _discs(kind: str, prefix: str, first: int, amount: float) -> list[dict[str, Any]]:
    """Five variants, the n-th of which distorts the first n of five discs."""
    centers = [[0.3, 0.3], [0.7, 0.3], [0.5, 0.5], [0.3, 0.7], [0.7, 0.7]]
    return [
        {
            "name": f"{prefix}_{first + i}_0.3_{amount}",
            "border": "constant",
            "steps": [{kind: {"radius": 0.3, "amount": amount, "centers": centers[: i + 1]}}],
        }
        for i in range(len(centers))
    ]


_FLIPS = [{"name": "hflipped", "steps": ["hflip"]}, {"name": "vflipped", "steps": ["vflip"]}]
_TURNS = [
    {"name": f"rotated_{angle}", "border": "corner", "steps": [{"rotation": {"angle": angle}}]}
    for angle in (90, 180, 270)
]
# The names have the two sigmas exchanged, as in the files that people have.
_WAVES = [
    {
        "name": f"distorted_{share}_rsigma0.5_sigma40",
        "border": "constant",
        "steps": [{"distortion": {"share": share, "rsigma": 40}}],
    }
    for share in (0.02, 0.03)
]

# Those named `seed-...` have the variants of the projects from which such datasets are known, and
# name them by the prefixes of those projects' files.
PRESETS: Mapping[str, list[dict[str, Any]]] = {
    "default": [_DEFAULT],
    "seed-hemorrhages": [
        *_FLIPS,
        *_TURNS,
        _elastic(8.0),
        *_WAVES,
        *_discs("barrel", "barrdistorted", 101, 0.3),
        *_discs("pincushion", "pincdistorted", 101, -0.3),
    ],
    "seed-lung": [
        _elastic(8),
        _elastic(10),
        *_WAVES,
        *_discs("barrel", "barrdistorted", 1001, 0.3),
    ],
    "seed-stare": [
        *_FLIPS,
        *_TURNS,
        _elastic(8),
        *_WAVES,
        *_discs("barrel", "barrdistorted", 1001, 0.3),
    ],
}
