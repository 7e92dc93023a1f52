"""Crop, flip and Cutout of CIFAR batches: on the host in NumPy, or on the device in XLA.

    python experiments/benchmarks/augmentation.py

measures images a second of ``senet_jax.data.augment.small_images``, jitted on the default device,
against one host thread of NumPy, the two interleaved, and prints the median of the paired ratios
with their quartiles.
"""

import dataclasses
import functools
import platform
import time

import jax
import numpy as np
import tyro
from jaxtyping import UInt8

from senet_jax.data.augment.small_images import augment


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Measure augmentation on the host against the device."""

    batch_size: int = 128
    """Images of a batch."""
    pairs: int = 25
    """Pairs of measurements."""
    batches: int = 20
    """Batches of a measurement."""


PAD, CUTOUT, SIZE = 4, 16, 32


FILL = np.array([125, 123, 114], np.uint8)


def on_host(
    images: UInt8[np.ndarray, "b h w c"], pad: int, side: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "b h w c"]:
    """The same changes as ``augment``, as fast as NumPy was found to do them."""
    batch, height, width, channels = images.shape
    # A row of pixels as a row of bytes, so that each copy is one long run.
    padded = np.empty((batch, height + 2 * pad, (width + 2 * pad) * channels), np.uint8)
    padded[...] = np.tile(FILL, width + 2 * pad)
    rows, columns = slice(pad, pad + height), slice(pad * channels, (pad + width) * channels)
    padded[:, rows, columns] = images.reshape(batch, height, width * channels)
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (height, width * channels), axis=(1, 2)
    )
    top, left = rng.integers(0, 2 * pad + 1, (2, batch))
    out = windows[np.arange(batch), top, left * channels].reshape(images.shape)
    mirrored = rng.random(batch) < 0.5
    flipped = out[mirrored, :, ::-1]
    # Channel by channel, because NumPy copies pixels of three bytes slowly.
    for channel in range(channels):
        out[mirrored, ..., channel] = flipped[..., channel]
    centres = rng.integers(0, (height, width), (batch, 2)) - side // 2
    for row, (y, x) in enumerate(centres.tolist()):
        out[row, max(y, 0) : y + side, max(x, 0) : x + side] = FILL
    return out


def main() -> None:
    """Runs the benchmark."""
    benchmark = tyro.cli(Benchmark, description=__doc__)
    rng = np.random.default_rng(0)
    shape = (benchmark.batch_size, SIZE, SIZE, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    on_device = jax.jit(functools.partial(augment, fill=FILL, pad=PAD, flip=True, cutout=CUTOUT))

    def host() -> float:
        began = time.perf_counter()
        for _ in range(benchmark.batches):
            jax.device_put(on_host(images, PAD, CUTOUT, rng))
        return time.perf_counter() - began

    def device() -> float:
        began = time.perf_counter()
        for step in range(benchmark.batches):
            out = on_device(jax.device_put(images), jax.random.key(step))
        out.block_until_ready()
        return time.perf_counter() - began

    host(), device()  # compiles
    times = np.array([(host(), device()) for _ in range(benchmark.pairs)])
    speeds = benchmark.batch_size * benchmark.batches / np.median(times, axis=0)
    low, median, high = np.percentile(times[:, 1] / times[:, 0], (25, 50, 75))
    print(
        f"host {speeds[0]:,.0f} images/s, device {speeds[1]:,.0f} images/s; "
        f"host/device {median:.2f} (quartiles {low:.2f} to {high:.2f}, {benchmark.pairs} pairs)\n"
        f"{platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}, "
        f"numpy {np.__version__}"
    )


if __name__ == "__main__":
    main()
