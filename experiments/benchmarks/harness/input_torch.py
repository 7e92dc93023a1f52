"""Photographs through Pillow in a PyTorch DataLoader, on request: a peer of ``input.py``.

Run under a Python that has torch and Pillow. Its arguments are a folder of photographs, the side
of the images, the size of a batch and the number of worker processes. Each line on its standard
input is answered with the CPU seconds of one pass over the photographs, workers included.
"""

import json
import math
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


class Photographs(torch.utils.data.Dataset):
    """Decode, random resized crop and flip, as torchvision does them to Pillow images."""

    def __init__(self, folder: str, size: int) -> None:
        self.files = sorted(str(file) for file in Path(folder).glob("*/*"))
        self.size = size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as encoded:
            image: Any = encoded.convert("RGB")
        left, top, width, height = self._box(*image.size)
        image = image.crop((left, top, left + width, top + height))
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image))

    def _box(self, width: int, height: int) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = width * height * random.uniform(0.08, 1)
            ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return random.randint(0, width - w), random.randint(0, height - h), w, h
        side = min(width, height)
        return (width - side) // 2, (height - side) // 2, side, side


def cpu_seconds() -> float:
    """CPU time of this process and of its children that live."""
    ticks = 0
    own = str(os.getpid())
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if own in (stat.parent.name, fields[1]):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Answers requests until there are no more."""
    folder, size, batch, workers = sys.argv[1], *map(int, sys.argv[2:5])
    torch.set_num_threads(1)
    loader: Any = torch.utils.data.DataLoader(
        Photographs(folder, size),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    for _ in loader:
        pass
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for _ in sys.stdin:
        began = cpu_seconds()
        for _ in loader:
            pass
        print(json.dumps(cpu_seconds() - began), flush=True)


if __name__ == "__main__":
    main()
