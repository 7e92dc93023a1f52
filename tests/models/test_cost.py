import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from senet_jax.models.cost import Cost, cost
from senet_jax.ops.resize import resize_bilinear

SIZE = 8
DENSE = SIZE * SIZE * 3 * 5


class Calls(nn.Module):
    """One call, in the convention of the zoo."""

    call: object

    @nn.compact
    def __call__(self, x, train):
        return self.call(x)


def conv(features, kernel_size, **fields):
    return lambda x: nn.Conv(features, kernel_size, use_bias=False, **fields)(x)


def scanned(x):
    weights = jnp.ones((x.shape[-1], x.shape[-1]))
    return jax.lax.scan(lambda carry, _: (carry @ weights, None), x, length=7)[0]


# outputs * (channels of a group) * (kernel area); a matrix product: outputs * contracted.
@pytest.mark.parametrize(
    ("call", "channels", "expected"),
    [
        (conv(16, (3, 3)), 4, Cost(9 * 4 * 16, SIZE**2 * 16 * 9 * 4)),
        (conv(16, (3, 3), feature_group_count=4), 8, Cost(9 * 2 * 16, SIZE**2 * 16 * 9 * 2)),
        (conv(6, (5, 1), feature_group_count=6), 6, Cost(5 * 6, SIZE**2 * 6 * 5)),
        (conv(16, (3, 3), strides=2), 4, Cost(9 * 4 * 16, (SIZE // 2) ** 2 * 16 * 9 * 4)),
        (conv(16, (3, 3), padding="VALID"), 4, Cost(9 * 4 * 16, 6**2 * 16 * 9 * 4)),
        (conv(16, (3, 3), kernel_dilation=2), 4, Cost(9 * 4 * 16, SIZE**2 * 16 * 9 * 4)),
        (lambda x: nn.Dense(5)(x), 3, Cost(3 * 5 + 5, DENSE)),
        (lambda x: nn.remat(nn.Dense)(5)(x), 3, Cost(3 * 5 + 5, DENSE)),
        (lambda x: nn.jit(nn.Dense)(5)(x), 3, Cost(3 * 5 + 5, DENSE)),
        (lambda x: nn.jit(nn.remat(nn.Dense))(5)(x), 3, Cost(3 * 5 + 5, DENSE)),
        (lambda x: jax.jit(jax.checkpoint(lambda x: x @ jnp.ones((3, 5))))(x), 3, Cost(0, DENSE)),
        (lambda x: jnp.einsum("nhwc,nhwd->ncd", x, x), 3, Cost(0, 3 * 3 * SIZE**2)),
        (scanned, 3, Cost(0, 7 * SIZE**2 * 3 * 3)),
        (nn.relu, 3, Cost(0, 0)),
        (lambda x: resize_bilinear(x, (9, 9), align_corners=True), 3, Cost(0, 0)),
    ],
)
def test_cost_is_the_hand_formula(call, channels, expected):
    assert cost(Calls(call), SIZE, channels) == expected


def test_running_statistics_are_not_parameters():
    norm = Calls(lambda x: nn.BatchNorm(use_running_average=True)(x))
    assert cost(norm, SIZE) == Cost(params=2 * 3, macs=0)
