import dataclasses

import jax.numpy as jnp
import pytest

from senet_jax.attention import (
    CBAMConfig,
    ECAConfig,
    GatherExciteConfig,
    SplitAttentionConfig,
    SqueezeExciteConfig,
)
from senet_jax.config import AttentionOverrides, ModelConfig
from senet_jax.errors import UsageError
from senet_jax.models.configured import build_model, changes_of_attention
from senet_jax.models.zoo import create_model


def build(name="cifar_seresnet8", **fields):
    return build_model(ModelConfig(name=name, **fields), num_classes=7)


def attention(name="cifar_seresnet8", **fields):
    return build(name, attention=AttentionOverrides(**fields)).attention


def test_without_overrides_it_is_the_named_network():
    expected = create_model("cifar_seresnet8", num_classes=7, dtype=jnp.float32)
    assert build() == expected
    # A default of the config must not take away what the named network has.
    assert build("resnest50d").shortcut == "D"


@pytest.mark.parametrize(
    "change",
    [
        {"squeeze": "max"},
        {"gate": "tanh"},
        {"activation": "silu"},
        {"reduction": 4.0},
        {"width": 3},
        {"divisor": 8},
        {"bias": False},
    ],
)
def test_an_ablation_is_one_field(change):
    assert attention(**change) == dataclasses.replace(SqueezeExciteConfig(), **change)


def test_fields_of_the_backbone_are_passed_on():
    model = build(placement="pre", stages=(3,), shortcut="B", zero_init_last=True, dropout=0.3)
    got = (model.placement, model.stages, model.shortcut, model.zero_init_last, model.dropout)
    assert got == ("pre", (3,), "B", True, 0.3)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("cifar_seresnet8", {"blocks": (1, 2, 1), "widths": (8, 16, 32), "residual": False}),
        ("resnet50", {"cardinality": 32, "base_width": 4, "stride_by": "pool_before"}),
        ("resnet18", {"bottleneck": True, "stem": "cifar"}),
        ("densenet121", {"growth_rate": 16, "compression": 1.0, "bottleneck": False}),
        ("cifar_densenet_bc_100_12", {"blocks": (2, 2, 2), "growth_rate": 6}),
        ("cifar_preact_resnet110", {"blocks": (1, 1, 1), "widths": (8, 16, 32)}),
        ("cifar_shake_shake26_2x32d", {"blocks": (1, 1, 1), "widths": (8, 16, 32)}),
        ("vgg11_bn", {"blocks": (1, 1), "widths": (8, 16), "fc_width": 32}),
        ("mobilenet_v1", {"blocks": (1, 1), "stem": "cifar"}),
        ("shufflenet_v1", {"blocks": (1, 1), "stem": "cifar"}),
    ],
)
def test_fields_of_the_architecture_are_those_of_the_network(name, fields):
    assert build(name, **fields) == create_model(name, num_classes=7, dtype=jnp.float32, **fields)


def test_the_mechanism_can_be_taken_out_put_in_and_changed():
    assert attention(kind="none") is None
    assert attention("cifar_resnet8", kind="se", gate="relu") == SqueezeExciteConfig(gate="relu")
    assert attention(kind="eca", kernel_size=5) == ECAConfig(kernel_size=5)
    assert attention(kind="cbam", norm=False, kernel_size=3) == CBAMConfig(
        norm=False, kernel_size=3
    )
    assert attention(kind="ge", extent=4, gather="conv", mlp=True) == GatherExciteConfig(
        4, "conv", True
    )
    assert attention("resnest14d", radix=4) == SplitAttentionConfig(radix=4)
    assert attention("resnet50", kind="split", radix=1) == SplitAttentionConfig(radix=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "cifar_seresnet_20"}, "did you mean cifar_seresnet20"),
        ({"name": "cifar_resnet8", "attention": AttentionOverrides(gate="tanh")}, "no attention"),
        ({"name": "cifar_resnet8", "placement": "pre"}, "no attention to place"),
        ({"attention": AttentionOverrides(kind="sse")}, "did you mean se"),
        ({"attention": AttentionOverrides(gate="sigmoyd")}, "did you mean sigmoid"),
        ({"attention": AttentionOverrides(squeeze="avgg")}, "did you mean avg"),
        (
            {"attention": AttentionOverrides(kind="ge", extent=3)},
            "extent must be 0, 2, 4, 8",
        ),
        ({"attention": AttentionOverrides(radix=2)}, "field of the attention se 'radix'"),
        ({"stages": (9,)}, "stage 9 does not exist"),
        ({"placement": "before"}, "unknown model.placement"),
        ({"placement": "layer"}, "unknown placement 'layer'"),
        ({"name": "vgg11", "drop_block": 0.1}, "unknown field of vgg11 'drop_block'"),
        ({"name": "densenet121", "cardinality": 2}, "field of densenet121 'cardinality'"),
        ({"growth_rate": 12}, "field of cifar_seresnet8 'growth_rate'"),
        ({"name": "cifar_wrn16_8", "residual": False}, "field of cifar_wrn16_8 'residual'"),
        ({"name": "inception_v3", "blocks": (1,)}, "field of inception_v3 'blocks'"),
        ({"name": "densenet121", "stochastic_depth": 0.1}, "field of densenet121 'stochastic_"),
    ],
)
def test_what_cannot_be_built_is_said(fields, message):
    with pytest.raises(UsageError, match=message):
        build(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "seresnet18", "widths": (8, 8, 8, 8)}, ""),
        ({"attention": AttentionOverrides(kind="eca", gate="tanh")}, "kind eca, attention.gate t"),
        ({"placement": "pre", "stages": (3, 4)}, " with placement pre, stages 3 4"),
    ],
)
def test_what_differs_in_the_attention_stands_behind_the_name(fields, said):
    found = changes_of_attention(ModelConfig(**fields))
    assert said in found
    assert bool(said) == bool(found)


def test_a_ratio_of_split_attention_is_a_whole_number():
    changed = attention("resnest14d", reduction=2.0)
    assert changed == SplitAttentionConfig(reduction=2)
    assert isinstance(changed.reduction, int)
    with pytest.raises(UsageError, match=r"reduction must be a whole number, .*not 2.5"):
        attention("resnest14d", reduction=2.5)


def test_statistics_of_groups_are_one_field():
    assert build(norm_group=4) == create_model(
        "cifar_seresnet8", num_classes=7, dtype=jnp.float32, norm_group=4
    )


def test_what_drops_is_passed_on():
    model = build(stochastic_depth=0.2, drop_block=0.1)
    assert (model.stochastic_depth, model.drop_block) == (0.2, 0.1)
