"""The rank of this process among several, from flags or from the launcher that started them."""

import dataclasses
import ipaddress
import math
import os
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from senet_jax.errors import UsageError, require
from senet_jax.ranges import MOST_DEVICES, Range, whole
from senet_jax.text import printable


@dataclasses.dataclass(frozen=True)
class HostsConfig:
    """Several processes that train together; SLURM, Open MPI and TPU pods say all of it."""

    coordinator: str | None = None
    """Address of the first of them as HOST:PORT, where the others find it."""
    count: Annotated[int | None, whole(1, MOST_DEVICES, none="what the environment says")] = None
    """Their number; 1 means that this one is alone, whatever the environment says."""
    index: Annotated[int | None, whole(0, MOST_DEVICES, none="what the environment says")] = None
    """The number of this one, from 0."""
    # Seconds; a week. Sockets take no timeout of 1e10 seconds.
    timeout: Annotated[float, Range(0, 604_800, open_below=True)] = 300.0
    """Seconds that they wait for each other at the start, up to a day."""
    token_file: Path | None = None
    """A file with a secret, the same on all of them, by which they recognise each other; None means
    that the first draws one and leaves it in the folder of the run until all have come, readable
    for its user alone. It keeps others out of the start only: what jax's processes then say to each
    other is neither encrypted nor authenticated, so that their network must be a private one."""
    listen: str | None = None
    """Address of the machine of the first at which it listens, where that is not the coordinator's,
    as behind an address translation; 0.0.0.0 means all."""


@dataclasses.dataclass(frozen=True)
class Process:
    """A process among those that train together: their coordinator, their number, its rank."""

    coordinator: str
    """The address on which the first one listens, HOST:PORT."""
    count: int
    index: int
    local_devices: tuple[int, ...] | None = None
    """The devices of its machine that are its own; None means all that it sees."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the coordinator."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


def find_process(flags: HostsConfig, environ: Mapping[str, str] = os.environ) -> Process | None:
    """Finds out which process this one is.

    Flags override the environment. Only variables of running processes (srun, mpirun) count, not
    those of an allocation, so that a command typed within `salloc` or `sbatch` runs alone.

    Args:
        flags: Those of the command line.
        environ: The environment.

    Returns:
        The process, or None if it runs alone.

    Raises:
        UsageError: The flags are wrong, or say too little.
    """
    require(
        math.isfinite(flags.timeout) and 1 <= flags.timeout <= LONGEST_S,
        "--hosts.timeout",
        flags.timeout,
        f"from 1 to {LONGEST_S:g} seconds",
    )
    if flags.listen is not None and not _is_listen(flags.listen):
        raise UsageError(
            "--hosts.listen must be an address of this machine, such as 10.0.0.1, without a port, "
            f"not {printable(flags.listen)!r}."
        )
    names = ("coordinator", "count", "index")
    given = {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}
    if given == {"count": 1}:
        return None
    found = None
    if len(given) < len(names):
        found = (
            _from_jax_variables(environ)
            or _from_slurm(environ)
            or _from_open_mpi(environ)
            or _from_tpu(flags.timeout)
        )
    known = {**(dataclasses.asdict(found) if found else {}), **given}
    if not known:
        return None
    missing = [name for name in names if known.get(name) in (None, "")]
    if missing:
        raise UsageError(
            f"each of several hosts needs {_flags(*names)}: {_flags(*missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing."
        )
    process = Process(**known)
    _check(process)
    return process


def _check(process: Process) -> None:
    """Checks what flags or the environment say of a process.

    Raises:
        UsageError: A number out of its range, or no address.
    """
    if not _is_address(process.coordinator):
        raise UsageError(
            "--hosts.coordinator must be HOST:PORT, such as 10.0.0.1:1234 or [fd00::2]:1234, with "
            f"a port from 1 to {LAST_PORT}, not {printable(process.coordinator)!r}."
        )
    require(1 <= process.count <= MOST, "--hosts.count", process.count, f"from 1 to {MOST}")
    if not 0 <= process.index < process.count:
        raise UsageError(
            f"--hosts.index must be from 0 to {process.count - 1}, one less than --hosts.count, "
            f"not {process.index}."
        )


def _is_address(text: str) -> bool:
    """Tells whether a text is HOST:PORT, with a name, an IPv4 or, in brackets, an IPv6 address."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
    if match is None or not 1 <= int(match[3]) <= LAST_PORT:
        return False
    if match[1] is not None:
        return _is_ip(match[1], ipaddress.IPv6Address)
    if re.fullmatch(r"[0-9.]+", match[2]):
        return _is_ip(match[2], ipaddress.IPv4Address)
    # The limits of the domain name system, RFC 1035.
    labels = match[2].removesuffix(".").split(".")
    return len(match[2]) <= 253 and all(1 <= len(label) <= 63 for label in labels)


def _is_listen(text: str) -> bool:
    return _is_ip(text, ipaddress.ip_address)


