"""Writes a run as a SavedModel that serves by itself: preprocessing, network and sliding window.

Its signatures take images of any size. It needs TensorFlow alone, and none of this package. After
writing, it is loaded back and every signature is held to the network; it appears under its name
only if all agree. See it with flexseg inspect.

Signatures:
  serving_default  images uint8 [B,H,W,C] -> probabilities float32 [B,H,W,K],
                   class_ids uint8 [B,H,W]
  encoded          encoded string [B], image files -> mask_png string [B], class ids as gray PNG
  rest             the same for JSON: image_bytes string [B] -> mask_png_bytes string [B]
  tiled            image uint8 [H,W,C] -> class_ids uint8 [H,W]
  examples         examples string [B], serialized tf.Example with image/encoded
                   -> mask_png string [B], source_id string [B]

With --serving it also writes what TensorFlow Serving needs and two clients to begin with.

Examples:
  flexseg export --run=runs/lung --output=bundles/lung
  flexseg export --run=runs/lung --output=bundles/lung --serving=serving/lung
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from export import other_formats
from export.bundles import card_text, export_flags, model_card, serving_files, warmup
from export.bundles.export_flags import SAVED_MODEL
from flexseg_console import detail
from flexseg_errors import FlexsegError, UsageError
from pipelines import label_map as label_maps
from pipelines import storage
from pipelines.preprocessing import Preprocessing
from train import postprocessing, runs
from train.runs import Run

if TYPE_CHECKING:
    from export.bundles.verify_bundle import Check
    from train.segment import Segmenter

MODEL = "saved_model.pb"
ASSETS = "assets"
LABEL_MAP = "label_map.yaml"
CARD = "model_card.json"
CARD_TEXT = "model_card.md"


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export did.

    Attributes:
      folder: the bundle.
      checks: of each signature, against the network; empty where no SavedModel was asked for.
      seconds: what the checks took, loading included.
      warmup: requests in the warm-up file; None where the library for it is missing.
      formats: figures of each other format, as they stand in the card.
    """

    folder: str
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    warmup: int | None = None
    formats: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def difference(self) -> float:
        """The largest difference between a probability of the bundle and one of the network."""
        return max((c.difference for c in self.checks if c.difference is not None), default=0.0)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    export_flags.define_flags(values)


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    for name in ("run", "output"):
        if not getattr(values, name):
            raise UsageError(f"export needs --{name}. See flexseg export --help.")
    formats = export_flags.formats_of(values.format)
    if values.min_agreement is not None and formats == (SAVED_MODEL,):
        raise UsageError(
            "--min_agreement is for other formats; saved_model is held to the network."
        )
    if values.serving:
        if not any(map(export_flags.is_saved_model, formats)):
            raise UsageError("--serving serves a SavedModel; add saved_model to --format.")
        serving_files.refuse_taken(values.serving, values.output)
    detail(f"writing {', '.join(formats)}")
    done = write(runs.load(values.run), values.output, formats, values.min_agreement)
    for check in done.checks:
        print(f"  {check}")
    if done.checks:
        print(
            f"{values.output}: written, loaded back, and equal to the network (largest difference "
            f"of a probability: {done.difference:.1e}; checked in {done.seconds:.1f} s)."
        )
    for name, figures in done.formats.items():
        print(f"  {card_text.format_line(name, figures)}")
    if not done.checks:
        print(f"{values.output}: written.")
    if done.warmup is None and any(map(export_flags.is_saved_model, formats)):
        print("No warm-up requests: they need the package tensorflow-serving-api.")
    if values.serving:
        serving_files.write(values.serving, values.output)
        print(f"{values.serving}: how to serve it; begin with README.md.")


def export(trained: Run, output: str) -> float:
    """Writes a bundle with a SavedModel; see `write`.

    Returns:
      The largest difference between a probability of the bundle and one of the network.
    """
    return write(trained, output).difference


