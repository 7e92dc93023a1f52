"""The command line: ``senet-jax train | evaluate | models | prepare``.

Exit codes: 0, done; 2, the input cannot be used as it is; 3, the training diverged; 75, stopped
by a signal with the state saved, so that the same command resumes.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from senet_jax.errors import UsageError, choose

BAD_INPUT, DIVERGED, PREEMPTED = 2, 3, 75

EXAMPLES = {
    "train": """examples:
  senet-jax train demo                                     handwritten digits, a minute
  senet-jax train cifar10 --model.name cifar_seresnet56    the recipe of the ResNet paper
  senet-jax train cifar10 --model.attention.gate tanh --run-dir runs/tanh      an ablation
  senet-jax train --data.name folder --data.dir DIR --data.image-size 64 --run-dir runs/mine

A preset (demo, cifar10, cifar100) comes first; flags change any field of it, and
`senet-jax train PRESET --help` lists them. The same command on the same --run-dir resumes.""",
    "evaluate": """examples:
  senet-jax evaluate runs/demo                        the newest checkpoint of a run
  senet-jax evaluate runs/demo --which best --json    the one of the best validation top-1
  senet-jax evaluate runs/demo/checkpoints/660        this very checkpoint""",
    "models": """examples:
  senet-jax models                        all networks
  senet-jax models 'cifar_se*'            those whose name matches
  senet-jax models seresnet50 --json      as a list of objects""",
    "prepare": """examples:
  senet-jax prepare cifar10 --data-dir ~/tensorflow_datasets

Downloads and builds the set as array_record, which training reads without TensorFlow. Building
needs TensorFlow: pip install 'senet-jax[prepare]'.""",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: The arguments; None means those of the process.

    Returns:
        The exit code.
    """
    logging.basicConfig(format="senet-jax: %(message)s", level=logging.WARNING)
    # Orbax and TFDS speak through absl of what is no concern of a user.
    logging.getLogger("absl").setLevel(logging.ERROR)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["train"]:
            return _train(arguments[1:])
        options = _parser().parse_args(arguments)
        return options.run(options)
    except UsageError as error:
        print(f"senet-jax: error: {error}", file=sys.stderr)
        return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="senet-jax", description=_summary(__doc__))
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=EXAMPLES[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    # Only for the list of commands: what follows `train` is read by tyro, one flag a field.
    add("train", "Train a network, or resume.")
    evaluate = add("evaluate", "Evaluate a run or one of its checkpoints on the held-out images.")
    evaluate.add_argument("path", type=Path, help="folder of a run, or of a checkpoint of it")
    evaluate.add_argument(
        "--which", choices=("last", "best"), default="last", help="which checkpoint of a run"
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    evaluate.set_defaults(run=_evaluate)
    models = add("models", "List the networks with their parameters and multiply-accumulates.")
    models.add_argument("pattern", nargs="?", default="*", help="shell pattern of names")
    models.add_argument("--json", action="store_true", help="print a list of JSON objects")
    models.set_defaults(run=_models)
    prepare = add("prepare", "Download and build a data set of TensorFlow Datasets.")
    prepare.add_argument("name", help="name of the data set")
    prepare.add_argument("--data-dir", type=Path, help="where to; default: TFDS_DATA_DIR")
    prepare.set_defaults(run=_prepare)
    return parser


def _train(arguments: list[str]) -> int:
    import tyro

    from senet_jax.training.config import TrainConfig, field_names, preset

    named = bool(arguments) and not arguments[0].startswith("-")
    default = preset(arguments.pop(0)) if named else TrainConfig()
    config, unknown = tyro.cli(
        TrainConfig,
        prog="senet-jax train [PRESET]",
        description=f"{_summary(TrainConfig.__doc__)}\n\n{EXAMPLES['train']}",
        default=default,
        args=arguments,
        return_unknown_args=True,
    )
    if unknown:
        flags = [f"--{name.replace('_', '-')}" for name in field_names(default)]
        choose("argument", unknown[0].partition("=")[0].replace("_", "-"), flags)
        raise UsageError(f"{unknown[0]!r} is no argument of train: see senet-jax train --help.")

    from senet_jax.analysis.report import report_run
    from senet_jax.training.loop import Diverged, Preempted, train

    try:
        train(config)
    except (Diverged, Preempted) as stopped:
        print(f"senet-jax: {stopped}", file=sys.stderr)
        return DIVERGED if isinstance(stopped, Diverged) else PREEMPTED
    print(report_run(config.run_dir))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from senet_jax.training.restore import evaluate_run

    step, result = evaluate_run(options.path, options.which)
    if options.json:
        print(json.dumps({"step": step, **result.metrics()}))
    else:
        print(
            f"step {step:,}: top-1 {result.top1:.2%} of {result.count:,} held-out images, "
            f"loss {result.loss:.4f}"
        )
    return 0


def _models(options: argparse.Namespace) -> int:
    from senet_jax.models.cost import cost
    from senet_jax.models.zoo import create_model, find, list_models

    names = list_models(options.pattern)
    if not names:
        raise UsageError(f"no network matches {options.pattern!r}: `senet-jax models` lists all.")
    rows: list[dict[str, Any]] = []
    for name in names:
        size = find(name).input_size
        counted = cost(create_model(name), size)
        rows.append(
            {"name": name, "params": counted.params, "macs": counted.macs, "input_size": size}
        )
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(f"{'name':<28}{'parameters':>14}{'GMACs':>10}{'input':>8}")
    for row in rows:
        print(
            f"{row['name']:<28}{row['params']:>14,}{row['macs'] / 1e9:>10.3f}{row['input_size']:>8}"
        )
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from senet_jax.data.prepare import prepare

    print(f"{options.name} is in {prepare(options.name, options.data_dir)}")
    return 0


def _summary(docstring: str | None) -> str:
    return (docstring or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
