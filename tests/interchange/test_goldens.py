"""Every network of the goldens, against PyTorch's logits."""

import jax
import numpy as np
import pytest
from goldens import FAST, goldens, images

from senet_jax import create_model
from senet_jax.interchange import from_torch, to_torch


@pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(goldens())
    ],
)
def test_logits_are_those_of_pytorch_and_weights_come_back(name):
    golden = goldens()[name]
    state_dict = golden.state_dict()
    variables = from_torch(name, state_dict)
    back = to_torch(name, variables)
    kept = {key for key in state_dict if not key.endswith("num_batches_tracked")}
    assert back.keys() == kept
    for key, array in back.items():
        np.testing.assert_array_equal(array, state_dict[key])
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == golden.params

    model = create_model(name)
    apply = jax.jit(lambda variables, x: model.apply(variables, x, train=False))
    for output in golden.outputs:
        logits = np.asarray(apply(variables, images(output["size"])))
        difference = logits[:, output["classes"]] - np.array(output["logits"])
        assert np.max(np.abs(difference) / np.array(output["std"])[:, None]) < 1e-3
        np.testing.assert_array_equal(logits.argmax(1), output["argmax"])
        np.testing.assert_allclose(logits.mean(1), output["mean"], atol=1e-3)
        np.testing.assert_allclose(logits.std(1), output["std"], rtol=1e-3)
