"""The kind of device that a program is traced for.

Some operations have two forms, which are equal up to rounding: one that XLA compiles to a fast
program for CPUs, and one for GPUs. :func:`for_gpu` says which one to trace, in ``norm``,
``pooling``, ``moments`` and ``relu``; :func:`target` is what ``conv_lowering`` and
``roi_align`` ask for. TPUs have XLA's own convolutions, RoIAlign as products, and otherwise the
forms for CPUs, since theirs were not measured.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Literal, cast, get_args

import jax

from senet_jax.errors import choose

Target = Literal["cpu", "gpu", "tpu"]

_named: contextvars.ContextVar[Target | None] = contextvars.ContextVar("target", default=None)


@contextlib.contextmanager
def compiled_for(name: Target) -> Iterator[None]:
    """Traces for a kind of device that need not be the default backend, nor there at all.

    It is read while a function is traced, so what ``jax.jit`` traced before stays as it was::

        with compiled_for("gpu"):
            jaxpr = jax.make_jaxpr(predict)(images)

    Args:
        name: The kind of device.

    Raises:
        UsageError: An unknown kind of device.
    """
    choose("target", name, get_args(Target))
    token = _named.set(name)
    try:
        yield
    finally:
        _named.reset(token)


def target() -> Target:
    """The kind of device that ``compiled_for`` names; without it, ``jax.default_backend()``."""
    return _named.get() or cast(Target, jax.default_backend())


def for_gpu() -> bool:
    """True if operations take the form for GPUs, False if they take that for CPUs."""
    return target() == "gpu"
