"""The presets as they are resolved.

After a wanted change, renew what is compared with: ``python -m tests.training.test_presets``.
"""

import json
from pathlib import Path

import pytest

from senet_jax.commands.train import EXAMPLES
from senet_jax.config import TrainConfig
from senet_jax.models.configured import build_model
from senet_jax.training.optimizer import make_schedule, scaled_to
from senet_jax.training.presets import PRESETS, preset

ROOT = Path(__file__).parents[2]
GOLDENS = Path(__file__).with_name("presets")


DEFAULTS = TrainConfig().to_json()


def text(name):
    """The differences of a preset to the defaults, so that a new field changes no file."""
    return json.dumps(given(preset(name).to_json(), DEFAULTS), indent=2) + "\n"


def given(values, defaults):
    return {
        field: given(value, defaults[field]) if isinstance(value, dict) else value
        for field, value in values.items()
        if value != defaults[field]
    }


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_it_was(name):
    assert text(name) == (GOLDENS / f"{name}.json").read_text()


def test_there_is_no_snapshot_without_a_preset():
    assert {path.stem for path in GOLDENS.iterdir()} == {*PRESETS}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_can_be_run(name):
    config = preset(name)
    config.validate()
    values = {"format": DEFAULTS["format"], **json.loads(text(name))}
    assert TrainConfig.from_json(values) == config
    build_model(config.model, num_classes=1000)
    assert config.run_dir == Path("runs") / name


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_told(name):
    assert f"\n  {name:<19}{preset(name).epochs:>5}  " in EXAMPLES


def rate(name, epoch, batch_size=None):
    """The learning rate of an epoch, of ten steps each."""
    config = preset(name)
    optimizer = scaled_to(config.optimizer, batch_size or config.data.batch_size)
    return float(make_schedule(optimizer, 10, config.epochs)(10 * epoch))


def test_the_rates_are_those_of_the_papers():
    # SENet, section 5.1.
    assert [rate("imagenet-senet", epoch) for epoch in (0, 29, 30, 60, 99)] == pytest.approx(
        [0.6, 0.6, 0.06, 0.006, 0.0006]
    )
    assert rate("imagenet-senet", 0, 256) == pytest.approx(0.15)
    # ResNeSt, section 4: 0.1 for 256 images, five epochs of warm-up.
    rates = [rate("imagenet-resnest", epoch) for epoch in (0, 5, 270)]
    assert rates == pytest.approx([0, 3.2, 0], abs=1e-6)
    assert rate("imagenet-mobile", 399) == pytest.approx(0.1)


def test_stages_of_progressive_resolution_divide_the_epochs():
    config = preset("imagenet-short")
    assert config.epochs % len(config.data.train_sizes) == 0


if __name__ == "__main__":
    for name in PRESETS:
        (GOLDENS / f"{name}.json").write_text(text(name))
