import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax import UsageError
from senet_jax.attention import SelectiveKernelConfig
from senet_jax.ops.compute import EVALUATION


def batch_norm(x, variables, *names):
    params, stats = variables["params"], variables["batch_stats"]
    for name in names:
        params, stats = params[name], stats[name]
    x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    return x * params["scale"] + params["bias"]


def conv(x, kernel, groups, stride):
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def apply(module, variables, x):
    return jax.jit(lambda v, x: module.apply(v, x))(variables, x)


def spread(kernel, dilation):
    """The kernel with zeros between its taps: 3x3 becomes 5x5, 7x7, ..."""
    size = 2 * dilation + 1
    wide = np.zeros((size, size, *kernel.shape[2:]), np.float32)
    wide[::dilation, ::dilation] = kernel
    return wide


@pytest.mark.parametrize("split_input", [False, True])
@pytest.mark.parametrize(("groups", "stride", "dilation"), [(1, 1, 1), (2, 2, 1), (3, 1, 2)])
def test_agrees_with_wide_kernels_and_an_explicit_softmax(
    random_variables, split_input, groups, stride, dilation
):
    x = np.random.default_rng(1).standard_normal((2, 9, 8, 36)).astype(np.float32)
    config = SelectiveKernelConfig(dilations=(1, 2, 3), min_width=4, split_input=split_input)
    module = config.build_conv(18, EVALUATION, stride=stride, dilation=dilation, groups=groups)
    variables = random_variables(module, x)
    params = variables["params"]

    paths = []
    for index in (1, 2, 3):
        path = x[..., 12 * (index - 1) : 12 * index] if split_input else x
        kernel = spread(params[f"path{index}"]["conv"]["kernel"], index * dilation)
        y = conv(path, kernel, groups, stride)
        paths.append(np.maximum(batch_norm(y, variables, f"path{index}", "bn"), 0))
    squeezed = sum(paths).mean(axis=(1, 2))
    hidden = batch_norm(squeezed @ params["reduce"]["kernel"], variables, "reduce_bn")
    scores = np.exp(np.maximum(hidden, 0) @ params["expand"]["kernel"])
    scores = [scores[:, 18 * i : 18 * (i + 1)] for i in range(3)]
    expected = sum(
        (score / sum(scores))[:, None, None] * path
        for score, path in zip(scores, paths, strict=True)
    )
    np.testing.assert_allclose(apply(module, variables, x), expected, atol=3e-6)


def test_equal_paths_leave_nothing_to_select(random_variables):
    x = np.random.default_rng(1).standard_normal((2, 6, 6, 8)).astype(np.float32)
    module = SelectiveKernelConfig(dilations=(1, 1)).build_conv(8, EVALUATION)
    variables = random_variables(module, x)
    for collection in variables.values():
        collection["path2"] = collection["path1"]
    y = conv(x, variables["params"]["path1"]["conv"]["kernel"], 1, 1)
    expected = np.maximum(batch_norm(y, variables, "path1", "bn"), 0)
    np.testing.assert_allclose(apply(module, variables, x), expected, atol=1e-6)


@pytest.mark.parametrize(("features", "hidden"), [(128, 32), (512, 32), (1024, 64)])
def test_hidden_width_is_that_of_equation_4(features, hidden):
    module = SelectiveKernelConfig().build_conv(features, EVALUATION, groups=32)
    x = jnp.zeros((1, 2, 2, features))
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), x))["params"]
    assert params["reduce"]["kernel"].shape == (features, hidden)
    assert params["expand"]["kernel"].shape == (hidden, 2 * features)


def test_channels_that_do_not_divide_are_refused():
    module = SelectiveKernelConfig(split_input=True).build_conv(16, EVALUATION)
    with pytest.raises(UsageError, match="2 shares of the input"):
        module.init(jax.random.key(0), jnp.zeros((1, 4, 4, 15)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dilations": (1,)}, "at most 16, each at least 1 and at most 64"),
        ({"dilations": (0, 1)}, "at most 16, each at least 1 and at most 64"),
        ({"reduction": 0}, "reduction must be at least 0.01"),
        ({"min_width": 0}, "min_width must be at least 1"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        SelectiveKernelConfig(**fields)
