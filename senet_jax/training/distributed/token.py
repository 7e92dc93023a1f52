"""The secret by which the hosts of one start recognise each other, and the proof of knowing it.

The first host draws a token for each start and leaves it in the folder of the run, which all hosts
see and which only the user may read. On a network drive another host may see it up to a minute
later, or still see that of an earlier start, so that the others read the file again for each try.
"""

import contextlib
import hmac
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from senet_jax.errors import UsageError
from senet_jax.files import os_reason, read_bytes, write_whole

TOKEN = "hosts-token.partial"
"""Name of the file in a run's folder. It is there only until all hosts have come together; a start
may leave a file with this suffix behind when it is killed."""

DIGEST_BYTES = NONCE_BYTES = 32
"""Sizes of a proof, which is an HMAC-SHA256, and of the number that it is for."""

SHORTEST = 16
"""Bytes that a token in a file of the user's own has at least."""

ReadToken = Callable[[], bytes | None]
"""Returns the token as the file holds it now, or None if there is none."""


def prove(token: bytes, role: str, listener: bytes, caller: bytes) -> bytes:
    """Computes the proof that one end of a connection knows the token.

    Args:
        token: The secret; it is never sent.
        role: The end that proves, "listener" or "caller", so that no end can echo the other's.
        listener: The random number that the listener drew for this connection.
        caller: The random number that the caller drew.

    Returns:
        ``DIGEST_BYTES`` bytes.
    """
    text = b" ".join((b"senet-jax", role.encode(), listener.hex().encode(), caller.hex().encode()))
    return hmac.digest(token, text, "sha256")


@contextlib.contextmanager
def token_of_start(folder: Path, file: Path | None, first: bool) -> Iterator[ReadToken]:
    """Gives the token while the hosts come together; afterwards nothing of it is left.

    Args:
        folder: The folder of the run. The first host makes it if need be, and removes it
            afterwards if it is still empty, so that a start that is refused leaves nothing.
        file: A file of the user's own that holds the token; None means one in the folder.
        first: This is the first host, which draws the token.

    Raises:
        UsageError: The folder cannot be written, or the user's file cannot be read or is too short.
    """
    if file is not None:
        token = _given(file)
        yield lambda: token
    elif first:
        with _made(folder):
            token = secrets.token_hex(NONCE_BYTES).encode()
            path = folder / TOKEN
            # Replaces that of an earlier start.
            write_whole(path, lambda partial: _write_private(partial, token))
            try:
                yield lambda: token
            finally:
                # Another start in the same folder may have put its own there.
                if _read(path) == token:
                    path.unlink(missing_ok=True)
    else:
        yield lambda: _read(folder / TOKEN)


def _given(file: Path) -> bytes:
    try:
        token = read_bytes(file).strip()
    except (OSError, ValueError) as error:
        why = os_reason(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"--hosts.token-file: {file} cannot be read: {why}.") from error
    if len(token) < SHORTEST:
        raise UsageError(
            f"--hosts.token-file: {file} must hold at least {SHORTEST} bytes, such as the output "
            "of `openssl rand -hex 32`, the same on all hosts."
        )
    return token


def _read(path: Path) -> bytes | None:
    try:
        return read_bytes(path) or None
    except OSError:
        # Not there yet, or just replaced; the caller tries again until its time is up.
        return None


def _write_private(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as opened:
        opened.write(data)


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes a folder, and afterwards removes what it made as far as it is empty."""
    try:
        absent = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {os_reason(error)}.") from error
    try:
        yield
    finally:
        # The run makes them again once nothing can be refused any more.
        with contextlib.suppress(OSError):
            for path in absent:
                path.rmdir()
