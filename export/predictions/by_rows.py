"""Images that are segmented row by row: which, and what becomes of them."""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile

from export.predictions import huge_image
from export.predictions.items import Item
from export.predictions.outputs import SUFFIXES, Outputs
from export.predictions.predictors import Predictor
from export.predictions.report import Report, Row
from pipelines import storage, windowed_images
from train import test_time

# Up to here an image is segmented as a whole where something needs that: some 10 GiB.
_WHOLE_PIXELS = 250_000_000


def is_wanted(path: str, predictor: Predictor, outputs: Outputs) -> bool:
    """Whether an image is segmented row by row: where it is large and nothing needs it whole.

    Args:
      path: a local file.
      predictor: the model.
      outputs: what is to be written.

    Raises:
      FlexsegError: where the file cannot be read; where it is so large that it must be, and
        something needs it whole.
    """
    limit = outputs.whole_pixels
    if not huge_image.is_huge(path, limit or huge_image.LIMIT_PIXELS):
        return False
    obstacles = _obstacles(predictor, outputs)
    if math.prod(windowed_images.read_size(path)) > (limit or _WHOLE_PIXELS):
        huge_image.refuse_whole(path, obstacles)
        return True
    # As a whole, variants are exact where tiles meet, too.
    return not obstacles and predictor.options.variants.is_plain


def segment(item: Item, path: str, predictor: Predictor, outputs: Outputs) -> Report:
    """Segments an image row by row.

    Args:
      item: the image.
      path: a local copy.
      predictor: the model.
      outputs: what is written: a mask, and perhaps probabilities.

    Returns:
      Its report, without the number of objects, which takes the whole mask.

    Raises:
      FlexsegError: where the image cannot be read.
    """
    member, variants = predictor.members[0], predictor.options.variants
    assert member.segmenter is not None, "see _obstacles"
    rows = member.segmenter.rows(
        None
        if variants.is_plain
        else test_time.of_tiles(member.segmenter.tile_probabilities, variants)
    )
    target = storage.join(outputs.folder, *item.stem.split("/"))
    with tempfile.TemporaryDirectory(prefix="flexseg-") as folder:
        stem = os.path.join(folder, "mask") if storage.is_remote(target) else target
        made = huge_image.segment_huge(
            path,
            stem,
            dataclasses.replace(rows, preparation=member.preparation),
            predictor.label_map,
            channels=predictor.channels,
            intensity=predictor.intensity,
            form=outputs.mask_format,
            probabilities=outputs.probabilities,
            finish=None if predictor.postprocessing.is_identity else predictor.finish_rows,
        )
        kinds = ["mask"] + ["probabilities"] * outputs.probabilities
        if stem != target:
            for kind in kinds:
                storage.upload(stem + SUFFIXES[kind], target + SUFFIXES[kind])
    files = {item.stem + SUFFIXES[kind]: kind for kind in kinds}
    return Report(item.stem, item.path, row=Row(made.size, made.class_pixels, ()), files=files)


def _obstacles(predictor: Predictor, outputs: Outputs) -> list[str]:
    """What needs an image as a whole, as a person would name it."""
    named = {
        "a bundle": predictor.members[0].segmenter is None,
        "several models": len(predictor.members) > 1,
        "--scales": predictor.options.variants.scales != (1.0,),
        "--overlay": outputs.overlay,
        "--maps": bool(outputs.maps),
        "--colorize": bool(outputs.colorize),
        "--merged": outputs.merged,
        "--threshold": outputs.threshold is not None,
        "--blur": outputs.blur > 0,
        "--bitwise_blending": outputs.bitwise_blending,
    }
    return [name for name, present in named.items() if present]
