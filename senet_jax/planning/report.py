"""The findings of a dry run, as text."""

from collections.abc import Mapping

from jax.sharding import Mesh

from senet_jax.axes import BATCH_AXES
from senet_jax.planning.collectives import by_kind
from senet_jax.planning.dry_run import StepCost, bound
from senet_jax.text import columns
from senet_jax.training.machine.accelerators import ACCELERATORS, Accelerator, name_of_kind

USUAL = ("a100", "h100", "h200", "v5e", "v5p", "v6e")
"""Accelerators whose times are bounded if nothing else names some."""


def format_dry_run(step: StepCost, mesh: Mesh, accelerators: Mapping[str, Accelerator]) -> str:
    """Draws what a compiled step needs and how fast it can be.

    Args:
        step: The compiled step.
        mesh: Its mesh.
        accelerators: By name, for which its time is bounded; none means those that it was compiled
            for, and for virtual devices the ``USUAL`` ones.
    """
    own = name_of_kind(step.device_kind)
    names = accelerators or {name: ACCELERATORS[name] for name in ([own] if own else USUAL)}
    height, width, _ = step.image_shape
    data, fsdp = (mesh.shape[axis] for axis in BATCH_AXES)
    return "\n".join(
        [
            f"{step.batch // step.devices} images of {height}x{width} a device, mesh: data {data} "
            f"x fsdp {fsdp}, {step.dtype}",
            f"compiled for {step.device_kind} in {step.compile_s:.0f} s, not run",
            "",
            *columns([("memory of a device", "bytes"), *_memory(step)]),
            "",
            *columns([("a step of a device", "FLOPs"), *_arithmetic(step)]),
            "",
            *columns([("a step of a device", "times", "bytes"), *_traffic(step)]),
            "",
            *columns([_HEAD, *(_row(name, each, step) for name, each in names.items())]),
            "",
            *_notes(step),
        ]
    )


def _memory(step: StepCost) -> list[tuple[str, str]]:
    parts = {
        "arguments: state and images": step.arguments,
        "outputs": step.outputs,
        "... in the place of arguments": -step.aliased,
        "temporaries": step.temporaries,
        "program": step.code,
        "all": step.memory,
    }
    return [(name, f"{size:,}") for name, size in parts.items()]


def _arithmetic(step: StepCost) -> list[tuple[str, str]]:
    counts = {"all, by XLA": step.flops, "6 x MACs of the network": step.model_flops}
    return [(name, f"{count:,.0f}") for name, count in counts.items()]


def _traffic(step: StepCost) -> list[tuple[str, str, str]]:
    rows = [("memory, read or written", "", f"{step.bytes_accessed:,.0f}")]
    for kind, (count, size) in by_kind(list(step.collectives)).items():
        rows.append((f"{kind}, results", f"{count}", f"{size:,}"))
    return rows


_HEAD = (
    "at most",
    "memory",
    "",
    "step ms",
    "images/s",
    "MFU",
    "bound",
    "= compute",
    "memory",
    "network",
)


def _row(name: str, accelerator: Accelerator, step: StepCost) -> tuple[str, ...]:
    limit = bound(step, accelerator)
    return (
        name,
        f"{step.memory / accelerator.memory:.0%}",
        _fits(step, accelerator),
        f"{1e3 * limit.step:,.2f}",
        f"{limit.images_per_s:,.0f}",
        f"{limit.mfu:.0%}",
        limit.by,
        *(f"{1e3 * s:,.2f}" for s in (limit.compute, limit.memory, limit.network)),
    )


def _fits(step: StepCost, accelerator: Accelerator) -> str:
    if step.memory <= accelerator.memory * accelerator.usable:
        return "fits"
    return "may fit" if step.least_memory <= accelerator.memory else "too much"


def _notes(step: StepCost) -> list[str]:
    notes = [
        "No step is faster: all units at the peak of the data sheet, all at once. Real steps take "
        "longer.",
    ]
    if step.platform == "cpu":
        notes.append(
            "Memory and its traffic are those of a program for CPUs, and may be less or more on an "
            "accelerator, most of all for grouped convolutions on TPUs: --topology v5e:4x4 asks "
            "their own compiler."
        )
    if step.as_float32:
        notes.append(
            "CPUs compute bfloat16 as float32: temporaries may be half, and the bounds have half "
            "the traffic."
        )
    return notes
