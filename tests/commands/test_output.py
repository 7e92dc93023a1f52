"""Commands in pipes, as processes of their own: what they leave for Python's end counts, too."""

import os
import subprocess
import sys

import pytest

from senet_jax.commands.output import READER_GONE, reader_may_leave


@pytest.mark.parametrize(
    "command",
    [
        ["senet_jax.cli", "models"],  # flushes each line
        ["senet_jax.cli", "report", "--help"],  # leaves its text to the last flush
        ["experiments.ablate_gate", "--help"],
    ],
)
def test_a_command_whose_reader_leaves_ends_in_silence(command):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    _, said = process.communicate()
    assert (process.returncode, said) == (READER_GONE, b"")


def test_another_pipe_that_breaks_is_an_error(capfd):
    with pytest.raises(BrokenPipeError, match="a worker's"), reader_may_leave():
        raise BrokenPipeError("a worker's")
