import dataclasses
import gzip
import json

import jax
import pytest

from senet_jax.errors import UsageError
from senet_jax.training.loop import train
from senet_jax.training.records.profiler import Profiler, ProfileRequest


def events_by_trace(run_dir):
    """The events of each trace, by its folder."""
    files = (run_dir / "profile").glob("plugins/profile/*/*.trace.json.gz")
    return {
        file.parent.name: json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
        for file in files
    }


def test_the_trace_has_the_wanted_steps_and_no_checkpoint(tiny, capsys):
    # Checkpoints after 5, 10, 14, 15, 20, ... and an epoch of 14 steps.
    config = dataclasses.replace(tiny, log_every_steps=None)
    train(config, profile=ProfileRequest(steps=4, start=13))
    traces = events_by_trace(tiny.run_dir)
    steps = {
        name: [int(event["args"]["step_num"]) for event in events if event.get("name") == "train"]
        for name, events in traces.items()
    }
    # Not over the end of the epoch, nor the step behind it, which could compile, nor the save.
    assert steps == {"from_step_13": [13, 14], "from_step_16": [16, 17]}
    for events in traces.values():
        names = {event.get("name", "") for event in events}
        assert any("ExecuteHelper" in name or "Execute" in name for name in names)
        assert not any("_fingerprint" in name or "eval_step" in name for name in names)
    out = capsys.readouterr().out
    assert f"4 of 4 steps are profiled: xprof --logdir {tiny.run_dir / 'profile'}" in out


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ProfileRequest(-1), "--profile-steps must be at least 0, not -1"),
        (ProfileRequest(3, 29), "--profile-start must be from 1 to 28, not 29"),
        (ProfileRequest(0, 3), "--profile-start needs --profile-steps"),
    ],
)
def test_wrong_profiles_are_refused_before_anything_is_written(tiny, request_, message):
    with pytest.raises(UsageError, match=message):
        train(tiny, profile=request_)
    assert not tiny.run_dir.exists()


def test_a_trace_that_cannot_be_written_is_told(tmp_path, monkeypatch, caplog):
    def full():
        raise RuntimeError("RESOURCE_EXHAUSTED: No space left on device\nmore")

    monkeypatch.setattr(jax.profiler, "start_trace", lambda *arguments, **options: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", full)
    message = r"trace cannot be written to .*/profile: RESOURCE_EXHAUSTED: No space left on device;"

    def profile(end):
        with Profiler(tmp_path, ProfileRequest(2)) as profiler:
            profiler.start(1)
            end(profiler)

    for end in (lambda profiler: profiler.stop(2), lambda profiler: None):
        with pytest.raises(UsageError, match=message):
            profile(end)
    # The error that ended the run comes first.
    with pytest.raises(ZeroDivisionError):
        profile(lambda profiler: 1 / 0)
    assert "No space left on device" in caplog.text


def test_a_file_in_the_place_of_the_traces_is_refused(tmp_path):
    (tmp_path / "profile").touch()
    Profiler(tmp_path, ProfileRequest(0))
    with pytest.raises(UsageError, match="profile is no folder"):
        Profiler(tmp_path, ProfileRequest(1))
