import jax
import jax.numpy as jnp
import numpy as np
import pytest
from single_blocks import block

from senet_jax import create_model
from senet_jax.models.blocks import Bottleneck

BRANCHES = 4


def conv(x, kernel):
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class Forms:
    """The block of ResNeXt's Figure 3 from the weights of the grouped form, branch by branch."""

    def __init__(self, variables):
        self.params, self.stats = variables["params"], variables["batch_stats"]

    def norm(self, x, name, channels=slice(None)):
        params, stats = self.params[name], self.stats[name]
        x = (x - stats["mean"][channels]) / np.sqrt(stats["var"][channels] + 1e-5)
        return x * params["scale"][channels] + params["bias"][channels]

    def branches(self, x):
        """The first two layers of each branch, and the branch's channels of the inner width."""
        kernel1, kernel2 = (self.params[f"conv{i}"]["kernel"] for i in (1, 2))
        width = kernel1.shape[-1] // BRANCHES
        for branch in range(BRANCHES):
            own = slice(width * branch, width * (branch + 1))
            y = np.maximum(self.norm(conv(x, kernel1[..., own]), "bn1", own), 0)
            y = np.maximum(self.norm(conv(y, kernel2[..., own]), "bn2", own), 0)
            yield own, y

    def sum_of_branches(self, x):
        kernel3 = self.params["conv3"]["kernel"]
        total = sum(conv(y, kernel3[:, :, own]) for own, y in self.branches(x))
        return self.finish(x, total)

    def early_concatenation(self, x):
        joined = np.concatenate([y for _, y in self.branches(x)], axis=-1)
        return self.finish(x, conv(joined, self.params["conv3"]["kernel"]))

    def finish(self, x, residual):
        return np.maximum(self.norm(residual, "bn3") + x, 0)


@pytest.mark.parametrize("form", ["sum_of_branches", "early_concatenation"])
def test_the_three_forms_are_one_function(random_variables, form):
    x = np.random.default_rng(1).standard_normal((2, 5, 6, 32)).astype(np.float32)
    module = block(Bottleneck, 8, cardinality=BRANCHES, base_width=24)
    variables = random_variables(module, x)
    assert variables["params"]["conv2"]["kernel"].shape == (3, 3, 3, 12)
    grouped = jax.jit(module.apply)(variables, x)
    np.testing.assert_allclose(getattr(Forms(variables), form)(x), grouped, atol=5e-6)


def test_senet154_differs_from_resnext152_as_published():
    model = create_model("senet154", blocks=(1, 1, 1, 1))
    images = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    params = jax.tree.map(jnp.shape, shapes["params"])
    assert [params["stem"][f"conv{i}"]["kernel"][-1] for i in (1, 2, 3)] == [64, 64, 128]
    for stage, width in ((2, 128), (3, 256), (4, 512), (5, 1024)):
        found = params[f"stage{stage}"]["block1"]
        assert found["conv1"]["kernel"][-1] == width
        assert found["conv2"]["kernel"][-2:] == (width // 64, 2 * width)
        assert found["shortcut"]["conv"]["kernel"][0] == (1 if stage == 2 else 3)
