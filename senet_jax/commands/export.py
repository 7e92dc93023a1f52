"""`senet-jax export`."""

import argparse
from pathlib import Path

from senet_jax.command_line.arguments import number_of, path
from senet_jax.command_line.source import add_source, read_source
from senet_jax.data.config import DataConfig
from senet_jax.errors import UsageError

EXAMPLES = """examples:
  senet-jax export runs/demo --format stablehlo --out demo.stablehlo
  senet-jax export seresnet50.safetensors --model seresnet50 --format onnx

stablehlo is read by jax alone, on CPUs, GPUs and TPUs:
  program = jax.export.deserialize(bytearray(open("demo.stablehlo", "rb").read()))
  logits = program.call(images)
Programs take normalized float32 images (n, h, w, c), any n, and give logits (n, classes). onnx is
run by onnxruntime and compared before it is written; it needs pip install -e '.[onnx]'.
safetensors and npz are the weights in PyTorch's names, as `convert` writes them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    add_source(parser)
    parser.add_argument(
        "--format", choices=("stablehlo", "onnx", "safetensors", "npz"), required=True
    )
    parser.add_argument(
        "--image-size",
        type=number_of(DataConfig, "image_size"),
        help="side of the images, pixels; default: the network's own",
    )
    parser.add_argument("--out", type=path, help="the file; default MODEL.FORMAT")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from senet_jax.files import check_target
    from senet_jax.interchange import export_network, save_weights
    from senet_jax.models.zoo import create_model

    arrays = options.format in ("safetensors", "npz")
    if options.out is not None:
        if arrays and options.out.suffix != f".{options.format}":
            raise UsageError(f"{options.out}: name a file that ends in .{options.format}.")
        check_target(options.out)
    source = read_source(options, detectors=arrays)
    out = options.out or Path(f"{source.name}.{options.format}")
    check_target(out)
    if arrays:
        save_weights(out, source.name, source.variables, channels=source.channels, **source.fields)
        print(f"{out}: the weights of {source.network}")
        return 0
    side = options.image_size or source.image_size
    model = create_model(source.name, **source.fields | {"dtype": None})
    shape = (side, side, source.channels)
    export_network(out, model, source.variables, shape, form=options.format)
    print(f"{out}: {source.network} of normalized float32 images (n, {side}, {side}, {shape[2]})")
    return 0
