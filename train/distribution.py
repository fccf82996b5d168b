"""Where a training runs: one device, several, or several hosts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from flexseg_errors import FlexsegError
from train.console import say
from train.experiment import DistributeConfig

TF_CONFIG = "TF_CONFIG"
_EXAMPLE = (
    '{"cluster": {"worker": ["host1:5000", "host2:5000"]}, "task": {"type": "worker", "index": 0}}'
)
_ADDRESS = re.compile(r"(\[[^\]]+\]|[^:]+):(\d+)")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The worker processes of a training and which of them this one is.

    Attributes:
      addresses: host:port of each; the first is the chief.
      index: of this one.
    """

    addresses: tuple[str, ...]
    index: int


def cluster_of(environment: Mapping[str, str]) -> Cluster | None:
    """What TF_CONFIG says; None where it names less than two workers or is not there.

    Raises:
      FlexsegError: where it cannot be used, with what is wrong.
    """
    text = environment.get(TF_CONFIG, "").strip()
    if not text:
        return None
    try:
        data = json.loads(text)
    except ValueError as error:
        raise _wrong(f"is not JSON ({error})", text) from error
    jobs = data.get("cluster") if isinstance(data, dict) else None
    if jobs is None and isinstance(data, dict) and not data.get("task"):
        return None  # as platforms set it for a single process
    if not isinstance(jobs, dict) or not jobs:
        raise _wrong('has no "cluster" with lists of addresses', text)
    others = sorted(set(jobs) - {"chief", "worker"})
    if others:
        raise _wrong(f"has jobs that take no part in a training ({', '.join(others)})", text)
    places = [
        (job, index, str(address))
        for job in ("chief", "worker")
        for index, address in enumerate(_list(jobs.get(job, []), text))
    ]
    if len(_list(jobs.get("chief", []), text)) > 1:
        raise _wrong("names more than one chief", text)
    addresses = tuple(address for *_, address in places)
    for address in addresses:
        found = _ADDRESS.fullmatch(address)
        if not found or not 0 < int(found[2]) < 1 << 16:
            raise _wrong(f'has the address "{address}", expected host:port', text)
    if len(set(addresses)) < len(addresses):
        raise _wrong("names an address twice", text)
    task = data.get("task")
    if not isinstance(task, dict) or not {"type", "index"} <= set(task):
        raise _wrong('does not say which "task" this process is', text)
    try:
        own = (str(task["type"]), int(task["index"]))
    except (TypeError, ValueError) as error:
        raise _wrong(f"has the task index {task['index']!r}, expected a number", text) from error
    known = [(job, index) for job, index, _ in places]
    if own not in known:
        raise _wrong(
            f"says that this is {own[0]} {own[1]}, but the cluster has "
            + ", ".join(f"{job} {index}" for job, index in known),
            text,
        )
    return Cluster(addresses, known.index(own)) if len(places) > 1 else None


def choose_cluster(
    config: DistributeConfig, environment: Mapping[str, str] | None = None
) -> Cluster | None:
    """The workers that this process trains with; None where it trains alone.

    Raises:
      FlexsegError: where distribute.strategy and TF_CONFIG contradict each other.
    """
    cluster = cluster_of(os.environ if environment is None else environment)
    if config.strategy == "multi_worker" and cluster is None:
        raise FlexsegError(
            "distribute.strategy=multi_worker needs the environment variable TF_CONFIG on every "
            f"worker, such as {_EXAMPLE}, each with its own index."
        )
    if cluster and config.strategy in ("one", "mirrored"):
        raise FlexsegError(
            f"distribute.strategy={config.strategy} trains in one process, but TF_CONFIG names "
            f"{len(cluster.addresses)} workers, which would all write into one run. Use "
            "distribute.strategy=multi_worker, or unset TF_CONFIG."
        )
    if cluster and config.cpu_devices > 1:
        raise FlexsegError(
            f"distribute.cpu_devices={config.cpu_devices} is for one process; TF_CONFIG names "
            f"{len(cluster.addresses)} workers. Start more workers instead."
        )
    return cluster


def make_strategy(config: DistributeConfig) -> tf.distribute.Strategy:
    """Chooses where to run. Call it before TensorFlow has touched a device.

    With several workers it returns when all of them are there.

    Raises:
      FlexsegError: where logical devices are asked for too late, or the workers cannot meet.
    """
    cluster = choose_cluster(config)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if cluster:
        return _multi_worker(cluster)
    if config.cpu_devices > 1:
        try:
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0],
                [tf.config.LogicalDeviceConfiguration()] * config.cpu_devices,
            )
        except RuntimeError as error:
            raise FlexsegError(f"distribute.cpu_devices comes too late: {error}") from error
    devices = [d.name for d in tf.config.list_logical_devices("GPU" if gpus else "CPU")]
    wanted = config.strategy
    if wanted == "auto":
        wanted = "mirrored" if len(devices) > 1 else "one"
    if wanted == "one":
        return tf.distribute.OneDeviceStrategy(devices[0])
    # CPUs have no collective of their own; reducing to one device is exact and always there.
    reduction = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def distribute(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset) -> Iterator[Any]:
    """An iterator that hands each replica its part of every global batch.

    Args:
      strategy: what `make_strategy` made.
      dataset: of global batches; with several workers, of this one's own share of each.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return iter(strategy.experimental_distribute_dataset(dataset))
    replicas = len(strategy.extended.worker_devices)

    def own(_: tf.distribute.InputContext) -> tf.data.Dataset:
        # TensorFlow is not left to divide it among workers, which would make other batches.
        if replicas == 1:
            return dataset
        share = tf.nest.flatten(dataset.element_spec)[0].shape[0]
        return dataset.rebatch(share // replicas, drop_remainder=True)

    return iter(strategy.distribute_datasets_from_function(own))


def _multi_worker(cluster: Cluster) -> tf.distribute.Strategy:
    own = cluster.addresses[cluster.index]
    _refuse_port_in_use(own)
    others = ", ".join(a for a in cluster.addresses if a != own)
    say(f"Worker {cluster.index} ({own}) waits for {others} ...")
    try:
        with _ended_by_ctrl_c():
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise FlexsegError(
            f"The workers {', '.join(cluster.addresses)} did not come together: {reason}. See to "
            f"it that each is started once, with the same cluster in {TF_CONFIG}, and can reach "
            "the others."
        ) from error


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """TensorFlow waits where Python does not hear of signals: Ctrl-C then ends the process."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:  # not in the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _refuse_port_in_use(address: str) -> None:
    found = _ADDRESS.fullmatch(address)
    port = int(found[2]) if found else 0
    # gRPC shares a port with whoever takes it too, so that two workers would listen to one.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise FlexsegError(
                f"Port {port} of {address} cannot be used: {error.strerror}. End the process that "
                f"uses it, an older worker perhaps, or name another port in {TF_CONFIG} on every "
                "worker."
            ) from error


def _list(value: Any, text: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong("must list the addresses of a job", text)
    return value


def _wrong(what: str, text: str) -> FlexsegError:
    shown = text if len(text) <= 200 else text[:200] + " ..."
    return FlexsegError(f"{TF_CONFIG} {what}: {shown}. Expected such as {_EXAMPLE}.")
