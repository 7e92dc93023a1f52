"""The loop: train, evaluate, save, and take up again exactly where it stopped."""

import dataclasses
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax

from senet_jax.data.card import Card
from senet_jax.training import mesh as meshes
from senet_jax.training.checkpoint import Checkpoints, NotFinite
from senet_jax.training.config import TrainConfig
from senet_jax.training.logging import Line, Meter, MetricsLog, ProgressBar, read_metrics
from senet_jax.training.run import Run
from senet_jax.training.run_dir import check_run_dir, claim_run_dir
from senet_jax.training.state import TrainState
from senet_jax.training.step import Metrics


class Preempted(Exception):
    """The run was asked to stop, saved its state, and can be started again."""


class Diverged(Exception):
    """A number that must be finite is not; the message says at which step and what to try."""


def train(config: TrainConfig) -> Line:
    """Trains to the end, from the newest checkpoint of the run's folder if it has one.

    Args:
        config: The experiment.

    Returns:
        The last line of metrics, with the final validation.

    Raises:
        UsageError: The config cannot be run, or the folder holds another run; nothing was written.
        Preempted: SIGTERM or SIGINT came; the state is saved.
        Diverged: The loss, the gradient or the state is not finite; the last good checkpoint is
            there.
    """
    config.validate()
    check_run_dir(config)
    run = Run(config)
    meshes.check_batch_size(config.data.batch_size, run.mesh)
    print(run.describe(), flush=True)
    checkpoints = Checkpoints(config.run_dir / "checkpoints", config.checkpoint.keep_last)
    try:
        if not checkpoints.steps():
            _ = run.init_variables  # Read now, so that what is wrong with them is said now.
        claim_run_dir(config, Card.of(run.dataset))
        restored = checkpoints.restore_newest(run.abstract)
        if restored:
            print(f"resuming after step {restored.step:,} of {run.batches.steps:,}", flush=True)
            position = Position(restored.state, restored.step, Meter(restored.extra["meter"]))
        else:
            position = Position(run.fresh_state(), 0, Meter())
        log = MetricsLog(config.run_dir, position.step)
        try:
            with _stop_signals() as stop:
                _loop(run, position, checkpoints, log, stop)
        finally:
            log.close()
    finally:
        checkpoints.close()
    return read_metrics(config.run_dir)[-1]


@dataclasses.dataclass
class Position:
    """Where a run stands."""

    state: TrainState
    step: int
    """Steps done."""
    meter: Meter
    """Sums of the training metrics since the last line."""
    pending: Metrics | None = None
    """Metrics of the newest step, not read yet, so that the device need not wait for the host."""

    def settle(self, config: TrainConfig) -> None:
        """Waits for the newest step and takes its metrics in.

        Raises:
            Diverged: They are not finite.
        """
        if self.pending is None:
            return
        values = {name: float(value) for name, value in self.pending.items()}
        self.pending = None
        for name, value in values.items():
            if not math.isfinite(value):
                raise _diverged(name, self.step, config)
        self.meter.add(values)


def _loop(
    run: Run, position: Position, checkpoints: Checkpoints, log: MetricsLog, stop: list[int]
) -> None:
    config, total, per_epoch = run.config, run.batches.steps, run.batches.steps_per_epoch
    clock = _Clock()
    with ProgressBar(total, position.step) as bar:
        for batch in run.read_ahead(position.step):
            state, metrics = run.train_step(position.state, batch)
            position.settle(config)
            position.state, position.pending, position.step = state, metrics, position.step + 1
            clock.tick(state)
            bar.update()

            step, (epoch, rest) = position.step, divmod(position.step, per_epoch)
            stopping, last, epoch_end = bool(stop), step == total, rest == 0
            validate = epoch_end and (last or epoch % config.eval_every_epochs == 0)
            save = epoch_end and (last or epoch % config.checkpoint.every_epochs == 0)
            save = save or stopping or _due(step, config.checkpoint.every_steps)
            write = epoch_end or _due(step, config.log_every_steps)
            if not (write or save):
                continue

            position.settle(config)
            clock.pause()
            validation: dict[str, float] = {}
            if write:
                line: Line = {"step": step, "epoch": step / per_epoch}
                line |= position.meter.means()
                line["train/learning_rate"] = float(run.schedule(step - 1))
                line |= clock.lap(config.data.batch_size)
                if validate:
                    began = time.perf_counter()
                    validation = run.evaluate(position.state.eval_variables).metrics()
                    line |= {**validation, "time/validation_s": time.perf_counter() - began}
                    if not math.isfinite(validation["val/loss"]):
                        raise _diverged("validation loss", step, config)
                log.write(line)
                bar.say(line)
            if save:
                try:
                    extra = {"meter": position.meter.sums}
                    checkpoints.save(position.state, extra, validation.get("val/top1"))
                except NotFinite:
                    raise _diverged("state", step, config) from None
            if stopping and not last:
                checkpoints.wait()
                raise Preempted(f"stopped by a signal after step {step:,}; the state is saved.")
            clock.resume()


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _diverged(what: str, step: int, config: TrainConfig) -> Diverged:
    return Diverged(
        f"the {what} is not finite at step {step:,}: try a lower --optimizer.learning-rate than "
        f"{config.optimizer.learning_rate:g}, a longer --optimizer.warmup-epochs or "
        "--optimizer.clip-norm 1; the last good checkpoint is kept."
    )


class _Clock:
    """Time of the steps alone: without the first, which compiles, and without what is between."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._steps, self._spent = 0, 0.0
        self.resume()

    def resume(self) -> None:
        """Starts the clock."""
        self._began = time.perf_counter()

    def pause(self) -> None:
        """Stops the clock; called when the device has nothing left to do."""
        self._spent += time.perf_counter() - self._began

    def tick(self, state: TrainState) -> None:
        """Counts a step. The first of a process is waited for."""
        if self._first is not None:
            self._steps += 1
            return
        jax.block_until_ready(state)
        self._first = time.perf_counter() - self._began
        self.resume()

    def lap(self, batch_size: int) -> Line:
        """The timings since the last lap."""
        timings = {"time/steps_s": self._spent}
        if self._first:
            timings["time/first_step_s"], self._first = self._first, 0.0
        if self._steps:
            timings["time/images_per_s"] = self._steps * batch_size / self._spent
        self._steps, self._spent = 0, 0.0
        return timings


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT in a list instead of dying of them; a second one kills."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
