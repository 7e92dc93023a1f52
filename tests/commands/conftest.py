"""A trained run and weights that the tests of the commands share."""

import pytest

from senet_jax import cli
from senet_jax.models import zoo
from senet_jax.models.resnet import SE, ResNet

BLOCK = {"blocks": (1,), "widths": (16,), "bottleneck": False, "attention": SE}
TINY = zoo.ZooEntry(ResNet, {**BLOCK, "stem": "cifar", "stem_width": 16}, 8)


def _add_tiny(patch):
    """Adds a network that takes seconds, for images of 8 pixels."""
    patch.setitem(zoo.ZOO, "tiny", TINY)


@pytest.fixture(scope="session")
def add_tiny():
    """Adds that network to the zoo, by a ``MonkeyPatch``."""
    return _add_tiny


@pytest.fixture(autouse=True)
def zoo_with_tiny(monkeypatch):
    """In this folder alone: other tests count the networks that there are."""
    _add_tiny(monkeypatch)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A run on digits of two epochs; returns its folder."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    flags = "--epochs 2 --model.name tiny --mesh.data 1 --data.batch-size 128"
    with pytest.MonkeyPatch.context() as patch:
        _add_tiny(patch)
        assert cli.main(["train", "demo", "--run-dir", str(folder), *flags.split()]) == 0
    return folder


@pytest.fixture
def command(capsys):
    """Runs a command: exit code, standard output and standard error."""

    def run(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def refused(command):
    """The one sentence of a command that is refused."""

    def run(*arguments):
        code, _, err = command(*arguments)
        assert code == 2
        assert err.startswith("senet-jax: error: ")
        assert err.count("\n") == 1
        return err

    return run
