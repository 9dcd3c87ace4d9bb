"""Where a run stands: steps, losses, tokens per second, memory, time left."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgedc.errors import EdgedcError


@dataclass(frozen=True)
class Progress:
    """`tokens_per_s` counts every token of the rows, padding left out, since the last report.

    `memory_bytes` is the GPU's where there is one, else the process's. `held_out` holds the figures of a measurement
    on held-out questions; `loss` is then the last one known.
    """

    step: int
    steps: int
    loss: float
    tokens_per_s: float
    memory_bytes: int
    eta_s: float
    held_out: dict[str, float] = field(default_factory=dict)


class Meter:
    """Tokens and seconds of a run, those of the run that it goes on from included."""

    def __init__(self) -> None:
        self.tokens = self._tokens_before = 0
        self._seconds_before, self._started = 0.0, time.monotonic()
        self._last = (self._started, 0)

    def go_on(self, history: list[dict[str, Any]]) -> None:
        """Count on from the last entry of an earlier run's history."""
        if history:
            self._tokens_before, self._seconds_before = history[-1]["tokens"], history[-1]["seconds"]

    def read(self, *, pace: bool) -> dict[str, float]:
        """Totals, and if asked for the pace since the last reading."""
        now, (before, tokens) = time.monotonic(), self._last
        self._last = (now, self.tokens)
        made = {
            "tokens": self._tokens_before + self.tokens,
            "seconds": round(self._seconds_before + now - self._started, 3),
            "memory_bytes": memory_now(),
        }
        return made | ({"tokens_per_s": round((self.tokens - tokens) / max(now - before, 1e-9), 1)} if pace else {})

    def eta(self, steps_done: int, steps_left: int) -> float:
        """Seconds left, by the pace of this process's own steps."""
        return (time.monotonic() - self._started) / max(steps_done, 1) * steps_left


def memory_now() -> int:
    """Bytes that this process holds: of the GPU where there is one, else of the machine (where Linux says; else the
    most so far)."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    pages = Path("/proc/self/statm")
    return int(pages.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.is_file() else memory_peak()


def memory_peak() -> int:
    """The most bytes that this process has held; see memory_now."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return 0  # it does not say without another package
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere


@contextmanager
def full_memory_told() -> Iterator[None]:
    """Raises EdgedcError when the block fails for want of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise
        whose = "GPU's" if isinstance(error, torch.OutOfMemoryError) else "machine's"
        raise EdgedcError(
            f"the {whose} memory is full: give --accumulation, to work through a batch in parts, or "
            "--gradient-checkpointing, or --tuning qlora for a base that fills it"
        ) from error
