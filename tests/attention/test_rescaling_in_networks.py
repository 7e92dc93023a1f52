"""Attentions with batch norms of their own, in every family and at every place, never computed."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from senet_jax import create_model
from senet_jax.attention import CBAMConfig, GatherExciteConfig, SqueezeExciteConfig
from senet_jax.fields.models import Placement
from senet_jax.models.branches import chain
from senet_jax.models.densenet import DenseNet
from senet_jax.models.inception import Inception, ModuleSpec
from senet_jax.models.inception_resnet import InceptionResNet, ResidualSpec
from senet_jax.models.mobilenet import MobileNetV1
from senet_jax.models.preact_resnet import PreactResNet
from senet_jax.models.resnet import ResNet
from senet_jax.models.shake_shake import ShakeShake
from senet_jax.models.shufflenet import ShuffleNetV1
from senet_jax.models.vgg import VGG
from senet_jax.ops.compute import EVALUATION

RESIDUAL = {"blocks": (1, 1), "widths": (8, 16), "stem_width": 8}
NETWORKS = {
    "vgg": VGG(blocks=(1, 1), widths=(8, 16), fc_width=8),
    "mobilenet": MobileNetV1(width=0.25, blocks=(1, 1)),
    "shufflenet": ShuffleNetV1(width=0.1, blocks=(2, 1)),
    "densenet": DenseNet(blocks=(1, 1), growth_rate=8, stem="cifar"),
    "densenet blocks": DenseNet(blocks=(1, 1), growth_rate=8, stem="cifar", placement="block"),
    "preact": PreactResNet(**RESIDUAL),
    "shake": ShakeShake(**RESIDUAL),
    "inception": Inception(layers=(ModuleSpec((chain("branch1", (8,)),), "mixed_3", 3),)),
    "inception_resnet": InceptionResNet(
        layers=(ResidualSpec((chain("branch1", (8,)),), "block_1", 3, 0.2),)
    ),
    **{
        f"basic {placement}": ResNet(
            **RESIDUAL, stem="cifar", bottleneck=False, placement=placement
        )
        for placement in typing.get_args(Placement)
    },
    **{
        f"bottleneck {placement}": ResNet(**RESIDUAL, stem="cifar", placement=placement)
        for placement in ("standard", "conv3x3")
    },
    "legacy": dataclasses.replace(
        create_model("legacy_seresnet18"), blocks=(1, 1), widths=(8, 16), stem_width=8
    ),
}


def seen(model, attention):
    """The inputs and arguments of the attentions, in evaluation and then in training."""
    found = []
    kind = type(attention.build(EVALUATION))

    def record(next_fun, args, kwargs, context):
        if isinstance(context.module, kind) and context.method_name == "__call__":
            compute = context.module.compute
            found.append((args[0].shape, compute.train, compute.norm_group))
        return next_fun(*args, **kwargs)

    def apply(images):
        variables = attended.init(jax.random.key(0), images, train=False)
        rngs = {"dropout": jax.random.key(1)}
        attended.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])

    attended = dataclasses.replace(model, attention=attention)
    with nn.intercept_methods(record):
        jax.eval_shape(apply, jnp.zeros((4, 16, 16, 3)))
    return found


@pytest.mark.parametrize("network", NETWORKS)
def test_they_stand_where_squeeze_and_excitation_stands(network):
    model = dataclasses.replace(NETWORKS[network], num_classes=5, norm_group=2)
    if hasattr(model, "fused"):
        # Otherwise training has only the gate of Squeeze-and-Excitation, in the batch norm.
        model = dataclasses.replace(model, fused=False)
    places = [shape for shape, *_ in seen(model, SqueezeExciteConfig(reduction=2))]
    assert places
    attention = GatherExciteConfig(2, "conv") if network == "vgg" else CBAMConfig(reduction=2)
    half = len(places) // 2
    expected = [(shape, False, 2) for shape in places[:half]]
    expected += [(shape, True, 2) for shape in places[half:]]
    assert seen(model, attention) == expected
