"""The parts of the set for one GPU; each is a process of its own, which ``gpu.py`` starts."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp

from experiments.benchmarks import convolutions, normalization
from experiments.benchmarks.convolutions import LAYERS, Layer
from experiments.benchmarks.harness import cifar_seeds
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
from experiments.benchmarks.harness.contenders import rows as contender_rows
from experiments.benchmarks.harness.jobs import Job, Mode
from experiments.benchmarks.harness.measure import table, write
from experiments.benchmarks.harness.plain_flax import PLAIN
from experiments.benchmarks.race_detection import DetectionJob, JaxDetector, data, weights
from experiments.benchmarks.se_overhead import COLUMNS as OVERHEAD_COLUMNS
from experiments.benchmarks.se_overhead import compare
from senet_jax.models.zoo import create_model

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Scale:
    """The sizes of all parts."""

    race: tuple[str, ...] = ("resnet50", "seresnet50")
    """The networks that race in training and in inference."""
    large: tuple[str, ...] = ("resnest50d", "seresnext101_32x4d")
    """Those that race in training alone."""
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
    cifar: tuple[str, ...] = ("cifar_resnet56", "cifar_seresnet56")
    cifar_epochs: int = 30
    cifar_batch: int = 128
    cifar_seeds: int = 20
    """Most seeds of each network."""
    detector: str = "maskrcnn_resnet50_fpn"
    detector_batch: int = 8
    detector_size: int = 512


TINY = Scale(
    race=("resnet10t",),
    large=("resnest14d",),
    variants=("resnet10t", "resnet10t+se"),
    batch=2,
    size=32,
    dtype="float32",
    torch_options=(),
    pairs=2,
    sample_s=0.0,
    convolutions=((8, 16, 16, 3, 1, 4),),
    every=20,
    cifar=("cifar_resnet8", "cifar_seresnet8"),
    cifar_epochs=2,
    cifar_batch=32,
    cifar_seeds=2,
    detector="maskrcnn_resnet18_fpn",
    detector_batch=1,
    detector_size=64,
)


@dataclasses.dataclass
class Setting:
    """The scale of a part, its time, and the place of its results."""

    scale: Scale
    torch_python: str | None
    """A Python that has torch and timm; None leaves PyTorch out."""
    images: Path | None
    """The subset of CIFAR-10; None trains on noise, which measures the speed alone."""
    ends: float
    """The end of its time, by ``time.monotonic``."""
    out: Path
    """The file of its results."""
    rows: list[Row] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)

    def left(self) -> float:
        """The seconds that are left."""
        return self.ends - time.monotonic()

    def lasts(self, seconds: float, work: str) -> bool:
        """Tells whether so many seconds are left; if not, lists the work as skipped."""
        if self.left() > seconds:
            return True
        self.skip(work)
        return False

    def skip(self, work: str) -> None:
        """Lists work as skipped, and writes the list."""
        self.skipped.append(work)
        self.write()

    def add(self, rows: Sequence[Row], columns: Sequence[str]) -> None:
        """Prints rows and writes all that there are."""
        self.rows += rows
        print(table(rows, columns), flush=True)
        self.write()

    def write(self) -> None:
        """Writes what there is."""
        write(self.out, self.rows, skipped=self.skipped)

    def job(self, model: str, mode: Mode = "train") -> Job:
        """The step of a network at this scale."""
        return Job(model, mode, self.scale.batch, self.scale.size, self.scale.dtype)


def race(setting: Setting) -> None:
    """ResNet-50 and SE-ResNet-50, in training and in inference."""
    modes: tuple[Mode, ...] = ("train", "infer")
    _race(setting, [setting.job(model, mode) for mode in modes for model in setting.scale.race])


def large(setting: Setting) -> None:
    """ResNeSt-50 and SE-ResNeXt-101, in training."""
    _race(setting, [setting.job(model) for model in setting.scale.large])


def _race(setting: Setting, jobs: Sequence[Job]) -> None:
    peers: dict[Job, TorchContender] = {}
    try:
        if setting.torch_python is not None:
            # Side by side, and before jax compiles: it tunes by timing on the same GPU.
            for job in jobs:
                options = setting.scale.torch_options
                peers[job] = TorchContender(setting.torch_python, job, options)
            for job, peer in list(peers.items()):
                try:
                    peer.wait()
                except TorchError as error:
                    # The rest is worth having, and the GPU may not be there again.
                    del peers[job]
                    setting.skip(f"PyTorch {job.model} {job.mode}: {error}")
        for job in jobs:
            if setting.lasts(40, f"{job.model} {job.mode}"):
                contenders: dict[str, Contender] = {OURS: JaxContender(job.build(), job)}
                if job in peers:
                    contenders[TORCH] = peers[job]
                if job.mode == "train" and job.model in PLAIN and setting.left() > 80:
                    twin = PLAIN[job.model](num_classes=job.classes, dtype=jnp.dtype(job.dtype))
                    contenders[PLAIN_FLAX] = JaxContender(twin, job)
                check_same_network(job, contenders)
                times = compete(contenders, setting.scale.pairs, setting.scale.sample_s)
                setting.add(race_rows(job, contenders, times), COLUMNS)
                for contender in contenders.values():
                    contender.close()
    finally:
        for peer in peers.values():
            peer.close()


def cifar(setting: Setting) -> None:
    """CIFAR networks with and without SE on the subset, seed after seed until the time ends."""
    scale = setting.scale
    if setting.images is None:
        setting.skip("CIFAR-10: no images were given, and noise takes their place")
        splits = cifar_seeds.noise(4 * scale.cifar_batch, 2 * cifar_seeds.EVALUATED)
    else:
        splits = cifar_seeds.unpack(setting.images)
    trainings = [
        # float32 as in the papers.
        cifar_seeds.Training(name, splits, scale.cifar_epochs, scale.cifar_batch, "float32")
        for name in scale.cifar
    ]
    for row in cifar_seeds.rows(trainings, scale.cifar_seeds, setting.left):
        setting.add(
            [{**row, "images": setting.images and setting.images.name}], cifar_seeds.COLUMNS
        )


def lowerings(setting: Setting) -> None:
    """Convolutions in each form, against the native one."""
    forms = convolutions.Benchmark(
        batch_size=setting.scale.batch, dtype=setting.scale.dtype, repeats=setting.scale.pairs
    )
    for layer in setting.scale.convolutions:
        if setting.lasts(10, f"lowerings of {layer}"):
            setting.add(convolutions.measure(layer, forms), convolutions.COLUMNS)


def detector(setting: Setting) -> None:
    """Mask R-CNN in training and in inference."""
    scale = setting.scale
    for mode in ("train", "infer"):
        if setting.lasts(60, f"{scale.detector} {mode}"):
            job = DetectionJob(scale.detector, mode, scale.detector_batch, scale.detector_size)
            given = data(job, objects=24)
            model = create_model(job.model, num_classes=job.classes)
            ours = JaxDetector(job, weights(model, given["images"]), given)
            times = compete({OURS: ours}, scale.pairs, scale.sample_s)
            found = contender_rows(job, {OURS: ours}, times)  # type: ignore[arg-type]
            setting.add([{**row, "dtype": "float32"} for row in found], COLUMNS)
            ours.close()


def overhead(setting: Setting) -> None:
    """The cost of attention: each variant in turns with the network without it."""
    base, *others = setting.scale.variants
    contenders: dict[str, Contender] = {}
    for name in (base, *others):
        if setting.lasts(25, f"overhead of {name}"):
            contenders[name] = JaxContender(setting.job(name).build(), setting.job(name))
    if len(contenders) > 1:
        found = compare(setting.job(base), contenders, setting.scale.pairs, setting.scale.sample_s)
        setting.add(found, OVERHEAD_COLUMNS)


def norms(setting: Setting) -> None:
    """Batch norm, SE, max pool and split attention against their plain forms."""
    between = normalization.Benchmark(
        batch_size=setting.scale.batch, dtype=setting.scale.dtype, pairs=setting.scale.pairs
    )
    for case in list(normalization.cases(setting.scale.batch))[:: setting.scale.every]:
        if setting.lasts(8, f"{case[0]} {'x'.join(map(str, case[3]))}"):
            setting.add([normalization.measure(case, between)], normalization.COLUMNS)


@dataclasses.dataclass(frozen=True)
class Part:
    """A part and the most seconds that it may take."""

    measure: Callable[[Setting], None]
    seconds: float


PARTS = {
    "race": Part(race, 200),
    "cifar": Part(cifar, 200),
    "large": Part(large, 130),
    "lowerings": Part(lowerings, 60),
    "detector": Part(detector, 150),
    "overhead": Part(overhead, 80),
    "norms": Part(norms, 60),
}
"""The parts in the order of their worth."""
