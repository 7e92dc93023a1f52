"""Networks as programs for other runtimes: StableHLO and ONNX, for a batch of any size."""

import functools
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.errors import UsageError, choose, installs
from senet_jax.files import read_bytes, write_whole
from senet_jax.interchange.files import check_regular
from senet_jax.ops.conv_lowering import lowering

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""The platforms that the StableHLO is lowered for."""

TOLERANCE = 1e-4
"""Largest difference of ONNX's logits from Flax's, over their standard deviation."""


def export_network(
    path: str | os.PathLike[str],
    model: nn.Module,
    variables: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    *,
    form: str,
) -> None:
    """Writes a network in evaluation mode as a program, its weights inside.

    The program maps normalized float32 ``images`` (n, h, w, c) to float32 ``logits``
    (n, num_classes), for any n. Of a network of semantic segmentation it gives ``out``, and ``aux``
    if it has an auxiliary head, each (n, h, w, num_classes).

    Args:
        path: The file; one that exists is replaced.
        model: The network.
        variables: Its ``params`` and ``batch_stats``.
        image_shape: Height, width and channels that it is for.
        form: "stablehlo", which :func:`load_stablehlo` and ``jax.export`` read on CPUs, GPUs and
            TPUs, or "onnx", which is run by onnxruntime on random images before it is written.

    Raises:
        UsageError: Another form, a network without logits, no package ``onnx``, or logits of ONNX
            that are not Flax's.
    """
    write = _WRITERS[choose("format", form, _WRITERS)]

    def predict(variables: Mapping[str, Any], images: Float[Array, "n h w c"]) -> Logits:
        logits: Any = model.apply(variables, images, train=False)
        if isinstance(logits, dict) and not all(isinstance(key, str) for key in logits):
            raise UsageError("a network with features_only has no logits: export it without.")
        found: Logits = logits
        return found

    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
    program = write(predict, variables, images)
    write_whole(path, lambda partial: partial.write_bytes(program))


def load_stablehlo(
    path: str | os.PathLike[str],
) -> Callable[[Float[Array, "n h w c"]], "Logits"]:
    """The program of a file of :func:`export_network`; nothing else of this package is needed.

    Raises:
        UsageError: There is no such file or it holds no exported program.
    """
    path = Path(path)
    check_regular(path)
    try:
        return jax.jit(jax.export.deserialize(bytearray(read_bytes(path))).call)
    except Exception as error:
        raise UsageError(f"{path} is truncated or no exported StableHLO: {error}.") from error


Logits = Float[Array, "n classes"] | dict[str, Float[Array, "n h w classes"]]
"""The outputs of a network: the logits of images, or those of pixels by the name of the head."""

Predict = Callable[[Mapping[str, Any], jax.Array], Logits]


def _stablehlo(
    predict: Predict, variables: Mapping[str, Any], images: jax.ShapeDtypeStruct
) -> bytes:
    def program(images: jax.Array) -> Logits:
        # Behind the barrier XLA does not rearrange whole kernels while it compiles.
        return predict(jax.lax.optimization_barrier(variables), images)

    # One program for all platforms: the forms that are fast on this one are not for the others.
    with lowering("native"):
        exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def _onnx(predict: Predict, variables: Mapping[str, Any], images: jax.ShapeDtypeStruct) -> bytes:
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"ONNX needs the package {package}: {installs('onnx')}.")
    import onnxruntime

    from senet_jax.interchange.onnx import INPUT, to_onnx

    program = to_onnx(functools.partial(predict, variables), images).SerializeToString()
    session = onnxruntime.InferenceSession(program)
    example = np.random.default_rng(0).standard_normal((2, *images.shape[1:]), np.float32)
    expected = jax.device_get(jax.tree.leaves(jax.jit(predict)(variables, example)))
    for found, logits in zip(session.run(None, {INPUT: example}), expected, strict=True):
        difference = np.abs(found - logits).max() / logits.std()
        if not difference < TOLERANCE:
            raise UsageError(
                f"onnxruntime's logits differ from Flax's by {difference:.1e} standard deviations, "
                f"more than {TOLERANCE}: nothing was written; export as stablehlo."
            )
    return program


_WRITERS: dict[str, Callable[[Predict, Mapping[str, Any], jax.ShapeDtypeStruct], bytes]] = {
    "stablehlo": _stablehlo,
    "onnx": _onnx,
}
FORMATS = tuple(_WRITERS)
"""The forms of :func:`export_network`."""
