"""Every family of networks, tiny: what the contract tests need to know of each."""

import dataclasses

from senet_jax.models.backbone import Backbone
from senet_jax.models.branches import Conv, Pool, chain
from senet_jax.models.densenet import DenseNet
from senet_jax.models.inception import REDUCE, Inception, ModuleSpec
from senet_jax.models.inception_resnet import InceptionResNet, ResidualSpec
from senet_jax.models.mobilenet import MobileNetV1
from senet_jax.models.preact_resnet import PreactResNet
from senet_jax.models.resnet import ResNet
from senet_jax.models.shake_shake import ShakeShake
from senet_jax.models.shufflenet import ShuffleNetV1
from senet_jax.models.vgg import VGG


@dataclasses.dataclass(frozen=True)
class Family:
    """Two tiny networks of a family and the facts that its tests expect."""

    model: Backbone
    """Networks of two stages; only traced."""
    small: Backbone
    """As small as it can be; compiled."""
    scopes: dict[str, int]
    """Scopes of the attention in ``model`` and the channels that it rescales."""
    strides: tuple[int, ...]
    """Strides of the maps of ``model``."""
    smallest: int = 1
    """Smallest side of the images that ``model`` takes, pixels."""
    side: int = 8
    """Side of the images that ``small`` is compiled for, pixels."""
    rates: tuple[str, ...] = ("dropout",)
    """Fields that drop something in training."""
    remats: int = 3
    """Modules of ``model`` that ``remat`` computes again."""
    quiet: tuple[tuple[str, object], ...] = ()
    """Fields without which training draws something even if every rate is 0."""


def _residual(scopes_of: tuple[int, int], **fields) -> dict:
    first, second = scopes_of
    return {
        "scopes": {"stage2/block1": first, "stage3/block1": second, "stage3/block2": second},
        "strides": (1, 2),
        **fields,
    }


_RESIDUAL = {"blocks": (1, 2), "widths": (4, 8), "stem_width": 4, "num_classes": 5}
_ONE_BLOCK = {**_RESIDUAL, "blocks": (1,), "widths": (4,)}
_RESNET_RATES = ("dropout", "stochastic_depth", "drop_block")
_BOTTLENECKS = {"bottleneck": True, "cardinality": 2}
_EVEN = (("forward", "even"), ("backward", "even"))


def _vgg(norm: bool) -> Family:
    fields = {"fc_width": 8, "norm": norm, "num_classes": 5}
    return Family(
        model=VGG(blocks=(1, 2), widths=(4, 8), **fields),
        small=VGG(blocks=(1,), widths=(4,), **fields),
        scopes={"stage1/layer1": 4, "stage2/layer1": 8, "stage2/layer2": 8},
        strides=(1, 2, 4),
        smallest=4,
    )


def _densenet(placement: str) -> Family:
    fields = {"growth_rate": 4, "stem": "cifar", "num_classes": 5, "placement": placement}
    layers = {"stage2/layer1": 4, "stage3/layer1": 4, "stage3/layer2": 4}
    return Family(
        model=DenseNet(blocks=(1, 2), **fields),
        small=DenseNet(blocks=(1, 1), **fields),
        scopes=layers if placement == "layer" else {"stage2": 12, "stage3": 14},
        strides=(1, 2),
        smallest=2,
        side=4,
        rates=("dropout", "drop_rate"),
    )


_LAYERS = (
    Conv("conv1", 6, 3, 2),
    Pool("max", 2, ceil_mode=True),
    ModuleSpec((chain("branch1", (4,)), chain("branch2", Pool("avg"), (4,))), "mixed_3", 3),
    ModuleSpec((chain("branch1", (4, 3, 2, False)), (REDUCE,)), "mixed_4", 4),
)
_RESIDUAL_LAYERS = (
    *_LAYERS[:3],
    ResidualSpec((chain("branch1", (4,)), chain("branch2", (3,), (4, 3))), "block_1", 3, 0.2),
    _LAYERS[3],
    ResidualSpec((chain("branch1", (4,)),), "block_2", 4, 1.0, relu=False),
)
_INCEPTION = Inception(layers=_LAYERS, num_classes=5)
_INCEPTION_RESNET = InceptionResNet(layers=_RESIDUAL_LAYERS, num_classes=5)
_INCEPTION_FACTS = {"strides": (2, 4, 8), "smallest": 11, "side": 23}

FAMILIES = {
    "resnet": Family(
        model=ResNet(**_RESIDUAL, stem="cifar", bottleneck=False),
        small=ResNet(**_ONE_BLOCK, stem="cifar", bottleneck=False),
        **_residual((4, 8), rates=_RESNET_RATES),
    ),
    "resnet bottleneck": Family(
        model=ResNet(**_RESIDUAL, stem="cifar", shortcut="D"),
        small=ResNet(**_ONE_BLOCK, stem="cifar", shortcut="D"),
        **_residual((16, 32), rates=_RESNET_RATES),
    ),
    "preact": Family(
        model=PreactResNet(**_RESIDUAL),
        small=PreactResNet(**_ONE_BLOCK),
        **_residual((4, 8), rates=("dropout", "block_dropout")),
    ),
    "preact bottleneck": Family(
        model=PreactResNet(**_RESIDUAL, bottleneck=True),
        small=PreactResNet(**_ONE_BLOCK, bottleneck=True),
        **_residual((16, 32), rates=("dropout", "block_dropout")),
    ),
    "shake": Family(
        model=ShakeShake(**_RESIDUAL),
        small=ShakeShake(**_ONE_BLOCK),
        **_residual((4, 8), quiet=_EVEN),
    ),
    "shake bottleneck": Family(
        model=ShakeShake(**_RESIDUAL, **_BOTTLENECKS, backward="even"),
        small=ShakeShake(**_ONE_BLOCK, **_BOTTLENECKS, backward="even"),
        **_residual((16, 32), quiet=_EVEN),
    ),
    "densenet": _densenet("layer"),
    "densenet blocks": _densenet("block"),
    "vgg": _vgg(norm=False),
    "vgg_bn": _vgg(norm=True),
    "mobilenet": Family(
        model=MobileNetV1(width=0.125, blocks=(1, 2), num_classes=5),
        small=MobileNetV1(width=0.125, blocks=(1,), num_classes=5),
        scopes={"stage1/block1": 8, "stage2/block1": 16, "stage2/block2": 16},
        strides=(2, 4),
    ),
    "shufflenet": Family(
        model=ShuffleNetV1(width=0.1, blocks=(2, 1), num_classes=5),
        small=ShuffleNetV1(width=0.1, blocks=(2,), num_classes=5),
        # The branch of a strided unit has what the shortcut leaves: 24 - 12 and 48 - 24 channels.
        scopes={"stage2/block1": 12, "stage2/block2": 24, "stage3/block1": 24},
        strides=(2, 4, 8, 16),
    ),
    "inception": Family(
        model=_INCEPTION,
        small=dataclasses.replace(_INCEPTION, conv_bias=True),
        scopes={"mixed_3": 8, "mixed_4": 12},
        remats=2,
        **_INCEPTION_FACTS,
    ),
    "inception_resnet": Family(
        model=_INCEPTION_RESNET,
        small=dataclasses.replace(_INCEPTION_RESNET, conv_bias=True),
        scopes={"block_1": 8, "block_2": 12},
        remats=4,
        **_INCEPTION_FACTS,
    ),
}
