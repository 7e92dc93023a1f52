"""The progress of a run: the clock of its steps, the time left, and the lines that show both."""

import collections
import datetime
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Self

import jax
from tqdm import tqdm

from senet_jax.config import TrainConfig
from senet_jax.tasks.base import Arrays, Task
from senet_jax.terminal import unescaped
from senet_jax.training.distributed.hosts import is_first
from senet_jax.training.records.goodput import Account
from senet_jax.training.records.metrics import Line
from senet_jax.training.state import TrainState

Event = Literal["evaluation", "checkpoint"]
"""A pause of the steps."""


class Clock:
    """Time of the steps alone, without what is between them.

    The first step of a shape of batches compiles, and is timed by itself.

    Args:
        account: The account that the time is attributed to.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._seen: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()
        self._compiling, self._compiled = False, 0.0
        self._steps, self._spent, self._waited = 0, 0.0, 0.0
        self._recent: collections.deque[float] = collections.deque(maxlen=100)
        self._began = self._ticked = time.perf_counter()
        self._idle = True

    def reading(self, batches: Iterable[Arrays]) -> Iterator[Arrays]:
        """Yields the batches and counts the time that they are waited for."""
        iterator = iter(batches)
        while True:
            self._account.turn_to("data_wait")
            began = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                self._account.turn_to("other")
                return
            shapes = tuple((name, values.shape) for name, values in batch.items())
            if shapes in self._seen:
                self._account.turn_to("steps")
                self._waited += time.perf_counter() - began
            else:
                self._account.turn_to("compile")
                self._spent += began - self._began
                self._began = self._ticked = began
                self._compiling = True
                self._seen.add(shapes)
            yield batch

    @property
    def compiling(self) -> bool:
        """Says if the step at hand is the first of its shapes."""
        return self._compiling

    def resume(self) -> None:
        """Starts the clock; the device is idle."""
        self._account.turn_to("steps")
        self._began = self._ticked = time.perf_counter()
        self._idle = True

    def pause(self) -> None:
        """Stops the clock; called when the device has nothing left to do."""
        self._account.turn_to("other")
        now = time.perf_counter()
        self._spent += now - self._began
        if not self._idle:
            self._recent.append(now - self._ticked)

    def tick(self, state: TrainState) -> None:
        """Counts a step. One that compiles is waited for, and does not count."""
        if self._compiling:
            jax.block_until_ready(state)
            self._compiled += time.perf_counter() - self._began
            self._compiling = False
            self._recent.clear()
            self.resume()
            return
        self._steps += 1
        if self._idle:
            # Dispatched to an idle device, and not done: its time ends at the next tick.
            self._idle = False
            return
        now = time.perf_counter()
        self._recent.append(now - self._ticked)
        self._ticked = now

    @property
    def recent_step_s(self) -> float | None:
        """Seconds a step, over the last hundred since one compiled; None before the second."""
        return sum(self._recent) / len(self._recent) if self._recent else None

    def lap(self, batch_size: int) -> Line:
        """The timings since the last lap."""
        timings = {"time/steps_s": self._spent}
        if self._compiled:
            timings["time/first_step_s"] = self._compiled
        if self._steps:
            timings["time/step_s"] = self._spent / self._steps
            timings["time/images_per_s"] = self._steps * batch_size / self._spent
            timings["time/data_wait"] = self._waited / self._spent
        self._compiled, self._steps, self._spent, self._waited = 0.0, 0, 0.0, 0.0
        return timings


class Forecast:
    """The time that a run still takes.

    Its steps at the recent rate, and the validations and checkpoints that are to come.

    Args:
        config: The run.
        steps_per_epoch: Steps of an epoch.
        val_images: Images of a validation.
        sizes: Side of the training images of each epoch, pixels.
    """

    def __init__(
        self, config: TrainConfig, steps_per_epoch: int, val_images: int, sizes: Sequence[int]
    ) -> None:
        self._config, self._per_epoch, self._sizes = config, steps_per_epoch, sizes
        self._val_steps = val_images / config.data.batch_size
        # The first of each compiles, and is not what the others will take.
        self._took: dict[Event, collections.deque[float]] = {
            "evaluation": collections.deque(maxlen=2),
            "checkpoint": collections.deque(maxlen=2),
        }

    def took(self, event: Event, seconds: float) -> None:
        """Takes in for how long an event held the loop up."""
        self._took[event].append(seconds)

    def last(self, event: Event) -> float:
        """The seconds that the last event of a kind took."""
        return self._took[event][-1]

    def left(self, step: int, step_s: float) -> float:
        """Seconds to the end of the run.

        Args:
            step: Steps done.
            step_s: Seconds of a step at present.
        """
        epoch, done = divmod(step, self._per_epoch)
        sizes = self._sizes[epoch:]
        if not sizes:
            return 0.0
        # A step costs what its pixels cost, and the present one is the last that was done.
        now = self._sizes[max(step - 1, 0) // self._per_epoch]
        epochs = sum((size / now) ** 2 for size in sizes) - (sizes[0] / now) ** 2 * (
            done / self._per_epoch
        )
        validations = self._events(epoch, self._config.eval_every_epochs)
        saves = self._events(epoch, self._config.checkpoint.every_epochs)
        if every := self._config.checkpoint.every_steps:
            saves += self._config.epochs * self._per_epoch // every - step // every
        # Until a validation was timed, assume the time to train on its images, an overestimate.
        known = {event: len(seconds) == 2 for event, seconds in self._took.items()}
        validation_s = self._val_steps * step_s
        if known["evaluation"]:
            validation_s = self.last("evaluation")
        save_s = self.last("checkpoint") if known["checkpoint"] else 0.0
        steps_s = epochs * self._per_epoch * step_s
        return steps_s + validations * validation_s + saves * save_s

    def _events(self, epoch: int, every: int) -> int:
        """The number of times of an event after every so many epochs, and after the last."""
        epochs = self._config.epochs
        return epochs // every - epoch // every + (epochs % every > 0)


class ProgressBar:
    """A bar over the steps of a run, and a sentence for each line of metrics.

    Where the output is no terminal, a line a minute in place of the bar.

    Args:
        total: Steps of the run.
        start: Steps done.
        epochs: Epochs of the run.
        task: The task, whose metrics are shown.
        status: Gives the keys of a line of metrics as they stand; called now and then.
    """

    def __init__(
        self,
        total: int,
        start: int,
        epochs: int,
        task: type[Task] | Task,
        status: Callable[[], Line] = dict,
    ) -> None:
        self._bar = tqdm(
            total=total,
            initial=start,
            dynamic_ncols=True,
            disable=None if is_first() else True,
            file=unescaped(sys.stderr),
            # tqdm's own time left knows nothing of validations.
            bar_format="{percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt}{postfix}",
        )
        self._total, self._epochs, self._status = total, epochs, status
        # First the one that the plateau schedule follows.
        self._metrics = sorted(task.metrics, key=lambda metric: metric.key != task.watched)
        self._every = 60.0 if self._bar.disable else 0.5
        self._shown = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def advance(self, step: int) -> None:
        """Counts a step; ``step`` are done."""
        self._bar.update()
        now = time.perf_counter()
        if now - self._shown < self._every:
            return
        self._shown = now
        text = self._sentence(self._status())
        if self._bar.disable:
            self._print(f"step {step:,} of {self._total:,} | {text}")
        else:
            self._bar.set_postfix_str(text)

    def say(self, line: Line) -> None:
        """Prints a line of metrics above the bar."""
        self._print(f"epoch {line['epoch']:.2f} of {self._epochs} | {self._sentence(line)}")
        self._shown = time.perf_counter()

    def _sentence(self, line: Line) -> str:
        """A line of metrics in words."""
        parts = []
        for split in ("train", "val"):
            words = [
                f"{metric.short_title} {metric.shown_text(line[f'{split}/{metric.key}'])}"
                for metric in self._metrics
                if f"{split}/{metric.key}" in line
            ]
            if words:
                parts.append(f"{split} {' '.join(words)}")
        parts += [form(line[key]) for key, form in _FORMS.items() if key in line]
        return " | ".join(parts)

    def _print(self, text: str) -> None:
        self._bar.write(text)
        sys.stdout.flush()


_FORMS: dict[str, Callable[[float], str]] = {
    "train/learning_rate": "lr {:.3g}".format,
    "time/images_per_s": "{:,.0f} images/s".format,
    "time/step_s": lambda seconds: f"{1000 * seconds:,.0f} ms/step",
    "time/data_wait": "data wait {:.1%}".format,
    "time/mfu": "MFU {:.1%}".format,
    "time/goodput": "goodput {:.1%}".format,
    "time/validation_s": "validated in {:,.1f} s".format,
    "time/left_s": lambda seconds: f"{datetime.timedelta(seconds=round(seconds))} left",
}
