"""PASCAL VOC 2012, alone and with the Semantic Boundaries Dataset (SBD), and PASCAL Context."""

from collections.abc import Mapping
from pathlib import Path

from senet_jax.data.image_search import is_folder
from senet_jax.data.label_files import LabelMap
from senet_jax.data.scene_files import Pair
from senet_jax.data.scene_folders import (
    by_key,
    choose_split,
    find_root,
    listed_pairs,
    read_list,
    stem,
)
from senet_jax.data.scene_names import CONTEXT, VOC, voc_colors
from senet_jax.data.scene_opening import SceneOptions, files_dataset, set_root
from senet_jax.data.scenes import SceneDataset
from senet_jax.errors import UsageError
from senet_jax.text import printable


def voc(options: SceneOptions, augmented: bool = False) -> SceneDataset:
    """``VOCdevkit/VOC2012``, by the lists in ``ImageSets/Segmentation``; 255 is ignored."""
    name = "voc2012_aug" if augmented else "voc2012"
    places = ("", "VOC2012", "VOCdevkit/VOC2012")
    root = set_root(options, places, "SegmentationClass", name)
    lists = root / "ImageSets" / "Segmentation"
    images = by_key(root, "JPEGImages", stem)
    labels = by_key(root, "SegmentationClass", stem)

    def split(which: str) -> list[str]:
        return read_list(lists / f"{which}.txt", "the images of a split")

    val = split(choose_split(options.val_split, "val", ("train", "val")))
    to = "SegmentationClass"
    train = listed_pairs(root, split("train"), images, labels, to)
    folder = root
    if augmented:
        folder, train = _sbd(options, root, split("train"), split("val"), images, labels)
    held_out = listed_pairs(root, val, images, labels, to)
    if folder != root:
        above = root.relative_to(folder).as_posix()
        held_out = tuple(Pair(*(f"{above}/{path}" for path in pair)) for pair in held_out)
    palette = voc_colors(len(VOC))
    numbers = LabelMap.counting(len(VOC), 255)
    return files_dataset(name, folder, (train, held_out), list(VOC), numbers, options, palette)


def _sbd(
    options: SceneOptions,
    root: Path,
    train: list[str],
    val: list[str],
    images: Mapping[str, str],
    labels: Mapping[str, str],
) -> tuple[Path, tuple[Pair, ...]]:
    """VOC's training images and those of SBD that are not in its validation: 10,582.

    VOC's own labels are taken for its images. The others are in ``SegmentationClassAug`` of VOC's
    folder, or in ``cls`` of ``benchmark_RELEASE/dataset`` (or ``sbd``) beside it.

    Returns:
        The folder that all paths start from, and the pairs, sorted by name.
    """
    held_out = set(val)
    if is_folder(root / "SegmentationClassAug"):
        more = by_key(root, "SegmentationClassAug", stem)
        names = sorted({*train, *more} - held_out)
        all_labels = {**more, **{name: labels[name] for name in train if name in labels}}
        return root, listed_pairs(root, names, images, all_labels, "SegmentationClassAug")
    assert options.directory is not None
    directory = options.directory
    sbd = find_root(
        directory,
        ("", "sbd", "benchmark_RELEASE/dataset", "VOCdevkit/benchmark_RELEASE/dataset"),
        "cls",
        "SBD beside PASCAL VOC (nor SegmentationClassAug in it)",
    )
    names = [
        name
        for split in ("train", "val")
        for name in read_list(sbd / f"{split}.txt", "the images of a split")
    ]
    below, voc = (path.relative_to(directory).as_posix() for path in (sbd, root))
    all_images = {name: f"{voc}/{path}" for name, path in images.items()}
    all_labels = {
        name: f"{below}/cls/{name}.mat" for name in names if (sbd / "cls" / f"{name}.mat").exists()
    } | {name: f"{voc}/{labels[name]}" for name in train if name in labels}
    wanted = sorted({*train, *names} - held_out)
    return directory, listed_pairs(directory, wanted, all_images, all_labels, f"{below}/cls")


def pascal_context(options: SceneOptions) -> SceneDataset:
    """PASCAL Context's 59 classes on the images of VOC 2010; 0, the background, is ignored.

    The labels are ``SegmentationClassContext``, whose classes are in alphabetical order, or the
    authors' ``59_context_labels`` with the names in ``59_labels.txt``.
    """
    places = ("", "VOC2010", "VOCdevkit/VOC2010")
    root = set_root(options, places, "JPEGImages", "pascal_context")
    if is_folder(root / "SegmentationClassContext"):
        folder, names = "SegmentationClassContext", list(CONTEXT)
    elif is_folder(root / "59_context_labels"):
        folder, names = "59_context_labels", _context_names(root / "59_labels.txt")
    else:
        raise UsageError(
            f"{printable(str(root))} has neither SegmentationClassContext nor 59_context_labels: "
            "put the labels of PASCAL Context there."
        )
    images, labels = by_key(root, "JPEGImages", stem), by_key(root, folder, stem)
    val = choose_split(options.val_split, "val", ("train", "val"))
    lists = root / "ImageSets" / "SegmentationContext"
    pairs = [
        listed_pairs(
            root, read_list(lists / f"{split}.txt", "the images of a split"), images, labels, folder
        )
        for split in ("train", val)
    ]
    numbers = LabelMap.counting(len(names), 0)
    palette = voc_colors(len(names) + 1)[1:]
    return files_dataset("pascal_context", root, pairs, names, numbers, options, palette)


def _context_names(file: Path) -> list[str]:
    """The names of "1: aeroplane" and so on, in the order of their numbers."""
    names = {}
    for line in read_list(file, "the classes of PASCAL Context"):
        number, _, name = line.partition(":")
        if number.strip().isdigit() and name.strip():
            names[int(number)] = name.strip()
    if sorted(names) != list(range(1, 60)):
        raise UsageError(f"{printable(str(file))} does not name the classes 1 to 59, one a line.")
    return [names[number] for number in sorted(names)]
