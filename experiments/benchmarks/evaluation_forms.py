r"""Inference in other forms: Winograd's domain, and batch norm folded into the convolutions.

    python -m experiments.benchmarks.evaluation_forms --models resnet50 cifar_seresnet20

prints the time of each form over that of the default and the largest deviation of a logit from the
default's, in standard deviations of the logits. All forms are measured in turns.

    python -m experiments.benchmarks.evaluation_forms --models cifar_resnet20 --weights FILE \
        --data.name cifar10 --data.normalization imagenet

also counts the images of the validation split that each form has right.

Folding multiplies each kernel by the factors of the batch norm behind it, and leaves an addition in
the place of the batch norm. It is written for networks whose modules are called conv and bn, with
one number or none, as ResNets are.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from experiments.benchmarks.harness.jobs import find_jobs
from experiments.benchmarks.harness.measure import (
    RESULTS,
    interleave,
    ratio,
    spread,
    table,
    warn_if_busy,
    write,
)
from senet_jax.data.config import DataConfig
from senet_jax.data.datasets import open_dataset
from senet_jax.data.loader import EvalBatches
from senet_jax.data.normalization import normalization
from senet_jax.data.transforms import EvalTransform
from senet_jax.errors import UsageError
from senet_jax.interchange import load_weights
from senet_jax.models.zoo import create_model
from senet_jax.network import normalize
from senet_jax.ops.conv_lowering import lowering
from senet_jax.ops.lowerings import Lowering
from senet_jax.ops.norm import BatchNorm
from senet_jax.training.machine.allocator import keep_freed_memory

DEFAULT = "default"
FORMS: dict[str, tuple[Lowering | None, bool]] = {
    DEFAULT: (None, False),
    "winograd": ("winograd_all", False),
    "folded": (None, True),
    "winograd, folded": ("winograd_all", True),
}
"""The form of the convolutions, and if batch norm is folded, by name."""

COLUMNS = ("model", "size", "batch", "form", "ms", "time / default", "deviation", "right", "of")


@dataclasses.dataclass(frozen=True)
class EvaluationForms:
    """Measure inference in other forms."""

    models: tuple[str, ...] = ("cifar_seresnet20", "resnet50")
    """Names that `senet-jax models` lists."""
    weights: str | None = None
    """Weights of the network, in PyTorch's names; if None, they are drawn."""
    data: DataConfig = DataConfig(name="digits")
    """With weights: the data whose validation split is counted."""
    batch: int | None = None
    """Images of a step; if None, those of the race."""
    pairs: int = 15
    """Rounds of measurements."""
    sample_s: float = 1.0
    """Seconds of a measurement, or those of one step if that is more."""
    out: Path = RESULTS / "evaluation_forms.json"
    """The result."""


def fold(variables: dict[str, Any], epsilon: float = 1e-5) -> dict[str, Any]:
    """The variables with each kernel multiplied by the factors of the batch norm behind it.

    The scale of the batch norm is then 1, its mean 0, its variance 1 less epsilon, and its bias all
    that is added.

    Args:
        variables: ``params`` and ``batch_stats``.
        epsilon: That of the batch norms.

    Raises:
        UsageError: A batch norm has no convolution of its name without bias.
    """
    params = traverse_util.flatten_dict(variables["params"])
    stats = traverse_util.flatten_dict(variables["batch_stats"])
    for *parent, norm in {path[:-1] for path in stats}:
        path = (*parent, norm)
        conv = (*parent, norm.replace("bn", "conv"))
        if (*conv, "kernel") not in params or (*conv, "bias") in params:
            raise UsageError(f"{'/'.join(path)} stands behind no convolution that it could join.")
        factor = params[*path, "scale"] / np.sqrt(stats[*path, "var"] + epsilon)
        params[*conv, "kernel"] = params[*conv, "kernel"] * factor
        params[*path, "bias"] = params[*path, "bias"] - stats[*path, "mean"] * factor
    return {**variables, "params": traverse_util.unflatten_dict(params)}


