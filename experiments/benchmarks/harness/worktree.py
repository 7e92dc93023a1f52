"""Another commit of this repository in a folder of its own."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from senet_jax.errors import UsageError

ROOT = Path(__file__).parents[3]
"""The source tree that this file lies in."""


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """Checks a commit out into a new folder, which is removed at the end.

    Raises:
        UsageError: The repository does not have the commit.
    """
    git = ["git", "-C", str(ROOT), "worktree"]
    command = [*git, "add", "--detach", "--quiet", str(folder), commit]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"git cannot check {commit} out: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)
