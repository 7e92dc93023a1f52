import os
import socket

import pytest

from senet_jax.data.formats import IMAGE_SUFFIXES
from senet_jax.data.image_search import (
    HIDDEN,
    NO_SUFFIX,
    NOT_REGULAR,
    SEARCHED,
    SYSTEM_FOLDERS,
    LeftOut,
    find_images,
)
from senet_jax.errors import UsageError


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def search(folder):
    left_out = LeftOut()
    return find_images(folder, left_out), left_out


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, ".JPEG", ".Tif", ".jfif", ".jpe", ".pgm"])
def test_every_suffix_of_the_formats_is_an_image(tmp_path, suffix):
    write(tmp_path, f"a{suffix}")
    assert search(tmp_path)[0] == [f"a{suffix}"]


def test_images_of_nested_folders_come_in_the_order_of_paths(tmp_path):
    names = ["a.jpg", "b/images/1.jpg", "b/images/10.jpg", "b/z.jpg", "b.png", "c/d/e/f.png"]
    write(tmp_path, *names)
    assert search(tmp_path) == (["a.jpg", *names[1:4], "b.png", names[5]], LeftOut())


def test_hidden_entries_and_folders_of_systems_are_no_data(tmp_path):
    hidden = (".ipynb_checkpoints", ".cache", *SYSTEM_FOLDERS)
    write(tmp_path, "a.jpg", "._a.jpg", "b/.DS_Store", *(f"{name}/x.jpg" for name in hidden))
    found, left_out = search(tmp_path)
    assert found == ["a.jpg"]
    assert left_out.counts == {HIDDEN: len(hidden) + 2}


def test_only_regular_files_and_links_to_them_are_taken(tmp_path):
    write(tmp_path, "a.jpg", "notes.txt", "README")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        bound.bind("socket.jpg")
    found, left_out = search(tmp_path)
    assert found == ["a.jpg", "link.jpg"]
    assert left_out.counts == {NOT_REGULAR: 5, NO_SUFFIX: 2}
    assert left_out.sentence("photos") == (
        "photos: 7 entries are left out: 2 without the suffix of an image (README, notes.txt), 5 "
        "other than regular files (broken.jpg, device.jpg, itself.jpg, ...)"
    )


def test_links_that_lead_back_are_not_followed(tmp_path):
    write(tmp_path, "above/here/in/a.jpg", "above/b.jpg", "elsewhere/c.jpg")
    here = tmp_path / "above" / "here"
    (here / "in" / "up").symlink_to("../..")
    (here / "twice").symlink_to("in")
    (here / "self").symlink_to(".")
    (here / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(here)
    found, left_out = search(here)
    assert found == ["in/a.jpg", "other/c.jpg"]
    assert left_out.counts == {SEARCHED: 4}
    (tmp_path / "door").symlink_to(here)
    assert search(tmp_path / "door")[0] == found


def test_names_are_safe_to_print_and_few(tmp_path):
    for name in (b"\xff.jpg", b"\x1b[31m.txt", b"1.txt", b"2.txt", b"3.txt"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    found, left_out = search(tmp_path)
    assert found == ["\udcff.jpg"]
    assert str(left_out) == f"4 {NO_SUFFIX} (\\x1b[31m.txt, 1.txt, 2.txt, ...)"


def test_a_folder_that_cannot_be_listed_is_said(tmp_path, monkeypatch):
    write(tmp_path, "a/x.jpg", "b/y.jpg")
    real = os.scandir

    def refuse(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match=r"b cannot be listed: Permission denied\.$"):
        search(tmp_path)
