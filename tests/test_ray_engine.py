"""The same job on a real Ray of two workers. Each driver is a program of its own, as it is in use."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed (edgedc[ray])"),
    pytest.mark.slow,
]

DRIVER = """
import os, sys, time
from contextlib import closing, contextmanager
from pathlib import Path
from edgedc.errors import BudgetError, InputError, SolverTimeout
from edgedc.files import RowWriter
from train.calls.engines import Failure, run

OUT, ENGINE, COUNT, MODE = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]

class Doubling:
    def __init__(self, mode):
        self.mode = mode

    @contextmanager
    def open(self, share):
        if self.mode == "closed":
            raise InputError("model.gguf: not there: name it with --model")
        self.share = share
        yield self.call

    def call(self, item):
        with Path(f"{OUT}.asked").open("a") as asked:
            asked.write(f"{item} {os.getpid()} {self.share}\\n")
        if self.mode == "dies" and item == 60:
            os._exit(1)
        if self.mode == "faults" and item % 5 == 0:
            raise SolverTimeout(f"no answer to {item}")
        if self.mode == "budget" and item >= 40:
            raise BudgetError("the next call could cost more than is left")
        if self.mode == "bug" and item == 40:
            raise ZeroDivisionError(f"item {item}")
        time.sleep(3600 if self.mode == "hangs" and item == 40 else 0.02)
        return {"key": str(item), "double": 2 * item}

if __name__ == "__main__":
    failed = 0
    with RowWriter(OUT) as writer:
        missing = (n for n in range(COUNT) if str(n) not in writer.rows)
        try:
            with closing(run(Doubling(MODE), missing, engine=ENGINE, concurrency=4)) as made:
                for row in made:
                    if isinstance(row, Failure):
                        failed += 1
                    else:
                        writer.write(row)
        except Exception as error:
            print(type(error).__name__, error, *getattr(error, "__notes__", ()))
        except KeyboardInterrupt:
            print("interrupted")
    print("failed", failed, flush=True)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray of two processors that runs already; its address."""
    code = (
        "import logging, ray\n"
        "started = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)\n"
        "print(started.address_info['gcs_address'], flush=True)\n"
        "input()\n"
    )
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate("\n", timeout=60)


def start(folder: Path, engine: str, count: int, mode: str = "", address: str = "") -> "subprocess.Popen[str]":
    driver = folder / "driver.py"
    driver.write_text(DRIVER)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    if address:
        environment |= {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(
        [sys.executable, str(driver), str(folder / f"{engine}.jsonl"), engine, str(count), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # a group of its own, which Ctrl-C reaches as a terminal's would
    )


def finish(process: "subprocess.Popen[str]") -> str:
    """What it printed; nothing on stderr."""
    printed, noise = process.communicate(timeout=300)
    assert not noise
    assert process.returncode == 0
    return printed


def written(folder: Path, engine: str = "ray") -> list[dict[str, object]]:
    """The rows of a file, in order of their items. A line that a kill left incomplete is none."""
    lines = (folder / f"{engine}.jsonl").read_text().split("\n")[:-1]
    return sorted((json.loads(line) for line in lines), key=lambda row: int(row["key"]))


def asked(folder: Path) -> list[tuple[int, int, float]]:
    lines = (line.split() for line in (folder / "ray.jsonl.asked").read_text().splitlines())
    return [(int(item), int(worker), float(share)) for item, worker, share in lines]


def of_ray(group: int) -> list[int]:
    """Living processes of Ray in a session."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,sess=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split(None, 3) for line in listed.splitlines())
    alive = [(int(pid), int(session), args) for pid, session, state, args in rows if not state.startswith("Z")]
    return [pid for pid, session, args in alive if session == group and "ray" in args]


def all_gone(session: int, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while of_ray(session) and time.monotonic() < deadline:
        time.sleep(0.2)
    return of_ray(session) == []


def test_the_rows_are_those_of_threads_with_a_kill_in_between_and_no_process_stays(tmp_path: Path):
    finish(start(tmp_path, "threads", 300))
    killed = start(tmp_path, "ray", 300)
    while not (tmp_path / "ray.jsonl").exists() or len(written(tmp_path)) < 60:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    assert 60 <= len(written(tmp_path)) < 300

    again = start(tmp_path, "ray", 300)
    assert finish(again) == "failed 0\n"
    assert all_gone(again.pid, within_s=10)
    assert written(tmp_path) == written(tmp_path, "threads")
    # nothing that was written is asked again; what was in flight is
    calls = asked(tmp_path)
    assert 300 <= len(calls) <= 300 + 4 * 4
    # a killed driver cannot stop Ray; Ray's own processes look for it, the last of them every few seconds
    assert all_gone(killed.pid, within_s=60)


def test_two_workers_of_a_running_cluster_divide_the_work_and_the_shares(tmp_path: Path, cluster: str):
    assert finish(start(tmp_path, "ray", 200, address=cluster)) == "failed 0\n"
    calls = asked(tmp_path)
    assert sorted(item for item, _, _ in calls) == list(range(200))
    assert {share for _, _, share in calls} == {0.5}
    workers = [worker for _, worker, _ in calls]
    assert len(set(workers)) == 2
    assert min(workers.count(worker) for worker in set(workers)) > 20


def test_faults_are_told_and_asked_again(tmp_path: Path, cluster: str):
    assert finish(start(tmp_path, "ray", 100, "faults", cluster)) == "failed 20\n"
    assert len(written(tmp_path)) == 80
    assert finish(start(tmp_path, "ray", 100, "", cluster)) == "failed 0\n"
    assert [row["key"] for row in written(tmp_path)] == [str(n) for n in range(100)]


def test_a_worker_that_dies_is_said_and_costs_no_row(tmp_path: Path, cluster: str):
    printed = finish(start(tmp_path, "ray", 200, "dies", cluster))
    assert printed.startswith("EdgedcError Ray: The actor died unexpectedly")
    assert "run again" in printed
    assert len(written(tmp_path)) < 200
    assert [item for item, _, _ in asked(tmp_path)].count(60) == 1  # and is not tried on another worker
    finish(start(tmp_path, "ray", 200, "", cluster))
    assert [row["key"] for row in written(tmp_path)] == [str(n) for n in range(200)]


def test_the_budget_and_errors_arrive_as_what_they_are(tmp_path: Path, cluster: str):
    assert finish(start(tmp_path, "ray", 1000, "budget", cluster)).startswith("BudgetError the next call could cost")
    assert [row["key"] for row in written(tmp_path)] == [str(n) for n in range(40)]
    assert len(asked(tmp_path)) < 100

    assert finish(start(tmp_path, "ray", 1000, "bug", cluster)).startswith("ZeroDivisionError item 40 Traceback")
    closed = finish(start(tmp_path, "ray", 1000, "closed", cluster))
    assert closed == "InputError model.gguf: not there: name it with --model\nfailed 0\n"


def test_ctrl_c_keeps_what_comes_and_leaves_nothing_running(tmp_path: Path):
    process = start(tmp_path, "ray", 5000, "hangs")
    while not (tmp_path / "ray.jsonl").exists() or len(written(tmp_path)) < 60:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert finish(process) == "interrupted\nfailed 0\n"
    assert all_gone(process.pid, within_s=10)
    items = {item for item, _, _ in asked(tmp_path)}
    assert len(items) - len(written(tmp_path)) <= 4


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path):
    printed = finish(start(tmp_path, "ray", 10, address="127.0.0.1:1"))
    assert printed.startswith("EdgedcError Ray at 127.0.0.1:1 (RAY_ADDRESS): cannot be reached: ")
