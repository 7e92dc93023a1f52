"""`senet-jax predict`."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from senet_jax.command_line.arguments import Flags, number, path, weights
from senet_jax.command_line.drawn_images import names_of_pictures, read_image, tell_unreadable
from senet_jax.command_line.found_objects import predict_objects
from senet_jax.command_line.help_pages import Topic
from senet_jax.command_line.networks import (
    PIXEL_WEIGHTS,
    SLIDING,
    add_conversion,
    add_networks,
    add_sliding,
    add_views,
    check_no_detector,
    check_no_sliding,
    check_only,
    check_weights_of,
    classifies_pixels,
    open_segmenter,
    read_weights,
    shows_pixels,
    sliding_of,
    view_fields,
)
from senet_jax.errors import ExitCode, UsageError
from senet_jax.files import make_folder
from senet_jax.ranges import CLASSES, Range
from senet_jax.text import printable

if TYPE_CHECKING:
    from senet_jax.data.card import Card
    from senet_jax.data.image_files import ImageFiles
    from senet_jax.inference.trained import Trained

EXAMPLES = """examples:
  senet-jax predict cat.jpg --run runs/imagenet                   the five most probable classes
  senet-jax predict photos/ 'more/*.png' --run runs/imagenet --top 3 --json
  senet-jax predict cat.jpg --weights seresnet50.safetensors --model seresnet50
  senet-jax predict photo.jpg --run runs/ade20k --out pixels/     the class of each pixel
  senet-jax predict photo.jpg --run runs/coco --min-score 0.5     boxes and masks of objects"""

MORE_EXAMPLES = """examples:
  senet-jax predict cat.jpg --run runs/a runs/b --views ten-crop  an ensemble, ten crops
  senet-jax predict cat.png --weights resnet20.npz --model cifar_resnet20 --data cifar10
  senet-jax predict photo.jpg --weights deeplabv3.pth --model deeplabv3_resnet50

Of a folder all images are taken, those of its folders too, but nothing hidden. A run knows the
names of its classes; its data need not be there. Weights of 1,000 classes are taken for ImageNet's,
normalized as ImageNet's usually are; --data names another data set, which must be there. A file
that is no image is named on standard error, the others are still predicted, and the exit code is
2."""

PICTURES = """\
A network of semantic segmentation says the class of each pixel at the image's own size: the folder
--out then has PHOTO.overlay.png, the image in the colours of the classes with a legend, and
PHOTO.label.png, the number of the class of each pixel. Printed are the shares of the classes. Its
weights of 21 classes are taken for PASCAL VOC's; for other ones name the set with --data: of
cityscapes, camvid, voc2012 and pascal_context the names are known, else give --data-dir, too. It is
compiled for each size of images; with the flags above (`senet-jax evaluate --help segmentation`)
once."""

OBJECTS = """\
A run of detection draws PHOTO.objects.png: boxes, classes, scores and masks. DIR/detections.json
has the objects of all images in COCO's results format."""

LEAST_SIDE, DOTS = 4.0, 100
"""The least side of an overlay, inches, and pixels of an image drawn in an inch."""


