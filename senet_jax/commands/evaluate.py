"""`senet-jax evaluate`."""

import argparse
import json
from pathlib import Path
from typing import Any

from senet_jax.errors import UsageError

SUMMARY = "Evaluate a run or one of its checkpoints on the held-out images."

EXAMPLES = """examples:
  senet-jax evaluate runs/demo                        the newest checkpoint of a run
  senet-jax evaluate runs/demo --which best --json    the one of the best validation top-1
  senet-jax evaluate runs/demo/checkpoints/660        this very checkpoint
  senet-jax evaluate --weights resnet20.npz --model cifar_resnet20 --data cifar10 \\
      --normalization imagenet                        weights in PyTorch's names"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument(
        "path", type=Path, nargs="?", help="folder of a run, or of a checkpoint of it"
    )
    parser.add_argument(
        "--which", choices=("last", "best"), default="last", help="which checkpoint of a run"
    )
    parser.add_argument("--weights", help="instead of a run: a file, or hf-hub:owner/repository")
    parser.add_argument("--model", help="name of the weights' network")
    parser.add_argument("--data", help="name of the data set to evaluate weights on")
    parser.add_argument("--data-dir", type=Path, help="where the data set lies")
    parser.add_argument("--image-size", type=int, help="side of a folder's images, pixels")
    parser.add_argument(
        "--normalization",
        choices=("dataset", "imagenet"),
        default="dataset",
        help="whose mean and standard deviation the weights were trained with",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from senet_jax.data.config import DataConfig
    from senet_jax.training.config import ModelConfig, TrainConfig
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