def _is_ip(text: str, kind: Callable[[str], object]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _flags(*names: str) -> str:
    return ", ".join(f"--hosts.{name}" for name in names)


LAST_PORT = 65535
MOST = 65536
"""Processes of a run at most."""
LONGEST_S = 86400.0
"""Seconds that they wait for each other at most."""

FIRST_PORT, PORTS = 61440, 4000
"""Ports of the coordinator if none is named, above those that Linux gives away by itself."""


def _port(*parts: str) -> int:
    """The same port in all processes of a job, another one most often for other jobs."""
    return FIRST_PORT + zlib.crc32(" ".join(parts).encode()) % PORTS


_ALONE = "correct it, or give --hosts.count 1 to run alone"


def _variable(environ: Mapping[str, str], name: str) -> str:
    """A variable of a launcher.

    Raises:
        UsageError: It is missing, though the launcher sets it beside others that are there.
    """
    if not environ.get(name):
        raise UsageError(f"{name} is missing in the environment: {_ALONE}.")
    return environ[name]


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    """A variable that is a whole number from 0 on; errors as ``_variable``."""
    if default is not None and name not in environ:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", _variable(environ, name)):
        raise _unclear(environ, name, "a whole number")
    return int(environ[name])


def _unclear(environ: Mapping[str, str], name: str, allowed: str) -> UsageError:
    return UsageError(f"{name} must be {allowed}, not {printable(environ[name])!r}: {_ALONE}.")


def _from_jax_variables(environ: Mapping[str, str]) -> Process | None:
    """An indexed Job of Kubernetes, or whoever else sets these by hand."""
    coordinator, count = environ.get("JAX_COORDINATOR_ADDRESS"), environ.get("JAX_NUM_PROCESSES")
    index = environ.get("JAX_PROCESS_ID") or environ.get("JOB_COMPLETION_INDEX")
    if not (coordinator and count and index):
        return None
    number = "JAX_PROCESS_ID" if environ.get("JAX_PROCESS_ID") else "JOB_COMPLETION_INDEX"
    if _number(environ, "JAX_NUM_PROCESSES") == 1:
        return None
    return Process(coordinator, _number(environ, "JAX_NUM_PROCESSES"), _number(environ, number))


def _from_slurm(environ: Mapping[str, str]) -> Process | None:
    """A step of `srun`. The tasks of a job that no step runs are none."""
    count = _number(environ, "SLURM_STEP_NUM_TASKS", 1)
    if count == 1:
        return None
    host = _first_host(_variable(environ, "SLURM_STEP_NODELIST"))
    port = _port(_variable(environ, "SLURM_JOB_ID"), _variable(environ, "SLURM_STEP_ID"))
    tasks = _tasks_per_node(_variable(environ, "SLURM_STEP_TASKS_PER_NODE"))
    node = _number(environ, "SLURM_NODEID")
    if node >= len(tasks):
        raise _unclear(environ, "SLURM_NODEID", f"less than {len(tasks)}")
    shared_by = tasks[node]
    return Process(
        f"{host}:{port}",
        count,
        _number(environ, "SLURM_PROCID"),
        _share_of_gpus(
            _number(environ, "SLURM_LOCALID"),
            shared_by,
            None if _bound_to_gpus(environ) else environ.get("SLURM_GPUS_ON_NODE"),
        ),
    )


def _bound_to_gpus(environ: Mapping[str, str]) -> bool:
    """Tells whether SLURM shows each task its own GPUs only."""
    return "SLURM_GPUS_PER_TASK" in environ or "gpu" in environ.get("SLURM_TRES_PER_TASK", "")


def _first_host(nodes: str) -> str:
    """The first of "node1", "node[001-015],host2", "rack[1,3]node[7-9]"."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def _tasks_per_node(text: str) -> list[int]:
    """Reads "2(x3),1" as 2, 2, 2, 1."""
    tasks: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([1-9]\d{0,4})(?:\(x(\d{1,5})\))?", part)
        if match is None:
            raise UsageError(
                f"SLURM_STEP_TASKS_PER_NODE must be as 2(x3),1, not {printable(text)!r}: {_ALONE}."
            )
        tasks += [int(match[1])] * int(match[2] or 1)
    return tasks


def _share_of_gpus(local: int, shared_by: int, gpus: str | None) -> tuple[int, ...] | None:
    """An equal share of a machine's GPUs, where several processes see all of them."""
    if shared_by == 1 or not gpus:
        return None
    if not gpus.isdecimal():
        raise UsageError(f"SLURM_GPUS_ON_NODE must be a number, not {printable(gpus)!r}: {_ALONE}.")
    own = int(gpus) // shared_by
    if not own:
        raise UsageError(
            f"{shared_by} tasks on a node with {gpus} GPUs: start one task a node "
            "(--ntasks-per-node 1), or one a GPU."
        )
    return tuple(range(local * own, (local + 1) * own))


def _from_open_mpi(environ: Mapping[str, str]) -> Process | None:
    count = _number(environ, "OMPI_COMM_WORLD_SIZE", 1)
    if count == 1:
        return None
    local = _number(environ, "OMPI_COMM_WORLD_LOCAL_RANK")
    here = _number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE")
    require(here >= 1, "OMPI_COMM_WORLD_LOCAL_SIZE", here, "at least 1")
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    gpus = str(len(visible.split(","))) if visible else None
    job = environ.get("PMIX_NAMESPACE") or environ.get("OMPI_MCA_ess_base_jobid", "")
    # Version 4 names the machine of mpirun, where the first process is; version 5 does not.
    uri = environ.get("OMPI_MCA_orte_hnp_uri", "")
    address = re.search(r"tcp://([^,:]+)", uri)
    host = "127.0.0.1" if here == count else address[1] if address else None
    return Process(
        f"{host}:{_port(job)}" if host else "",
        count,
        _number(environ, "OMPI_COMM_WORLD_RANK"),
        _share_of_gpus(local, here, gpus),
    )


def _from_tpu(timeout: float) -> Process | None:
    """The workers of a TPU slice, or of several, as jax finds them."""
    # Only jax knows how Google's environments differ; it has no public name for it.
    from jax._src.clusters import GceTpuCluster, GkeTpuCluster

    for cluster in (GkeTpuCluster, GceTpuCluster):
        if cluster.is_env_present():
            count = cluster.get_process_count()
            if count == 1:
                return None
            address = cluster.get_coordinator_address(int(timeout), None)
            return Process(address, count, cluster.get_process_id())
    return None
