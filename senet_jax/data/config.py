"""The images of a run and their augmentation: plain values, without any import of jax."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from senet_jax.errors import UsageError, require
from senet_jax.ranges import MOST_BATCH, MOST_SIDE, Range, check_config, whole

Interpolation = Literal["bilinear", "bicubic"]


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """The augmentation of training images."""

    # Pixels of images in memory, whose sides are below 100.
    pad: Annotated[int, whole(0, 128)] = 0
    """Small images: crop at random out of the image padded by this many pixels (CIFAR: 4)."""
    flip: bool = False
    """Mirror half of the images."""
    cutout: Annotated[int, whole(0, 256)] = 0
    """Small images: side of a square at a random place that is set to the mean (CIFAR-10: 16,
    CIFAR-100: 8)."""
    crop_area: Annotated[tuple[float, float], Range(0, 1, open_below=True, count=(2, 2))] = (
        0.08,
        1.0,
    )
    """Photographs: share of the image's area that the random resized crop takes, least and
    greatest."""
    crop_ratio: Annotated[tuple[float, float], Range(0.01, 100, count=(2, 2))] = (3 / 4, 4 / 3)
    """Photographs: width over height of that crop, least and greatest."""
    interpolation: Interpolation = "bilinear"
    """Photographs: how crops are scaled in training."""
    rotation: Annotated[float, Range(0, 180)] = 0.0
    """Rotate by up to this many degrees (the released SENets: 10)."""
    pixel_shift: Annotated[int, whole(0, 255)] = 0
    """Add up to so much to all pixels, of 255 (the released SENets: 20)."""
    color_jitter: Annotated[float, Range(0, 1)] = 0.0
    """Change brightness, contrast and saturation by up to this share (ResNeSt: 0.4)."""
    # At 10 nearly every pixel is 0 or 255.
    lighting: Annotated[float, Range(0, 10)] = 0.0
    """Standard deviation of the PCA noise of AlexNet (ResNeSt: 0.1)."""
    policy: Literal["autoaugment", "randaugment"] | None = None
    """A policy of operations: AutoAugment's for ImageNet, or RandAugment."""
    # Each is a pass over the image.
    randaugment_ops: Annotated[int, whole(0, 100)] = 2
    """Operations that RandAugment draws for an image."""
    randaugment_magnitude: Annotated[int, whole(0, 30)] = 12
    """Their strength, 0 to 30."""
    erasing: Annotated[float, Range(0, 1)] = 0.0
    """Probability that a rectangle of the image is set to noise."""
    # Beta(a, a): at 1000 all weights are 1/2, at 1e-6 all are 0 or 1.
    mixup: Annotated[float, Range(1e-6, 1000, or_zero=True)] = 0.0
    """Mix pairs of images with weights of Beta(a, a); 0 means none (ResNeSt: 0.2)."""
    cutmix: Annotated[float, Range(1e-6, 1000, or_zero=True)] = 0.0
    """Paste a rectangle of area of Beta(a, a) of another image; 0 means none. With mixup too, each
    batch takes one of the two."""

    def validate(self) -> None:
        """Checks what a type cannot say.

        Raises:
            UsageError: A field that is outside its range, or needs another.
        """
        check_config(self, "data.augment.")
        for field in ("crop_area", "crop_ratio"):
            least, greatest = getattr(self, field)
            allowed = "the least and the greatest, in this order"
            require(least <= greatest, f"data.augment.{field}", (least, greatest), allowed)
        changed = _changed(self, "randaugment_ops", "randaugment_magnitude")
        if changed and self.policy != "randaugment":
            raise UsageError(f"data.augment.{changed[0]} needs --data.augment.policy randaugment.")

    def check_images(self, photographs: bool) -> None:
        """Refuses what is not done to the images of a data set.

        Args:
            photographs: The images are decoded when they are read, not small ones in memory.

        Raises:
            UsageError: A field that is set and would do nothing.
        """
        if photographs and (changed := _changed(self, "pad", "cutout")):
            raise UsageError(
                f"data.augment.{changed[0]} is for small images in memory: photographs have "
                "--data.augment.crop-area and --data.augment.erasing."
            )
        if not photographs and (changed := _changed(self, *_FOR_PHOTOGRAPHS)):
            raise UsageError(
                f"data.augment.{changed[0]} is for photographs: small images in memory have "
                "pad, flip, cutout, mixup and cutmix."
            )


