"""Batch norms and stages of a backbone that stay as they are while the network is trained."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
from flax import linen as nn
from jax import lax

from senet_jax.errors import UsageError
from senet_jax.models.backbone import Backbone
from senet_jax.ops.norm import BatchNorm, running_statistics


def check_stages(backbone: Backbone, stages: Collection[int]) -> None:
    """Checks the stages whose norms are to be frozen.

    Raises:
        UsageError: The backbone has no such stage; 1 is what stands before the first.
    """
    allowed = sorted({1, *backbone.stage_numbers})
    for stage in stages:
        if stage not in allowed:
            raise UsageError(
                f"frozen_norms: stage {stage} does not exist: the stages are "
                f"{', '.join(map(str, allowed))}."
            )


@contextlib.contextmanager
def frozen_norms(
    backbone: Backbone,
    stages: Collection[int],
    *,
    constant: bool = False,
    epsilon: float | None = None,
) -> Iterator[None]:
    """Applies the batch norms of some stages with their running statistics, and keeps these.

    A backbone that is called in this context in training normalizes in these stages as in
    evaluation, while all that drops units there still does::

        with frozen_norms(self.backbone, (1, 2)):
            maps = self.backbone(images, train)

    The scales and biases stay parameters: the optimizer says how fast they learn.

    Args:
        backbone: The network, bound: a module that the calling one has as a field.
        stages: Numbers of its stages; 1 is the stem, or what stands before the first stage.
        constant: Give the scales and biases no gradient.
        epsilon: Added to the variances by these norms. If None, each adds its own.
    """

    def intercept(
        call: Callable[..., Any], args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> Any:
        path, prefix = context.module.path, backbone.path
        of_norm = isinstance(context.module, BatchNorm) and context.method_name == "__call__"
        inside = path[: len(prefix)] == prefix and len(path) > len(prefix)
        if of_norm and inside and backbone.stage_of(path[len(prefix)]) in stages:
            with running_statistics(constant=constant, epsilon=epsilon):
                return call(*args, **kwargs)
        return call(*args, **kwargs)

    if not stages:
        yield
        return
    with nn.intercept_methods(intercept):
        yield


@contextlib.contextmanager
def frozen_stages(backbone: Backbone, last: int) -> Iterator[None]:
    """Gives the parameters of the first stages of a backbone no gradient.

    It stops at the outputs of these stages. Their batch norms are a matter of ``frozen_norms``.

    Args:
        backbone: The network, bound: a module that the calling one has as a field.
        last: Number of the last such stage; 1 is the stem. If 0, all stages are trained.
    """

    def intercept(
        call: Callable[..., Any], args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> Any:
        outputs = call(*args, **kwargs)
        path, prefix = context.module.path, backbone.path
        child = path[: len(prefix)] == prefix and len(path) == len(prefix) + 1
        if child and context.method_name == "__call__" and backbone.stage_of(path[-1]) <= last:
            return jax.tree.map(lax.stop_gradient, outputs)
        return outputs

    if not last:
        yield
        return
    with nn.intercept_methods(intercept):
        yield
