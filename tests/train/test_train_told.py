"""What a training tells of batches and steps: left out, skipped, and what classes weigh."""

import os
import shutil
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines import batches, records
from pipelines import manifest as manifests
from train import (
    checkpoints,
    class_weights,
    dry_run,
    epoch_previews,
    execution,
    loop,
    memory,
    rehearsal,
    runs,
    setup,
    train,
)
from train.device import Device
from train.progress import Progress
from train.stall import Stall
from train.watcher import Watcher


def test_in_a_thread_a_training_leaves_out_what_is_damaged_and_tells_it(
    dataset, planned, tmp_path, capsys, monkeypatch
):
    """As in a notebook's or a server's thread, where Python lets nobody set a signal's handler."""
    copy = shutil.copytree(dataset, tmp_path / "data")
    shard = max(copy.glob("train-*"), key=lambda path: path.stat().st_size)
    with open(shard, "rb") as file:
        offset, *_ = (offset for offset, _ in records.read_framed(file, ""))
    data = bytearray(shard.read_bytes())
    data[offset + 40] ^= 1
    shard.write_bytes(data)

    def step(steps, iterator, first, count):  # graphs take seconds
        assert next(iterator)["image"].shape == (2, 32, 32, 3)
        return loop.StepResult(np.ones(count, np.float32), np.zeros((3, 3), int), 0.1, 0.0)

    def end(run, steps, manifest, progress, *_):
        progress.finished = True

    monkeypatch.setattr(loop.Steps, "train", step)
    monkeypatch.setattr(train, "end_epoch", end)
    keys = {"train.epochs": 1, "train.steps_per_epoch": 1, "data.on_corrupt": "skip"}
    run = planned(keys, data=copy)
    before, ends = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(target=lambda: ends.append(train.train(run)))
    thread.start()
    thread.join()
    (progress,) = ends
    assert (progress.step, progress.finished) == (1, True)
    assert signal.getsignal(signal.SIGINT) is before
    err = capsys.readouterr().err
    told = f"Damaged records left out of this epoch: 1. The first: {shard}: the record at byte "
    assert f"{told}{offset} " in err
    assert checkpoints.latest(run.path(runs.CHECKPOINTS)).endswith("step-000000001")


def test_where_there_is_nothing_but_padding_no_sample_is_drawn(planned, dataset, monkeypatch):
    monkeypatch.setattr(epoch_previews, "choose_samples", lambda *_: [])
    run = planned({"train.previews": 1})
    watcher = Watcher(run, manifests.load(str(dataset)), 1, 1, 0)
    watcher._draw_samples(1, 0, None)
    watcher.close()
    assert not os.path.exists(run.path("previews"))


def test_steps_that_float16_could_not_make_are_told_by_their_numbers(planned, capsys):
    made = []

    def teach(_, first, count):
        made.append((first, count))
        losses = np.ones(count, np.float32)
        return loop.StepResult(losses, np.zeros((3, 3), int), 0.1, 0.0, skipped=int(first != 2))

    onlooker = SimpleNamespace(losses=lambda *_: None, steps=lambda *_: None)
    train._train_epoch(
        planned({"train.steps_per_call": 2}),
        SimpleNamespace(train=teach),
        None,
        Progress(),
        5,
        onlooker,
        lambda: None,
        lambda: None,
        onlooker,
        Stall(""),
    )
    assert made == [(0, 2), (2, 2), (4, 1)]
    told = "made no update: float16 could not hold the gradients, and the loss scale was halved."
    said = [line for line in capsys.readouterr().err.splitlines() if "made no update" in line]
    assert said == [f"1 of the steps 0 to 1 {told}", f"Step 4 {told}"]


def test_what_classes_weigh_is_told_by_their_names(planned, dataset, capsys):
    manifest = manifests.load(str(dataset))
    split = manifest.split("train")
    setup.make_loss(planned({"train.class_weights": "inverse"}), manifest)
    inverse = [1 / pixels for pixels in split.class_pixels]
    mean = sum(inverse) / len(inverse)
    capped = class_weights.class_weights("inverse", split.class_pixels, split.class_examples)
    assert capped == pytest.approx([value / mean for value in inverse]), "the cap is of no effect"
    told = ", ".join(
        f"{name} {value / mean:.3g}"
        for name, value in zip(manifest.label_map.names, inverse, strict=True)
    )
    assert f"Class weights: {told}\n" in capsys.readouterr().err
    setup.make_loss(planned(), manifest)
    assert "weights" not in capsys.readouterr().err


def test_a_rehearsal_is_deterministic_where_the_training_is_and_tells_too_little_memory(
    planned, dataset, monkeypatch
):
    seeds = []
    monkeypatch.setattr(execution, "make_deterministic", seeds.append)
    manifest = manifests.load(str(dataset))
    run = planned({"train.deterministic": "true", "train.seed": 7})
    rehearsed = rehearsal.rehearse(run, manifest)
    assert seeds == [7]
    rehearsal_batch = next(iter(rehearsed.dataset))
    first = next(iter(batches.train(manifest, rehearsed.source)))
    assert (rehearsal_batch["image"].numpy() == first["image"].numpy()).all()
    config = run.experiment
    described = memory.describe(config.model, config.train.precision, 3, 3, run.size)
    needed = memory.estimate(described, config.data.batch_size, "float32").total
    for allowed, warned in ((needed - 1, True), (needed, False)):
        device = Device("gpu", "Tesla T4", allowed, "float32", "it is one")
        monkeypatch.setattr(dry_run.devices, "find", lambda device=device: device)
        rows = [text for _, text in dry_run._before(run, manifest, rehearsed, described)]
        more = [text for text in rows if text.startswith("MORE than the ")]
        assert len(more) == warned
        assert all(text.endswith(" that Tesla T4 has for it") for text in more)
