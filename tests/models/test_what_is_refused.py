"""Fields and images that no network can take end in one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax import UsageError, create_model
from senet_jax.ops.compute import EVALUATION

SMALL = {"blocks": (1, 1, 1), "widths": (2, 4, 8), "stem_width": 2}
NETWORK = create_model("cifar_resnet8", **SMALL)


@pytest.mark.parametrize("value", [None, "10", 0, True, 10.0, -1, 2**63])
@pytest.mark.parametrize("name", ["cifar_resnet8", "vgg11", "cifar_inception"])
def test_no_number_of_classes_is_refused(name, value):
    with pytest.raises(UsageError, match=r"^num_classes must be"):
        create_model(name, num_classes=value)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("cifar_resnet8", {"blocks": ()}, "^blocks must be one number or more"),
        ("cifar_resnet8", {"blocks": (1,) * 15}, "^blocks must be .*at most 14"),
        ("cifar_resnet8", {"blocks": (1, 2**31, 1)}, "^blocks must be"),
        ("cifar_resnet8", {"blocks": [1.5, 1, 1]}, "^blocks must be .*whole number"),
        ("cifar_resnet8", {"widths": (8, 0, 8)}, "^widths must be"),
        ("cifar_resnet8", {"widths": (8, 2**63, 8)}, "^widths must be"),
        ("cifar_resnet8", {"stem_width": 0}, "^stem_width must be"),
        ("resnet50d", {"stem_width": (32, 0, 64)}, "^stem_width must be"),
        ("cifar_resnet8", {"norm_group": 0}, "^norm_group must be at least 1"),
        ("cifar_resnet8", {"dropout": float("nan")}, "^dropout must be"),
        ("cifar_resnet8", {"drop_block": 1}, "^drop_block must be"),
        ("cifar_resnet8", {"stochastic_depth": -0.1}, "^stochastic_depth must be"),
        ("resnet50", {"cardinality": 0}, "^cardinality must be at least 1"),
        ("resnet50", {"base_width": 2**63}, "^base_width must be at most"),
        ("resnet50", {"base_width": 1, "widths": (8, 16, 32, 64)}, "base_width 1"),
        ("resnet50", {"cardinality": 512, "base_width": 512}, "cardinality 512"),
        ("resnet50", {"projection_kernel": 2}, "^projection_kernel must be odd"),
        ("cifar_wrn16_8", {"blocks": (1, 0, 1)}, "^blocks must be"),
        ("cifar_wrn16_8", {"block_dropout": 1.0}, "^block_dropout must be"),
        ("cifar_shake_shake26_2x32d", {"cardinality": 0}, "^cardinality must be"),
        ("vgg11", {"fc_width": 0}, "^fc_width must be"),
        ("densenet121", {"compression": float("nan")}, "^compression must be"),
        ("densenet121", {"compression": 0}, "^compression must be"),
        ("densenet121", {"growth_rate": -1}, "^growth_rate must be"),
        ("mobilenet_v1", {"width": float("inf")}, "^width must be"),
        ("mobilenet_v1", {"blocks": (0,)}, "^blocks must be"),
        ("shufflenet_v1", {"width": float("nan")}, "^width must be"),
        ("shufflenet_v1", {"groups": True}, "^groups must be"),
        ("inception_v3", {"epsilon": 0.0}, "^epsilon must be"),
    ],
)
def test_fields_out_of_range_are_refused_by_name(name, fields, message):
    with pytest.raises(UsageError, match=message):
        create_model(name, **fields)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (jnp.zeros(()), r"must be \(n, h, w, c\), not \(\)"),
        (jnp.zeros((8, 8)), r"must be \(n, h, w, c\), not \(8, 8\)"),
        (jnp.zeros((8, 8, 3)), r"must be \(n, h, w, c\)"),
        (jnp.zeros((0, 8, 8, 3)), r"must be \(n, h, w, c\)"),
        (jnp.zeros((2, 3, 8, 8)), r"which is \(n, c, h, w\), PyTorch's layout"),
        (jnp.zeros((2, 1, 8, 8)), r"which is \(n, c, h, w\), PyTorch's layout"),
        (np.zeros((2, 8, 8, 3), np.uint8), "must be float, not uint8: normalize"),
        (jnp.zeros((2, 8, 8, 3), jnp.int32), "must be float, not int32: normalize"),
        (jnp.zeros((2, 8, 8, 3), bool), "must be float, not bool"),
        (None, "must be an array .*, not a NoneType"),
        (0.5, "must be an array .*, not a float"),
        ([[[[0.5]]]], "must be an array .*, not a list"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_batch_of_images_is_refused(images, message):
    with pytest.raises(UsageError, match=message):
        NETWORK.init(jax.random.key(0), images, train=False)


@pytest.mark.parametrize("shape", [(1, 1, 3, 3), (2, 3, 9, 3), (1, 1, 1, 1), (2, 8, 3, 4)])
def test_small_images_of_the_right_layout_are_taken(shape):
    jax.eval_shape(lambda: NETWORK.init(jax.random.key(0), jnp.zeros(shape), train=False))


@pytest.mark.parametrize("shape", [(2, 8, 8, 1), (2, 8, 8, 4), (2, 4, 8, 8)])
@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_densenet_bc_100_12", "cifar_inception"])
def test_other_channels_than_those_of_the_kernels_are_refused(name, shape):
    model = create_model(name)

    def apply():
        variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
        return model.apply(variables, jnp.zeros(shape), train=False)

    with pytest.raises(UsageError, match=r"was made for 3 channels, not .: images are .n, h, w, c"):
        jax.eval_shape(apply)


@pytest.mark.parametrize(("channels", "features", "groups"), [(4, 6, 4), (6, 4, 4), (3, 3, 2)])
def test_groups_that_do_not_divide_the_channels_are_refused(channels, features, groups):
    module = EVALUATION.conv(features, 3, groups=groups, name="conv2")
    with pytest.raises(UsageError, match=f"cannot have {groups} groups: choose a cardinality"):
        jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 4, 4, channels))))


@pytest.mark.parametrize("features", [0, -1, 2**16 + 1])
def test_a_convolution_of_no_channel_is_refused(features):
    with pytest.raises(UsageError, match="a convolution must have at least 1"):
        EVALUATION.conv(features, 3)


def test_groups_of_one_image_are_refused_for_maps_of_one_pixel():
    fields = {"blocks": (1,), "widths": (16,), "norm_group": 1, "stem": "cifar", "stem_width": 16}
    model = create_model("resnest14d", **fields)

    def train():
        images = jnp.zeros((2, 8, 8, 3))
        variables = model.init(jax.random.key(0), images, train=False)
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    with pytest.raises(UsageError, match="batch norm stage2/block1/conv2/reduce_bn needs more"):
        jax.eval_shape(train)
