import jax
import jax.numpy as jnp
import pytest

from senet_jax import create_model
from senet_jax.models.cost import cost

# Table 1, row by row: stride of the depthwise convolution, channels in and out.
TABLE_1 = (
    (1, 32, 64),
    (2, 64, 128),
    (1, 128, 128),
    (2, 128, 256),
    (1, 256, 256),
    (2, 256, 512),
    *((1, 512, 512),) * 5,
    (2, 512, 1024),
    (1, 1024, 1024),
)


def formula(width=1.0, se=False):
    """Parameters and multiply-accumulates of the rows of Table 1 at 224 pixels."""
    side, stem = 112, int(32 * width)
    params, macs = 27 * stem + 2 * stem, side**2 * 27 * stem
    for stride, inputs, outputs in TABLE_1:
        inputs, outputs = int(inputs * width), int(outputs * width)
        side //= stride
        weights = 9 * inputs + inputs * outputs
        params += weights + 2 * inputs + 2 * outputs
        macs += side**2 * weights
        if se:
            hidden = outputs // 16
            params += 2 * outputs * hidden + hidden + outputs
            macs += 2 * outputs * hidden
    last = int(1024 * width)
    return params + (last + 1) * 1000, macs + last * 1000


@pytest.mark.parametrize(
    ("name", "fields", "params", "mmacs"),
    [
        ("mobilenet_v1", {}, 4_231_976, 569),
        ("mobilenet_v1_075", {"width": 0.75}, 2.6e6, 325),
        ("mobilenet_v1_050", {"width": 0.5}, 1.3e6, 149),
        ("mobilenet_v1_025", {"width": 0.25}, 0.5e6, 41),
        # SENet's Table 3 has 572: it counts what is not a product of matrices, too.
        ("se_mobilenet_v1", {"se": True}, 4_718_044, 569),
    ],
)
def test_cost_is_the_hand_formula_and_what_is_published(name, fields, params, mmacs):
    found = cost(create_model(name), 224)
    assert (found.params, found.macs) == formula(**fields)
    # Tables 1, 6 and 8 give two digits of the parameters; SENet's and timm's counts are exact.
    assert found.params == params or round(found.params, -5) == params
    assert found.macs / 1e6 == pytest.approx(mmacs, abs=0.6)


def test_stages_have_the_stride_of_their_number():
    model = create_model("mobilenet_v1", features_only=True)
    maps = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False)[
            0
        ]
    )
    assert {stride: y.shape[1:] for stride, y in maps.items()} == {
        2: (112, 112, 64),
        4: (56, 56, 128),
        8: (28, 28, 256),
        16: (14, 14, 512),
        32: (7, 7, 1024),
    }


def test_padding_is_the_same_on_both_sides(random_variables):
    """A mirrored image gives the mirrored maps where the kernels are their own mirror images."""
    model = create_model("mobilenet_v1", width=0.125, blocks=(1, 1), features_only=True)
    x = jax.random.normal(jax.random.key(0), (1, 17, 17, 3))
    variables = random_variables(model, x, False)
    mirror = jax.tree.map(
        lambda leaf: (leaf + leaf[:, ::-1]) / 2 if leaf.ndim == 4 else leaf, variables
    )
    apply = jax.jit(lambda x: model.apply(mirror, x, train=False))
    maps, mirrored = apply(x), apply(x[:, :, ::-1])
    for stride in (2, 4):
        assert jnp.allclose(maps[stride][:, :, ::-1], mirrored[stride], atol=1e-5)
