"""The arguments of commands that use trained networks, and of the views of images."""

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_jax.command_line.arguments import Flags, number, number_of
from senet_jax.config import MeshConfig
from senet_jax.data.config import CropConfig, DataConfig
from senet_jax.errors import UsageError
from senet_jax.files import is_folder
from senet_jax.ranges import Range

if TYPE_CHECKING:
    from senet_jax.data.card import Card
    from senet_jax.data.datasets import Dataset
    from senet_jax.data.scenes import SceneDataset
    from senet_jax.inference.segmenter import TrainedSegmenter
    from senet_jax.inference.sliding import Sliding
    from senet_jax.inference.trained import Trained
    from senet_jax.interchange import MisfitError


def add_networks(parser: Flags) -> None:
    """Declares which networks are taken; several are averaged."""
    parser.add_argument(
        "--which", choices=("last", "best"), default="last", help="which checkpoint of a run"
    )
    parser.add_argument(
        "--model",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="network of the weights: one, or one for each file",
    )


def add_conversion(parser: Flags) -> None:
    """Declares how files of weights are read."""
    parser.add_argument(
        "--normalization",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        choices=("dataset", "imagenet", "inception", "bninception"),
        help="mean and standard deviation that the weights were trained with: dataset, imagenet, "
        "inception or bninception, one or one for each file; those of the data set if not given",
    )
    add_weights_of(parser)


def add_views(parser: Flags) -> None:
    """Declares how images are shown."""
    parser.add_argument(
        "--views",
        choices=("center", "ten-crop"),
        default="center",
        help="the centre, or corners, centre and their mirror images",
    )
    parser.add_argument(
        "--sizes",
        type=number_of(DataConfig, "image_size"),
        action="extend",
        nargs="+",
        default=[],
        metavar="PIXELS",
        help="sides of the views, pixels; several are averaged",
    )
    add_view(parser)


def add_view(parser: Flags) -> None:
    """Declares how images are shown that have one view."""
    parser.add_argument(
        "--image-size",
        type=number_of(DataConfig, "image_size"),
        metavar="PIXELS",
        help="the side of the views, pixels",
    )
    parser.add_argument(
        "--crop-pct",
        type=number_of(DataConfig, "crop_pct"),
        metavar="FRACTION",
        help="side of the crop over the scaled image's shorter side",
    )
    parser.add_argument(
        "--interpolation",
        choices=("bilinear", "bicubic"),
        help="resampling of the scaled image; default: that of the run's validation",
    )
    parser.add_argument(
        "--devices",
        type=number_of(MeshConfig, "data"),
        metavar="N",
        help="how many devices share a batch; default: all",
    )
    parser.add_argument(
        "--batch-size",
        type=number_of(DataConfig, "batch_size"),
        metavar="N",
        default=256,
        help="views of a step",
    )
    parser.add_argument(
        "--workers",
        type=number_of(DataConfig, "workers"),
        metavar="N",
        default=0,
        help="processes that decode; 0 decodes in threads",
    )


def add_sliding(parser: Flags) -> None:
    """Declares the scales and the sliding crops of networks of semantic segmentation."""
    parser.add_argument(
        "--scales",
        type=number(Range(1 / 16, 16)),
        action="extend",
        nargs="+",
        default=[],
        metavar="SCALE",
        help="scales of the images, whose scores are added",
    )
    parser.add_argument("--flip", action="store_true", help="add the logits of mirror images")
    parser.add_argument(
        "--crop-size",
        type=number_of(DataConfig, "image_size"),
        nargs="+",
        default=[],
        metavar="PIXELS",
        help="height and width of the crops that slide over a scaled image, or one number for "
        "both; default: that of the training",
    )
    parser.add_argument(
        "--base-size",
        type=number_of(CropConfig, "base"),
        metavar="PIXELS",
        help="side of an image at scale 1; default: that of the training",
    )


SLIDING = ("scales", "flip", "crop_size", "base_size")
"""The flags of ``add_sliding``."""


def sliding_of(options: argparse.Namespace, trained: "TrainedSegmenter") -> "Sliding | None":
    """The sliding crops that the flags of ``add_sliding`` ask for; None if there is no such flag.

    Raises:
        UsageError: A crop of more than two sides.
    """
    if not any(getattr(options, name) for name in SLIDING):
        return None
    sides = options.crop_size
    if len(sides) > 2:
        raise UsageError("--crop-size is height and width, or one number for both.")
    return trained.sliding(
        tuple(options.scales) or (1.0,),
        flip=options.flip,
        crop=(sides[0], sides[-1]) if sides else None,
        base=options.base_size,
    )


PIXEL_WEIGHTS = ("weights", "weights_of", "model", "normalization", "data", "data_dir")
"""The flags of weights of semantic segmentation, which a run does without."""


