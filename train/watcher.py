"""All that only looks on while a run trains. None of it may stop the training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines import manifest as manifests
from train import monitor
from train.console import figure, say
from train.progress import Progress
from train.runs import Run

if TYPE_CHECKING:
    from train.epoch_previews import FolderPreviews, Sample
    from train.loop import Steps

CONFUSION = "confusion.png"


class Onlooking:
    """Calls what only looks on. The first failure of each kind is told; the training goes on."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, what: str, look: Callable[[], Any]) -> Any:
        """Returns what `look` returns; None where it fails.

        Args:
          what: of what kind it is, for the message.
          look: what is to be done.
        """
        try:
            return look()
        except Exception as error:  # whatever it is, it is not worth a training
            if what not in self._told:
                self._told.add(what)
                say(f"The {what} failed; the training goes on without: {_in_short(error)}")
            return None


class Watcher:
    """Progress bar, TensorBoard, history, curves, and pictures of what the network does."""

    def __init__(
        self, run: Run, manifest: manifests.Manifest, per_epoch: int, total: int, done: int = 0
    ):
        """Opens the progress bar; the rest when there is something to be seen.

        Args:
          run: what is trained, with a local folder.
          manifest: of its dataset.
          per_epoch: steps of an epoch.
          total: steps of the run.
          done: steps that the run goes on after.
        """
        from train.event_log import EventLog
        from train.film import Film
        from train.progress_bar import ProgressBar

        self._run = run
        self._manifest = manifest
        self._per_epoch = per_epoch
        experiment = run.experiment
        self._batch_size = experiment.data.batch_size * experiment.optimizer.accumulate_steps
        self._try = Onlooking()
        self._bar = ProgressBar(total, done)
        self._log = EventLog(run.path("logs"))
        self._film = Film(run.path())
        self._samples: list[Sample] | None = None
        self._folder: FolderPreviews | None = None
        followed = experiment.train.monitor
        if followed.startswith(monitor.VALID) and "valid" not in manifest.splits:
            say(
                f"No valid split: {followed} cannot be followed. The newest weights are kept as "
                "the best, and neither patience nor plateau_patience does anything; with "
                f"train.monitor={followed.removeprefix(monitor.VALID)} they go by the train split."
            )

    def steps(self, progress: Progress, result: Any, seconds: float, count: int) -> None:
        """Shows what a call of several steps did.

        Args:
          progress: after the call.
          result: what it returned, a `loop.StepResult`.
          seconds: that it took.
          count: of its steps.
        """
        from train import metrics

        loss = float(np.mean(result.losses))
        dice = metrics.foreground(np.array(progress.epoch_confusion)).dice_macro
        rate = count * self._batch_size / seconds
        waiting = min(1.0, result.waited / seconds)
        values = {
            "train/loss": loss,
            "train/learning_rate": result.learning_rate,
            "train/examples_per_second": rate,
            "train/waiting_share": waiting,
        }
        self._try("TensorBoard log", lambda: self._log.scalars(progress.step, values))
        text = (
            f"loss {loss:.4f}, dice {figure(dice)}, lr {result.learning_rate:.3g}, "
            f"{rate:.1f} examples/s, waiting {waiting:.0%}"
        )
        self._try("progress bar", lambda: self._bar.show(progress.step, text))

    def epoch(
        self,
        progress: Progress,
        epoch: int,
        values: monitor.Values,
        steps: Steps,
        confusion: np.ndarray,
    ) -> None:
        """Writes what is to be seen after an epoch.

        Args:
          progress: after the epoch.
          epoch: its number, from 0.
          values: its figures; see `train.monitor`.
          steps: with the model, whose weights are those that were validated.
          confusion: of the valid split, else of the train split, integers [K, K].
        """
        from train import curves

        scalars = {f"epoch/{key}": value for key, value in values.items()}
        self._try("TensorBoard log", lambda: self._log.scalars(progress.step, scalars))
        self._try("curves", lambda: curves.write(self._run.path("eval"), progress.history))
        self._try("history", lambda: self._write_history(progress))
        self._try("confusion matrix", lambda: self._draw_confusion(progress.step, epoch, confusion))
        if self._run.experiment.train.previews and "valid" in self._manifest.splits:
            self._try("previews", lambda: self._draw_samples(progress.step, epoch, steps))
        if self._run.experiment.train.has_preview_folder:
            self._try("previews of the folder", lambda: self._segment_folder(epoch, steps))
        star = " (best so far)" if progress.best_epoch == epoch else ""
        say(f"Epoch {epoch}: {self._told(values)}{star}")

    def close(self) -> None:
        """Closes bar and log."""
        self._try("progress bar", self._bar.close)
        self._try("TensorBoard log", self._log.close)

    def _told(self, values: monitor.Values) -> str:
        """The figures that stand for the rest, and the one that is monitored."""
        monitored = self._run.experiment.train.monitor
        keys = ["loss", "dice", "learning_rate", "val_loss", "val_dice"]
        keys += [monitored] * (monitored not in keys)
        return ", ".join(f"{key} {figure(values[key])}" for key in keys if key in values)

    def _write_history(self, progress: Progress) -> None:
        path = self._run.path("history.json")
        with open(path + ".tmp", "w", encoding="utf-8") as file:
            json.dump(progress.history, file, indent=1)
        os.replace(path + ".tmp", path)

    def _draw_confusion(self, step: int, epoch: int, confusion: np.ndarray) -> None:
        from train import confusion_picture, previews

        split = "valid" if "valid" in self._manifest.splits else "train"
        title = f"{split}, epoch {epoch}, % of true pixels"
        picture = confusion_picture.draw(confusion, self._run.label_map.names, title)
        previews.write_png(self._run.path("eval", CONFUSION), picture)
        self._log.picture(step, f"{split}/confusion", picture)

    def _draw_samples(self, step: int, epoch: int, steps: Steps) -> None:
        from train import epoch_previews, film, previews

        if self._samples is None:
            self._samples = epoch_previews.choose_samples(
                self._manifest,
                self._run.experiment.train.previews,
                self._run.experiment.data.crop_size,
            )
        if not self._samples:
            return
        picture = epoch_previews.draw_samples(self._run, steps.model, self._samples)
        previews.write_png(self._run.path(film.SHEETS, film.sheet_name(epoch)), picture)
        self._log.picture(step, "valid/image_truth_prediction_error", picture)
        strip = self._film.of_sheets(epoch)
        if strip is not None:
            self._write_strip("valid", strip)

    def _segment_folder(self, epoch: int, steps: Steps) -> None:
        from train.epoch_previews import FolderPreviews

        if self._folder is None:
            self._folder = FolderPreviews(self._run, steps.model)
        self._folder.write(epoch)
        for name, picture in self._folder.strips(self._film, epoch):
            self._write_strip(name, picture)

    def _write_strip(self, of: str, picture: np.ndarray) -> None:
        from train import film, previews

        previews.write_png(self._run.path(film.SHEETS, f"strip_{of}.png"), picture)


def _in_short(error: Exception) -> str:
    """An error in one line; TensorFlow's messages go on for pages."""
    text = str(error).strip().partition("\n")[0]
    return f"{text} ({type(error).__name__})" if text else type(error).__name__
