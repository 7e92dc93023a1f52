"""The wait before step 1 and the memory of the step, against an earlier commit.

    python -m experiments.benchmarks.compile_before --before COMMIT

checks COMMIT out into a temporary worktree and runs ``compile_time`` of both trees in turns, each
in a fresh process with an empty compilation cache. Prints ratios, this tree over COMMIT: seconds
before step 1, the CPU seconds of the process, which another process on the machine disturbs less,
and the memory of the training step by XLA's account (arguments, results and temporaries).
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tyro

from experiments.benchmarks.harness.measure import RESULTS, interleave, ratio, table, write
from experiments.benchmarks.harness.worktree import ROOT, worktree
from senet_jax.errors import ExitCode, UsageError

MODELS = (
    "cifar_seresnet20",
    "resnet18",
    "resnet50",
    "seresnext50_32x4d",
    "resnest50d",
    "densenet121",
    "vgg16",
    "mobilenet_v1",
    "inception_v3",
)
SECONDS, CPU, MEMORY = "before step 1 s", "CPU s", "step MiB"
COLUMNS = ("model", "seconds", "CPU seconds", "step MiB before", "step MiB", "memory")

_JOB = """
import json, resource, sys
import jax

sizes = []
compile_program = jax.stages.Lowered.compile

def noting(lowered, *arguments, **options):
    compiled = compile_program(lowered, *arguments, **options)
    account = compiled.memory_analysis()
    sizes.append(
        account.argument_size_in_bytes + account.output_size_in_bytes
        - account.alias_size_in_bytes + account.temp_size_in_bytes
    )
    return compiled

jax.stages.Lowered.compile = noting
from experiments.benchmarks import compile_time
found = compile_time._here(*json.loads(sys.argv[1]))
used = resource.getrusage(resource.RUSAGE_SELF)
found["CPU s"] = used.ru_utime + used.ru_stime
found["step MiB"] = sizes[-1] / 2**20
print(json.dumps(found))
"""


@dataclasses.dataclass(frozen=True)
class CompileBefore:
    """Compare compile time and memory of training steps with those of a commit."""

    before: str
    """The commit; its benchmark `compile_time` must take the same job as that of this tree."""
    models: tuple[str, ...] = MODELS
    """Names that `senet-jax models` lists."""
    batch: int = 8
    """Images of a step."""
    rounds: int = 3
    """Pairs of each network."""
    out: Path = RESULTS / "compile_before.json"
    """The result."""


def compiled_in(tree: Path, model: str, batch: int) -> dict[str, float]:
    """The phases of ``compile_time``, CPU seconds and memory of a network in a source tree.

    Raises:
        RuntimeError: The tree cannot compile it.
    """
    job = json.dumps([model, batch, None, "float32"])
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-c", _JOB, job],
            env={**os.environ, "PYTHONPATH": str(tree), "JAX_COMPILATION_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            cwd=tree,
        )
    if done.returncode:
        raise RuntimeError(f"{model} could not be compiled in {tree}:\n{done.stderr}")
    return json.loads(done.stdout)


def compare(before: Path, now: Path, model: str, batch: int, rounds: int) -> dict[str, Any]:
    """The row of a network: ratios of the trees ``now`` over ``before``."""
    trees = {"before": before, "now": now}
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in trees}

    def sampler(side: str) -> Any:
        def sample() -> float:
            runs[side].append(compiled_in(trees[side], model, batch))
            return runs[side][-1][SECONDS]

        return sample

    interleave({side: sampler(side) for side in trees}, dict.fromkeys(trees, rounds))

    def against(key: str) -> Any:
        return ratio([run[key] for run in runs["now"]], [run[key] for run in runs["before"]])

    return {
        "model": model,
        "seconds": against(SECONDS),
        "CPU seconds": against(CPU),
        "step MiB before": runs["before"][-1][MEMORY],
        "step MiB": runs["now"][-1][MEMORY],
        "memory": runs["now"][-1][MEMORY] / runs["before"][-1][MEMORY],
        "runs": runs,
    }


def main(options: CompileBefore) -> None:
    """Compares, prints and writes.

    Raises:
        UsageError: The repository does not have the commit.
    """
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        worktree(options.before, Path(scratch) / "tree") as before,
    ):
        for model in options.models:
            rows.append(compare(before, ROOT, model, options.batch, options.rounds))
            write(options.out, rows, before=options.before)
    print(f"{table(rows, COLUMNS)}\n\n{options.out}")


if __name__ == "__main__":
    try:
        main(tyro.cli(CompileBefore, description=__doc__))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)