def shows_pixels(source: str) -> str:
    """The reason why other flags do nothing for a network of semantic segmentation.

    Args:
        source: The run or the file of weights.
    """
    return (
        f"{source} is a network of semantic segmentation, which takes images as they are, or with "
        "--scales, --flip, --crop-size and --base-size."
    )


def check_no_sliding(options: argparse.Namespace, names: Sequence[str] = SLIDING) -> None:
    """Checks that no flag of segmentation is given for another network.

    Args:
        options: The arguments.
        names: The flags.

    Raises:
        UsageError: One is given.
    """
    for name in names:
        if getattr(options, name):
            raise UsageError(
                f"--{name.replace('_', '-')} is for networks of semantic segmentation; those that "
                "classify images have --sizes and --views."
            )


def check_only(
    options: argparse.Namespace,
    defaults: argparse.Namespace,
    allowed: Collection[str],
    reason: str,
) -> None:
    """Refuses flags that do nothing for what is asked.

    Args:
        options: Those that were given.
        defaults: The values without a flag.
        allowed: The flags that may differ.
        reason: The end of the message.

    Raises:
        UsageError: Another flag is given.
    """
    for name, default in vars(defaults).items():
        if name not in allowed and getattr(options, name) != default:
            raise UsageError(f"leave out --{name.replace('_', '-')}: {reason}")


def check_weights_of(options: argparse.Namespace, files: Sequence[str]) -> None:
    """Refuses ``--weights-of`` without files of weights.

    Raises:
        UsageError: There is nothing to choose from.
    """
    if options.weights_of != "auto" and not files:
        raise UsageError(
            "--weights-of is for files of weights: of a run that keeps a moving average this is "
            "what is taken."
        )


def view_fields(options: argparse.Namespace) -> dict[str, Any]:
    """The views as ``Trained.member`` takes them.

    Raises:
        UsageError: Two flags that say the same.
    """
    if options.sizes and options.image_size is not None:
        raise UsageError("--image-size N is short for --sizes N: give one of them.")
    sizes = options.sizes if options.image_size is None else [options.image_size]
    return {
        "sizes": tuple(sizes),
        "kind": options.views,
        "crop_pct": options.crop_pct,
        "interpolation": options.interpolation,
    }


def is_weights(source: str) -> bool:
    """Tells whether a file of weights is named, and not the folder of a run."""
    from senet_jax.interchange.files import is_weight_file

    return source.startswith("hf-hub:") or (is_weight_file(source) and not is_folder(source))


def add_weights_of(parser: Flags) -> None:
    """Declares which weights of a training checkpoint of PyTorch's are taken."""
    parser.add_argument(
        "--weights-of",
        choices=("auto", "average", "raw"),
        default="auto",
        help="weights that are taken of a training checkpoint of PyTorch's: the moving average, "
        "the raw ones, or (auto) the average if there is one",
    )


def for_each(flag: str, values: list[str], files: list[str]) -> list[str]:
    """Spreads the values of a flag over the files of weights.

    Raises:
        UsageError: Neither one value nor one for each file.
    """
    if len(values) not in (1, len(files)):
        raise UsageError(
            f"--{flag} must be given once, or once for each of the {len(files)} files of weights, "
            f"not {len(values)} times."
        )
    return values * len(files) if len(values) == 1 else values


def read_weights(
    files: list[str], options: argparse.Namespace, card: "Card", default: str
) -> "list[Trained]":
    """Reads the files of weights that the arguments name.

    Args:
        files: Their names.
        options: The arguments.
        card: The facts of the data set.
        default: The normalization where none is given.

    Raises:
        UsageError: They cannot be read, or do not fit.
    """
    from senet_jax.data.config import DataConfig
    from senet_jax.inference.trained import trained_weights
    from senet_jax.interchange import MisfitError

    models = for_each("model", options.model, files)
    chosen = for_each("normalization", options.normalization or [default], files)
    networks = []
    for file, model, name in zip(files, models, chosen, strict=True):
        data = DataConfig(name=card.name, normalization=name)  # type: ignore[arg-type]
        try:
            network = trained_weights(file, model, data, card, weights_of=options.weights_of)
        except MisfitError as error:
            raise _advised(error, f"{card.name} has {len(card.classes)} classes") from error
        networks.append(network)
    return networks


def _advised(error: "MisfitError", classes: str) -> UsageError:
    """The error of weights that do not fit, with the way out if their classes are others."""
    if error.head_classes is None:
        return error
    return UsageError(
        f"{error.problems}\nAbout the head: {classes}; give a data set that has the classes of the "
        "weights, in their order, with --data and --data-dir."
    )


def classifies_pixels(models: Sequence[str]) -> bool:
    """Says if one of the networks of ``--model`` is one of semantic segmentation."""
    from senet_jax.models.segmentation import named

    return any(named.split(name) for name in models)


