"""Reads and writes files: only regular files, errors as one sentence, targets written atomically.

Every reader of this project goes through these functions, so that a damaged file, a FIFO or a full
disk ends in a ``UsageError`` and never in a traceback or a hang.
"""

import json
import os
import re
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from senet_jax.errors import UsageError
from senet_jax.text import printable

PathLike = str | os.PathLike[str]
MOST_NAME_BYTES, MOST_PATH_BYTES = 255, 4096
"""The limits of Linux and of nearly all of its file systems; the second counts a final NUL."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
"""The beginning of an address; a single letter is a drive of Windows."""


def read_bytes(path: PathLike) -> bytes:
    """Reads a regular file.

    A FIFO, a socket or a device is refused without waiting for it.

    Raises:
        OSError: The file cannot be read, or is no regular file. A caller that reads one image of
            many goes on with the others.
    """
    # O_NONBLOCK: to open a FIFO that nobody writes to would block for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is no regular file")
        return file.read()


def read_text(path: PathLike, kind: str = "text") -> str:
    """Reads a regular file of UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        kind: The content that is expected, for the message: "the config of a run", ...

    Raises:
        UsageError: The file cannot be read, or is not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read as {kind}: {os_reason(error)}.") from error
    except ValueError as error:  # UnicodeDecodeError, or a NUL in the path
        raise UsageError(f"{path} cannot be read as {kind}: {error}.") from error


def read_json(path: PathLike, kind: str) -> Any:
    """Reads a JSON file; arguments and errors as ``read_text``."""
    return parse_json(read_text(path, kind), f"{path} cannot be read as {kind}")


def read_json_object(path: PathLike, kind: str) -> dict[str, Any]:
    """Reads a JSON file that holds an object; arguments and errors as ``read_text``."""
    values = read_json(path, kind)
    if not isinstance(values, dict):
        raise UsageError(f"{path} cannot be read as {kind}: it holds no JSON object.")
    return values


def read_json_lines(path: PathLike, kind: str) -> list[dict[str, Any]]:
    """Reads a file with a JSON object a line.

    A last line without its line break is left out: a process was killed while it wrote it.

    Args:
        path: The file; one that does not exist has no lines. A link to nothing is refused: what it
            leads to may be on a disk that is not mounted.
        kind: As in ``read_text``.

    Raises:
        UsageError: The file cannot be read, or a line is no JSON object.
    """
    try:
        Path(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError):
        pass  # The reading says why.
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(read_text(path, kind).split("\n")[:-1], 1):
        place = f"{path} is damaged in line {number}"
        values = parse_json(text, place)
        if not isinstance(values, dict):
            raise UsageError(f"{place}: it is no JSON object.")
        lines.append(values)
    return lines


