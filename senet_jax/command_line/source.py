"""The input of `convert` and `export`: a network and its weights, from a file, a hub or a run."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from senet_jax.command_line.arguments import count, number, weights
from senet_jax.command_line.networks import add_weights_of, check_weights_of
from senet_jax.errors import UsageError
from senet_jax.files import is_folder
from senet_jax.ranges import CLASSES, MOST_WIDTH


def add_source(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments that :func:`read_source` reads."""
    parser.add_argument(
        "source", type=weights, help="a weight file, hf-hub:owner/repository, or a run"
    )
    parser.add_argument("--model", help="name of the network; a run knows its own")
    parser.add_argument(
        "--num-classes",
        type=number(CLASSES),
        help="classes of the weights, if not the model's",
    )
    parser.add_argument(
        "--channels", type=count(1, MOST_WIDTH), default=3, help="channels of the images"
    )
    add_weights_of(parser)


@dataclasses.dataclass(frozen=True)
class Source:
    """A network and its weights, as a command names them."""

    name: str
    fields: dict[str, Any]
    variables: Mapping[str, Any]
    channels: int
    image_size: int

    @property
    def network(self) -> str:
        """Its name, and what differs from the attention of the named network."""
        from senet_jax.models.configured import changes_of_attention, config_of

        config = config_of(self.name, self.fields)
        return self.name + (changes_of_attention(config) if config else "")


def read_source(
    options: argparse.Namespace, *, drop_head: bool | None = None, detectors: bool = False
) -> Source:
    """Reads what the arguments name.

    Args:
        options: Those of ``add_source``.
        drop_head: Start a fresh classifier; None if the command has no flag for that.
        detectors: Take networks of detection, too.

    Raises:
        UsageError: It cannot be read, or the network is not named or one of detection.
    """
    from senet_jax.inference.trained import IMAGES_ALONE, check_task, restore_run
    from senet_jax.interchange import MisfitError, load_weights, network_of
    from senet_jax.models.configured import model_fields
    from senet_jax.models.detection import named
    from senet_jax.models.zoo import find

    if is_folder(options.source):
        for flag in ("model", "num_classes", "drop_head"):
            if getattr(options, flag, None):
                raise UsageError(
                    f"{options.source} is a run, which knows its network: --"
                    f"{flag.replace('_', '-')} is for files of weights."
                )
        check_weights_of(options, [])
        allowed = (*IMAGES_ALONE, *(("detection",) if detectors else ()))
        check_task(Path(options.source), allowed)
        run, _, variables = restore_run(Path(options.source))
        # Detectors have the background, too.
        classes = len(run.dataset.classes) + (run.config.task == "detection")
        fields = model_fields(run.config.model, classes)
        _, side, channels = run.dataset.image_shape
        return Source(run.config.model.name, fields, variables, channels, side)
    if options.model is None:
        raise UsageError("--model must say which network the weights are of.")
    if named.split(options.model) and not detectors:
        raise UsageError(
            f"{options.model} is a detector, which is written as weights alone: "
            "`senet-jax export --format safetensors`, or npz."
        )
    for flag in ("num_classes", "channels"):
        value = getattr(options, flag)
        if value is not None and value < 1:
            raise UsageError(f"--{flag.replace('_', '-')} must be at least 1, not {value}.")
    config = network_of(options.source, options.model)
    published = find(options.model).fields["num_classes"]
    fields = model_fields(config, options.num_classes or published)
    try:
        variables = load_weights(
            options.source,
            options.model,
            drop_head=bool(drop_head),
            weights_of=options.weights_of,
            channels=options.channels,
            **fields,
        )
    except MisfitError as error:
        fresh = None if drop_head is None else "--drop-head"
        raise UsageError(error.advise(fresh, "--num-classes ")) from error
    size = find(options.model).input_size
    return Source(options.model, fields, variables, options.channels, size)
