"""The jobs of the race: a network, and how many images of which size a step takes."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from senet_jax.attention import ATTENTIONS
from senet_jax.models.zoo import create_model, find

Mode = Literal["train", "infer", "forward"]


@dataclasses.dataclass(frozen=True)
class Job:
    """The work that every contender does in a step."""

    model: str
    """A name of the zoo; "resnet50+eca" is that network with another attention."""
    mode: Mode = "train"
    """"train": a training step (SGD with momentum). "infer": the logits in evaluation. "forward":
    the loss and the running statistics of a training step, without gradients."""
    batch: int = 8
    """Images of a step."""
    size: int = 224
    """Side of the images, pixels."""
    dtype: str = "float32"
    """Compute precision of the Flax networks; PyTorch's is chosen by its option "amp"."""
    classes: int = 1000
    """Number of logits."""

    def build(self) -> nn.Module:
        """The network of senet_jax."""
        name, _, attention = self.model.partition("+")
        fields: dict[str, Any] = {"attention": ATTENTIONS[attention]()} if attention else {}
        return create_model(name, num_classes=self.classes, dtype=jnp.dtype(self.dtype), **fields)


def _cifar(model: str, batch: int) -> Job:
    return Job(model, batch=batch, size=32, classes=10)


JOBS: tuple[Job, ...] = (
    _cifar("cifar_seresnet20", 128),
    _cifar("cifar_seresnet56", 128),
    _cifar("cifar_densenet_bc_100_12", 64),
    _cifar("cifar_wrn16_8", 32),
    Job("resnet18", batch=32, size=64),
    Job("seresnet18", batch=32, size=64),
    Job("resnet18"),
    Job("seresnet18"),
    Job("resnet50"),
    Job("seresnet50"),
    Job("seresnext50_32x4d"),
    Job("resnest50d"),
    Job("mobilenet_v1"),
    Job("vgg16"),
)
"""The default jobs, whose steps take at most some seconds on a CPU; a network may have several."""

MODELS = tuple(dict.fromkeys(job.model for job in JOBS))
"""The networks of ``JOBS``."""


def find_jobs(
    models: Iterable[str],
    modes: Iterable[Mode],
    batch: int | None = None,
    size: int | None = None,
    dtype: str = "float32",
) -> list[Job]:
    """The jobs of networks, each once, in the order of the networks.

    Args:
        models: Names of the zoo, also with "+" and an attention. A network that ``JOBS`` lacks
            takes 8 images of the size and has the number of classes that it was published for.
        modes: The modes of each.
        batch: Images of a step; if None, as in ``JOBS``.
        size: Side of the images, pixels; if None, as in ``JOBS``.
        dtype: Compute precision of the Flax networks.

    Raises:
        UsageError: The zoo has no network of that name.
    """
    changes: dict[str, Any] = {"batch": batch, "size": size, "dtype": dtype}
    given = {name: value for name, value in changes.items() if value is not None}
    found = [
        dataclasses.replace(job, mode=mode, **given)
        for model in models
        for job in [job for job in JOBS if job.model == model] or [_unlisted(model)]
        for mode in modes
    ]
    return list(dict.fromkeys(found))


def _unlisted(model: str) -> Job:
    entry = find(model.partition("+")[0])
    return Job(model, size=entry.input_size, classes=entry.fields["num_classes"])
