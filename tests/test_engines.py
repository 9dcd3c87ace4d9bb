import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgedc.errors import BudgetError, InputError, MissingExtra, SolverTimeout
from edgedc.files import Row
from train.calls.engines import MOST_FAILURES, Failure, run
from train.calls.remote import CallSettings


@dataclass(frozen=True)
class Doubling:
    """Doubles a number after a while. Items in `broken` fail, those in `dear` are over the budget."""

    seconds: float = 0.0
    broken: frozenset[int] = frozenset()
    dear: frozenset[int] = frozenset()
    bugs: frozenset[int] = frozenset()

    @contextmanager
    def open(self, share: float) -> Iterator[Callable[[int], Row]]:
        yield lambda item: self.double(item, share)

    def double(self, item: int, share: float) -> Row:
        time.sleep(self.seconds)
        if item in self.broken:
            raise SolverTimeout(f"no answer to {item}")
        if item in self.dear:
            raise BudgetError(f"{item} could cost too much")
        if item in self.bugs:
            raise ZeroDivisionError(item)
        return {"key": str(item), "double": 2 * item, "share": share}


def keys(rows: list[Row | Failure[int]]) -> list[int]:
    return sorted(int(row["key"]) for row in rows if isinstance(row, dict))


def test_every_item_has_its_row():
    rows = list(run(Doubling(), range(100), engine="threads", concurrency=4))
    assert sorted(rows, key=lambda row: int(row["key"])) == [
        {"key": str(n), "double": 2 * n, "share": 1.0} for n in range(100)
    ]


def test_calls_run_side_by_side_and_no_more_than_asked_for():
    inside, most, lock = 0, 0, threading.Lock()

    class Counting(Doubling):
        def double(self, item: int, share: float) -> Row:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.02)
            with lock:
                inside -= 1
            return {"key": str(item)}

    assert len(list(run(Counting(), range(20), engine="threads", concurrency=5))) == 20
    assert most == 5


def test_a_slow_call_holds_nothing_up():
    class OneSlow(Doubling):
        def double(self, item: int, share: float) -> Row:
            time.sleep(0.5 if item == 0 else 0)
            return {"key": str(item)}

    rows = [row["key"] for row in run(OneSlow(), range(50), engine="threads", concurrency=2)]
    assert rows[-1] == "0"


def test_items_are_taken_as_there_is_room():
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    with closing(run(Doubling(), endless(), engine="threads", concurrency=3)) as rows:
        for _, _row in zip(range(10), rows, strict=False):
            assert taken <= 10 + 3 + 1
    assert taken <= 14


def test_a_failed_call_is_told_and_the_rest_goes_on():
    rows = list(run(Doubling(broken=frozenset({3, 7})), range(10), engine="threads", concurrency=2))
    assert keys(rows) == [0, 1, 2, 4, 5, 6, 8, 9]
    failures = [row for row in rows if isinstance(row, Failure)]
    assert {(f.item, str(f.error)) for f in failures} == {(3, "no answer to 3"), (7, "no answer to 7")}


def test_twenty_failures_in_a_row_end_the_run():
    job = Doubling(broken=frozenset(range(10, 1000)))
    rows: list[Row | Failure[int]] = []
    with pytest.raises(SolverTimeout, match="no answer to"):
        rows.extend(run(job, range(1000), engine="threads", concurrency=4))
    # list.extend keeps what came before the error
    assert keys(rows) == list(range(10))
    assert MOST_FAILURES <= len(rows) - 10 < 2 * MOST_FAILURES  # of a thousand


def test_failures_with_a_row_between_them_do_not_end_it():
    job = Doubling(broken=frozenset(n for n in range(200) if n % 10))
    assert keys(list(run(job, range(200), engine="threads", concurrency=1))) == list(range(0, 200, 10))


def test_the_budget_stops_the_asking_and_what_is_in_flight_is_kept():
    asked: list[int] = []

    class Budgeted(Doubling):
        def double(self, item: int, share: float) -> Row:
            asked.append(item)
            if item == 5:
                raise BudgetError("the next call could cost too much")
            time.sleep(0.2)  # the others are under way when the budget says no
            return {"key": str(item)}

    rows: list[Row | Failure[int]] = []
    with pytest.raises(BudgetError, match="could cost too much"):
        rows.extend(run(Budgeted(), range(100), engine="threads", concurrency=4))
    assert keys(rows) == sorted(set(asked) - {5})
    assert len(asked) < 12


def test_a_bug_and_a_bad_line_end_the_run_with_their_own_error_once_what_is_in_flight_is_kept():
    rows: list[Row | Failure[int]] = []
    with pytest.raises(ZeroDivisionError):
        rows.extend(run(Doubling(0.01, bugs=frozenset({4})), range(100), engine="threads", concurrency=2))
    assert keys(rows)[:4] == [0, 1, 2, 3]

    def lines() -> Iterator[int]:
        yield from range(6)
        raise InputError("questions.jsonl:7: not JSON")

    rows = []
    with pytest.raises(InputError, match=r"questions\.jsonl:7"):
        rows.extend(run(Doubling(0.01), lines(), engine="threads", concurrency=3))
    assert keys(rows) == list(range(6))


def test_more_threads_than_the_machine_has_are_refused_in_a_line(monkeypatch):
    start, started = threading.Thread.start, 0

    def limited(self: threading.Thread) -> None:
        nonlocal started
        started += 1
        if started > 3:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(InputError, match="--concurrency 9: this machine starts no more than 3"):
        list(run(Doubling(), range(3), engine="threads", concurrency=9))


CTRL_C = """
import sys, time
from contextlib import contextmanager
from train.calls.engines import run

class Slow:
    @contextmanager
    def open(self, share):
        yield self.call
    def call(self, item):
        time.sleep(0.5 if item != 2 else 3600)
        return {"key": str(item)}

try:
    for row in run(Slow(), range(1000), engine="threads", concurrency=4):
        print(row["key"], flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_keeps_what_comes_and_does_not_wait_for_what_hangs(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", CTRL_C],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    first = [process.stdout.readline().strip() for _ in range(3)]  # 0, 1 and 3; 4 and 5 are now in flight
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    rest, error = process.communicate(timeout=30)
    assert sorted(first) == ["0", "1", "3"]
    assert sorted(rest.split()) in (["4", "5", "interrupted"], ["4", "5", "6", "interrupted"])  # 6, where it had begun
    assert process.returncode == 0
    assert not error
    assert time.monotonic() - started < 10


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_ray_that_is_not_installed_is_one_line():
    with pytest.raises(MissingExtra, match=r"pip install 'edgedc\[ray\]'"):
        list(run(Doubling(), range(3), engine="ray", concurrency=2))


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_ray_is_looked_for_before_anything_is_projected():
    with pytest.raises(MissingExtra, match=r"pip install 'edgedc\[ray\]'"):
        CallSettings(engine="ray")
