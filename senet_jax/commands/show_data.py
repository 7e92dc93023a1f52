"""`senet-jax show-data`."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from senet_jax.command_line.help_pages import Description
from senet_jax.commands.table import SUMMARIES
from senet_jax.config import TrainConfig
from senet_jax.errors import choose, require
from senet_jax.files import check_folder, check_target
from senet_jax.ranges import MOST_BATCH, MOST_STEPS, whole
from senet_jax.text import printable

if TYPE_CHECKING:
    import numpy as np

    from senet_jax.training.preview import Preview

EXAMPLES = """examples:
  senet-jax show-data demo                                 the first batch of a preset's run
  senet-jax show-data cifar10 --data.augment.cutout 16 --data.augment.mixup 0.2 --step 100
  senet-jax show-data camvid --data.dir DIR                scenes with their labels over them
  senet-jax show-data scenes-detection                     digits with their boxes and masks
  senet-jax show-data voc_xml --data.dir DIR --data.objects.short 480
  senet-jax show-data folder --data.dir DIR --data.image-size 224 \\
      --data.augment.policy autoaugment --images 48 --out autoaugment.png

A preset or the name of a data set comes first; flags change any field of the config of the run.
The images are those of a step of that run, after all that host and device change and mix, and
before they are normalized."""

COMMON = {
    "--step": "step of the run whose batch is drawn",
    "--images": "number of images that are drawn",
    "--out": "PNG file; default: DATA-STEP.png",
    "--seed": "seed of order and augmentation",
    "--data.name": "data set, as `senet-jax prepare` names it",
    "--data.dir": "its folder",
    "--data.image-size": "side of the images, pixels",
    "--data.batch-size": "images of a step",
    "--data.augment.policy": "policy of augmentation",
    "--model.name": "network, whose task and image size count",
}
"""The flags of the first page of help."""


@dataclasses.dataclass(frozen=True)
class ShowDataConfig(TrainConfig):
    """Draw a batch of training images, as the network is shown them."""

    step: Annotated[int, whole(0, MOST_STEPS)] = 0
    """The step of the run whose batch is drawn."""
    images: Annotated[int, whole(1, MOST_BATCH)] = 32
    """The number of images of the batch that are drawn."""
    out: Path | None = None
    """The PNG file; None means DATA-STEP.png."""


def run(arguments: list[str]) -> int:
    """Runs the command, whose arguments tyro reads: a flag for every field of the config."""
    from senet_jax.command_line.flags import read_config

    named = bool(arguments) and not arguments[0].startswith("-")
    default = _named(arguments.pop(0)) if named else ShowDataConfig()
    description = Description(SUMMARIES["show-data"], EXAMPLES, COMMON)
    config = read_config("senet-jax show-data", "[PRESET | DATA]", description, default, arguments)
    config.validate()
    out = config.out or Path(f"{config.data.name}-{config.step}.png")
    require(out.suffix == ".png", "out", out, "a file that ends in .png")
    check_folder(out.parent)
    if out.parent.is_dir():
        check_target(out)

    from senet_jax.analysis.overlays import draw_overlays
    from senet_jax.analysis.pictures import draw_images
    from senet_jax.data.class_names import readable
    from senet_jax.data.scenes import SceneDataset
    from senet_jax.tasks.detection import Detection
    from senet_jax.training.run import Run

    run = Run(config)
    steps = run.batches.steps
    require(0 <= config.step < steps, "step", config.step, f"in [0, {steps}), the steps of the run")
    for name, reason in run.batches.broken(config.step):
        print(f"senet-jax: {name} is replaced by another: {reason}", file=sys.stderr)
    shown = run.preview(config.step)
    count = min(config.images, len(shown.images))
    names = [printable(name) for name in readable(run.dataset.classes)]
    titles, labels = shown.titles(names)[:count], shown.pixel_classes
    if isinstance(run.task, Detection):
        drawn, titles = _with_objects(shown, count, names)
        draw_images(out, drawn, titles, side=OBJECTS_SIDE)
    elif labels is not None and isinstance(run.dataset, SceneDataset):
        palette = run.dataset.palette
        draw_overlays(out, shown.images[:count], labels[:count], titles, names, palette)
    else:
        draw_images(out, shown.images[:count], titles)
    height, width = shown.images.shape[1:3]
    print(
        f"{out}: {count} of the {len(shown.images)} images of step {config.step:,} on "
        f"{run.dataset.name}, {height}x{width} pixels"
    )
    return 0


OBJECTS_SIDE = 3.0
"""Side of an image with objects, inches."""


def _with_objects(shown: "Preview", count: int, names: list[str]) -> "tuple[np.ndarray, list[str]]":
    """The first images of a batch with their objects, and their titles."""
    import numpy as np

    from senet_jax.analysis.found import draw_objects, enlargement
    from senet_jax.data.picture_transforms import mask_in_image

    arrays = {name: np.asarray(values)[:count] for name, values in shown.arrays.items()}
    scale = enlargement(shown.images.shape[1:])
    drawn = []
    for row, image in enumerate(shown.images[:count]):
        there = np.flatnonzero(arrays["valid"][row])
        labels = arrays["labels"][row, there] - 1
        crowd = arrays["crowd"][row, there]
        texts = [
            f"{names[label]}{' (crowd)' * bool(many)}"
            for label, many in zip(labels, crowd, strict=True)
        ]
        masks = None
        if "masks" in arrays:
            masks = np.zeros((len(there), *image.shape[:2]), bool)
            for place, index in enumerate(there):
                if not crowd[place]:
                    cells, region = (arrays[name][row, index] for name in ("masks", "mask_boxes"))
                    masks[place] = mask_in_image(cells, region, image.shape[:2])
        boxes = arrays["boxes"][row, there]
        drawn.append(draw_objects(image, boxes, labels, texts, masks, scale))
    return np.stack(drawn), shown.titles(names)[:count]


def _named(name: str) -> ShowDataConfig:
    from senet_jax.config import ModelConfig
    from senet_jax.data.config import DataConfig
    from senet_jax.data.datasets import DATASETS
    from senet_jax.data.picture_sets import PICTURE_SETS
    from senet_jax.data.scene_sets import SCENE_SETS
    from senet_jax.training.presets import PRESETS

    choose("preset or data set", name, {*PRESETS, *DATASETS, *SCENE_SETS, *PICTURE_SETS})
    if name in PRESETS:
        preset = PRESETS[name]
        fields = {field.name: getattr(preset, field.name) for field in dataclasses.fields(preset)}
        return ShowDataConfig(**fields)
    if name in SCENE_SETS:
        # Its images do not depend on the network.
        network = ModelConfig(name="fcn_cifar_resnet8")
        return ShowDataConfig(task="segmentation", data=DataConfig(name=name), model=network)
    if name in PICTURE_SETS:
        # The images depend on the network: it may learn masks.
        kind = "maskrcnn" if name.startswith("coco") else "fasterrcnn"
        network = ModelConfig(name=f"{kind}_resnet18_fpn")
        return ShowDataConfig(
            task="detection", data=DataConfig(name=name, batch_size=16), model=network
        )
    return ShowDataConfig(data=DataConfig(name=name))
