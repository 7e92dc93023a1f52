"""The order of TensorBoard's files: by name, as TensorBoard reads them."""

import socket
import struct
import time

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from senet_jax.errors import UsageError
from senet_jax.training.records.tensorboard import EventFile, next_name


def write(folder, step, loss):
    file = EventFile(folder, purge_step=step)
    file.scalars(step, {"train/loss": loss})
    file.close()


def events(file):
    """The events of a file of records: length, its checksum, data, its checksum."""
    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[12 + length + 4 :]
    return found


def read(folder):
    """The losses as TensorBoard has them: a start makes it forget what is from its step on."""
    losses = {}
    for file in sorted(folder.iterdir()):
        for event in events(file):
            if event.session_log.status == SessionLog.START:
                losses = {step: loss for step, loss in losses.items() if step < event.step}
            for value in event.summary.value:
                losses[event.step] = value.simple_value
    return losses


@pytest.mark.parametrize(
    "clock",
    [
        (1.7e9, 1.7e9, 1.7e9, 1.7e9),
        (1.7e9, 1.7e9 - 3600, 1.5e9, 1.7e9),
        (1.7e9, 12.5, 0.0, -5.0),
        (3e11, 1.7e9, 3e11, 12.5),
    ],
    ids=["one second", "an hour back", "never set", "far ahead"],
)
def test_a_later_start_sorts_behind_whatever_the_clock(tmp_path, monkeypatch, clock):
    for step, now in enumerate(clock):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        write(tmp_path, step, loss=10.0 + step)
    assert read(tmp_path) == {0: 10.0, 1: 11.0, 2: 12.0, 3: 13.0}
    # The last start begins at step 1 again.
    write(tmp_path, 1, loss=5.0)
    assert read(tmp_path) == {0: 10.0, 1: 5.0}


@pytest.mark.parametrize(
    "earlier", ["events.out.tfevents.1900000000.a", "events.out.tfevents.123.45678.a"]
)
def test_a_file_sorts_behind_those_of_tensorboardx(tmp_path, monkeypatch, earlier):
    (tmp_path / earlier).touch()
    (tmp_path / "other").touch()
    monkeypatch.setattr(time, "time", lambda: 200.0)
    monkeypatch.setattr(socket, "gethostname", lambda: "a/b")
    assert earlier < next_name(tmp_path)
    assert next_name(tmp_path).endswith(".a_b")


def test_tensorboard_is_given_images(tmp_path):
    file = EventFile(tmp_path, 1)
    file.images(3, "train/images", np.zeros((4, 8, 8, 3), np.uint8))
    file.close()
    (path,) = tmp_path.iterdir()
    *_, last = events(path)
    assert last.step == 3
    assert last.summary.value[0].image.encoded_image_string.startswith(b"\x89PNG")


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is no folder"):
        EventFile(tmp_path / "file", 1)
