"""A call of steps that takes much longer than those before is told of, once, and not stopped."""

from __future__ import annotations

import threading

import pytest

from train.stall import Stall

SERVICE = "grpc://there:5050"


class Told:
    """Keeps what was told, and lets a test wait for it."""

    def __init__(self):
        self.messages = []
        self.some = threading.Event()

    def __call__(self, message):
        self.messages.append(message)
        self.some.set()


def test_a_stall_is_told_with_the_service_and_what_to_do_and_the_call_goes_on():
    told = Told()
    with Stall(SERVICE, told, shortest=0.01).watched():
        assert told.some.wait(30)
    assert len(told.messages) == 1
    assert SERVICE in told.messages[0]
    assert "workers" in told.messages[0]


def test_every_stall_is_told():
    told = Told()
    stall = Stall(SERVICE, told, shortest=0.01, clock=lambda: 0.0)
    for _ in range(2):
        told.some.clear()
        with stall.watched():
            assert told.some.wait(30)
    assert len(told.messages) == 2


def timers():
    return [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_a_call_that_ends_in_time_is_not_told_of():
    told = Told()
    stall = Stall(SERVICE, told, shortest=1000.0)
    with stall.watched():
        running = timers()
        assert running
    for timer in running:
        timer.join(30)
        assert not timer.is_alive()
    assert not told.messages


def test_nor_is_one_that_fails():
    told = Told()
    running = []

    def call():
        with Stall(SERVICE, told, shortest=1000.0).watched():
            running.extend(timers())
            raise ValueError

    with pytest.raises(ValueError):
        call()
    assert running
    for timer in running:
        timer.join(30)
        assert not timer.is_alive()


def test_patience_grows_with_the_longest_call():
    times = iter([0.0, 30.0, 100.0, 101.0])
    stall = Stall(SERVICE, Told(), shortest=60.0, clock=lambda: next(times))
    assert stall.patience == 60.0
    for _ in range(2):
        with stall.watched():
            pass
        assert stall.patience == 300.0


def test_without_a_service_nothing_is_watched():
    told = Told()
    before = timers()  # cancelled ones of other tests may still be ending
    with Stall("", told, shortest=0.0).watched():
        assert set(timers()) <= set(before)
    assert not told.messages
