"""The loop: train, evaluate, save, and take up again exactly where it stopped."""

import dataclasses
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
import numpy as np

from senet_jax.data.card import Card
from senet_jax.training import mesh as meshes
from senet_jax.training.checkpoint import Checkpoints, NotFinite
from senet_jax.training.config import TrainConfig
from senet_jax.training.flops import Utilization
from senet_jax.training.hosts import is_first
from senet_jax.training.logging import Line, Meter, MetricsLog, read_metrics
from senet_jax.training.progress import Clock, Forecast, ProgressBar
from senet_jax.training.run import Run
from senet_jax.training.run_dir import check_run_dir, claim_run_dir
from senet_jax.training.state import TrainState
from senet_jax.training.step import Metrics

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""At these a run saves its state and ends. The last is what SLURM sends if asked, some time before
the end of a job (``--signal=USR1@120``)."""


class Preempted(Exception):
    """The run was asked to stop, saved its state, and can be started again."""


class Diverged(Exception):
    """A number that must be finite is not; the message says at which step and what to try."""


def train(config: TrainConfig) -> Line:
    """Trains to the end, from the newest checkpoint of the run's folder if it has one.

    Args:
        config: The experiment.

    Returns:
        The last line of metrics, with the final validation; empty on hosts other than the first.

    Raises:
        UsageError: The config cannot be run, or the folder holds another run; nothing was written.
        Preempted: A signal came, on whichever host; the state is saved.
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
        log = MetricsLog(config.run_dir, position.step) if is_first() else None
        try:
            with _stop_signals() as stop:
                _loop(run, position, checkpoints, log, stop)
        finally:
            if log:
                log.close()
    finally:
        checkpoints.close()
    return read_metrics(config.run_dir)[-1] if is_first() else {}


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
    newest: dict[str, float] = dataclasses.field(default_factory=dict)
    """The metrics that were read last."""
    stopping: bool = False
    """Whether a host wanted to stop, when the step was begun whose metrics were read last."""

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


def _loop(
    run: Run, position: Position, checkpoints: Checkpoints, log: MetricsLog | None, stop: list[int]
) -> None:
    config, total, per_epoch = run.config, run.batches.steps, run.batches.steps_per_epoch
    clock, forecast = Clock(), _forecast(run)
    several = jax.distributed.is_initialized()
    utilization = Utilization(run.model, config.model.dtype, run.mesh)

    def status() -> Line:
        now: Line = {f"train/{name}": value for name, value in position.newest.items()}
        if step_s := clock.recent_step_s:
            now["time/images_per_s"] = config.data.batch_size / step_s
            now["time/step_s"] = step_s
            now["time/left_s"] = forecast.left(position.step, step_s)
        return now

    with ProgressBar(total, position.step, config.epochs) as bar:
        for batch in clock.reading(run.read_ahead(position.step, stop)):
            if log and clock.compiling:
                log.images(position.step + 1, np.asarray(batch["image"].addressable_data(0)))
            state, metrics = run.train_step(position.state, batch)
            position.settle(config)
            position.state, position.pending, position.step = state, metrics, position.step + 1
            clock.tick(state)
            bar.update(status)

            step, (epoch, rest) = position.step, divmod(position.step, per_epoch)
            last, epoch_end = step == total, rest == 0
            # Several hosts must stop after the same step, so they go by what they all read.
            stopping = position.stopping if several else bool(stop)
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
                line["train/learning_rate"] = run.learning_rate(position.state)
                line |= clock.lap(config.data.batch_size)
                if "time/images_per_s" in line:
                    share = utilization.of(batch["image"].shape[1:], line["time/images_per_s"])
                    line |= {} if share is None else {"time/mfu": share}
                if validate:
                    began = time.perf_counter()
                    validation = run.evaluate(position.state.eval_variables).metrics()
                    line |= {**validation, "time/validation_s": time.perf_counter() - began}
                    forecast.validated(line["time/validation_s"])
                    if not math.isfinite(validation["val/loss"]):
                        raise _diverged("validation loss", step, config)
                    position.state = run.observe(position.state, validation["val/loss"])
                if step_s := clock.recent_step_s:
                    line["time/left_s"] = forecast.left(step, step_s)
                if log:
                    log.write(line)
                bar.say(line)
            if save:
                began = time.perf_counter()
                try:
                    extra = {"meter": position.meter.sums}
                    checkpoints.save(position.state, extra, validation.get("val/top1"))
                except NotFinite:
                    raise _diverged("state", step, config) from None
                forecast.saved(time.perf_counter() - began)
            if stopping and not last:
                checkpoints.wait()
                raise Preempted(f"stopped by a signal after step {step:,}; the state is saved.")
            clock.resume()


def _forecast(run: Run) -> Forecast:
    config = run.config
    sizes = config.data.train_sizes or (run.dataset.image_shape[0],)
    by_epoch = [sizes[epoch * len(sizes) // config.epochs] for epoch in range(config.epochs)]
    return Forecast(config, run.batches.steps_per_epoch, len(run.dataset.val), by_epoch)


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


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
