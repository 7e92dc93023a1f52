"""A checkpoint, evaluated as its run did it."""

from senet_jax.inference.trained import restore_run


def evaluate_run(path, which="last"):
    """Returns the step of the checkpoint and the metrics of its validation split."""
    run, step, variables = restore_run(path, which, with_data=True)
    return step, run.evaluate(variables)
