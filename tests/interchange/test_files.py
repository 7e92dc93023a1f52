import importlib.util
import io
import json
import os
import pickle
import stat
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from senet_jax import UsageError, create_model
from senet_jax.interchange import (
    files,
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


def npz(path, *members, **options):
    """Writes an archive of names and contents."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)


def npy(array, header=b"", instead=b""):
    """The bytes of an array, with a part of its header changed."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue().replace(header, instead)


ONES = np.ones((4, 3), np.float32)
STRUCTURED = np.zeros(3, [("a", "<f4"), ("b", "<i8")])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy(ONES, b"(4, 3), ", b"(10**13, 3), "), ""),
        (npy(ONES, b"(4, 3), }    ", b"(40000, 3), }"), r"not have the bytes of its shape \(40000"),
        (npy(ONES, b"(4, 3), }  ", b"(-4, -3), }"), r"not have the bytes of its shape \(-4, -3"),
        (npy(ONES, b"(4, 3), }   ", b"(0, 3.), }"), ""),
        (npy(ONES, b"<f4", b"|O8"), "Python objects"),
        (npy(ONES, b"<f4", b"<V4"), "no plain number or text"),
        (npy(ONES, b"<f4", b"<z4"), ""),
        (npy(ONES, b"{", b"["), ""),
        (npy(STRUCTURED), "no plain number or text"),
        (npy(ONES)[:-1], "not have the bytes"),
        (npy(ONES) + b"\0", "not have the bytes"),
        (b"no array", "magic string"),
        (b"", ""),
    ],
    ids=range(13),
)
def test_a_damaged_array_of_an_npz(tmp_path, content, reason):
    npz(tmp_path / "a.npz", ("b.npy", npy(ONES)), ("a.npy", content))
    with pytest.raises(UsageError, match=rf"^\S+a\.npz is truncated or no .npz .*{reason}.*\.$"):
        load_arrays(tmp_path / "a.npz")


def test_an_encrypted_npz(tmp_path):
    npz(tmp_path / "a.npz", ("a.npy", npy(ONES)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    data[6] |= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(UsageError, match=r"a\.npz is truncated or no .*a\.npy is encrypted\.$"):
        load_arrays(tmp_path / "a.npz")


def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MOST_UNPACKED", 2**20)
    bomb = np.zeros(2**18 + 1, np.float32)
    npz(tmp_path / "a.npz", ("a.npy", npy(bomb)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UsageError, match=r"a\.npz .* MB unpack to .* GB\.$"):
        load_arrays(tmp_path / "a.npz")
    monkeypatch.undo()
    np.testing.assert_array_equal(load_arrays(tmp_path / "a.npz")["a"], bomb)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name(tmp_path):
    npz(tmp_path / "a.npz", ("a.npy", npy(ONES)), ("a.npy", npy(ONES)))
    with pytest.raises(UsageError, match="two arrays have one name"):
        load_arrays(tmp_path / "a.npz")


def test_an_npz_is_read_as_numpy_reads_it(tmp_path):
    arrays = {
        "fortran": np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)),
        "empty": np.zeros((0, 3), np.float16),
        "scalar": np.array(2, np.int8),
        "complex": np.array([1j]),
        "text": np.array(["a", "bc"]),
        "no text": np.array([""])[:0],
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = load_arrays(tmp_path / "a.npz")
        with np.load(tmp_path / "a.npz") as expected:
            assert found.keys() == {*expected}
            for name, array in found.items():
                assert array.dtype == expected[name].dtype
                np.testing.assert_array_equal(array, expected[name])


def safetensors_of(path, shape, dtype, data):
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}
    header = json.dumps({"a": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        ([10**12, 4], "F32", "truncated"),
        ([2**62, 4], "F32", "truncated"),
        ([-1], "F32", "truncated"),
        ([8], "F8_E8M0", "a is of dtype F8_E8M0: write it as F32"),
        ([8], "X9", "truncated"),
    ],
)
def test_a_damaged_safetensors_header(tmp_path, shape, dtype, reason):
    safetensors_of(tmp_path / "a.safetensors", shape, dtype, bytes(8))
    with pytest.raises(UsageError, match=rf"^\S+a\.safetensors.*{reason}.*\.$"):
        load_arrays(tmp_path / "a.safetensors")


def test_a_safetensors_header_that_is_longer_than_the_file(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    with pytest.raises(UsageError, match=r"a\.safetensors is truncated"):
        load_arrays(tmp_path / "a.safetensors")


def test_bfloat16_of_safetensors(tmp_path):
    halves = np.array([1.5, -2, 3e38], jnp.bfloat16)
    safetensors_of(tmp_path / "a.safetensors", [3], "BF16", halves.tobytes())
    found = load_arrays(tmp_path / "a.safetensors")["a"]
    np.testing.assert_array_equal(found.astype(np.float32), halves.astype(np.float32))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth", ".ckpt", ".pth.tar"])
def test_no_regular_file_is_refused_without_waiting(tmp_path, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    os.mkfifo(tmp_path / f"fifo{suffix}")
    (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
    for name, reason in (
        ("folder", "is a folder"),
        ("fifo", "is no regular file"),
        ("loop", "cannot be read: Too many levels"),
        ("n" * 300, "cannot be read: File name too long"),
        ("absent", "there is no such file"),
    ):
        with pytest.raises(UsageError, match=f"{suffix}:? {reason}"):
            load_arrays(tmp_path / f"{name}{suffix}")


@pytest.mark.parametrize("weights_of", ["average", "raw"])
@pytest.mark.parametrize("suffix", WRITTEN)
def test_one_set_of_weights_leaves_no_choice(tmp_path, suffix, weights_of):
    save_arrays(tmp_path / f"a{suffix}", ARRAYS)
    with pytest.raises(UsageError, match="holds one set of weights"):
        load_arrays(tmp_path / f"a{suffix}", weights_of=weights_of)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_full_disk_is_one_sentence(tmp_path, suffix, monkeypatch):
    def full(*arguments, **more):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("senet_jax.files.os.fsync", full)
    with pytest.raises(UsageError, match="cannot be written: No space left on device"):
        save_arrays(tmp_path / f"a{suffix}", ARRAYS)
    assert not any(tmp_path.iterdir())


def test_a_full_disk_by_the_words_of_safetensors(tmp_path, monkeypatch):
    def full(*arguments, **more):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(UsageError, match=r"a\.safetensors cannot be written: No space left"):
        save_arrays(tmp_path / "a.safetensors", ARRAYS)


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


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".PTH"])
def test_without_pytorch_a_pth_is_refused_and_its_code_not_run(tmp_path, suffix, monkeypatch):
    mark = tmp_path / "ran"
    path = tmp_path / f"code{suffix}"
    path.write_bytes(pickle.dumps({"state_dict": Code(mark)}))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = rf"code{suffix} needs PyTorch .*'\.\[torch\]'.*, or convert .* \.safetensors"
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


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_file_may_be_read_by_whom_the_umask_lets(tmp_path, suffix):
    before = os.umask(0o027)
    try:
        save_arrays(tmp_path / f"w.{suffix}", {"x": np.zeros(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / f"w.{suffix}").stat().st_mode) == 0o640
