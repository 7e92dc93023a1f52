"""Building data sets with TensorFlow Datasets, once; reading them needs no TensorFlow."""

import importlib.util
import os
from pathlib import Path

from senet_jax.data.datasets import TFDS_NAMES
from senet_jax.errors import UsageError, choose


def prepare(name: str, directory: Path | None = None) -> Path:
    """Downloads a data set and builds it as ``array_record``.

    Args:
        name: One of ``TFDS_NAMES``.
        directory: Where to; None means ``TFDS_DATA_DIR``, else TFDS's default.

    Returns:
        The folder of the data set.

    Raises:
        UsageError: An unknown name, no TensorFlow, or a download that fails.
    """
    choose("data set to prepare", name, TFDS_NAMES)
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(
            "building a data set needs TensorFlow: pip install 'senet-jax[prepare]' (training "
            "does not need it)."
        )
    import tensorflow_datasets as tfds

    where = directory or os.environ.get("TFDS_DATA_DIR")
    builder = tfds.builder(name, data_dir=where, file_format="array_record")
    try:
        builder.download_and_prepare()
    except OSError as error:
        raise UsageError(
            f"{name} could not be downloaded and built in {where or 'the default folder'}: {error}"
        ) from error
    return Path(builder.data_path)
