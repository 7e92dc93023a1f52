"""The whole set on one GPU in under eight minutes: bfloat16, batch 256.

    PYTHONPATH=. python -m experiments.benchmarks.gpu --out gpu.json

races the training steps of four networks against timm in PyTorch (channels-last, AMP in bfloat16,
``torch.compile``) and against plain Flax, measures what SE and ECA cost, and then every lowering of
a convolution against the native one. Prints tables and writes all of it to --out after each part.
Needs jax, flax, optax and jaxtyping, and torch and timm in --torch-python; what the time does not
suffice for is left out and listed as skipped. --tiny tries it all on a CPU.
"""

import argparse
import dataclasses
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

# PyTorch runs beside jax and needs its part of the memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.benchmarks.contenders import (
    COLUMNS,
    OURS,
    PLAIN_FLAX,
    TIMM,
    Contender,
    JaxContender,
    Job,
    TorchContender,
    TorchOption,
    check_same_network,
    compete,
    race_rows,
)
from experiments.benchmarks.measure import Sampler, interleave, ratio, spread, table, write
from experiments.benchmarks.plain_flax import PLAIN
from experiments.benchmarks.se_overhead import COLUMNS as OVERHEAD_COLUMNS
from experiments.benchmarks.se_overhead import compare
from senet_jax.ops.conv_forms import Geometry
from senet_jax.ops.conv_lowering import FORMS, Form, Lowering


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large everything is."""

    models: tuple[str, ...] = ("resnet50", "seresnet50", "seresnext101_32x4d", "resnest50d")
    variants: tuple[str, ...] = ("resnet50", "seresnet50", "resnet50+eca")
    """The network without attention, then those with it."""
    batch: int = 256
    size: int = 224
    dtype: str = "bfloat16"
    torch_options: tuple[TorchOption, ...] = ("channels_last", "amp", "compile")
    pairs: int = 15
    sample_s: float = 0.4
    convolutions: tuple[tuple[int, int, int, int], ...] = (
        (56, 128, 128, 32),
        (28, 256, 256, 32),
        (14, 512, 512, 32),
        (7, 1024, 1024, 32),
        (56, 64, 128, 2),
        (14, 256, 512, 2),
    )
    """3x3 convolutions of ResNeXt-101 32x4d and ResNeSt-50: side, channels in and out, groups."""


TINY = Scale(
    models=("resnest14d",),
    variants=("resnet10t", "resnet10t+se"),
    batch=2,
    size=32,
    dtype="float32",
    torch_options=(),
    pairs=2,
    sample_s=0.0,
    convolutions=((8, 16, 16, 4),),
)

LOWERINGS: tuple[Lowering, ...] = ("native", "chunked")
"""Forms of a grouped convolution in ``ops.conv_lowering``; the first divides the others."""

LOWERING_COLUMNS = ("convolution", "lowering", "ms", "this / native", "compile s", "temp MiB")


def geometry(groups: int) -> Geometry:
    """That of the 3x3 convolutions that are compared."""
    return Geometry(padding=((1, 1), (1, 1)), groups=groups)


def compare_lowerings(scale: Scale, shape: tuple[int, int, int, int]) -> list[dict[str, Any]]:
    """Forward and backward of one convolution under every lowering, one row each."""
    side, channels, features, groups = shape
    rng = np.random.default_rng(0)

    def draw(*sides: int) -> Array:
        return jnp.asarray(rng.standard_normal(sides, np.float32), scale.dtype)

    x = draw(scale.batch, side, side, channels)
    cotangent = draw(scale.batch, side, side, features)
    kernel = draw(3, 3, channels // groups, features)
    rows: dict[str, dict[str, Any]] = {}
    samplers: dict[str, Sampler] = {}
    for name in LOWERINGS:

        def both(x: Array, kernel: Array, form: Form = FORMS[name]) -> Any:
            y, back = jax.vjp(lambda x, kernel: form(x, kernel, geometry(groups)), x, kernel)
            return y, back(cotangent)

        began = time.perf_counter()
        compiled: Any = jax.jit(both).lower(x, kernel).compile()
        rows[name] = {
            "convolution": f"{side}x{side}, {channels} to {features}, {groups} groups",
            "lowering": name,
            "compile s": time.perf_counter() - began,
            "temp MiB": compiled.memory_analysis().temp_size_in_bytes / 2**20,
        }

        def sample(compiled: Any = compiled, repeats: int = 10) -> float:
            began = time.perf_counter()
            for _ in range(repeats):
                result = compiled(x, kernel)
            jax.block_until_ready(result)
            return (time.perf_counter() - began) / repeats

        sample()
        samplers[name] = sample
    times = interleave(samplers, dict.fromkeys(samplers, scale.pairs))
    for form, row in rows.items():
        row["ms"] = 1e3 * spread(times[form]).median
        row["this / native"] = ratio(times[form], times[LOWERINGS[0]])
    return list(rows.values())


class Run:
    """The parts in their order, each written when it is done."""

    def __init__(self, scale: Scale, torch_python: str | None, minutes: float, out: Path) -> None:
        self.scale, self.torch_python, self.out = scale, torch_python, out
        self._ends = time.monotonic() + 60 * minutes
        self.race: list[dict[str, Any]] = []
        self.overhead: list[dict[str, Any]] = []
        self.lowerings: list[dict[str, Any]] = []
        self.skipped: list[str] = []

    def left(self, seconds: float, part: str) -> bool:
        """Whether so many seconds are left for a part; if not, it is listed as skipped."""
        enough = time.monotonic() + seconds < self._ends
        if not enough:
            self.skipped.append(part)
        return enough

    def job(self, model: str) -> Job:
        """The training step of a network at this scale."""
        return Job(model, "train", self.scale.batch, self.scale.size, self.scale.dtype)

    def write(self) -> None:
        """Writes what there is."""
        parts = {"overhead": self.overhead, "lowerings": self.lowerings, "skipped": self.skipped}
        write(self.out, self.race, **parts)

    def all(self) -> None:
        """Runs everything."""
        kept = self.races()
        try:
            base, *variants = self.scale.variants
            if self.left(90, "overhead"):
                for name in (base, *variants):
                    if name not in kept:
                        kept[name] = JaxContender(self.job(name).build(), self.job(name))
                among = {name: kept[name] for name in (base, *variants)}
                self.overhead = compare(
                    self.job(base), among, self.scale.pairs, self.scale.sample_s
                )
                print(table(self.overhead, OVERHEAD_COLUMNS), flush=True)
                self.write()
        finally:
            for contender in kept.values():
                contender.close()
        for shape in self.scale.convolutions:
            if self.left(15, f"lowerings of {shape}"):
                self.lowerings += compare_lowerings(self.scale, shape)
        print(table(self.lowerings, LOWERING_COLUMNS), flush=True)
        self.write()

    def races(self) -> dict[str, Contender]:
        """Races all networks; returns senet_jax's contenders that the overhead needs again."""
        kept: dict[str, Contender] = {}
        peers: dict[str, TorchContender] = {}
        try:
            if self.torch_python is not None:
                # Side by side, and before jax compiles: it tunes by timing on the same GPU.
                for model in self.scale.models:
                    options = self.scale.torch_options
                    peers[model] = TorchContender(self.torch_python, self.job(model), options)
                for model, peer in list(peers.items()):
                    try:
                        peer.wait()
                    except RuntimeError:
                        # The rest is worth having, and the GPU may not be there again.
                        del peers[model]
                        self.skipped.append(f"timm {model}, whose process ended")
            for model in self.scale.models:
                if not self.left(75, f"race of {model}"):
                    continue
                job = self.job(model)
                contenders: dict[str, Contender] = {OURS: JaxContender(job.build(), job)}
                if model in peers:
                    contenders[TIMM] = peers[model]
                if self.left(150, f"plain Flax {model}"):
                    twin = PLAIN[model](num_classes=job.classes, dtype=jnp.dtype(job.dtype))
                    contenders[PLAIN_FLAX] = JaxContender(twin, job)
                check_same_network(job, contenders)
                times = compete(contenders, self.scale.pairs, self.scale.sample_s)
                lines = race_rows(job, contenders, times)
                if model in self.scale.variants:
                    kept[model] = contenders.pop(OURS)
                for contender in contenders.values():
                    contender.close()
                self.race += lines
                print(table(lines, COLUMNS), flush=True)
                self.write()
        finally:
            for peer in peers.values():
                peer.close()
        return kept


def main() -> None:
    """Runs the benchmark."""
    there = importlib.util.find_spec("torch") and importlib.util.find_spec("timm")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--torch-python",
        default=sys.executable if there else None,
        help="a Python with torch and timm; default: this one, if it has them",
    )
    parser.add_argument("--minutes", type=float, default=8, help="what does not fit is skipped")
    parser.add_argument("--tiny", action="store_true", help="a try on a CPU")
    parser.add_argument("--out", type=Path, default=Path("experiments/results/gpu.json"))
    options = parser.parse_args()
    run = Run(TINY if options.tiny else Scale(), options.torch_python, options.minutes, options.out)
    run.all()
    skipped = f"; skipped: {', '.join(run.skipped)}" if run.skipped else ""
    print(f"{options.out}{skipped}")


if __name__ == "__main__":
    main()
