"""Batches of the views of images: every image of a split once, on any number of hosts."""

import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int, UInt8

from senet_jax.data.decode import Unreadable, decode
from senet_jax.data.loader import Host
from senet_jax.data.sources import ArraySource
from senet_jax.data.views import Views
from senet_jax.data.workers import prefetch

PADDING = -1
"""The index of a row that is no image. Image i that cannot be read has the index -2 - i."""


class Images(Protocol):
    """Encoded images and their labels, as ``EncodedSource`` has them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[bytes, int]: ...

    def name(self, index: int) -> str: ...


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

    source: ArraySource | Images
    views: tuple[Views, ...]
    batch_size: int
    """Images of a global batch; a multiple of the hosts."""
    channels: int = 3
    """1 turns encoded images to grey."""
    host: Host = dataclasses.field(default_factory=Host)

    def __len__(self) -> int:
        """How many batches there are."""
        return -(-len(self.source) // self.batch_size)

    def __getitem__(self, step: int) -> dict[str, Any]:
        """Reads a batch; the images by their ``Views``, as plain values that can be pickled."""
        index = int(step) * self.batch_size + np.array(self.host.rows(self.batch_size), np.int32)
        own = len(index)
        index[index >= len(self.source)] = PADDING
        label = np.zeros(own, np.int32)
        shapes = [(own, len(v), v.size, v.size, self.channels) for v in self.views]
        images = [np.zeros(shape, np.uint8) for shape in shapes]
        errors: dict[int, str] = {}
        for row, place in enumerate(index.tolist()):
            if place == PADDING:
                continue
            try:
                shown, label[row] = self._read(place)
            except Unreadable as error:
                index[row], errors[place] = -2 - place, str(error)
                continue
            for rows, view in zip(images, self.views, strict=True):
                rows[row] = view(shown[view.exif_orientation])
        return {"index": index, "label": label, "images": images, "errors": errors}

    def _read(self, index: int) -> tuple[dict[bool, UInt8[np.ndarray, "h w c"]], int]:
        """Returns an image, turned by EXIF or not as the views want it, and its label."""
        turns = {view.exif_orientation for view in self.views}
        if isinstance(self.source, ArraySource):
            if index in self.source.broken:
                raise Unreadable(self.source.broken[index])
            image = self.source.images[index]
            return dict.fromkeys(turns, image), int(self.source.labels[index])
        data, label = self.source[index]
        return {turn: decode(data, turn, self.channels) for turn in turns}, label

    def read(self, workers: int = 0) -> Iterator[ViewBatch]:
        """Yields the batches, prepared while others are used.

        Args:
            workers: Processes that decode; 0 decodes in threads.
        """
        threads = os.cpu_count() or 1
        rows = [math.prod((len(v), v.size, v.size, self.channels)) for v in self.views]
        for values in prefetch(
            self,
            0,
            threads=threads,
            buffer=threads,
            workers=workers,
            batch_bytes=len(self.host.rows(self.batch_size)) * sum(rows),
        ):
            images = dict(zip(self.views, values.pop("images"), strict=True))
            yield ViewBatch(images=images, **values)
