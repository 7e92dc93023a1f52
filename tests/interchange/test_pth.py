"""What PyTorch itself writes and holds, which `make test-all` has a PyTorch for."""

import importlib
import os
import pickle

import jax
import numpy as np
import pytest
from goldens import draw

from senet_jax import UsageError, create_model
from senet_jax.interchange import from_torch, load_arrays, to_torch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def torch():
    return importlib.import_module("torch")


class Code:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_pth_that_carries_code_does_not_run_it(torch, tmp_path, suffix):
    mark = tmp_path / "ran"
    path = tmp_path / f"code{suffix}"
    path.write_bytes(pickle.dumps({"state_dict": Code(mark)}))
    with pytest.raises(UsageError, match=f"code{suffix} .* is not run"):
        load_arrays(path)
    assert not mark.exists()


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "net"])
def test_a_checkpoint_is_unwrapped(torch, tmp_path, wrap):
    tensors = {"fc.weight": torch.arange(6.0).reshape(2, 3)}
    torch.save({wrap: tensors, "epoch": 3} if wrap else tensors, tmp_path / "a.pth")
    found = load_arrays(tmp_path / "a.pth")
    assert found.keys() == tensors.keys()
    np.testing.assert_array_equal(found["fc.weight"], tensors["fc.weight"])


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_pytorchs_own_formats(torch, tmp_path, legacy):
    mark = tmp_path / "ran"
    content = {"fc.weight": torch.zeros(2), "extra": Code(mark)}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UsageError, match=r"a\.pth .* is not run"):
        load_arrays(tmp_path / "a.pth")
    assert not mark.exists()


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_a_truncated_pth(torch, tmp_path, keep):
    path = tmp_path / "a.pth"
    torch.save({"fc.weight": torch.zeros(200)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UsageError, match=r"a\.pth"):
        load_arrays(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": 3}])
def test_a_pth_without_a_state_dict(torch, tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"a\.pth holds no state dict"):
        load_arrays(tmp_path / "a.pth")


def test_tensors_that_require_gradients(torch):
    name, fields = "cifar_resnet8", {"blocks": (1,), "widths": (16,)}
    zeros = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32),
        dict(
            jax.eval_shape(
                lambda: create_model(name, **fields).init(
                    jax.random.key(0), np.zeros((1, 32, 32, 3)), train=False
                )
            )
        ),
    )
    state_dict = {
        key: draw(key, array.shape) for key, array in to_torch(name, zeros, **fields).items()
    }
    tensors = {key: torch.nn.Parameter(torch.from_numpy(a)) for key, a in state_dict.items()}
    back = to_torch(name, from_torch(name, tensors, **fields), **fields)
    np.testing.assert_equal(back, state_dict)
    half = {key: tensor.bfloat16() for key, tensor in tensors.items()}
    expected = {key: tensor.float().detach().numpy() for key, tensor in half.items()}
    np.testing.assert_equal(to_torch(name, from_torch(name, half, **fields), **fields), expected)
