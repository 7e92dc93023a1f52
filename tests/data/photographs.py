"""Photographs in miniature, in folders of classes."""

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "eel")


def write_photographs(folder, counts=(9, 6, 3), size=(40, 30), seed=0):
    """Writes ``folder/<class>/<number>.jpg``; each has a colour of its own."""
    rng = np.random.default_rng(seed)
    for name, count in zip(CLASSES, counts, strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            image = Image.new("RGB", size, tuple(rng.integers(0, 256, 3).tolist()))
            image.save(folder / name / f"{number:02}.jpg", quality=95)
    return folder
