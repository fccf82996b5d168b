"""Input made by other machines: tf.data service, in exact order.

Every worker of the service makes the order of training by itself, from encoded records, and decodes
and augments but every W-th batch of it. The trainer reads the workers in turn and puts batches into
order by their steps, so that it sees, bit for bit, what it would have made itself. The price is
that every worker reads all files (without decoding). For the workers to know which batches are
theirs, the dispatcher must have been told their addresses.
"""

from __future__ import annotations

import queue
import socket
import threading
import uuid
from typing import Any

import tensorflow as tf

from flexseg_errors import FlexsegError

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
_HINT = tf.data.experimental.SHARD_HINT
_service = tf.data.experimental.service


def check_address(address: str) -> tuple[str, int]:
    """Host and port of "grpc://host:port".

    Raises:
      FlexsegError: where it is none.
    """
    protocol, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    if protocol != "grpc" or not host or not port.isdigit():
        raise FlexsegError(
            f'data.service="{address}" is no address; expected grpc://HOST:PORT of the dispatcher.'
        )
    return host, int(port)


def count_workers(address: str) -> int:
    """How many workers a service has; they must be known to its dispatcher beforehand.

    Raises:
      FlexsegError: where nothing answers, or the workers are not known.
    """
    host, port = check_address(address)
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise FlexsegError(
            f"data.service={address}: nothing answers there ({error}). Start the dispatcher and "
            "its workers, or leave data.service out."
        ) from error
    answers: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            numbers = own_batches(tf.data.Dataset.range(tf.int64.max))
            pairs = shared(numbers.batch(2), address).as_numpy_iterator()
            first, second = next(pairs)  # worker i of W has i, i + W, i + 2 W, ...
            count = int(second - first)
            found = {int(first), *(int(next(pairs)[0]) for _ in range(count - 1))}
            if found == set(range(count)):
                answers.put(count)
            else:
                answers.put(f"of its {count} workers only {len(found)} work")
        except Exception as error:  # told below, in the thread that asked
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_ANSWER_SECONDS)
    except queue.Empty:
        answer = "no worker has answered"
    if isinstance(answer, int):
        return answer
    raise FlexsegError(
        f"data.service={address} cannot be used: {answer}. Start its dispatcher with the addresses "
        "of its workers (DispatcherConfig(worker_addresses=[...])), and every one of these workers."
    )


def own_batches(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Leaves each worker of the service its own elements: the first, the W-th after that, ..."""
    return dataset.shard(_HINT, _HINT)


def shared(dataset: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """Has an endless dataset, of which `own_batches` is a part, made by a service."""
    return dataset.repeat().apply(  # what never ends must be known to
        _service.distribute(
            _service.ShardingPolicy.HINT,
            address,
            job_name=f"flexseg-{uuid.uuid4().hex}",  # coordinated reading needs a name
            consumer_index=0,
            num_consumers=1,
        )
    )


def in_order(dataset: tf.data.Dataset, workers: int, first: int) -> tf.data.Dataset:
    """Puts elements (step int64, content) into the order of their steps, and holds them to it.

    Args:
      dataset: what the workers give in turn.
      workers: how many they are.
      first: the first step.

    Returns:
      The contents; a step that is missing is an error of TensorFlow's, InvalidArgumentError.
    """

    def sort(steps: tf.Tensor, contents: Any) -> Any:
        order = tf.argsort(steps)
        return tf.nest.map_structure(lambda t: tf.gather(t, order), (steps, contents))

    def hold(expected: tf.Tensor, element: Any) -> Any:
        step, content = element
        same = tf.debugging.assert_equal(step, expected, "A worker of data.service lost a batch.")
        with tf.control_dependencies([same] if same is not None else []):
            return tf.nest.map_structure(tf.identity, content)

    if workers > 1:
        # Each worker's own come in order, but a slow one is passed over at times. A round is given
        # out when it is complete, which no later round can be before.
        dataset = dataset.group_by_window(
            lambda step, _: (step - first) // workers,
            lambda _, round_: round_.batch(workers).map(sort),
            window_size=workers,
        ).unbatch()
    return dataset.enumerate(first).map(hold)
