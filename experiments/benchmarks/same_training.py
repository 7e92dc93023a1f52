"""The same training in senet_jax and in PyTorch, step by step.

    python -m experiments.benchmarks.same_training --torch-python PYTHON_WITH_TORCH

trains a small SE-ResNet on handwritten digits twice, by senet_jax's own training step and by a
training loop that is written in PyTorch, from the same weights, batches and learning rates: SGD
with Nesterov's momentum, weight decay of the kernels, batch norm, label smoothing, cosine with
warm-up; once without mixup and once with it. In float64 the losses of both agree to many digits at
every step. Float32 stands beside it, with the difference between two orders of summation within
senet_jax as the measure of how fast rounding grows. Prints the largest relative differences of the
loss and the differences of the final weights, and draws the former (PNG beside ``--out``).

PyTorch's running variances are the unbiased ones; they are converted before they are compared.
"""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments.benchmarks.harness.measure import RESULTS, table, write
from senet_jax.files import write_whole

DEPTH, REDUCTION, CLASSES, SIDE = 8, 4, 10, 16
SMOOTHING, MOMENTUM, DECAY, PEAK = 0.1, 0.9, 1e-4, 0.1
COLUMNS = ("precision", "mixup", "against", "largest difference of a loss", "of the final weights")
TORCH, ORDER = "PyTorch", "another order of summation"


@dataclasses.dataclass(frozen=True)
class SameTraining:
    """Compare trainings in senet_jax and in PyTorch."""

    torch_python: str = sys.executable
    """A Python that has torch."""
    steps: int = 200
    """Steps of each training."""
    batch: int = 32
    """Images of a step."""
    out: Path = RESULTS / "same_training" / "cpu.json"
    """The result."""


def compare(options: SameTraining) -> list[dict[str, Any]]:
    """The rows of the result: of each precision, without mixup and with it."""
    rows = []
    for precision, mixup in itertools.product(("float64", "float32"), (0.0, 0.2)):
        with tempfile.TemporaryDirectory() as scratch:
            job = {
                "precision": precision,
                "mixup": mixup,
                "steps": options.steps,
                "batch": options.batch,
            }
            ours = _in_jax(Path(scratch), job)
            theirs = _in_torch(Path(scratch), options.torch_python)
            pixels = _pixels_by_norm(options.batch)
            for name, count in pixels.items():
                theirs[name] = _biased(theirs[name], count, options.steps)
            rows.append(_row(job, TORCH, ours, theirs))
            if precision == "float32":
                other = _in_jax(Path(scratch), {**job, "lowering": "native"})
                rows.append(_row(job, ORDER, ours, other))
    return rows


