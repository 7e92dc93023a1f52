import numpy as np
import pytest
from PIL import Image

from senet_jax import cli
from senet_jax.errors import ExitCode
from tests.data.photographs import write_photographs


def show(capsys, *arguments):
    code = cli.main(["show-data", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_it_draws_the_batch_of_a_step(capsys, tmp_path):
    file = tmp_path / "digits.png"
    code, out, _ = show(
        capsys,
        *("digits", "--images", 6, "--step", 4, "--out", file),
        *("--data.batch-size", 32, "--data.augment.cutmix", 1.0),
    )
    assert code == 0
    assert out == f"{file}: 6 of the 32 images of step 4 on digits, 8x8 pixels\n"
    assert np.asarray(Image.open(file)).std() > 50


def test_broken_images_are_named_and_odd_classes_drawn(capsys, tmp_path):
    write_photographs(tmp_path / "train", (2, 1, 1))
    write_photographs(tmp_path / "val", (1, 1, 1))
    for split in ("train", "val"):
        (tmp_path / split / "dog").rename(tmp_path / split / "$x^{$")
    broken = tmp_path / "train" / "cat" / "00.jpg"
    broken.write_bytes(b"")
    code, _, err = show(
        capsys,
        *("folder", "--data.dir", tmp_path, "--data.batch-size", 4, "--out", tmp_path / "x.png"),
        *("--data.image-size", 8, "--model.name", "cifar_resnet8"),
    )
    assert code == 0
    assert err == f"senet-jax: {broken} is replaced by another: the bytes are no image\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifar"], "did you mean cifar10"),
        (["demo", "--step", "-1"], "step must be at least 0"),
        (["demo", "--step", "660"], "step must be in [0, 660)"),
        (["demo", "--images", "0"], "images must be at least 1"),
        (["demo", "--image", "3"], "did you mean --images"),
        (["demo", "--out", "x.jpg"], "ends in .png"),
        (["demo", "--data.augment.lighting", "0.1"], "is for photographs"),
        (["demo", "--data.augment.mixup", "-1"], "data.augment.mixup must be 0, or at least 1e-06"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_sentence(
    capsys, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    code, _, err = show(capsys, *arguments)
    assert code == ExitCode.BAD_INPUT
    assert message in err
    assert err.count("\n") == 1
    assert not any(tmp_path.iterdir())
