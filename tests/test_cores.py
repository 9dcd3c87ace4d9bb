"""How many threads an engine runs with: the cores there are, and those that other programs leave free."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgedc.backends import cores
from edgedc.backends.cores import FreeCores, _limits, _Use, _use, physical_cores

linux = pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="only Linux says what its cores do")


@pytest.mark.parametrize(
    ("busy", "own", "threads"),
    [
        (0.0, 0.0, 4),  # nobody works
        (4.0, 4.0, 4),  # this process alone works, waiting threads and all
        (4.0, 3.0, 3),  # another program has one core
        (1.4, 1.0, 4),  # less than half of one
        (4.0, 1.0, 1),
        (4.0, 0.0, 1),  # and never none
    ],
)
def test_others_cores_are_left_to_them(monkeypatch: pytest.MonkeyPatch, busy: float, own: float, threads: int) -> None:
    began = time.perf_counter() - 1
    monkeypatch.setattr(cores, "_LOADED", _Use(at=began, busy=50.0, own=7.0, cpus=4))
    monkeypatch.setattr(cores, "_use", lambda: _Use(at=began + 1, busy=50.0 + busy, own=7.0 + own, cpus=4))
    assert FreeCores(4).threads() == threads


def test_hyperthreads_that_are_free_make_up_for_those_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.perf_counter() - 1
    monkeypatch.setattr(cores, "_LOADED", _Use(at=began, busy=0.0, own=0.0, cpus=8))
    monkeypatch.setattr(cores, "_use", lambda: _Use(at=began + 1, busy=3.0, own=0.0, cpus=8))
    assert FreeCores(4).threads() == 4


def test_threads_come_back_when_the_others_have_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.perf_counter() - 10
    uses = iter([_Use(now + 1, 1.0, 0.0, 2), _Use(now + 2, 1.0, 0.0, 2)])
    monkeypatch.setattr(cores, "_LOADED", _Use(now, 0.0, 0.0, 2))
    monkeypatch.setattr(cores, "_use", lambda: next(uses))
    free = FreeCores(2)
    assert [free.threads(), free.threads()] == [1, 2]


def test_it_looks_ten_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_LOADED", _Use(time.perf_counter(), 0.0, 0.0, 2))
    monkeypatch.setattr(cores, "_use", lambda: pytest.fail("looked again at once"))
    assert FreeCores(2).threads() == 2


def test_where_the_system_says_nothing_it_is_every_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _use(tmp_path / "stat") is None
    monkeypatch.setattr(cores, "_LOADED", None)
    assert FreeCores(6).threads() == 6


@linux
def test_a_busy_program_is_seen(monkeypatch: pytest.MonkeyPatch, hog: None) -> None:
    cpus = len(os.sched_getaffinity(0))
    if cpus == 1:
        pytest.skip("one core, which is never given up")
    monkeypatch.setattr(cores, "_LOADED", _use())
    time.sleep(0.5)
    assert FreeCores(cpus).threads() < cpus


@pytest.fixture
def hog() -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as busy:
        assert busy.stdout
        busy.stdout.readline()
        yield
        busy.kill()


@linux
@pytest.mark.parametrize(("nice", "seconds"), [(0, 1.0), (5, 3.0)])
def test_programs_of_a_lower_priority_count_for_one_of_their_own_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nice: int, seconds: float
) -> None:
    stat = tmp_path / "stat"
    lines = [  # user nice system idle iowait irq softirq steal guest guest_nice
        "cpu  90 400 20 5000 70 10 6 99 0 0",
        "cpu0 30 100 10 2500 30 5 3 50 0 0",
        "cpu1 30 100 10 2500 30 5 7 50 0 0",
        "cpu7 30 200 10 2500 30 5 3 50 0 0",
        "intr 1234 0 9",
    ]
    stat.write_text("\n".join(lines))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    monkeypatch.setattr(os, "getpriority", lambda which, who: nice)
    use = _use(stat)
    assert use is not None
    assert (use.busy, use.cpus) == (pytest.approx(seconds), 2)


@pytest.mark.parametrize(
    ("own", "files", "limits"),
    [
        ("0::/", {"cpu.max": "150000 100000\n"}, [1.5]),  # in a container
        ("0::/", {"cpu.max": "max 100000\n"}, []),
        ("0::/users/a:b", {"users/a:b/cpu.max": "max 100000", "users/cpu.max": "200000 100000"}, [2.0]),
        ("4:cpu,cpuacct:/docker/1", {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, [0.5]),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, []),
        ("5:cpuset:/\n0::/", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, []),
        ("0::/", {"cpu.max": "rubbish"}, []),
    ],
)  # fmt: skip
def test_a_containers_share_of_the_cores(tmp_path: Path, own: str, files: dict[str, str], limits: list[float]) -> None:
    groups = tmp_path / "cgroup"
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    (tmp_path / "own").write_text(own + "\n")
    assert list(_limits(groups, tmp_path / "own")) == limits
    assert list(_limits(groups, tmp_path / "absent")) == []


def test_hyperthreads_count_once_and_small_cores_not_at_all(tmp_path: Path) -> None:
    pairs = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"} | {cpu: str(cpu) for cpu in range(4, 10)}
    for cpu, siblings in pairs.items():
        topology = tmp_path / f"system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(siblings + "\n")
    assert cores._linux_cores(set(pairs), tmp_path) == 8
    assert cores._linux_cores({20, 21}, tmp_path) == 2  # of which the system says nothing
    (tmp_path / "cpu_core").mkdir()
    (tmp_path / "cpu_core" / "cpus").write_text("\n")
    assert cores._linux_cores(set(pairs), tmp_path) == 8
    (tmp_path / "cpu_core" / "cpus").write_text("0-3,9\n")
    assert cores._linux_cores(set(pairs), tmp_path) == 3
    assert cores._linux_cores({1, 3, 4}, tmp_path) == 2
    assert cores._linux_cores({5, 6}, tmp_path) == 2  # bound to the small ones


@pytest.mark.parametrize(
    ("said", "most"), [({"hw.perflevel0.physicalcpu": 8}, 8), ({"hw.physicalcpu": 4}, 4), ({}, 12)]
)
def test_on_a_mac_it_is_the_performance_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: dict[str, int], most: int
) -> None:
    sysctl = tmp_path / "sysctl"
    answers = "".join(f"[ $2 = {name} ] && echo {value} && exit 0\n" for name, value in said.items())
    sysctl.write_text(f"#!/bin/sh\n{answers}echo unknown oid >&2\nexit 1\n")
    sysctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert physical_cores() == most


@pytest.mark.parametrize(("cpus", "most"), [(8, 4), (1, 1), (None, 1)])
def test_where_programs_are_not_bound_to_cores_it_is_half_of_the_cpus(
    monkeypatch: pytest.MonkeyPatch, cpus: int | None, most: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    assert (physical_cores(), _use()) == (most, None)


@pytest.mark.parametrize(("quota", "most"), [(0.5, 1), (1.0, 1), (1.5, 2)])
def test_no_more_threads_than_a_containers_share(monkeypatch: pytest.MonkeyPatch, quota: float, most: int) -> None:
    there = physical_cores()
    monkeypatch.setattr(cores, "_quota", lambda: quota)
    assert physical_cores() == min(there, most)
