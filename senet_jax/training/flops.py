"""Model FLOPs utilisation: the share of the devices' arithmetic that the network itself uses."""

import re

import jax
from flax import linen as nn
from jax.sharding import Mesh

from senet_jax.models.cost import cost

_PEAKS: dict[str, tuple[float, float]] = {
    r"NVIDIA A100[^M]*(SXM|PCI)[^M]*": (312e12, 156e12),
    r"NVIDIA H100 80GB HBM3": (989.4e12, 494.7e12),
    r"NVIDIA H100 PCIe": (756e12, 378e12),
    r"NVIDIA H200": (989.4e12, 494.7e12),
    r"TPU v4": (275e12, 275e12),
    r"TPU v5 lite": (197e12, 197e12),
    r"TPU v5p?": (459e12, 459e12),
    r"TPU v6 lite": (918e12, 918e12),
}
"""FLOPs a second, dense, by the name that jax gives a device: in bfloat16, and in what XLA computes
float32 convolutions in by default, TF32 on these GPUs and bfloat16 on TPUs. From NVIDIA's data
sheets of the A100, H100 and H200 (whose figures with sparsity are twice these) and Google's pages
of the Cloud TPU v4, v5e, v5p and v6e."""


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """The most FLOPs a second that a device can do; None for one that is not in the table.

    Args:
        device_kind: jax's name of the device.
        dtype: "bfloat16" or "float32".
    """
    for pattern, (bfloat16, float32) in _PEAKS.items():
        if re.fullmatch(pattern, device_kind):
            return bfloat16 if dtype == "bfloat16" else float32
    return None


class Utilization:
    """The share of the peak that training uses, counting the arithmetic of the network alone.

    Args:
        model: A module with the calling convention of the zoo.
        dtype: Its compute precision, "bfloat16" or "float32".
        mesh: The devices.
    """

    def __init__(self, model: nn.Module, dtype: str, mesh: Mesh) -> None:
        self._model = model
        device: jax.Device = mesh.devices.flat[0]
        peak = peak_flops(device.device_kind, dtype)
        self._peak = None if peak is None else peak * mesh.size
        self._macs: dict[tuple[int, ...], int] = {}

    def of(self, image_shape: tuple[int, ...], images_per_s: float) -> float | None:
        """The share, 0 to 1; None where the devices' peak is not known.

        A training step has a forward pass and a backward pass of twice its cost, and a
        multiply-accumulate is two operations.

        Args:
            image_shape: Height, width and channels of the training images.
            images_per_s: Images trained on in a second, over all devices.
        """
        if self._peak is None:
            return None
        if image_shape not in self._macs:
            self._macs[image_shape] = cost(self._model, image_shape[0], image_shape[2]).macs
        return 3 * 2 * self._macs[image_shape] * images_per_s / self._peak
