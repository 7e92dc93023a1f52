"""`senet-jax convert`."""

import argparse
from pathlib import Path

from senet_jax.command_line.arguments import path
from senet_jax.command_line.source import add_source, read_source

EXAMPLES = """examples:
  senet-jax convert seresnet50.pth --model seresnet50 --out seresnet50.safetensors
  senet-jax convert hf-hub:timm/seresnet50.ra2_in1k --model seresnet50
  senet-jax convert last.ckpt --model resnet18 --num-classes 10 --weights-of raw
  senet-jax convert runs/demo --out demo.npz          the newest checkpoint of a run

The weights are checked against the network, every name and shape, and written in timm's names
(cifar_*: layer1.0.conv1 ... linear), which PyTorch reads and --init-weights and --weights too. A
training checkpoint of PyTorch's (.pth, .pth.tar, .ckpt) is taken as it is: of its weights and their
moving average the average, unless --weights-of says otherwise, and prefixes such as module.,
_orig_mod. and model. are left out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    add_source(parser)
    parser.add_argument("--drop-head", action="store_true", help="start a fresh classifier")
    parser.add_argument("--out", type=path, help=".safetensors or .npz; default MODEL.safetensors")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from senet_jax.interchange import save_weights
    from senet_jax.interchange.files import check_arrays_target

    if options.out is not None:
        check_arrays_target(options.out)
    source = read_source(options, drop_head=options.drop_head, detectors=True)
    out = options.out or Path(f"{source.name}.safetensors")
    save_weights(out, source.name, source.variables, channels=source.channels, **source.fields)
    print(f"{out}: the weights of {source.network}")
    return 0
