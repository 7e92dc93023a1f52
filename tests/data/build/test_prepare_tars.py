import gzip
import io
import logging
import tarfile

import pytest

from senet_jax.data.build import imagenet_tars
from senet_jax.data.build.imagenet_tars import check_tars
from senet_jax.errors import UsageError
from tests.data.tars import SYNSETS, pack, train_members, validation_members, write_tars

TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
BLOCK = 512


def refused(folder):
    with pytest.raises(UsageError) as error:
        check_tars(folder, SYNSETS)
    said = str(error.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


def test_whole_tars_are_counted_and_what_is_fewer_is_warned_of(tmp_path, caplog):
    write_tars(tmp_path)
    with caplog.at_level(logging.WARNING):
        archives = check_tars(tmp_path, SYNSETS)
    assert archives.train == {"n01440764": 3, "n01443537": 1, "n01484850": 2}
    assert (archives.validation, archives.test) == (5, None)
    assert archives.size == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert "6 images of 3 classes; the official one has 1,281,167 of 3" in caplog.text
    assert "holds 5 images; the official one has 50,000" in caplog.text


def test_official_counts_are_not_warned_of(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(imagenet_tars, "TRAIN_IMAGES", 6)
    monkeypatch.setattr(imagenet_tars, "VALIDATION_IMAGES", 5)
    write_tars(tmp_path)
    with caplog.at_level(logging.WARNING):
        check_tars(tmp_path, SYNSETS)
    assert caplog.text == ""
    monkeypatch.setattr(imagenet_tars, "VALIDATION_IMAGES", 4)
    assert "has 5 images, and TFDS has labels for 4" in refused(tmp_path)


def test_test_images_may_stand_anywhere(tmp_path):
    write_tars(tmp_path, test=[("test/", b""), ("test/a.JPEG", b"a"), ("b.JPEG", b"b")])
    assert check_tars(tmp_path, SYNSETS).test == 2


@pytest.mark.parametrize("name", [TRAIN, VALIDATION])
def test_a_missing_tar_and_where_to_put_it(tmp_path, name):
    (write_tars(tmp_path) / name).unlink()
    said = refused(tmp_path)
    assert f"{tmp_path} has no {name}" in said
    assert "--manual-dir" in said


def rename(old, new):
    return [(name.replace(old, new), data) for name, data in validation_members()]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([m for m in validation_members() if "03" not in m[0]], "lacks ILSVRC2012_val_00000003"),
        (validation_members()[:-1], "lacks ILSVRC2012_val_00000001.JPEG but goes on to"),
        ([("val/", b""), *validation_members()], "entry of a folder, 'val'"),
        ([("./", b""), *rename("ILSVRC", "./ILSVRC")], "entry of a folder, '.'"),
        (rename("ILSVRC", "val/ILSVRC"), "'val/ILSVRC2012_val_00000002.JPEG' lies in a folder"),
        (rename("ILSVRC", "./ILSVRC"), "lies in a folder"),
        ([*validation_members(), ("._ILSVRC2012_val_00000001.JPEG", b"")], "no validation image"),
        (rename(".JPEG", ".jpg"), "no validation image"),
        ([*validation_members(), validation_members()[0]], "00000002.JPEG' twice"),
    ],
)
def test_validation_images_that_would_get_wrong_labels(tmp_path, members, message):
    said = refused(write_tars(tmp_path, validation=members))
    assert said.startswith(VALIDATION)
    assert message in said


def inner(*members):
    return [*train_members()[:2], (f"{SYNSETS[2]}.tar", pack(members))]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("n01440764/", b""), ("n01440764/n01440764_1.JPEG", b"")], "entry of a folder"),
        ([("train/n01440764.tar", pack([]))], "printf '%s\\n' *.tar |"),
        ([*train_members(), ("n99999999.tar", pack([]))], "'n99999999.tar' is not the tar of one"),
        ([("n01440764_1.JPEG", b"image")], "use the tar as image-net.org gives it"),
        ([*train_members(), train_members()[0]], "'n01440764.tar' twice"),
        (inner(("n01440764_1.JPEG", b"")), "n01484850.tar: 'n01440764_1.JPEG' is no image of this"),
        (inner(("n01484850/n01484850_1.JPEG", b"")), "n01484850.tar: 'n01484850/n0"),
        (inner(), "n01484850.tar is empty"),
        ([("n01440764.tar", gzip.compress(pack([])))], "n01440764.tar is compressed (gzip)"),
        ([("n01440764.tar", b"<html>" * 200)], "n01440764.tar is empty or no tar"),
    ],
)
def test_training_tars_that_would_get_wrong_labels(tmp_path, members, message):
    said = refused(write_tars(tmp_path, train=members))
    assert said.startswith(TRAIN)
    assert message in said


