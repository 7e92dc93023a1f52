import argparse
import importlib
from pathlib import Path

import pytest

from senet_jax import UsageError, cli
from senet_jax.command_line.arguments import address, count, number, path, weights
from senet_jax.command_line.flags import expand_paths
from senet_jax.command_line.parsers import command_parser
from senet_jax.config import CheckpointConfig, TrainConfig
from senet_jax.data.config import DataConfig
from senet_jax.errors import ExitCode
from senet_jax.ranges import Range

HUGE = str(2**63)


@pytest.mark.parametrize(
    ("command", "flag", "values"),
    [
        ("evaluate RUN", "--crop-pct", "nan inf 0 -1 1.01 1e-300 half"),
        ("evaluate RUN", "--image-size", f"0 -1 {HUGE} nan 1.5"),
        ("evaluate RUN", "--sizes", f"0 -224 {HUGE} inf"),
        ("evaluate RUN", "--batch-size", f"0 -1 {HUGE} nan"),
        ("evaluate RUN", "--workers", f"-1 {HUGE} 1e3"),
        ("evaluate RUN", "--devices", f"0 -1 {HUGE}"),
        ("predict IMAGE", "--top", f"0 -1 {HUGE} nan"),
        ("average RUN", "--last", f"0 -1 {HUGE}"),
        ("average RUN", "--bn-batches", f"0 -1 {HUGE}"),
        ("excitation RUN", "--limit", f"0 -1 {HUGE}"),
        ("excitation RUN", "--prune", "0 100 nan inf -5"),
        ("convert FILE", "--num-classes", f"0 -1 {HUGE} ten"),
        ("convert FILE", "--channels", f"0 -3 {HUGE}"),
        ("export FILE --format onnx", "--image-size", f"0 -1 {HUGE}"),
    ],
)
def test_numbers_out_of_range_are_refused(capsys, command, flag, values):
    for value in values.split():
        assert cli.main([*command.split(), f"{flag}={value}"]) == ExitCode.BAD_INPUT
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"argument {flag}: must be " in error
        assert ", not " in error


@pytest.mark.parametrize(
    ("command", "flag", "field", "values"),
    [
        ("predict IMAGE", "--run", "runs", ["a", "b"]),
        ("predict IMAGE", "--weights", "weights", ["a", "b"]),
        ("predict IMAGE", "--model", "model", ["resnet18", "resnet34"]),
        ("predict IMAGE", "--sizes", "sizes", [64, 96]),
        ("evaluate RUN", "--weights", "weights", ["a", "b"]),
        ("evaluate RUN", "--scales", "scales", [0.5, 1.5]),
        ("evaluate RUN", "--normalization", "normalization", ["dataset", "imagenet"]),
        ("excitation RUN", "--classes", "classes", ["cat", "dog"]),
        ("excitation RUN", "--blocks", "blocks", ["a", "b"]),
        ("excitation RUN", "--prune", "prune", [10.0, 20.0]),
        ("excitation RUN", "--grad-cam", "grad_cam", ["1", "2"]),
    ],
)
def test_a_flag_given_twice_has_both_values(command, flag, field, values):
    name, *rest = command.split()
    module = importlib.import_module(f"senet_jax.commands.{name}")
    first, second = map(str, values)
    for flags in ([flag, first, flag, second], [flag, first, second]):
        options = command_parser(name, "", module).parse_args([*rest, *flags])
        assert getattr(options, field) == values


def test_numbers_of_the_range_are_taken():
    assert count(1, 9)("9") == 9
    assert number(Range(0, 1))("0.5") == 0.5
    with pytest.raises(argparse.ArgumentTypeError, match="must be a whole number, at least 1"):
        count(1, 9)("1.5")


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_home_folder_is_written_in_full(home):
    assert path("~/run") == home / "run"
    assert path("a/~/b") == Path("a/~/b")
    assert address("~/run") == weights("~/run") == str(home / "run")
    assert address("gs://bucket/run") == "gs://bucket/run"
    assert weights("hf-hub:timm/x") == "hf-hub:timm/x"


@pytest.mark.parametrize("read", [path, address, weights])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gs:/bucket", "gs:/bucket"),
        ("s3://bucket", "s3://bucket"),
        ("gs://", "gs://"),
        ("~nobody-x/run", "there is no such user"),
        ("", "is empty"),
        ("a\0b", "has a NUL character"),
        ("a/" + "é" * 128, "too long for the name of a file: 255 bytes"),
        ("a/" * 2049, "too long for a path: 4,095 bytes"),
        ("\ud800", "is no name of a file: surrogates not allowed"),
        ("gs:/a\nb", r"gs:/a\\nb"),
    ],
)
def test_names_of_no_file_are_refused(read, name, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        read(name)


def test_only_checkpoints_lie_in_a_bucket():
    with pytest.raises(argparse.ArgumentTypeError, match="is no path on this machine"):
        path("gs://bucket/run")


@pytest.mark.parametrize("name", ["C:/data", "a:b", "x/gs:/y", "gs:x"])
def test_a_colon_alone_is_no_address(name):
    assert path(name) == Path(name)


def test_all_paths_of_a_config_are_written_in_full(home):
    config = TrainConfig(
        run_dir=Path("~/run"),
        data=DataConfig(dir=Path("~/data")),
        checkpoint=CheckpointConfig(dir="~/checkpoints"),
        init_weights="~/w.npz",
    )
    with pytest.raises(UsageError, match="run_dir must be a path that the system knows"):
        config.validate()
    config = expand_paths(config)
    config.validate()
    assert (config.run_dir, config.data.dir) == (home / "run", home / "data")
    assert config.checkpoint.dir == str(home / "checkpoints")
    assert config.init_weights == str(home / "w.npz")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--run-dir", "gs:/bucket/run"),
        ("--run-dir", "gs://bucket/run"),
        ("--data.dir", "gs://bucket/data"),
        ("--checkpoint.dir", "gs:/bucket/run"),
        ("--checkpoint.dir", "s3://bucket/run"),
        ("--init-weights", "gs://bucket/w.npz"),
    ],
)
def test_an_address_is_no_folder_of_a_run(capsys, monkeypatch, tmp_path, flag, value):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "demo", flag, value]) == ExitCode.BAD_INPUT
    err = capsys.readouterr().err
    assert "bucket" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
