"""The commands by their names; each is imported when it is asked for."""

import importlib
from types import ModuleType

SUMMARIES = {
    "train": "Train a network, or resume.",
    "show-data": "Draw a batch of training images, as the network is shown them.",
    "evaluate": "Evaluate runs, checkpoints or weights, alone or together, on the held-out images.",
    "predict": "Say what images show.",
    "checkpoints": "List the checkpoints of a run, why each is kept, and whether it is complete.",
    "average": "Average the weights of several checkpoints into a file.",
    "report": "Compare the runs of a study: tables with intervals and tests, and figures.",
    "excitation": "Look inside the gates of a network with attention.",
    "convert": "Check weights against a network and write them to a file.",
    "export": "Write a network for another runtime.",
    "models": "List the networks with their parameters and multiply-accumulates.",
    "prepare": "Build a data set of TensorFlow Datasets, or check a set of scenes or objects.",
}
"""The commands and what they do."""

CONFIG_COMMANDS = ("train", "show-data")
"""The commands that tyro reads: a flag for every field of a config. argparse reads the others."""


def command(name: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f"senet_jax.commands.{name.replace('-', '_')}")
