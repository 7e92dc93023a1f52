import os

import pytest

from senet_jax.data.decode import Unreadable
from senet_jax.data.image_files import ImageFiles
from senet_jax.errors import UsageError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.JFIF", ".hidden.jpg", "notes.txt", "sub/c.png", ".sub/d.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_text(name)
    os.mkfifo(tmp_path / "photos" / "pipe.jpg")
    return tmp_path / "photos"


def names(*arguments):
    files = ImageFiles(list(arguments))
    return [files.name(index) for index in range(len(files))]


def test_a_folder_is_searched_by_the_rules_of_classes(photos, caplog):
    assert names("photos") == ["photos/a.jpg", "photos/b.JFIF", "photos/sub/c.png"]
    assert [record.getMessage() for record in caplog.records] == [
        "photos: 4 entries are left out: 2 hidden (.hidden.jpg, .sub), 1 without the suffix of an "
        "image (notes.txt), 1 other than regular files (pipe.jpg)"
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.jpg", ["photos/a.jpg", "photos/pipe.jpg"]),
        ("photos/.h*", ["photos/.hidden.jpg"]),
        ("photos/s*", ["photos/sub/c.png"]),
        ("photos/**/*.png", ["photos/sub/c.png"]),
    ],
)
def test_patterns_match_as_in_a_shell(photos, pattern, expected):
    assert names(pattern) == expected


def test_what_is_named_is_taken_whatever_it_is_called(photos):
    assert names("photos/notes.txt", "photos/.hidden.jpg", "none.jpg") == [
        "photos/notes.txt",
        "photos/.hidden.jpg",
        "none.jpg",
    ]
    assert ImageFiles(["photos/.hidden.jpg"])[0] == (b".hidden.jpg", 0)


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("photos/pipe.jpg", "no regular file"),
        ("/dev/zero", "no regular file"),
        ("none.jpg", "No such file"),
        (f"{'x' * 300}.jpg", "File name too long"),
        (f"{'x' * 300}*.jpg", "File name too long"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(photos, argument, reason):
    with pytest.raises(Unreadable, match=reason):
        ImageFiles([argument])[0]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("photos/*.bmp", "no file matches"),
        ("photos/**.jpg", r"is no pattern of files: \*\* stands alone"),
        ("photos/.sub/../empty", "has no images: those end in .jpg"),
    ],
)
def test_arguments_without_an_image_are_refused(photos, argument, message):
    (photos / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        ImageFiles([argument])


def test_a_name_composed_otherwise_is_said(photos):
    (photos / "cafe\u0301.jpg").write_bytes(b"")
    with pytest.raises(Unreadable, match=r"'caf\\xe9.jpg' and 'cafe\\u0301.jpg'"):
        ImageFiles(["photos/caf\u00e9.jpg"])[0]
