"""Where the runs of a study go: one a device on accelerators, on a CPU as many as were measured."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence

from senet_jax.errors import UsageError

_ASK = "import jax, json; print(json.dumps([jax.default_backend(), jax.local_device_count()]))"


def places(at_once: int | None) -> Sequence[Mapping[str, str]]:
    """The places at which runs go on at once, each with the environment of its processes.

    Args:
        at_once: How many; None means one for each GPU, and 1 on a CPU or a TPU, whose devices one
            process takes together.

    Raises:
        UsageError: Less than one.
    """
    if at_once is not None and at_once < 1:
        raise UsageError(f"at_once must be at least 1, not {at_once}.")
    # In another process, because this one must not take the devices.
    done = subprocess.run([sys.executable, "-c", _ASK], stdout=subprocess.PIPE, check=True)
    backend, devices = json.loads(done.stdout.splitlines()[-1])
    if backend != "gpu":
        return [{}] * (at_once or 1)
    count = at_once or devices
    shared = -(-count // devices)
    memory = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / shared:.2f}"} if shared > 1 else {}
    return [{"CUDA_VISIBLE_DEVICES": str(place % devices), **memory} for place in range(count)]
