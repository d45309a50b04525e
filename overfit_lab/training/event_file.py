"""The form of a TensorBoard event file; torch is not needed for it."""

from __future__ import annotations

from io import BytesIO

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

VERSION = "brain.Event:2"
"""What the first event of a file holds."""


def framed(*events: Event) -> bytes:
    """Return events as they stand in a file."""
    buffer = BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    return buffer.getvalue()
