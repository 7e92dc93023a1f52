"""senet_jax against plain Flax and against PyTorch, in the same run on the same machine.

    python -m experiments.benchmarks.race --torch-python /path/to/python

measures steps of training and inference, the contenders in turns, and prints images a second, the
median of the paired ratios with their quartiles and number, the seconds until the first step and
the peak of memory. Writes all of it to --out (JSON) and draws a chart beside it (PNG). Each network
has a batch, an image size and a number of classes of its own (``jobs.JOBS``), which --batch and
--size override. Memory of the Flax networks is what XLA's compiled program needs; PyTorch's is, on
a GPU, what it allocated, and on a CPU how much the process grew. On CPUs all contenders keep freed
memory as `senet-jax train` does.

PyTorch's network is timm's, or one of ``torch_networks`` where timm lacks it. Before it is measured
its logits are compared with senet_jax's, with the same weights. It takes part twice, as it is and
with torch.compile; if that fails (for lack of a C++ compiler, say), its row says why. On CPUs
images and weights are channels-last, which is the faster layout there.

On CPUs it needs a machine that does nothing else: the threads of PyTorch's OpenMP wait spinning,
and beside other processes become ten times slower, which XLA's do not (OMP_WAIT_POLICY=passive, if
it must be). The load at the end of each race is in the result.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from experiments.benchmarks.harness.contenders import (
    COLUMNS,
    COMPILED,
    OURS,
    PLAIN_FLAX,
    TORCH,
    Contender,
    JaxContender,
    TorchContender,
    TorchError,
    check_same_network,
    compete,
    left_out,
    race_rows,
)
from experiments.benchmarks.harness.jobs import MODELS, Job, Mode, find_jobs
from experiments.benchmarks.harness.measure import RESULTS, table, warn_if_busy, write
from experiments.benchmarks.harness.parity import check_logits
from experiments.benchmarks.harness.plain_flax import PLAIN
from senet_jax.files import write_whole
from senet_jax.training.machine.allocator import keep_freed_memory

Precision = Literal["channels_last", "amp"]


@dataclasses.dataclass(frozen=True)
class Race:
    """Race senet_jax against its peers."""

    models: tuple[str, ...] = MODELS
    """Names that `senet-jax models` lists. Those that plain Flax lacks race without it."""
    modes: tuple[Mode, ...] = ("train", "infer")
    """Training steps, inference, or forward passes of training steps."""
    batch: int | None = None
    """Images of a step; if None, the network's own number."""
    size: int | None = None
    """Side of the images, pixels; if None, the network's own."""
    dtype: str = "float32"
    """Compute precision of the Flax networks."""
    torch_python: str | None = None
    """A Python that has torch and timm; if None, PyTorch does not take part."""
    torch_options: tuple[Precision, ...] | None = None
    """Layout and precision of PyTorch, "amp" being bfloat16; if None, both on a GPU and
    "channels_last" on a CPU."""
    torch_compile: bool = True
    """Let PyTorch take part with torch.compile, too."""
    check: bool = True
    """Compare the logits of PyTorch's network with senet_jax's before the race."""
    plain: bool = True
    """Let plain Flax take part."""
    pairs: int = 15
    """Rounds of measurements."""
    sample_s: float = 1.0
    """Seconds of a measurement, or those of one step if that is more."""
    slow_s: float = 20.0
    """A contender whose step takes more seconds than this is measured in `slow_pairs` rounds."""
    slow_pairs: int = 3
    """Rounds of a slow contender; 0 leaves it out."""
    out: Path = RESULTS / "race.json"
    """The result; the chart has the same name and ends in .png."""

    @property
    def options(self) -> tuple[Precision, ...]:
        """Layout and precision of PyTorch."""
        if self.torch_options is not None:
            return self.torch_options
        return ("channels_last",) if jax.default_backend() == "cpu" else ("channels_last", "amp")