def parse_json(text: str, place: str) -> Any:
    """Parses JSON.

    Args:
        text: The JSON.
        place: The beginning of the message of an error, such as "FILE is damaged".

    Raises:
        UsageError: The text is no JSON, or holds a text with a NUL character or half a surrogate
            pair, which no file, folder or class has in its name.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: {error}.") from error
    # A JSON text has such a character only as an escape.
    if "\\u" in text:
        _check_texts(values, place)
    return values


def _check_texts(values: Any, place: str) -> None:
    left = [values]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str) and (found := _UNUSABLE.search(value)):
            character = "a NUL character" if found[0] == "\0" else "half a surrogate pair"
            shown = printable(value if len(value) <= 60 else f"{value[:60]}...")
            raise UsageError(f"{place}: the text '{shown}' holds {character}.")


_UNUSABLE = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
"""NUL, and the surrogates that do not stand for a byte, U+DC80 to U+DCFF, of the name of a file."""


def user_path(name: PathLike) -> Path:
    """The path on this machine that a user names; ``~`` and ``~user`` are expanded.

    Raises:
        UsageError: An address of a bucket, complete or with a slash missing, an unknown user, or a
            name that no file can have.
    """
    text = os.fspath(name)
    scheme, shown = _SCHEME.match(text), printable(text)
    if scheme:
        # pathlib has made one slash of two.
        raise UsageError(
            f"{shown} is no path on this machine: {scheme[1]}:// would be the address of a bucket, "
            "which only --checkpoint.dir takes; name a folder of this machine."
        )
    if not text:
        raise UsageError("the name of a file or folder is empty: leave it out, or give one.")
    if "\0" in text:
        raise UsageError(f"{text!r} is no name of a file: it has a NUL character.")
    try:
        path = Path(text).expanduser()
        # pathlib's exists() raises for a name that is too long.
        if len(os.fsencode(path)) >= MOST_PATH_BYTES:
            raise UsageError(
                f"{printable(text[:60])}... is too long for a path: {MOST_PATH_BYTES - 1:,} bytes "
                "at most."
            )
        for part in path.parts:
            if len(os.fsencode(part)) > MOST_NAME_BYTES:
                raise UsageError(
                    f"{printable(part[:60])}... is too long for the name of a file: "
                    f"{MOST_NAME_BYTES} bytes at most."
                )
        return path
    except UnicodeEncodeError as error:
        raise UsageError(f"{shown} is no name of a file: {error.reason}.") from error
    except RuntimeError as error:
        raise UsageError(
            f"{shown} cannot be found: there is no such user; if the name begins with a tilde, "
            "give its absolute path."
        ) from error


def user_address(name: str) -> str:
    """The folder or the bucket that a user names, gs://BUCKET/FOLDER; ``~`` is expanded.

    Raises:
        UsageError: As ``user_path``, or an address of another scheme, or without a bucket.
    """
    if re.match(r"gs://[^/]", name):
        return name
    if _SCHEME.match(name):
        raise UsageError(
            f"{printable(name)} must be a folder or gs://BUCKET/FOLDER: Orbax writes to no other "
            "kind of address; mount the bucket and give its folder."
        )
    return str(user_path(name))


def user_weights(name: str) -> str:
    """The file of weights, or the hf-hub:OWNER/REPOSITORY, that a user names; ``~`` is expanded.

    Raises:
        UsageError: As ``user_path``.
    """
    return name if name.startswith("hf-hub:") else str(user_path(name))


def check_target(path: PathLike) -> None:
    """Checks that a file can be written, by writing an empty one beside it.

    Commands call it before the work whose result goes into the file.

    Args:
        path: The file that will be written; one that exists will be replaced.

    Raises:
        UsageError: The directory does not exist or cannot be written, or the path is a folder, a
            device or a name that the file system refuses.
    """
    path = Path(path)
    _check_replaceable(path)
    _probe(path, _partial(path))


def check_folder(path: PathLike) -> None:
    """Checks that files can be written into a folder, which need not exist yet; makes nothing.

    Commands call it before the work whose results go into the folder.

    Args:
        path: The folder that ``make_folder`` will make.

    Raises:
        UsageError: The path or one above it is no folder, a name is refused by the file system, or
            the folder, or that in which it will be made, cannot be written.
    """
    path = Path(path)
    try:
        there = next(each for each in (path, *path.absolute().parents) if _is_there(each))
        for part in path.absolute().relative_to(there.absolute()).parts:
            # The file system refuses a name that is too long although nothing is there.
            _is_there(there / part)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    if not there.is_dir():
        raise UsageError(f"{there} is no folder: give another name.")
    _probe(path, _partial(there / "file"))


def is_folder(path: PathLike) -> bool:
    """Tells a folder from all else, also from a name that the file system refuses."""
    try:
        return Path(path).is_dir()
    except OSError:  # too long a name, or a folder above it that may not be read
        return False


def make_folder(path: PathLike) -> None:
    """Makes a folder, and those above it, if it is not there.

    Raises:
        UsageError: It cannot be made, or the path is no folder.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"{path} is no folder: give another name.") from error
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


def remove(path: PathLike) -> None:
    """Removes a file, if it is there.

    Raises:
        UsageError: It cannot be removed.
    """
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be removed: {os_reason(error)}.") from error


def write_whole(path: PathLike, write: Callable[[Path], object]) -> None:
    """Writes a file atomically: it appears complete or not at all.

    Args:
        path: The file; one that exists is replaced.
        write: Writes to the path that it is given.

    Raises:
        UsageError: As ``check_target``, or the disk is full.
    """
    path = Path(path)
    _check_replaceable(path)
    partial = _partial(path)
    try:
        write(partial)
        _synchronise(partial)
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {os_reason(error)}.") from error
    finally:
        _remove(partial)


def write_text(path: PathLike, text: str) -> None:
    """Writes text as UTF-8, atomically; errors as ``write_whole``.

    What UTF-8 cannot hold, a lone surrogate of a file's name, is escaped.
    """
    data = text.encode("utf-8", "backslashreplace")
    write_whole(path, lambda partial: partial.write_bytes(data))


def os_reason(error: OSError) -> str:
    """The operating system's reason, as a part of a sentence."""
    return (error.strerror or str(error) or type(error).__name__).rstrip(".")


def _check_replaceable(path: Path) -> None:
    try:
        if not path.parent.is_dir():
            raise UsageError(f"{path}: the directory {path.parent} does not exist.")
        if path.is_dir():
            raise UsageError(f"{path} is a folder: give the name of a file.")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is no regular file and is not replaced: give another name.")
        path.lstat()
    except FileNotFoundError:
        pass
    except UsageError:  # which is a ValueError
        raise
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _probe(path: Path, file: Path) -> None:
    """Makes and removes an empty file, and raises if that fails the error about ``path``."""
    try:
        file.touch()
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        _remove(file)


def _unwritable(path: PathLike, error: OSError | ValueError) -> UsageError:
    why = os_reason(error) if isinstance(error, OSError) else str(error)
    return UsageError(f"{path} cannot be written: {why}.")


def _partial(path: Path) -> Path:
    """A new name in the same folder; its length does not depend on that of the file."""
    return path.with_name(f".{uuid.uuid4().hex}.partial")


def _synchronise(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
