"""CPU time and memory of this process and its workers, from /proc."""

import os
import time
from pathlib import Path

PROC = Path("/proc")


def children() -> list[int]:
    """Processes that this one has started and that live."""
    lists = [task.read_text() for task in PROC.glob("self/task/*/children")]
    return [int(pid) for line in lists for pid in line.split()]


def idle_cpu_seconds() -> float:
    """CPU seconds of this process and its children, once nothing is being done any more."""
    before = -1.0
    while (now := _cpu_seconds()) > before:
        before = now
        time.sleep(0.3)
    return now


def resident_mib(pid: int) -> float:
    """Memory that only this process holds, MiB; shared memory does not count."""
    pages = (PROC / str(pid) / "statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _cpu_seconds() -> float:
    ticks = 0
    for pid in (os.getpid(), *children()):
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
