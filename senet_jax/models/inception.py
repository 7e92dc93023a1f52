"""BN-Inception, Inception-v3 and a small one, with attention on each module's concatenation.

Sources: BN-Inception (arXiv 1502.03167, Figure 5), Inception-v3 (arXiv 1512.00567, Table 1), the
small Inception for CIFAR (arXiv 1611.03530, Figure 3), the place of the attention (SENet, arXiv
1709.01507, section 3.3 and Figure 2). Where papers and released weights differ, the networks are
those of the weights: Cadene's port of the BN-Inception of Caffe, and torchvision's and timm's
Inception-v3 without its auxiliary classifier.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Mechanism, SqueezeExciteConfig
from senet_jax.attention.base import apply_attention
from senet_jax.errors import UsageError
from senet_jax.fields.models import InceptionFields
from senet_jax.models.backbone import Backbone, FeatureMaps, check_images
from senet_jax.models.branches import (
    Conv,
    Fork,
    Path,
    Pool,
    Step,
    UnitConfig,
    chain,
    follow,
    side_after,
)


@dataclasses.dataclass(frozen=True)
class ModuleSpec(Fork):
    """An Inception module: parallel paths that are concatenated."""

    name: str
    stage: int


class InceptionModule(nn.Module):
    """The paths of a module, their concatenation, and the attention on it."""

    spec: ModuleSpec
    config: UnitConfig
    attention: Mechanism | None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        x = follow((self.spec,), x, self.config)
        return apply_attention(self.attention, x, self.config.compute)


class Inception(InceptionFields, Backbone):
    """A sequence of convolutions, pools and Inception modules.

    Of ``features_only`` the first maps are the stem's, before its pools. ``remat`` is by module.

    Raises:
        UsageError: As ``Backbone``; or images of which the paths of a module would make maps of
            different sizes.
    """

    layers: tuple[Step, ...]
    """The network but for its head, from the image on. Modules are ``ModuleSpec``."""

    @property
    def stage_numbers(self) -> Sequence[int]:
        return sorted({layer.stage for layer in self.layers if isinstance(layer, ModuleSpec)})

    def stage_of(self, module: str) -> int:
        stage = 1
        for layer in self.layers:
            stage = layer.stage if isinstance(layer, ModuleSpec) else stage
            if getattr(layer, "name", None) == module:
                break
        return stage

    def module(self, spec: ModuleSpec, config: UnitConfig) -> nn.Module:
        """Builds a module; called in ``__call__``."""
        attention = self.attention_of(spec.stage)
        return self.rematerialized(InceptionModule)(spec, config, attention, name=spec.name)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], train: bool
    ) -> Float[Array, "n classes"] | dict[int, Float[Array, "n h2 w2 c2"]]:
        """Applies the network.

        Args:
            images: Normalized images.
            train: Normalize with the batch's statistics and drop what the fields say.
        """
        self._check_sides(images)
        config = UnitConfig(self.compute(train), self.conv_bias, self.epsilon)
        x, stride, features = images, 1, FeatureMaps()
        for layer in self.layers:
            if isinstance(layer, ModuleSpec):
                x, stage = self.module(layer, config)(x), layer.stage
            else:
                x, stage = follow((layer,), x, config), None
            stride *= layer.stride
            features.add(x, stride=stride, stage=stage)
        # Convolutions after the last module are part of its stage.
        features.add(x, stride=stride, stage=self.stage_numbers[-1])
        return self.outputs(features, train)

    def _check_sides(self, images: Array) -> None:
        check_images(images)

        def fits(side: int) -> bool:
            return side_after(self.layers, side) is not None

        height, width = images.shape[1:3]
        wrong = [side for side in (height, width) if not fits(side)]
        if wrong:
            check_images(images, next(filter(fits, itertools.count(1))))
            below = next(filter(fits, itertools.count(wrong[0], -1)))
            above = next(filter(fits, itertools.count(wrong[0])))
            raise UsageError(
                f"images of {height}x{width} pixels do not fit: of a side of {wrong[0]} the paths "
                "of a strided module make maps of different sizes; the nearest sides that fit are "
                f"{below} and {above}."
            )


def _bn_module(
    name: str, one: int, three: tuple[int, int], double: tuple[int, int], pool: Pool, project: int
) -> ModuleSpec:
    """A module of BN-Inception; a width of zero leaves a convolution out."""
    paths: tuple[Path, ...] = (
        (Conv("1x1", one),) if one else (),
        (Conv("3x3_reduce", three[0]), Conv("3x3", three[1], 3, pool.stride)),
        (
            Conv("double_3x3_reduce", double[0]),
            Conv("double_3x3_1", double[1], 3),
            Conv("double_3x3_2", double[1], 3, pool.stride),
        ),
        (pool, Conv("pool_proj", project)) if project else (pool,),
    )
    return ModuleSpec(tuple(filter(None, paths)), f"inception_{name}", int(name[0]))


AVG, MAX = Pool("avg"), Pool("max")
_CAFFE = Pool("max", 2, ceil_mode=True)

BN_INCEPTION: tuple[Step, ...] = (
    Conv("conv1_7x7_s2", 64, 7, 2),
    _CAFFE,
    Conv("conv2_3x3_reduce", 64),
    Conv("conv2_3x3", 192, 3),
    _CAFFE,
    _bn_module("3a", 64, (64, 64), (64, 96), AVG, 32),
    _bn_module("3b", 64, (64, 96), (64, 96), AVG, 64),
    _bn_module("3c", 0, (128, 160), (64, 96), _CAFFE, 0),
    _bn_module("4a", 224, (64, 96), (96, 128), AVG, 128),
    _bn_module("4b", 192, (96, 128), (96, 128), AVG, 128),
    _bn_module("4c", 160, (128, 160), (128, 160), AVG, 128),
    _bn_module("4d", 96, (128, 192), (160, 192), AVG, 128),
    _bn_module("4e", 0, (128, 192), (192, 256), _CAFFE, 0),
    _bn_module("5a", 352, (192, 320), (160, 224), AVG, 128),
    _bn_module("5b", 352, (192, 320), (192, 224), MAX, 128),
)
"""Stages are numbered as in the paper, so that 3c and 4e, which have a stride, end theirs. The
strided convolutions are padded and the strided pools are not, so that their maps are of one size
only for images whose sides are from 32 n - 1 to 32 n + 6 pixels."""

VALID = (3, 2, False)
"""Fields of the convolutions that reduce the resolution: 3x3, stride 2, unpadded."""
REDUCE = Pool("max", 2)

STEM: tuple[Step, ...] = (
    Conv("conv2d_1a", 32, *VALID),
    Conv("conv2d_2a", 32, 3, padded=False),
    Conv("conv2d_2b", 64, 3),
    REDUCE,
    Conv("conv2d_3b", 80),
    Conv("conv2d_4a", 192, 3, padded=False),
    REDUCE,
)
"""The stem of Inception-v3 and of Inception-ResNet-v2."""


def _a(name: str, pool_width: int) -> ModuleSpec:
    """For maps of 35x35 (Inception-v3, Figure 5, but that the 5x5 is one of the two)."""
    paths = (
        chain("branch1x1", (64,)),
        chain("branch5x5", (48,), (64, 5)),
        chain("branch3x3dbl", (64,), (96, 3), (96, 3)),
        (AVG, Conv("branch_pool", pool_width)),
    )
    return ModuleSpec(paths, name, 3)


def _c(name: str, width: int) -> ModuleSpec:
    """For maps of 17x17, with 7x7 convolutions in two factors (Inception-v3, Figure 6)."""
    row, column = (1, 7), (7, 1)
    paths = (
        chain("branch1x1", (192,)),
        chain("branch7x7", (width,), (width, row), (192, column)),
        chain("branch7x7dbl", (width,), (width, column), (width, row), (width, column), (192, row)),
        (AVG, Conv("branch_pool", 192)),
    )
    return ModuleSpec(paths, name, 4)


def _e(name: str) -> ModuleSpec:
    """For maps of 8x8, with paths that fork (Inception-v3, Figure 7)."""

    def fork(name: str) -> Fork:
        return Fork(((Conv(f"{name}a", 384, (1, 3)),), (Conv(f"{name}b", 384, (3, 1)),)))

    paths = (
        chain("branch1x1", (320,)),
        (Conv("branch3x3_1", 384), fork("branch3x3_2")),
        (
            Conv("branch3x3dbl_1", 448),
            Conv("branch3x3dbl_2", 384, 3),
            fork("branch3x3dbl_3"),
        ),
        (AVG, Conv("branch_pool", 192)),
    )
    return ModuleSpec(paths, name, 5)


INCEPTION_V3: tuple[Step, ...] = (
    *STEM,
    _a("mixed_5b", 32),
    _a("mixed_5c", 64),
    _a("mixed_5d", 64),
    ModuleSpec(
        (
            chain("branch3x3", (384, *VALID)),
            chain("branch3x3dbl", (64,), (96, 3), (96, *VALID)),
            (REDUCE,),
        ),
        "mixed_6a",
        4,
    ),
    _c("mixed_6b", 128),
    _c("mixed_6c", 160),
    _c("mixed_6d", 160),
    _c("mixed_6e", 192),
    ModuleSpec(
        (
            chain("branch3x3", (192,), (320, *VALID)),
            chain("branch7x7x3", (192,), (192, (1, 7)), (192, (7, 1)), (192, *VALID)),
            (REDUCE,),
        ),
        "mixed_7a",
        5,
    ),
    _e("mixed_7b"),
    _e("mixed_7c"),
)
"""The names of the modules are TensorFlow's. The stages go by the resolution, as in ResNets: that
of stage s is 1/2^s of the image's, so that mixed_5*, 6* and 7* are stages 3, 4 and 5."""


