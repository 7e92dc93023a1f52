"""The two forms of RoIAlign: time forward and backward, and XLA's account of their temporaries.

    python -m experiments.benchmarks.roi_align --images 8 --side 96 --rois 64

prints the time of each form over that of the form that suits the device, measured in turns, and the
temporaries of its gradient over the memory of the result.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.harness.measure import (
    RESULTS,
    interleave,
    ratio,
    spread,
    table,
    warn_if_busy,
    write,
)
from senet_jax.ops.per_image import per_image
from senet_jax.ops.roi_align import assign_levels, roi_align
from senet_jax.ops.roi_forms import FORMS, best
from senet_jax.ops.target import target

COLUMNS = ("form", "suits", "ms", "time / suits", "temporaries / result")
STRIDES = (4, 8, 16, 32)


@dataclasses.dataclass(frozen=True)
class RoIAlignForms:
    """Measure both forms of RoIAlign."""

    images: int = 8
    """Images of a step."""
    side: int = 96
    """Side of the images, pixels; a multiple of 32."""
    rois: int = 64
    """RoIs an image."""
    bins: int = 7
    """Rows and columns of the result."""
    channels: int = 64
    """Channels of the feature maps."""
    pairs: int = 15
    """Rounds of measurements."""
    sample_s: float = 0.5
    """Seconds of a measurement, or those of one step if that is more."""
    out: Path = RESULTS / "roi_align.json"
    """The result."""


def draw(settings: RoIAlignForms) -> tuple[list[np.ndarray], np.ndarray]:
    """Feature maps of all levels, and RoIs, of the images of a step."""
    rng = np.random.default_rng(0)
    n, side = settings.images, settings.side
    levels = [
        rng.standard_normal((n, side // step, side // step, settings.channels), np.float32)
        for step in STRIDES
    ]
    corner = rng.uniform(0, 0.7 * side, (n, settings.rois, 2))
    far = np.minimum(corner + rng.uniform(4, 0.6 * side, corner.shape), side)
    return levels, np.concatenate([corner, far], -1).astype(np.float32)


def compile_form(form: str, settings: RoIAlignForms, arguments: Any) -> Any:
    """The compiled gradient of the maps, for the sum of the squares of the result."""
    scales = [1 / step for step in STRIDES]

    def loss(levels: list[jax.Array], boxes: jax.Array) -> jax.Array:
        # So that small images have RoIs of several levels, too.
        of_level = assign_levels(boxes, side=settings.side)
        found = roi_align(levels, boxes, of_level, scales, settings.bins, form=form)
        return jnp.square(found).sum()

    return jax.jit(per_image(jax.grad(loss))).lower(*arguments).compile()


def timer(program: Callable[..., Any], arguments: Any, sample_s: float) -> Callable[[], float]:
    """Measures the seconds of a call, over so many calls as fill ``sample_s``."""

    def seconds(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            jax.block_until_ready(program(*arguments))
        return (time.perf_counter() - began) / calls

    seconds(1)
    calls = max(1, round(sample_s / seconds(1)))
    return lambda: seconds(calls)


def measure(settings: RoIAlignForms) -> list[dict[str, Any]]:
    """A row for each form."""
    arguments = jax.device_put(draw(settings))
    of_image = [level[0] for level in arguments[0]]
    suits = best(of_image, settings.rois, (settings.bins,) * 2, target())
    programs = {form: compile_form(form, settings, arguments) for form in FORMS}
    samplers = {
        form: timer(program, arguments, settings.sample_s) for form, program in programs.items()
    }
    times = interleave(samplers, dict.fromkeys(samplers, settings.pairs))
    result = 4 * settings.images * settings.rois * settings.bins**2 * settings.channels
    return [
        {
            "form": form,
            "suits": "yes" if form == suits else "",
            "ms": 1e3 * spread(times[form]).median,
            "time / suits": ratio(times[form], times[suits]),
            "temporaries / result": program.memory_analysis().temp_size_in_bytes / result,
        }
        for form, program in programs.items()
    ]


def main() -> None:
    """Runs the benchmark."""
    import tyro

    settings = tyro.cli(RoIAlignForms, description=__doc__)
    warn_if_busy()
    rows = measure(settings)
    print(table(rows, COLUMNS))
    write(settings.out, rows)


if __name__ == "__main__":
    main()