_FOR_PHOTOGRAPHS = (
    "crop_area",
    "crop_ratio",
    "interpolation",
    "rotation",
    "pixel_shift",
    "color_jitter",
    "lighting",
    "policy",
    "erasing",
)

_SIZES_AND_TURN = ("image_size", "train_sizes", "exif_orientation")


def _changed(config: Any, *fields: str) -> list[str]:
    """The names of the fields that do not have their default."""
    default = type(config)()
    return [field for field in fields if getattr(config, field) != getattr(default, field)]


@dataclasses.dataclass(frozen=True)
class CropConfig:
    """The scale and the crop of images and labels of scenes in training."""

    size: Annotated[tuple[int, ...], whole(1, MOST_SIDE, count=(0, 2))] = ()
    """Height and width of the crops, or one number for both, pixels; empty means the size of the
    images, which must have the same."""
    base: Annotated[int | None, whole(1, MOST_SIDE, none="the image's own side")] = None
    """Side that ``scale`` is a multiple of, pixels (ResNeSt, torchvision: 520); None means the
    image's own."""
    scale: Annotated[tuple[float, float], Range(1 / 16, 16, count=(2, 2))] = (1.0, 1.0)
    """Least and greatest scale, which is drawn for each image (ResNeSt, torchvision: 0.5 2)."""
    side: Literal["long", "short"] = "long"
    """Side of an image that ``base`` is for: the longer one (ResNeSt's authors), or the shorter
    (torchvision)."""
    padding: Literal["black", "mean"] = "black"
    """Colour of what an image lacks to fill a crop or a shape of evaluation: black, as in
    PyTorch code, or the mean of the data set, which is zero after normalization. Its label is
    ignored."""

    def validate(self) -> None:
        """Checks what a type cannot say.

        Raises:
            UsageError: A field that is outside its range.
        """
        least, greatest = self.scale
        allowed = "the least and the greatest, in this order"
        require(least <= greatest, "data.crop.scale", self.scale, allowed)

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of the crops, pixels; None means the images' own."""
        return (self.size[0], self.size[-1]) if self.size else None


