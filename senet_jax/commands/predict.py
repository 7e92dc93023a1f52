"""`senet-jax predict`."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from senet_jax.command_line.arguments import number, path, weights
from senet_jax.command_line.networks import (
    add_networks,
    add_views,
    check_weights_of,
    read_weights,
    view_fields,
)
from senet_jax.errors import ExitCode, UsageError
from senet_jax.ranges import CLASSES
from senet_jax.text import printable

if TYPE_CHECKING:
    from senet_jax.data.card import Card
    from senet_jax.inference.trained import Trained

SUMMARY = "Say what images show."

EXAMPLES = """examples:
  senet-jax predict cat.jpg --run runs/imagenet                   the five most probable classes
  senet-jax predict photos/ 'more/*.png' --run runs/imagenet --top 3 --json
  senet-jax predict cat.jpg --run runs/a runs/b --views ten-crop  an ensemble, ten crops
  senet-jax predict cat.jpg --weights seresnet50.safetensors --model seresnet50
  senet-jax predict cat.png --weights resnet20.npz --model cifar_resnet20 --data cifar10

Of a folder all images are taken, those of its folders too, but nothing hidden. A run knows the
names of its classes; its data need not be there. Weights of 1,000 classes are taken for ImageNet's,
normalised as ImageNet's usually are; --data names another data set, which must be there. A file
that is no image is named on standard error, the others are still predicted, and the exit code is
2."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument(
        "image", nargs="+", type=weights, help="image files, folders of images, or patterns"
    )
    parser.add_argument(
        "--run",
        dest="runs",
        nargs="+",
        type=weights,
        default=[],
        help="folders of runs or of checkpoints",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        type=weights,
        default=[],
        help="files of weights, or hf-hub:owner/repository",
    )
    add_networks(parser)
    parser.add_argument("--data", help="name of the data set that weights were trained on")
    parser.add_argument("--data-dir", type=path, help="where that data set lies")
    add_views(parser)
    parser.add_argument(
        "--exif-orientation",
        action="store_true",
        help="turn images as the orientation in their EXIF says; a run that was trained so does",
    )
    parser.add_argument(
        "--top",
        type=number(CLASSES),
        default=5,
        help="how many classes are given",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    import numpy as np

    from senet_jax.data.class_names import readable
    from senet_jax.data.image_files import ImageFiles
    from senet_jax.inference.ensemble import Ensemble
    from senet_jax.training.distributed.mesh import make_mesh

    views = view_fields(options)
    if options.exif_orientation:
        views["exif_orientation"] = True
    images = ImageFiles(options.image)
    networks = _open(options)
    card = networks[0].card
    for network in networks[1:]:
        if network.card.classes != card.classes:
            raise UsageError(
                f"{network.name} has other classes than {networks[0].name}: networks of one "
                "ensemble must have the same."
            )
    names = readable(card.classes)
    members = [network.member(**views) for network in networks]
    ensemble = Ensemble(members, make_mesh(options.devices))
    code = 0
    for said in ensemble.predict(
        images,
        min(options.batch_size, len(images) * max(len(view) for view in members[0].views)),
        channels=card.image_shape[2],
        workers=options.workers,
    ):
        for index, reason in said.errors.items():
            sentence = f"senet-jax: {images.name(index)} cannot be read as an image: {reason}"
            print(printable(sentence), file=sys.stderr)
            code = ExitCode.BAD_INPUT
        for index, log_p in zip(said.index, said.log_p, strict=True):
            top = np.argsort(-log_p, kind="stable")[: options.top]
            _print(images.name(index), [(names[c], float(np.exp(log_p[c]))) for c in top], options)
    return code


def _print(image: str, top: list[tuple[str, float]], options: argparse.Namespace) -> None:
    if options.json:
        classes = [{"class": name, "probability": p} for name, p in top]
        print(json.dumps({"image": image, "classes": classes}))
        return
    print(printable(image))
    for name, p in top:
        print(f"  {p:8.2%}  {printable(name)}")


def _open(options: argparse.Namespace) -> "list[Trained]":
    from senet_jax.inference.trained import trained_run
    from senet_jax.training.machine.compile_cache import use_compile_cache

    if not options.runs and not options.weights:
        raise UsageError("give the folder of a run, --run, or --weights.")
    if options.weights and not options.model:
        raise UsageError("--weights need the network's name, --model.")
    check_weights_of(options, options.weights)
    networks = [trained_run(Path(path), options.which) for path in options.runs]
    if options.weights:
        use_compile_cache(None)
        card = networks[0].card if networks else _card(options)
        default = "imagenet" if card.photographs else "dataset"
        networks += read_weights(options.weights, options, card, default)
    return networks


def _card(options: argparse.Namespace) -> "Card":
    """The facts of the data of weights that stand alone."""
    from senet_jax.data.card import Card
    from senet_jax.data.class_names import IMAGENET_SYNSETS
    from senet_jax.data.datasets import IMAGENET_MEAN, IMAGENET_STD, open_dataset
    from senet_jax.models.zoo import find

    network = options.model[0]
    entry = find(network)
    side = entry.input_size
    if options.data is not None:
        return Card.of(open_dataset(options.data, options.data_dir, side))
    classes = entry.fields["num_classes"]
    if classes != len(IMAGENET_SYNSETS):
        raise UsageError(
            f"{network} has {classes} classes and not ImageNet's: name their data set with --data."
        )
    return Card(
        name="imagenet2012",
        classes=list(IMAGENET_SYNSETS),
        image_shape=(side, side, 3),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        train=0,
        val=0,
        photographs=True,
    )
