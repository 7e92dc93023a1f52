import csv
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from senet_jax import cli
from senet_jax.data.datasets import open_dataset
from senet_jax.data.views import ten_crop
from senet_jax.inference.trained import restore_run


def softmax(folder, images, which="last"):
    """Probabilities of digits by a run, by the definition."""
    run, _, variables = restore_run(folder, which)
    pixels = np.float32((images / 255 - 0.305) / 0.376)
    apply = jax.jit(lambda pixels: run.model.apply(variables, pixels, train=False))
    return np.asarray(jax.nn.softmax(apply(pixels)))


def evaluated(command, *arguments):
    code, out, _ = command("evaluate", *arguments, "--json")
    assert code == 0
    return json.loads(out)


def test_what_a_run_wrote_comes_out_again_with_the_errors_beside(command, digits):
    last = json.loads((digits / "metrics.jsonl").read_text().splitlines()[-1])
    result = evaluated(command, digits)
    assert result["step"] == 22
    for name in ("val/top1", "val/top5", "val/count"):
        assert result[name] == last[name]
    assert result["val/loss"] == pytest.approx(last["val/loss"], rel=1e-5)
    _, out, _ = command("evaluate", digits, "--devices", 1, "--batch-size", 50)
    wrong, wrong5 = (round(360 * (1 - last[f"val/top{k}"])) for k in (1, 5))
    assert f"step 22: top-1 {last['val/top1']:.2%} ({360 - wrong:,} of 360 held-out" in out
    assert f"\ntop-1 error {wrong / 3.6:.2f} % ({wrong:,} of 360 images)" in out
    assert f", top-5 error {wrong5 / 3.6:.2f} % ({wrong5:,} of 360 images)\n" in out


def test_runs_weights_sizes_and_ten_crops_are_averaged(command, digits, tmp_path):
    first = digits / "checkpoints" / "11"
    file = tmp_path / "digits.npz"
    command("convert", first, "--out", file)
    val = open_dataset("digits").val
    views = [np.stack([ten_crop(x, size, 0.75, "bicubic") for x in val.images]) for size in (6, 9)]
    expected = sum(
        softmax(path, size.reshape(-1, *size.shape[2:])).reshape(360, 10, 10).mean(1) / 4
        for path in (digits, first)
        for size in views
    )
    flags = ("--views", "ten-crop", "--sizes", 6, 9, "--crop-pct", 0.75, "--interpolation")
    flags = (*flags, "bicubic", "--batch-size", 400)
    result = evaluated(command, digits, file, "--model", "tiny", *flags)
    assert result["ensemble"] == [f"{digits} step 22", str(file)]
    assert result["val/top1"] == pytest.approx((expected.argmax(1) == val.labels).mean(), abs=0.006)
    loss = -np.log(expected[np.arange(360), val.labels]).mean()
    assert result["val/loss"] == pytest.approx(loss, rel=1e-5)


