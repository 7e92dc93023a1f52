"""The devices of a run, in words."""

import os
from pathlib import Path

from jax.sharding import Mesh


def hardware(mesh: Mesh) -> str:
    """The devices of a run, such as "8 x NVIDIA H200"; of a CPU the cores that it may use."""
    kind = mesh.devices.flat[0].device_kind
    if kind != "cpu":
        return f"{mesh.devices.size} x {kind}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} x {processor() or kind}"


def processor() -> str | None:
    """The name of the CPU, if the system knows it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in fields if name.strip() == "model name"), None)
