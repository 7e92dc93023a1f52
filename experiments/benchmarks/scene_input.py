"""Training scenes on the host: scale the part that is cropped, or the whole image before the crop.

    python experiments/benchmarks/scene_input.py

measures images a second of the ResNeSt authors' augmentation (longer side 0.5 to 2 times 520, crop
480, flip) in one thread, from JPEG and PNG bytes to arrays, with ``scene_transforms`` against the
same draws with whole images scaled. The two are interleaved; the median of the paired ratios is
printed with its quartiles.
"""

import dataclasses
import platform
import time
from collections.abc import Callable
from io import BytesIO
from unittest import mock

import numpy as np
import PIL
import tyro
from PIL import Image

from senet_jax.data import scene_transforms
from senet_jax.data.config import AugmentConfig, CropConfig
from senet_jax.data.decode import decode
from senet_jax.data.label_files import LabelMap, decode_label
from senet_jax.data.scene_transforms import SceneTransform, scale_label, scaled_part
from senet_jax.data.scenes import Scene


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Measure the augmentation of scenes on the host."""

    height: int = 512
    """Height of the images, pixels."""
    width: int = 683
    """Width of the images, pixels; ADE20K's are about as large."""
    images: int = 16
    """Images of a measurement."""
    pairs: int = 25
    """Pairs of measurements."""


CLASSES = 150
RECIPE = CropConfig(size=(480,), base=520, scale=(0.5, 2.0))


def draw_files(height: int, width: int, count: int) -> list[tuple[bytes, bytes]]:
    """Encoded images and labels: smooth noise, and blocks of classes."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8))
        blocks = Image.fromarray(rng.integers(0, CLASSES + 1, (8, 8), np.uint8))
        image, label = BytesIO(), BytesIO()
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(image, "JPEG", quality=90)
        blocks.resize((width, height), Image.Resampling.NEAREST).save(label, "PNG")
        files.append((image.getvalue(), label.getvalue()))
    return files


def whole_scaled(
    scene: Scene, scaled: tuple[int, int], corner: tuple[int, int], part: tuple[int, int]
) -> Scene:
    """As ``scaled_part``, by scaling the whole scene."""
    image = Image.fromarray(scene.image).resize(scaled[::-1], Image.Resampling.BILINEAR)
    whole = Scene(np.asarray(image), scale_label(scene.label, scaled))
    return scaled_part(whole, scaled, corner, part)


def measure(benchmark: Benchmark) -> np.ndarray:
    """Seconds of each measurement: with parts scaled, and with wholes."""
    files = draw_files(benchmark.height, benchmark.width, benchmark.images)
    numbers = LabelMap.counting(CLASSES, 0)
    view = SceneTransform((480, 480), RECIPE, AugmentConfig(flip=True), (0, 0, 0), 255)

    def timed(scale: Callable[..., Scene], seed: int) -> float:
        with mock.patch.object(scene_transforms, "scaled_part", scale):
            began = time.perf_counter()
            for place, (image, label) in enumerate(files):
                scene = Scene(decode(image), numbers(decode_label(label)))
                view(scene, np.random.default_rng((seed, place)))
            return time.perf_counter() - began

    ways = (scaled_part, whole_scaled)
    return np.array([[timed(way, pair) for way in ways] for pair in range(benchmark.pairs)])


def main() -> None:
    """Runs the benchmark."""
    benchmark = tyro.cli(Benchmark, description=__doc__)
    times = measure(benchmark)
    parts, wholes = benchmark.images / np.median(times, axis=0)
    low, median, high = np.percentile(times[:, 1] / times[:, 0], (25, 50, 75))
    print(
        f"parts {parts:,.0f} images/s, wholes {wholes:,.0f} images/s in one thread; "
        f"wholes/parts in time {median:.2f} (quartiles {low:.2f} to {high:.2f}, "
        f"{benchmark.pairs} pairs)\n{platform.machine()}, Pillow {PIL.__version__}, "
        f"numpy {np.__version__}"
    )


if __name__ == "__main__":
    main()
