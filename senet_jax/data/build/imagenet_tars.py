"""The official tars of ImageNet 2012, checked by their headers before anything is built from them.

TFDS takes the label of a training image from the name of the tar that it lies in, and that of a
validation image from its position among the sorted names. It says nothing when a member is missing
or stands elsewhere: the labels are then wrong, or the image is left out.
"""

import dataclasses
import logging
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from senet_jax.errors import UsageError
from senet_jax.files import is_folder

LOGGER = logging.getLogger(__name__)

TRAIN = "ILSVRC2012_img_train.tar"
VALIDATION = "ILSVRC2012_img_val.tar"
TEST = "ILSVRC2012_img_test.tar"

TRAIN_IMAGES, VALIDATION_IMAGES = 1_281_167, 50_000

_BLOCK = 512
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_AGAIN = "download it again."
_REPACK = "repack its files alone, `cd FOLDER && printf '%s\\n' {} | tar -cf NEW.tar -T -`."


@dataclasses.dataclass(frozen=True)
class Archives:
    """The contents of the tars."""

    train: dict[str, int]
    """Images of each synset that has a member tar."""
    validation: int
    """Images of the validation tar: those of the positions 1 to this."""
    test: int | None
    """Images of the test tar, which has no labels; None without that tar."""
    size: int
    """Bytes of the tars together."""


def check_tars(folder: Path, synsets: Sequence[str]) -> Archives:
    """Checks the tars that TFDS builds ``imagenet2012`` from, reading nothing but headers.

    The test tar is optional. Fewer images than the official ones are logged as a warning.

    Args:
        folder: The folder of the tars.
        synsets: The names of the classes, ``n01440764`` and so on.

    Raises:
        UsageError: A tar that is missing, compressed or truncated, or whose members are not what
            TFDS expects; the message says what to do.
    """
    for name in (TRAIN, VALIDATION):
        if not (is_folder(folder) and (folder / name).is_file()):
            raise UsageError(
                f"{folder} has no {name}: put {TRAIN} and {VALIDATION} there as image-net.org "
                "gives them, and name the folder with --manual-dir."
            )
    paths = [folder / name for name in (TRAIN, VALIDATION, TEST) if (folder / name).is_file()]
    try:
        validation = _check_validation(folder / VALIDATION)
        test = _check_test(folder / TEST) if folder / TEST in paths else None
        train = _check_train(folder / TRAIN, frozenset(synsets))
        size = sum(path.stat().st_size for path in paths)
    except OSError as error:
        raise UsageError(
            f"the tars in {folder} cannot be read ({error}): correct that and run it again."
        ) from error
    images = sum(train.values())
    if (images, len(train)) != (TRAIN_IMAGES, len(synsets)):
        LOGGER.warning(
            "%s ends properly but holds %s images of %s classes; the official one has %s of %s",
            *(TRAIN, f"{images:,}", f"{len(train):,}", f"{TRAIN_IMAGES:,}", f"{len(synsets):,}"),
        )
    if validation != VALIDATION_IMAGES:
        LOGGER.warning(
            "%s ends properly but holds %s images; the official one has %s",
            *(VALIDATION, f"{validation:,}", f"{VALIDATION_IMAGES:,}"),
        )
    return Archives(train, validation, test, size)


def _check_validation(path: Path) -> int:
    with path.open("rb") as file:
        names = [member.name for member in _members(file, path.name, flat=True)]
    official = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")
    for name in names:
        if not official.fullmatch(name):
            raise UsageError(
                f"{VALIDATION}: {name!r} is no validation image (ILSVRC2012_val_00000001.JPEG, "
                f"...), and TFDS labels images by position: {_REPACK.format('*.JPEG')}"
            )
    for number, name in enumerate(sorted(names), start=1):
        expected = f"ILSVRC2012_val_{number:08d}.JPEG"
        if name != expected:
            raise UsageError(
                f"{VALIDATION} lacks {expected} but goes on to {max(names)}, and TFDS labels "
                f"images by their position, so that all after the gap would be wrong: {_AGAIN}"
            )
    if len(names) > VALIDATION_IMAGES:
        raise UsageError(
            f"{VALIDATION} has {len(names):,} images, and TFDS has labels for "
            f"{VALIDATION_IMAGES:,}: {_AGAIN}"
        )
    return len(names)


