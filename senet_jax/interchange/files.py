"""Files of named arrays: ``.safetensors``, ``.npz`` and PyTorch's ``.pth``."""

import importlib.util
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from senet_jax.errors import UsageError
from senet_jax.files import write_whole

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts keep the weights beside the optimizer's state."""


def load_arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the arrays of a file, running no code that it may carry.

    A ``.pth``, ``.pt`` or ``.bin`` needs PyTorch, whose restricted reader takes tensors and plain
    containers alone; of a training checkpoint the weights are taken.

    Args:
        path: A file that ends in .safetensors, .npz, .pth, .pt or .bin.

    Returns:
        Arrays by name: NumPy's, of a ``.pth`` PyTorch's.

    Raises:
        UsageError: There is no such file, or it is truncated, foreign, of another kind, of objects
            that are not arrays, or a ``.pth`` where there is no PyTorch.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise UsageError(f"{path}: weights are read from {', '.join(_READERS)} files.")
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file.")
    return _READERS[path.suffix](path)


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Writes arrays to a file, which appears whole or not at all.

    Args:
        path: A file that ends in .safetensors or .npz; one that exists is replaced.
        arrays: Arrays by name.

    Raises:
        UsageError: Another kind of file, or a directory that does not exist.
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise UsageError(f"{path}: weights are written to {' or '.join(_WRITERS)} files.")
    # safetensors writes the memory as it lies, whatever the strides.
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_whole(path, lambda partial: _WRITERS[path.suffix](partial, contiguous))


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise UsageError(f"{path} is truncated or no safetensors file: {error}.") from error


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} is truncated or no .npz file of plain arrays: {error}."
        ) from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise UsageError(f"{path} is no .npz file of plain arrays: there are other files in it.")
    return arrays


def _read_torch(path: Path) -> dict[str, Any]:
    if importlib.util.find_spec("torch") is None:
        raise UsageError(
            f"{path} needs PyTorch to be read: install torch, or convert the file to .safetensors "
            "where PyTorch is (safetensors.torch.save_file)."
        )
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} is no PyTorch file or holds more than tensors, which may be code and is not "
            "run: if you trust it, save its state dict alone where it was made."
        ) from error
    except (EOFError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is truncated or no PyTorch file: {error}.") from error
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(hasattr(v, "shape") for v in loaded.values()):
        raise UsageError(
            f"{path} holds no state dict, alone or under {' or '.join(map(repr, _WRAPPERS))}."
        )
    return dict(loaded)


def _write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    # np.savez has arguments of its own, whose names the arrays could not have.
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
}
_WRITERS: dict[str, Callable[[Path, dict[str, np.ndarray]], None]] = {
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
}
