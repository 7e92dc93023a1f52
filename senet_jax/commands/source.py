"""What `convert` and `export` take: a network and its weights, from a file, a hub or a run."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from senet_jax.errors import UsageError


def add_source(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments that :func:`read_source` reads."""
    parser.add_argument("source", help="a weight file, hf-hub:owner/repository, or a run")
    parser.add_argument("--model", help="name of the network; a run knows its own")
    parser.add_argument(
        "--num-classes", type=int, help="classes of the weights, if not the model's"
    )
    parser.add_argument("--channels", type=int, default=3, help="channels of the images")


@dataclasses.dataclass(frozen=True)
class Source:
    """A network and its weights, as a command names them."""

    name: str
    fields: dict[str, Any]
    variables: Mapping[str, Any]
    channels: int
    image_size: int


def read_source(options: argparse.Namespace) -> Source:
    """Reads what the arguments name.

    Raises:
        UsageError: It cannot be read, or the network is not named.
    """
    from senet_jax.interchange import load_weights
    from senet_jax.models.zoo import find
    from senet_jax.training.network import model_fields
    from senet_jax.training.restore import restore_run

    if Path(options.source).is_dir():
        run, _, variables = restore_run(Path(options.source))
        fields = model_fields(run.config.model, len(run.dataset.classes))
        _, side, channels = run.dataset.image_shape
        return Source(run.config.model.name, fields, variables, channels, side)
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
    return Source(options.model, fields, variables, options.channels, size)
