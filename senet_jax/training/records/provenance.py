"""The origin of a checkpoint: the config, the code and its libraries, the devices."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import senet_jax
from senet_jax.config import TrainConfig
from senet_jax.training.records.run_dir import saved_config

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance(config: TrainConfig, mesh: Mesh) -> dict[str, Any]:
    """The origin that is written into a checkpoint, as plain values.

    Args:
        config: The run.
        mesh: The devices that it runs on.
    """
    return {
        "config": saved_config(config),
        "code": {
            "senet_jax": senet_jax.__version__,
            **commit(),
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "devices": {
            "kind": mesh.devices.flat[0].device_kind,
            "mesh": dict(mesh.shape),
            "hosts": jax.process_count(),
        },
    }


def commit() -> dict[str, Any]:
    """The commit of the checkout that this file is in, and whether files differ from it.

    Returns:
        "commit" and "changed"; nothing if the file is in no checkout.
    """
    here = Path(__file__)

    def git(*command: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *command], capture_output=True, text=True, cwd=here.parent
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # Installed into the environment of some other project, the code is not what git knows there.
    if git("ls-files", "--error-unmatch", here.name) is None:
        return {}
    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
    }
