"""Divides the time of a training step among its parts: senet_jax against PyTorch, on a CPU.

    python -m experiments.benchmarks.where_time_goes --model cifar_seresnet20 --torch-python PYTHON

prints the milliseconds of the forward convolutions, of the gradients of their inputs and of their
kernels, and of all the rest (batch norms, activations, additions, the update), and then those of
each distinct convolution; and writes all of it to --out (JSON).

The whole step and its forward pass are measured as in the race, the sides in turns. XLA compiles a
step into one program, whose parts have no times of their own. So for senet_jax the three passes of
every distinct convolution are measured by themselves, in the form in which the network gives them
to XLA, and multiplied by the number of such convolutions; the rest is the difference to the whole.
For PyTorch, torch.profiler adds up the operators of a step. Its one operator for both gradients is
divided as the two are to each other when each is measured by itself. A convolution of a single
pixel (in SE) counts as rest, and the gradient of the images is not computed on either side.
"""

import collections
import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import linen as nn

from experiments.benchmarks.harness.contenders import (
    OURS,
    TORCH,
    Contender,
    JaxContender,
    TorchContender,
    TorchProcess,
    compete,
)
from experiments.benchmarks.harness.jobs import Job, find_jobs
from experiments.benchmarks.harness.measure import (
    RESULTS,
    Sampler,
    interleave,
    ratio,
    spread,
    table,
    warn_if_busy,
    write,
)
from senet_jax.ops.conv_forms import Geometry
from senet_jax.ops.conv_lowering import lowered
from senet_jax.training.machine.allocator import keep_freed_memory

Pass = Literal["forward", "input", "kernel"]
PASSES: tuple[Pass, ...] = ("forward", "input", "kernel")

RATIO = f"{OURS} / {TORCH}"
PART_COLUMNS = ("model", "part", f"{OURS} ms", f"{TORCH} ms", RATIO)
CONVOLUTION_COLUMNS = (
    "convolution",
    "count",
    "pass",
    f"{OURS} ms",
    f"{TORCH} ms",
    RATIO,
)
OPERATOR_COLUMNS = ("operator", f"{TORCH} ms")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Divide the time of a training step among its parts."""

    model: str = "cifar_seresnet20"
    """A name that `senet-jax models` lists."""
    batch: int | None = None
    """Images of a step; if None, the network's own number, as in the race."""
    size: int | None = None
    """Side of the images, pixels; if None, the network's own."""
    torch_python: str | None = None
    """A Python that has torch and timm; if None, only senet_jax is measured."""
    torch_options: tuple[Literal["channels_last"], ...] = ("channels_last",)
    """The layout of PyTorch."""
    pairs: int = 15
    """Rounds of measurements of the whole step and its forward pass."""
    repeats: int = 7
    """Rounds of measurements of each pass of a convolution."""
    sample_s: float = 1.0
    """Seconds of a measurement of the whole step, or those of one step if that is more."""
    out: Path = RESULTS / "where_time_goes.json"
    """The result."""


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution of a network."""

    images: tuple[int, int, int, int]
    """Shape of its input (n, h, w, c)."""
    kernel: tuple[int, int, int, int]
    """Shape of its kernel (kh, kw, c / groups, c2)."""
    geometry: Geometry
    needs_input_gradient: bool
    """False for the convolution of the network's images."""

    def __str__(self) -> str:
        _, height, width, channels = self.images
        rows, columns, _, features = self.kernel
        groups = f", {self.geometry.groups} groups" if self.geometry.groups > 1 else ""
        return (
            f"{height}x{width}, {channels} to {features}{groups}, {rows}x{columns}, "
            f"stride {self.geometry.strides[0]}"
        )


