"""The cores that an engine should run on: those that this process may use, and of them those that others leave free."""

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgedc.machine import MAX_THREADS, busy_seconds

_EVERY = 0.1  # seconds that are looked back on, at least: the kernel counts in hundredths
_GROUPS = Path("/sys/fs/cgroup")


def physical_cores() -> int:
    """Cores that this process may use, hyperthreads counted once: more threads than that slow decoding down.

    So do those on a processor's small cores, for which the others would wait: of two kinds it is the large ones.
    """
    if sys.platform == "darwin":
        return _apple_cores()
    if not hasattr(os, "sched_getaffinity"):
        return max(1, (os.cpu_count() or 2) // 2)
    return math.ceil(min(_linux_cores(os.sched_getaffinity(0)), _quota(), MAX_THREADS))


def _linux_cores(cpus: set[int], devices: Path = Path("/sys/devices")) -> int:
    large = devices / "cpu_core" / "cpus"  # Intel's, where there are two kinds; the others are in cpu_atom
    if large.is_file():
        cpus = cpus & _listed(large.read_text("ascii")) or cpus
    cores = set()
    for cpu in cpus:
        siblings = devices / f"system/cpu/cpu{cpu}/topology/thread_siblings_list"
        cores.add(siblings.read_text("ascii").strip() if siblings.is_file() else str(cpu))
    return len(cores)


def _listed(cpus: str) -> set[int]:
    """Of a list like 0-7,16 (docs.kernel.org/admin-guide/cputopology.html)."""
    ranges = [part.split("-") for part in cpus.strip().split(",") if part]
    return {cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1)}


def _apple_cores() -> int:
    for name in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):  # the first on Apple's own processors
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
            done = subprocess.run(["sysctl", "-n", name], capture_output=True, timeout=5, check=True)
            return int(done.stdout)
    return os.cpu_count() or 1


class FreeCores:
    """How many threads to run with just now: `most`, less one for each core that other programs keep busy.

    The threads of one computation wait for each other many times in every token. Where they share a core with another
    program that is each time a turn of the scheduler, and one thread less is many times as fast. Programs of a lower
    priority than this one give way, and are not counted. Where the system does not say what its cores do (only Linux
    does) it is `most` always.
    """

    def __init__(self, most: int) -> None:
        self._most, self._threads, self._since = most, most, _LOADED

    def threads(self) -> int:
        """To be asked often: it looks again ten times a second at most."""
        if self._since and time.perf_counter() - self._since.at >= _EVERY:
            use = _use()
            if use:
                elapsed = use.at - self._since.at
                others = (use.busy - self._since.busy - (use.own - self._since.own)) / elapsed
                self._threads = max(1, min(self._most, round(use.cpus - others)))
            self._since = use
        return self._threads


@dataclass(frozen=True)
class _Use:
    """Seconds at a moment: of the clock, of all programs on the CPUs that this process may use, and of this process."""

    at: float
    busy: float
    own: float
    cpus: int


def _use(stat: Path = Path("/proc/stat")) -> _Use | None:
    """None where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cpus = {f"cpu{n}" for n in os.sched_getaffinity(0)}
    niced = os.getpriority(os.PRIO_PROCESS, 0) > 0  # then others that are niced are as good as this process
    busy = busy_seconds(stat, cpus, niced=niced)
    return None if busy is None else _Use(time.perf_counter(), busy, time.process_time(), len(cpus))


# What happens while an engine is imported and its model loaded is what it begins with.
_LOADED = _use()


def _quota() -> float:
    """Cores' worth of time that the control groups of this process leave it, as `docker run --cpus` sets it."""
    return min(_limits(_GROUPS, Path("/proc/self/cgroup")), default=math.inf)


def _limits(groups: Path, own: Path) -> Iterator[float]:
    """Of the group and those above it, by cgroups v2 (cpu.max) and v1 (docs.kernel.org/admin-guide/cgroup-v2.html)."""
    for line in own.read_text("utf-8", "replace").splitlines() if own.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):  # a container sees its own group as the root
            at = groups / ("cpu" if controllers else "") / folder
            try:
                if controllers:
                    quota, period = ((at / f"cpu.cfs_{name}_us").read_text("ascii") for name in ("quota", "period"))
                else:
                    quota, period = (at / "cpu.max").read_text("ascii").split()
                if quota.strip() not in ("max", "-1"):
                    yield int(quota) / int(period)
            except (OSError, ValueError, ZeroDivisionError):
                continue  # not mounted, or not in this container's sight
