"""Events are written when they are flushed, and a full disk is an error instead of a wait."""

import errno
import os

import pytest
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

from asyppo_jax.runs.tensorboard import EventFile


def read_events(file):
    data, events = file.read_bytes(), []
    while data:  # length (8 bytes), its checksum (4), an event, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def test_scalars_texts_and_the_purge_are_in_the_file(tmp_path):
    events = EventFile(str(tmp_path / "tensorboard"), 3)
    events.add_scalar("actor/loss", 0.5, 3)
    events.add_text("samples", "<pre>x</pre>", 4)
    events.flush()
    (file,) = (tmp_path / "tensorboard").iterdir()
    written = read_events(file)
    assert [event.step for event in written] == [0, 3, 3, 3, 4]
    assert written[2].session_log.status == 1  # start: TensorBoard purges from that step on
    (value,) = written[3].summary.value
    assert value.tag == "actor/loss" and value.simple_value == 0.5
    (value,) = written[4].summary.value
    assert value.tensor.string_val == [b"<pre>x</pre>"] and written[4].wall_time > 0
    events.close()


def test_a_file_that_cannot_be_written_raises(tmp_path, monkeypatch):
    events = EventFile(str(tmp_path), 0)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(events._events, "flush", full)
    for i in range(50):  # more than the queue of tensorboardX takes
        events.add_scalar("x", float(i), i)
    with pytest.raises(OSError, match="No space left"):
        events.flush()
    monkeypatch.undo()
    events.close()
