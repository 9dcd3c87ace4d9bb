"""Joules: from the processor's counters, the graphics card's, a Jetson's rails or the battery; else a stated wattage.

The counters are a few lines of text that the system keeps, so they are read here; a library would bring a dozen
packages for it. What is metered differs, and every figure names it: RAPL meters processor packages without memory,
NVML whole cards, INA3221 a Jetson's module, a battery the whole device, powermetrics Apple's CPU, GPU and ANE.
RAPL: https://docs.kernel.org/power/powercap/powercap.html. Batteries: https://docs.kernel.org/power/power_supply_class.html
(micro-watts, micro-watt-hours). INA3221: https://docs.kernel.org/hwmon/ina3221.html (millivolts, milliamperes).
"""

import contextlib
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgedc.errors import InputError

_EVERY_S = 0.5  # between two readings of a meter that shows power, not energy
_POWERMETRICS = ("sudo", "-n", "powermetrics", "--samplers", "cpu_power", "-n", "1", "-i", "500")
_COMBINED = re.compile(r"^Combined Power.*?:\s*(\d+) mW", re.MULTILINE)
# The rails that make up a Jetson's module: of Orin Nano, Orin NX and Xavier NX; of AGX Orin; of AGX Xavier. Others that
# are there are parts of these (NVIDIA's Jetson Linux Developer Guide; for AGX Xavier github.com/energymon/energymon).
_MODULES = (
    ("VDD_IN",),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
)


class Meter(Protocol):
    """`joules` is what was used since some moment; `measured` is False where a wattage was assumed."""

    source: str
    measured: bool

    def joules(self) -> float: ...


@dataclass
class Energy:
    """What a stretch of work used. `net` has the idle machine's share taken off; None where that is not known."""

    source: str
    measured: bool
    seconds: float = 0.0
    gross: float = 0.0
    idle_watts: float | None = None

    @property
    def net(self) -> float | None:
        return None if self.idle_watts is None else max(0.0, self.gross - self.idle_watts * self.seconds)


@contextmanager
def metered(meter: Meter | None, idle_watts: float | None = None) -> Iterator[Energy | None]:
    """The energy of the block, whole when it ends; None without a meter."""
    if meter is None:
        yield None
        return
    energy = Energy(meter.source, meter.measured, idle_watts=idle_watts)
    begun, before = time.perf_counter(), meter.joules()
    yield energy
    energy.gross, energy.seconds = meter.joules() - before, time.perf_counter() - begun


def idle_watts(meter: Meter, seconds: float) -> float:
    """What the machine draws while this process does nothing, and others what they do."""
    begun, before = time.perf_counter(), meter.joules()
    time.sleep(seconds)
    return (meter.joules() - before) / (time.perf_counter() - begun)


def find_meter(watts: float | None, root: Path = Path("/sys")) -> Meter | None:
    """The best meter here that can be read: a Jetson's, RAPL and NVML together, a discharging battery, powermetrics.

    `watts`, where stated, comes before all of them. None when there is nothing. Raises InputError for watts that
    no machine draws.
    """
    if watts is not None:
        if not 0 < watts < 100_000:
            raise InputError(f"--watts {watts}: give what the machine draws under load, in watts")
        return Stated(watts)
    if jetson := find_jetson(root):
        return jetson
    parts = [meter for meter in (find_rapl(root), find_nvml()) if meter]
    if parts:
        return parts[0] if len(parts) == 1 else Sum(parts)
    return find_battery(root) or find_powermetrics()


class Stated:
    measured = False

    def __init__(self, watts: float) -> None:
        self.source = f"estimate: {watts:g} W stated"
        self._watts = watts

    def joules(self) -> float:
        return self._watts * time.perf_counter()


class Sum:
    measured = True

    def __init__(self, parts: list[Meter]) -> None:
        self.source = " + ".join(part.source for part in parts)
        self._parts = parts

    def joules(self) -> float:
        return sum(part.joules() for part in self._parts)


class Rapl:
    """Counters of the processor packages. Each starts again at 0 behind its range, which takes minutes at least."""

    measured = True

    def __init__(self, zones: list[Path]) -> None:
        self.source = f"RAPL ({len(zones)} package{'s' if len(zones) > 1 else ''})"
        self._ranges = {zone: number_in(zone / "max_energy_range_uj") or 0 for zone in zones}
        self._last = {zone: self._read(zone) for zone in zones}
        self._total = 0.0

    def joules(self) -> float:
        for zone, before in self._last.items():
            now = self._read(zone)
            self._total += (now - before if now >= before else now - before + self._ranges[zone]) / 1e6
            self._last[zone] = now
        return self._total

    def _read(self, zone: Path) -> float:
        value = number_in(zone / "energy_uj")
        if value is None:
            raise InputError(f"{zone}: its energy counter cannot be read any more; give --watts")
        return value


