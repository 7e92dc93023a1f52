"""Train, evaluate and take apart networks with channel attention.

Exit codes: 0, done; 2, the input cannot be used as it is; 3, the training diverged; 75, stopped
by a signal with the state saved, so that the same command resumes.
"""

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Mapping, Sequence
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
  senet-jax train cifar100 --init-weights cifar10.npz --drop-head --frozen 'stem/*' 'stage2/*' \\
      --body-rate 0.1 --run-dir runs/finetuned             fine-tuning

A preset (demo, cifar10, cifar100) comes first; flags change any field of it, and
`senet-jax train PRESET --help` lists them. The same command on the same --run-dir resumes.
On a GPU or TPU compiled programs are kept in ~/.cache/senet_jax/xla, and the second start is
quicker; --compilation-cache True does so on a CPU, --compilation-cache False nowhere.""",
    "evaluate": """examples:
  senet-jax evaluate runs/demo                        the newest checkpoint of a run
  senet-jax evaluate runs/demo --which best --json    the one of the best validation top-1
  senet-jax evaluate runs/demo/checkpoints/660        this very checkpoint
  senet-jax evaluate --weights resnet20.npz --model cifar_resnet20 --data cifar10 \\
      --normalization imagenet                        weights in PyTorch's names""",
    "convert": """examples:
  senet-jax convert seresnet50.pth --model seresnet50 --out seresnet50.safetensors
  senet-jax convert hf-hub:timm/seresnet50.ra2_in1k --model seresnet50
  senet-jax convert runs/demo --out demo.npz          the newest checkpoint of a run

The weights are checked against the network, every name and shape, and written in timm's names
(cifar_*: layer1.0.conv1 ... linear), which PyTorch reads and --init-weights and --weights too.""",
    "export": """examples:
  senet-jax export runs/demo --format stablehlo --out demo.stablehlo
  senet-jax export seresnet50.safetensors --model seresnet50 --format onnx

stablehlo is read by jax alone, on CPUs, GPUs and TPUs:
  program = jax.export.deserialize(bytearray(open("demo.stablehlo", "rb").read()))
  logits = program.call(images)
Programs take normalised float32 images (n, h, w, c), any n, and give logits (n, classes). onnx is
run by onnxruntime and compared before it is written; it needs pip install 'senet-jax[onnx]'.
safetensors and npz are the weights in PyTorch's names, as `convert` writes them.""",
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
    evaluate.add_argument(
        "path", type=Path, nargs="?", help="folder of a run, or of a checkpoint of it"
    )
    evaluate.add_argument(
        "--which", choices=("last", "best"), default="last", help="which checkpoint of a run"
    )
    evaluate.add_argument("--weights", help="instead of a run: a file, or hf-hub:owner/repository")
    evaluate.add_argument("--model", help="name of the weights' network")
    evaluate.add_argument("--data", help="name of the data set to evaluate weights on")
    evaluate.add_argument("--data-dir", type=Path, help="where the data set lies")
    evaluate.add_argument("--image-size", type=int, help="side of a folder's images, pixels")
    evaluate.add_argument(
        "--normalization",
        choices=("dataset", "imagenet"),
        default="dataset",
        help="whose mean and standard deviation the weights were trained with",
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    evaluate.set_defaults(run=_evaluate)
    convert = add("convert", "Check weights against a network and write them to a file.")
    export = add("export", "Write a network for another runtime.")
    for command in (convert, export):
        command.add_argument("source", help="a weight file, hf-hub:owner/repository, or a run")
        command.add_argument("--model", help="name of the network; a run knows its own")
        command.add_argument(
            "--num-classes", type=int, help="classes of the weights, if not the model's"
        )
        command.add_argument("--channels", type=int, default=3, help="channels of the images")
    convert.add_argument("--drop-head", action="store_true", help="start a fresh classifier")
    convert.add_argument("--out", type=Path, help=".safetensors or .npz; default MODEL.safetensors")
    convert.set_defaults(run=_convert)
    export.add_argument(
        "--format", choices=("stablehlo", "onnx", "safetensors", "npz"), required=True
    )
    export.add_argument(
        "--image-size", type=int, help="side of the images, pixels; default: the network's own"
    )
    export.add_argument("--out", type=Path, help="the file; default MODEL.FORMAT")
    export.set_defaults(run=_export, drop_head=False)
    models = add("models", "List the networks with their parameters and multiply-accumulates.")
    models.add_argument("pattern", nargs="?", default="*", help="shell pattern of names")
    form = models.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of JSON objects")
    form.add_argument("--markdown", action="store_true", help="print a table in Markdown")
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
    from senet_jax.training.config import DataConfig, ModelConfig, TrainConfig
    from senet_jax.training.restore import evaluate_run, evaluate_weights

    if (options.path is None) == (options.weights is None):
        raise UsageError("give either the folder of a run or --weights.")
    if options.weights is None:
        step, result = evaluate_run(options.path, options.which)
        what: dict[str, Any] = {"step": step}
    else:
        if options.model is None or options.data is None:
            raise UsageError("--weights need the network's name, --model, and a data set, --data.")
        data = DataConfig(
            name=options.data,
            dir=options.data_dir,
            image_size=options.image_size,
            normalization=options.normalization,
        )
        model = ModelConfig(name=options.model)
        result = evaluate_weights(TrainConfig(model=model, data=data, init_weights=options.weights))
        what = {"weights": options.weights}
    if options.json:
        print(json.dumps({**what, **result.metrics()}))
        return 0
    right = round(result.top1 * result.count)
    print(
        f"{' '.join(f'{key} {value}' for key, value in what.items())}: top-1 {result.top1:.2%} "
        f"({right:,} of {result.count:,} held-out images), loss {result.loss:.5f}"
    )
    return 0


def _convert(options: argparse.Namespace) -> int:
    from senet_jax.interchange import save_weights

    source = _source(options)
    out = options.out or Path(f"{source.name}.safetensors")
    save_weights(out, source.name, source.variables, channels=source.channels, **source.fields)
    print(f"{out}: the weights of {source.name}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from senet_jax.interchange import export_network, save_weights
    from senet_jax.models.zoo import create_model

    source = _source(options)
    out = options.out or Path(f"{source.name}.{options.format}")
    if options.format in ("safetensors", "npz"):
        if out.suffix != f".{options.format}":
            raise UsageError(f"{out}: name a file that ends in .{options.format}.")
        save_weights(out, source.name, source.variables, channels=source.channels, **source.fields)
        print(f"{out}: the weights of {source.name}")
        return 0
    side = options.image_size or source.image_size
    model = create_model(source.name, **source.fields | {"dtype": None})
    shape = (side, side, source.channels)
    export_network(out, model, source.variables, shape, form=options.format)
    print(f"{out}: {source.name} of normalised float32 images (n, {side}, {side}, {shape[2]})")
    return 0


@dataclasses.dataclass(frozen=True)
class _Source:
    """A network and its weights, as a command names them."""

    name: str
    fields: dict[str, Any]
    variables: Mapping[str, Any]
    channels: int
    image_size: int


def _source(options: argparse.Namespace) -> _Source:
    from senet_jax.interchange import load_weights
    from senet_jax.models.zoo import find
    from senet_jax.training.network import model_fields
    from senet_jax.training.restore import restore_run

    if Path(options.source).is_dir():
        run, _, variables = restore_run(Path(options.source))
        fields = model_fields(run.config.model, len(run.dataset.classes))
        _, side, channels = run.dataset.image_shape
        return _Source(run.config.model.name, fields, variables, channels, side)
    if options.model is None:
        raise UsageError("--model must say which network the weights are of.")
    fields = {} if options.num_classes is None else {"num_classes": options.num_classes}
    variables = load_weights(
        options.source,
        options.model,
        drop_head=options.drop_head,
        channels=options.channels,
        **fields,
    )
    size = find(options.model).input_size
    return _Source(options.model, fields, variables, options.channels, size)


def _models(options: argparse.Namespace) -> int:
    from senet_jax.models.cost import cost
    from senet_jax.models.zoo import create_model, find, list_models

    names = list_models(options.pattern)
    if not names:
        raise UsageError(f"no network matches {options.pattern!r}: `senet-jax models` lists all.")

    def count(name: str) -> dict[str, Any]:
        size = find(name).input_size
        counted = cost(create_model(name), size)
        return {"name": name, "params": counted.params, "macs": counted.macs, "input_size": size}

    if options.json:
        print(json.dumps([count(name) for name in names], indent=2))
        return 0
    if options.markdown:
        head = "| name | parameters | GMACs | input |\n|---|--:|--:|--:|"
        line = "| {name} | {params:,} | {gmacs:.3f} | {input_size} |"
    else:
        head = f"{'name':<28}{'parameters':>14}{'GMACs':>10}{'input':>8}"
        line = "{name:<28}{params:>14,}{gmacs:>10.3f}{input_size:>8}"
    print(head)
    for name in names:
        row = count(name)
        print(line.format(**row, gmacs=row["macs"] / 1e9), flush=True)
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from senet_jax.data.prepare import prepare

    print(f"{options.name} is in {prepare(options.name, options.data_dir)}")
    return 0


def _summary(docstring: str | None) -> str:
    return (docstring or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
