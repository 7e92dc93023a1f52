"""Which form XLA is given each convolution in, and where on a mesh it is computed.

XLA's own convolution is the fast one on GPUs and TPUs. On CPUs some of its gradients, and all that
it does with groups, take 5 to 100 times as long as the same sums in another form. The table in
:func:`best` was measured by ``experiments/benchmarks/convolutions.py``, which any machine repeats.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from senet_jax.errors import choose
from senet_jax.ops import conv_forms
from senet_jax.ops.conv_forms import Geometry

Lowering = Literal["native", "pointwise", "chunked", "depthwise"]
"""A form of a convolution, by its function in ``ops.conv_forms``."""

Form = Callable[[Array, Array, Geometry], Array]

FORMS: dict[Lowering, Form] = {
    "native": conv_forms.native,
    "pointwise": conv_forms.pointwise,
    "chunked": conv_forms.chunked,
    "depthwise": conv_forms.depthwise,
}

BATCH_AXES = ("data", "fsdp")
"""Axes of a mesh over which the images of a batch are split."""

_forced: contextvars.ContextVar[Lowering | None] = contextvars.ContextVar("lowering", default=None)


@contextlib.contextmanager
def lowering(name: Lowering | None) -> Iterator[None]:
    """Gives XLA every convolution in one form, or in its own form where that one does not apply.

    It is read while a function is traced, so what ``jax.jit`` traced before stays as it was::

        with lowering("native"):
            jaxpr = jax.make_jaxpr(predict)(images)

    Args:
        name: The form; None leaves the choice to :func:`best`.

    Raises:
        UsageError: An unknown form.
    """
    if name is not None:
        choose("lowering", name, get_args(Lowering))
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def applicable(kernel: Float[Array, "kh kw c_g c2"], geometry: Geometry) -> list[Lowering]:
    """The forms that a convolution can take."""
    forms: list[Lowering] = ["native"]
    if conv_forms.is_pointwise(kernel, geometry):
        forms.append("pointwise")
    if geometry.groups > 1:
        forms.append("chunked")
    if conv_forms.is_depthwise(kernel, geometry):
        forms.append("depthwise")
    return forms


def best(kernel: Float[Array, "kh kw c_g c2"], geometry: Geometry, backend: str) -> Lowering:
    """The form that was measured to be the fastest in training, forward and both gradients.

    Args:
        kernel: The kernel, of which the shape counts.
        geometry: The convolution.
        backend: ``jax.default_backend()``; only "cpu" has other forms than the native one.
    """
    return applicable(kernel, geometry)[-1] if backend == "cpu" else "native"


def lowered(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw c_g c2"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    rhs_dilation: Sequence[int],
    feature_group_count: int,
    **unused: Any,
) -> Float[Array, "n h2 w2 c2"]:
    """Convolves, called by ``nn.Conv`` as it would ``lax.conv_general_dilated``.

    Under a mesh with the ``BATCH_AXES``, or one of them (``jax.set_mesh``,
    ``jax.sharding.use_abstract_mesh``), each device convolves its own images: XLA would gather the
    whole batch on every device for a grouped convolution (openxla/xla#47945).
    """
    (above, below), (left, right) = padding
    geometry = Geometry(
        (strides[0], strides[1]),
        ((above, below), (left, right)),
        (rhs_dilation[0], rhs_dilation[1]),
        feature_group_count,
    )
    name = _forced.get() or best(kernel, geometry, jax.default_backend())
    form = FORMS[name if name in applicable(kernel, geometry) else "native"]

    def convolve(x: Array, kernel: Array) -> Array:
        return form(x, kernel, geometry)

    return (_local(convolve, x) if geometry.groups > 1 else convolve)(x, kernel)


def _local(
    convolve: Callable[[Array, Array], Array], x: Float[Array, "n h w c"]
) -> Callable[[Array, Array], Array]:
    """The same function, by each device of the mesh for its own images."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(
        axis for axis in BATCH_AXES if mesh.shape.get(axis, 1) > 1 and axis not in mesh.manual_axes
    )
    if not axes or x.shape[0] % math.prod(mesh.shape[axis] for axis in axes):
        return convolve
    batch, everywhere = PartitionSpec(axes), PartitionSpec()

    def own(x: Array, kernel: Array) -> Array:
        # Here, so that the gradient is summed over the devices as the kernel is, not as the form's
        # own kernel with its zeros, which is several times as large.
        return convolve(x, jax.lax.pcast(kernel, axes, to="varying"))

    return jax.shard_map(
        own,
        mesh=mesh,
        in_specs=(batch, everywhere),
        out_specs=batch,
        axis_names=set(axes),
    )
