"""A training that begins with the best weights of another run."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import yaml

import flexseg
from flexseg_errors import FlexsegError
from train import checkpoints, init_from, loop, runs, train


@pytest.fixture(scope="module")
def source(train_command, tmp_path_factory):
    """A run of one epoch, which others begin from."""
    folder = tmp_path_factory.mktemp("source") / "run"
    assert flexseg.main(train_command(folder, {"train.epochs": 1, "train.seed": 7})) == 0
    return folder


@pytest.fixture
def begin(train_command, command, monkeypatch):
    """A function that begins a run and hands back its weights before the first step."""

    def run(folder, origin, keys=(), status=0, **where):
        seen = {}
        teach = loop.Steps.train

        def train(self, iterator, first_step, count):
            if not first_step:
                seen.update({v.path: v.numpy() for v in self.model.weights})
            return teach(self, iterator, first_step, count)

        with monkeypatch.context() as patch:
            patch.setattr(loop.Steps, "train", train)
            keys = {"train.epochs": 1, **dict(keys)}
            done = command(*train_command(folder, keys, **where), f"--init_from={origin}")
        assert done.status == status, done.err
        return seen, done.err

    return run


def best_of(folder):
    return {v.path: v.numpy() for v in runs.load(str(folder)).load_model().weights}


def test_a_run_begins_with_the_best_weights_of_the_other(source, begin, tmp_path):
    seen, err = begin(tmp_path / "run", source, {"train.seed": 3})
    expected = best_of(source)
    assert seen.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(seen[name], value, name)
    assert f"Begins with {len(expected)} of {len(expected)} variables of {source}." in err
    assert "anew" not in err
    note = yaml.safe_load((tmp_path / "run" / runs.INPUT).read_text())["init_from"]
    assert note["run"] == str(source)
    assert len(note["weights_sha256"]) == 64


def test_the_average_of_the_weights_begins_there_too(source, begin, tmp_path):
    """Else the first epochs would be validated on weights that were drawn."""
    keys = {"train.ema_decay": 0.9, "train.keep_checkpoints": 9}
    begin(tmp_path / "run", source, keys)
    reader = tf.train.load_checkpoint(str(tmp_path / "run/checkpoints/step-000000000/variables"))
    averages = [n for n in reader.get_variable_to_shape_map() if n.startswith("average/values")]
    stored = [reader.get_tensor(name) for name in averages]
    expected = list(best_of(source).values())
    assert len(stored) == len(expected)
    for value in expected:
        assert any(np.array_equal(value, other) for other in stored)


def test_other_classes_and_channels_get_a_head_and_a_stem_of_their_own(
    source, begin, tmp_path, two_classes
):
    """Three classes of colour images to two of gray ones, by softmax and by sigmoid."""
    expected = best_of(source)
    for head in ("softmax", "sigmoid"):
        seen, err = begin(tmp_path / head, source, {"model.head": head}, data=two_classes)
        new = {n for n in expected if not np.array_equal(seen[n], expected[n])}
        assert {n.partition("/")[0] for n in new} == {"logits", "enc0_conv1"}
        for name in new - {"logits/bias"}:
            assert f"anew: {name} (" in err
        shape = list(seen["logits/kernel"].shape)
        assert f"anew: logits/kernel ({shape}, there [1, 1, 2, 3])" in err


def test_as_many_classes_of_other_names_get_a_head_of_their_own():
    shapes = {"enc/kernel": (3, 3), "logits/kernel": (1, 4), "logits_1/bias": (4,)}
    taken, left = init_from.fitting(shapes, shapes, same_classes=False)
    assert taken == {"enc/kernel"}
    assert left == dict.fromkeys(["logits/kernel", "logits_1/bias"], "the classes are others")
    assert init_from.fitting(shapes, shapes, same_classes=True) == (set(shapes), {})


def test_a_larger_network_takes_what_fits():
    theirs = {"a/kernel": (3, 2), "b/kernel": (4,)}
    ours = {"a/kernel": (3, 8), "b/kernel": (4,), "c/kernel": (5,)}
    taken, left = init_from.fitting(theirs, ours, same_classes=True)
    assert taken == {"b/kernel"}
    assert left == {"a/kernel": "[3, 8], there [3, 2]", "c/kernel": "the other has none"}


def test_a_network_that_nothing_fits_is_refused_and_leaves_no_folder(source, begin, tmp_path):
    keys = {"model.name": "sharp_unet", "model.base_filters": 3}
    _, err = begin(tmp_path / "run", source, keys, status=1)
    assert "no kernel of its network (flex_unet with " in err
    assert "fits this one (sharp_unet with " in err
    assert not (tmp_path / "run").exists()


def test_the_other_run_is_not_needed_again(source, begin, train_command, tmp_path, command):
    """Killed after its first checkpoint, which comes before its first step; then it is gone."""
    shutil.copytree(source, tmp_path / "origin")
    unbroken, _ = begin(tmp_path / "unbroken", source, {"train.seed": 2})
    keys = {"train.epochs": 1, "train.seed": 2, "train.keep_checkpoints": 9}
    arguments = [*train_command(tmp_path / "run", keys), f"--init_from={tmp_path / 'origin'}"]
    assert command(*arguments).status == 0
    for name in ("best", "logs", "eval", "history.json"):
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        if path.name != "step-000000000":
            shutil.rmtree(path)
    shutil.rmtree(tmp_path / "origin")
    again = command(*arguments)
    assert again.status == 0, again.err
    assert "Begins with" not in again.err
    for name, value in best_of(tmp_path / "unbroken").items():
        np.testing.assert_array_equal(best_of(tmp_path / "run")[name], value, name)


def test_a_run_goes_on_only_with_the_origin_it_began_with(planned, untrained, tmp_path):
    untrained(folder=tmp_path / "origin")
    run = init_from.plan(planned(), str(tmp_path / "origin"))
    runs.claim(run)
    assert runs.load(run.folder) == run
    with pytest.raises(FlexsegError, match=r"differs \(init_from: .*origin \(.*\), now none\)"):
        runs.claim(planned())
    runs.claim(init_from.plan(planned(), str(tmp_path / "origin")))


def test_an_origin_that_was_trained_on_since_is_refused(planned, untrained, tmp_path):
    origin = untrained(folder=tmp_path / "origin")
    run = init_from.plan(planned(), origin.folder)
    model = origin.build()
    model.save_weights(origin.path(runs.BEST_WEIGHTS))
    with pytest.raises(FlexsegError, match=r"it was trained on\. Give a new --run"):
        init_from.apply(run, run.build())


def test_an_origin_without_weights_is_refused(planned, tmp_path):
    runs.claim(planned(folder=tmp_path / "origin"))
    with pytest.raises(FlexsegError, match="has no trained weights yet"):
        init_from.plan(planned(), str(tmp_path / "origin"))
    with pytest.raises(FlexsegError, match="is the run itself"):
        init_from.plan(planned(folder=tmp_path / "origin"), str(tmp_path / "origin"))
    with pytest.raises(FlexsegError, match="There is no folder"):
        init_from.plan(planned(), str(tmp_path / "nowhere"))


def test_a_run_without_origin_keeps_no_first_checkpoint(source):
    assert checkpoints.step_of(checkpoints.latest(str(source / "checkpoints"))) > 0
    assert not (source / "checkpoints" / "step-000000000").exists()
    assert json.loads((source / runs.BEST).read_text())["epoch"] == 0


@pytest.mark.parametrize("left", ["step-000000000.tmp", "step-000000000"])
def test_a_kill_before_the_first_checkpoint_is_whole_costs_nothing(
    planned, untrained, tmp_path, left
):
    """Here, half of it was written; elsewhere (s3://), all but its state was sent.

    The weights are taken again then. Those that were drawn would be no error anybody sees.
    """
    origin = untrained(folder=tmp_path / "origin")
    run = init_from.plan(planned({"train.seed": 5}), origin.folder)
    runs.claim(run)
    folder = tmp_path / "run" / runs.CHECKPOINTS / left
    folder.mkdir(parents=True)
    (folder / "variables.index").write_bytes(b"half")
    model = run.build()
    train._begin(run, model)
    sent = []
    copy = dataclasses.replace(run, work=str(tmp_path / "copy"))  # has what is whole: nothing
    for where in (run, copy):
        steps = SimpleNamespace(checkpoint=tf.train.Checkpoint(model=model))
        init_from.keep(where, steps, lambda: sent.append(1))
        assert checkpoints.latest(where.path(runs.CHECKPOINTS)).endswith("step-000000000")
    assert sent == [1, 1]
    for variable, value in zip(model.weights, best_of(origin.folder).values(), strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, variable.path)


def test_where_no_checkpoint_is_whole_each_is_told_and_nothing_is_begun(
    planned, untrained, tmp_path, capsys
):
    run = init_from.plan(planned(), untrained(folder=tmp_path / "origin").folder)
    runs.claim(run)
    folder = run.path(runs.CHECKPOINTS)
    variables = tf.train.Checkpoint(v=tf.Variable(1.0))
    for step in (3, 6):
        checkpoints.save(folder, step, variables, {}, keep=9)
        (tmp_path / "run/checkpoints" / f"step-00000000{step}/variables.index").unlink()
    model = run.build()
    drawn = model.get_weights()
    train._begin(run, model)
    for value, before in zip(model.get_weights(), drawn, strict=True):
        np.testing.assert_array_equal(value, before)
    capsys.readouterr()
    with pytest.raises(FlexsegError, match=r"No checkpoint in .* is whole\. Give a new --run"):
        init_from.keep(run, None, None)
    err = capsys.readouterr().err
    for step in (3, 6):
        told = f"The checkpoint {folder}/step-00000000{step} is left out: variables.index is missi"
        assert told in err


def test_of_many_variables_that_do_not_fit_some_are_told_and_the_rest_counted(
    planned, untrained, tmp_path, capsys
):
    origin = untrained(folder=tmp_path / "origin")
    keys = {"model.levels": 4}
    run = init_from.plan(planned(keys), origin.folder)
    model = run.build()
    init_from.apply(run, model)
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if line.startswith("  anew: ")]
    taken = int(lines[0].removeprefix("Begins with ").split()[0])
    assert lines[0] == f"Begins with {taken} of {len(model.weights)} variables of {origin.folder}."
    assert len(told) == 12
    assert lines[-1] == f"  and {len(model.weights) - taken - 12} more"