def add_arguments(parser: Flags) -> None:
    """Declares what the command takes, besides the flags of its topics."""
    parser.add_argument(
        "image", nargs="+", type=weights, help="image files, folders of images, or patterns"
    )
    parser.add_argument(
        "--run",
        dest="runs",
        action="extend",
        nargs="+",
        type=weights,
        default=[],
        metavar="RUN",
        help="folders of runs or of checkpoints",
    )
    parser.add_argument(
        "--weights",
        action="extend",
        nargs="+",
        type=weights,
        default=[],
        help="files of weights, or hf-hub:owner/repository",
    )
    add_networks(parser)
    parser.add_argument("--data", metavar="NAME", help="data set that the weights were trained on")
    parser.add_argument("--data-dir", type=path, metavar="DIR", help="folder of that data set")
    parser.add_argument(
        "--top", type=number(CLASSES), default=5, metavar="N", help="number of classes printed"
    )
    parser.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help="folder of the pictures of segmentation or detection; default: the current one",
    )
    parser.add_argument(
        "--min-score",
        type=number(Range(0, 1)),
        metavar="SCORE",
        help="least score of an object (runs of detection); default: 0.5",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def _add_views(parser: Flags) -> None:
    add_views(parser)
    parser.add_argument(
        "--exif-orientation",
        action="store_true",
        help="turn images as the orientation in their EXIF says; a run that was trained so does",
    )


TOPICS = {
    "examples": Topic("more examples, and which files are read", MORE_EXAMPLES),
    "views": Topic("crops and sizes of the images; batches and devices", declare=_add_views),
    "weights": Topic("how files of weights are read", declare=add_conversion),
    "segmentation": Topic("pictures, scales and sliding crops", PICTURES, add_sliding),
    "detection": Topic("the files that a run of detection writes", OBJECTS),
}


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    import numpy as np

    from senet_jax.data.class_names import readable
    from senet_jax.data.image_files import ImageFiles
    from senet_jax.inference.ensemble import Ensemble
    from senet_jax.training.distributed.mesh import make_mesh

    views = view_fields(options)
    check_weights_of(options, options.weights)
    check_no_detector(options.model)
    task = _dense_task(options)
    if options.min_score is not None and task != "detection":
        raise UsageError("--min-score is for a run of detection.")
    if task == "segmentation":
        return _predict_pixels(options)
    if task == "detection":
        _check_flags(
            options,
            ("min_score",),
            f"{options.runs[0]} is a run of detection, which takes images as they are.",
        )
        return predict_objects(options)
    if options.out is not None:
        raise UsageError("--out is for a network of semantic segmentation, or a run of detection.")
    check_no_sliding(options)
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
    if not card.photographs:
        _tell_reduced(images, card)
    names = readable(card.classes)
    members = [network.member(**views) for network in networks]
    ensemble = Ensemble(members, make_mesh(options.devices))
    code = 0
    for answers in ensemble.predict(
        images,
        min(options.batch_size, len(images) * max(len(view) for view in members[0].views)),
        channels=card.image_shape[2],
        workers=options.workers,
    ):
        for index, reason in answers.errors.items():
            tell_unreadable(images.name(index), reason)
            code = ExitCode.BAD_INPUT
        for index, log_p in zip(answers.index, answers.log_p, strict=True):
            top = np.argsort(-log_p, kind="stable")[: options.top]
            _print(images.name(index), [(names[c], float(np.exp(log_p[c]))) for c in top], options)
    return code


def _tell_reduced(images: "ImageFiles", card: "Card") -> None:
    """Says if the first image is of another size than the small ones that the network learned."""
    from senet_jax.data.decode import Unreadable, read_size

    height, width, channels = card.image_shape
    try:
        size = read_size(images[0][0])
    except Unreadable:
        return  # It is named when its turn comes.
    if size != (height, width):
        grey = "grey " if channels == 1 else ""
        print(
            f"{printable(images.name(0))} has {size[0]}x{size[1]} pixels: images are reduced to "
            f"the {height}x{width} {grey}pixels of {card.name}.",
            file=sys.stderr,
        )


def _dense_task(options: argparse.Namespace) -> str | None:
    """The task of the network that is given, if it is one of segmentation or detection.

    Raises:
        UsageError: It is one of several, which are no ensemble.
    """
    from senet_jax.inference.trained import run_task

    tasks = {path: run_task(Path(path)).name for path in options.runs}
    if classifies_pixels(options.model):
        tasks |= dict.fromkeys(options.weights, "segmentation")
    dense = {path: task for path, task in tasks.items() if task in _DENSE}
    for source, task in dense.items():
        if len(options.runs) + len(options.weights) > 1:
            raise UsageError(
                f"{source} is a network of {_DENSE[task]}, of which there are no ensembles: give "
                "it alone."
            )
    return next(iter(dense.values()), None)


_DENSE = {"segmentation": "semantic segmentation", "detection": "detection"}
"""The tasks whose networks are shown images as they are, and their names for people."""

_AS_THEY_ARE = ("image", "runs", "which", "exif_orientation", "out", "json")
"""The flags for their runs."""


def _check_flags(options: argparse.Namespace, own: tuple[str, ...], reason: str) -> None:
    """Checks that no flag is given that does nothing for a network of segmentation or detection."""
    check_only(options, options.parser.parse_args(options.image), (*_AS_THEY_ARE, *own), reason)


def _predict_pixels(options: argparse.Namespace) -> int:
    import numpy as np

    from senet_jax.analysis.overlays import draw_overlays, write_label
    from senet_jax.data.image_files import ImageFiles
    from senet_jax.inference.pixels import PixelClassifier

    (source,) = options.runs or options.weights
    _check_flags(
        options,
        ("top", *SLIDING, *(PIXEL_WEIGHTS if options.weights else ())),
        shows_pixels(source),
    )
    images = ImageFiles(options.image)
    folder, stems = Path() if options.out is None else options.out, names_of_pictures(images)
    trained = open_segmenter([source], options, with_data=False)
    network = PixelClassifier(trained, sliding_of(options, trained))
    turned = options.exif_orientation or trained.run.config.data.exif_orientation
    code = 0
    for index, stem in enumerate(stems):
        drawn, label_file = folder / f"{stem}.overlay.png", folder / f"{stem}.label.png"
        image = read_image(images, index, turned)
        if image is None:
            code = ExitCode.BAD_INPUT
            continue
        label = network(image)
        make_folder(label_file.parent)
        write_label(label_file, label, network.palette)
        side = max(LEAST_SIDE, max(label.shape) / DOTS)
        title = Path(images.name(index)).name
        draw_overlays(
            drawn, image[None], label[None], [title], network.classes, network.palette, side
        )
        counts = sorted(enumerate(np.bincount(label.ravel()).tolist()), key=lambda each: -each[1])
        shares = [
            (network.classes[c], count / label.size) for c, count in counts[: options.top] if count
        ]
        _print_pixels(images.name(index), shares, drawn, label_file, options)
    return code


def _print_pixels(
    image: str,
    shares: list[tuple[str, float]],
    drawn: Path,
    label_file: Path,
    options: argparse.Namespace,
) -> None:
    if options.json:
        classes = [{"class": name, "share": share} for name, share in shares]
        files = {"overlay": str(drawn), "label": str(label_file)}
        print(json.dumps({"image": image, "classes": classes, **files}))
        return
    print(printable(f"{image}: {drawn}, {label_file}"))
    for name, share in shares:
        print(f"  {share:8.2%}  {printable(name)}")


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