def _add_bias(call: Callable[..., Any], arguments: Any, options: Any, context: Any) -> Any:
    """Adds the bias in the place of a batch norm that is folded; intercepts Linen's methods."""
    module = context.module
    if not isinstance(module, BatchNorm) or context.method_name != "__call__":
        return call(*arguments, **options)
    (x,) = arguments
    y = x + module.get_variable("params", "bias").astype(x.dtype)
    return nn.relu(y) if options.get("relu") else y


def programs(model: nn.Module, variables: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """The jitted logits of images in each form."""

    def logits(images: jax.Array, form: Lowering | None, folded: bool, values: Any) -> Any:
        with lowering(form):
            if not folded:
                return model.apply(values, images, train=False)
            with nn.intercept_methods(_add_bias):
                return model.apply(values, images, train=False)

    found: dict[str, Callable[..., Any]] = {}
    for name, (form, is_folded) in FORMS.items():
        values = jax.device_put(fold(variables) if is_folded else variables)
        program = jax.jit(functools.partial(logits, form=form, folded=is_folded))
        found[name] = functools.partial(program, values=values)
    return found


def timer(program: Callable[..., Any], images: jax.Array, sample_s: float) -> Callable[[], float]:
    """Measures the seconds of a call, over so many calls as fill ``sample_s``."""

    def seconds(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            jax.block_until_ready(program(images))
        return (time.perf_counter() - began) / calls

    seconds(1)
    calls = max(1, round(sample_s / seconds(1)))
    return lambda: seconds(calls)


def count_right(found: dict[str, Callable[..., Any]], data: DataConfig, side: int) -> list[int]:
    """The images of the validation split that each form has right, and their number."""
    dataset = open_dataset(data.name, data.dir, side)
    pixels = normalization(data.normalization, dataset.mean, dataset.std)
    right = dict.fromkeys(found, 0)
    seen = 0
    split = dataset.val.shown(EvalTransform(dataset.size, data.crop_pct, data.eval_interpolation))
    for batch in EvalBatches(split, data.eval_batch_size).read(0):
        images = normalize(jnp.asarray(batch.arrays["image"]), pixels)
        counts = batch.arrays["weight"] > 0
        seen += int(counts.sum())
        for name, program in found.items():
            answers = np.argmax(program(images), axis=-1)
            right[name] += int(((answers == batch.arrays["label"]) & counts).sum())
    return [*right.values(), seen]


def measure(name: str, settings: EvaluationForms) -> list[dict[str, Any]]:
    """The rows of a network."""
    (job, *_) = find_jobs((name,), ("infer",), settings.batch)
    model = create_model(name, num_classes=job.classes)
    images = jax.random.normal(jax.random.key(0), (job.batch, job.size, job.size, 3))
    if settings.weights is None:
        variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(1), images)
        _, moved = jax.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"]))(
            variables
        )
        variables = {**variables, **moved}
    else:
        variables = load_weights(settings.weights, name, num_classes=job.classes)
    found = programs(model, jax.tree.map(np.asarray, variables))
    logits = {form: np.asarray(program(images)) for form, program in found.items()}
    samplers = {form: timer(program, images, settings.sample_s) for form, program in found.items()}
    times = interleave(samplers, dict.fromkeys(samplers, settings.pairs))
    rows = [
        {
            "model": name,
            "size": job.size,
            "batch": job.batch,
            "form": form,
            "ms": 1e3 * spread(times[form]).median,
            "time / default": ratio(times[form], times[DEFAULT]),
            "deviation": float(abs(logits[form] - logits[DEFAULT]).max() / logits[DEFAULT].std()),
        }
        for form in FORMS
    ]
    if settings.weights is not None:
        *right, seen = count_right(found, settings.data, job.size)
        rows = [row | {"right": count, "of": seen} for row, count in zip(rows, right, strict=True)]
    return rows


def main() -> None:
    """Runs the benchmark."""
    import tyro

    settings = tyro.cli(EvaluationForms, description=__doc__)
    keep_freed_memory()
    warn_if_busy()
    rows = [row for name in settings.models for row in measure(name, settings)]
    shown = [row | {"deviation": f"{row['deviation']:.1e}"} for row in rows]
    print(table(shown, COLUMNS))
    write(settings.out, rows)


if __name__ == "__main__":
    main()
