"""Scalars by step from the log that a run keeps for TensorBoard, read without TensorFlow.

What a step took in time is nowhere else: `history.json` holds only what is the same in every run.
"""

from __future__ import annotations

import contextlib
import struct
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from flexseg_errors import FlexsegError
from pipelines import records, storage
from train.runs import Run

LOGS = "logs"
WAITING = "train/waiting_share"
_PREFIX = "events.out.tfevents."


def scalars(run: Run, tag: str) -> dict[int, float]:
    """Step -> value of a tag, by ascending step; {} where there is no log, or it lacks the tag.

    Of a file that is being written, or was torn by a crash, what is whole is read. Where a step is
    in several files, the newest counts.
    """
    found: dict[int, float] = {}
    folder = run.path(LOGS)
    for name in sorted(n for n in storage.names(folder) if n.startswith(_PREFIX)):
        path = storage.join(folder, name)
        with contextlib.suppress(FlexsegError), storage.open_read(path) as file:
            for _, data in records.read_framed(file, path):
                event = _Event.FromString(data)
                for value in event.summary.value:
                    if value.tag == tag and len(value.tensor.tensor_content) == 4:  # a float32
                        found[event.step] = struct.unpack("<f", value.tensor.tensor_content)[0]
    return dict(sorted(found.items()))


def _event_class() -> Any:
    """What of an event is read here, from its public definition (event.proto, summary.proto)."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="flexseg/event.proto", package="flexseg", syntax="proto3"
    )

    def message(name: str, *fields: tuple[str, int, Any, bool]) -> None:
        own = file.message_type.add(name=name)
        for key, number, kind, repeated in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            added = own.field.add(name=key, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = field.TYPE_MESSAGE, f".flexseg.{kind}"
            else:
                added.type = kind

    message("LogTensor", ("tensor_content", 4, field.TYPE_BYTES, False))
    message("LogValue", ("tag", 1, field.TYPE_STRING, False), ("tensor", 8, "LogTensor", False))
    message("LogSummary", ("value", 1, "LogValue", True))
    message("LogEvent", ("step", 2, field.TYPE_INT64, False), ("summary", 5, "LogSummary", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("flexseg.LogEvent"))


_Event = _event_class()
