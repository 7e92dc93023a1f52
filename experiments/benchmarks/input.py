"""The speed of reading photographs, against PyTorch and tf.data, and its effect on a training step.

    python experiments/benchmarks/input.py --data-dir DATA --torch-python P --tf-python Q

The photographs are those of the prepared ``imagenet2012`` whose name ends in ``_0.JPEG``: the
full-size ones of the miniature set. All contenders read the same files, with as many workers, and
are compared by CPU time, interleaved. Prints a table in Markdown and writes JSON.
"""

import dataclasses
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import simplejpeg
import tyro
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

from experiments.benchmarks.harness.input_cpu import children, idle_cpu_seconds, resident_mib
from experiments.benchmarks.harness.measure import (
    interleave,
    ratio,
    spread,
    table,
    warn_if_busy,
    write,
)
from senet_jax.config import ModelConfig, TrainConfig
from senet_jax.data.augment.small_images import augment
from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.data.datasets import open_dataset
from senet_jax.data.examples import Batch
from senet_jax.data.loader import TrainBatches
from senet_jax.data.transforms import TrainTransform
from senet_jax.tasks.classification import Classification
from senet_jax.training.run import Run

Part = Literal["decode", "cifar", "step", "memory"]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Measure the input of training."""

    data_dir: Path
    """The folder that `senet-jax prepare` put imagenet2012 in."""
    cifar_dir: Path | None = None
    """The folder of cifar10; None means the same folder."""
    torch_python: str | None = None
    """A Python that has torch and Pillow."""
    tf_python: str | None = None
    """A Python that has TensorFlow."""
    parts: tuple[Part, ...] = ("decode", "cifar", "step", "memory")
    """The measurements."""
    workers: int = 1
    """Worker processes of each contender."""
    pairs: int = 7
    """Rounds of measurements."""
    step_pairs: int = 4
    """Rounds of training steps."""
    batch: int = 49
    """Photographs of a batch."""
    memory_batches: int = 300
    """Batches over which the workers' memory is watched."""
    out: Path = Path("experiments/results/input/cpu.json")
    """The result."""


SIZE = 224
OURS, PILLOW, FUSED, PURE = "senet_jax", "Pillow in a DataLoader", "tf.data, fused", "decode alone"


def unpack(data_dir: Path, folder: Path) -> int:
    """Writes the full-size photographs to ``folder/{train,val}/<class>``; returns their number."""
    files = sorted(data_dir.glob("imagenet2012/*/*-train.array_record-*"))
    count = 0
    for record in ArrayRecordDataSource([str(file) for file in files]):
        features = tf_example.Example.FromString(record).features.feature
        name = features["file_name"].bytes_list.value[0].decode()
        if not name.endswith("_0.JPEG"):
            continue
        count += 1
        for split in ("train", "val"):
            file = folder / split / name.partition("_")[0] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(features["image"].bytes_list.value[0])
    return count


def batches(folder: Path, settings: Benchmark, steps: int, size: int = SIZE) -> Iterator[Batch]:
    """Batches of the photographs, as training has them."""
    transform = TrainTransform(size, AugmentConfig(flip=True))
    dataset = open_dataset("folder", folder, size)
    examples = (dataset.train.shown(transform),)
    run = TrainBatches(examples, settings.batch, 0, steps, workers=settings.workers)
    return run.prefetch(0)


