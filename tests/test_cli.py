import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from senet_jax import cli
from senet_jax.commands.table import SUMMARIES
from senet_jax.interchange import load_arrays, load_stablehlo
from senet_jax.models import zoo
from senet_jax.models.resnet import SE, ResNet
from senet_jax.training import loop
from tests.tiny_runs import shared_run


def run(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, *arguments):
    """The one sentence of a command that is refused."""
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith("senet-jax: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--help"], [f"\n    {command}" for command in SUMMARIES]),
        (["train", "--help", "all"], ["--model.output-stride", "--model.attention.dilations"]),
        (["models", "--help"], ["--markdown"]),
    ],
)
def test_help_answers_at_once_and_without_jax(arguments, told):
    code = (
        "import sys; from senet_jax.cli import main\n"
        f"try: main({arguments})\n"
        "except SystemExit: pass\n"
        "assert not {'jax', 'flax', 'tensorflow'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [text for text in told if text not in done.stdout] == []


@pytest.mark.parametrize("command", SUMMARIES)
def test_every_command_has_examples(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"senet-jax {command} " in out
    assert "examples:" in out


def test_models_are_listed_with_their_costs(capsys):
    code, out, _ = run(capsys, "models", "cifar_*resnet20", "--json")
    assert code == 0
    rows = {row.pop("name"): row for row in json.loads(out)}
    assert rows["cifar_resnet20"] == {"params": 269_722, "macs": 40_551_040, "input_size": 32}
    assert set(rows) == {"cifar_resnet20", "cifar_seresnet20"}
    code, out, _ = run(capsys, "models", "resnet50")
    assert re.search(r"resnet50 +25,557,032 +4\.089 +224", out)


@pytest.mark.slow
def test_the_table_of_the_page_is_what_the_command_prints(capsys):
    _, out, _ = run(capsys, "models", "--markdown")
    page = Path(__file__).parents[1] / "senet_jax" / "models" / "README.md"
    assert out in page.read_text()


def test_a_pattern_without_a_match_is_refused(capsys):
    assert "no network matches 'resnet51'" in refused(capsys, "models", "resnet51")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dem"], "did you mean demo"),
        (["demo", "--model.name", "cifar_seresnet_8"], "did you mean cifar_seresnet8"),
        (["demo", "--data.name", "digit"], "did you mean digits"),
        (["demo", "--model.attention.gate", "sigmoyd"], "did you mean sigmoid"),
        (["demo", "--model.attention.squeeze", "avgg"], "did you mean avg"),
        (["demo", "--model.atention.gate", "tanh"], "did you mean --model.attention.gate"),
        (["demo", "--epoch", "3"], "did you mean --epochs"),
        (["demo", "--lr", "0.1"], "did you mean --optimizer.learning-rate"),
        (["demo", "--model.gate", "tanh"], "did you mean --model.attention.gate"),
        (["demo", "--data.batch-size", "12"], "cannot be divided over 8 devices: use 8 or 16"),
        (["demo", "--mesh.data", "9"], "there are 8"),
        (["demo", "--model.attention.reduction", "17"], "leaves no hidden channel of 16"),
        (["demo", "--model.stages", "2", "5"], "stage 5 does not exist"),
        (["demo", "--epochs", "0"], "epochs must be at least 1"),
        (["demo", "--optimizer.milestones", "3"], "schedule step"),
        (["--data.name", "cifar10", "--data.dir", "/nowhere"], "senet-jax prepare cifar10"),
        (["--data.name", "folder"], "--data.dir"),
        (["demo", "--run-dir", "/dev/null/run"], "cannot be written"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_sentence(
    capsys, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "train", *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["--epochs", "three"], ["--optimizer.name", "sdg"], ["--epochs"]]
)
def test_a_value_of_the_wrong_type_is_refused_with_the_field(capsys, arguments):
    code, _, err = run(capsys, "train", "demo", *arguments)
    assert code == 2
    assert arguments[0] in err


def test_preparing_an_unknown_set_is_refused(capsys):
    assert "did you mean cifar10" in refused(capsys, "prepare", "cifar11")


def test_evaluating_what_is_no_run_is_refused(capsys, tmp_path):
    assert "config.json" in refused(capsys, "evaluate", tmp_path)


BLOCK = {"blocks": (1,), "widths": (16,), "bottleneck": False, "attention": SE}
TINY = zoo.ZooEntry(ResNet, {**BLOCK, "stem": "cifar", "stem_width": 16}, 8)


def arguments_of(run_dir):
    flags = "--epochs 2 --model.name tiny --mesh.data 1 --data.batch-size 128"
    return ["train", "demo", "--run-dir", str(run_dir), *flags.split()]


@pytest.fixture
def tiny_run(monkeypatch, tmp_path, shared_programs):
    """The arguments of a run that takes seconds."""
    monkeypatch.setitem(zoo.ZOO, "tiny", TINY)
    return arguments_of(tmp_path / "run"), tmp_path / "run"


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The folder of such a run that has ended; it is only read."""
    run_dir = tmp_path_factory.mktemp("ended") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.ZOO, "tiny", TINY)
        patch.setattr(loop, "Run", shared_run)
        assert cli.main(arguments_of(run_dir)) == 0
    return run_dir


def test_train_evaluate_and_train_again(capsys, tiny_run):
    arguments, run_dir = tiny_run
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    last = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"top-1 {last['val/top1']:.2%} of 360 held-out images" in out
    assert re.search(r"tiny on digits: [\d,]+ parameters, [\d.]+ MMACs", out)
    assert "images/s" in out
    assert {path.name for path in run_dir.iterdir()} == {
        *(
            "config.json",
            "dataset.json",
            "checkpoints",
            "metrics.jsonl",
            "sessions.jsonl",
            "tensorboard",
            "curves.png",
            ".lock",
            "newest_checkpoint.json",
        )
    }
    assert (run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")

    code, out, _ = run(capsys, "evaluate", run_dir, "--json")
    assert code == 0
    assert json.loads(out)["val/top1"] == last["val/top1"]
    code, out, _ = run(capsys, "evaluate", run_dir / "checkpoints" / "22")
    assert code == 0
    assert f"step 22: top-1 {last['val/top1']:.2%} (" in out
    assert "of 360 held-out images" in out

    before = (run_dir / "metrics.jsonl").read_text()
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "the run has ended, with step 22 of 22" in out
    assert (run_dir / "metrics.jsonl").read_text() == before
    assert "epochs: 3, not 2" in refused(capsys, *arguments, "--epochs", "3")


@pytest.mark.usefixtures("tiny_run")
def test_a_run_is_converted_to_weights_that_are_evaluated(capsys, ended, tmp_path):
    run_dir = ended
    _, out, _ = run(capsys, "evaluate", run_dir, "--json")
    expected = json.loads(out)
    file = tmp_path / "digits.npz"
    code, out, _ = run(capsys, "convert", run_dir, "--out", file)
    assert code == 0
    assert f"{file}: the weights of tiny" in out
    code, out, _ = run(
        capsys, *("evaluate", "--weights", file, "--model", "tiny", "--data", "digits", "--json")
    )
    assert code == 0
    got = json.loads(out)
    assert {**got, "step": 22} == {**expected, "weights": str(file)}

    copy = tmp_path / "copy.safetensors"
    flags = ("--model", "tiny", "--num-classes", "10", "--channels", "1")
    code, _, _ = run(capsys, "convert", file, *flags, "--out", copy)
    assert code == 0
    a, b = load_arrays(file), load_arrays(copy)
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.usefixtures("tiny_run")
def test_a_run_and_its_weights_are_exported_for_other_runtimes(capsys, ended, tmp_path):
    run_dir = ended
    program, weights = tmp_path / "tiny.stablehlo", tmp_path / "tiny.npz"
    code, out, _ = run(capsys, "export", run_dir, "--format", "stablehlo", "--out", program)
    assert code == 0
    assert f"{program}: tiny of normalized float32 images (n, 8, 8, 1)" in out
    code, _, _ = run(capsys, "export", run_dir, "--format", "npz", "--out", weights)
    assert code == 0
    flags = ("--model", "tiny", "--num-classes", "10", "--channels", "1", "--image-size", "8")
    onnx = tmp_path / "tiny.onnx"
    code, _, _ = run(capsys, "export", weights, *flags, "--format", "onnx", "--out", onnx)
    assert code == 0
    images = np.random.default_rng(0).standard_normal((3, 8, 8, 1), np.float32)
    (logits,) = onnxruntime.InferenceSession(onnx).run(None, {"images": images})
    np.testing.assert_allclose(load_stablehlo(program)(images), logits, rtol=1e-4, atol=1e-5)
    wrong = tmp_path / "tiny.bin"
    said = refused(capsys, "export", run_dir, "--format", "npz", "--out", wrong)
    assert "ends in .npz" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate"], "either the folder of a run or --weights"),
        (["evaluate", "run", "--weights", "w.npz"], "either"),
        (["evaluate", "--weights", "w.npz"], "--model, and a data set"),
        (["convert", "w.npz"], "--model must say"),
        (["export", "w.npz", "--format", "onnx"], "--model must say"),
        (["convert", "w.npz", "--model", "resnet50"], "there is no such file"),
        (["convert", "w.npz", "--model", "resnet5"], "did you mean resnet50"),
    ],
)
def test_what_cannot_be_evaluated_or_converted_is_said(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_a_stopped_run_has_a_code_of_its_own_and_resumes(capsys, tiny_run, monkeypatch):
    arguments, _ = tiny_run

    def stop(step):
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", functools.partial(loop.train, on_step=stop))
        code, _, err = run(capsys, *arguments)
    assert code == 75
    assert "after step 1; the state is saved" in err
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "resuming after step 1 of 22" in out


def test_a_run_that_diverges_says_what_to_try(capsys, tiny_run):
    arguments, _ = tiny_run
    code, _, err = run(
        capsys, *arguments, "--optimizer.learning-rate", "1e30", "--optimizer.warmup-epochs", "0"
    )
    assert code == 3
    assert re.search(r"not finite at step \d+: try a lower --optimizer.learning-rate", err)


def test_the_module_runs_as_the_command_does():
    done = subprocess.run(
        [sys.executable, "-m", "senet_jax.cli", "models", "resnet51"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 2
    assert done.stderr.startswith("senet-jax: error: no network matches")
