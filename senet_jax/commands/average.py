"""`senet-jax average`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from senet_jax.command_line.arguments import count, path
from senet_jax.ranges import MOST_STEPS

if TYPE_CHECKING:
    from senet_jax.inference.average import Average

EXAMPLES = """examples:
  senet-jax average runs/a --last 5                          the newest five of a run
  senet-jax average runs/a/checkpoints/100 runs/b --last 1 --out soup.safetensors
  senet-jax average runs/a --bn-batches 100                  stochastic weight averaging
  senet-jax evaluate --weights average.safetensors --model seresnet50 --data imagenet2012

Averaged is what is evaluated: the parameters, or of a run with --ema-decay their moving averages.
The averages of batch norm statistics are not the statistics of averaged weights (arXiv 1803.05407,
section 3.2): --bn-batches reads training images and takes them anew, which the data must be there
for. A run keeps checkpoints to average with --checkpoint.keep-last or .keep-every-epochs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument("path", nargs="+", type=path, help="folders of runs or of checkpoints")
    parser.add_argument(
        "--last", type=count(1, MOST_STEPS), help="take only this many of the newest of a run"
    )
    parser.add_argument(
        "--bn-batches",
        type=count(1, MOST_STEPS),
        metavar="N",
        help="take the batch norm statistics over so many training batches",
    )
    parser.add_argument("--out", type=path, default=Path("average.safetensors"))


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from senet_jax.inference.average import average_checkpoints, batch_norm_statistics
    from senet_jax.inference.trained import IMAGES_ALONE, check_task
    from senet_jax.interchange import save_weights
    from senet_jax.interchange.files import check_arrays_target
    from senet_jax.models.configured import model_fields

    check_arrays_target(options.out)
    for run_path in options.path:
        check_task(run_path, IMAGES_ALONE)
    again = options.bn_batches is not None
    average = average_checkpoints(options.path, options.last, with_data=again)
    variables, trained = average.variables, average.run
    if again:
        stats = batch_norm_statistics(trained, variables, options.bn_batches)
        variables = {**variables, "batch_stats": stats}
    save_weights(
        options.out,
        trained.config.model.name,
        variables,
        channels=trained.dataset.image_shape[2],
        **model_fields(trained.config.model, len(trained.dataset.classes)),
    )
    print(_said(options.out, average, options.bn_batches))
    return 0


def _said(out: Path, average: "Average", bn_batches: int | None) -> str:
    config = average.run.config
    what = "the parameters" if config.ema_decay is None else "the moving averages (EMA)"
    members = ", ".join(f"{path} step {step}" for path, step in average.members)
    stats = "averaged too" if bn_batches is None else f"taken over {bn_batches} training batches"
    data = config.data
    where = "" if data.dir is None else f" --data-dir {data.dir}"
    return (
        f"{out}: {what} of {len(average.members)} checkpoints ({members}); batch norm statistics "
        f"{stats}\nsenet-jax evaluate --weights {out} --model {config.model.name} --data "
        f"{data.name}{where} --normalization {data.normalization}"
    )
