"""What else happens on the machine while something is measured: power, clock, heat, and other programs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgedc.bench.energy import number_in, text_in
from edgedc.machine import busy_seconds

_OTHERS = 0.25  # cores that other programs may use before a person is told
_HOT_C = 90.0


@dataclass
class Conditions:
    """Of a stretch of time; None where the system does not say.

    `others` are the cores that other programs kept busy, on average. `throttled` counts how often the processor slowed
    itself down for heat, `hottest_c` is the highest temperature at its ends.
    """

    power: Literal["mains", "battery"] | None
    governor: str | None
    others: float | None = None
    throttled: int | None = None
    hottest_c: float | None = None

    def warnings(self) -> list[str]:
        """Why the figures may be worse than the machine can do."""
        said = []
        if self.others is not None and self.others > _OTHERS:
            said.append(f"other programs kept {self.others:.1f} cores busy: close them and measure again")
        if self.throttled:
            said.append(f"the processor slowed down for heat {self.throttled} times: let it cool first")
        if self.hottest_c is not None and self.hottest_c >= _HOT_C:
            said.append(f"the processor is at {self.hottest_c:.0f} °C: it may slow down at any moment")
        if self.power == "battery":
            said.append("on battery: most machines are slower then")
        if self.governor == "powersave":
            said.append("the clock's governor is powersave: on some machines that is slower than performance")
        return said


@contextmanager
def watched(root: Path = Path("/")) -> Iterator[Conditions]:
    """The conditions of the block, whole when it ends. The time of child processes counts once they have ended."""
    conditions = Conditions(
        _power(root), text_in(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None
    )
    begun, busy, own = time.perf_counter(), busy_seconds(root / "proc/stat"), _own_s()
    throttled, hottest = _throttled(root), _hottest(root)
    yield conditions
    seconds, busy_after = time.perf_counter() - begun, busy_seconds(root / "proc/stat")
    if busy is not None and busy_after is not None:
        conditions.others = max(0.0, (busy_after - busy - (_own_s() - own)) / seconds)
    after = _throttled(root)
    conditions.throttled = None if throttled is None or after is None else after - throttled
    conditions.hottest_c = max((t for t in (hottest, _hottest(root)) if t is not None), default=None)


def _power(root: Path) -> Literal["mains", "battery"] | None:
    supplies = list(root.glob("sys/class/power_supply/*"))
    if any(text_in(s / "type") == "Battery" and text_in(s / "status") == "Discharging" for s in supplies):
        return "battery"
    return "mains" if any(text_in(s / "online") == "1" for s in supplies) else None


def _own_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _throttled(root: Path) -> int | None:
    counts = [number_in(p) for p in root.glob("sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def _hottest(root: Path) -> float | None:
    """Degrees Celsius of the hottest zone of the processor, else of any (thermal zones count in thousandths)."""
    zones = [(text_in(z / "type"), number_in(z / "temp")) for z in root.glob("sys/class/thermal/thermal_zone*")]
    known = [(kind, degrees / 1000) for kind, degrees in zones if degrees is not None]
    cpu = [degrees for kind, degrees in known if any(word in kind.lower() for word in ("cpu", "pkg", "core", "soc"))]
    return max(cpu or [degrees for _, degrees in known], default=None)
