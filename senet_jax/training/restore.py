"""A run, a checkpoint or a file of weights, taken up to be evaluated or passed on."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from senet_jax.errors import UsageError
from senet_jax.training.checkpoint import Checkpoints
from senet_jax.training.config import TrainConfig
from senet_jax.training.evaluate import Evaluation
from senet_jax.training.run import Run
from senet_jax.training.run_dir import read_config


def restore_run(
    path: Path, which: Literal["last", "best"] = "last"
) -> tuple[Run, int, dict[str, Any]]:
    """Reads the variables of a run that were, or would be, evaluated.

    Args:
        path: Folder of a run, or of one of its checkpoints (``RUN/checkpoints/STEP``).
        which: For the folder of a run, the newest checkpoint or that of the best validation top-1.

    Returns:
        The run, the step of the checkpoint, and its ``params`` and ``batch_stats``.

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
    state = checkpoints.restore(step, run.abstract).state
    return run, step, state.eval_variables


def evaluate_run(path: Path, which: Literal["last", "best"] = "last") -> tuple[int, Evaluation]:
    """Evaluates a checkpoint of a run as the run itself did; arguments as ``restore_run``.

    Returns:
        The step of the checkpoint, and the result on the validation split.
    """
    run, step, variables = restore_run(path, which)
    return step, run.evaluate(variables)


def evaluate_weights(config: TrainConfig) -> Evaluation:
    """Evaluates ``config.init_weights`` on the validation split of the config's data.

    Raises:
        UsageError: The weights cannot be read, or do not fit the network.
    """
    run = Run(config)
    assert run.init_variables is not None
    return run.evaluate(run.init_variables)
