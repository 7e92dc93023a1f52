"""senet_jax against plain Flax and against timm in PyTorch, in the same run on the same machine.

    python -m experiments.benchmarks.race --torch-python /path/to/python

measures steps of training and inference, the contenders in turns, and prints images a second, the
median of the paired ratios with their quartiles and number, the seconds until the first step and
the peak of memory. Writes all of it to --out (JSON) and draws a chart beside it (PNG). Memory of
the Flax networks is what XLA's compiled program needs; PyTorch's is, on a GPU, what it allocated,
and on a CPU how much the process grew. On CPUs the Flax networks, plain ones too, keep freed memory
as `senet-jax train` does.

On CPUs it needs a machine that does nothing else: the threads of PyTorch's OpenMP wait spinning,
and beside other processes become ten times slower, which XLA's do not (OMP_WAIT_POLICY=passive, if
it must be). The load at the end of each race is in the result.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from experiments.benchmarks.contenders import (
    COLUMNS,
    OURS,
    PLAIN_FLAX,
    TIMM,
    Contender,
    JaxContender,
    Job,
    Mode,
    TorchContender,
    TorchOption,
    check_same_network,
    compete,
    race_rows,
)
from experiments.benchmarks.measure import RESULTS, table, warn_if_busy, write
from experiments.benchmarks.plain_flax import PLAIN
from senet_jax.files import write_whole
from senet_jax.training.allocator import keep_freed_memory


@dataclasses.dataclass(frozen=True)
class Race:
    """Race senet_jax against its peers."""

    models: tuple[str, ...] = ("resnet50", "seresnet50", "seresnext50_32x4d", "resnest50d")
    """Names that `senet-jax models` lists. Plain Flax has ResNet, ResNeXt, their SE variants and
    ResNeSt; where it lacks a network the others race alone."""
    modes: tuple[Mode, ...] = ("train", "infer")
    """Training steps, inference, or both."""
    batch: int = 8
    """Images of a step."""
    size: int = 224
    """Side of the images, pixels."""
    dtype: str = "float32"
    """Compute precision of the Flax networks."""
    torch_python: str | None = None
    """A Python that has torch and timm; None races without them."""
    torch_options: tuple[TorchOption, ...] | None = None
    """What PyTorch uses, "amp" being bfloat16; None means all on a GPU and none on a CPU."""
    plain: bool = True
    """Whether plain Flax takes part."""
    pairs: int = 15
    """Rounds of measurements."""
    sample_s: float = 1.0
    """Seconds of a measurement, or those of one step if that is more."""
    slow_s: float = 20.0
    """Whose step takes more seconds than this takes part in a few rounds only ..."""
    slow_pairs: int = 3
    """... namely so many; 0 leaves it out."""
    out: Path = RESULTS / "race.json"
    """The result; the chart has the same name and ends in .png."""


def enter(race: Race, job: Job) -> tuple[dict[str, Contender], dict[str, str]]:
    """Builds the contenders of a job, one after the other; also the versions of PyTorch's side."""
    contenders: dict[str, Contender] = {}
    versions: dict[str, str] = {}
    if race.torch_python is not None:
        on_gpu: tuple[TorchOption, ...] = ("channels_last", "amp", "compile")
        default = () if jax.default_backend() == "cpu" else on_gpu
        options = default if race.torch_options is None else race.torch_options
        timm = TorchContender(race.torch_python, job, options)
        timm.wait()
        contenders[TIMM], versions = timm, {**timm.versions, "torch_options": " ".join(options)}
    if race.plain and job.model in PLAIN:
        twin = PLAIN[job.model](num_classes=job.classes, dtype=jnp.dtype(job.dtype))
        contenders[PLAIN_FLAX] = JaxContender(twin, job)
    contenders[OURS] = JaxContender(job.build(), job)
    check_same_network(job, contenders)
    return contenders, versions


def run(race: Race) -> list[dict[str, Any]]:
    """Runs all races, and writes after each, so that what was measured is not lost."""
    warn_if_busy()
    found: list[dict[str, Any]] = []
    for model in race.models:
        for mode in race.modes:
            job = Job(model, mode, race.batch, race.size, race.dtype)
            contenders, versions = enter(race, job)
            times = compete(contenders, race.pairs, race.sample_s, race.slow_s, race.slow_pairs)
            lines = race_rows(job, contenders, times)
            for contender in contenders.values():
                contender.close()
            found += lines
            print(table(lines, COLUMNS), flush=True)
            write(race.out, found, peer=versions)
    return found


def draw(found: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Draws images a second, a panel for each mode, a group of bars for each network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    modes = list(dict.fromkeys(row["mode"] for row in found))
    models = list(dict.fromkeys(row["model"] for row in found))
    names = [name for name in (TIMM, PLAIN_FLAX, OURS) if name in {r["contender"] for r in found}]
    figure, panels = plt.subplots(
        1,
        len(modes),
        figsize=(5 * len(modes), 1.5 + 0.8 * len(models)),
        squeeze=False,
        layout="constrained",
    )
    for mode, axes in zip(modes, panels[0], strict=True):
        speeds = {
            (row["model"], row["contender"]): row["images/s"]
            for row in found
            if row["mode"] == mode and row["images/s"] is not None
        }
        for index, name in enumerate(names):
            bars = [(place, speeds.get((model, name))) for place, model in enumerate(models)]
            shown = [(place, speed) for place, speed in bars if speed is not None]
            heights = [place + 0.8 * (index + 0.5) / len(names) - 0.4 for place, _ in shown]
            drawn = axes.barh(
                heights,
                [speed for _, speed in shown],
                0.8 / len(names),
                label=name,
                color=f"C{index}",
            )
            axes.bar_label(drawn, fmt="{:,.3g}", padding=2, fontsize="small")
        axes.set(yticks=range(len(models)), yticklabels=models, xlabel="images/s", title=mode)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    write_whole(out, lambda partial: figure.savefig(partial, format="png", dpi=150))
    plt.close(figure)


def main() -> None:
    """Runs the benchmark."""
    race = tyro.cli(Race, description=__doc__)
    keep_freed_memory()
    found = run(race)
    chart = race.out.with_suffix(".png")
    draw(found, chart)
    print(f"\n{table(found, COLUMNS)}\n\n{race.out}, {chart}")


if __name__ == "__main__":
    main()