def check_no_detector(models: Sequence[str]) -> None:
    """Checks that no network of ``--model`` is a detector.

    Raises:
        UsageError: One of them is.
    """
    from senet_jax.models.detection import named

    for name in models:
        if named.split(name):
            raise UsageError(
                f"{name} is a detector, which is taken from a run and not from a file of weights: "
                "`senet-jax train --init-weights FILE` starts a run from it."
            )


def of_weights(source: str, options: argparse.Namespace) -> bool:
    """Says if a source is a file of weights, and not the folder of a run."""
    return source in (options.weights or ()) or is_weights(source)


EVAL_BATCH = 8
"""Images of a step by weights without a run."""


def open_segmenter(
    sources: Sequence[str], options: argparse.Namespace, *, with_data: bool
) -> "TrainedSegmenter":
    """Opens the network of a run of semantic segmentation, or of a file of weights.

    Args:
        sources: The folder of a run or of a checkpoint, or a file of weights.
        options: The arguments.
        with_data: Open the data set; else what is known of it is enough, and images cannot be
            read.

    Raises:
        UsageError: It cannot be read, there are several, or the data set is not there.
    """
    from senet_jax.data.scene_cards import known_scenes
    from senet_jax.inference.segmenter import segmenter_run, segmenter_weights
    from senet_jax.interchange import MisfitError
    from senet_jax.models.zoo import find

    if len(sources) > 1:
        raise UsageError(
            f"{sources[0]} is a network of semantic segmentation, of which there are no ensembles: "
            "give it alone."
        )
    (source,) = sources
    if not of_weights(source, options):
        check_weights_of(options, [])
        return segmenter_run(Path(source), options.which, with_data=with_data)
    if len(options.model) != 1 or (with_data and options.data is None):
        raise UsageError("--weights need the network's name, --model, and a data set, --data.")
    (network,) = options.model
    side = find(network).input_size
    name = options.data or _own_data(network)
    data = DataConfig(
        name=name,
        dir=options.data_dir,
        normalization=next(iter(options.normalization), "dataset"),
        eval_batch_size=EVAL_BATCH,
        crop=CropConfig(size=() if name == "scenes" else (side,)),
    )
    dataset: SceneDataset | None = None
    if not with_data and options.data_dir is None:
        card = known_scenes(name, (side, side))
        dataset = None if card is None else card.stand_in()  # type: ignore[assignment]
    try:
        return segmenter_weights(source, network, data, dataset, weights_of=options.weights_of)
    except MisfitError as error:
        raise _advised(error, f"{name} has other classes") from error


def _own_data(network: str) -> str:
    """The set that the released weights of a network were trained on."""
    from senet_jax.data.scene_names import VOC
    from senet_jax.models.zoo import find

    classes = find(network).fields["num_classes"]
    if classes != len(VOC):
        raise UsageError(
            f"{network} has {classes} classes and not those of PASCAL VOC: name their data set "
            "with --data."
        )
    return "voc2012"


def open_networks(
    sources: list[str], options: argparse.Namespace
) -> "tuple[list[Trained], Dataset]":
    """Opens networks in their order, and the data set that they are shown.

    Args:
        sources: Folders of runs or of checkpoints, and files of weights.
        options: The arguments.

    Raises:
        UsageError: They cannot be read, or have images of other channels, or several data sets.
    """
    from senet_jax.data.card import Card
    from senet_jax.data.datasets import open_dataset
    from senet_jax.inference.trained import trained_run
    from senet_jax.models.zoo import find
    from senet_jax.training.machine.compile_cache import use_compile_cache

    files = [s for s in sources if s in (options.weights or ()) or is_weights(s)]
    runs = {s: trained_run(Path(s), options.which) for s in sources if s not in files}
    check_weights_of(options, files)
    if files and (not options.model or (options.data is None and not runs)):
        raise UsageError("--weights need the network's name, --model, and a data set, --data.")
    use_compile_cache(None)
    configs = [network.data for network in runs.values()]
    if options.data is None:
        for name, network in runs.items():
            if (network.data.name, network.data.dir) != (configs[0].name, configs[0].dir):
                raise UsageError(
                    f"{name} was trained on {network.data.name} and {sources[0]} on "
                    f"{configs[0].name}: say which to evaluate on with --data."
                )
    name = options.data or configs[0].name
    directory = options.data_dir or (configs[0].dir if options.data is None else None)
    side = options.image_size or next(iter(options.sizes), None)
    side = side or next((config.image_size for config in configs if config.image_size), None)
    if side is None:
        first = options.model[0] if files else next(iter(runs.values())).network
        side = find(first).input_size
    dataset = open_dataset(name, directory, side)
    card = Card.of(dataset)
    for source, network in runs.items():
        if network.card.image_shape[2] != card.image_shape[2]:
            raise UsageError(
                f"{name} has images of {card.image_shape[2]} channel(s), and {source} takes "
                f"{network.card.image_shape[2]}."
            )
    weights = iter(read_weights(files, options, card, "dataset") if files else [])
    return [runs[source] if source in runs else next(weights) for source in sources], dataset