def _check_test(path: Path) -> int:
    # Test images have no labels, so that it does not matter where in the tar they stand.
    with path.open("rb") as file:
        return sum(member.isreg() for member in _members(file, path.name))


def _check_train(path: Path, synsets: frozenset[str]) -> dict[str, int]:
    with path.open("rb") as file:
        tars = list(_members(file, path.name, flat=True))
    for tar in tars:
        if not tar.name.endswith(".tar") or tar.name[:-4] not in synsets:
            raise UsageError(
                f"{TRAIN}: {tar.name!r} is not the tar of one of the {len(synsets):,} classes "
                "(n01440764.tar, ...), whose name gives TFDS the label: use the tar as "
                "image-net.org gives it, a tar of one tar a class."
            )

    def count(tar: tarfile.TarInfo) -> int:
        synset, where = tar.name[:-4], f"{TRAIN}: {tar.name}"
        official = re.compile(rf"{synset}_\d+\.JPEG")
        images = 0
        # Each with a file of its own, for the threads wait for the disk independently.
        with path.open("rb") as file:
            end = tar.offset_data + tar.size
            for image in _members(file, where, tar.offset_data, end, flat=True):
                if not official.fullmatch(image.name):
                    raise UsageError(
                        f"{where}: {image.name!r} is no image of this class ({synset}_18.JPEG, "
                        f"...), and TFDS would label it as one: {_AGAIN}"
                    )
                images += 1
        return images

    with ThreadPoolExecutor() as pool:
        counts = tqdm(
            pool.map(count, tars),
            desc=f"Checking {TRAIN}",
            total=len(tars),
            unit=" classes",
            disable=None,
            leave=False,
        )
        return {tar.name[:-4]: images for tar, images in zip(tars, counts, strict=True)}


def _members(
    file: BinaryIO, where: str, start: int = 0, end: int | None = None, flat: bool = False
) -> Iterator[tarfile.TarInfo]:
    """Yields the members of the tar in ``file[start:end]``, all of it being there.

    `tarfile` stops without a word at a header that is cut off or damaged; what tells the end of the
    archive from that is a block of zeros.

    Args:
        file: The file that holds the tar.
        where: The name of the tar in messages.
        start: Its first byte.
        end: The byte after its last; None means the end of the file.
        flat: Each member must be a file outside folders, of another name than the others.
    """
    end = file.seek(0, 2) if end is None else end
    file.seek(start)
    head = file.read(max(map(len, _MAGIC)))
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise UsageError(
                f"{where} is compressed ({kind}) and TFDS wants it plain: decompress it, keeping "
                "its name."
            )
    file.seek(start)
    after, last, seen = start, None, set()
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                stored = member.size if member.isreg() else 0
                after = member.offset_data + -(-stored // _BLOCK) * _BLOCK
                if after > end:
                    raise UsageError(
                        f"{where} is truncated: {member.name!r} goes on to byte {after - start:,} "
                        f"and the tar ends at {end - start:,}: {_AGAIN}"
                    )
                if flat:
                    _check_flat(where, member)
                    if member.name in seen:
                        raise UsageError(f"{where} has {member.name!r} twice: {_AGAIN}")
                    seen.add(member.name)
                last = member.name
                yield member
    except tarfile.TarError as error:
        kind = "is no tar" if last is None else f"is damaged after {last!r}"
        raise UsageError(f"{where} {kind} ({error}): {_AGAIN}") from error
    if last is None:
        raise UsageError(f"{where} is empty or no tar: {_AGAIN}")
    # One block, where the format has two: a tar cut off after it has lost nothing.
    file.seek(after)
    if after + _BLOCK > end or file.read(_BLOCK).strip(b"\0"):
        raise UsageError(
            f"{where} is truncated or damaged: after {last!r}, byte {after - start:,}, neither "
            f"another member nor the end of the archive follows: {_AGAIN}"
        )


def _check_flat(where: str, member: tarfile.TarInfo) -> None:
    repack = _REPACK.format("*.tar" if where == TRAIN else "*.JPEG")
    if member.isdir():
        raise UsageError(
            f"{where} has an entry of a folder, {member.name!r}, and TFDS counts it as an image: "
            f"{repack}"
        )
    if "/" in member.name:
        raise UsageError(
            f"{where}: {member.name!r} lies in a folder, and TFDS wants the names alone: {repack}"
        )
    if not member.isreg() or member.issparse():
        raise UsageError(f"{where}: {member.name!r} is a link and no file: {repack}")
