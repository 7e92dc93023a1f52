"""Model FLOPs utilisation: the share of the devices' arithmetic that the network itself uses."""

from collections.abc import Sequence

import jax
from flax import linen as nn
from jax.sharding import Mesh

from senet_jax.models.cost import cost
from senet_jax.training.machine.accelerators import peak_flops


class Utilization:
    """The share of the peak that training uses, counting the arithmetic of the network alone.

    Args:
        model: A module with the calling convention of the zoo.
        dtype: Its compute precision, "bfloat16" or "float32".
        mesh: The devices.
        others: As in ``cost``.
    """

    def __init__(
        self,
        model: nn.Module,
        dtype: str,
        mesh: Mesh,
        others: Sequence[jax.ShapeDtypeStruct] = (),
    ) -> None:
        self._model, self._others = model, others
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
            side, _, channels = image_shape
            self._macs[image_shape] = cost(self._model, side, channels, self._others).macs
        return 3 * 2 * self._macs[image_shape] * images_per_s / self._peak