def write(
    trained: Run,
    output: str,
    formats: Sequence[str] = (SAVED_MODEL,),
    min_agreement: float | None = None,
) -> Exported:
    """Writes a bundle.

    Args:
      trained: a run with weights.
      output: a folder that is not there yet, or is empty.
      formats: "saved_model" and of `other_formats.FORMATS`.
      min_agreement: the least share of pixels to which each other format gives the network's class
        id; None for each format's own.

    Raises:
      FlexsegError: where the folder holds something, or a format differs from the network.
    """
    _refuse_taken(output)
    color = Preprocessing.from_text(trained.preparation.preprocessing).color
    if color:
        raise FlexsegError(
            f"The run {trained.folder} was prepared with the color conversion {color}, which "
            "TensorFlow has no equal of; a bundle cannot hold it. Prepare without it to export."
        )
    if storage.is_remote(output):
        with tempfile.TemporaryDirectory(prefix="flexseg-bundle-") as folder:
            local = os.path.join(folder, "bundle")
            done = write(trained, local, formats, min_agreement)
            written = sorted(storage.walk(local), key=lambda f: f.name == MODEL)
            for part in written:  # last what makes it a bundle
                storage.upload(part.path, storage.join(output, part.name))
        return dataclasses.replace(done, folder=output)
    unfinished = output.rstrip("/") + ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # ours, of an export that was interrupted
    os.makedirs(os.path.join(unfinished, ASSETS))
    try:
        done = _write(trained, unfinished, formats, min_agreement)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if os.path.isdir(output):
        os.rmdir(output)
    os.replace(unfinished, output)
    return dataclasses.replace(done, folder=output)


def _write(
    trained: Run, folder: str, formats: Sequence[str], min_agreement: float | None
) -> Exported:
    """Writes into a folder that becomes the bundle once this has returned."""
    done = Exported(folder)
    segmenter = trained.segmenter()
    signatures: dict[str, Any] = {}
    if SAVED_MODEL in formats:
        signatures = _save(trained, segmenter, folder)
        done = _check(trained, segmenter, folder)
    figures = {}
    for name in formats:
        if name != SAVED_MODEL:
            figures[name] = other_formats.FORMATS[name](trained, folder, min_agreement)
            signatures = figures[name].pop("signatures", signatures)
    requests = None
    if any(map(export_flags.is_saved_model, formats)) and warmup.available():
        requests = warmup.write(folder, segmenter.tile, segmenter.channels)
    card = model_card.of_run(trained, signatures)
    if figures:
        card["formats"] = figures
    _write_assets(trained, folder, card)
    return dataclasses.replace(done, warmup=requests, formats=figures)


def _save(trained: Run, segmenter: Segmenter, folder: str) -> dict[str, Any]:
    """Writes the SavedModel; returns what its signatures take and give."""
    import tensorflow as tf

    from export.bundles import signatures

    module = signatures.Bundle(segmenter)
    tf.saved_model.save(module, folder, signatures=module.endpoints)
    return signatures.described(module.endpoints)


def _check(trained: Run, segmenter: Segmenter, folder: str) -> Exported:
    """Loads a SavedModel back and holds it to the network.

    Raises:
      FlexsegError: where they differ.
    """
    import tensorflow as tf

    from export.bundles import verify_bundle

    begin = time.perf_counter()
    loaded = tf.saved_model.load(folder)
    checks = verify_bundle.check(loaded.signatures, segmenter)
    failed = [c for c in checks if not c.passed]
    if failed:
        raise FlexsegError(
            f"The bundle of {trained.folder} differs from the network ("
            + "; ".join(map(str, failed))
            + f"; probabilities may differ by {verify_bundle.TOLERANCE:.0e}, class ids only where "
            "two classes are as probable); it was not kept."
        )
    return Exported(folder, tuple(checks), time.perf_counter() - begin)


def _write_assets(trained: Run, folder: str, card: dict[str, Any]) -> None:
    texts = {
        LABEL_MAP: label_maps.dump(trained.label_map).encode(),
        CARD_TEXT: card_text.text(card).encode(),
        CARD: (json.dumps(card, indent=1) + "\n").encode(),
    }
    if card["postprocessing"]:
        name = postprocessing.FILE
        texts[name] = storage.read_bytes(trained.path(name))
    for name, text in texts.items():
        with open(os.path.join(folder, ASSETS, name), "wb") as file:
            file.write(text)


def _refuse_taken(output: str) -> None:
    """Refuses a folder that holds anything but what an upload that broke off has left."""
    inside = set(storage.names(output))
    parts = {ASSETS, warmup.FOLDER, "fingerprint.pb", "variables"}
    begun = storage.is_remote(output) and inside <= parts
    if storage.is_file(output) or (inside and not begun):
        raise FlexsegError(
            f"--output={output} holds something already; nothing was touched. Give a new folder."
        )
