import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from senet_jax.config import (
    AttentionOverrides,
    CheckpointConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    field_values,
)
from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.errors import UsageError
from senet_jax.training.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_json(name):
    config = dataclasses.replace(
        preset(name), model=ModelConfig(stages=(2, 3), attention=AttentionOverrides(gate="tanh"))
    )
    text = json.dumps(config.to_json())
    assert TrainConfig.from_json(json.loads(text)) == config


def test_a_config_from_before_a_field_existed_is_read():
    old = json.loads(Path(__file__).with_name("config_before_imagenet.json").read_text())
    assert "base_batch" not in old["optimizer"]
    assert "drop_block" not in old["model"]
    assert TrainConfig.from_json(old) == preset("cifar10")


def test_a_config_has_its_format_number_and_the_first_is_read():
    config = TrainConfig(mesh=MeshConfig(data=2))
    values = config.to_json()
    assert values["format"] == 3
    for later in ("format", "task", "mesh"):
        del values[later]
    values["checkpoint"]["best_metric"] = "val/top1"
    read = TrainConfig.from_json({**values, "devices": 2})
    assert read.task == "classification"
    assert (read.mesh, read.checkpoint.best_metric) == (MeshConfig(data=2), "val/top1")
    assert read.differences(config) == []


OLD_DEFAULTS = {
    "zero_init_last": False,
    "dropout": 0.0,
    "stochastic_depth": 0.0,
    "drop_block": 0.0,
    "norm_group": None,
    "remat": False,
}


@pytest.mark.parametrize("number", [1, 2])
def test_a_default_of_an_older_format_means_not_given(number):
    values = TrainConfig().to_json()
    values["format"] = number
    values["model"] |= OLD_DEFAULTS
    assert TrainConfig.from_json(values) == TrainConfig()
    values["model"] |= {"dropout": 0.2, "zero_init_last": True}
    assert TrainConfig.from_json(values).model == ModelConfig(dropout=0.2, zero_init_last=True)


def test_what_was_a_default_can_be_given():
    config = TrainConfig(model=ModelConfig(dropout=0.0, remat=False, drop_block=0.0))
    read = TrainConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert read == config
    assert read.model.dropout == 0.0
    assert "model.dropout: 0.0, not None" in read.differences(TrainConfig())


@pytest.mark.parametrize("number", [0, 4, "2", None, 1.5])
def test_a_config_of_an_unknown_format_is_refused(number):
    with pytest.raises(UsageError, match="reads the formats 1 to 3"):
        TrainConfig.from_json({**TrainConfig().to_json(), "format": number})


def test_missing_fields_of_the_architecture_are_their_defaults():
    config = TrainConfig(model=ModelConfig(name="cifar_resnet20"))
    values = config.to_json()
    for field in (
        "residual",
        "blocks",
        "widths",
        "fc_width",
        "stem",
        "bottleneck",
        "cardinality",
        "base_width",
        "stride_by",
        "growth_rate",
        "compression",
    ):
        del values["model"][field]
    assert TrainConfig.from_json(values) == config
    assert not TrainConfig.from_json(values).differences(config)


def test_differences_name_the_fields_and_not_the_folder(tmp_path):
    one = TrainConfig()
    other = dataclasses.replace(
        one, epochs=3, run_dir=tmp_path, optimizer=OptimizerConfig(learning_rate=0.2)
    )
    assert one.differences(one) == []
    assert one.differences(other) == ["epochs: 90, not 3", "optimizer.learning_rate: 0.1, not 0.2"]


