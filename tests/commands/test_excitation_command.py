import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from senet_jax.commands.excitation import WRITTEN, default_folder
from senet_jax.data.datasets import open_dataset
from senet_jax.inference.trained import restore_run
from senet_jax.interchange import load_arrays, save_weights
from senet_jax.models import zoo
from senet_jax.models.resnet import ResNet


def test_a_run_is_looked_into_and_all_is_written(command, digits, tmp_path):
    out = tmp_path / "out"
    flags = ("--remove", "--prune", 50, "--grad-cam", 3, 4, "--against", digits / "checkpoints/11")
    code, text, _ = command("excitation", digits, *flags, "--out", out, "--classes", 2, 7)
    assert code == 0
    names = ["depth", "gates", "grad_cam", "pruning", "removal"]
    files = {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    files |= {"gates.npz", "gates.csv", "pruning.csv", "removal.csv", "report.md"}
    assert {file.name for file in out.iterdir()} == files == {*WRITTEN}
    report = (out / "report.md").read_text()
    assert text.startswith(report)
    assert report.startswith(f"# Inside the gates of {digits} step 22\n\ntiny on digits\n")

    run, _, variables = restore_run(digits)
    val = open_dataset("digits").val
    pixels = np.float32((val.images / 255 - 0.305) / 0.376)
    logits, state = run.model.apply(variables, pixels, train=False, mutable=["intermediates"])
    gate = np.asarray(state["intermediates"]["stage2"]["block1"]["se"]["gate"][0])[:, 0, 0]
    arrays = load_arrays(out / "gates.npz")
    assert arrays["classes"].tolist() == [str(digit) for digit in range(10)]
    np.testing.assert_array_equal(arrays["count"], np.bincount(val.labels))
    for label in range(10):
        of_class = gate[val.labels == label]
        for kind, values in (("mean", of_class.mean(0)), ("std", of_class.std(0))):
            mine = arrays[f"stage2/block1/class_{kind}"][label]
            np.testing.assert_allclose(mine, values, atol=1e-5)
    assert f"| stage2/block1 | 16 | {gate.mean():.3f} | {gate.mean(0).std():.3f} |" in report
    error = 100 * (np.asarray(logits).argmax(1) != val.labels).mean()
    assert report.count(f"As it is, the network has {error:.2f} % error on") == 2
    rows = list(csv.DictReader((out / "pruning.csv").open()))
    assert [row["block"] for row in rows] == ["", *["stage2/block1"] * 5]
    assert float(rows[0]["top1_error"]) == pytest.approx(error)


def test_less_is_written_of_less_that_is_asked(command, digits, tmp_path):
    path, out = digits / "checkpoints" / "11", tmp_path / "out"
    picture = tmp_path / "seven.png"
    Image.fromarray(open_dataset("digits").val.images[0, ..., 0]).save(picture)
    out.mkdir()
    for name in ("removal.csv", "pruning.png", "report.tex"):
        (out / name).write_text("of an earlier look at other images")
    code, text, _ = command("excitation", path, "--limit", 40, "--grad-cam", picture, "--out", out)
    assert code == 0
    assert "Gates of 40 images" in text
    names = {file.name for file in out.iterdir()}
    assert names >= {"report.md", "grad_cam.png", "gates.npz", "report.tex"}
    assert not {"removal.csv", "pruning.csv", "pruning.png"} & names


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("runs/a.b", "a.b"),
        ("runs/demo/checkpoints/660", "demo-660"),
        ("weights/x.npz", "x"),
        ("hf-hub:owner/network", "network"),
    ],
)
def test_each_network_has_a_folder_of_its_own(source, name):
    assert default_folder(source) == Path("excitation") / name


def test_what_cannot_be_looked_at_is_said_in_a_sentence(refused, digits, tmp_path):
    file, study = tmp_path / "file", tmp_path / "study"
    file.write_text("")
    (study / "a").mkdir(parents=True)
    (study / "a" / "config.json").write_text("{}")
    for arguments, sentence in (
        ((), "give either the folder of a run or --weights."),
        ((digits, "--weights", "x.npz"), "give either the folder of a run or --weights."),
        ((digits, "--blocks", "stage2/block2"), "unknown block 'stage2/block2': did you mean"),
        ((digits, "--classes", "ten"), "unknown class 'ten': choose from 0, 1, 2, 3, 4"),
        ((digits, "--prune", "0"), "--prune: must be above 0 and below 100, not 0.0"),
        ((digits, "--limit", "0"), "--limit: must be at least 1, not 0"),
        ((digits, "--against", digits), "--against is what --grad-cam compares with: name images"),
        ((digits, "--grad-cam", "360"), "--grad-cam 360 does not exist: digits has held-out"),
        ((digits, "--grad-cam", "1", "cat.png"), "image files, not both."),
        ((digits, "--grad-cam", file), f"{file} cannot be read as an image: "),
        ((digits, "--grad-cam", *range(33)), "--grad-cam draws at most 32 images, not 33."),
        ((digits, "--out", file), f"{file} is no folder: give another name."),
        ((tmp_path / "no",), f"{tmp_path / 'no'} does not exist: name the folder of a run."),
        ((file,), f"{file} is not the folder of a run, which has a config.json."),
        ((study,), f"{study} is not a run but has some: name one of them, such as {study / 'a'}."),
    ):
        assert sentence in refused("excitation", *arguments)


def test_weights_without_attention_are_refused(refused, monkeypatch, tmp_path, random_variables):
    plain = zoo.ZooEntry(ResNet, PLAIN, 8)
    monkeypatch.setitem(zoo.ZOO, "plain", plain)
    file = tmp_path / "plain.npz"
    variables = random_variables(plain.build(), np.zeros((1, 8, 8, 1), np.float32), False)
    save_weights(file, "plain", variables, channels=1)
    sentence = refused("excitation", "--weights", file, "--model", "plain", "--data", "digits")
    assert f"{file} has no attention, so no gate to look at: give a network that" in sentence


PLAIN = {
    "blocks": (1,),
    "widths": (8,),
    "stem": "cifar",
    "stem_width": 8,
    "bottleneck": False,
    "num_classes": 10,
}