def test_a_link_is_no_image(tmp_path):
    write_tars(tmp_path)
    with tarfile.open(tmp_path / VALIDATION, "a") as tar:
        link = tarfile.TarInfo("ILSVRC2012_val_00000006.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "ILSVRC2012_val_00000001.JPEG"
        tar.addfile(link)
    assert "00000006.JPEG' is a link" in refused(tmp_path)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("name", [TRAIN, VALIDATION])
def test_compressed_tars_are_named_as_such(tmp_path, name, kind):
    write_tars(tmp_path)
    with tarfile.open(tmp_path / name, f"w:{kind}") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    assert f"{name} is compressed" in refused(tmp_path)


@pytest.mark.parametrize("name", [TRAIN, VALIDATION])
def test_a_tar_cut_off_anywhere_is_refused(tmp_path, name):
    whole = (write_tars(tmp_path) / name).read_bytes()
    with tarfile.open(tmp_path / name) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + -(-last.size // BLOCK) * BLOCK
    for length in (0, 3, *range(700, end + BLOCK, 700), end, end + BLOCK - 1):
        (tmp_path / name).write_bytes(whole[:length])
        assert name in refused(tmp_path), length
    # All members and the first of the two blocks that end a tar are there: nothing is missing.
    (tmp_path / name).write_bytes(whole[: end + BLOCK])
    check_tars(tmp_path, SYNSETS)


def test_truncation_is_told_from_damage(tmp_path):
    whole = (write_tars(tmp_path) / VALIDATION).read_bytes()
    (tmp_path / VALIDATION).write_bytes(whole[: 3 * 1536 + 600])
    said = refused(tmp_path)
    assert "is truncated: 'ILSVRC2012_val_00000005.JPEG' goes on to byte 6,144" in said
    damaged = whole[: 2 * 1536] + b"\xff" * BLOCK + whole[2 * 1536 + BLOCK :]
    (tmp_path / VALIDATION).write_bytes(damaged)
    assert "after 'ILSVRC2012_val_00000003.JPEG', byte 3,072" in refused(tmp_path)
    (tmp_path / VALIDATION).write_bytes(b"<!DOCTYPE html>" * 100)
    assert "is no tar" in refused(tmp_path)


def test_an_inner_tar_without_its_end_does_not_run_into_the_next(tmp_path):
    tars = dict(train_members())
    whole = tars["n01440764.tar"]
    tars["n01440764.tar"] = whole[: 3 * 1536]
    said = refused(write_tars(tmp_path, train=[*tars.items()]))
    assert f"{TRAIN}: n01440764.tar is truncated" in said
    tars["n01440764.tar"] = whole[: 3 * 1536 - 100]
    said = refused(write_tars(tmp_path, train=[*tars.items()]))
    assert f"{TRAIN}: n01440764.tar is truncated: 'n01440764_2.JPEG'" in said


def test_images_are_passed_over_and_not_read(tmp_path, monkeypatch):
    big = b"x" * 1_000_000
    write_tars(tmp_path, train_members(image=big), validation_members(image=big))
    read = []
    original = io.BufferedReader.read

    class Counting(io.BufferedReader):
        def read(self, size=-1):
            data = original(self, size)
            read.append(len(data))
            return data

    monkeypatch.setattr(
        "pathlib.Path.open", lambda path, mode: Counting(io.FileIO(path, mode.rstrip("b")))
    )
    assert sum(check_tars(tmp_path, SYNSETS).train.values()) == 6
    assert 0 < sum(read) < 50_000
