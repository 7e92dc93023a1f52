"""The cost of a training step, from its compilation alone: nothing runs, no data is read.

The step is compiled for the accelerators of this machine if they suffice for the mesh; for a named
topology of TPUs by their own compiler, which needs none of them; else for as many virtual CPU
devices, whose compiler divides the work as the others do, but fuses less and computes bfloat16 as
float32.
"""

import contextlib
import dataclasses
import importlib.util
import os
import re
import time
from collections.abc import Sequence
from typing import Any

import jax

from senet_jax.config import TrainConfig
from senet_jax.data.card import Card, known_card
from senet_jax.data.scene_cards import known_scenes
from senet_jax.data.subset import training_share
from senet_jax.errors import UsageError, choose, installs
from senet_jax.models.configured import image_side
from senet_jax.models.cost import cost
from senet_jax.planning.collectives import Collective, read_collectives
from senet_jax.tasks.classification import Classification
from senet_jax.tasks.segmentation import Segmentation
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.machine.accelerators import Accelerator
from senet_jax.training.optimizer import check_schedule
from senet_jax.training.run import Run
from senet_jax.training.step import key_data

MOST_DEVICES = 1024
"""Virtual devices that are made at most; a larger mesh adds nothing but memory."""

TOPOLOGIES = ("v5e", "v5p", "v6e")
"""TPUs that are compiled for without one. A v4 chip would be two devices."""


@dataclasses.dataclass(frozen=True)
class StepCost:
    """XLA's account of a compiled training step; bytes and FLOPs are those of one device."""

    platform: str
    """The compiler's: "cpu", "gpu" or "tpu"."""
    device_kind: str
    devices: int
    dtype: str
    """Compute precision."""
    batch: int
    """Images of a step, over all devices."""
    image_shape: tuple[int, int, int]
    arguments: int
    """Bytes of the state, of the device's images and of the key."""
    outputs: int
    aliased: int
    """Bytes of the outputs that lie where arguments lay: the donated state."""
    temporaries: int
    code: int
    """Bytes of the program, which lies with the data on TPUs."""
    flops: float
    """XLA's count, which is of all arithmetic, that of rematerialisation too."""
    model_flops: float
    """Six for each multiply-accumulate of the network, two of the forward pass and four of the
    backward pass."""
    bytes_accessed: float
    """Bytes that the fusions of the program read and write, by XLA's count."""
    collectives: tuple[Collective, ...]
    compile_s: float

    @property
    def memory(self) -> int:
        """Bytes that a device needs."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code

    @property
    def least_memory(self) -> int:
        """The same, if a CPU's float32 temporaries are all of bfloat16 on the accelerator."""
        return self.memory - (self.temporaries // 2 if self.as_float32 else 0)

    @property
    def as_float32(self) -> bool:
        """Tells whether operations in bfloat16 were compiled as float32."""
        return self.platform == "cpu" and self.dtype == "bfloat16"


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least seconds of a step, by what must be done in it."""

    compute: float
    memory: float
    network: float
    images_per_s: float
    """Over all devices."""
    mfu: float
    """Share of the peak that the network's own arithmetic would use, 0 to 1."""

    @property
    def step(self) -> float:
        """The largest of the three, as if the others were done beside it."""
        return max(self.compute, self.memory, self.network)

    @property
    def by(self) -> str:
        """The name of the slowest of the three."""
        return max(("compute", "memory", "network"), key=lambda name: getattr(self, name))


def set_up(config: TrainConfig, topology: str | None) -> Run:
    """Sets up a run of which only the step is compiled; must come before jax is first used.

    Args:
        config: The experiment. ``mesh.data`` of None means all devices of the topology, or of the
            accelerators here, and without either 1.
        topology: TPUs, as "v5e:4x4"; None means this machine's accelerators or virtual devices.

    Raises:
        UsageError: Anything of the config that could not be trained, an unknown topology, or a
            mesh that is larger than it.
    """
    config.validate()
    devices = _devices(config, topology)
    if devices[0].platform == "cpu" and config.mesh.data is None:
        config = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, data=1))
    if config.conv_lowering is None:
        # The choice that is left open is made for the backend that traces, which is not the target.
        config = dataclasses.replace(config, conv_lowering="native")
    card = _published(config)
    known = training_share(card.stand_in(), config.data.fraction) if card else None
    run = Run(config, known, devices)
    meshes.check_batch_size(config.data.batch_size, run.mesh, config.accumulate)
    check_schedule(config.optimizer, run.batches.steps_per_epoch, config.epochs)
    return run


def _published(config: TrainConfig) -> Card | None:
    """The facts of a published data set, which need not be there; None of another."""
    if config.task == Classification.name:
        return known_card(config.data.name, image_side(config))
    if config.task == Segmentation.name:
        return known_scenes(config.data.name, config.data.crop.shape)
    return None


def _devices(config: TrainConfig, topology: str | None) -> Sequence[jax.Device]:
    if topology is not None:
        return _topology_devices(topology)
    count = (config.mesh.data or 1) * config.mesh.fsdp
    if count > MOST_DEVICES:
        raise UsageError(
            f"a mesh of {count} devices is compiled for {MOST_DEVICES} at most: lower --mesh.data; "
            "from there on the bytes of a device hardly change."
        )
    if _COUNT_FLAG not in os.environ.get("XLA_FLAGS", ""):
        # If jax has looked for devices already, those that it found must do.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", count)
    there = jax.devices()
    return there if len(there) >= count else jax.devices("cpu")


_COUNT_FLAG = "xla_force_host_platform_device_count"


