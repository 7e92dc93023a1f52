"""The labels of a data set's records, in a file beside them."""

from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from senet_jax.files import read_bytes


class Damaged(ValueError):
    """A data set is not complete; the message says where."""


def label_file(folder: Path, split: str) -> Path:
    """The file with the label of every record of a split, int32, in their order."""
    return folder / f"labels-{split}.npy"


def stored_labels(folder: Path, split: str) -> Int32[np.ndarray, " n"] | None:
    """Reads the labels that ``verify.keep_labels`` wrote; None without them.

    Raises:
        Damaged: The file cannot be read, or does not hold one whole number a record.
    """
    file = label_file(folder, split)
    try:
        labels = np.load(BytesIO(read_bytes(file)))
    except FileNotFoundError:
        return None
    # For damaged bytes NumPy raises ValueError, EOFError, OSError, MemoryError and what zipfile and
    # its parser of headers raise.
    except Exception as error:
        raise Damaged(f"{file} cannot be read as labels ({error})") from error
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise Damaged(f"{file} does not hold a list of whole numbers")
    limits = np.iinfo(np.int32)
    if labels.size and not limits.min <= labels.min() <= labels.max() <= limits.max:
        raise Damaged(f"{file} holds numbers that are no labels")
    return labels.astype(np.int32)
