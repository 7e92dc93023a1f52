"""`senet-jax prepare`."""

import argparse
from pathlib import Path

SUMMARY = "Download and build a data set of TensorFlow Datasets."

EXAMPLES = """examples:
  senet-jax prepare cifar10 --data-dir ~/tensorflow_datasets

Downloads and builds the set as array_record, which training reads without TensorFlow. Building
needs TensorFlow: pip install 'senet-jax[prepare]'."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument("name", help="name of the data set")
    parser.add_argument("--data-dir", type=Path, help="where to; default: TFDS_DATA_DIR")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from senet_jax.data.prepare import prepare

    print(f"{options.name} is in {prepare(options.name, options.data_dir)}")
    return 0
