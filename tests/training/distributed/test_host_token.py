import os
import stat
from pathlib import Path

import pytest

from senet_jax.errors import UsageError
from senet_jax.training.distributed.token import TOKEN, token_of_start


def test_a_token_lies_in_the_folder_while_hosts_come(tmp_path):
    folder = tmp_path / "runs" / "new"
    with (
        token_of_start(folder, None, first=True) as read,
        token_of_start(folder, None, False) as r2,
    ):
        assert read() == r2()
        assert len(read()) == 64
        assert stat.S_IMODE((folder / TOKEN).stat().st_mode) == 0o600
        assert [path.name for path in folder.iterdir()] == [TOKEN]
        first = read()
    assert list(tmp_path.iterdir()) == []
    with token_of_start(folder, None, first=True) as read:
        assert read() != first


def test_a_token_is_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        with token_of_start(tmp_path, None, first=True):
            assert stat.S_IMODE((tmp_path / TOKEN).stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_the_folder_of_a_run_stays_as_it_was(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / TOKEN).write_text("of a start that was killed")
    start = token_of_start(tmp_path, None, first=True)
    with token_of_start(tmp_path, None, first=False) as other:
        read = start.__enter__()
        assert other() == read() != b"of a start that was killed"
        assert start.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_the_token_of_another_start_is_left_alone(tmp_path):
    with token_of_start(tmp_path, None, first=True):
        (tmp_path / TOKEN).write_text("of another start")
    assert (tmp_path / TOKEN).read_text() == "of another start"


def test_a_token_that_is_not_there_yet_is_none(tmp_path):
    with token_of_start(tmp_path / "run", None, first=False) as read:
        assert read() is None
        (tmp_path / "run").mkdir()
        os.mkfifo(tmp_path / "run" / TOKEN)
        assert read() is None
    assert (tmp_path / "run").exists()


@pytest.mark.parametrize("first", [True, False])
def test_a_token_file_of_the_user(tmp_path, first):
    file, folder = tmp_path / "secret", tmp_path / "run"
    file.write_text("0123456789abcdef\n")
    with token_of_start(folder, file, first) as read:
        assert read() == b"0123456789abcdef"
        assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot be read"), ("", "at least 16"), ("short", "at least 16")]
)
def test_a_token_file_that_cannot_serve_is_refused(tmp_path, text, message):
    file = tmp_path / "secret"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=message), token_of_start(tmp_path, file, False):
        pass


@pytest.mark.parametrize("folder", ["/dev/null/run", "/proc/run", "n" * 300])
def test_a_folder_that_cannot_be_made_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="cannot be"), token_of_start(Path(folder), None, True):
        pass
    assert list(tmp_path.iterdir()) == []
