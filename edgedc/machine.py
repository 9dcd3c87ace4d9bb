"""What a measurement was made on: no host name, no user, no paths."""

import os
import platform
import sys
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
