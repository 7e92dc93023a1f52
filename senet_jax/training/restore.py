"""A finished or stopped run, taken up to be evaluated."""

import dataclasses
from pathlib import Path
from typing import Literal

from senet_jax.errors import UsageError
from senet_jax.training.checkpoint import Checkpoints
from senet_jax.training.evaluate import Evaluation
from senet_jax.training.run import Run
from senet_jax.training.run_dir import read_config


def evaluate_run(path: Path, which: Literal["last", "best"] = "last") -> tuple[int, Evaluation]:
    """Evaluates a checkpoint of a run as the run itself did.

    Args:
        path: Folder of a run, or of one of its checkpoints (``RUN/checkpoints/STEP``).
        which: For the folder of a run, the newest checkpoint or that of the best validation top-1.

    Returns:
        The step of the checkpoint, and the result on the validation split.

    Raises:
        UsageError: There is no such run or checkpoint, or it cannot be read.
    """
    path = path.absolute()
    named = path.parent.name == "checkpoints" and path.name.isdecimal()
    run_dir = path.parent.parent if named else path
    config = dataclasses.replace(read_config(run_dir), devices=None)
    checkpoints = Checkpoints(run_dir / "checkpoints")
    steps = checkpoints.steps()
    if not steps:
        raise UsageError(f"{run_dir} has no finished checkpoint yet.")
    step = int(path.name) if named else steps[-1]
    if which == "best" and not named:
        step = checkpoints.best_step() or step
    if step not in steps:
        raise UsageError(f"{run_dir} has no checkpoint {step}: there are {steps}.")
    run = Run(config)
    restored = checkpoints.restore(step, run.abstract)
    return step, run.evaluate(restored.state)
