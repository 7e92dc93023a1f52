"""Small folders of scenes for tests."""

import numpy as np
from PIL import Image


def write_scene(root, image, label, size=(6, 8), values=(0, 1, 2), seed=0, mode="L"):
    """Writes an image of noise and a label of some of the values; returns both."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (*size, 3), np.uint8)
    numbers = rng.choice(np.array(values, np.uint8), size)
    for path, array in ((image, pixels), (label, numbers)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(array)
        if path == label and mode == "P":
            picture = Image.frombytes("P", size[::-1], array.tobytes())
            picture.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
        picture.save(root / path)
    return pixels, numbers


def write_masks(root, train=4, val=3, sizes=((6, 8),), classes=("sky", "road", "car")):
    """Writes a general folder of scenes in subfolders; returns the labels by split."""
    (root / "classes.txt").write_text("\n".join(classes) + "\n")
    labels = {}
    for split, count in (("train", train), ("val", val)):
        labels[split] = [
            write_scene(
                root,
                f"images/{split}/{index:02}.png",
                f"annotations/{split}/{index:02}.png",
                size=sizes[index % len(sizes)],
                values=(*range(len(classes)), 255),
                seed=100 * (split == "val") + index,
            )
            for index in range(count)
        ]
    return labels
