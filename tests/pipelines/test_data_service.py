"""Batches made by a tf.data service are, bit for bit and in order, those made here."""

from __future__ import annotations

import dataclasses
import socket
import threading

import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from pipelines import batches, data_service, manifest
from pipelines.batches import TrainInput
from pipelines.online_augment import Augmentation

service = tf.data.experimental.service


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def address():
    """A dispatcher that knows its two workers."""
    places = [f"localhost:{port}" for port in free_ports(2)]
    dispatcher = service.DispatchServer(service.DispatcherConfig(worker_addresses=places))
    target = dispatcher.target.split("://")[1]
    workers = [
        service.WorkerServer(
            service.WorkerConfig(
                port=int(place.split(":")[1]), dispatcher_address=target, worker_address=place
            )
        )
        for place in places
    ]
    yield dispatcher.target
    del workers


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, draw, prepare_quietly):
    folder = tmp_path_factory.mktemp("service")
    draw(folder / "data/train", [f"i{n}" for n in range(11)])
    prepare_quietly(folder / "data", folder / "out")
    return manifest.load(str(folder / "out"))


@pytest.mark.parametrize("start", [0, 3])
def test_two_workers_make_what_one_process_makes(dataset, address, start):
    options = TrainInput(
        4, seed=3, crop_size=(8, 8), foreground_share=0.5,
        augmentation=Augmentation(True, rotation=20.0, noise=0.1, cutmix=0.5),
    )  # fmt: skip
    served = dataclasses.replace(options, service=address)
    here = batches.train(dataset, options, start).take(7)
    there = batches.train(dataset, served, start).take(7)
    assert there.element_spec["image"].shape[1:] == (8, 8, 3)
    for one, other in zip(here.as_numpy_iterator(), there.as_numpy_iterator(), strict=True):
        for key in one:
            assert one[key].shape == other[key].shape
            assert (one[key] == other[key]).all()


def test_the_workers_are_counted(address):
    assert data_service.count_workers(address) == 2


def test_batches_out_of_turn_are_put_in_order_and_a_lost_one_is_noticed():
    def run(steps, workers):
        elements = tf.data.Dataset.from_tensor_slices((tf.constant(steps, tf.int64), steps))
        return [int(n) for n in data_service.in_order(elements, workers, 5).as_numpy_iterator()]

    assert run([7, 5, 6, 9, 10, 8], 3) == [5, 6, 7, 8, 9, 10]
    assert run([5, 6], 1) == [5, 6]
    for steps, workers in (([5, 7], 1), ([5, 6, 8, 9], 2)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="lost a batch"):
            run(steps, workers)


def test_an_address_where_nothing_answers_is_named(dataset):
    (port,) = free_ports(1)
    address = f"grpc://localhost:{port}"
    with pytest.raises(FlexsegError, match=f"{address}: nothing answers there"):
        batches.train(dataset, TrainInput(4, service=address))


@pytest.mark.parametrize("wrong", ["localhost:80", "grpc://localhost", "http://a:1", "grpc://:5"])
def test_what_is_no_address_is_refused_before_anything_else(dataset, wrong):
    with pytest.raises(FlexsegError, match="is no address; expected grpc://HOST:PORT"):
        batches.check(dataset, TrainInput(4, service=wrong))


def test_a_dispatcher_that_does_not_know_its_workers_is_refused():
    dispatcher = service.DispatchServer()
    worker = service.WorkerServer(
        service.WorkerConfig(dispatcher_address=dispatcher.target.split("://")[1])
    )
    with pytest.raises(FlexsegError, match="with the addresses of its workers"):
        data_service.count_workers(dispatcher.target)
    del worker


def test_a_service_whose_workers_do_not_answer_is_refused_in_time(address, monkeypatch):
    done = threading.Event()
    monkeypatch.setattr(data_service, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(data_service, "shared", lambda *_: done.wait() and None)
    with pytest.raises(FlexsegError, match=r"used: no worker has answered\. Start its dispatcher"):
        data_service.count_workers(address)
    done.set()
    pairs = tf.data.Dataset.from_tensor_slices(tf.constant([[0, 3], [2, 5], [2, 5]], tf.int64))
    monkeypatch.setattr(data_service, "_ANSWER_SECONDS", 10)
    monkeypatch.setattr(data_service, "shared", lambda *_: pairs)
    with pytest.raises(FlexsegError, match="cannot be used: of its 3 workers only 2 work"):
        data_service.count_workers(address)


@pytest.mark.parametrize("other", [{"cache": "memory"}, {"on_corrupt": "skip"}])
def test_what_needs_this_machine_does_not_go_with_a_service(dataset, other):
    (key,) = other
    with pytest.raises(FlexsegError, match=f"data.{key}=.* data.service"):
        batches.check(dataset, TrainInput(4, service="grpc://localhost:1", **other))