@pytest.mark.parametrize(
    "values",
    [
        {"epochz": 3},
        {"epochs": "three"},
        {"model": {"nam": "x"}},
        {"data": {"augment": {"pad": 1.5}}},
    ],
)
def test_what_is_no_config_is_refused(values):
    with pytest.raises(UsageError, match="not the config of a run"):
        TrainConfig.from_json(values)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"seed": -1}, "seed"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"log_every_steps": 0}, "log_every_steps"),
        ({"data": DataConfig(batch_size=0)}, "data.batch_size"),
        ({"data": DataConfig(augment=AugmentConfig(cutout=-1))}, "data.augment.cutout"),
        ({"checkpoint": CheckpointConfig(keep_last=0)}, "checkpoint.keep_last"),
        ({"optimizer": OptimizerConfig(learning_rate=-0.1)}, "optimizer.learning_rate"),
        ({"optimizer": OptimizerConfig(base_batch=0)}, "optimizer.base_batch"),
        ({"optimizer": OptimizerConfig(patience=0)}, "optimizer.patience"),
        ({"optimizer": OptimizerConfig(max_drops=0)}, "optimizer.max_drops"),
        ({"optimizer": OptimizerConfig(schedule="plateau", decay=1.0)}, "plateau schedule"),
        ({"model": ModelConfig(drop_block=1.0)}, "model.drop_block"),
        ({"model": ModelConfig(stochastic_depth=-0.1)}, "model.stochastic_depth"),
        ({"model": ModelConfig(blocks=())}, "model.blocks must be one number or more"),
        ({"model": ModelConfig(widths=(8, 0))}, "model.widths"),
        ({"model": ModelConfig(cardinality=0)}, "model.cardinality must be at least 1"),
        ({"optimizer": OptimizerConfig(schedule="step")}, "milestones"),
        ({"optimizer": OptimizerConfig(milestones=(1,))}, "schedule step"),
    ],
)
def test_values_outside_their_range_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**fields).validate()


STEP = {"schedule": "step", "warmup_epochs": 2}


@pytest.mark.parametrize(
    ("fields", "optimizer", "message"),
    [
        ({}, {"clip_norm": -1}, "optimizer.clip_norm must be above 0, .*, not -1"),
        ({}, {"clip_norm": 0}, "optimizer.clip_norm"),
        ({}, {"momentum": 1.0}, "optimizer.momentum"),
        ({"epochs": 1}, {"warmup_epochs": 1}, "warmup_epochs must be below the 1 epochs"),
        ({"epochs": 3}, {"warmup_epochs": 5}, "warmup_epochs must be below the 3 epochs"),
        ({}, {**STEP, "milestones": (5, 5)}, "each later than the one before"),
        ({}, {**STEP, "milestones": (7, 5)}, "each later than the one before"),
        ({}, {**STEP, "milestones": (2, 5)}, "after the warm-up"),
        ({}, {**STEP, "milestones": (-5, 5)}, "optimizer.milestones must be .*each above 0"),
        ({"model": ModelConfig(norm_group=48)}, {}, "norm_group must divide the 128 images"),
        (
            {"model": ModelConfig(norm_group=64), "accumulate": 4},
            {},
            "norm_group must divide the 32 images .*128 in 4 parts.*, not 64",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(fields, optimizer, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**fields, optimizer=OptimizerConfig(**optimizer)).validate()


def test_values_that_just_go_together_are_taken():
    TrainConfig(
        epochs=3,
        accumulate=4,
        model=ModelConfig(norm_group=32),
        data=DataConfig(train_sizes=(8, 9, 10)),
        optimizer=OptimizerConfig(schedule="step", warmup_epochs=0.5, milestones=(0.6, 2.9)),
    ).validate()


def test_a_run_that_older_code_accepted_is_read():
    config = TrainConfig(epochs=1, optimizer=OptimizerConfig(warmup_epochs=1, clip_norm=0.0))
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_demo_can_be_as_short_as_one_epoch(epochs):
    dataclasses.replace(preset("demo"), epochs=epochs).validate()


def test_an_unknown_preset_gives_the_nearest():
    with pytest.raises(UsageError, match="did you mean demo"):
        preset("dem")


def test_every_leaf_has_a_name():
    names = field_values(TrainConfig())
    assert {"epochs", "model.attention.gate", "data.augment.pad", "optimizer.clip_norm"} <= {*names}


def test_the_cifar_preset_is_the_recipe_of_the_paper():
    config = preset("cifar10")
    steps_per_epoch = 50_000 // config.data.batch_size
    assert config.epochs * steps_per_epoch == pytest.approx(64_000, rel=2e-3)
    boundaries = [epoch * steps_per_epoch for epoch in config.optimizer.milestones]
    assert boundaries == pytest.approx([32_000, 48_000], rel=2e-3)


def test_the_config_is_read_without_jax():
    code = "import sys, senet_jax.config; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_address_that_orbax_cannot_write_to_is_refused():
    checkpoint = CheckpointConfig(dir="s3://bucket/run")
    with pytest.raises(UsageError, match="must be a folder or gs://"):
        TrainConfig(checkpoint=checkpoint).validate()
    TrainConfig(checkpoint=CheckpointConfig(dir="gs://bucket/run")).validate()