def _small(name: str, stage: int, one: int, three: int) -> ModuleSpec:
    paths = (Conv("1x1", one),), (Conv("3x3", three, 3),)
    return ModuleSpec(paths, f"inception_{name}", stage)


def _down(name: str, stage: int, three: int) -> ModuleSpec:
    paths = (Conv("3x3", three, 3, 2),), (_CAFFE,)
    return ModuleSpec(paths, f"inception_{name}", stage)


CIFAR_INCEPTION: tuple[Step, ...] = (
    Conv("conv1", 96, 3),
    _small("2a", 2, 32, 32),
    _small("2b", 2, 32, 48),
    _down("3a", 3, 80),
    _small("3b", 3, 112, 48),
    _small("3c", 3, 96, 64),
    _small("3d", 3, 80, 80),
    _small("3e", 3, 48, 96),
    _down("4a", 4, 96),
    _small("4b", 4, 176, 160),
    _small("4c", 4, 176, 160),
)
"""For images of 28x28 or 32x32 pixels and smaller ones whose sides 4 divides. The stages are
numbered as those of the ResNets for CIFAR, and begin with what halves the resolution."""

SE = SqueezeExciteConfig()

_V3 = functools.partial(Inception, layers=INCEPTION_V3, epsilon=1e-3)

BN_INCEPTIONS: dict[str, Callable[..., Inception]] = {
    "bninception": functools.partial(Inception, layers=BN_INCEPTION, conv_bias=True),
    "se_bninception": functools.partial(Inception, layers=BN_INCEPTION, attention=SE),
}
"""The biases of the released weights; with SE, for which there are none in PyTorch, none."""

INCEPTION_V3S: dict[str, Callable[..., Inception]] = {
    "inception_v3": _V3,
    "se_inception_v3": functools.partial(_V3, attention=SE),
}
"""As in torchvision and timm. SE stands in all 11 modules, the two that reduce among them."""

_cifar = functools.partial(Inception, layers=CIFAR_INCEPTION, num_classes=10)

CIFAR_INCEPTIONS: dict[str, Callable[..., Inception]] = {
    "cifar_inception": _cifar,
    "cifar_se_inception": functools.partial(_cifar, attention=SE),
}
"""The small Inception. SE stands in all 10 modules; the paper has none."""
