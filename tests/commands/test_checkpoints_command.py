import json
import shutil

import pytest


@pytest.fixture
def run_dir(digits, tmp_path):
    """A run with the checkpoints 11 and 22."""
    return shutil.copytree(digits, tmp_path / "run")


def test_checkpoints_are_listed_with_what_they_are(command, run_dir):
    code, out, _ = command("checkpoints", run_dir)
    assert code == 0
    head, first, second = out.splitlines()
    assert head.split()[:3] == ["step", "epoch", "val/top1"]
    assert first.split()[:2] == ["11", "1"]
    assert "newest" in first
    assert "newest, best" in second
    assert second.count("whole") == 1
    assert "0.1.0" in second


@pytest.mark.parametrize("target", ["nowhere", "metadata"])
def test_a_link_that_leads_to_no_file_is_damage(command, run_dir, target):
    step = run_dir / "checkpoints" / "22"
    file = step / "meta" / "metadata"
    file.unlink()
    others = sum(path.stat().st_size for path in step.rglob("*") if path.is_file())
    file.symlink_to(target)
    code, out, _ = command("checkpoints", run_dir, "--json")
    assert code == 2
    whole, damaged = json.loads(out)
    assert (whole["state"], damaged["state"]) == ("whole", "damaged")
    assert damaged["size"] == others


def test_what_is_left_of_others_is_listed_too(command, run_dir):
    checkpoints = run_dir / "checkpoints"
    shutil.copytree(checkpoints / "22", checkpoints / "33.orbax-checkpoint-tmp")
    shutil.copytree(checkpoints / "22", run_dir / "checkpoints-damaged" / "22")
    code, out, _ = command("checkpoints", checkpoints, "--json")
    assert code == 0
    found = json.loads(out)
    assert [(entry["name"], entry["state"]) for entry in found] == [
        ("11", "whole"),
        ("22", "whole"),
        ("33.orbax-checkpoint-tmp", "partial"),
        ("22", "set aside"),
    ]
    sizes = {entry["size"] for entry in found[1:]}
    files = [file for file in (checkpoints / "22").rglob("*") if file.is_file()]
    assert sizes == {sum(file.stat().st_size for file in files)}
    meta = json.loads((checkpoints / "22" / "meta" / "metadata").read_text())
    assert meta["config"] == json.loads((run_dir / "config.json").read_text())
    assert {"jax", "flax", "orbax-checkpoint", "senet_jax"} <= meta["code"].keys()
    assert meta["devices"]["mesh"] == {"data": 1, "fsdp": 1}


def test_verifying_finds_what_is_damaged(command, run_dir):
    code, out, _ = command("checkpoints", run_dir, "--verify")
    assert (code, out.splitlines()[-1]) == (0, "2 of 2 have the numbers that were saved")
    meta = run_dir / "checkpoints" / "11" / "meta" / "metadata"
    values = json.loads(meta.read_text())
    values["fingerprint"]["step"] += 1
    meta.write_text(json.dumps(values))
    code, out, _ = command("checkpoints", run_dir, "--verify")
    assert code == 2
    assert "11: checkpoint" in out
    assert "its numbers are not those that were saved" in out
    assert out.splitlines()[-1] == "1 of 2 have the numbers that were saved"


def test_no_folder_and_no_checkpoints_are_said(refused, tmp_path):
    assert "is not there" in refused("checkpoints", tmp_path / "nowhere")
    assert "no checkpoints" in refused("checkpoints", tmp_path)


def test_a_file_has_no_checkpoints(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert "too long for the name of a file" in refused("checkpoints", tmp_path / ("n" * 300))
    for name in ("file", "file/x"):
        assert "no folder: give the folder of a run" in refused("checkpoints", tmp_path / name)


@pytest.mark.parametrize(
    "values", [{"code": [1]}, {"code": {"senet_jax": 3}}, {"saved": 7}, {"code": {"commit": []}}]
)
def test_damaged_metadata_are_listed_without_their_facts(command, run_dir, values):
    meta = run_dir / "checkpoints" / "11" / "meta" / "metadata"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | values))
    code, out, _ = command("checkpoints", run_dir)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["11", "22"]