class Peer:
    """A contender in a process of another Python."""

    def __init__(self, python: str, script: str, folder: Path, settings: Benchmark) -> None:
        numbers = (SIZE, settings.batch, settings.workers)
        command = [python, str(Path(__file__).parent / "harness" / script), str(folder / "train")]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [*command, *map(str, numbers)], stdin=pipe, stdout=pipe, text=True
        )
        self.versions: dict[str, str] = self._receive()

    def run(self) -> float:
        """CPU seconds of one pass."""
        assert self._process.stdin
        print(file=self._process.stdin, flush=True)
        return self._receive()

    def _receive(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def measure_decode(folder: Path, count: int, settings: Benchmark) -> list[dict[str, Any]]:
    """CPU time of decode, crop and flip of each contender, and of the decoding alone."""
    encoded = [file.read_bytes() for file in sorted((folder / "train").glob("*/*"))]
    per_pass = count // settings.batch
    reading = batches(folder, settings, steps=(settings.pairs + 5) * per_pass)

    def ours() -> float:
        # The workers read ahead: their buffers are full at the beginning and at the end.
        began = idle_cpu_seconds()
        for _ in range(per_pass):
            next(reading)
        return (idle_cpu_seconds() - began) * count / (per_pass * settings.batch)

    def pure() -> float:
        began = time.process_time()
        for data in encoded:
            simplejpeg.decode_jpeg(data, "RGB")
        return time.process_time() - began

    samplers = {OURS: ours, PURE: pure}
    peers = {}
    for name, python, script in (
        (PILLOW, settings.torch_python, "input_torch.py"),
        (FUSED, settings.tf_python, "input_tf.py"),
    ):
        if python is not None:
            peers[name] = Peer(python, script, folder, settings)
            samplers[name] = peers[name].run
    ours(), pure()
    times = interleave(samplers, dict.fromkeys(samplers, settings.pairs))
    for peer in peers.values():
        peer.close()
    return [
        {
            "row": name,
            "images/s of CPU": count / spread(times[name]).median,
            "senet_jax is faster by": ratio(times[name], times[OURS]),
            "cpu_s": times[name],
            "versions": peers[name].versions if name in peers else {},
        }
        for name in samplers
    ]


def measure_cifar(settings: Benchmark) -> list[dict[str, Any]]:
    """Images a second of CIFAR batches of 128 that are read, cropped and mirrored."""
    dataset = open_dataset("cifar10", settings.cifar_dir or settings.data_dir)
    fill = np.round(255 * np.array(dataset.mean)).astype(np.uint8)
    change = jax.jit(lambda images, key: augment(images, key, fill=fill, pad=4, flip=True))
    steps, task = 200, Classification()
    speeds: dict[str, list[float]] = {"CIFAR-10, read": [], "CIFAR-10, read, crop and flip": []}
    for _ in range(settings.pairs):
        for name, taken in speeds.items():
            reading = TrainBatches(task.examples(dataset, "train"), 128, 0, steps + 20).prefetch(0)
            began = 0.0
            for step, batch in enumerate(reading):
                if name.endswith("flip"):
                    jax.block_until_ready(change(batch["image"], jax.random.key(step)))
                if step == 19:
                    began = time.perf_counter()
            taken.append(128 * steps / (time.perf_counter() - began))
    return [
        {"row": name, "images/s": spread(taken).median, "all": taken}
        for name, taken in speeds.items()
    ]


def measure_step(folder: Path, settings: Benchmark) -> list[dict[str, Any]]:
    """Seconds of a training step of SE-ResNet-50 with real and with synthetic images."""
    run = Run(
        TrainConfig(
            run_dir=folder / "run",
            epochs=50,
            model=ModelConfig(name="seresnet50"),
            data=DataConfig(
                name="folder", dir=folder, image_size=SIZE, batch_size=8, workers=settings.workers
            ),
        )
    )
    reading = run.device_batches(0)
    state, first = run.fresh_state(), next(reading)
    for _ in range(2):
        state, _ = run.train_step(state, first)

    def step(batch: Any) -> None:
        nonlocal state
        state, metrics = run.train_step(state, batch)
        jax.block_until_ready(metrics)

    def synthetic() -> float:
        began = time.perf_counter()
        step(first)
        return time.perf_counter() - began

    def real() -> float:
        began = time.perf_counter()
        step(next(reading))
        return time.perf_counter() - began

    times = interleave(
        {"real": real, "synthetic": synthetic},
        {"real": settings.step_pairs, "synthetic": settings.step_pairs},
    )
    return [
        {
            "row": "step of SE-ResNet-50, real over synthetic images",
            "ratio": ratio(times["real"], times["synthetic"]),
            "step_s": times,
        }
    ]


def measure_memory(folder: Path, settings: Benchmark) -> list[dict[str, Any]]:
    """Resident memory of the workers as a run goes on."""
    watched = []
    reading = batches(folder, settings, settings.memory_batches)
    for step, _ in enumerate(reading):
        if step % (settings.memory_batches // 10) == settings.memory_batches // 10 - 1:
            watched.append(sum(resident_mib(child) for child in children()))
    return [
        {
            "row": f"memory of {settings.workers} workers over {settings.memory_batches} batches",
            "MiB after a fifth": watched[1],
            "MiB at the end": watched[-2],
            "all": watched,
        }
    ]


def main() -> None:
    """Runs the benchmark."""
    settings = tyro.cli(Benchmark, description=__doc__)
    warn_if_busy()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = unpack(settings.data_dir, folder)
        for part in settings.parts:
            if part == "decode":
                rows += measure_decode(folder, count, settings)
            elif part == "cifar":
                rows += measure_cifar(settings)
            elif part == "step":
                rows += measure_step(folder, settings)
            else:
                rows += measure_memory(folder, settings)
            write(settings.out, rows, photographs=count, workers=settings.workers)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    shown = [c for c in columns if c not in ("cpu_s", "versions", "all", "step_s")]
    print(table(rows, shown))


if __name__ == "__main__":
    main()