def enter(race: Race, job: Job) -> tuple[dict[str, Contender], dict[str, str]]:
    """Builds the contenders of a job, one after the other.

    Returns:
        The contenders by name, and why one is left out, by its name.

    Raises:
        TorchError: PyTorch fails without torch.compile.
    """
    contenders: dict[str, Contender] = {}
    reasons: dict[str, str] = {}
    if race.torch_python is not None:
        eager = TorchContender(race.torch_python, job, race.options)
        eager.wait()
        contenders[TORCH] = eager
        if race.torch_compile:
            compiled = TorchContender(race.torch_python, job, (*race.options, "compile"))
            try:
                compiled.wait()
                contenders[COMPILED] = compiled
            except TorchError as error:
                reasons[COMPILED] = str(error)
    if race.plain and job.model in PLAIN:
        twin = PLAIN[job.model](num_classes=job.classes, dtype=jnp.dtype(job.dtype))
        contenders[PLAIN_FLAX] = JaxContender(twin, job)
    contenders[OURS] = JaxContender(job.build(), job)
    check_same_network(job, contenders)
    return contenders, reasons


def run(race: Race) -> list[dict[str, Any]]:
    """Runs all races, and writes after each, so that what was measured is not lost."""
    warn_if_busy()
    found: list[dict[str, Any]] = []
    checked: set[Job] = set()
    peer = {"torch_options": " ".join(race.options)}
    for job in find_jobs(race.models, race.modes, race.batch, race.size, race.dtype):
        either = dataclasses.replace(job, mode="train")
        if race.check and race.torch_python is not None and either not in checked:
            check_logits(race.torch_python, job)
            checked.add(either)
        contenders, reasons = enter(race, job)
        times = compete(contenders, race.pairs, race.sample_s, race.slow_s, race.slow_pairs)
        lines = race_rows(job, contenders, times)
        lines += [left_out(job, name, reason) for name, reason in reasons.items()]
        for contender in contenders.values():
            if isinstance(contender, TorchContender):
                peer |= contender.about
            contender.close()
        found += lines
        print(show(lines), flush=True)
        write(race.out, found, peer=peer)
    return found


def show(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of the results, and a line for each contender that was left out."""
    reasons = [
        f"{row['contender']} is left out of {row['model']} ({row['mode']}): {row['left out']}"
        for row in rows
        if "left out" in row
    ]
    return "\n\n".join([table(rows, COLUMNS), *reasons])


def draw(found: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Draws speeds over senet_jax's: a panel for each mode, a group of bars for each job.

    Beside each bar stand its images a second, which differ too much for one axis.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    measured = [row for row in found if row["images/s"] is not None]
    modes = list(dict.fromkeys(row["mode"] for row in found))
    jobs = list(dict.fromkeys((row["model"], row["size"]) for row in found))
    taking_part = {row["contender"] for row in measured}
    names = [name for name in (TORCH, COMPILED, PLAIN_FLAX, OURS) if name in taking_part]
    figure, panels = plt.subplots(
        1,
        len(modes),
        figsize=(5 * len(modes), 1.5 + 0.2 * len(jobs) * max(3, len(names))),
        squeeze=False,
        layout="constrained",
    )
    for mode, axes in zip(modes, panels[0], strict=True):
        for index, name in enumerate(names):
            rows = [row for row in measured if (row["mode"], row["contender"]) == (mode, name)]
            places = [jobs.index((row["model"], row["size"])) for row in rows]
            drawn = axes.barh(
                [place + 0.8 * (index + 0.5) / len(names) - 0.4 for place in places],
                [row[f"{OURS} / this"].median for row in rows],
                0.8 / len(names),
                label=name,
                color=f"C{index}",
            )
            speeds = [f"{row['images/s']:,.3g}" for row in rows]
            axes.bar_label(drawn, speeds, padding=2, fontsize="small")
        axes.set(
            yticks=range(len(jobs)),
            yticklabels=[f"{model}, {size}" for model, size in jobs],
            xlabel=f"speed / {OURS}'s, and images/s",
            title=mode,
        )
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
    print(f"\n{show(found)}\n\n{race.out}, {chart}")


if __name__ == "__main__":
    main()
