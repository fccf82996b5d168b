"""Which processes train together: what TF_CONFIG may say, and what is said of what it may not."""

import json
import signal
import socket
import threading

import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from train import distribution
from train.distribution import Cluster
from train.experiment import DistributeConfig

TWO = ["h1:5000", "h2:5001"]


def config(cluster=None, **task):
    return {
        "TF_CONFIG": json.dumps(
            {
                "cluster": {"worker": TWO} if cluster is None else cluster,
                "task": task or {"type": "worker", "index": 0},
            }
        )
    }


@pytest.mark.parametrize("index", [0, 1])
def test_workers_are_found_in_order(index):
    found = distribution.cluster_of(config(type="worker", index=index))
    assert found == Cluster(tuple(TWO), index)


def test_a_chief_stands_before_the_workers():
    jobs = {"chief": ["h0:4999"], "worker": TWO}
    assert distribution.cluster_of(config(jobs, type="chief", index=0)).index == 0
    assert distribution.cluster_of(config(jobs, type="worker", index=1)) == Cluster(
        ("h0:4999", *TWO), 2
    )


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TF_CONFIG": " "},
        {"TF_CONFIG": "{}"},
        config({"worker": ["h1:5000"]}),
        config({"chief": ["h1:5000"]}, type="chief", index=0),
    ],
)
def test_a_process_without_others_trains_alone(environment):
    assert distribution.cluster_of(environment) is None


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({"TF_CONFIG": "{'cluster'"}, "is not JSON"),
        ({"TF_CONFIG": '["a"]'}, 'has no "cluster"'),
        ({"TF_CONFIG": '{"task": {"type": "worker", "index": 0}}'}, 'has no "cluster"'),
        (config({"worker": TWO, "ps": ["h3:1"]}), r"take no part in a training \(ps\)"),
        (config({"chief": TWO}), "more than one chief"),
        (config({"worker": "h1:5000,h2:5000"}), "must list the addresses"),
        (config({"worker": ["h1", "h2:5000"]}), '"h1", expected host:port'),
        (config({"worker": ["h1:0", "h2:5000"]}), '"h1:0", expected host:port'),
        (config({"worker": ["h1:70000", "h2:5000"]}), '"h1:70000", expected host:port'),
        (config({"worker": ["h1:5000", "h1:5000"]}), "names an address twice"),
        (config(type="worker"), 'does not say which "task"'),
        (config(type="worker", index="first"), "the task index 'first', expected a number"),
        (
            config(type="worker", index=2),
            "this is worker 2, but the cluster has worker 0, worker 1",
        ),
        (config(type="worker", index=-1), "this is worker -1"),
        (config(type="chief", index=0), "this is chief 0"),
    ],
)
def test_what_cannot_be_used_is_told_with_an_example(environment, what):
    with pytest.raises(FlexsegError, match=f"TF_CONFIG .*{what}") as error:
        distribution.cluster_of(environment)
    assert '"index": 0' in str(error.value)
    assert environment["TF_CONFIG"][:20] in str(error.value)


def test_strategy_and_cluster_must_not_contradict_each_other():
    several = config()
    chosen = distribution.choose_cluster(DistributeConfig(), several)
    assert chosen == Cluster(tuple(TWO), 0)
    named = DistributeConfig(strategy="multi_worker")
    assert distribution.choose_cluster(named, several) == chosen
    with pytest.raises(FlexsegError, match="multi_worker needs the environment variable TF_CONFIG"):
        distribution.choose_cluster(named, {})
    for strategy in ("one", "mirrored"):
        with pytest.raises(FlexsegError, match="2 workers, which would all write into one run"):
            distribution.choose_cluster(DistributeConfig(strategy=strategy), several)
        assert distribution.choose_cluster(DistributeConfig(strategy=strategy), {}) is None
    with pytest.raises(FlexsegError, match="cpu_devices=2 is for one process"):
        distribution.choose_cluster(DistributeConfig(cpu_devices=2), several)


def test_a_port_that_is_taken_is_told_before_anybody_waits(monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cluster = {"worker": [f"127.0.0.1:{port}", "127.0.0.1:1"]}
        monkeypatch.setenv("TF_CONFIG", config(cluster)["TF_CONFIG"])
        with pytest.raises(FlexsegError, match=f"Port {port} of 127.0.0.1:{port} cannot be used"):
            distribution.make_strategy(DistributeConfig())
    assert "waits" not in capsys.readouterr().err


def test_a_mistake_in_tf_config_is_told_by_the_command_and_leaves_no_run(
    train_command, tmp_path, command, monkeypatch
):
    monkeypatch.setenv("TF_CONFIG", config(type="worker", index=5)["TF_CONFIG"])
    done = command(*train_command(tmp_path / "run"))
    assert done.status == 1
    assert "says that this is worker 5" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("Barrier timed out.\nMore."), "Barrier timed out"),
        (ValueError(), "ValueError"),
    ],
)
def test_workers_that_do_not_meet_are_told(monkeypatch, error, told):
    def fail():
        raise error

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{free.getsockname()[1]}", "h2:5001"]
    monkeypatch.setenv("TF_CONFIG", config({"worker": addresses})["TF_CONFIG"])
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", fail)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(FlexsegError) as raised:
        distribution.make_strategy(DistributeConfig())
    assert str(raised.value) == (
        f"The workers {addresses[0]}, h2:5001 did not come together: {told}. See to it that each "
        "is started once, with the same cluster in TF_CONFIG, and can reach the others."
    )
    assert signal.getsignal(signal.SIGINT) is before


def test_while_workers_wait_ctrl_c_ends_the_process_unless_signals_are_somebody_elses():
    seen = []

    def look():
        with distribution._ended_by_ctrl_c():
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    look()
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL, before]
    assert signal.getsignal(signal.SIGINT) is before
