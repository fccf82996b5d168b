"""One item from its file to all that is written of it; the unit of work, here and on workers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np

from export.predictions import by_rows, drawing, finished, predict_truth, writing
from export.predictions.items import VOLUME, Item
from export.predictions.outputs import SUFFIXES, Outputs, colors
from export.predictions.predictors import Prediction
from export.predictions.report import Report, row_of
from flexseg_errors import FlexsegError
from pipelines import convert_masks, readers, storage, windowed_images
from pipelines.label_map import LabelMap

if TYPE_CHECKING:
    from export.predictions.predictors import Predictor
    from export.predictions.side_by_side import Room


def segment_file(
    item: Item, predictor: Predictor, outputs: Outputs, room: Room | None = None
) -> Report:
    """Segments an image or a volume and writes all its files; last of all, that it is finished.

    Nothing is raised for what is wrong with the item: the report says it, and the next may follow.

    Args:
      item: what to segment, here or remote.
      predictor: the model.
      outputs: what to write, and where, here or remote.
      room: what an image waits for before it is read, where others are worked on beside.
    """
    try:
        if item.kind == VOLUME:
            from export.volumes import predict_volume

            done = predict_volume.segment_volume(item, predictor, outputs)
            done = dataclasses.replace(
                done,  # also where the truth could not be used
                truth=item.truth,
                truth_state=predict_truth.state(item),
                truth_kind=outputs.truth_kind if item.truth else "",
            )
        else:
            done = _segment_image(item, predictor, outputs, room)
    except FlexsegError as error:
        return Report(item.stem, item.path, item.state, error=str(error))
    done = dataclasses.replace(done, state=item.state, made=outputs.kinds(item.kind))
    # It is segmented, if not scored. A volume's truth is not read again while it stays as it is.
    finished.keep(done if item.kind == VOLUME else dataclasses.replace(done, error=""), outputs)
    return done


def _segment_image(item: Item, predictor: Predictor, outputs: Outputs, room: Room | None) -> Report:
    with contextlib.ExitStack() as held:
        local = held.enter_context(storage.local_copy(item.path))
        try:
            if room is not None:
                held.enter_context(room.of(math.prod(windowed_images.read_size(local))))
            if by_rows.is_wanted(local, predictor, outputs):
                return _segment_by_rows(item, local, predictor, outputs)
            image = readers.read_image(local, predictor.channels, predictor.intensity)
        except FlexsegError as error:
            raise FlexsegError(str(error).replace(local, item.path)) from error
        return _segment_whole(item, image, predictor, outputs)


def _segment_whole(item: Item, image: np.ndarray, predictor: Predictor, outputs: Outputs) -> Report:
    prediction = predict(image, predictor, outputs)
    ids, label_map = prediction.class_ids, predictor.label_map
    files = {}
    for kind, data in encoded(image, prediction, label_map, outputs).items():
        name = item.stem + SUFFIXES[kind]
        writing.write(storage.join(outputs.folder, *name.split("/")), data)
        files[name] = kind
    done = Report(item.stem, item.path, row=row_of(ids, label_map.num_classes), files=files)
    return predict_truth.score(done, item, ids, label_map, outputs.truth_kind)


def _segment_by_rows(item: Item, local: str, predictor: Predictor, outputs: Outputs) -> Report:
    done = by_rows.segment(item, local, predictor, outputs)
    if not item.truth:
        return done
    try:
        ids = predict_truth.read_back(done, predictor.label_map, outputs)
    except FlexsegError as error:  # the mask is there, but larger than what is read as a whole
        return dataclasses.replace(done, error=f"{item.path} is not scored: {error}")
    return predict_truth.score(done, item, ids, predictor.label_map, outputs.truth_kind)


def predict(image: np.ndarray, predictor: Predictor, outputs: Outputs) -> Prediction:
    """What an image, uint8 [H, W, C], is taken for, in the way that `outputs` says.

    Probabilities are empty where nothing that is written needs them.

    In this order: probabilities are smoothed; a class is chosen for each pixel, by the threshold or
    as the most probable; what the whole image does not agree to is taken away; class ids are
    post-processed.
    """
    if not outputs.needs_probabilities:
        return Prediction(predictor.class_ids(image), np.zeros((0, 0, 0), np.float32))
    found = predictor.predict(image)
    if not outputs.changes_classes:
        return found
    probabilities = found.probabilities
    if outputs.blur:
        probabilities = _smoothed(probabilities, outputs.blur)
    choose = functools.partial(_chosen, threshold=outputs.threshold)
    ids = choose(probabilities)
    if outputs.bitwise_blending:
        from export.predictions import whole_image

        ids &= whole_image.class_ids(predictor, image, choose)
    return dataclasses.replace(found, class_ids=predictor.finish(ids), probabilities=probabilities)


def encoded(
    image: np.ndarray, prediction: Prediction, label_map: LabelMap, outputs: Outputs
) -> dict[str, bytes]:
    """The content of the files of an image: kind of output -> bytes, the mask last."""
    ids, probabilities = prediction.class_ids, prediction.probabilities
    makers: dict[str, Callable[[], bytes]] = {
        "probabilities": lambda: _npz(probabilities),
        "overlay": lambda: drawing.png(
            drawing.overlay(image, ids, label_map, outputs.opacity, outputs.contour)
        ),
        "entropy": lambda: drawing.png(drawing.gray(_known(prediction.entropy))),
        "agreement": lambda: drawing.png(drawing.gray(_known(prediction.agreement))),
        "colorized": lambda: drawing.png(_painted(ids, probabilities, label_map, outputs)),
        "merged": lambda: drawing.png(
            drawing.merged(image, _painted(ids, probabilities, label_map, outputs))
        ),
        "mask": lambda: convert_masks.encode(ids, outputs.mask_format, label_map),
    }
    wanted = outputs.kinds("image")
    return {kind: make() for kind, make in makers.items() if kind in wanted}


def _chosen(probabilities: np.ndarray, threshold: float | None) -> np.ndarray:
    """Class ids uint8 [H, W] of probabilities float32 [H, W, K]."""
    if threshold is None:
        return probabilities.argmax(-1).astype(np.uint8)
    return (probabilities[..., 1] >= threshold).astype(np.uint8)


def _smoothed(probabilities: np.ndarray, side: int) -> np.ndarray:
    """Each class's map [H, W] of [H, W, K] by OpenCV's Gaussian window of that side."""
    smooth = np.empty_like(probabilities)
    for k in range(probabilities.shape[-1]):  # OpenCV takes four channels at most
        plane = np.ascontiguousarray(probabilities[..., k])
        smooth[..., k] = cv2.GaussianBlur(plane, (side, side), 0)
    return smooth


def _painted(
    ids: np.ndarray, probabilities: np.ndarray, label_map: LabelMap, outputs: Outputs
) -> np.ndarray:
    """The mask in the colour that was chosen, or else those of its classes; uint8 [H, W, 3]."""
    amount = drawing.strength(ids, probabilities if outputs.soft else None)
    if outputs.colorize:
        return drawing.one_color(amount, *colors(outputs.colorize))
    return drawing.in_class_colors(ids, probabilities if outputs.soft else None, label_map)


def _npz(probabilities: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, probabilities=probabilities.astype(np.float16))
    return file.getvalue()


def _known(values: np.ndarray | None) -> np.ndarray:
    assert values is not None, "the predictor was asked for its maps"
    return values
