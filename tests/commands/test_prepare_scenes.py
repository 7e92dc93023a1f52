import numpy as np
import pytest
from PIL import Image

from senet_jax import cli
from senet_jax.errors import ExitCode
from tests.data.scene_folder import write_masks


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def prepare(capsys, *arguments):
    code = cli.main(["prepare", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_a_segmentation_set_is_read_and_described(tmp_path, capsys):
    written = write_masks(tmp_path, sizes=((6, 8), (8, 6)))
    code, out, _ = prepare(capsys, "masks", "--data-dir", tmp_path)
    assert code == 0
    labels = np.concatenate([label.ravel() for _, label in written["train"]])
    known = labels[labels != 255]
    assert (
        f"training: 4 scenes of 2 sizes, 6x6 to 8x8 pixels, {len(known) / len(labels):.1%} of them "
        "with a class" in out
    )
    share = f"{(known == 1).mean():.2%}"
    assert f"road     {share}" in out


def test_faults_of_a_segmentation_set_are_named(tmp_path, capsys):
    write_masks(tmp_path)
    Image.new("L", (8, 6), 7).save(tmp_path / "annotations/val/01.png")
    code, _, err = prepare(capsys, "masks", "--data-dir", tmp_path)
    assert code == ExitCode.BAD_INPUT
    assert "annotations/val/01.png has value 7 (48 pixels)" in err
    assert err.count("\n") == 1


def test_another_value_may_be_ignored(tmp_path, capsys):
    write_masks(tmp_path)
    arguments = ("masks", "--data-dir", tmp_path, "--ignore-label", 0)
    code, _, err = prepare(capsys, *arguments)
    assert code == ExitCode.BAD_INPUT
    assert "has value 255" in err
    assert "1 to 3 are the classes and 0 is ignored" in err
    code, _, err = prepare(capsys, "cifar10", "--ignore-label", 0)
    assert code == ExitCode.BAD_INPUT
    assert "--ignore-label is for the set masks" in err


def test_a_segmentation_set_is_not_built(tmp_path, capsys):
    write_masks(tmp_path)
    code, _, err = prepare(capsys, "masks", "--data-dir", tmp_path, "--manual-dir", tmp_path)
    assert code == ExitCode.BAD_INPUT
    assert "masks is not built: leave out --manual-dir" in err
