import json
import os

import jax
import numpy as np
import pytest
from PIL import Image

from senet_jax.data.class_names import IMAGENET_SYNSETS, readable
from senet_jax.data.datasets import open_dataset
from senet_jax.inference.trained import restore_run


@pytest.fixture
def images(tmp_path):
    """Five digits as PNG files, and what the set says they show."""
    val = open_dataset("digits").val
    folder = tmp_path / "digits"
    (folder / "more").mkdir(parents=True)
    for index in range(5):
        where = folder / "more" if index == 4 else folder
        Image.fromarray(val.images[index, ..., 0]).save(where / f"{index}.png")
    return folder


def test_predictions_are_the_most_probable_classes(command, digits, images):
    run, _, variables = restore_run(digits)
    pixels = open_dataset("digits").val.images[:5]
    pixels = np.float32((pixels / 255 - 0.305) / 0.376)
    expected = np.asarray(jax.nn.softmax(run.model.apply(variables, pixels, train=False)))
    code, out, err = command("predict", images, "--run", digits, "--json", "--top", 3)
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    names = [f"{images}/{name}" for name in ("0.png", "1.png", "2.png", "3.png", "more/4.png")]
    assert [line["image"] for line in lines] == names
    for line, p in zip(lines, expected, strict=True):
        top = np.argsort(-p, kind="stable")[:3]
        assert [said["class"] for said in line["classes"]] == [str(label) for label in top]
        got = [said["probability"] for said in line["classes"]]
        np.testing.assert_allclose(got, p[top], rtol=1e-4)

    code, out, _ = command("predict", images / "[01].png", "--run", digits, digits)
    assert code == 0
    best = lines[0]["classes"][0]
    expected = f"{names[0]}\n  {best['probability']:8.2%}  {best['class']}\n"
    assert out.startswith(expected)
    assert len(out.splitlines()) == 2 * 6


def test_a_photograph_that_is_reduced_to_a_digit_is_said(command, digits, tmp_path):
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "photo.png")
    code, _, err = command("predict", tmp_path / "photo.png", "--run", digits)
    assert code == 0
    assert err.endswith("30x40 pixels: images are reduced to the 8x8 grey pixels of digits.\n")


def test_exif_turns_images_if_asked(command, digits, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = open_dataset("digits").val.images[0, ..., 0]
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "upright.png")
    for flags, same in ((("--exif-orientation",), True), ((), False)):
        code, out, _ = command("predict", tmp_path, "--run", digits, "--json", *flags)
        assert code == 0
        turned, upright = (json.loads(line)["classes"] for line in out.splitlines())
        assert (turned == upright) == same


def test_hidden_files_of_a_folder_are_left_out(command, digits, images, caplog):
    (images / "._0.png").write_bytes(b"of macOS")
    os.mkfifo(images / "pipe.png")
    code, out, _ = command("predict", images, "--run", digits)
    assert code == 0
    assert out.count(".png\n") == 5
    assert "1 hidden (._0.png), 1 other than regular files (pipe.png)" in caplog.text


def test_names_are_printed_without_control_characters(command, digits, images):
    name = os.fsdecode(b"\xff\x1b[31m.png")
    (images / "0.png").rename(images / name)
    (images / "1.png").rename(images / "\a.png")
    (images / "\a.png").write_bytes(b"")
    code, out, err = command("predict", images, "--run", digits)
    assert code == 2
    assert f"{images}/\\udcff\\x1b[31m.png\n" in out
    assert err.startswith(f"senet-jax: {images}/\\x07.png cannot be read")


def test_what_is_no_image_is_named_and_the_rest_is_predicted(command, digits, images):
    bad = images / "bad.png"
    bad.write_bytes((images / "0.png").read_bytes()[:60])
    (images / "notes.txt").write_text("not taken of a folder")
    code, out, err = command("predict", images, "none.jpg", "--run", digits)
    assert code == 2
    assert out.count(".png\n") == 5
    first, second = err.splitlines()
    assert first.startswith(f"senet-jax: {bad} cannot be read as an image: ")
    assert second == "senet-jax: none.jpg cannot be read as an image: No such file or directory"


def test_what_cannot_be_predicted_is_said_in_one_sentence(refused, digits, images, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        ([images], "--run, or --weights"),
        ([images, "--weights", "w.npz"], "--weights need the network's name"),
        ([images, "--weights", "w.npz", "--model", "cifar_resnet20"], "10 classes and not Image"),
        ([images, "--weights", "w.npz", "--model", "resnet18"], "there is no such file"),
        ([tmp_path / "empty", "--run", digits], "has no images"),
        ([tmp_path / "*.jpg", "--run", digits], "no file matches"),
        ([images, "--run", tmp_path], "config.json"),
        ([images, "--run", digits, "--top", 0], "--top: must be at least 1"),
    ]:
        assert message in refused("predict", *arguments)


def test_synsets_have_words_and_other_classes_their_names():
    assert len(IMAGENET_SYNSETS) == 1000
    assert list(IMAGENET_SYNSETS) == sorted(IMAGENET_SYNSETS)
    # The ten of Imagenette, by their synsets in WordNet.
    known = {
        "n01440764": "tench",
        "n02102040": "English springer",
        "n02979186": "cassette player",
        "n03000684": "chain saw",
        "n03028079": "church",
        "n03394916": "French horn",
        "n03417042": "garbage truck",
        "n03425413": "gas pump",
        "n03445777": "golf ball",
        "n03888257": "parachute",
        "cat": "cat",
    }
    for name, words in zip(readable(list(known)), known.values(), strict=True):
        assert name.split(",")[0] == words
