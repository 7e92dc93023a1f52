"""A trace of some steps by jax's profiler."""

import dataclasses
import logging
from pathlib import Path
from typing import Self

import jax

from senet_jax.errors import UsageError, require
from senet_jax.files import check_folder

LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ProfileRequest:
    """The steps that are traced."""

    steps: int = 0
    """Their number; 0 means none."""
    start: int | None = None
    """The first, counted from 1; None means the first after the compilation."""

    def check(self, total: int) -> None:
        """Refuses what cannot be traced.

        Args:
            total: Steps of the run.

        Raises:
            UsageError: Of a field, which the message names by its flag.
        """
        require(self.steps >= 0, "--profile-steps", self.steps, "at least 0")
        if self.start is None:
            return
        require(1 <= self.start <= total, "--profile-start", self.start, f"from 1 to {total}")
        if not self.steps:
            raise UsageError("--profile-start needs --profile-steps, which says how many.")


class Profiler:
    """Traces steps, and nothing else: no compilation, no validation and no checkpoint.

    A trace ends before any of these and another one begins after it, until there are enough steps.
    Leaving the context ends the trace and says where it is.

    Args:
        run_dir: Folder of the run; the traces are in ``profile``, or where several hosts train
            together each host's in ``profile/hostN``.
        request: The steps.

    Raises:
        UsageError: The folder of the traces cannot be written, or a trace could not be.
    """

    def __init__(self, run_dir: Path, request: ProfileRequest) -> None:
        self.folder = run_dir / "profile"
        if jax.process_count() > 1:
            self.folder /= f"host{jax.process_index()}"
        if request.steps:
            check_folder(self.folder)
        self._wanted, self._left, self._from = request.steps, request.steps, request.start or 1
        self._first: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._first is not None:
            try:
                self._write()
            except UsageError as unwritten:
                if error is None:
                    raise
                # The error that ended the run comes first.
                LOGGER.warning("%s", unwritten)
        if self._wanted:
            done = f"{self._wanted - self._left} of {self._wanted} steps are profiled"
            look = f"xprof --logdir {self.folder}, or open a *.trace.json.gz in Perfetto"
            print(f"{done}: {look}", flush=True)

    def step(self, number: int) -> jax.profiler.StepTraceAnnotation:
        """A context for the dispatch of a step, so that the trace shows it as one.

        Args:
            number: The step, from 1.
        """
        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def begins(self, step: int, size_changes: bool) -> bool:
        """Tells whether a trace has to begin.

        Args:
            step: Steps done.
            size_changes: The next step may be the first of an image size, and compile.
        """
        wanted = self._first is None and self._left > 0
        return wanted and not size_changes and step + 1 >= self._from

    def ends(self, step: int, interrupted: bool) -> bool:
        """Tells whether the trace has to end.

        Args:
            step: Steps done.
            interrupted: The next work is not to be traced.
        """
        if self._first is None:
            return False
        return interrupted or step + 1 - self._first == self._left

    def start(self, step: int) -> None:
        """Begins a trace, when the devices are idle.

        Args:
            step: Its first step, from 1.
        """
        options = jax.profiler.ProfileOptions()
        # Without each call of Python: XLA's own events and the steps are what is looked for.
        options.python_tracer_level = 0
        # The folder of the trace; jax's own name is the second, in which two may begin.
        options.session_id = f"from_step_{step}"
        jax.profiler.start_trace(self.folder, profiler_options=options)
        self._first = step

    def stop(self, step: int) -> None:
        """Ends the trace, when the devices are idle.

        Args:
            step: Its last step.
        """
        assert self._first is not None
        self._write()
        self._left -= step + 1 - self._first
        self._first = None

    def _write(self) -> None:
        try:
            jax.profiler.stop_trace()
        except (RuntimeError, OSError) as error:  # RuntimeError: XLA writes the files.
            self._first = None
            reason = str(error).partition("\n")[0].rstrip(".")
            raise UsageError(
                f"the trace cannot be written to {self.folder}: {reason}; repair that, or leave "
                "--profile-steps out: the same command goes on from the newest checkpoint."
            ) from error
