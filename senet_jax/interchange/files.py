"""Files of named arrays: ``.safetensors``, ``.npz`` and PyTorch's ``.pth``."""

import argparse
import contextlib
import importlib.util
import io
import json
import math
import operator
import os
import pathlib
import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from senet_jax.errors import UsageError, installs
from senet_jax.files import check_target, os_reason, read_bytes, write_whole
from senet_jax.interchange.state_dict import WeightsOf, take_weights
from senet_jax.text import printable

_MOST_UNPACKED, _MOST_RATIO = 2**30, 100
"""An archive that unpacks to more bytes than this and to this many times its own size is taken for
a zip bomb; weights do not shrink to a hundredth."""

_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
}
"""The dtypes of safetensors."""


def load_arrays(path: str | os.PathLike[str], *, weights_of: WeightsOf = "auto") -> dict[str, Any]:
    """Reads the arrays of a file, running no code that it may carry.

    A file of PyTorch's needs PyTorch, whose restricted reader takes tensors and plain containers
    alone; of a training checkpoint the weights are taken (``state_dict.take_weights``).

    Args:
        path: A file that ends in .safetensors, .npz, .pth, .pt, .bin, .ckpt or .pth.tar.
        weights_of: The weights to take of a training checkpoint of PyTorch's that has a moving
            average of them too; the other kinds of file hold one set of weights.

    Returns:
        Arrays by name: NumPy's, of a file of PyTorch's its tensors.

    Raises:
        UsageError: There is no such file, or it is truncated, foreign, of another kind, of objects
            that are not arrays, or of PyTorch's where there is no PyTorch.
    """
    path = Path(path)
    suffix = _suffix(path, _READERS)
    if suffix is None:
        raise UsageError(f"{path}: weights are read from {', '.join(_READERS)} files.")
    check_regular(path)
    if suffix in _ONE_SET and weights_of != "auto":
        raise UsageError(
            f"{path} holds one set of weights, and not their moving average beside them: leave "
            "--weights-of (weights_of) out."
        )
    return _READERS[suffix](path, weights_of)


def is_weight_file(name: str) -> bool:
    """Tells by its name a file that ``load_arrays`` reads."""
    return _suffix(Path(name), _READERS) is not None


def save_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Any],
    about: Mapping[str, str] | None = None,
) -> None:
    """Writes arrays to a file, which appears whole or not at all.

    Args:
        path: A file that ends in .safetensors or .npz; one that exists is replaced.
        arrays: Arrays by name.
        about: Texts beside them, which ``read_about`` reads and readers of arrays pass over.

    Raises:
        UsageError: As ``check_arrays_target``, or the disk is full.
    """
    path = Path(path)
    write = _writer(path)
    # safetensors writes the memory as it lies, whatever the strides.
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_whole(path, lambda partial: write(partial, contiguous, dict(about or {})))


def read_about(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts that ``save_arrays`` wrote beside the arrays of a file; none for other files.

    Raises:
        UsageError: There is no such file, or it is truncated or foreign.
    """
    path = Path(path)
    check_regular(path)
    suffix = _suffix(path, _READERS)
    if suffix == ".safetensors":
        with _decoding(path, "safetensors file"), safetensors.safe_open(path, "numpy") as file:
            return dict(file.metadata() or {})
    if suffix == ".npz":
        with _decoding(path, ".npz file of plain arrays"), zipfile.ZipFile(path) as archive:
            comment = archive.comment
        try:
            found = json.loads(comment)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}
    return {}


def check_arrays_target(path: str | os.PathLike[str]) -> None:
    """Checks that ``save_arrays`` can write a file, before the work whose result it will hold.

    Raises:
        UsageError: Another kind of file, or a place that cannot be written.
    """
    _writer(Path(path))
    check_target(path)


def _suffix(path: Path, known: Mapping[str, object]) -> str | None:
    """The longest of the known endings that the name of a file has."""
    name = path.name.lower()
    return max((end for end in known if name.endswith(end)), key=len, default=None)


def _writer(path: Path) -> "Writer":
    suffix = _suffix(path, _WRITERS)
    if suffix is None:
        raise UsageError(f"{path}: weights are written to {' or '.join(_WRITERS)} files.")
    return _WRITERS[suffix]


def check_regular(path: Path) -> None:
    """Checks that a path is a regular file; a FIFO would make its reader wait.

    Raises:
        UsageError: There is no such file, or it is a folder or no regular file.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no such file.") from error
    except (OSError, ValueError) as error:
        why = os_reason(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path} cannot be read: {why}.") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a folder: give a file.")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is no regular file: give another.")


