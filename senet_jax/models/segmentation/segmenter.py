"""Networks of semantic segmentation: a backbone, a head on its last map, an auxiliary head.

The heads are in :mod:`senet_jax.models.segmentation.heads`, the names in
:mod:`senet_jax.models.segmentation.named`.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Mechanism
from senet_jax.errors import UsageError
from senet_jax.fields.segmenters import (
    DeepLabV3Fields,
    DeepLabV3PlusFields,
    PSPNetFields,
    SegmenterFields,
)
from senet_jax.models.backbone import STEM, Backbone, check_images
from senet_jax.models.frozen import check_stages, frozen_norms
from senet_jax.models.segmentation.heads import (
    DeepLabV3Head,
    DeepLabV3PlusHead,
    FCNHead,
    Maps,
    PyramidHead,
)
from senet_jax.ops.compute import Compute
from senet_jax.ops.resize import resize_bilinear
from senet_jax.ranges import CLASSES, check_fields

LOW_STAGE = 2
"""The stage whose map the decoder of DeepLabV3+ reads: conv2_x, of stride 4 in a ResNet."""


class Segmenter(SegmenterFields, nn.Module, kw_only=True):
    """A network that classifies every pixel.

    Called as ``model.apply(variables, images, train=False)`` on float images (n, h, w, c); gives
    ``{"out": logits, "aux": logits}``, each float32 (n, h, w, num_classes), of the size of the
    images. Variables are ``params`` and ``batch_stats``, each with ``backbone``, ``head`` and
    ``aux_head``. Training needs the random key "dropout".

    The head reads the map of the last stage, the auxiliary head that of the stage before it.
    Precision, ``remat`` and ``norm_group`` are fields of the backbone and hold for the heads too.

    Raises:
        UsageError: A field that does not fit, or a backbone that lacks a stage; when it is called,
            what the backbone does not take, or in training a batch norm of a mean over the pixels
            that has a single image.
    """

    backbone: Backbone
    """The network that makes the feature maps. Its head is left out."""
    num_classes: Annotated[int, CLASSES] = 21
    """Number of logits of a pixel; a run has the classes of its data set."""

    def __post_init__(self) -> None:
        check_fields(self)
        numbers = self.backbone.stage_numbers
        if self.aux and len(numbers) < 2:
            raise UsageError(
                f"the auxiliary head needs a stage before the last, and the backbone has stage "
                f"{numbers[0]} alone: set aux=False, or take a backbone of more stages."
            )
        check_stages(self.backbone, self.frozen_norms)
        self.backbone = self.backbone.clone(features_only=True, features_by="stage")
        super().__post_init__()

    @property
    def attention(self) -> Mechanism | None:
        """The attention of the backbone."""
        return self.backbone.attention

    @property
    def stage_numbers(self) -> Sequence[int]:
        """Numbers of the stages of the backbone."""
        return self.backbone.stage_numbers

    @property
    def drop_block(self) -> float:
        """Rate of DropBlock of the backbone."""
        return getattr(self.backbone, "drop_block", 0.0)

    @property
    def classifiers(self) -> Sequence[str]:
        """Modules whose outputs are logits, and whose shapes depend on the number of classes."""
        return ("head/classifier", "aux_head/classifier") if self.aux else ("head/classifier",)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], train: bool, **arguments: Any
    ) -> dict[str, Float[Array, "n h w {self.num_classes}"]]:
        """Applies the network.

        Args:
            images: Normalized images.
            train: Normalize with the batch's statistics and drop what the fields say.
            **arguments: Others of the backbone, such as ``drop_block_scale``.
        """
        check_images(images)
        with frozen_norms(self.backbone, self.frozen_norms):
            maps = self.backbone(images, train, **arguments)
        compute = self.backbone.compute(train)
        height, width = size = images.shape[1:3]
        found = {"out": self.decode(maps, (height, width), self._of_head(compute))}
        if self.aux:
            head = FCNHead(
                num_classes=self.num_classes,
                dropout=self.aux_dropout,
                compute=compute,
                name="aux_head",
            )
            found["aux"] = head(maps[self.backbone.stage_numbers[-2]])
        return {
            key: resize_bilinear(logits, size, align_corners=self.align_corners)
            for key, logits in found.items()
        }

    def decode(
        self, maps: Maps, size: tuple[int, int], common: dict[str, Any]
    ) -> Float[Array, "n h2 w2 classes"]:
        """Applies the ``head``; called in ``__call__``.

        Args:
            maps: The feature maps by stage.
            size: Height and width of the images.
            common: The fields of ``Head``, by name.

        Returns:
            Logits on the grid of a map.
        """
        raise NotImplementedError

    def last(self, maps: Maps) -> Float[Array, "n _ _ _"]:
        """The map of the last stage."""
        return maps[self.backbone.stage_numbers[-1]]

    def _of_head(self, compute: Compute) -> dict[str, Any]:
        return {
            "num_classes": self.num_classes,
            "dropout": self.dropout,
            "compute": compute,
            "name": "head",
        }


class FCN(Segmenter):
    """A fully convolutional network (arXiv 1411.4038) in the dilated form of torchvision."""

    def decode(
        self, maps: Maps, size: tuple[int, int], common: dict[str, Any]
    ) -> Float[Array, "n h2 w2 classes"]:
        return FCNHead(**common)(self.last(maps))


class PSPNet(PSPNetFields, Segmenter):
    """The pyramid scene parsing network (arXiv 1612.01105)."""

    def decode(
        self, maps: Maps, size: tuple[int, int], common: dict[str, Any]
    ) -> Float[Array, "n h2 w2 classes"]:
        head = PyramidHead(grids=self.grids, align_corners=self.align_corners, **common)
        return head(self.last(maps))


class DeepLabV3(DeepLabV3Fields, Segmenter):
    """DeepLabV3 (arXiv 1706.05587): atrous spatial pyramid pooling on a dilated backbone."""

    def decode(
        self, maps: Maps, size: tuple[int, int], common: dict[str, Any]
    ) -> Float[Array, "n h2 w2 classes"]:
        return DeepLabV3Head(**common, **self._of_pyramid)(self.last(maps))

    @property
    def _of_pyramid(self) -> dict[str, Any]:
        """The fields of ``ASPPHead``."""
        own = ("head_width", "rates", "aspp_dropout", "drop_channels")
        return {field: getattr(self, field) for field in own}


class DeepLabV3Plus(DeepLabV3PlusFields, DeepLabV3):
    """DeepLabV3+ (arXiv 1802.02611): DeepLabV3 whose decoder reads the map of stage 2 too.

    The convolutions of the decoder are plain ones, those of the paper's section 3.1 and Table 2.
    """

    def __post_init__(self) -> None:
        numbers = self.backbone.stage_numbers
        if LOW_STAGE not in numbers[:-1]:
            raise UsageError(
                f"the decoder of DeepLabV3+ reads the map of stage {LOW_STAGE} beside the last, "
                f"and the backbone has the stages {', '.join(map(str, numbers))}: choose another "
                "backbone, or deeplabv3."
            )
        super().__post_init__()

    def decode(
        self, maps: Maps, size: tuple[int, int], common: dict[str, Any]
    ) -> Float[Array, "n h2 w2 classes"]:
        head = DeepLabV3PlusHead(
            low_width=self.low_width,
            layers=self.decoder_layers,
            refine_width=self.refine_width,
            align_corners=self.align_corners,
            **common,
            **self._of_pyramid,
        )
        if self.refine_width is not None and STEM not in maps:
            raise UsageError(
                f"refine_width needs a map of the stem, and {type(self.backbone).__name__} gives "
                "none: leave refine_width out, or choose a ResNet or a DenseNet."
            )
        return head(self.last(maps), maps[LOW_STAGE], maps.get(STEM), size)

    @property
    def classifiers(self) -> Sequence[str]:
        if self.refine_width is None:
            return super().classifiers
        return (*super().classifiers, "head/fine_classifier")
