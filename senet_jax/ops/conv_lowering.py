"""The form in which XLA is given each convolution, and its place on a mesh.

XLA's own convolution is the fast one on GPUs and TPUs. On CPUs some of its gradients, and all that
it does with groups, take 5 to 100 times as long as the same sums in another form. The table in
:func:`best` was measured by ``experiments/benchmarks/convolutions.py``, which any machine repeats.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast, get_args

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from senet_jax.axes import BATCH_AXES
from senet_jax.errors import choose
from senet_jax.ops import conv_forms, conv_gradients, winograd
from senet_jax.ops.conv_forms import Form, Geometry
from senet_jax.ops.lowerings import Lowering
from senet_jax.ops.target import Target, target

FORMS: dict[Lowering, Form] = {
    "native": conv_forms.native,
    "pointwise": conv_forms.pointwise,
    "chunked": conv_forms.chunked,
    "depthwise": conv_forms.depthwise,
    "patches": conv_gradients.patches,
    "patches_all": conv_gradients.patches_all,
    "crossed": conv_gradients.crossed,
    "winograd_gradient": conv_gradients.winograd_gradient,
    "winograd_all": conv_gradients.winograd_all,
}

_forced: contextvars.ContextVar[Lowering | None] = contextvars.ContextVar("lowering", default=None)


@contextlib.contextmanager
def lowering(name: str | None) -> Iterator[None]:
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
    token = _forced.set(cast("Lowering | None", name))
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
    if conv_gradients.is_dense(kernel, geometry):
        forms += ["patches", "patches_all"]
    if conv_gradients.is_unstrided(kernel, geometry):
        forms.append("crossed")
    if winograd.applies(kernel, geometry):
        forms += ["winograd_gradient", "winograd_all"]
    return forms


def best(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw c_g c2"],
    geometry: Geometry,
    backend: Target,
) -> Lowering:
    """The form that was measured to be the fastest in training, forward and both gradients.

    Args:
        x: The images, of which shape and precision count.
        kernel: The kernel, of which the shape counts.
        geometry: The convolution.
        backend: ``target()``, the kind of device; only "cpu" has other forms than the native one.
    """
    if backend != "cpu":
        return "native"
    if conv_gradients.is_dense(kernel, geometry):
        return _best_dense(x, kernel, geometry)
    return applicable(kernel, geometry)[-1]


FEWEST_CHANNELS = 16
"""Input channels from which on another kernel gradient pays."""


def _best_dense(x: Array, kernel: Array, geometry: Geometry) -> Lowering:
    """The form of a dense convolution of more than one tap: XLA's but for the kernel gradient.

    Winograd's domain for all passes is no choice of this function. It saves another 3 to 10 % of a
    training step at 64 channels and more, and costs half as much again in compile time.
    """
    height, width, channels, features = kernel.shape
    if x.dtype != jnp.float32:
        return "native"
    if conv_gradients.is_small(x, kernel, geometry):
        return "patches_all"
    if channels < FEWEST_CHANNELS or 1 in (height, width):
        return "native"
    if not winograd.applies(kernel, geometry):
        return "crossed" if geometry.strides == (1, 1) else "patches"
    # With few tiles the transforms of the kernel, 36 of its channels, take longer than they save.
    tiles, widest = len(x) * math.prod(winograd.tiles_of(x, geometry)), max(channels, features)
    return "winograd_gradient" if 16 * tiles >= widest else "patches"


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
    forced = _forced.get()
    name = forced or best(x, kernel, geometry, target())
    form = FORMS[name if name in applicable(kernel, geometry) else "native"]
    if form is conv_forms.chunked and forced is None:
        form = functools.partial(conv_forms.chunked, dense_form=_in_best_form)

    def convolve(x: Array, kernel: Array) -> Array:
        return form(x, kernel, geometry)

    # Divided by XLA, a product over all pixels is summed over the devices before it is a kernel.
    alone = geometry.groups > 1 or form not in (conv_forms.native, conv_forms.pointwise)
    return (_local(convolve, x) if alone else convolve)(x, kernel)


def _in_best_form(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """A dense convolution of :func:`conv_forms.chunked`."""
    return FORMS[best(x, kernel, geometry, target())](x, kernel, geometry)


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
        return convolve(x, _varying(kernel, axes))

    return jax.shard_map(
        own,
        mesh=mesh,
        in_specs=(batch, everywhere),
        out_specs=batch,
        axis_names=set(axes),
    )


def _varying(kernel: Array, axes: tuple[str, ...]) -> Array:
    """A kernel of all devices as one of each device, so that its gradient is summed over them.

    On CPUs the sum is in float32: their compiler ends the process where one in bfloat16 stands in a
    ``shard_map`` ("Invalid binary instruction opcode copy"), and promotes all others to float32.
    """
    exact = jnp.float32 if target() == "cpu" and kernel.dtype == jnp.bfloat16 else kernel.dtype
    return jax.lax.pcast(kernel.astype(exact), axes, to="varying").astype(kernel.dtype)
