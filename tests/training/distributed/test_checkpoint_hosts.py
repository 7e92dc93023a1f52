"""Two processes on loopback that save and restore together."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax

from senet_jax.training.checkpoints.manager import Checkpoints
from senet_jax.training.checkpoints.snapshot import _digest
from senet_jax.training.distributed.mesh import make_mesh
from tests.training.distributed.checkpoint_host import abstract, divided, numbers, same


def start(index, port, folder):
    here = Path(__file__)
    flags = "--xla_force_host_platform_device_count=2"
    return subprocess.Popen(
        [sys.executable, here.with_name("checkpoint_host.py"), str(index), str(port), folder],
        cwd=here.parents[3],
        env={**os.environ, "PYTHONPATH": str(here.parents[3]), "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_hosts_save_together_read_together_and_decide_together(tmp_path):
    with Checkpoints(tmp_path / "single") as checkpoints:
        checkpoints.save(divided(numbers(7), make_mesh(2, 4)), {}, {})
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    hosts = [start(index, port, tmp_path) for index in range(2)]
    for host in hosts:
        out, err = host.communicate(timeout=300)
        assert host.returncode == 0, err
        assert json.loads(out.splitlines()[-1]) == {
            "of one process": True,
            "damaged for one": [3, True],
            "damaged for both": [2, True],
            "steps": [1, 2],
        }
    aside = tmp_path / "several-damaged"
    assert {path.name for path in aside.iterdir()} == {"3", "4"}
    # One process reads what two have written, on other meshes.
    checkpoints = Checkpoints(tmp_path / "several")
    for mesh in (make_mesh(1, 1), make_mesh(1, 8), make_mesh(4, 2)):
        assert same(checkpoints.restore(2, abstract(mesh)).state, 2)


def test_the_digest_of_a_divided_leaf_gathers_nothing():
    leaf = divided(numbers(1), make_mesh(1, 8)).params["w"]
    text = _digest.lower(leaf).compile().as_text()
    assert "[64,8" in text
    assert "[64,64" not in text
    whole = jax.numpy.asarray(numbers(1).params["w"])
    assert jax.device_get(_digest(leaf)) == jax.device_get(_digest(whole))