def find_rapl(root: Path) -> Meter | None:
    """Only root may read the counters on most systems, so that there may be none here."""
    zones = [z for z in sorted(root.glob("class/powercap/intel-rapl:*")) if re.fullmatch(r"intel-rapl:\d+", z.name)]
    packages = [
        z for z in zones if text_in(z / "name").startswith("package") and number_in(z / "energy_uj") is not None
    ]
    return Rapl(packages) if packages else None


class Nvml:
    measured = True

    def __init__(self, read: Callable[[], float], cards: int) -> None:
        self.source = f"NVML ({cards} GPU{'s' if cards > 1 else ''})"
        self.joules = read


def find_nvml() -> Meter | None:
    """NVIDIA's cards (Volta and later), with  pip install nvidia-ml-py."""
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        cards = [pynvml.nvmlDeviceGetHandleByIndex(k) for k in range(pynvml.nvmlDeviceGetCount())]

        def read() -> float:
            return sum(float(pynvml.nvmlDeviceGetTotalEnergyConsumption(card)) for card in cards) / 1000

        read()
    except pynvml.NVMLError:
        return None
    return Nvml(read, len(cards)) if cards else None


class Sampled:
    """Power that is read every now and then, summed up from the first reading on."""

    measured = True

    def __init__(self, source: str, watts: Callable[[], float | None]) -> None:
        self.source = source
        self._watts = watts
        self._lock = threading.Lock()
        self._total, self._at, self._last = 0.0, time.perf_counter(), watts() or 0.0
        threading.Thread(target=self._follow, daemon=True).start()

    def joules(self) -> float:
        with self._lock:
            return self._total + self._last * (time.perf_counter() - self._at)

    def _follow(self) -> None:
        while True:
            time.sleep(_EVERY_S)
            watts = self._watts()
            with self._lock:
                now = time.perf_counter()
                self._total += self._last * (now - self._at)
                self._at, self._last = now, self._last if watts is None else watts


def find_jetson(root: Path) -> Meter | None:
    """Of JetPack 5 and later, whose kernels give the rails as hwmon's."""
    chips = [chip for chip in sorted(root.glob("class/hwmon/*")) if text_in(chip / "name") == "ina3221"]
    rails = {text_in(chip / f"in{k}_label"): (chip, k) for chip in chips for k in (1, 2, 3)}
    module = next((names for names in _MODULES if rails.keys() >= {*names}), None)
    if module is None:
        return None

    def read() -> float | None:
        places = [rails[name] for name in module]
        pairs = [(number_in(c / f"in{k}_input"), number_in(c / f"curr{k}_input")) for c, k in places]
        watts = [volts * amperes / 1e6 for volts, amperes in pairs if volts is not None and amperes is not None]
        return sum(watts) if len(watts) == len(pairs) else None

    return Sampled(f"INA3221 ({' + '.join(module)})", read) if read() is not None else None


def find_battery(root: Path) -> Meter | None:
    """The first battery that is being discharged: on mains power it says nothing of what the device draws."""
    for supply in sorted(root.glob("class/power_supply/*")):
        if text_in(supply / "type") == "Battery" and text_in(supply / "status") == "Discharging":
            read = _battery_watts(supply)
            if read():
                return Sampled("battery discharge (whole device)", read)
    return None


def _battery_watts(supply: Path) -> Callable[[], float | None]:
    """Many drivers give a current that leaves the battery as a negative one."""

    def read() -> float | None:
        if (power := number_in(supply / "power_now")) is not None:
            return abs(power) / 1e6
        current, voltage = number_in(supply / "current_now"), number_in(supply / "voltage_now")
        return None if current is None or voltage is None else abs(current * voltage) / 1e12

    return read


def find_powermetrics() -> Meter | None:
    """Apple's tool, where it may be run without a password."""
    if sys.platform != "darwin" or not shutil.which("powermetrics"):
        return None
    return Sampled("powermetrics (CPU, GPU and ANE)", _apple_watts) if _apple_watts() is not None else None


def _apple_watts() -> float | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(_POWERMETRICS, capture_output=True, text=True, timeout=10, check=False)
        if found := _COMBINED.search(done.stdout):
            return int(found[1]) / 1000
    return None


def text_in(path: Path) -> str:
    """What a file of the system holds; "" where it cannot be read."""
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""


def number_in(path: Path) -> float | None:
    try:
        return float(text_in(path))
    except ValueError:
        return None