def convolve(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """A convolution in the form in which senet_jax gives it to XLA."""
    return lowered(
        x,
        kernel,
        geometry.strides,
        geometry.padding,
        rhs_dilation=geometry.dilation,
        feature_group_count=geometry.groups,
    )


def convolutions(job: Job) -> dict[Convolution, int]:
    """The distinct convolutions of a network on maps of several pixels, with their numbers."""
    found: collections.Counter[Convolution] = collections.Counter()
    model = job.build()
    inputs: list[Any] = []

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, nn.Conv) and args[0].shape[1:3] != (1, 1):
            layer: Any = context.module
            groups, x = layer.feature_group_count, args[0]
            (down, across), ((top, bottom), (left, right)) = layer.strides, layer.padding
            geometry = Geometry(
                (down, across), ((top, bottom), (left, right)), tuple(layer.kernel_dilation), groups
            )
            kernel = (*layer.kernel_size, x.shape[-1] // groups, layer.features)
            found[Convolution(x.shape, kernel, geometry, x is not inputs[0])] += 1
        return call(*args, **kwargs)

    def initialise(key: jax.Array, images: jax.Array) -> Any:
        inputs.append(images)
        with nn.intercept_methods(note):
            return model.init(key, images, train=True)

    shape = (job.batch, job.size, job.size, 3)
    jax.eval_shape(initialise, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    return dict(found)


def compiled_passes(convolution: Convolution) -> dict[Pass, Callable[[], jax.Array]]:
    """The three passes of a convolution, each compiled by itself, with random arrays."""
    geometry, rng = convolution.geometry, np.random.default_rng(0)

    def draw(shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape, np.float32))

    x, kernel = draw(convolution.images), draw(convolution.kernel)
    dy = draw(jax.eval_shape(lambda x, kernel: convolve(x, kernel, geometry), x, kernel).shape)

    def input_gradient(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: convolve(x, kernel, geometry), x)[1](dy)[0]

    def kernel_gradient(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: convolve(x, kernel, geometry), kernel)[1](dy)[0]

    functions: dict[Pass, Callable[..., jax.Array]] = {
        "forward": lambda x, kernel, dy: convolve(x, kernel, geometry),
        "input": input_gradient,
        "kernel": kernel_gradient,
    }
    arrays = (x, kernel, dy)
    return {
        name: functools.partial(jax.jit(function).lower(*arrays).compile(), *arrays)
        for name, function in functions.items()
    }


def measure_convolutions(
    settings: Settings, found: Mapping[Convolution, int], torch: TorchProcess | None
) -> list[dict[str, Any]]:
    """The times of each pass of each convolution on both sides, in turns: a row each."""
    rows = []
    for index, (convolution, count) in enumerate(found.items()):
        compiled = compiled_passes(convolution)
        for name in PASSES:
            if name == "input" and not convolution.needs_input_gradient:
                continue
            samplers: dict[str, Sampler] = {OURS: _sampler(_calls(compiled[name]))}
            if torch is not None:
                samplers[TORCH] = _sampler(functools.partial(_asked, torch, index, name))
            times = interleave(samplers, dict.fromkeys(samplers, settings.repeats))
            rows.append(
                {
                    "convolution": str(convolution),
                    "count": count,
                    "pass": name,
                    **{f"{side} ms": 1e3 * spread(each).median for side, each in times.items()},
                    RATIO: ratio(times[OURS], times[TORCH]) if torch is not None else None,
                }
            )
    return rows


CALLS_S = 0.1
"""Seconds of a measurement of a pass, or those of one call if that is more."""


def _sampler(seconds: Callable[[int], float]) -> Sampler:
    """Measures a call; ``seconds`` gives the seconds of a number of calls."""
    seconds(1)
    calls = max(1, math.ceil(CALLS_S / seconds(1)))
    return lambda: seconds(calls) / calls


def _calls(call: Callable[[], jax.Array]) -> Callable[[int], float]:
    def seconds(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            call().block_until_ready()
        return time.perf_counter() - began

    return seconds


def _asked(torch: TorchProcess, index: int, name: Pass, calls: int) -> float:
    torch.send([index, name, calls])
    return torch.receive()["seconds"]


def measure_wholes(settings: Settings, job: Job) -> dict[str, list[float]]:
    """Seconds of the step and of its forward pass on both sides in each round, by name."""
    contenders: dict[str, Contender] = {}
    for mode in ("train", "forward"):
        work = dataclasses.replace(job, mode=mode)
        if settings.torch_python is not None:
            peer = TorchContender(settings.torch_python, work, settings.torch_options)
            peer.wait()
            contenders[f"{TORCH} {mode}"] = peer
        contenders[f"{OURS} {mode}"] = JaxContender(work.build(), work)
    times = compete(contenders, settings.pairs, settings.sample_s)
    for contender in contenders.values():
        contender.close()
    return times


def divide(
    job: Job,
    wholes: Mapping[str, list[float]],
    rows: list[dict[str, Any]],
    operators: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """The parts of a step on both sides, a row each.

    Args:
        job: The training step.
        wholes: From ``measure_wholes``.
        rows: From ``measure_convolutions``.
        operators: From ``torch_parts.operators``; None if PyTorch takes no part.
    """
    sides = [OURS] if operators is None else [OURS, TORCH]
    parts: dict[str, dict[str, float]] = {}
    for side in sides:
        alone = {
            name: sum(row["count"] * row[f"{side} ms"] for row in rows if row["pass"] == name)
            for name in PASSES
        }
        if side == TORCH and operators is not None:
            both = 1e3 * operators["gradients_s"] / (alone["input"] + alone["kernel"])
            alone = {
                "forward": 1e3 * operators["forward_s"],
                "input": both * alone["input"],
                "kernel": both * alone["kernel"],
            }
        step = 1e3 * spread(wholes[f"{side} train"]).median
        forward = 1e3 * spread(wholes[f"{side} forward"]).median
        parts[side] = {
            "forward convolutions": alone["forward"],
            "input gradients of convolutions": alone["input"],
            "kernel gradients of convolutions": alone["kernel"],
            "forward: batch norms and the rest": forward - alone["forward"],
            "backward: batch norms, update and the rest": step
            - forward
            - alone["input"]
            - alone["kernel"],
            "whole step": step,
        }
    found: list[dict[str, Any]] = []
    for part in parts[OURS]:
        times = {side: parts[side][part] for side in sides}
        row: dict[str, Any] = {**dataclasses.asdict(job), "part": part}
        row |= {f"{side} ms": each for side, each in times.items()}
        row[RATIO] = times[OURS] / times[TORCH] if TORCH in times else None
        found.append(row)
    if TORCH in sides:
        found[-1][RATIO] = ratio(wholes[f"{OURS} train"], wholes[f"{TORCH} train"])
    return found


def run(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Measures each job of the network: rows of the parts, the convolutions and the operators."""
    parts: list[dict[str, Any]] = []
    layers: list[dict[str, Any]] = []
    by_operator: list[dict[str, Any]] = []
    for job in find_jobs([settings.model], ("train",), settings.batch, settings.size):
        found = convolutions(job)
        operators: dict[str, Any] | None = None
        torch: TorchProcess | None = None
        if settings.torch_python is not None:
            torch = TorchProcess(settings.torch_python, "torch_parts.py")
            torch.send(
                {
                    "job": dataclasses.asdict(job),
                    "options": settings.torch_options,
                    "convolutions": [dataclasses.asdict(each) for each in found],
                }
            )
            operators = torch.receive()
            by_operator += [
                {"model": job.model, "size": job.size, "operator": name, f"{TORCH} ms": 1e3 * each}
                for name, each in operators["operators"].items()
            ]
        rows = measure_convolutions(settings, found, torch)
        if torch is not None:
            torch.close()
        layers += [{"model": job.model, **row} for row in rows]
        parts += divide(job, measure_wholes(settings, job), rows, operators)
    return {"rows": parts, "convolutions": layers, "operators": by_operator}


def main() -> None:
    """Runs the benchmark."""
    settings = tyro.cli(Settings, description=__doc__)
    keep_freed_memory()
    if jax.default_backend() != "cpu":
        sys.exit("error: this benchmark is for CPUs; set JAX_PLATFORMS=cpu to run it on this one.")
    warn_if_busy()
    found = run(settings)
    write(settings.out, **found)
    tables = [table(found["convolutions"], CONVOLUTION_COLUMNS)]
    if found["operators"]:
        tables.append(table(found["operators"][:12], OPERATOR_COLUMNS))
    print("\n\n".join([*tables, table(found["rows"], PART_COLUMNS), str(settings.out)]))


if __name__ == "__main__":
    main()
