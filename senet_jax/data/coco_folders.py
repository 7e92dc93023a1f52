"""Folders in COCO's format: which JSON files are the splits, and where the images lie."""

from collections.abc import Iterable
from pathlib import Path

from senet_jax.data.coco_index import CocoIndex
from senet_jax.data.image_search import is_folder
from senet_jax.errors import UsageError
from senet_jax.text import printable

TRAIN = ("train",)
HELD_OUT = ("val", "valid", "validation", "test")
"""Names of the splits, the first of which that is there is taken."""

LAYOUTS = (
    "annotations/instances_{}.json",
    "annotations/instances_{}[0-9]*.json",
    "annotations/{}.json",
    "instances_{}.json",
    "instances_{}[0-9]*.json",
    "{}.json",
    "{}/_annotations.coco.json",
)
"""Places of the file of a split, the first of which that is there is taken."""


def find_annotations(root: Path, names: Iterable[str]) -> Path:
    """The file of annotations of a split.

    Args:
        root: The folder of the set.
        names: Names of the split, such as "val" or "val2017"; the first that has a file is taken.

    Raises:
        UsageError: There is none, or there are several.
    """
    if not is_folder(root):
        raise UsageError(f"there is no folder {printable(str(root))}.")
    names = list(names)
    for name in names:
        for layout in LAYOUTS:
            found = sorted(root.glob(layout.format(_literal(name))))
            if len(found) > 1:
                files = " and ".join(printable(str(path.relative_to(root))) for path in found)
                raise UsageError(
                    f"{printable(str(root))} has several files for the split {name}, {files}: name "
                    "the held-out one by its year, such as --data.val-split val2017, and keep one "
                    "for training."
                )
            if found:
                return found[0]
    tried = ", ".join(layout.format(names[0]).replace("[0-9]*", "2017") for layout in LAYOUTS)
    raise UsageError(
        f"{printable(str(root))} has no annotations of the split {' or '.join(names)}: a set in "
        f"COCO's format has one of {tried}."
    )


def _literal(name: str) -> str:
    """A name for a pattern, in which it stands for itself."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def find_images(root: Path, annotations: Path, index: CocoIndex) -> Path:
    """The folder from which the names of a file of annotations lead to its images.

    Args:
        root: The folder of the set.
        annotations: The file.
        index: Its index.

    Raises:
        UsageError: Images are missing, or the file names none.
    """
    if not len(index):
        raise UsageError(f"{printable(str(annotations))} names no image.")
    split = annotations.stem.removeprefix("instances_")
    if annotations.stem == "_annotations.coco":
        split = annotations.parent.name
    bare = split.rstrip("0123456789")
    names = dict.fromkeys((split, bare))
    places = [*names, *(f"images/{name}" for name in names), *(f"{name}/images" for name in names)]
    first = str(index.arrays.file_names[0])
    folders = [root / place for place in (*places, "images", "")]
    chosen = next((folder for folder in folders if (folder / first).is_file()), None)
    if chosen is None:
        chosen = next((folder for folder in folders if is_folder(folder)), root)
    index.check_files(chosen)
    return chosen
