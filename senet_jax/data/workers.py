"""Reading ahead: in threads of this process, or in processes of their own."""

import copy
import gc
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Protocol

import grain
from absl import flags

from senet_jax.errors import UsageError

SHARED_MEMORY = Path("/dev/shm")
"""Through which processes hand batches over, on Linux."""


class Batches(Protocol):
    """Batches with random access, which can be pickled, to be read ahead."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int) -> Any: ...


def prefetch(
    batches: Batches,
    start: int,
    *,
    threads: int,
    buffer: int,
    workers: int = 0,
    batch_bytes: int = 0,
) -> Iterator[Any]:
    """Yields ``batches[start]``, ``batches[start + 1]``, ..., whoever prepares them.

    A worker prepares every ``workers``-th batch; what a batch is does not depend on who made it.

    Args:
        batches: The batches; the processes get a copy.
        start: The first.
        threads: Threads, where there are no worker processes.
        buffer: Batches that the threads keep ready.
        workers: Processes; 0 means threads.
        batch_bytes: Size of a batch.

    Raises:
        UsageError: There is too little shared memory, a worker died, or preparing a batch raised
            it.
    """
    if workers:
        _check_shared_memory(batch_bytes, workers)
    try:
        yield from _prefetch(batches, start, threads, buffer, workers)
    finally:
        if workers:
            # Cycles in Grain's iterator hold batches and the workers' semaphores, of which Python
            # would warn at its end.
            gc.collect()


def _prefetch(
    batches: Batches, start: int, threads: int, buffer: int, workers: int
) -> Iterator[Any]:
    rest = grain.MapDataset.source(batches).slice(slice(start, len(batches)))
    if workers:
        if not flags.FLAGS.is_parsed():
            # Grain reads flags of absl, which only an absl.app parses.
            flags.FLAGS.mark_as_parsed()
        alone = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
        ahead = rest.to_iter_dataset(alone).mp_prefetch(processes, worker_init_fn=_start_worker)
    else:
        ahead = rest.to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer)
        )
    iterator = iter(ahead)
    try:
        own = _without_interrupts(iterator) if workers else iterator
        for step, batch in enumerate(own, start):
            # Out of the shared memory, since these may be held until the process ends.
            yield copy.deepcopy(batch) if workers and step >= len(batches) - 2 else batch
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):
            raise
        raise UsageError(
            f"a process that prepares batches died ({error}): most often memory ran out; lower "
            "the number of workers or the size of the batches."
        ) from error
    finally:
        iterator.close()


def _without_interrupts(iterator: Iterator[Any]) -> Iterator[Any]:
    """Takes batches so that the processes that start meanwhile are not interrupted by Ctrl-C.

    They inherit the signals that are blocked. Before they come to ``_start_worker`` they import for
    seconds, in which an interrupt would end them with a traceback.
    """
    # Its start unblocks SIGINT, which was not blocked for the standard library.
    resource_tracker.ensure_running()
    end = object()
    while True:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            batch = next(iterator, end)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if batch is end:
            return
        yield batch


def _start_worker(index: int, count: int) -> None:
    """Makes a worker end with its parent, and only with it."""
    # An interrupt of the terminal goes to all processes; the parent then takes the last batches.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _check_shared_memory(batch_bytes: int, workers: int) -> None:
    """Checks the shared memory, the lack of which would end in a bus error.

    Raises:
        UsageError: The batches that are under way at once do not fit into the shared memory.
    """
    if not SHARED_MEMORY.is_dir():
        return
    # Each worker holds one that is ready and one that it makes; the devices hold a few.
    needed, free = (2 * workers + 3) * batch_bytes, shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise UsageError(
            f"{workers} workers need {needed / 2**20:,.0f} MiB of shared memory and "
            f"{SHARED_MEMORY} has {free / 2**20:,.0f}: make it larger (`docker run --shm-size`), "
            "or lower the number of workers or the size of the batches."
        )
