"""Names of classes that a person can read.

ImageNet's synsets and their words come with TensorFlow Datasets (Apache-2.0).
"""

from importlib import resources

from tensorflow_datasets.datasets.siscore.labels import IMAGENET_LABELS_LIST

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
