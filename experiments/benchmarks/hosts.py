"""Trains as one process and as several, and compares every bit of the state.

    python -m experiments.benchmarks.hosts
    python -m experiments.benchmarks.hosts --networks resnext --fsdp 1 4 --processes 1 2 4

Starts processes on this machine that together have so many virtual devices, each time the same
number: one process with all of them, then several with an equal share each. All take the same steps
on the handwritten digits, with an average of the weights. All have pools of as many threads, and
all use gloo collectives, even one process alone: else XLA adds in another order. Prints for each
network and mesh how many leaves of parameters, statistics, optimizer state and average are
bit-identical; exits with 1 if one is not. About a minute a run on 2 cores.
"""

import dataclasses
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro
from jax.experimental import multihost_utils

from senet_jax.config import MeshConfig, ModelConfig, OptimizerConfig, TrainConfig
from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.models import zoo
from senet_jax.models.resnet import SE, ResNet
from senet_jax.training.distributed.clusters import HostsConfig
from senet_jax.training.distributed.hosts import distributed_session, is_first
from senet_jax.training.distributed.mesh import path_name
from senet_jax.training.run import Run

Network = Literal["resnet", "seresnet", "resnext"]
GROUPED = "benchmark_resnext"
NAMES: dict[Network, str] = {
    "resnet": "cifar_resnet8",
    "seresnet": "cifar_seresnet8",
    "resnext": GROUPED,
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare one process with several."""

    networks: tuple[Network, ...] = ("resnet", "seresnet", "resnext")
    """The networks; the last has grouped convolutions, and SE as well."""
    fsdp: tuple[int, ...] = (1, 4)
    """Devices that share a state."""
    processes: tuple[int, ...] = (1, 2)
    """Numbers of processes; the first is what the others are compared with."""
    devices: int = 8
    """Devices of all processes together."""
    steps: int = 20
    """Steps of training."""
    hosts: HostsConfig = HostsConfig()
    """Makes this process one of those that train, with the first network and fsdp."""
    out: Path | None = None
    """The file that the process writes the state into."""


_GROUPED = zoo.ZooEntry(
    ResNet,
    {
        "blocks": (1, 1),
        "widths": (16, 32),
        "stem": "cifar",
        "stem_width": 16,
        "cardinality": 8,
        "base_width": 32,
        "attention": SE,
    },
    input_size=8,
)
"""A ResNeXt of two blocks with SE."""


def train(benchmark: Benchmark) -> None:
    """Trains as one of several processes; the first writes the state."""
    assert benchmark.out
    zoo.ZOO[GROUPED] = _GROUPED
    config = TrainConfig(
        epochs=benchmark.steps,
        model=ModelConfig(name=NAMES[benchmark.networks[0]]),
        data=DataConfig(name="digits", batch_size=64, augment=AugmentConfig(pad=1)),
        optimizer=OptimizerConfig(warmup_epochs=0.1),
        ema_decay=0.99,
        mesh=MeshConfig(fsdp=benchmark.fsdp[0]),
    )
    with distributed_session(benchmark.hosts, config.shared_facts(), benchmark.out.parent):
        run = Run(config)
        state = run.fresh_state()
        for _, batch in zip(range(benchmark.steps), run.device_batches(0), strict=False):
            state, metrics = run.train_step(state, batch)
            # Not further ahead: many queued collectives of virtual devices can block each other.
            jax.block_until_ready(metrics)
        leaves, _ = jax.tree_util.tree_flatten_with_path(state)
        arrays = {
            path_name(path): np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
            for path, leaf in leaves
        }
        if is_first():
            np.savez(benchmark.out, allow_pickle=False, **arrays)


def start(
    benchmark: Benchmark, network: Network, fsdp: int, processes: int, out: Path
) -> dict[str, np.ndarray]:
    """Starts the processes of one run and returns the state that they end with."""
    devices = benchmark.devices // processes
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        # Threads of a process, else the larger of its cores and its devices: by their number XLA
        # divides the sum of a kernel's gradient.
        "PJRT_NPROC": str(benchmark.devices),
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "experiments.benchmarks.hosts", "--networks", network),
        *("--fsdp", str(fsdp), "--steps", str(benchmark.steps), "--out", str(out)),
        *("--hosts.coordinator", f"127.0.0.1:{port}", "--hosts.count", str(processes)),
    ]
    started = [
        subprocess.Popen(
            [*command, "--hosts.index", str(index)], env=environment, stdout=subprocess.DEVNULL
        )
        for index in range(processes)
    ]
    codes = [process.wait() for process in started]
    if any(codes):
        sys.exit(f"the processes ended with the codes {codes}")
    with np.load(out) as arrays:
        return dict(arrays)


def main() -> None:
    """Runs the benchmark."""
    benchmark = tyro.cli(Benchmark, description=__doc__)
    if benchmark.out:
        train(benchmark)
        return
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        for network in benchmark.networks:
            for fsdp in benchmark.fsdp:
                states = [
                    start(benchmark, network, fsdp, processes, Path(folder) / "state.npz")
                    for processes in benchmark.processes
                ]
                first, count = states[0], benchmark.processes[0]
                for processes, state in zip(benchmark.processes[1:], states[1:], strict=True):
                    same = sum(first[name].tobytes() == state[name].tobytes() for name in first)
                    different += len(first) - same
                    print(
                        f"{network}, fsdp {fsdp}, {benchmark.steps} steps: {same} of {len(first)} "
                        f"leaves are bit-identical, {processes} x {benchmark.devices // processes} "
                        f"devices against {count} x {benchmark.devices // count}",
                        flush=True,
                    )
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
