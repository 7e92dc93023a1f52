"""Checkpoints through Orbax: written by a background thread, atomically, and verified when read.

On several hosts all of them call the same methods in the same order: each writes its share into one
folder, each reads what its devices need, and they decide together.
"""

import copy
import dataclasses
import datetime
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from senet_jax.config import CheckpointConfig
from senet_jax.errors import UsageError
from senet_jax.tasks.metrics import Metric
from senet_jax.training.checkpoints import retention
from senet_jax.training.checkpoints.folder import (
    CheckpointFolder,
    are_numbers,
    check_regular_files,
    reason,
)
from senet_jax.training.checkpoints.snapshot import Snapshot, fingerprint, take_snapshot
from senet_jax.training.distributed.hosts import barrier
from senet_jax.training.state import TrainState

LOGGER = logging.getLogger(__name__)

_DEFAULT = CheckpointConfig()


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint that was read and found intact."""

    step: int
    state: TrainState
    extra: dict[str, Any]
    """The values that the loop saved beside the state."""


class Checkpoints:
    """The checkpoints of a run, one folder a step.

    Args:
        folder: Their folder, a path or the address of a bucket; made when something is saved.
        config: Which are kept.
        metric: The one of the validation by which one is the best; None means that none is.
        about: The provenance that each carries, as plain values.
        on_saved: Called on the first host with the step of each checkpoint that is finished.

    Raises:
        UsageError: The folder cannot be read.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        config: CheckpointConfig = _DEFAULT,
        metric: Metric | None = None,
        about: Mapping[str, Any] | None = None,
        on_saved: Callable[[int], None] | None = None,
    ) -> None:
        self.folder = CheckpointFolder(folder)
        self._config, self._metric = config, metric
        self._about, self._on_saved = dict(about or {}), on_saved
        self._records = self._read_records()
        # Barriers of the coordination service, which are apart from the collectives of a step.
        everyone = ocp.options.MultiprocessingOptions(
            active_processes=set(range(jax.process_count())), barrier_sync_key_prefix="save"
        )
        # Reading by itself, no host waits for one that has met a damaged file.
        host = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=host, active_processes={host}, barrier_sync_key_prefix=f"read{host}"
        )
        self._writer = _checkpointer(everyone, self.folder)
        self._reader = _checkpointer(alone, self.folder)
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._saving: tuple[int, Future[None]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except UsageError as failed:
            # The error that ended the run is the one to report.
            if error is None:
                raise
            LOGGER.warning("%s", failed)

    def steps(self) -> list[int]:
        """Steps that have a finished checkpoint, in order."""
        return sorted(self._records)

    def best_step(self) -> int | None:
        """The step of the best by the metric, if one was saved with its validation."""
        return retention.best(list(self._records.values()), self._metric)

    def prepare(self) -> None:
        """Makes the folder and sees that it can be written, before hours are spent on a state.

        Raises:
            UsageError: It cannot, says the first host.
        """
        if jax.process_index() == 0:
            self.folder.prepare()
        barrier("checkpoints: prepared")
        # Another process may have saved, or deleted, until this one had the lock.
        self._records = self._read_records()

    def _read_records(self) -> dict[int, retention.Record]:
        return {step: self.folder.record(step) for step in self.folder.steps()}

    def save(self, state: TrainState, extra: dict[str, Any], metrics: Mapping[str, float]) -> None:
        """Starts to save a state; the state may be donated as soon as this returns.

        What blocks is a copy on the devices, and the save before if it has not ended.

        Args:
            state: The state; its ``step`` names the checkpoint.
            extra: Plain values to save beside it.
            metrics: ``epoch``, and the validation of this very state, if it was validated.

        Raises:
            NotFinite: The state holds a number that is not finite.
            UsageError: The save before has failed, and there is no such checkpoint.
        """
        self.wait()
        step = int(state.step)
        if step in self._records:
            return
        snapshot = take_snapshot(state)
        # A copy of these too: the loop goes on counting in them.
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        meta = {"metrics": dict(metrics), "extra": copy.deepcopy(extra), "saved": now}
        meta |= self._about
        self._saving = step, self._thread.submit(self._write, step, snapshot, meta)

    def _write(self, step: int, snapshot: Snapshot, meta: dict[str, Any]) -> None:
        meta["fingerprint"] = snapshot.fingerprint
        if jax.process_index() == 0:
            self.folder.path.mkdir(parents=True, exist_ok=True)
        self._writer.save(
            self.folder / step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(snapshot.state), meta=ocp.args.JsonSave(meta)
            ),
        )
        if self._on_saved is not None and jax.process_index() == 0:
            self._on_saved(step)
        self._records[step] = retention.Record(step, meta["metrics"])
        records = self._records.values()
        for old, why in retention.reasons(records, self._config, self._metric).items():
            if not why:
                if jax.process_index() == 0:
                    self.folder.remove(old)
                del self._records[old]

    def wait(self) -> None:
        """Returns when all that was saved is completely on disk.

        Raises:
            UsageError: It is not, because it could not be written.
        """
        if self._saving is None:
            return
        (step, saving), self._saving = self._saving, None
        try:
            saving.result()
        # Orbax and TensorStore raise errors without a common base for disks and buckets.
        except Exception as error:
            raise UsageError(
                f"the checkpoint of step {step} could not be saved in {self.folder}: "
                f"{reason(error)}; those before it are intact: make room or repair the folder, and "
                "the same command resumes."
            ) from error

    def close(self) -> None:
        """Waits, as ``wait``, and gives the thread back."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def restore(self, step: int, like: TrainState) -> Restored:
        """Reads one checkpoint, whatever the mesh and the number of hosts that it was saved on.

        Args:
            step: A step of ``steps()``.
            like: An abstract state (shapes, types and shardings) of the network that is expected.

        Raises:
            UsageError: It is damaged, or of another network; on all hosts, if on one.
        """
        return self._read(step, like)

    def verify(self, step: int) -> None:
        """Reads one checkpoint, of whatever network, on this host alone.

        Raises:
            UsageError: It is damaged.
        """
        self._read(step, None)

    def _read(self, step: int, like: TrainState | None) -> Restored:
        path = self.folder / step
        problem = None
        try:
            if not self.folder.remote:
                check_regular_files(path)
            read = self._reader.restore(
                path,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(self._as_saved(path) if like is None else like),
                    meta=ocp.args.JsonRestore(),
                ),
            )
            state, saved, extra = read.state, read.meta["fingerprint"], dict(read.meta["extra"])
            if not are_numbers(extra.get("meter", {})):
                raise ValueError("the sums of its metrics are no numbers")
        # Orbax and TensorStore raise errors without a common base for damaged files.
        except Exception as error:
            problem = error
        if not everywhere(problem is None):
            why = "another host cannot read it" if problem is None else reason(problem)
            raise UsageError(f"checkpoint {path} cannot be read: {why}.") from problem
        found: Any = fingerprint(state)
        if isinstance(saved, list):  # As it was before it had names.
            saved, found = sorted(saved), sorted(found.values())
        if not everywhere(found == saved):
            raise UsageError(
                f"checkpoint {path} is damaged: its numbers are not those that were saved."
            )
        return Restored(step, state, extra)

    def _as_saved(self, path: epath.Path) -> Any:
        """An abstract tree of what a checkpoint holds, on one device."""
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
            self._reader.metadata(path).item_metadata["state"].tree,
        )

    def restore_newest(self, like: TrainState) -> Restored | None:
        """Reads the newest intact checkpoint, or returns None if there is none at all.

        Damaged ones are moved to ``<folder>-damaged`` and named in the log.

        Raises:
            UsageError: There are checkpoints, and not one can be read.
        """
        # A network file system may show the hosts different folders.
        steps = _as_first_host(self.steps())
        damaged: list[int] = []
        for step in reversed(steps):
            try:
                restored = self.restore(step, like)
            except UsageError as error:
                damaged.append(step)
                LOGGER.warning("%s", error)
                continue
            for bad in damaged:
                if jax.process_index() == 0:
                    self.folder.set_aside(bad)
                self._records.pop(bad, None)
                LOGGER.warning("falling back to the checkpoint of step %d", step)
            barrier("checkpoints: set aside")
            return restored
        if steps:
            raise UsageError(
                f"none of the {len(steps)} checkpoints in {self.folder} can be read: move the "
                "folder away to start afresh."
            )
        return None


def _checkpointer(
    hosts: ocp.options.MultiprocessingOptions, folder: CheckpointFolder
) -> ocp.Checkpointer:
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(
            multiprocessing_options=hosts,
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            atomicity_options=folder.atomicity,
        ),
        state=ocp.StandardCheckpointHandler(multiprocessing_options=hosts),
        meta=ocp.JsonCheckpointHandler(multiprocessing_options=hosts),
    )
    return ocp.Checkpointer(
        handler, multiprocessing_options=hosts, atomicity_options=folder.atomicity
    )


def everywhere(holds: bool) -> bool:
    """Tells whether something holds on all hosts, all of which call this function."""
    if jax.process_count() == 1:
        return holds
    return bool(np.all(multihost_utils.process_allgather(np.asarray(holds))))


def _as_first_host(steps: list[int]) -> list[int]:
    """The steps that the first host has."""
    if jax.process_count() == 1:
        return steps
    count = int(multihost_utils.broadcast_one_to_all(np.int32(len(steps))))
    padded = np.resize(np.asarray([*steps, 0], np.int32), count)
    return [int(step) for step in multihost_utils.broadcast_one_to_all(padded)]
