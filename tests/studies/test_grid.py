import dataclasses
import json
import typing
from pathlib import Path

import pytest

from senet_jax.attention import SqueezeExciteConfig
from senet_jax.command_line.study import Options, recipe
from senet_jax.config import TrainConfig
from senet_jax.errors import UsageError
from senet_jax.models.configured import build_model
from senet_jax.studies.grid import check_data, jobs, with_attention, with_model, without_attention
from senet_jax.training.presets import PRESETS, preset

BASE = TrainConfig()


def test_a_grid_has_every_config_and_seed_in_its_own_folder(tmp_path):
    cells = {"plain": without_attention(BASE), "tanh": with_attention(BASE, gate="tanh")}
    found = jobs(cells, tmp_path, range(2))
    assert [job.name for job in found] == [
        *("plain/seed0", "tanh/seed0"),
        *("plain/seed1", "tanh/seed1"),
    ]
    assert [job.config.seed for job in found] == [0, 0, 1, 1]
    assert found[3].config.run_dir == tmp_path / "tanh" / "seed1"
    assert build_model(found[0].config.model, 10).attention is None
    assert build_model(found[1].config.model, 10).attention.gate == "tanh"
    assert not any(job.done for job in found)


def test_cells_that_are_the_same_are_refused(tmp_path):
    cells = {"a": BASE, "sigmoid": with_model(BASE, placement="pre"), "b": BASE}
    with pytest.raises(UsageError, match="cells a and b are the same config"):
        jobs(cells, tmp_path, [0])


def test_a_folder_of_another_config_is_refused(tmp_path):
    folder = tmp_path / "a" / "seed0"
    folder.mkdir(parents=True)
    other = dataclasses.replace(BASE, label_smoothing=0.1)
    (folder / "config.json").write_text(json.dumps(other.to_json()))
    jobs({"a": BASE}, tmp_path, [0])  # The other run has made no step, and may be replaced.
    (folder / "newest_checkpoint.json").write_text('{"step": 1}')
    with pytest.raises(UsageError, match=r"label_smoothing.* of its own with --out"):
        jobs({"a": BASE}, tmp_path, [0])


def test_an_unknown_network_is_refused_before_anything_starts(tmp_path):
    vgg = with_model(BASE, name="vgg11_bn")
    with pytest.raises(UsageError, match="vgg11_bn has no attention"):
        jobs({"plain": vgg, "tanh": with_attention(vgg, gate="tanh")}, tmp_path, [0])
    with pytest.raises(UsageError, match=r"epochs must be at least 1"):
        jobs({"a": recipe(Options(epochs=0))}, tmp_path, [0])
    with pytest.raises(UsageError, match=r"batch_size must be at least 1"):
        jobs({"a": recipe(Options(batch_size=0))}, tmp_path, [0])
    assert not list(tmp_path.iterdir())


def test_missing_data_is_refused_unless_all_runs_have_ended(tmp_path):
    absent = dataclasses.replace(BASE.data, name="cifar10", dir=tmp_path / "nowhere")
    grid = jobs({"a": dataclasses.replace(BASE, epochs=1, data=absent)}, tmp_path, [0])
    with pytest.raises(UsageError, match="cifar10 is not in"):
        check_data(grid)
    grid[0].config.run_dir.mkdir(parents=True)
    (grid[0].config.run_dir / "metrics.jsonl").write_text(
        '{"step": 9, "epoch": 1, "val/top1": 0.5, "val/loss": 1, "val/count": 9}\n'
    )
    check_data(grid)


def test_a_run_is_done_after_the_validation_of_its_last_epoch(tmp_path):
    (job,) = jobs({"a": dataclasses.replace(BASE, epochs=2)}, tmp_path, [0])
    job.config.run_dir.mkdir(parents=True)
    metrics = job.config.run_dir / "metrics.jsonl"
    for line, done in (
        ({"epoch": 1, "val/top1": 0.5, "val/loss": 1, "val/count": 9}, False),
        ({"epoch": 2}, False),
        ({"epoch": 2, "val/top1": 0.5, "val/loss": 1, "val/count": 9}, True),
    ):
        with metrics.open("a") as file:
            file.write(json.dumps({"step": 9, **line}) + "\n")
        assert job.done is done
    metrics.write_text("null\n")
    with pytest.raises(UsageError, match=r"metrics\.jsonl is damaged in line 1"):
        _ = job.done


def test_a_recipe_that_is_scaled_down_keeps_its_shape():
    whole = recipe(Options(data="cifar10"))
    short = recipe(Options(data="cifar10", epochs=41, batch_size=64, fraction=0.5))
    assert whole.optimizer.milestones == (82, 123)
    assert short.optimizer.milestones == pytest.approx((20.5, 30.75))
    assert (short.epochs, short.data.batch_size, short.data.fraction) == (41, 64, 0.5)
    # For half the batch, half the rate.
    assert short.optimizer.base_batch == 128
    short.validate()
    assert recipe(Options(data="digits")).optimizer.warmup_epochs == 0.5
    assert recipe(Options(data="digits", epochs=3)).optimizer.warmup_epochs == pytest.approx(0.05)


@pytest.mark.parametrize("data", typing.get_args(typing.get_type_hints(Options)["data"]))
def test_every_data_set_has_a_recipe(data):
    config = recipe(Options(data=data, data_dir=Path("there"), epochs=3))
    config.validate()
    name = preset(data).data.name if data in PRESETS else data
    assert (config.data.name, config.data.dir) == (name, Path("there"))
    assert isinstance(build_model(config.model, 10).attention, SqueezeExciteConfig)
