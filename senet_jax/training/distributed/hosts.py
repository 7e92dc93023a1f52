"""Several hosts as one run: they start together, end together, and none waits for a dead one."""

import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

from senet_jax.errors import ExitCode, UsageError
from senet_jax.terminal import OneLine
from senet_jax.training.distributed.clusters import HostsConfig, Process, find_process
from senet_jax.training.distributed.rendezvous import SILENCE_S, Rendezvous, exit_now
from senet_jax.training.distributed.token import ReadToken, token_of_start


@contextlib.contextmanager
def distributed_session(
    flags: HostsConfig, facts: Mapping[str, str], folder: Path
) -> Iterator[None]:
    """Joins this process with the others that train, if there are any, for what is done within.

    Must come before the first use of a device. If one of the others is gone, or stops before the
    end, this process ends with a sentence that names it, within a minute and wherever it stands;
    if this one fails, the others do. At the end they wait for each other.

    A process that does not know the token of this start cannot join and gets no data. Messages
    afterwards, through jax's coordinator and in collectives, are neither authenticated nor
    encrypted: the network must be a private one.

    Args:
        flags: Which one this is; what it leaves open, the environment says.
        facts: Values that must be the same on all of them, by name.
        folder: The folder of the run, which all of them see: the token is there until all have
            come, unless the flags name a file.

    Raises:
        UsageError: The flags are wrong, or the others did not come or do not fit.
    """
    process = find_process(flags)
    if process is None:
        yield
        return
    with _token(process, flags, folder) as read_token:
        rendezvous = Rendezvous(process, facts, flags.timeout, read_token, flags.listen)
    try:
        _start_jax(process, rendezvous, flags.timeout)
        yield
    except BaseException as error:
        _fail(rendezvous, error)
        raise
    rendezvous.finish()
    _stop_jax()


def _token(
    process: Process, flags: HostsConfig, folder: Path
) -> contextlib.AbstractContextManager[ReadToken]:
    if process.count == 1:
        return contextlib.nullcontext(lambda: None)
    return token_of_start(folder, flags.token_file, process.index == 0)


def is_first() -> bool:
    """Tells whether this process is the one that prints and writes for all."""
    import jax

    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Blocks until every process has called it with the same name; a single one goes on at once."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _start_jax(process: Process, rendezvous: Rendezvous, timeout: float) -> None:
    import jax

    # jax itself would end the process with a dump.
    too_late = threading.Timer(
        timeout,
        exit_now,
        (
            f"error: jax on {rendezvous.title} did not find all the others within {timeout:g} s, "
            f"though they met at {process.coordinator}: open the ports after that one between "
            "them.",
            ExitCode.BAD_INPUT,
        ),
    )
    too_late.daemon = True
    too_late.start()
    # It would take SIGTERM away from the loop, which does the same for all signals.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        rendezvous.jax_coordinator,
        process.count,
        process.index,
        coordinator_bind_address=rendezvous.jax_bind,
        local_device_ids=process.local_devices,
        # It would give each task of SLURM one device, even if it has a machine to itself.
        cluster_detection_method="deactivate",
        initialization_timeout=int(timeout) + 10,
    )
    too_late.cancel()
    if not is_first():
        # The first host alone reports facts that all hosts know.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        for package in ("training", "interchange"):
            logging.getLogger(f"senet_jax.{package}").setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(OneLine(f"senet-jax, {rendezvous.title}: %(message)s"))


def _stop_jax() -> None:
    import jax

    jax.distributed.shutdown()


def _fail(rendezvous: Rendezvous, error: BaseException) -> None:
    """Ends the process, and with it the others.

    An orderly end would wait for them, and they for what this one does not do any more.
    """
    if isinstance(error, UsageError):
        rendezvous.leave(str(error), ExitCode.BAD_INPUT)
        exit_now(f"error: {error}", ExitCode.BAD_INPUT)
    if isinstance(error, KeyboardInterrupt):
        rendezvous.leave("it was interrupted.", ExitCode.INTERRUPTED)
        exit_now("interrupted.", ExitCode.INTERRUPTED)
    if _may_come_from_another(error):
        # Then the watch ends this process with the name of the one that is gone.
        time.sleep(SILENCE_S + 5)
    traceback.print_exception(error)
    reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    rendezvous.leave(reason, ExitCode.FAILED)
    exit_now(reason, ExitCode.FAILED)


def _may_come_from_another(error: BaseException) -> bool:
    """Tells whether an error may come from another process that ended during a collective."""
    import jax

    # Gloo's failures come as the former or the latter, as they are noticed.
    return isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)
