"""The common parts of the networks of the zoo: fields, input and head."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from senet_jax.attention import ConvAttention, Mechanism
from senet_jax.attention.base import check_mechanism
from senet_jax.errors import UsageError
from senet_jax.fields.models import BackboneFields
from senet_jax.ops.compute import Compute
from senet_jax.ops.precision import accurate
from senet_jax.ranges import CLASSES, check_fields

Declaration = TypeVar("Declaration", bound=BackboneFields)

FeaturesBy = Literal["stride", "stage"]

STEM = 1
"""The number of the stem among the maps by stage, in families whose first stage is 2."""


class FeatureMaps:
    """The feature maps that a network collects on its way, by stride and by stage."""

    def __init__(self) -> None:
        self._found: dict[FeaturesBy, dict[int, Array]] = {"stride": {}, "stage": {}}

    def add(self, x: Float[Array, "n h w c"], *, stride: int, stage: int | None = None) -> None:
        """Adds a map, which replaces one of the same stride or stage.

        Args:
            x: The map.
            stride: Pixels of the image between two of the map.
            stage: The stage that ends in the map; if None, none does.
        """
        self._found["stride"][stride] = x
        if stage is not None:
            self._found["stage"][stage] = x

    def by(self, key: FeaturesBy) -> dict[int, Float[Array, "n h w c"]]:
        """The maps by their stride, or by the stage that ends in them."""
        return self._found[key]

    @property
    def last(self) -> Float[Array, "n h w c"]:
        """The map of the largest stride that was added last."""
        maps = self._found["stride"]
        return maps[max(maps)]


class Backbone(BackboneFields, nn.Module, kw_only=True):
    """An image classifier with attention in some of its stages.

    Called as ``model.apply(variables, images, train=False)`` on float images (n, h, w, c); gives
    float32 logits (n, num_classes). Variables are ``params`` and ``batch_stats``. What drops or
    mixes at random in training needs the random key "dropout".

    Raises:
        UsageError: A field that does not fit, a stage that does not exist, or images that are not
            float (n, h, w, c) or too small.
    """

    # The fields that a program sets and no user: what they say, a config says in other words.
    num_classes: Annotated[int, CLASSES] = 1000
    """Number of logits; a run has the classes of its data set."""
    attention: Mechanism | None = None
    """The attention of the blocks, a description such as ``SqueezeExciteConfig()``."""
    features_only: bool = False
    """Return, in place of the logits, the feature maps in a dictionary. There is then no
    ``head``."""
    features_by: FeaturesBy = "stride"
    """The keys of these maps: "stride", with the last map of every stride; or "stage", with the map
    that each of ``stage_numbers`` ends in and, under ``STEM``, that of a stem before its pool. In a
    dilated network several of these have one stride."""
    dtype: DTypeLike | None = None
    """Compute precision, for instance ``jnp.bfloat16``; None means that of the parameters, float32,
    whatever the images are. Statistics and the attention's gate stay float32."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_mechanism(self.attention)
        if isinstance(self.attention, ConvAttention) and not self.replaces_convolutions:
            raise UsageError(
                f"{type(self.attention).__name__} replaces the 3x3 convolution of a residual block "
                f"and its batch norm, which {type(self).__name__} has none of: choose an attention "
                "that rescales, such as SqueezeExciteConfig() or ECAConfig()."
            )
        numbers = self.stage_numbers
        for stage in self.stages or ():
            if stage not in numbers:
                raise UsageError(
                    f"stage {stage} does not exist: the stages are {numbers[0]} to {numbers[-1]}."
                )
        super().__post_init__()

    @property
    def replaces_convolutions(self) -> bool:
        """Tells whether the family has a place for attention that replaces a convolution."""
        return False

    @property
    def stage_numbers(self) -> Sequence[int]:
        """Numbers of the stages that can carry attention."""
        raise NotImplementedError

    @property
    def head_modules(self) -> Sequence[str]:
        """Modules of the classifier, which ``features_only`` leaves out."""
        return ("head",)

    def stage_of(self, module: str) -> int:
        """The stage that a module of the network is part of, by its name; 1 is the stem's."""
        match = re.fullmatch(r"stage(\d+)", module)
        return int(match[1]) if match else 1

    def attention_of(self, stage: int) -> Mechanism | None:
        """The attention that the blocks of a stage carry."""
        return self.attention if self.stages is None or stage in self.stages else None

    def compute(self, train: bool) -> Compute:
        """Returns the precision and the norms of the network's layers."""
        return Compute(train, self.dtype, self.norm_group)

    def rematerialized(self, block: type[nn.Module]) -> Callable[..., nn.Module]:
        """The class of a block, or with ``remat`` one that the backward pass computes again."""
        return nn.remat(block) if self.remat else block

    def outputs(
        self, features: FeatureMaps, train: bool
    ) -> Float[Array, "n {self.num_classes}"] | dict[int, Float[Array, "n h2 w2 c2"]]:
        """The feature maps by stride or by stage, or the logits from the last of them."""
        if self.features_only:
            return features.by(self.features_by)
        return self.classify(features.last, train)

    def classify(
        self, x: Float[Array, "n h w c"], train: bool
    ) -> Float[Array, "n {self.num_classes}"]:
        """Averages the pixels and applies dropout and the ``head``; called in ``__call__``."""
        x = jnp.mean(x, axis=(1, 2), dtype=accurate(x.dtype))
        self.sow("intermediates", "features", x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        init = nn.initializers.normal(0.01)
        return nn.Dense(self.num_classes, kernel_init=init, dtype=x.dtype, name="head")(x)


def declared_values(declaration: type[Declaration], network: Backbone) -> Declaration:
    """The values of a network's fields by themselves, as its blocks take them.

    Args:
        declaration: The dataclass that declares the fields and that the network inherits.
        network: The network.
    """
    names = [field.name for field in dataclasses.fields(declaration)]
    return declaration(**{name: getattr(network, name) for name in names})


class Stage(nn.Module):
    """Blocks of one resolution, one after the other; their names count from 1."""

    blocks: tuple[Callable[..., nn.Module], ...]
    """Constructors that only lack a name."""
    prefix: str = "block"
    """Beginning of the names."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *others: Any) -> Float[Array, "n h2 w2 c2"]:
        """Applies the blocks, each of which is given ``others`` as well."""
        for index, block in enumerate(self.blocks, 1):
            x = block(name=f"{self.prefix}{index}")(x, *others)
        return x


MOST_CHANNELS = 4
"""Channels of images that are told from their sides: RGB with alpha, or CMYK."""


def check_images(images: Array, smallest: int = 1) -> None:
    """Checks that images are a batch of floats, (n, h, w, c).

    Args:
        images: The images that a network is called on.
        smallest: The smallest side that the network can take, pixels.

    Raises:
        UsageError: The array is not (n, h, w, c) but perhaps (n, c, h, w), not floating, or too
            small.
    """
    if not isinstance(images, jax.Array | np.ndarray):
        raise UsageError(f"images must be an array (n, h, w, c), not a {type(images).__name__}.")
    shape = images.shape
    if len(shape) != 4:
        raise UsageError(f"images must be (n, h, w, c), not {shape}.")
    if 0 in shape:
        raise UsageError(f"images must be (n, h, w, c) of at least 1 each, not {shape}.")
    if shape[1] in (1, 3) and min(shape[2:]) > MOST_CHANNELS:
        raise UsageError(
            f"images must be (n, h, w, c), not {shape}, which is (n, c, h, w), PyTorch's layout: "
            "transpose them with images.transpose(0, 2, 3, 1)."
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UsageError(f"images must be float, not {images.dtype}: normalize them first.")
    height, width = shape[1:3]
    if min(height, width) < smallest:
        raise UsageError(
            f"images of {height}x{width} pixels are too small: this network takes {smallest} or "
            "more on each side."
        )
