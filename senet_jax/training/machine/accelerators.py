"""Peak speeds and memory of GPUs and TPUs, from the data sheets of their vendors.

Sources: NVIDIA's data sheets of the A100 (of the 80 GB one with SXM, the faster of two), H100 (SXM
and PCIe) and H200, whose figures for tensor cores with sparsity are twice the dense ones here, and
its guides to DGX A100, DGX H100 and DGX H200, which have eight GPUs on NVLink and a network card of
200 or 400 Gbit/s for each; Google's pages of Cloud TPU v4, v5e, v5p and v6e ("TPU v5e", ...), with
half of what they call bidirectional bandwidth, and for v4 the all-reduce bandwidth of a pod by
chip.
"""

import dataclasses
import re

from senet_jax.errors import choose


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One device: a GPU, or a chip of TPU."""

    kind: str
    """Pattern of the names that jax gives it."""
    bfloat16: float
    """FLOPs a second, dense, with inputs of bfloat16."""
    float32: float
    """... in what XLA computes float32 convolutions in by default: TF32 on these GPUs, bfloat16 on
    TPUs."""
    memory: float
    """Bytes; gigabytes are taken as 1e9, though there are a few per cent more."""
    memory_bandwidth: float
    """Bytes a second, read or written."""
    node: int
    """Devices that are joined by fast links: NVLink within a machine, a pod's own network."""
    link: float
    """Bytes a second that a device can send to the others of its node."""
    network: float | None
    """Bytes a second that a device can send to other nodes, all devices sending at once; None where
    the vendor does not say."""
    usable: float = 1.0
    """Share of the memory that jax takes unless it is told otherwise."""

    def peak(self, dtype: str) -> float:
        """FLOPs a second in a compute precision, "bfloat16" or "float32"."""
        return self.bfloat16 if dtype == "bfloat16" else self.float32


_GPU = 0.75
"""XLA_PYTHON_CLIENT_MEM_FRACTION where it is not set."""

ACCELERATORS: dict[str, Accelerator] = {
    "a100-40gb": Accelerator(
        r"NVIDIA A100-(SXM4?|PCIE)-40GB", 312e12, 156e12, 40e9, 1555e9, 8, 300e9, 25e9, _GPU
    ),
    "a100": Accelerator(
        r"NVIDIA A100(-SXM4?-80GB| 80GB PCIe)", 312e12, 156e12, 80e9, 2039e9, 8, 300e9, 25e9, _GPU
    ),
    "h100": Accelerator(
        r"NVIDIA H100 80GB HBM3", 989.4e12, 494.7e12, 80e9, 3350e9, 8, 450e9, 50e9, _GPU
    ),
    # No NVLink but a bridge for two: 16 lanes of PCIe 5 to the others and to the network.
    "h100-pcie": Accelerator(
        r"NVIDIA H100 PCIe", 756e12, 378e12, 80e9, 2000e9, 8, 64e9, 50e9, _GPU
    ),
    "h200": Accelerator(r"NVIDIA H200", 989.4e12, 494.7e12, 141e9, 4800e9, 8, 450e9, 50e9, _GPU),
    "v4": Accelerator(r"TPU v4", 275e12, 275e12, 32e9, 1200e9, 4096, 268e9, None),
    "v5e": Accelerator(r"TPU v5( lite|e)", 197e12, 197e12, 16e9, 819e9, 256, 200e9, 3.125e9),
    "v5p": Accelerator(r"TPU v5p?", 459e12, 459e12, 95e9, 2765e9, 8960, 600e9, 6.25e9),
    "v6e": Accelerator(r"TPU v6( lite|e)", 918e12, 918e12, 32e9, 1638e9, 256, 400e9, 12.5e9),
}
"""By the names that the command line takes."""


def accelerator(name: str) -> Accelerator:
    """The accelerator of a name.

    Raises:
        UsageError: There is none; the message gives the nearest names.
    """
    return ACCELERATORS[choose("accelerator", name, ACCELERATORS)]


def name_of_kind(device_kind: str) -> str | None:
    """The name of the accelerator that jax calls so; None for one that is not in the table."""
    for name, each in ACCELERATORS.items():
        if re.fullmatch(each.kind, device_kind):
            return name
    return None


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """The most FLOPs a second that a device can do; None for one that is not in the table.

    Args:
        device_kind: jax's name of the device.
        dtype: "bfloat16" or "float32".
    """
    name = name_of_kind(device_kind)
    return None if name is None else ACCELERATORS[name].peak(dtype)
