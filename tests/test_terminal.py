import errno
import io
import logging
import sys

import pytest
from tqdm import tqdm

from senet_jax.command_line import output
from senet_jax.errors import UsageError
from senet_jax.terminal import OneLine, escaped_output, unescaped

NAME = "cat\x1b]0;owned\x07\x9b31m\u202e\udce9"
SAFE = r"cat\x1b]0;owned\x07\x9b31m\u202e\udce9"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_is_printed_acts_on_no_terminal(capsys, stream):
    with escaped_output():
        print(f"a\n{NAME}: é 犬", file=getattr(sys, stream))
        getattr(sys, stream).writelines([NAME, "\n"])
    assert getattr(capsys.readouterr(), stream[3:]) == f"a\n{SAFE}: é 犬\n{SAFE}\n"
    print("\x1b")
    assert capsys.readouterr().out == "\x1b\n"


def test_what_an_encoding_lacks_is_escaped(monkeypatch):
    below = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", below)
    with escaped_output():
        print("21.6 ± 0.3 犬", flush=True)
    assert below.buffer.getvalue() == b"21.6 \\xb1 0.3 \\u72ac\n"


def test_a_bar_moves_and_is_cleared_for_a_line(capsys):
    with escaped_output(), escaped_output():
        assert unescaped(sys.stderr) is not sys.stderr
        with tqdm(total=2, file=unescaped(sys.stderr)) as bar:
            bar.update()
            capsys.readouterr()
            bar.write(NAME)
    captured = capsys.readouterr()
    assert captured.out == f"{SAFE}\n"
    # Cleared before the line, drawn again after it, and never escaped.
    assert captured.err.startswith("\r ")
    assert "50%|" in captured.err
    assert "\\" not in captured.err


def test_the_stream_without_escapes_is_the_stream():
    assert unescaped(sys.stdout) is sys.stdout


def test_a_process_without_streams_has_none(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with escaped_output():
        assert sys.stdout is None


def test_a_record_of_the_log_is_one_line():
    record = logging.LogRecord("a", logging.WARNING, "f", 1, "%s: %s", (NAME, "a\nb"), None)
    assert OneLine("senet-jax: %(message)s").format(record) == rf"senet-jax: {SAFE}: a\nb"


def test_a_full_disk_at_any_write_is_one_sentence(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(output, "_write_nothing", lambda: None)
    with (
        pytest.raises(UsageError, match="standard output cannot be written: No space left"),
        escaped_output(),
        output.reader_may_leave(),
    ):
        print("text")
