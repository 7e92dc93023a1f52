import importlib.util
import os
import pickle
import zipfile

import numpy as np
import pytest

from senet_jax import UsageError, create_model
from senet_jax.interchange import (
    from_torch,
    load_arrays,
    load_weights,
    save_arrays,
    save_weights,
    to_torch,
)

ARRAYS = {
    "layer1.0.conv1.weight": np.arange(24, dtype=np.float32).reshape(4, 3, 1, 2) / 7,
    "file": np.array([np.nan, -0.0, 1e-45], np.float32),
    "bn1.num_batches_tracked": np.array(3),
}
WRITTEN = (".safetensors", ".npz")


class Code:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    save_arrays(path, ARRAYS)
    found = load_arrays(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("suffix", WRITTEN)
def test_strided_arrays_are_written_as_they_look(tmp_path, suffix):
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    save_arrays(tmp_path / f"a{suffix}", {"a": array})
    np.testing.assert_array_equal(load_arrays(tmp_path / f"a{suffix}")["a"], array)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_failed_write_leaves_what_was_there(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"weights{suffix}"
    save_arrays(path, {"a": np.zeros(3, np.float32)})
    before = path.read_bytes()
    with pytest.raises(Exception):  # noqa: B017, PT011 - of the library's own kind
        save_arrays(path, {"a": np.array([object()])})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("keep", [0, 1, 9, 200, -1])
def test_truncated(tmp_path, suffix, keep):
    path = tmp_path / f"weights{suffix}"
    save_arrays(path, ARRAYS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UsageError, match=f"weights{suffix}.* truncated"):
        load_arrays(path)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_foreign(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"<html>404: not found</html>" * 40)
    with pytest.raises(UsageError, match=f"weights{suffix}.* no "):
        load_arrays(path)


def test_a_single_array_is_no_file_of_arrays(tmp_path):
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UsageError, match=r"one\.npz"):
        load_arrays(tmp_path / "one.npz")


def test_another_zip_is_no_file_of_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(UsageError, match=r"other\.npz"):
        load_arrays(tmp_path / "other.npz")


def test_objects_of_an_npz_are_not_unpickled(tmp_path):
    mark = tmp_path / "ran"
    np.savez(tmp_path / "code.npz", weight=np.array([Code(mark)], dtype=object))
    with pytest.raises(UsageError, match=r"code\.npz"):
        load_arrays(tmp_path / "code.npz")
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_without_pytorch_a_pth_is_refused_and_its_code_not_run(tmp_path, suffix, monkeypatch):
    mark = tmp_path / "ran"
    path = tmp_path / f"code{suffix}"
    path.write_bytes(pickle.dumps({"state_dict": Code(mark)}))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = rf"code{suffix} needs PyTorch .* install torch, or convert .* \.safetensors"
    with pytest.raises(UsageError, match=message):
        load_arrays(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists(), "the file would run code if it were unpickled"


def test_unknown_kinds_and_places(tmp_path):
    with pytest.raises(UsageError, match=r"read from \.safetensors, \.npz, \.pth"):
        load_arrays(tmp_path / "weights.h5")
    with pytest.raises(UsageError, match=r"written to \.safetensors or \.npz"):
        save_arrays(tmp_path / "weights.pth", ARRAYS)
    with pytest.raises(UsageError, match="no such file"):
        load_arrays(tmp_path / "weights.npz")
    with pytest.raises(UsageError, match="does not exist"):
        save_arrays(tmp_path / "nowhere" / "weights.npz", ARRAYS)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_network_goes_through_a_file_bit_for_bit(tmp_path, suffix, random_variables):
    name, fields = "cifar_resnet8", {"num_classes": 3}
    variables = random_variables(
        create_model(name, **fields), np.zeros((1, 32, 32, 3), np.float32), False
    )
    path = tmp_path / f"weights{suffix}"
    save_weights(path, name, variables, **fields)
    found = load_weights(path, name, **fields)
    np.testing.assert_equal(found, dict(variables))
    np.testing.assert_equal(load_arrays(path), to_torch(name, variables, **fields))
    np.testing.assert_equal(from_torch(name, load_arrays(path), **fields), found)


def test_what_does_not_fit_is_said_of_the_file(tmp_path):
    save_arrays(tmp_path / "weights.npz", ARRAYS)
    with pytest.raises(UsageError, match=r"weights\.npz: the weights do not fit cifar_resnet8"):
        load_weights(tmp_path / "weights.npz", "cifar_resnet8")
