"""Compares the networks on both sides of the race: their logits, with the same weights.

    python -m experiments.benchmarks.harness.parity --torch-python /path/to/python

gives each network random weights, its PyTorch twin the same ones by
``senet_jax.interchange.to_torch``, and both the same images, and prints the largest difference of
their logits over the standard deviation of the logits. Ends with an error if one is too large. The
race compares each network so before it measures it.
"""

import dataclasses
import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.harness.contenders import (
    TorchError,
    random_variables,
    torch_environment,
)
from experiments.benchmarks.harness.jobs import MODELS, Job, Mode, find_jobs
from experiments.benchmarks.harness.measure import table
from senet_jax.interchange import to_torch
from senet_jax.ops.norm import MOMENTUM

LIMIT = 1e-4
"""Largest difference of the logits of equal networks, in standard deviations of the logits."""

COLUMNS = ("model", "size", "train", "infer", "equal")

IMAGES = 8
"""Images of a comparison, at most: enough for the statistics of the batch norms."""


@dataclasses.dataclass(frozen=True)
class Parity:
    """Compare the networks of senet_jax with their PyTorch twins."""

    torch_python: str
    """A Python that has torch, and timm for the networks that are timm's."""
    models: tuple[str, ...] = MODELS
    """Names that `senet-jax models` lists."""
    size: int | None = None
    """Side of the images, pixels; if None, that of the network's job."""


def differences(python: str, job: Job) -> dict[Mode, float]:
    """Largest difference of the logits over their standard deviation, in float32, by mode.

    Args:
        python: A Python that has torch, and timm for the networks that are timm's.
        job: The network and the size of the images; its mode does not count.

    Raises:
        TorchError: PyTorch has no such network, or its parameters have other names or shapes.
    """
    job = dataclasses.replace(job, dtype="float32", batch=min(job.batch, IMAGES))
    model, images = job.build(), _images(job)
    drawn = random_variables(model, jnp.asarray(images[:1]), varied=True)

    @functools.partial(jax.jit, static_argnames="train")
    def apply(variables: Any, images: Any, train: bool) -> Any:
        return model.apply(variables, images, train, mutable=["batch_stats"])

    with jax.default_matmul_precision("highest"):
        empty = {**drawn, "batch_stats": jax.tree.map(np.zeros_like, drawn.get("batch_stats", {}))}
        train, updated = apply(empty, images, train=True)
        # With other statistics than those of their inputs deep networks leave the range of float32.
        running = jax.tree.map(lambda leaf: leaf / (1 - MOMENTUM), updated)
        variables = {"params": drawn["params"], **running}
        infer, _ = apply(variables, images, train=False)
    weights = to_torch(job.model, variables, num_classes=job.classes)
    theirs = _torch_logits(python, job, weights, images)
    return {
        "train": _relative(np.asarray(train), theirs["train"]),
        "infer": _relative(np.asarray(infer), theirs["infer"]),
    }


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / theirs.std())


def _images(job: Job) -> np.ndarray:
    """Images of noise that differ in brightness and contrast, as their averages have to."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((job.batch, job.size, job.size, 3), np.float32)
    contrast, brightness = rng.uniform(0.2, 2, (2, job.batch, 1, 1, 3)).astype(np.float32)
    return contrast * noise + brightness


def _torch_logits(
    python: str, job: Job, weights: dict[str, np.ndarray], images: np.ndarray
) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(dataclasses.asdict(job)))
        np.savez(folder / "weights.npz", **weights)  # type: ignore[arg-type]
        np.save(folder / "images.npy", images.transpose(0, 3, 1, 2))
        script = Path(__file__).with_name("torch_logits.py")
        done = subprocess.run(
            [python, str(script), name], stderr=subprocess.PIPE, text=True, env=torch_environment()
        )
        if done.returncode:
            raise TorchError(f"{job.model} in PyTorch: {done.stderr.strip()[-2000:]}")
        with np.load(folder / "logits.npz") as logits:
            return {mode: logits[mode] for mode in logits}


def check_logits(python: str, job: Job) -> None:
    """Checks that the logits of a network and of its PyTorch twin agree within ``LIMIT``.

    Raises:
        ValueError: The logits differ.
        TorchError: As ``differences``.
    """
    found = differences(python, job)
    if not all(each <= LIMIT for each in found.values()):
        raise ValueError(
            f"{job.model} is another network in PyTorch: with the same weights the logits differ "
            f"by {found['train']:.1e} (training) and {found['infer']:.1e} (inference) of their "
            "standard deviations."
        )


def main() -> None:
    """Compares, and ends with 1 if a network differs."""
    import tyro

    parity = tyro.cli(Parity, description=__doc__)
    rows = []
    for job in find_jobs(parity.models, ("train",), size=parity.size):
        found = differences(parity.torch_python, job)
        equal = all(each <= LIMIT for each in found.values())
        row: dict[str, Any] = {"model": job.model, "size": job.size}
        row |= {mode: f"{each:.1e}" for mode, each in found.items()}
        rows.append({**row, "equal": "yes" if equal else "no"})
        print(table(rows[-1:], COLUMNS).splitlines()[-1], flush=True)
    print(f"\n{table(rows, COLUMNS)}")
    if any(row["equal"] == "no" for row in rows):
        sys.exit(f"error: the logits of a network differ by more than {LIMIT:g}.")


if __name__ == "__main__":
    main()