def _row(
    job: dict[str, Any], against: str, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> dict[str, Any]:
    losses = ours["losses"]
    differences = np.abs(theirs["losses"] - losses) / losses
    weights = {name: array for name, array in ours.items() if name.startswith("weights/")}
    scale = max(float(np.abs(array).max()) for array in weights.values())
    apart = max(float(np.abs(theirs[name] - array).max()) for name, array in weights.items())
    return {
        "precision": job["precision"],
        "mixup": job["mixup"],
        "against": against,
        "largest difference of a loss": float(differences.max()),
        "of the final weights": apart / scale,
        "first loss": float(losses[0]),
        "last loss": float(losses[-1]),
        "differences": differences.tolist(),
    }


def _pixels_by_norm(batch: int) -> dict[str, int]:
    """The values of a batch in each channel of a batch norm, by its variance's name in PyTorch."""
    counts = {"weights/bn1.running_var": batch * SIDE**2}
    for stage, block, index in itertools.product((1, 2, 3), range((DEPTH - 2) // 6), (1, 2)):
        side = SIDE // 2 ** (stage - 1)
        counts[f"weights/layer{stage}.{block}.bn{index}.running_var"] = batch * side**2
    return counts


def _biased(running: np.ndarray, count: int, steps: int) -> np.ndarray:
    """A running variance as it were, had PyTorch divided by the count and not by one less.

    The running variance is a weighted mean of the initial 1 and of the variances of the batches.
    """
    initial = MOMENTUM**steps
    return initial + (running - initial) * (count - 1) / count


def _in_torch(folder: Path, python: str) -> dict[str, np.ndarray]:
    command = [python, "-m", "experiments.benchmarks.harness.torch_training", str(folder)]
    _run(command, {})
    return _arrays(folder / "torch.npz")


def _in_jax(folder: Path, job: dict[str, Any]) -> dict[str, np.ndarray]:
    command = [sys.executable, "-m", "experiments.benchmarks.same_training"]
    double = job["precision"] == "float64"
    _run([*command, str(folder), json.dumps(job)], {"JAX_ENABLE_X64": str(int(double))})
    return _arrays(folder / "jax.npz")


def _run(command: list[str], environment: dict[str, str]) -> None:
    root = Path(__file__).parents[2]
    path = {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command, cwd=root, env={**os.environ, **path, **environment}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} failed:\n{done.stderr[-2000:]}")


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


def _train(folder: Path, job: dict[str, Any]) -> None:
    """Trains by senet_jax's step; writes ``job.npz`` for PyTorch, and the result ``jax.npz``."""
    import jax
    from sklearn.datasets import load_digits

    from senet_jax import SqueezeExciteConfig
    from senet_jax.config import ModelConfig, OptimizerConfig
    from senet_jax.data.augment.keys import StepKeys
    from senet_jax.data.config import AugmentConfig, DataConfig
    from senet_jax.data.normalization import NORMALIZATIONS
    from senet_jax.interchange.torch import to_torch
    from senet_jax.models.zoo import create_model
    from senet_jax.network import Network, normalize
    from senet_jax.tasks.classification import Classification
    from senet_jax.training.distributed.mesh import make_mesh
    from senet_jax.training.optimizer import make_optimizer, make_schedule
    from senet_jax.training.state import draw_variables, state_of
    from senet_jax.training.step import key_data, make_train_step

    precision = np.dtype(job["precision"])
    steps, batch = job["steps"], job["batch"]
    name = f"cifar_seresnet{DEPTH}"
    attention = SqueezeExciteConfig(reduction=REDUCTION)
    fields: dict[str, Any] = {"num_classes": CLASSES, "attention": attention}
    model = create_model(name, **fields)
    drawn = draw_variables(model, jax.random.key(0), (SIDE, SIDE, 3))
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32).astype(precision), drawn)
    augment = AugmentConfig(mixup=job["mixup"])
    task = Classification(SMOOTHING, augment, DataConfig(), ModelConfig())
    config = OptimizerConfig(
        learning_rate=PEAK, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY, warmup_epochs=1
    )
    per_epoch = steps // 10
    schedule = make_schedule(config, per_epoch, 10)
    optimizer = make_optimizer(config, schedule, decays=task.decays)
    normalization = NORMALIZATIONS["imagenet"]
    network = Network(model, normalization, make_mesh(1), job.get("lowering"))
    step, seed = make_train_step(task, network, optimizer), key_data(0)
    digits = load_digits()
    large = np.repeat(np.repeat(digits.images * (255 / 16), 2, axis=1), 2, axis=2)
    pixels = np.repeat(large[..., None], 3, axis=3).astype(precision)
    rng = np.random.default_rng(0)
    state = state_of(jax.tree.map(jax.numpy.asarray, variables), optimizer, ema=False)
    initial = to_torch(name, variables, **fields)
    record: dict[str, list[Any]] = {
        name: [] for name in ("images", "labels", "mixed_labels", "shares", "rates", "losses")
    }
    for index in range(steps):
        chosen = rng.choice(len(pixels), batch, replace=False)
        labels = digits.target[chosen].astype(np.int32)
        arrays = {"image": jax.numpy.asarray(pixels[chosen]), "label": jax.numpy.asarray(labels)}
        keys = StepKeys.of(jax.random.wrap_key_data(jax.numpy.asarray(seed)), index)
        examples, share = task.prepare(arrays, keys, normalization)
        images = np.asarray(normalize(examples["image"], normalization))
        record["images"].append(images.transpose(0, 3, 1, 2))
        record["labels"].append(labels.astype(np.int64))
        mixed = labels if share is None else np.asarray(examples["mixed_label"])
        record["mixed_labels"].append(mixed.astype(np.int64))
        record["shares"].append(1.0 if share is None else float(share))
        record["rates"].append(float(schedule(index)))
        state, metrics = step(state, arrays, seed)
        record["losses"].append(float(metrics["loss"]))
    shown = {name: np.stack(values) for name, values in record.items()}
    losses = shown.pop("losses")
    constants: dict[str, Any] = {
        "precision": job["precision"],
        "depth": DEPTH,
        "reduction": REDUCTION,
        "classes": CLASSES,
        "label_smoothing": SMOOTHING,
        "momentum": MOMENTUM,
        "weight_decay": DECAY,
    }
    weights = {f"weights/{key}": array for key, array in initial.items()}
    np.savez(folder / "job.npz", allow_pickle=False, **weights, **shown, **constants)
    trained = {"params": state.params, "batch_stats": state.batch_stats}
    final = to_torch(name, jax.tree.map(np.asarray, trained), **fields)
    np.savez(
        folder / "jax.npz",
        allow_pickle=False,
        losses=losses,
        **{f"weights/{key}": array for key, array in final.items()},
    )


def draw(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Draws the relative difference of the loss at each step: a panel without mixup, one with."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, mixup in zip(panels, sorted({row["mixup"] for row in rows}), strict=True):
        for row in rows:
            if row["mixup"] == mixup:
                label = f"{row['precision']}, {row['against']}"
                # A difference of nothing has no place on a logarithmic axis.
                values = np.maximum(row["differences"], 1e-17)
                axes.semilogy(np.arange(1, len(values) + 1), values, lw=0.9, label=label)
        axes.set(xlabel="step", title=f"mixup {mixup:g}" if mixup else "without mixup")
        axes.grid(alpha=0.3, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("relative difference of the loss")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    write_whole(out, lambda partial: figure.savefig(partial, format="png", dpi=150))


def main() -> None:
    """Runs the comparison, or one training of it in JAX."""
    if len(sys.argv) == 3 and sys.argv[2].startswith("{"):
        _train(Path(sys.argv[1]), json.loads(sys.argv[2]))
        return
    options = tyro.cli(SameTraining, description=__doc__)
    rows = compare(options)
    write(options.out, rows)
    draw(rows, options.out.with_suffix(".png"))
    shown = [{key: f"{v:.2g}" if isinstance(v, float) else v for key, v in r.items()} for r in rows]
    print(f"{table(shown, COLUMNS)}\n\n{options.out}")


if __name__ == "__main__":
    main()
