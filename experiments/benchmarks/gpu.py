"""The whole set on one GPU in under eight minutes: bfloat16, batch 256.

    PYTHONPATH=. python -m experiments.benchmarks.gpu --out gpu.json

races the training steps of four networks against timm in PyTorch (channels-last, AMP in bfloat16,
``torch.compile``) and against plain Flax, measures what SE and ECA cost, and then every lowering of
a convolution against the native one and batch norm, SE, max pool and split attention against their
plain forms. Prints tables and writes all of it to --out after each part.
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
from typing import Any, Literal

# PyTorch runs beside jax and needs its part of the memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax.numpy as jnp

from experiments.benchmarks import convolutions, normalization
from experiments.benchmarks.convolutions import LAYERS, Layer
from experiments.benchmarks.harness.contenders import (
    COLUMNS,
    OURS,
    PLAIN_FLAX,
    TORCH,
    Contender,
    JaxContender,
    TorchContender,
    TorchError,
    TorchOption,
    check_same_network,
    compete,
    race_rows,
)
from experiments.benchmarks.harness.jobs import Job
from experiments.benchmarks.harness.measure import table, write
from experiments.benchmarks.harness.plain_flax import PLAIN
from experiments.benchmarks.se_overhead import COLUMNS as OVERHEAD_COLUMNS
from experiments.benchmarks.se_overhead import compare


@dataclasses.dataclass(frozen=True)
class Scale:
    """The sizes of all parts."""

    models: tuple[str, ...] = ("resnet50", "seresnet50", "seresnext101_32x4d", "resnest50d")
    variants: tuple[str, ...] = ("resnet50", "seresnet50", "resnet50+eca")
    """The network without attention, then those with it."""
    batch: int = 256
    size: int = 224
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    torch_options: tuple[TorchOption, ...] = ("channels_last", "amp", "compile")
    pairs: int = 15
    sample_s: float = 0.4
    convolutions: tuple[Layer, ...] = (
        *LAYERS["resnext50"],
        *LAYERS["resnest50"],
        (56, 64, 256, 1, 1, 1),
        (14, 1024, 256, 1, 1, 1),
        (56, 128, 128, 3, 1, 128),
        (14, 512, 512, 3, 1, 512),
    )
    """Grouped, pointwise and depthwise ones, in the order of what is most in doubt."""
    every: int = 1
    """One of so many cases of ``experiments.benchmarks.normalization`` is measured."""


TINY = Scale(
    models=("resnest14d",),
    variants=("resnet10t", "resnet10t+se"),
    batch=2,
    size=32,
    dtype="float32",
    torch_options=(),
    pairs=2,
    sample_s=0.0,
    convolutions=((8, 16, 16, 3, 1, 4),),
    every=20,
)


class Run:
    """The parts in their order, each written when it is done."""

    def __init__(self, scale: Scale, torch_python: str | None, minutes: float, out: Path) -> None:
        self.scale, self.torch_python, self.out = scale, torch_python, out
        self._ends = time.monotonic() + 60 * minutes
        self.race: list[dict[str, Any]] = []
        self.overhead: list[dict[str, Any]] = []
        self.lowerings: list[dict[str, Any]] = []
        self.normalization: list[dict[str, Any]] = []
        self.skipped: list[str] = []

    def left(self, seconds: float, part: str) -> bool:
        """Tells whether so many seconds are left for a part; if not, it is listed as skipped."""
        enough = time.monotonic() + seconds < self._ends
        if not enough:
            self.skipped.append(part)
        return enough

    def job(self, model: str) -> Job:
        """The training step of a network at this scale."""
        return Job(model, "train", self.scale.batch, self.scale.size, self.scale.dtype)

    def write(self) -> None:
        """Writes what there is."""
        write(
            self.out,
            self.race,
            overhead=self.overhead,
            lowerings=self.lowerings,
            normalization=self.normalization,
            skipped=self.skipped,
        )

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
        forms = convolutions.Benchmark(
            batch_size=self.scale.batch, dtype=self.scale.dtype, repeats=self.scale.pairs
        )
        for layer in self.scale.convolutions:
            if self.left(15, f"lowerings of {layer}"):
                self.lowerings += convolutions.measure(layer, forms)
        print(table(self.lowerings, convolutions.COLUMNS), flush=True)
        self.write()
        between = normalization.Benchmark(
            batch_size=self.scale.batch, dtype=self.scale.dtype, pairs=self.scale.pairs
        )
        for case in list(normalization.cases(self.scale.batch))[:: self.scale.every]:
            if self.left(10, f"normalization, {case[0]} {case[3]}"):
                self.normalization.append(normalization.measure(case, between))
        print(table(self.normalization, normalization.COLUMNS), flush=True)
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
                    except TorchError as error:
                        # The rest is worth having, and the GPU may not be there again.
                        del peers[model]
                        self.skipped.append(f"PyTorch {model}: {error}")
            for model in self.scale.models:
                if not self.left(75, f"race of {model}"):
                    continue
                job = self.job(model)
                contenders: dict[str, Contender] = {OURS: JaxContender(job.build(), job)}
                if model in peers:
                    contenders[TORCH] = peers[model]
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
    parser.add_argument(
        "--minutes",
        type=float,
        default=8,
        help="time for all parts; those that do not fit are skipped",
    )
    parser.add_argument("--tiny", action="store_true", help="a try on a CPU")
    parser.add_argument("--out", type=Path, default=Path("experiments/results/gpu.json"))
    options = parser.parse_args()
    run = Run(TINY if options.tiny else Scale(), options.torch_python, options.minutes, options.out)
    run.all()
    skipped = f"; skipped: {', '.join(run.skipped)}" if run.skipped else ""
    print(f"{options.out}{skipped}")


if __name__ == "__main__":
    main()
