"""Crop, flip and Cutout of CIFAR batches: on the host in NumPy, or on the device in XLA.

    python experiments/benchmarks/augmentation.py

measures images a second of ``senet_jax.data.augment`` against a jitted ``vmap`` of
``dynamic_slice`` on the default device, the two interleaved, and prints the median of the paired
ratios with their quartiles.
"""

import dataclasses
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array

from senet_jax.data.augment import AugmentConfig, augment


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


@jax.jit
def on_device(images: Array, key: Array) -> Array:
    """The same changes as ``augment``, one image at a time under ``vmap``."""
    fill = jnp.array([125, 123, 114], jnp.uint8)

    def one(image: Array, key: Array) -> Array:
        crop_key, flip_key, cut_key = jax.random.split(key, 3)
        padded = jnp.broadcast_to(fill, (SIZE + 2 * PAD, SIZE + 2 * PAD, 3))
        padded = padded.at[PAD : PAD + SIZE, PAD : PAD + SIZE].set(image)
        top, left = jax.random.randint(crop_key, (2,), 0, 2 * PAD + 1)
        crop = jax.lax.dynamic_slice(padded, (top, left, 0), (SIZE, SIZE, 3))
        crop = jnp.where(jax.random.bernoulli(flip_key), crop[:, ::-1], crop)
        y, x = jax.random.randint(cut_key, (2,), 0, SIZE) - CUTOUT // 2
        rows, columns = jnp.arange(SIZE)[:, None] - y, jnp.arange(SIZE)[None] - x
        cut = (rows >= 0) & (rows < CUTOUT) & (columns >= 0) & (columns < CUTOUT)
        return jnp.where(cut[..., None], fill, crop)

    return jax.vmap(one)(images, jax.random.split(key, len(images)))


def main() -> None:
    """Runs the benchmark."""
    benchmark = tyro.cli(Benchmark, description=__doc__)
    rng = np.random.default_rng(0)
    shape = (benchmark.batch_size, SIZE, SIZE, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    config = AugmentConfig(pad=PAD, flip=True, cutout=CUTOUT)
    fill = np.array([125, 123, 114], np.uint8)

    def host() -> float:
        began = time.perf_counter()
        for _ in range(benchmark.batches):
            jax.device_put(augment(images, config, fill, rng))
        return time.perf_counter() - began

    def device() -> float:
        began = time.perf_counter()
        for step in range(benchmark.batches):
            out = on_device(jax.device_put(images), jax.random.key(step))
        out.block_until_ready()
        return time.perf_counter() - began

    host(), device()
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
