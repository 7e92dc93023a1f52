"""What the networks of the zoo have in common: their common fields, their input, their head."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import ConvAttention, Mechanism
from senet_jax.attention.base import check_mechanism
from senet_jax.errors import UsageError, choose
from senet_jax.ops.precision import accurate
from senet_jax.ranges import check_fields

FeaturesBy = Literal["stride", "stage"]


class FeatureMaps:
    """The feature maps that a network collects on its way, by stride or by stage."""

    def __init__(self, by: FeaturesBy) -> None:
        self._by = by
        self.found: dict[int, Array] = {}
        """The maps; a later one of the same stride or stage takes the place of an earlier one."""

    def add(self, x: Float[Array, "n h w c"], *, stride: int, stage: int | None = None) -> None:
        """Adds a map.

        Args:
            x: The map.
            stride: Pixels of the image between two of the map.
            stage: The stage that ends in the map. If None, it ends none, and by stage it is left
                out.
        """
        key = stride if self._by == "stride" else stage
        if key is not None:
            self.found[key] = x


class Backbone(nn.Module, kw_only=True):
    """An image classifier with attention in some of its stages.

    Called as ``model.apply(variables, images, train=False)`` on float images (n, h, w, c); gives
    float32 logits (n, num_classes). Variables are ``params`` and ``batch_stats``. What drops or
    mixes at random in training needs the random key "dropout".

    Raises:
        UsageError: A field that does not fit, a stage that does not exist, or images that are not
            float (n, h, w, c) or too small.
    """

    num_classes: int = 1000
    """Number of logits."""
    attention: Mechanism | None = None
    """The attention of the blocks, a description such as ``SqueezeExciteConfig()``."""
    stages: tuple[int, ...] | None = None
    """Stages that carry the attention, by the family's numbers; None means all."""
    dropout: float = 0.0
    """Rate of dropout before the classifier."""
    features_only: bool = False
    """Return, in place of the logits, the feature maps in a dictionary. There is then no
    ``head``."""
    features_by: FeaturesBy = "stride"
    """The keys of these maps: "stride", with the last map of every stride; or "stage", with the map
    that each of ``stage_numbers`` ends in. In a dilated network several of these have one
    stride."""
    remat: bool = False
    """Compute each block again in the backward pass rather than keep what is inside it: less
    memory, more time, the same results and parameters."""
    dtype: Any = None
    """Compute precision, for instance ``jnp.bfloat16``; None means that of the parameters, float32,
    whatever the images are. Statistics and the attention's gate stay float32."""
    norm_group: int | None = None
    """Samples of the batch whose statistics a batch norm takes together; None means all of them, on
    all devices. With those of one device, 32 in the papers, or fewer no device waits for another
    in a batch norm."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_mechanism(self.attention)
        choose("features_by", self.features_by, get_args(FeaturesBy))
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
        """Whether the family has a place for attention that replaces a convolution."""
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

    def classify(
        self, x: Float[Array, "n h w c"], train: bool
    ) -> Float[Array, "n {self.num_classes}"]:
        """Averages the pixels and applies dropout and the ``head``; called in ``__call__``."""
        x = jnp.mean(x, axis=(1, 2), dtype=accurate(x.dtype))
        self.sow("intermediates", "features", x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        init = nn.initializers.normal(0.01)
        return nn.Dense(self.num_classes, kernel_init=init, dtype=x.dtype, name="head")(x)


class Stage(nn.Module):
    """Blocks of one resolution, one after the other; their names count from 1."""

    blocks: tuple[Callable[..., nn.Module], ...]
    """Constructors that only lack a name."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        for index, block in enumerate(self.blocks, 1):
            x = block(name=f"block{index}")(x, train)
        return x


MOST_CHANNELS = 4
"""Channels of images that are told from their sides: RGB with alpha, or CMYK."""


def check_images(images: Array, smallest: int = 1) -> None:
    """Refuses what is not a batch of float images.

    Args:
        images: What a network is called on.
        smallest: The smallest side that the network can take, pixels.

    Raises:
        UsageError: The array is not (n, h, w, c) but perhaps (n, c, h, w), not floating, or too
            small.
    """
    if not isinstance(images, jax.Array | np.ndarray):
        raise UsageError(f"images must be an array (n, h, w, c), not a {type(images).__name__}.")
    shape = images.shape
    if len(shape) != 4 or 0 in shape:
        raise UsageError(f"images must be (n, h, w, c), not {shape}.")
    if shape[1] in (1, 3) and min(shape[2:]) > MOST_CHANNELS:
        raise UsageError(
            f"images must be (n, h, w, c), not {shape}, which is (n, c, h, w), PyTorch's layout: "
            "transpose them with images.transpose(0, 2, 3, 1)."
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UsageError(f"images must be float, not {images.dtype}: normalise them first.")
    height, width = shape[1:3]
    if min(height, width) < smallest:
        raise UsageError(
            f"images of {height}x{width} pixels are too small: this network takes {smallest} or "
            "more on each side."
        )
