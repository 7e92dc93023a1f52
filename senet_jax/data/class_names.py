"""Names of classes that a person can read.

ImageNet's synsets and their words come with TensorFlow Datasets (Apache-2.0).
"""

from importlib import resources

from tensorflow_datasets.datasets.siscore.labels import IMAGENET_LABELS_LIST

from senet_jax.data.look_alikes import look_alike, spelled
from senet_jax.errors import UsageError, choose
from senet_jax.text import printable

IMAGENET_SYNSETS = tuple(
    (resources.files("tensorflow_datasets") / "datasets/imagenet2012/labels.txt")
    .read_text()
    .split()
)
"""In the order of their labels."""

_WORDS = dict(zip(IMAGENET_SYNSETS, IMAGENET_LABELS_LIST, strict=True))


def readable(classes: list[str]) -> list[str]:
    """Names for a person: ImageNet's synsets in words, other classes as they are called."""
    return [_WORDS.get(name, name) for name in classes]


def find_label(name: str, classes: list[str]) -> int:
    """The label of a class that a person names.

    Args:
        name: The class as the data set or as ``readable`` calls it, or one of the words that
            ``readable`` has for it between commas.
        classes: The names of the classes, in the order of their labels.

    Raises:
        UsageError: No class is called so, or several are.
    """
    whole: dict[str, list[int]] = {}
    parts: dict[str, list[int]] = {}
    for label, (own, shown) in enumerate(zip(classes, readable(classes), strict=True)):
        for one in {own, shown}:
            whole.setdefault(one, []).append(label)
        for one in shown.split(", "):
            parts.setdefault(one, []).append(label)
    known = {*parts, *whole}
    if name not in known and (alike := look_alike(name, sorted(known))):
        raise UsageError(
            f"unknown class {printable(name)}: there is one that looks the same and is composed "
            f"otherwise in Unicode ({spelled([name, alike])})."
        )
    labels = whole.get(name) or parts[choose("class", name, known)]
    if len(labels) > 1:
        own = " or ".join(classes[label] for label in labels)
        raise UsageError(f"several classes are called {name}: give {own}.")
    return labels[0]
