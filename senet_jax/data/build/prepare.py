"""Building data sets with TensorFlow Datasets, once; reading them needs no TensorFlow."""

import contextlib
import dataclasses
import fcntl
import importlib.util
import io
import logging
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from senet_jax.data.build.imagenet_tars import Archives, check_tars
from senet_jax.data.build.verify import Split, keep_labels, verified, verify
from senet_jax.data.stored_labels import Damaged
from senet_jax.data.tfds_folder import check_regular, expanded
from senet_jax.errors import UsageError, choose, installs
from senet_jax.files import check_folder, is_folder

LOGGER = logging.getLogger(__name__)

NEEDS_TENSORFLOW = (
    f"building a data set needs TensorFlow: {installs('prepare')}, best into an environment of its "
    "own (training does not need it)."
)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A complete data set on the disk."""

    folder: Path
    splits: list[Split]
    how: str
    """The outcome: "built and verified", "was there, verified" or the like."""


def prepare(name: str, data_dir: Path | None = None, manual_dir: Path | None = None) -> Prepared:
    """Builds an image classification set of TFDS as ``array_record`` and reads every record of it.

    It is built in a temporary folder beside the target and renamed when it has been verified: the
    target is always complete. A set that exists is never overwritten, only verified.

    Args:
        name: As TFDS writes it: "cifar10", "imagenet_resized/64x64", ...
        data_dir: Its folder; None means ``TFDS_DATA_DIR``, else TFDS's default.
        manual_dir: The folder of the files that TFDS cannot download; None means
            ``downloads/manual`` in the data directory, as for TFDS.

    Raises:
        UsageError: The set is unknown or no image classification, its archives are not as they
            should be, TensorFlow is missing, or it cannot be built or read; the message says what
            to do.
    """
    # Silences TensorFlow's messages about itself; here it only reads and writes files.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with _no_temporary_files_left():
        return _prepare(name, data_dir, manual_dir)


@contextlib.contextmanager
def _no_temporary_files_left() -> Iterator[None]:
    """Removes what TFDS leaves in the place for temporary files: a folder for each builder."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="senet_jax_prepare") as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def _prepare(name: str, data_dir: Path | None, manual_dir: Path | None) -> Prepared:
    import tensorflow_datasets as tfds

    root = data_dir or Path(os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR)
    root = expanded(root)
    builder = _find(name, root)
    folder = Path(builder.data_path)
    if is_folder(folder):
        if _place(folder).exists():
            # A process that was killed between the move and the tidying.
            advice = "delete it"
            with _explained(f"{_place(folder)} cannot be removed", advice), _at_work(folder, root):
                pass
        return _check_present(builder, folder)
    check_folder(folder)
    manual_dir = expanded(manual_dir or root / "downloads" / "manual")
    expected = None
    if builder.name == "imagenet2012":
        archives, expected = _check_imagenet(manual_dir)
        _check_space(root, archives.size)
    elif builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not is_folder(manual_dir):
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise UsageError(
            f"TFDS cannot download {name} and there is no folder {manual_dir}: name the folder of "
            f"its files with --manual-dir ({instructions})."
        )
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(NEEDS_TENSORFLOW)
    splits = _build(name, folder, root, manual_dir, expected)
    return Prepared(folder, splits, "built and verified")


def _find(name: str, root: Path) -> Any:
    """The builder of an image classification set, which needs no TensorFlow yet."""
    import tensorflow_datasets as tfds

    base, _, config = name.partition(":")[0].partition("/")
    names = tfds.list_builders(with_community_datasets=False)
    choose("data set to prepare", base, names)
    check_regular(root / base)
    with _explained(f"TFDS cannot open {name} in {root}", "look at --data-dir and the name"):
        if config:
            choose(f"config of {base}", config, tfds.builder_cls(base).builder_configs)
        builder = tfds.builder(name, data_dir=root)
        features = builder.info.features
    features = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    if not (
        isinstance(features.get("image"), tfds.features.Image)
        and isinstance(features.get("label"), tfds.features.ClassLabel)
    ):
        raise UsageError(
            f"{name} is no image classification set (those have an image and one label a record): "
            "choose another, cifar10 or imagenet2012 for example."
        )
    return builder


def _check_present(builder: Any, folder: Path) -> Prepared:
    """Verifies a set that is there; quickly, if that has been done before."""
    if builder.info.splits and builder.info.file_format.value != "array_record":
        raise UsageError(
            f"{folder} has {builder.name} as {builder.info.file_format.value}, and training reads "
            "array_record: prepare it in another place with --data-dir."
        )
    advice = "if the disk is well, delete that folder and prepare it again"
    with _explained(f"{builder.name} in {folder} is damaged", advice):
        splits = verified(folder)
        if splits is not None:
            return Prepared(folder, splits, "was there, verified before")
        splits = verify(folder)
    try:
        keep_labels(folder, splits)
    except UsageError as error:
        LOGGER.warning("the labels could not be kept beside the records: %s", error)
    return Prepared(folder, splits, "was there, now verified")


