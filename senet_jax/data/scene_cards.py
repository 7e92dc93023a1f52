"""The facts of published segmentation sets, for when the sets are not there."""

from collections.abc import Sequence
from typing import NamedTuple

from senet_jax.data.card import Card
from senet_jax.data.datasets import IMAGENET_MEAN, IMAGENET_STD
from senet_jax.data.label_files import ignore_label
from senet_jax.data.scene_names import CAMVID, CITYSCAPES, CONTEXT, VOC, voc_colors
from senet_jax.data.scenes import Color
from senet_jax.errors import UsageError


class _Facts(NamedTuple):
    classes: Sequence[str]
    palette: Sequence[Color]
    train: int
    val: int
    size: tuple[int, int] | None = None
    """Height and width, where all images have the same."""


_CITYSCAPES_NAMES, _CITYSCAPES_COLORS = zip(*CITYSCAPES.values(), strict=True)
# The names of ADE20K are in its folder.
_ADE20K = [f"class {index}" for index in range(150)]

_KNOWN = {
    "ade20k": _Facts(_ADE20K, voc_colors(150), 20_210, 2_000),
    "cityscapes": _Facts(_CITYSCAPES_NAMES, _CITYSCAPES_COLORS, 2_975, 500, (1024, 2048)),
    "voc2012": _Facts(VOC, voc_colors(len(VOC)), 1_464, 1_449),
    "voc2012_aug": _Facts(VOC, voc_colors(len(VOC)), 10_582, 1_449),
    "pascal_context": _Facts(CONTEXT, voc_colors(len(CONTEXT) + 1)[1:], 4_998, 5_105),
    "camvid": _Facts(list(CAMVID), list(CAMVID.values()), 367, 233, (360, 480)),
}


def known_scenes(name: str, frame: tuple[int, int] | None) -> Card | None:
    """The facts of a published segmentation set; None of another.

    Args:
        name: A name of ``scene_sets.SCENE_SETS``.
        frame: Height and width of the training crops, pixels; None means those of the images.

    Raises:
        UsageError: There is no crop, and the images of the set have several sizes.
    """
    if name not in _KNOWN:
        return None
    facts = _KNOWN[name]
    size = frame or facts.size
    if size is None:
        raise UsageError(
            f"the images of {name} have several sizes: give the size of the crops that are trained "
            "on, --data.crop.size."
        )
    return Card(
        name=name,
        classes=list(facts.classes),
        image_shape=(*size, 3),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        train=facts.train,
        val=facts.val,
        photographs=True,
        ignore_label=ignore_label(len(facts.classes)),
        palette=tuple(facts.palette),
    )
