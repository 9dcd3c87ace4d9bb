"""What a measurement was made on, without host name, user and paths; and how busy that is."""

import os
import platform
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

# packages whose version changes the figures; named only where the run really loaded them
_RUNTIMES = ("llama_cpp", "onnxruntime", "transformers", "torch")

# GGML_MAX_N_THREADS (ggml.h), beyond which llama.cpp's arrays end. The others have no limit, and no use for more.
MAX_THREADS = 512


@dataclass(frozen=True)
class Machine:
    """`memory_bytes` is None and `cpu` empty where the system does not say."""

    cpu: str
    cores: int
    memory_bytes: int | None
    os: str
    python: str
    versions: dict[str, str]


def this_machine() -> Machine:
    loaded = {name: getattr(sys.modules[name], "__version__", "unknown") for name in _RUNTIMES if name in sys.modules}
    return Machine(cpu_model(), _cores(), _memory(), platform.platform(), platform.python_version(), loaded)


def cpu_model() -> str:
    """ "" where the system does not say. Linux keeps the name in /proc/cpuinfo; `platform` knows it elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", "replace").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor()


def _cores() -> int:
    """The cores that this process may use, which in a container are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def busy_seconds(stat: Path, cpus: Collection[str] = ("cpu",), *, niced: bool = True) -> float | None:
    """What programs of this system have used of these CPUs since boot, as /proc/stat has it; "cpu" is all together.

    Waiting and what another virtual machine took are left out, and programs of a lower priority without `niced`. None
    where the system does not say. Format: man 5 proc_stat.
    """
    try:
        rows = [line.split() for line in stat.read_text("ascii").splitlines()]
        found = [row for row in rows if row and row[0] in cpus]
        ticks = 0
        for _, *counts in found:
            user, nice, system, _, _, irq, soft_irq = map(int, counts[:7])
            ticks += user + system + irq + soft_irq + (nice if niced else 0)
        return ticks / os.sysconf("SC_CLK_TCK") if found else None
    except (OSError, ValueError, AttributeError):  # Windows has no sysconf
        return None
