"""Files that PyTorch itself writes; `make test-all` has a PyTorch."""

import argparse
import collections
import datetime
import importlib
import os
import pathlib
import pickle
import zipfile

import jax
import numpy as np
import pytest
from goldens import draw

from senet_jax import UsageError, create_model
from senet_jax.interchange import files, from_torch, load_arrays, to_torch
from senet_jax.interchange.state_dict import network_name

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


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".pth.tar"])
@pytest.mark.parametrize("legacy", [False, True])
def test_what_training_scripts_leave_beside(torch, tmp_path, suffix, legacy):
    tensors = {"model.fc.weight": torch.arange(6.0).reshape(2, 3)}
    content = {
        "state_dict": collections.OrderedDict(tensors),
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs/a")),
        "hyper_parameters": {"root": pathlib.PurePosixPath("x")},
        "best": np.float64(93.5),
        "numbers": [np.float32(1), np.int64(2), np.bool_(True), np.dtype("float32")],
        "global_step": 3,
    }
    path = tmp_path / f"a{suffix}"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    found = load_arrays(path)
    assert found.keys() == tensors.keys()
    np.testing.assert_array_equal(found["model.fc.weight"], tensors["model.fc.weight"])


def test_of_weights_and_their_average(torch, tmp_path, caplog):
    raw, average = {"a": torch.zeros(2)}, {"a": torch.ones(2)}
    torch.save({"state_dict": raw, "state_dict_ema": average}, tmp_path / "a.pth")
    assert load_arrays(tmp_path / "a.pth")["a"].tolist() == [1, 1]
    assert "a.pth: took the moving average of the weights ('state_dict_ema')" in caplog.text
    assert load_arrays(tmp_path / "a.pth", weights_of="raw")["a"].tolist() == [0, 0]


def test_stochastic_weight_averaging_of_a_compiled_network(torch, tmp_path):
    bare = torch.nn.Sequential(collections.OrderedDict(fc=torch.nn.Linear(3, 2)))
    # torch.compile names it so, and takes ten seconds.
    compiled = torch.nn.Sequential(collections.OrderedDict(_orig_mod=bare))
    averaged = torch.optim.swa_utils.AveragedModel(compiled)
    torch.save(averaged.state_dict(), tmp_path / "a.pth")
    found = load_arrays(tmp_path / "a.pth")
    assert "n_averaged" in found
    names = {network_name(key, {"fc.weight", "fc.bias"}) for key in found if key != "n_averaged"}
    assert names == {"fc.weight", "fc.bias"}


def tensors_of_all_kinds(torch):
    rows = torch.ones(5)
    return {
        "sparse": rows.to_sparse(),
        "sparse tensor": torch.ones(5, 5).to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(rows, 0.1, 0, torch.quint8),
        "meta": torch.empty(5, device="meta"),
        "nested": torch.nested.nested_tensor([rows, rows[:2]]),
        "complex64": rows.to(torch.complex64),
        "bool": rows.bool(),
        "int8": rows.to(torch.int8),
    }


@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds_are_listed(torch, tmp_path):
    name, fields, state_dict = tiny_weights()
    for kind, tensor in tensors_of_all_kinds(torch).items():
        tensors = {key: torch.from_numpy(array) for key, array in state_dict.items()}
        torch.save({**tensors, "linear.bias": tensor}, tmp_path / "a.pth")
        with pytest.raises(UsageError, match=rf"wrong dtype \(1\): linear.bias is .*{kind}"):
            from_torch(name, load_arrays(tmp_path / "a.pth"), **fields)


def test_a_tensor_of_absurd_shape_takes_no_memory(torch, tmp_path):
    name, fields, state_dict = tiny_weights()
    tensors = {key: torch.from_numpy(array) for key, array in state_dict.items()}
    tensors["linear.bias"] = torch.ones(1, dtype=torch.bfloat16).expand(10**13)
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"linear\.bias is \(10000000000000,\), not"):
        from_torch(name, load_arrays(tmp_path / "a.pth"), **fields)


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_files_are_one_sentence(torch, tmp_path, legacy):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(20)}, path, _use_new_zipfile_serialization=not legacy)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_arrays(path)
        except UsageError as error:
            assert str(error).count("\n") == 0  # noqa: PT017 - most of them are refused, not all
            refused += 1
    assert refused > 30


def test_an_encrypted_archive_and_a_bomb(torch, tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(20)}, path)
    encrypted = bytearray(path.read_bytes())
    encrypted[6] |= 1
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(encrypted)
    with pytest.raises(UsageError, match=r"a\.pth is truncated or no PyTorch file"):
        load_arrays(path)
    monkeypatch.setattr(files, "_MOST_UNPACKED", 2**20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data/0", bytes(2**22))
    with pytest.raises(UsageError, match="MB unpack to"):
        load_arrays(path)


def test_what_a_file_holds_besides_tensors_is_named(torch, tmp_path):
    torch.save({"state_dict": {}, "when": datetime.date(2020, 1, 1)}, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"holds more than tensors \(datetime\.date\)"):
        load_arrays(tmp_path / "a.pth")


def tiny_weights():
    """A small network: its name, its fields and its state dict."""
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
    entries = to_torch(name, zeros, **fields)
    return name, fields, {key: draw(key, array.shape) for key, array in entries.items()}


def test_tensors_that_require_gradients(torch):
    name, fields, state_dict = tiny_weights()
    tensors = {key: torch.nn.Parameter(torch.from_numpy(a)) for key, a in state_dict.items()}
    back = to_torch(name, from_torch(name, tensors, **fields), **fields)
    np.testing.assert_equal(back, state_dict)
    half = {key: tensor.bfloat16() for key, tensor in tensors.items()}
    expected = {key: tensor.float().detach().numpy() for key, tensor in half.items()}
    np.testing.assert_equal(to_torch(name, from_torch(name, half, **fields), **fields), expected)
