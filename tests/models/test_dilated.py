"""The dilated ResNeSt of its authors. Outputs of their own code are in test_dense_goldens.py."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy_layers import conv, norm, relu
from single_blocks import block

from senet_jax import UsageError
from senet_jax.models.blocks import Bottleneck, Sampling
from senet_jax.models.resnest import resnest
from senet_jax.models.resnet import ResNet

GIVEN_UP = Sampling(stride=1, dilation=1, next_dilation=2)
"""The first block of a stage whose stride became dilation."""


def average3x3(x):
    """The 3x3 average of stride 1, whose padding counts as zeros."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sliding_window_view(padded, (3, 3), (1, 2)).mean((4, 5))


@pytest.mark.parametrize("stride_by", ["pool_after", "pool_before"])
def test_the_first_dilated_block_of_the_authors(random_variables, stride_by):
    fields = {"shortcut": "D", "stride_by": stride_by}
    authors = block(Bottleneck, 4, dataclasses.replace(GIVEN_UP, keeps_pool=True), **fields)
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 6)).astype(np.float32)
    variables = random_variables(authors, x)
    params, stats = variables["params"], variables["batch_stats"]

    y = relu(norm(conv(x, params["conv1"]), params["bn1"], stats["bn1"]))
    if stride_by == "pool_before":
        y = average3x3(y)
    y = relu(norm(conv(y, params["conv2"]), params["bn2"], stats["bn2"]))
    if stride_by == "pool_after":
        y = average3x3(y)
    y = norm(conv(y, params["conv3"]), params["bn3"], stats["bn3"])
    projection, its = params["shortcut"], stats["shortcut"]
    shortcut = norm(conv(x, projection["conv"]), projection["bn"], its["bn"])

    found = jax.jit(lambda x: authors.apply(variables, x))(x)
    np.testing.assert_allclose(found, relu(y + shortcut), rtol=1e-4, atol=1e-5)
    timm = block(Bottleneck, 4, GIVEN_UP, **fields)
    other = jax.jit(lambda x: timm.apply(variables, x))(x)
    assert np.abs(found - other).max() > 0.1


def narrow(model, **fields):
    """Jaxpr and shapes of the variables of a narrow network."""
    narrowed = {"blocks": (1, 1, 2), "widths": (4, 8, 8), "num_classes": 5, **fields}
    network = model(**narrowed)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)

    def run(key, x):
        return network.init_with_output(key, x, train=False)

    jaxpr, (_, variables) = jax.make_jaxpr(run, return_shape=True)(jax.random.key(0), x)
    return str(jaxpr.jaxpr), variables


def pools(text):
    return text.count("reduce_window_sum[")


def test_the_form_is_of_dilated_stages_alone():
    plain = {form: narrow(resnest("50d"), dilated=form) for form in ("timm", "authors")}
    assert plain["timm"] == plain["authors"]
    dilated = {
        form: narrow(resnest("50d"), dilated=form, output_stride=8) for form in ("timm", "authors")
    }
    assert dilated["timm"][1] == dilated["authors"][1] == plain["timm"][1]
    # Two strides, one of them given up: each is a pool in the block and one in the shortcut.
    assert pools(plain["timm"][0]) == 4
    assert pools(dilated["timm"][0]) == pools(dilated["authors"][0]) == 3
    assert dilated["timm"][0] != dilated["authors"][0]


def test_a_resnet_that_pools_nowhere_has_one_dilated_form():
    forms = [
        narrow(ResNet, stem_width=4, dilated=form, output_stride=8) for form in ("timm", "authors")
    ]
    assert forms[0] == forms[1]


def test_another_form_is_refused():
    with pytest.raises(UsageError, match="unknown dilated 'author': did you mean authors"):
        resnest("50d")(dilated="author")