def test_other_labels_and_what_is_right_by_class(command, digits, tmp_path):
    val = open_dataset("digits").val
    said = softmax(digits, val.images).argmax(1)
    file, table = tmp_path / "labels.json", tmp_path / "classes.csv"
    file.write_text(json.dumps([*map(int, said[:300]), *[[]] * 60]))
    result = evaluated(command, digits, "--labels", file)
    assert (result["val/top1"], result["val/count"], result["unlabelled"]) == (1.0, 300, 60)

    file.write_text(json.dumps([*map(int, said[:180]), *((said[180:] + 1) % 10).tolist()]))
    _, out, _ = command("evaluate", digits, "--labels", file, "--per-class", table)
    assert "top-1 error 50.00 % (180 of 360 images)" in out
    rows = list(csv.DictReader(table.open()))
    right = np.bincount(said[:180], minlength=10)
    assert [int(row["right"]) for row in rows] == right.tolist()
    commonest = np.bincount(said[180:], minlength=10).argmax()
    confusion = f"{(said[180:] == commonest).sum()} times {(commonest + 1) % 10} taken for"
    assert f"{confusion} {commonest}\n" in out
    there = [label for label in range(10) if rows[label]["top1"]]
    worst = min(there, key=lambda label: (float(rows[label]["top1"]), label))
    assert f"worst classes:\n  {float(rows[worst]['top1']):7.2%} of" in out

    file.write_text(json.dumps([[int(x), (int(x) + 1) % 10] for x in said]))
    result = evaluated(command, digits, "--labels", file)
    assert result["val/top1"] == 1.0
    assert "val/loss" not in result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs of two classes and two sizes, one of them broken."""
    tmp_path = tmp_path_factory.mktemp("photographs")
    for split in ("train", "val"):
        for number in range(5):
            target = tmp_path / "data" / split / f"class{number % 2}"
            target.mkdir(parents=True, exist_ok=True)
            image = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), np.uint8)
            Image.fromarray(image).save(target / f"{number}.png")
    (tmp_path / "data" / "val" / "class0" / "2.png").write_bytes(b"no image")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def weights(add_tiny, folder, tmp_path_factory):
    """A network for that folder, untrained."""
    tmp_path = tmp_path_factory.mktemp("weights")
    train = (
        *("train", "--data.name", "folder", "--data.dir", folder, "--data.image-size", 16),
        *("--data.batch-size", 5, "--mesh.data", 1, "--epochs", 1, "--model.name", "tiny"),
        *("--optimizer.learning-rate", 0, "--run-dir", tmp_path / "run"),
    )
    with pytest.MonkeyPatch.context() as patch:
        add_tiny(patch)
        for command in (train, ("convert", tmp_path / "run", "--out", tmp_path / "w.npz")):
            assert cli.main([str(argument) for argument in command]) == 0
    return tmp_path / "w.npz"


def test_broken_photographs_are_named_and_all_others_counted(command, folder, weights):
    flags = ("--weights", weights, "--model", "tiny", "--data", "folder", "--data-dir", folder)
    code, out, err = command("evaluate", *flags, "--image-size", 16, "--views", "ten-crop")
    assert code == 0
    assert "of 4 held-out images" in out
    assert "top-5" not in out
    broken = str(folder / "val" / "class0" / "2.png")
    assert f"left out, because they cannot be read: {broken}" in out
    assert f"senet-jax: {broken} is left out: " in err
    run = evaluated(command, weights.parent / "run")
    assert run["unreadable"] == [broken]
    assert run["val/count"] == 4


def test_what_cannot_be_evaluated_is_said_in_one_sentence(
    command, refused, digits, folder, weights, tmp_path
):
    tiny, other = ("--model", "tiny"), tmp_path / "other"
    shutil.copytree(folder, other)
    for split in ("train", "val"):
        (other / split / "class1").rename(other / split / "class2")
    labels = tmp_path / "labels.json"
    labels.write_text("[0, 1]")
    for arguments, message in [
        ([digits, "--labels", labels], "labels of 2 images, and the split has 360"),
        ([digits, "--labels", tmp_path / "none.json"], "cannot be read as labels"),
        ([digits, "--sizes", 8, "--image-size", 8], "give one of them"),
        ([digits, "--crop-pct", 1.5], "--crop-pct: must be at least 0.01 and at most 1, not 1.5"),
        ([digits, "--image-size", 0], "--image-size: must be at least 1"),
        ([digits, "--batch-size", 0], "--batch-size: must be at least 1"),
        ([digits, "--workers", -1], "--workers: must be at least 0"),
        ([digits, "--devices", 9], "there are 8"),
        (
            [digits, "--per-class", tmp_path / "no" / "c.csv"],
            f"the directory {tmp_path / 'no'} does not",
        ),
        ([digits, "--data", "folder", "--data-dir", folder, "--image-size", 8], "3 channel(s)"),
        ([weights.parent / "run", "--data-dir", other], "has other classes than"),
        ([digits, weights.parent / "run"], "say which to evaluate on with --data"),
        ([digits, weights], "--model"),
        ([digits, weights, *tiny, "tiny"], "once for each of the 1 files"),
        ([digits / "checkpoints" / "7"], r"has no checkpoint 7: there are [11, 22]"),
    ]:
        assert message in refused("evaluate", *arguments)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a\0b", *"123456789"], r"the text 'a\x00b' holds a NUL character."),
        (["\ud800", *"123456789"], r"the text '\ud800' holds half a surrogate pair."),
        ([*"0123456788"], "classes must differ, and '8' stands twice."),
    ],
)
def test_classes_that_no_data_set_has_are_refused(refused, digits, tmp_path, classes, message):
    run = shutil.copytree(digits, tmp_path / "run")
    values = json.loads((run / "dataset.json").read_text())
    (run / "dataset.json").write_text(json.dumps(values | {"classes": classes}))
    for command in (
        ("report", run, "--out", tmp_path / "out"),
        ("evaluate", run),
        ("predict", "image.png", "--run", run),
    ):
        said = refused(*command)
        assert "dataset.json cannot be read" in said
        assert message in said


@pytest.mark.parametrize(
    ("baseline", "message"),
    [("a\0b", "holds a NUL character"), ("\ud800", "holds half a surrogate pair")],
)
def test_a_study_without_a_readable_baseline_is_refused(
    refused, digits, tmp_path, baseline, message
):
    shutil.copytree(digits, tmp_path / "study" / "run")
    (tmp_path / "study" / "study.json").write_text(json.dumps({"baseline": baseline}))
    said = refused("report", tmp_path / "study", "--out", tmp_path / "out")
    assert "study.json cannot be read as what a study says of itself: the text " in said
    assert message in said


def test_a_run_is_converted_and_predicts_without_its_data(command, folder, weights, tmp_path):
    run = weights.parent / "run"
    image = folder / "train" / "class1" / "1.png"
    shutil.copy(image, tmp_path / "kept.png")
    gone = folder.rename(folder.with_name("gone"))
    code, out, _ = command("predict", tmp_path / "kept.png", "--run", run)
    assert code == 0
    assert {line.split()[1] for line in out.splitlines()[1:]} == {"class0", "class1"}
    assert command("convert", run, "--out", tmp_path / "again.npz")[0] == 0
    gone.rename(folder)
