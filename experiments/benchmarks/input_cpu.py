"""CPU time and memory of this process and its workers, from /proc."""

import os
import time
from pathlib import Path


def children() -> list[int]:
    """Processes that this one has started and that live."""
    own = str(os.getpid())
    return [pid for pid, fields in _all_stats() if fields[1] == own]


def cpu_seconds() -> float:
    """CPU seconds of this process and its children, in steps of a clock tick."""
    own = os.getpid()
    ticks = sum(
        int(fields[11]) + int(fields[12])
        for pid, fields in _all_stats()
        if own in (pid, int(fields[1]))
    )
    return ticks / os.sysconf("SC_CLK_TCK")


def idle_cpu_seconds() -> float:
    """As ``cpu_seconds``, once nothing is being done any more."""
    before = -1.0
    while (now := cpu_seconds()) > before:
        before = now
        time.sleep(0.3)
    return now


def resident_mib(pid: int) -> float:
    """Memory that only this process holds, MiB; shared memory does not count."""
    pages = (Path("/proc") / str(pid) / "statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _all_stats() -> list[tuple[int, list[str]]]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found.append((int(stat.parent.name), fields))
    return found
