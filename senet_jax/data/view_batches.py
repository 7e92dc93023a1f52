"""Batches of the views of images: every image of a split once, on any number of hosts."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags
from jaxtyping import Int, UInt8
from PIL import Image

from senet_jax.data.decode import Unreadable, decode
from senet_jax.data.sources import ArraySource
from senet_jax.data.views import Views

PADDING = -1
"""The index of a row that is no image. Image i that cannot be read has the index -2 - i."""


class EncodedSource(Protocol):
    """Images as the bytes of their files."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """The bytes of an image, and its label."""

    def name(self, index: int) -> str:
        """What the image is called."""


@dataclasses.dataclass(frozen=True)
class ViewBatch:
    """The views of some images; of a global batch, the rows of one host."""

    index: Int[np.ndarray, " n"]
    """Where each image stands in its split; or ``PADDING``, or -2 - i."""
    label: Int[np.ndarray, " n"]
    images: dict[Views, UInt8[np.ndarray, "n v s s c"]]
    errors: dict[int, str]
    """Of the images that could not be read, by where they stand, why."""


@dataclasses.dataclass(frozen=True)
class ViewBatches:
    """Every image of a split once, in order, the last batch padded; with random access.

    A global batch is divided evenly over the hosts, so that each host has as many batches.
    """

    source: ArraySource | EncodedSource
    views: tuple[Views, ...]
    batch_size: int
    """Images of a global batch; a multiple of the hosts."""
    channels: int = 3
    """1 turns encoded images to grey."""
    host: int = 0
    hosts: int = 1

    def __len__(self) -> int:
        """How many batches there are."""
        return -(-len(self.source) // self.batch_size)

    def __getitem__(self, step: int) -> dict[str, Any]:
        """Reads a batch; the images by their ``Views``, as plain values that can be pickled."""
        own = self.batch_size // self.hosts
        start = int(step) * self.batch_size + self.host * own
        index = np.arange(start, start + own, dtype=np.int32)
        index[index >= len(self.source)] = PADDING
        label = np.zeros(own, np.int32)
        shapes = [(own, len(v), v.size, v.size, self.channels) for v in self.views]
        images = [np.zeros(shape, np.uint8) for shape in shapes]
        errors: dict[int, str] = {}
        for row, place in enumerate(index.tolist()):
            if place == PADDING:
                continue
            try:
                image, label[row] = self._read(place)
            except Unreadable as error:
                index[row], errors[place] = -2 - place, str(error)
                continue
            for rows, view in zip(images, self.views, strict=True):
                rows[row] = view(image)
        return {"index": index, "label": label, "images": images, "errors": errors}

    def _read(self, index: int) -> tuple[UInt8[np.ndarray, "h w c"], int]:
        if isinstance(self.source, ArraySource):
            return self.source.images[index], int(self.source.labels[index])
        data, label = self.source[index]
        image = decode(data)
        if self.channels == 1:
            image = np.asarray(Image.fromarray(image).convert("L"))[..., None]
        return image, label

    def read(self, workers: int = 0) -> Iterator[ViewBatch]:
        """Yields the batches, prepared while others are used.

        Args:
            workers: Processes that decode; 0 decodes in threads.
        """
        batches = grain.MapDataset.source(self)
        if workers:
            # Grain reads flags of absl, which only an absl.app parses.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            alone = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
            processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
            ahead = batches.to_iter_dataset(alone).mp_prefetch(processes)
        else:
            threads = os.cpu_count() or 1
            options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
            ahead = batches.to_iter_dataset(options)
        for values in ahead:
            images = dict(zip(self.views, values.pop("images"), strict=True))
            yield ViewBatch(images=images, **values)
