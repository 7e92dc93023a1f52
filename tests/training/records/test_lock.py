import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys

import pytest

from senet_jax.errors import UsageError
from senet_jax.training.records.lock import run_lock

HOLD = """
import sys, time
from pathlib import Path
from senet_jax.training.records.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_with_the_name_of_the_first(tmp_path, holder):
    with (
        pytest.raises(UsageError, match=rf"in use by process {holder.pid} on \S+ since \d{{4}}-"),
        run_lock(tmp_path / "run"),
    ):
        pass


def test_the_lock_dies_with_its_process(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with run_lock(tmp_path / "run"):
        pass
    with run_lock(tmp_path / "run"):
        pass


def test_where_there_are_no_locks_there_is_a_warning(tmp_path, monkeypatch, caplog):
    def flock(file, flags):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with caplog.at_level(logging.WARNING), run_lock(tmp_path / "run"):
        assert "without locks" in caplog.text
