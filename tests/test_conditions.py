"""Energy meters and conditions, from a folder that stands for the system's."""

import time
from pathlib import Path

import pytest

from edgedc.bench.conditions import watched
from edgedc.bench.energy import Energy, find_meter, metered
from edgedc.errors import InputError


def put(root: Path, files: dict[str, object]) -> None:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


def rapl(root: Path, energy: int, other: int = 0) -> None:
    zones = {"intel-rapl:0": ("package-0", energy), "intel-rapl:0:0": ("core", 7), "intel-rapl:1": ("package-1", other)}
    for zone, (name, value) in zones.items():
        where = f"class/powercap/{zone}"
        put(root, {f"{where}/name": name, f"{where}/energy_uj": value, f"{where}/max_energy_range_uj": 1000_000_000})


def test_rapl_sums_the_packages_alone_and_knows_that_counters_start_again(tmp_path):
    rapl(tmp_path, 990_000_000)
    meter = find_meter(None, tmp_path)
    assert meter.source == "RAPL (2 packages)"
    with metered(meter) as energy:
        rapl(tmp_path, 5_000_000, 2_500_000)  # 10 J to the end of the range, 5 J behind it; 2.5 J of the other
    assert energy.gross == pytest.approx(17.5)
    assert energy.net is None  # nobody measured the idle machine


def test_what_an_idle_machine_draws_is_taken_off():
    assert Energy("x", True, seconds=10, gross=120, idle_watts=5).net == 70
    assert Energy("x", True, seconds=10, gross=20, idle_watts=5).net == 0


def test_a_discharging_battery_is_read_and_one_that_is_charged_is_not(tmp_path):
    battery = "class/power_supply/BAT0"
    put(tmp_path, {f"{battery}/type": "Battery", f"{battery}/status": "Charging", f"{battery}/power_now": 9_000_000})
    assert find_meter(None, tmp_path) is None
    put(tmp_path, {f"{battery}/status": "Discharging"})
    meter = find_meter(None, tmp_path)
    with metered(meter) as energy:
        time.sleep(0.05)
    assert energy.gross == pytest.approx(9 * energy.seconds, rel=0.2)


@pytest.mark.parametrize(
    "said",
    [
        {"current_now": 2_000_000, "voltage_now": 12_000_000},
        {"current_now": -2_000_000, "voltage_now": 12_000_000},  # the kernel's sign for what leaves the battery
        {"power_now": -24_000_000},
    ],
)
def test_a_battery_may_say_current_and_voltage_and_either_sign(tmp_path, said):
    battery = "class/power_supply/BAT1"
    put(tmp_path, {f"{battery}/type": "Battery", f"{battery}/status": "Discharging"})
    put(tmp_path, {f"{battery}/{name}": value for name, value in said.items()})
    meter = find_meter(None, tmp_path)
    with metered(meter) as energy:
        time.sleep(0.05)
    assert energy.gross == pytest.approx(24 * energy.seconds, rel=0.2)


def jetson(root: Path, *chips: dict[str, tuple[int, int]]) -> None:
    """Each rail's millivolts and milliamperes, by label."""
    for n, rails in enumerate(chips):
        chip = f"class/hwmon/hwmon{n}"
        put(
            root, {f"{chip}/name": "ina3221", f"{chip}/in7_label": "sum of shunt voltages", f"{chip}/curr4_input": 9999}
        )
        for k, (label, (voltage, current)) in enumerate(rails.items(), 1):
            files = {f"in{k}_label": label, f"in{k}_input": voltage, f"curr{k}_input": current}
            put(root, {f"{chip}/{name}": value for name, value in files.items()})


@pytest.mark.parametrize(
    ("chips", "source", "watts"),
    [
        (
            [{"VDD_IN": (5000, 2000), "VDD_CPU_GPU_CV": (5000, 900), "VDD_SOC": (5000, 500)}],
            "INA3221 (VDD_IN)",
            10.0,
        ),
        (
            [
                {"VDD_GPU_SOC": (19000, 200), "VDD_CPU_CV": (19000, 100), "VIN_SYS_5V0": (5000, 600)},
                {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (5000, 100)},
            ],
            "INA3221 (VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0)",
            8.7,
        ),
    ],
)
def test_a_jetsons_module_is_the_rails_that_make_it_up_each_once(tmp_path, chips, source, watts):
    put(tmp_path, {"class/hwmon/hwmon9/name": "coretemp"})
    jetson(tmp_path, *chips)
    meter = find_meter(None, tmp_path)
    assert meter.source == source
    with metered(meter) as energy:
        time.sleep(0.05)
    assert energy.gross == pytest.approx(watts * energy.seconds, rel=0.01)


def test_a_jetson_of_unknown_rails_or_none_that_can_be_read_is_not_metered(tmp_path):
    jetson(tmp_path, {"VDD_GPU": (5000, 900), "VDD_CPU": (5000, 500)})
    assert find_meter(None, tmp_path) is None
    jetson(tmp_path, {"VDD_IN": (5000, 2000)})
    (tmp_path / "class/hwmon/hwmon0/curr1_input").unlink()
    assert find_meter(None, tmp_path) is None


def test_a_stated_wattage_is_an_estimate_and_says_so(tmp_path):
    with metered(find_meter(15, tmp_path)) as energy:
        time.sleep(0.02)
    assert (energy.measured, energy.source) == (False, "estimate: 15 W stated")
    assert energy.gross == pytest.approx(15 * energy.seconds, rel=0.2)
    for watts in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="--watts"):
            find_meter(watts, tmp_path)


def stat(root: Path, busy: int) -> None:
    put(root, {"proc/stat": f"cpu  {busy} 0 0 5000 0 0 0 0 0 0"})


def test_other_programs_heat_battery_and_governor_are_told(tmp_path):
    cpu, zone = "sys/devices/system/cpu/cpu0", "sys/class/thermal/thermal_zone"
    put(tmp_path, {f"{cpu}/cpufreq/scaling_governor": "powersave", f"{cpu}/thermal_throttle/core_throttle_count": 3})
    put(tmp_path, {f"{zone}0/type": "acpitz", f"{zone}0/temp": 99_000})
    put(tmp_path, {f"{zone}1/type": "x86_pkg_temp", f"{zone}1/temp": 91_500})
    put(tmp_path, {"sys/class/power_supply/BAT0/type": "Battery", "sys/class/power_supply/BAT0/status": "Discharging"})
    stat(tmp_path, 0)
    with watched(tmp_path) as conditions:
        time.sleep(0.05)
        stat(tmp_path, 1000)
        put(tmp_path, {f"{cpu}/thermal_throttle/core_throttle_count": 5})
    assert (conditions.throttled, conditions.hottest_c) == (2, 91.5)
    said = "; ".join(conditions.warnings())
    for words in ("other programs", "slowed down for heat 2 times", "92 °C", "on battery", "powersave"):
        assert words in said


def test_a_quiet_machine_and_one_that_says_nothing_warn_of_nothing(tmp_path):
    with watched(tmp_path) as silent:
        pass
    assert (silent.others, silent.throttled, silent.warnings()) == (None, None, [])
    stat(tmp_path, 100)
    with watched(tmp_path) as quiet:
        time.sleep(0.01)
    assert quiet.others == 0
    assert quiet.warnings() == []
