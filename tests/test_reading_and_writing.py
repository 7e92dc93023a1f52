import errno
import os

import pytest

from senet_jax import files
from senet_jax.errors import UsageError


def test_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(UsageError, match=r"x\.json cannot be read as a list: it is no regular"):
        files.read_json(tmp_path / "x.json", "a list")


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbf{}")
    (tmp_path / "link").symlink_to("file")
    assert files.read_json_object(tmp_path / "link", "an object") == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[1]", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b'{"a": 1'],
    ids=["empty", "null", "list", "utf-16", "deep", "digits", "torn"],
)
def test_damaged_json_is_one_sentence(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.json cannot be read as an object: .*\.$"):
        files.read_json_object(tmp_path / "x.json", "an object")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (r'{"a": [1, {"b": "x\u0000"}]}', r"the text 'x\\x00' holds a NUL character\."),
        (r'{"\ud800x": 1}', r"the text '\\ud800x' holds half a surrogate pair\."),
        (r'{"a": "\udc00"}', "holds half a surrogate pair"),
    ],
)
def test_a_text_that_no_name_can_have_is_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        files.read_json_object(tmp_path / "x.json", "an object")


def test_texts_that_names_can_have_are_read(tmp_path):
    (tmp_path / "x.json").write_text(r'{"a": "\udce9\ud83d\ude00\u00e9 \\u0000"}')
    assert files.read_json_object(tmp_path / "x.json", "an object") == {"a": "\udce9😀é \\u0000"}


def test_json_lines_leave_a_torn_last_line_out(tmp_path):
    file = tmp_path / "x.jsonl"
    assert files.read_json_lines(file, "lines") == []
    file.write_text('{"a": 1}\n{"a"')
    assert files.read_json_lines(file, "lines") == [{"a": 1}]
    file.write_text('{"a": 1}\n7\n')
    with pytest.raises(UsageError, match="damaged in line 2: it is no JSON object"):
        files.read_json_lines(file, "lines")
    file.unlink()
    file.symlink_to("absent")
    with pytest.raises(UsageError, match="cannot be read as lines: No such file"):
        files.read_json_lines(file, "lines")
    with pytest.raises(UsageError, match="cannot be read as lines: File name too long"):
        files.read_json_lines(tmp_path / ("n" * 300), "lines")


@pytest.mark.parametrize("write", [files.check_target, lambda path: files.write_text(path, "new")])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent/x", "the directory .*absent does not exist"),
        ("folder", "is a folder"),
        ("fifo", "is no regular file"),
        ("n" * 300, "name too long"),
        ("file/x", "the directory .*file does not exist"),
        ("nul\0", "cannot be written"),
    ],
)
def test_an_impossible_target_is_refused(tmp_path, write, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match=f"(?i){message}") as caught:
        write(tmp_path / name)
    assert str(caught.value).count(str(tmp_path / name)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "file", "folder"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "x"
    file.write_text("old")

    def write(partial):
        partial.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UsageError, match="x cannot be written: No space left on device"):
        files.write_whole(file, write)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "old")]


def test_a_name_as_long_as_the_file_system_allows_is_written(tmp_path):
    file = tmp_path / ("n" * 255)
    files.check_target(file)
    files.write_text(file, "bytes that are no UTF-8: \udcff")
    assert file.read_text() == r"bytes that are no UTF-8: \udcff"


@pytest.mark.parametrize("use", [files.check_folder, files.make_folder])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "file is no folder"),
        ("file/new", "(?i)file is no folder|not a directory"),
        ("n" * 300, "(?i)name too long"),
        ("new/" + "n" * 300, "(?i)name too long"),
        ("nul\0", "cannot be written"),
    ],
)
def test_an_impossible_folder_is_refused(tmp_path, use, name, message):
    (tmp_path / "file").write_text("old")
    with pytest.raises(UsageError, match=message):
        use(tmp_path / name)


def test_a_name_that_is_too_long_is_no_folder(tmp_path):
    assert files.is_folder(tmp_path)
    assert not files.is_folder(tmp_path / ("n" * 300))


def test_a_folder_is_checked_without_being_made(tmp_path):
    files.check_folder(tmp_path / "a" / "b")
    assert not any(tmp_path.iterdir())
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")
    files.check_folder(tmp_path / "a" / "b")
    assert not any((tmp_path / "a" / "b").iterdir())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    def refuse(*arguments, **more):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files.Path, "touch", refuse)
    with pytest.raises(UsageError, match="cannot be written: Read-only file system"):
        files.check_folder(tmp_path / "new")
