"""The error that a user can correct, suggestions of near names, and the exit codes."""

import difflib
import enum
from collections.abc import Iterable


class ExitCode(enum.IntEnum):
    """Exit codes of the commands and of the processes that they start."""

    DONE = 0
    FAILED = 1
    """An unexpected error, or a run of a study that has failed."""
    BAD_INPUT = 2
    """A UsageError, or an image that cannot be read."""
    DIVERGED = 3
    """The loss was not finite."""
    PREEMPTED = 75
    """Stopped with the state saved, or another host is gone: the same command resumes."""
    INTERRUPTED = 130
    """Ctrl-C with no state to save: 128 and the number of SIGINT, as shells have it."""
    READER_GONE = 141
    """The reader of standard output has closed it: 128 and the number of SIGPIPE."""


class UsageError(ValueError):
    """The user asked for a thing that cannot be done as asked.

    The message is one sentence that says what was wrong, what is allowed and what to do; the
    command line prints it alone and exits with code 2.
    """


def installs(extra: str) -> str:
    """Returns the command that installs an extra of the package, for a message.

    The package is on no index: pip finds it in the folder of the repository alone.

    Args:
        extra: Its name in ``pyproject.toml``.

    Example:
        >>> installs("onnx")
        "pip install -c constraints.txt -e '.[onnx]' in the folder of the repository"
    """
    return f"pip install -c constraints.txt -e '.[{extra}]' in the folder of the repository"


_LISTED = 30
"""Names that a message lists at most."""


def choose(kind: str, name: str, valid: Iterable[str]) -> str:
    """Returns ``name`` if it is one of ``valid``.

    Args:
        kind: The kind of thing that is named, for the message: "gate", "model", ...
        name: The name asked for.
        valid: The names there are.

    Raises:
        UsageError: ``name`` is unknown; the message gives the nearest valid names.

    Example:
        >>> choose("gate", "tanh", ["sigmoid", "tanh"])
        'tanh'
        >>> choose("gate", "tahn", ["sigmoid", "tanh"])
        Traceback (most recent call last):
        senet_jax.errors.UsageError: unknown gate 'tahn': did you mean tanh?
    """
    valid = sorted(valid)
    if name in valid:
        return name
    spelled = {each.lower(): each for each in valid}
    near = difflib.get_close_matches(name.lower(), spelled, n=4, cutoff=0.5)
    near = [spelled[each] for each in near]
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif len(valid) <= _LISTED:
        hint = f"choose from {', '.join(valid)}."
    else:
        some = difflib.get_close_matches(name, valid, n=3, cutoff=0.0)
        hint = f"there are {len(valid)}, such as {', '.join(some)}."
    raise UsageError(f"unknown {kind} {name!r}: {hint}")


def require(holds: bool, field: str, value: object, allowed: str) -> None:
    """Checks a value of a config.

    Args:
        holds: The value is allowed.
        field: Its dotted name.
        value: The value.
        allowed: The allowed values, as "at least 1" or "in [0, 1)".

    Raises:
        UsageError: It is not.
    """
    if not holds:
        raise UsageError(f"{field} must be {allowed}, not {value}.")