@contextlib.contextmanager
def _decoding(path: Path, kind: str) -> Iterator[None]:
    """Says in one sentence what a library found wrong with a file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UsageError:
        raise
    except Exception as error:
        # Libraries raise dozens of classes for damaged files, MemoryError too.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        why = printable(lines[0])[:200].rstrip(". ")
        raise UsageError(f"{path} is truncated or no {kind}: {why}.") from error


def _read_safetensors(path: Path, _: WeightsOf) -> dict[str, Any]:
    arrays = {}
    with _decoding(path, "safetensors file"):
        # safetensors has them in no order.
        for name, view in sorted(
            safetensors.deserialize(read_bytes(path)), key=operator.itemgetter(0)
        ):
            if view["dtype"] not in _DTYPES:
                raise UsageError(
                    f"{path}: {printable(name)} is of dtype {view['dtype']}: write it as F32, F16 "
                    "or BF16."
                )
            array = np.frombuffer(view["data"], _DTYPES[view["dtype"]])
            arrays[name] = array.reshape(view["shape"])
    return arrays


def _read_npz(path: Path, _: WeightsOf) -> dict[str, Any]:
    with _decoding(path, ".npz file of plain arrays"):
        data = read_bytes(path)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) < len(names):
                raise ValueError("two arrays have one name")
            _check_unpacked(sum(member.file_size for member in members), len(data))
            return {
                name: _read_member(archive, member)
                for name, member in zip(names, members, strict=True)
            }


def _check_unpacked(unpacked: int, packed: int) -> None:
    if unpacked > max(_MOST_UNPACKED, _MOST_RATIO * packed):
        raise ValueError(f"{packed / 1e6:.3g} MB unpack to {unpacked / 1e9:.3g} GB")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """An array of an .npz file; memory is taken only for what the file has."""
    name = printable(member.filename)
    if not name.endswith(".npy"):
        raise ValueError(f"there are other files in it, such as {name}")
    if member.flag_bits & 1:
        raise ValueError(f"{name} is encrypted")
    data = bytearray(archive.read(member))
    file = io.BytesIO(data[:_LONGEST_HEADER])
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"{name} is of version {version} of the format, not 1.0 or 2.0")
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which may be code and are not read")
    if dtype.kind not in _PLAIN:
        raise ValueError(f"{name} is of dtype {dtype}, which is no plain number or text")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{name} does not have the bytes of its shape {shape}"[:200])
    array = np.frombuffer(data, dtype, offset=file.tell()) if dtype.itemsize else np.zeros(0, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


_LONGEST_HEADER = 2**16
"""Bytes; ``np.lib.format`` reads only headers of at most 10,000."""

_PLAIN = "fiubcUS"
"""Kinds of dtypes of an .npz file: numbers, and the text that ``excitation`` writes."""


def _read_torch(path: Path, weights_of: WeightsOf) -> dict[str, Any]:
    if importlib.util.find_spec("torch") is None:
        raise UsageError(
            f"{path} needs PyTorch to be read: {installs('torch')}, or convert the file to "
            ".safetensors where PyTorch is (safetensors.torch.save_file)."
        )
    import torch

    with _decoding(path, "PyTorch file"), torch.serialization.safe_globals(_harmless()):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
            _check_unpacked(unpacked, path.stat().st_size)
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            more = f" ({found[1]})" if found else ""
            raise UsageError(
                f"{path} is no PyTorch file or holds more than tensors{more}, which may be code "
                "and is not run: if you trust it, save its state dict alone where it was made."
            ) from error
        return take_weights(loaded, weights_of, str(path))


def _harmless() -> list[Any]:
    """The classes besides tensors and containers that training scripts leave in checkpoints.

    They are arguments, paths and numbers of NumPy. To make one runs no code that a file chooses.
    """
    from numpy._core import multiarray

    scalar: Any = multiarray.scalar
    numbers = [type(np.dtype(kind)) for kind in (*np.typecodes["AllInteger"], *"?efdFDSU")]
    return [
        argparse.Namespace,
        np.dtype,
        *dict.fromkeys(numbers),
        (scalar, "numpy._core.multiarray.scalar"),
        (scalar, "numpy.core.multiarray.scalar"),
        *(
            (getattr(pathlib, f"Pure{system}Path"), f"{module}.{pure}{system}Path")
            for module in ("pathlib", "pathlib._local")
            for system in ("Posix", "Windows")
            for pure in ("Pure", "")
        ),
    ]


def _write_safetensors(path: Path, arrays: dict[str, np.ndarray], about: dict[str, str]) -> None:
    # safetensors replaces the file by one that its owner alone may read.
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        safetensors.numpy.save_file(arrays, path, metadata={"format": "pt", **about})
    except safetensors.SafetensorError as error:
        # An error of the operating system is no OSError here, and ends with "(os error 28)".
        number = re.search(r"\(os error (\d+)\)$", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
    path.chmod(mode)


def _write_npz(path: Path, arrays: dict[str, np.ndarray], about: dict[str, str]) -> None:
    # np.savez has arguments of its own, whose names the arrays could not have.
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        archive.comment = json.dumps(about).encode() if about else b""


_ONE_SET: dict[str, Callable[[Path, WeightsOf], dict[str, Any]]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
}
_READERS = _ONE_SET | dict.fromkeys(
    (".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".pt.tar"), _read_torch
)
Writer = Callable[[Path, dict[str, np.ndarray], dict[str, str]], None]
_WRITERS: dict[str, Writer] = {
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
}
