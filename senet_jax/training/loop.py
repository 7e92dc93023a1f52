"""The loop: train, evaluate, save, and take up again exactly where it stopped."""

import dataclasses
import functools
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import jax
import numpy as np

from senet_jax.config import TrainConfig
from senet_jax.data.card import Card
from senet_jax.tasks import best_metric
from senet_jax.tasks.base import Arrays
from senet_jax.training.checkpoints.folder import checkpoints_of
from senet_jax.training.checkpoints.manager import Checkpoints, everywhere
from senet_jax.training.checkpoints.snapshot import NotFinite
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.distributed.hosts import barrier, is_first
from senet_jax.training.due import Due
from senet_jax.training.machine.flops import Utilization
from senet_jax.training.machine.hardware import hardware
from senet_jax.training.optimizer import check_schedule
from senet_jax.training.records.goodput import Account, SessionLog
from senet_jax.training.records.metrics import (
    Line,
    Meter,
    MetricsLog,
    reached,
    read_last_metrics,
    read_metrics,
)
from senet_jax.training.records.owner import check_checkpoints, locked_run, note_owner
from senet_jax.training.records.profiler import Profiler, ProfileRequest
from senet_jax.training.records.progress import Clock, Event, Forecast, ProgressBar
from senet_jax.training.records.provenance import provenance
from senet_jax.training.records.run_dir import check_data, check_run_dir, claim_run_dir, note_saved
from senet_jax.training.run import Run
from senet_jax.training.state import TrainState
from senet_jax.training.step import Metrics

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""At these a run saves its state and ends. The last is what SLURM sends if asked, some time before
the end of a job (``--signal=USR1@120``)."""


class Preempted(Exception):
    """The run was asked to stop, saved its state, and can be started again."""


class Diverged(Exception):
    """A number that must be finite is not; the message says at which step and what to try."""


def train(
    config: TrainConfig,
    *,
    age_s: float = 0.0,
    profile: ProfileRequest | None = None,
    run: Run | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Line:
    """Trains to the end, from the newest checkpoint of the run's folder if it has one.

    Args:
        config: The experiment.
        age_s: Seconds that this start of the run has taken already, for the account of its time.
        profile: The steps to trace; None means none.
        run: The run of this config, if it is set up already.
        on_step: Is called with the number of steps done whenever one has been dispatched; the
            devices may still compute it.

    Returns:
        The last line of metrics, with the final validation; empty on hosts other than the first.

    Raises:
        UsageError: The config cannot be run, or the folder holds another run; nothing was written.
        Preempted: A signal came, on whichever host; the state is saved.
        Diverged: The loss, the gradient or the state is not finite; the last good checkpoint is
            there.
    """
    account = Account(age_s)
    config.validate()
    config = config.absolute()
    check_run_dir(config)
    check_checkpoints(config)
    run = run or Run(config)
    card = Card.of(run.dataset)
    check_data(config.run_dir, card)
    run.check_trainable()
    profile = profile or ProfileRequest()
    profile.check(run.batches.steps)
    meshes.check_batch_size(config.data.batch_size, run.mesh, config.accumulate)
    check_schedule(config.optimizer, run.batches.steps_per_epoch, config.epochs)
    print("\n".join([run.describe(), *run.task.notes(run.dataset, run.model)]), flush=True)
    checkpoints = Checkpoints(
        checkpoints_of(config.run_dir, config),
        config.checkpoint,
        best_metric(config),
        provenance(config, run.mesh),
        functools.partial(note_saved, config.run_dir),
    )
    if not checkpoints.steps():
        _ = run.init_variables  # Errors in the file are found before anything is written.
    if run.batches.steps not in checkpoints.steps():
        run.trace()
    # A host that cannot begin, because it lacks the data, has failed by now; the first one writes.
    barrier("all hosts can begin")
    with checkpoints, locked_run(config):
        if is_first():
            # Another process may have trained here while this one waited for the lock.
            check_run_dir(config)
            check_checkpoints(config)
        checkpoints.prepare()
        claim_run_dir(config, card)
        note_owner(config)
        restored = checkpoints.restore_newest(run.abstract)
        if restored:
            ended = restored.step >= run.batches.steps
            done = "the run has ended, with" if ended else "resuming after"
            print(f"{done} step {restored.step:,} of {run.batches.steps:,}", flush=True)
            position = LoopState(restored.state, restored.step, Meter(restored.extra["meter"]))
        else:
            position = LoopState(run.fresh_state(), 0, Meter())
        if position.step == run.batches.steps:
            return _last_line(run, position)
        log = MetricsLog(config.run_dir, position.step) if is_first() else None
        sessions = SessionLog(config.run_dir, account, position.step, hardware(run.mesh))
        try:
            with _stop_signals() as stop, Profiler(config.run_dir, profile) as profiler:
                hooks = () if on_step is None else (on_step,)
                _Loop(run, position, checkpoints, log, sessions, profiler, hooks).steps(stop)
            with account.during("checkpoint"):
                checkpoints.wait()
            sessions.write(position.step)
        finally:
            if log:
                log.close()
    return read_last_metrics(config.run_dir) if is_first() else {}


def _last_line(run: Run, position: "LoopState") -> Line:
    """The last line of metrics of a run that has ended; validates again if the line is gone."""
    ended = not is_first() or reached(read_metrics(run.config.run_dir), run.config.epochs)
    if not everywhere(ended):
        validation = run.evaluate(position.state.eval_variables)
        if is_first():
            log = MetricsLog(run.config.run_dir, position.step - 1)
            log.write({"step": position.step, "epoch": float(run.config.epochs), **validation})
            log.close()
    return read_last_metrics(run.config.run_dir) if is_first() else {}


@dataclasses.dataclass
class LoopState:
    """The position of a run."""

    state: TrainState
    step: int
    """Steps done."""
    meter: Meter
    """Sums of the training metrics since the last line."""
    pending: Metrics | None = None
    """Metrics of the newest step, not read yet, so that the device need not wait for the host."""
    newest: dict[str, float] = dataclasses.field(default_factory=dict)
    """The metrics that were read last."""
    stopping: bool = False
    """A host wanted to stop when the step began whose metrics were read last."""

    def settle(self, config: TrainConfig) -> None:
        """Waits for the newest step and takes its metrics in.

        Raises:
            Diverged: They are not finite.
        """
        if self.pending is None:
            return
        values = {name: float(value) for name, value in self.pending.items()}
        self.pending = None
        self.stopping = values.pop("stop", 0.0) > 0
        for name, value in values.items():
            if not math.isfinite(value):
                raise _diverged(name, self.step, config)
        self.meter.add(values)
        self.newest = values


@dataclasses.dataclass
class _Loop:
    """The steps of a run, and what is due after them."""

    run: Run
    position: LoopState
    checkpoints: Checkpoints
    log: MetricsLog | None
    sessions: SessionLog
    profiler: Profiler
    hooks: Sequence[Callable[[int], None]]
    """Called with the number of steps done, after each is dispatched."""

    def __post_init__(self) -> None:
        run = self.run
        self.clock = Clock(self.sessions.account)
        self.forecast = _forecast(run)
        others = run.programs.other_inputs
        self.utilization = Utilization(run.model, run.config.model.dtype, run.mesh, others)

    def steps(self, stop: list[int]) -> None:
        """Trains to the end, or until ``stop`` has a signal; errors as ``train``."""
        run, position, config = self.run, self.position, self.run.config
        per_epoch, several = run.batches.steps_per_epoch, jax.distributed.is_initialized()
        with ProgressBar(
            run.batches.steps, position.step, config.epochs, run.task, self._status
        ) as bar:
            hooks = (bar.advance, *self.hooks)
            for batch in self.clock.reading(run.device_batches(position.step, stop)):
                if self.log and self.clock.compiling:
                    self.log.images(position.step + 1, _first_images(batch))
                with self.profiler.step(position.step + 1):
                    state, metrics = run.train_step(position.state, batch)
                position.settle(config)
                self.sessions.beat(position.step)
                position.state, position.pending, position.step = state, metrics, position.step + 1
                self.clock.tick(state)
                step = position.step
                for hook in hooks:
                    hook(step)

                # Several hosts must stop after the same step, so they go by what they all read.
                stopping = position.stopping if several else bool(stop)
                due = Due.after(step, config, per_epoch, stopping=stopping)
                begins = self.profiler.begins(step, size_changes=due.epoch_end)
                ends = self.profiler.ends(step, interrupted=due.save or due.epoch_end)
                if not (due.write or due.save or begins or ends):
                    continue

                position.settle(config)
                self.clock.pause()
                if ends:
                    self.profiler.stop(step)
                line = self._line(batch) if due.write else {}
                validation = self._validate() if due.validate else {}
                if due.write:
                    bar.say(self._write(line | validation))
                if due.save:
                    self._save({"epoch": step / per_epoch, **validation})
                if due.preempted:
                    self._preempt()
                if begins:
                    self.profiler.start(step + 1)
                self.clock.resume()

    @contextmanager
    def _event(self, kind: Event) -> Iterator[None]:
        """Tells the account and the forecast what happens in the context, and how long it took."""
        began = time.perf_counter()
        with self.sessions.account.during(kind):
            yield
        self.forecast.took(kind, time.perf_counter() - began)

    def _status(self) -> Line:
        """The keys of a line of metrics as they stand."""
        now: Line = {f"train/{name}": value for name, value in self.position.newest.items()}
        if step_s := self.clock.recent_step_s:
            now["time/images_per_s"] = self.run.config.data.batch_size / step_s
            now["time/step_s"] = step_s
            now["time/left_s"] = self.forecast.left(self.position.step, step_s)
        return now

    def _line(self, batch: Arrays) -> Line:
        """The metrics of the steps since the last line."""
        run, step = self.run, self.position.step
        line: Line = {"step": step, "epoch": step / run.batches.steps_per_epoch}
        line |= self.position.meter.means()
        line["train/learning_rate"] = run.learning_rate(self.position.state)
        line |= self.clock.lap(run.config.data.batch_size)
        if "time/images_per_s" in line:
            share = self.utilization.of(batch["image"].shape[1:], line["time/images_per_s"])
            line |= {} if share is None else {"time/mfu": share}
        return line

    def _validate(self) -> Line:
        """Validates, and tells the schedule; returns the metrics and the seconds."""
        position, watched = self.position, self.run.task.watched
        with self._event("evaluation"):
            found = self.run.evaluate(position.state.eval_variables)
        value = found[f"val/{watched}"]
        if not math.isfinite(value):
            raise _diverged(f"validation {watched}", position.step, self.run.config)
        position.state = self.run.on_validation(position.state, value)
        return {**found, "time/validation_s": self.forecast.last("evaluation")}

    def _write(self, line: Line) -> Line:
        """Writes a line of metrics with what it cost so far and still costs; returns it."""
        step = self.position.step
        if step_s := self.clock.recent_step_s:
            line["time/left_s"] = self.forecast.left(step, step_s)
        line |= self.sessions.line(step)
        self.sessions.write(step)
        if self.log:
            self.log.write(line)
        return line

    def _save(self, measured: Line) -> None:
        """Saves a checkpoint with the metrics of its state."""
        position = self.position
        metrics = {key: value for key, value in measured.items() if not key.startswith("time/")}
        try:
            with self._event("checkpoint"):
                self.checkpoints.save(position.state, {"meter": position.meter.sums}, metrics)
        except NotFinite:
            raise _diverged("state", position.step, self.run.config) from None

    def _preempt(self) -> None:
        """Ends the run once its state is on disk."""
        step = self.position.step
        with self.sessions.account.during("checkpoint"):
            self.checkpoints.wait()
        self.sessions.write(step)
        raise Preempted(
            f"stopped by a signal after step {step:,}; the state is saved, and the same command "
            "resumes."
        )


def _first_images(batch: Arrays) -> np.ndarray:
    """The images of the first device of this host."""
    return np.asarray(batch["image"].addressable_data(0))


def _forecast(run: Run) -> Forecast:
    config = run.config
    sizes = [form.arrays["image"].shape[0] for form in run.batches.examples]
    if run.batches.groups is not None:
        # Batches of all sizes are in each epoch.
        sizes = sizes[:1]
    by_epoch = [sizes[epoch * len(sizes) // config.epochs] for epoch in range(config.epochs)]
    return Forecast(config, run.batches.steps_per_epoch, sum(map(len, run.val)), by_epoch)


def _diverged(what: str, step: int, config: TrainConfig) -> Diverged:
    return Diverged(
        f"the {what} is not finite at step {step:,}: try a lower --optimizer.learning-rate than "
        f"{config.optimizer.learning_rate:g}, a longer --optimizer.warmup-epochs or "
        "--optimizer.clip-norm 1; the last good checkpoint is kept."
    )


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collects the signals to stop in a list instead of dying of them; a second one kills."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
