"""The slots of the runs of a study: one on each GPU, or one on each core of a CPU, or fewer.

On 2 cores, two runs at once, each on a core of its own, trained 1.2 to 1.7 times as many images a
second as one after the other, and seeds mapped by ``vmap`` 0.6 times as many
(``experiments/benchmarks/seeds.py``; nothing was measured on GPUs).
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from senet_jax.errors import UsageError

_ASK = "import jax, json; print(json.dumps([jax.default_backend(), jax.local_device_count()]))"

MEMORY_OF_A_RUN = 4 * 2**30
"""Bytes that are reckoned for a run on a CPU, so that many cores do not fill the memory."""


@dataclasses.dataclass(frozen=True)
class Slot:
    """The part of the machine that one run at a time has."""

    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Environment of its process, such as ``CUDA_VISIBLE_DEVICES``."""
    cores: tuple[int, ...] = ()
    """Cores that it keeps to; empty means all."""


def slots(at_once: int | None) -> Sequence[Slot]:
    """The slots of the runs that go on at once.

    Args:
        at_once: Their number; fewer than GPUs or cores have several each. None means one for each
            GPU or for each core, as far as the memory goes, and 1 on a TPU, whose devices one
            process takes together.

    Raises:
        UsageError: Less than one.
    """
    if at_once is not None and at_once < 1:
        raise UsageError(f"at_once must be at least 1, not {at_once}.")
    # In another process, because this one must not take the devices.
    # In a session of its own, since it would print a traceback at Ctrl-C.
    done = subprocess.run(
        [sys.executable, "-c", _ASK], stdout=subprocess.PIPE, check=True, start_new_session=True
    )
    backend, devices = json.loads(done.stdout.splitlines()[-1])
    if backend == "cpu":
        return _on_cores(at_once)
    if backend != "gpu":
        return [Slot()] * (at_once or 1)
    return _on_gpus(at_once or devices, devices)


def _on_gpus(count: int, devices: int) -> Sequence[Slot]:
    """The same number of GPUs for each run; where there are more runs than GPUs, they share."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = given if len(given) == devices and all(given) else list(map(str, range(devices)))
    each, shared = max(1, devices // count), -(-count // devices)
    memory = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / shared:.2f}"} if shared > 1 else {}
    firsts = [n * each % devices for n in range(count)]
    return [
        Slot({"CUDA_VISIBLE_DEVICES": ",".join(names[first : first + each]), **memory})
        for first in firsts
    ]


def _on_cores(at_once: int | None) -> Sequence[Slot]:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    count = at_once or max(1, min(len(cores), memory // MEMORY_OF_A_RUN))
    if count == 1 or count > len(cores):
        return [Slot()] * count
    return [Slot(cores=tuple(cores[index::count])) for index in range(count)]
