import json

import numpy as np
import pytest

from experiments.benchmarks import same_bits
from experiments.benchmarks.same_bits import RUNS, differences
from senet_jax.command_line.flags import read_config
from senet_jax.command_line.help_pages import Description
from senet_jax.config import TrainConfig
from senet_jax.errors import UsageError
from senet_jax.training.presets import preset


def test_values_differ_by_a_bit_a_type_or_a_name():
    one = np.float32(1)
    before = {"a": one, "b": np.array([0.0]), "c": float("nan"), "d": 1, "only before": 0}
    now = {"a": np.nextafter(one, np.float32(2)), "b": np.array([-0.0]), "c": float("nan")}
    assert differences(before, {**now, "d": 1.0}) == ["a", "b", "d", "only before"]
    assert differences(before, dict(before)) == []


def test_times_are_no_results(tmp_path):
    lines = [{"step": 1, "train/loss": 0.5, "time/step_s": 0.1}, {"step": 2, "val/top1": 0.25}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert same_bits._metrics(tmp_path) == {
        "line 0, step": 1,
        "line 0, train/loss": 0.5,
        "line 1, step": 2,
        "line 1, val/top1": 0.25,
    }


def test_the_runs_have_flags_of_the_command_line(tmp_path):
    for name, text in RUNS.items():
        words = text.format(photographs=tmp_path).split()
        default = TrainConfig() if words[0].startswith("-") else preset(words.pop(0))
        read_config("senet-jax train", "", Description(name), default, words).validate()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"before": "HEAD", "runs": ("plane",)}, "unknown run 'plane': did you mean plain"),
        ({"before": "no-such-commit"}, "git cannot check no-such-commit out"),
    ],
)
def test_an_unknown_run_or_commit_is_refused(flags, message):
    with pytest.raises(UsageError, match=message):
        same_bits.main(same_bits.Options(**flags))