def _topology_devices(topology: str) -> Sequence[jax.Device]:
    name, _, shape = topology.partition(":")
    choose("topology", name, TOPOLOGIES)
    if not re.fullmatch(r"\d+x\d+(x\d+)?", shape):
        raise UsageError(
            f"unknown topology {topology!r}: write the shape of the slice as {name}:4x4."
        )
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError(
            f"--topology needs the compiler for TPUs: {installs('tpu')}, into an environment of "
            "its own if this one trains on a GPU."
        )
    # libtpu would ask the cloud which TPU it is on and wait for an answer, and let no other process
    # of this machine compile beside this one.
    for variable, value in _NO_TPU.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    alone = {"chips_per_host_bounds": [1, 1, 1]} if set(shape.split("x")) == {"1"} else {}
    try:
        return topologies.get_topology_desc(topology, platform="tpu", **alone).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition(": ")[2].rstrip(".")
        raise UsageError(f"there is no topology {topology!r}: {reason}.") from error


_NO_TPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


def compile_step(run: Run) -> StepCost:
    """Compiles the training step of a run, for the largest of its image sizes.

    Raises:
        UsageError: The compiler finds that it does not fit the memory of the devices.
    """
    config, device = run.config, run.mesh.devices.flat[0]
    batch = config.data.batch_size
    forms = [run.abstract_batch(form) for form in range(len(run.batches.examples))]
    largest = max(forms, key=lambda arrays: arrays["image"].size)
    shape = largest["image"].shape[1:]
    began = time.perf_counter()
    lowered = run.programs.train.lower(run.abstract, largest, key_data(config.seed))
    # Code that is never run need not be good; the division of the work comes before.
    quick: dict[str, Any] = (
        {"xla_backend_optimization_level": 0} if device.platform == "cpu" else {}
    )
    try:
        compiled = lowered.compile(compiler_options=quick)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UsageError(_too_large(str(error), device.device_kind)) from error
    memory, counts, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    assert memory is not None, "every platform of XLA has an analysis"
    assert counts is not None
    assert text is not None
    macs = cost(run.model, max(shape[:2]), shape[2], run.programs.other_inputs).macs
    return StepCost(
        platform=device.platform,
        device_kind=device.device_kind,
        devices=run.mesh.size,
        dtype=config.model.dtype,
        batch=batch,
        image_shape=shape,
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=counts["flops"],
        model_flops=6 * macs * batch / run.mesh.size,
        bytes_accessed=counts["bytes accessed"],
        collectives=tuple(read_collectives(text)),
        compile_s=time.perf_counter() - began,
    )


def _too_large(message: str, kind: str) -> str:
    used = re.search(r"Used (\S+) of (\S+) hbm", message)
    amounts = f"{used[1]} of {used[2]}" if used else "more than there is"
    return (
        f"the step does not fit the memory of {kind}: it needs {amounts}; take a smaller "
        "--data.batch-size, --accumulate, --model.remat True, a larger --mesh.fsdp, or more "
        "devices."
    )


def bound(step: StepCost, accelerator: Accelerator) -> Bound:
    """The least time of a step on an accelerator, a roofline (Williams et al., 2009).

        compute   the larger count of FLOPs / FLOPs a second in the compute precision
        memory    bytes accessed / bytes a second of the memory
        network   sum of ``collective_seconds``
        step      the largest of the three

    It assumes that every unit runs at the peak of its data sheet and that all overlap perfectly, so
    that a real step takes longer. What it has of the program is what the compiler made of it: on
    the target's own compiler (a topology, or the accelerator itself) the bound is one; of a program
    for CPUs the bytes are those of another compiler's fusions, and half of them where bfloat16 was
    compiled as float32.

    Args:
        step: The compiled step.
        accelerator: The kind of each device of the mesh.
    """
    peak = accelerator.peak(step.dtype)
    accessed = step.bytes_accessed / (2 if step.as_float32 else 1)
    compute = max(step.flops, step.model_flops) / peak
    memory = accessed / accelerator.memory_bandwidth
    network = sum(collective_seconds(each, accelerator, step.devices) for each in step.collectives)
    seconds = max(compute, memory, network)
    return Bound(
        compute=compute,
        memory=memory,
        network=network,
        images_per_s=step.batch / seconds,
        mfu=step.model_flops / peak / seconds,
    )


def collective_seconds(each: Collective, accelerator: Accelerator, devices: int) -> float:
    """The least time of a collective of g devices, i of them in each of m nodes, g = i m.

    A gather must bring every device what the others have, (g - 1) / g of the whole: within a node
    over its links, between nodes each device its own i-th part over its network card. To sum and
    scatter is the same backwards, and a sum for all is both::

        seconds = passes * max((i - 1) / i * whole / link, (m - 1) / m * whole / i / network)

    with 2 passes for an all-reduce and 1 for all others, which is what rings reach on long
    messages (Thakur et al., 2005). Latencies are left out. A permutation sends its bytes once.
    """
    groups = each.groups or (tuple(range(devices)),)
    group = max(groups, key=len)
    if each.kind == "collective-permute":
        return each.times * each.bytes / accelerator.link
    nodes = len({device // accelerator.node for device in group})
    inside = len(group) / nodes
    whole = each.bytes * (len(group) if each.kind == "reduce-scatter" else 1)
    passes = 2 if each.kind == "all-reduce" else 1
    seconds = (inside - 1) / inside * whole / accelerator.link
    if nodes > 1:
        assert accelerator.network is not None, "a mesh is never larger than such a pod"
        seconds = max(seconds, (nodes - 1) / nodes * whole / inside / accelerator.network)
    return each.times * passes * seconds
