"""Commands in pipes, as processes of their own: what they leave for Python's end counts, too."""

import os
import subprocess
import sys

import pytest

from senet_jax.command_line.output import open_streams, reader_may_leave
from senet_jax.errors import ExitCode

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize(
    "command",
    [
        ["senet_jax.cli", "models"],  # flushes each line
        ["senet_jax.cli", "report", "--help"],  # leaves its text to the last flush
        ["experiments.ablate", "gate", "--help"],
    ],
)
def test_a_command_whose_reader_leaves_ends_in_silence(command):
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=BUFFERED,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    _, said = process.communicate()
    assert (process.returncode, said) == (ExitCode.READER_GONE, b"")


def test_another_pipe_that_breaks_is_an_error(capfd):
    with pytest.raises(BrokenPipeError, match="a worker's"), reader_may_leave():
        raise BrokenPipeError("a worker's")


PRINTS = "import sys; from senet_jax.cli import main; sys.argv[1:] = {argv}; sys.exit(main())"


def shell(argv, redirection):
    """Exit code, output and errors of a command with redirected streams."""
    program = PRINTS.format(argv=argv)
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, program],
        env=BUFFERED,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(streams):
    code, out, err = shell(["models", "--help"], streams)
    assert (code, err) == (0, "")
    assert bool(out) == (">&- " not in f" {streams} ".replace("2>&-", ""))


def test_an_error_with_closed_streams_has_its_code():
    assert shell(["nonsense"], "2>&-") == (2, "", "")
    code, out, err = shell(["nonsense"], ">&-")
    assert (code, out) == (2, "")
    assert err.startswith("senet-jax: error: unknown command 'nonsense'")


def test_no_file_gets_the_number_of_a_closed_stream():
    program = (
        "from senet_jax.command_line.output import open_streams; open_streams(); "
        "import sys, tempfile; sys.exit(tempfile.TemporaryFile().fileno() < 3)"
    )
    command = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, program]
    assert subprocess.run(command).returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")  # noqa: PTH110
def test_a_full_disk_under_the_output_is_said():
    code, _, err = shell(["models", "--help"], ">/dev/full")
    assert code == 2
    assert err == "senet-jax: error: standard output cannot be written: No space left on device.\n"


def test_an_error_of_another_file_is_an_error(capfd):
    with pytest.raises(OSError, match="elsewhere"), reader_may_leave():
        raise OSError(28, "elsewhere")


def test_streams_that_are_none_are_opened(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with reader_may_leave():
        pass
    open_streams()
    sys.stdout.write("")
    sys.stderr.write("")
    with reader_may_leave():
        pass


def test_what_the_encoding_lacks_is_escaped():
    program = (
        "from senet_jax.command_line.output import open_streams; open_streams(); print('\\u00e9')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.stdout, done.stderr) == (b"\\xe9\n", b"")
