"""A checkpoint says of which commit its code was, if git knows the code."""

import shutil
import subprocess

import pytest

from senet_jax.training.records import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A commit that has a copy of the module, from which the module then runs."""

    def git(*command):
        person = ("-c", "user.name=me", "-c", "user.email=me@here")
        done = subprocess.run(
            ["git", *person, *command], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    file = tmp_path / "provenance.py"
    shutil.copy(provenance.__file__, file)
    git("init", "-q")
    git("add", "provenance.py")
    git("commit", "-q", "-m", "Begin")
    monkeypatch.setattr(provenance, "__file__", str(file))
    return file, git


def test_the_commit_and_changes_of_files_are_said(checkout):
    file, git = checkout
    assert provenance.commit() == {"commit": git("rev-parse", "HEAD"), "changed": False}
    file.write_text("")
    assert provenance.commit()["changed"] is True


def test_a_commit_of_another_project_is_not_that_of_the_code(checkout):
    _, git = checkout
    git("rm", "-q", "--cached", "provenance.py")
    assert provenance.commit() == {}
