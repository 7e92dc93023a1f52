import numpy as np
import pytest
from PIL import Image
from scene_folder import write_masks, write_scene

from senet_jax.data import scene_files
from senet_jax.data.decode import Unreadable
from senet_jax.data.scene_sets import SceneOptions, open_scenes
from senet_jax.errors import UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    write_masks(root)
    return root


def opened(folder, **options):
    return open_scenes("masks", SceneOptions(folder, frame=(6, 8), **options))


def test_a_survey_counts_the_pixels_of_each_class(folder):
    train = opened(folder).train
    survey = train.survey(3)
    labels = [train.scene(index).label for index in range(len(train))]
    assert survey.sizes.tolist() == [[6, 8]] * 4
    assert survey.pixels.tolist() == [[(label == c).sum() for c in range(3)] for label in labels]
    assert survey.pixels.sum() < 4 * 48


def test_a_survey_is_kept_until_a_file_changes(folder, monkeypatch):
    first = opened(folder).train.survey(3)
    reads = []
    decode = scene_files.decode_label
    monkeypatch.setattr(scene_files, "decode_label", lambda data: reads.append(0) or decode(data))
    again = opened(folder).train.survey(3)
    assert not reads
    assert np.array_equal(first.pixels, again.pixels)
    Image.new("L", (8, 6), 1).save(folder / "annotations/train/02.png")
    changed = opened(folder).train.survey(3)
    assert len(reads) == 4
    assert changed.pixels[2].tolist() == [0, 48, 0]
    with pytest.raises(UsageError, match="value that is no class"):
        opened(folder, ignore_label=7).train.survey(3)


def test_without_a_folder_for_it_a_survey_is_made_each_time(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert opened(folder).train.survey(3).pixels.shape == (4, 3)


def test_faults_are_named_with_file_and_value(folder):
    Image.new("L", (8, 6), 37).save(folder / "annotations/train/00.png")
    write_scene(folder, "images/train/01.png", "annotations/train/01.png", values=(0, 9, 200))
    Image.new("L", (8, 5)).save(folder / "annotations/train/02.png")
    Image.new("RGB", (8, 6)).save(folder / "annotations/train/03.png")
    with pytest.raises(UsageError) as error:
        opened(folder).train.survey(3)
    message = str(error.value)
    assert (
        "labels with a value that is no class (2): annotations/train/00.png has value 37" in message
    )
    assert "annotations/train/01.png has values 9, 200" in message
    assert "images of another size than their label (1): images/train/02.png has 6x8" in message
    assert "annotations/train/02.png 5x8" in message
    assert "labels that cannot be read (1): annotations/train/03.png (it is a picture" in message
    assert message.endswith("; 0 to 2 are the classes and 255 is ignored.")


def test_many_faults_are_counted(folder):
    for index in range(4):
        Image.new("L", (8, 6), 37).save(folder / f"annotations/train/{index:02}.png")
    with pytest.raises(UsageError, match=r"no class \(4\): .* and 1 more; 0 to 2"):
        opened(folder).train.survey(3)


def test_a_bad_label_is_refused_where_it_is_read_too(folder):
    Image.new("L", (8, 6), 37).save(folder / "annotations/train/00.png")
    Image.new("L", (6, 8)).save(folder / "annotations/train/01.png")
    train = opened(folder).train
    with pytest.raises(UsageError, match=r"00.png has value 37 \(48 pixels\)"):
        train.scene(0)
    with pytest.raises(UsageError, match=r"6x8 pixels and .* 8x6 \(turned by its EXIF\?"):
        train.scene(1)


def test_a_broken_image_or_label_is_one_that_training_replaces(folder):
    (folder / "images/train/00.png").write_bytes(b"")
    (folder / "annotations/train/01.png").write_bytes(b"")
    train = opened(folder).train
    for index in range(2):
        with pytest.raises(Unreadable):
            train.scene(index)
    assert train.sizes.tolist() == [[6, 8], [6, 8], [6, 8], [6, 8]]
    with pytest.raises(
        UsageError, match=r"labels that cannot be read \(1\): annotations/train/01.png"
    ):
        train.survey(3)


def test_an_image_is_turned_by_its_exif_if_asked(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 8)).save(folder / "images/train/00.png", exif=exif)
    assert opened(folder, exif_orientation=True).train.scene(0).image.shape == (6, 8, 3)
    with pytest.raises(UsageError, match="8x6 pixels"):
        opened(folder).train.scene(0)


def test_a_set_that_vanishes_gives_one_clear_error(folder):
    train = opened(folder).train
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(UsageError, match="can no longer be read: bring it back"):
        train.scene(0)