def _check_imagenet(folder: Path) -> tuple[Archives, Mapping[str, Counter[int]]]:
    """Checks the tars and says how many images of each label each split must get."""
    import tensorflow_datasets as tfds

    def lines(file: str) -> list[str]:
        path = Path(tfds.core.tfds_path(f"datasets/imagenet2012/{file}"))
        return path.read_text().split()

    synsets = lines("labels.txt")
    archives = check_tars(folder, synsets)
    label = {synset: index for index, synset in enumerate(synsets)}
    validation = lines("validation_labels.txt")[: archives.validation]
    expected = {
        "train": Counter({label[synset]: count for synset, count in archives.train.items()}),
        "validation": Counter(label[synset] for synset in validation),
    }
    if archives.test is not None:
        expected["test"] = Counter({-1: archives.test})
    return archives, expected


def _check_space(root: Path, needed: int) -> None:
    """TFDS writes the records into buckets and empties those into the shards: once in all."""
    there = next(place for place in (root, *root.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UsageError(
            f"the disk of {root} has {free / 1e9:.3g} GB left and imagenet2012 takes about "
            f"{needed / 1e9:.3g} GB: make room or choose another with --data-dir."
        )


def _build(
    name: str,
    folder: Path,
    root: Path,
    manual_dir: Path,
    expected: Mapping[str, Counter[int]] | None,
) -> list[Split]:
    """Builds a set in a folder beside its place, verifies it there and moves it."""
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    advice = "correct that and run it again, nothing of it is left over"
    with (
        _explained(f"{name} could not be built in {root}", advice),
        _at_work(folder, root) as place,
    ):
        builder = tfds.builder(name, data_dir=place, file_format="array_record")
        if expected is not None:
            _set_totals(builder, expected)
        builder.download_and_prepare(download_dir=root / "downloads", download_config=config)
        built = Path(builder.data_path)
        splits = verify(built, expected)
        keep_labels(built, splits)
        # A loss of power must not leave the name without the bytes.
        for path in (*built.iterdir(), built):
            _sync(path)
        built.rename(folder)
        _sync(folder.parent)
    return splits


def _place(folder: Path) -> Path:
    """The folder in which a set is built: beside its own, so that moving it there is one step."""
    return folder.with_name(f"incomplete.prepare_{folder.name}")


@contextlib.contextmanager
def _at_work(folder: Path, root: Path) -> Iterator[Path]:
    """Gives one process the place to build in, empty; nothing of it is left afterwards."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = _place(folder)
    lock = place.with_name(f"{place.name}.lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another `senet-jax prepare` is at work in {folder.parent}: wait for its end."
            ) from error
        except OSError as error:
            # Some file systems of clusters have no locks.
            LOGGER.warning("run no other `prepare` at the same time: no lock (%s)", error)
        try:
            if place.exists():
                LOGGER.warning("removing what an interrupted build left in %s", place)
                shutil.rmtree(place)
            place.mkdir()
            for other in folder.parent.glob(f"incomplete.??????_{folder.name}"):
                LOGGER.warning("delete %s, of an interrupted TFDS, if none is at work", other)
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            lock.unlink(missing_ok=True)
            _remove_empty(root / "downloads" / "extracted", root)
            _remove_empty(folder.parent, root)


@contextlib.contextmanager
def _explained(message: str, advice: str) -> Iterator[None]:
    """Says in one sentence what went wrong within TFDS, and keeps what it prints from the user."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except UsageError:
        raise
    except Exception as error:
        # TFDS lets pass what TensorFlow, protobuf, Riegeli and its downloads raise.
        LOGGER.debug("%s", message, exc_info=True)
        why = re.sub(r'^Failed to construct dataset .*?\}": ', "", " ".join(str(error).split()))
        if isinstance(error, ModuleNotFoundError) and "'tensorflow'" in why:
            raise UsageError(NEEDS_TENSORFLOW) from error
        if "No space left on device" in why:
            advice = "the disk is full, make room or choose another with --data-dir"
        kind = "" if isinstance(error, Damaged) else f"{type(error).__name__}: "
        raise UsageError(f"{message} ({kind}{why[:300]}): {advice}.") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_empty(folder: Path, root: Path) -> None:
    """Removes a folder and those above it as far as they are empty, below ``root``."""
    with contextlib.suppress(OSError):
        while folder != root and folder.is_relative_to(root):
            folder.rmdir()
            folder = folder.parent


def _set_totals(builder: Any, expected: Mapping[str, Counter[int]]) -> None:
    """Tells TFDS how many images will come, from which its progress bars know the time left."""
    import tensorflow_datasets as tfds

    builder.info.set_splits(
        tfds.core.splits.SplitDict(
            tfds.core.SplitInfo(
                name=split, shard_lengths=[labels.total()], num_bytes=0, filename_template=None
            )
            for split, labels in expected.items()
        )
    )