@dataclasses.dataclass(frozen=True)
class ObjectsConfig:
    """Detection: the sizes of images, and the objects of them that a network is trained on."""

    short: Annotated[tuple[int, ...], whole(1, MOST_SIDE, count=(0, 2))] = ()
    """Shorter side that images are scaled to, pixels; of two numbers, the least and the greatest,
    one is drawn for each training image (ResNeSt: 640 800), and evaluation takes the greatest.
    Empty leaves images as they are."""
    long: Annotated[int | None, whole(1, MOST_SIDE, none="any length")] = None
    """Longer side that no scaled image exceeds, pixels (COCO: 1333); it makes the shorter one
    less."""
    # Each has a mask of its own in a batch.
    most: Annotated[int, whole(1, 4096)] = 100
    """Objects of a training image, at the most; of more the largest are taken."""
    mask_side: Annotated[int, whole(8, 1024)] = 112
    """Pixels of the side of the mask of an object in training, which covers its box."""

    def validate(self) -> None:
        """Checks what a type cannot say.

        Raises:
            UsageError: A field that does not fit another.
        """
        allowed = "the least and the greatest, in this order"
        require(self.short == tuple(sorted(self.short)), "data.objects.short", self.short, allowed)
        if self.long is not None and not self.short:
            raise UsageError("data.objects.long needs --data.objects.short.")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images."""

    name: str = "cifar10"
    """A set that `senet-jax prepare` builds ("cifar10", "imagenet2012", ...), "digits", or "folder"
    (images in DIR/train/<class>/ and DIR/val/<class>/). Of segmentation: "scenes" (digits in a
    scene, drawn), "ade20k", "cityscapes", "voc2012", "voc2012_aug", "pascal_context", "camvid", or
    "masks": DIR/images, DIR/annotations (for each image a PNG with the class of each pixel) and
    DIR/classes.txt (names, one a line), with the folders train and val in both, or with lists of
    names DIR/train.txt and DIR/val.txt. Of detection: "scenes", "coco", "coco_json" (any folder in
    COCO's format), "voc_xml" (any folder in PASCAL VOC's), and "coco/2014", "coco/2017",
    "voc/2007" and "voc/2012", the boxes that TensorFlow Datasets prepares."""
    dir: Path | None = None
    """The folder of the data set; for TFDS sets None means TFDS_DATA_DIR, else TFDS's default."""
    fraction: Annotated[float, Range(0, 1, open_below=True)] = 1.0
    """Share of the training images that is used, the same ones for every seed."""
    image_size: Annotated[
        int | None, whole(1, MOST_SIDE, none="that of the network or of the set")
    ] = None
    """Side that photographs are scaled to, pixels, None means that of the network; or the side of
    drawn scenes, 64 to 192, None means 64."""
    train_sizes: Annotated[tuple[int, ...], whole(1, MOST_SIDE, count=(0, 1000))] = ()
    """Progressive resolution: sides of the training images, each for an equal share of the epochs;
    empty means ``image_size`` throughout."""
    batch_size: Annotated[int, whole(1, MOST_BATCH)] = 128
    """Training images of a step, over all devices."""
    eval_batch_size: Annotated[int, whole(1, MOST_BATCH)] = 500
    """Validation images of a step; rounded up to what the devices divide."""
    # The image is scaled to the side of the view divided by this.
    crop_pct: Annotated[float, Range(0.01, 1)] = 0.875
    """Evaluation of photographs: side of the centre crop over the scaled image's shorter side."""
    eval_interpolation: Interpolation = "bilinear"
    """The filter by which photographs are scaled in evaluation."""
    exif_orientation: bool = False
    """Turn photographs as the orientation in their EXIF says, in training and evaluation; the
    published networks were trained and evaluated without."""
    balanced: bool = False
    """Draw each class equally often (data balancing of the SENet team), not each image."""
    # Processes of one machine.
    workers: Annotated[int, whole(0, 1024)] = 0
    """Processes that decode photographs; 0 decodes in threads of the main process."""
    max_corrupt: Annotated[float, Range(0, 1)] = 0.001
    """Share of training images that may be unreadable, each replaced by another, before the run
    stops."""
    normalization: Literal["dataset", "imagenet", "inception", "bninception"] = "dataset"
    """Mean and standard deviation that images are normalized with: the data set's own, those
    of ImageNet, or what released Inceptions (-1 to 1) and BN-Inceptions (BGR, 0 to 255 less the
    mean) were trained with."""
    augment: AugmentConfig = AugmentConfig()
    crop: CropConfig = CropConfig()
    objects: ObjectsConfig = ObjectsConfig()
    # Each is a compiled program.
    eval_shapes: Annotated[int, whole(1, 1000)] = 8
    """Segmentation and detection: shapes that images of different sizes are padded to in
    evaluation, at the most. Each is a compiled program; with as many as there are sizes nothing is
    padded. Networks that average over the image, as SE and DeepLabV3 do, see the padding."""
    val_split: str | None = None
    """Segmentation and detection: the held-out split, such as "val" or "test"; None means that of
    the set: "test" of CamVid, "val" of others."""
    # Labels have 16 bits at the most.
    ignore_label: Annotated[int | None, whole(0, 2**16 - 1, none="255")] = None
    """Segmentation on "masks": the value of pixels that have no class; None means 255. The classes
    have the other values, from 0 on."""

    def validate(self) -> None:
        """Checks what a type cannot say.

        Raises:
            UsageError: A field whose value is outside its range.
        """
        check_config(self, "data.")
        self.augment.validate()
        self.crop.validate()
        self.objects.validate()

    def check_images(self, photographs: bool) -> None:
        """Refuses what does nothing for a data set.

        Args:
            photographs: The images are decoded when they are read, not small ones in memory.

        Raises:
            UsageError: A field that is set and would do nothing.
        """
        if not photographs and (changed := _changed(self, *_SIZES_AND_TURN)):
            raise UsageError(
                f"data.{changed[0]} is for photographs: the images of {self.name} have their own "
                "size and stand upright."
            )
        self.augment.check_images(photographs)
