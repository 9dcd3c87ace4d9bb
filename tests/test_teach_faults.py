"""`edgedc teach` against a server that fails in every way there is, over a real socket: nothing lost, nothing twice."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgedc.cli import cli
from edgedc.prices import find_price
from edgedc.usage import Usage

KEY = "sk-planted-0123456789"
PRICE = find_price("gpt-4o")
REPLY = f"1. First?\n2. Then? {KEY}"  # a server that repeats the key
USAGE = {"prompt_tokens": 130, "completion_tokens": 12, "total_tokens": 142}
COST = PRICE.cost(Usage(130, 12))
GOOD = json.dumps(
    {"choices": [{"message": {"role": "assistant", "content": REPLY}, "finish_reason": "stop"}], "usage": USAGE}
).encode()
FAULTS = ("429", "429 later", "500", "middle", "half", "type", "stall", "nothing", "huge")
_MOST = {"huge": 2, "stall": 5}  # 50 MB each, and seconds each


class Flaky(ThreadingHTTPServer):
    """A teacher that fails at a rate, and counts what it was asked, what it gave and what it would bill."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, rate, faults=FAULTS, seconds=0.0):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults, self.rate, self.seconds, self.random = faults, rate, seconds, random.Random(0)
        self.lock, self.over = threading.Lock(), threading.Event()
        self.given, self.failed, self.billed = Counter(), Counter(), 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def next_act(self):
        with self.lock:
            if self.random.random() >= self.rate:
                return "good"
            act = self.random.choice(self.faults)
            if self.failed[act] >= _MOST.get(act, 1000):
                act = "half"
            self.failed[act] += 1
            return act


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format, *args): ...

    def handle(self):
        try:
            super().handle()
        except OSError:  # the client hung up, as it should
            self.close_connection = True

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == f"Bearer {KEY}"
        server, act = self.server, self.server.next_act()
        time.sleep(server.seconds)
        if act in ("good", "middle", "half", "stall"):
            with server.lock:
                server.billed += 1  # it has done the work
        if act == "good":
            with server.lock:
                server.given[request["messages"][0]["content"], request.get("seed")] += 1
            self.send(200, GOOD)
        elif act == "429":
            self.send(429, b'{"error": "slow down"}', ("Retry-After", "0"))
        elif act == "429 later":
            self.send(429, b'{"error": "slow down"}')
        elif act == "500":
            self.send(500, f'{{"error": "broken, {KEY}"}}'.encode(), ("Retry-After", "0"))
        elif act == "half":
            self.send(200, GOOD[: len(GOOD) // 2])
        elif act == "type":
            self.send(200, b"<html>Log in</html>", kind="text/html")
        elif act == "middle":
            self.send(200, GOOD[:50], length=len(GOOD))
            self.close_connection = True
        elif act == "stall":
            self.send(200, GOOD[:50], length=len(GOOD))
            server.over.wait(20)
            self.close_connection = True
        elif act == "huge":
            self.send(200, b"[", length=50 * 2**20)
            for _ in range(50):
                self.wfile.write(b" " * 2**20)
        else:
            self.close_connection = True

    def send(self, status, body, *headers, kind="application/json", length=None):
        self.send_response(status)
        for header in (("Content-Type", kind), ("Content-Length", str(length or len(body))), *headers):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def flaky(*args, **settings):
    server = Flaky(*args, **settings)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def command(server, out, *args):
    where = ("--teacher", "gpt-4o", "--teacher-url", server.url)
    return [str(arg) for arg in ("teach", *where, *args, out)]


def rows_in(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def spent(out):
    """What the file and its .spending say, the worst of the calls that are not accounted for included."""
    beside, rows = out.with_name(f"{out.name}.spending"), {row["key"]: row for row in rows_in(out)}
    calls = {call["key"]: call for call in rows_in(beside)} if beside.exists() else {}
    open_calls = sum(call["lost"] + (0 if key in rows else call["asked"]) for key, call in calls.items())
    return sum(row["cost"] for row in rows.values()) + open_calls


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("EDGEDC_API_KEY", KEY)


def test_1000_rows_with_a_fifth_of_faults_end_complete_and_within_budget(tmp_path):
    out, said = tmp_path / "rows.jsonl", []
    with flaky(0.2) as server:
        args = ("--limit", 500, "--draws", 2, "--temperature", 0.7, "--draw-seed", 40, "--max-cost", 8, "--timeout", 8)
        for _ in range(10):
            run = CliRunner().invoke(cli, command(server, out, *args, "--concurrency", 24))
            said.append(f"{run.output} {run.exception!r}")
            if run.exit_code == 0:
                break
        assert run.exit_code == 0, said[-1]
    assert set(server.failed) == set(FAULTS)
    rows = rows_in(out)
    assert len(rows) == len({row["key"] for row in rows}) == len({(row["id"], row["draw"]) for row in rows}) == 1000
    assert {row["outcome"] for row in rows} == {"ok"}
    assert {seed for _, seed in server.given} == {40, 41}
    assert len(server.given) == 1000
    assert set(server.given.values()) == {1}  # nothing that came was asked for again
    assert sum(PRICE.cost(Usage(**row["usage"])) for row in rows) == pytest.approx(1000 * COST)
    assert server.billed * COST <= spent(out) <= 8
    assert f"${spent(out):.6f}" in said[-1]
    assert KEY not in out.read_text() + "".join(said)
    assert "1. First?\n2. Then? ***" in {row["raw"] for row in rows}


def test_with_faults_that_nobody_bills_the_money_is_the_servers_own_count(tmp_path):
    """The ceiling holds the worst case of three calls: the fourth thread waits for one of them."""
    out = tmp_path / "rows.jsonl"
    with flaky(0.3, ("429",)) as server:
        run = CliRunner().invoke(cli, command(server, out, "--limit", 100, "--max-cost", 0.15, "--retries", 9))
    assert run.exit_code == 0, run.output
    assert server.failed["429"] > 20
    assert [row["cost"] for row in rows_in(out)] == [pytest.approx(COST)] * 100
    assert spent(out) == pytest.approx(server.billed * COST)
    assert not out.with_name("rows.jsonl.spending").exists()


def test_the_ceiling_holds_over_reruns(tmp_path):
    out = tmp_path / "rows.jsonl"
    with flaky(0.2, ("500", "middle")) as server:
        for _ in range(4):
            run = CliRunner().invoke(
                cli, command(server, out, "--limit", 400, "--max-cost", 0.25, "--retries", 1, "--max-tokens", 64)
            )
            assert type(run.exception).__name__ == "BudgetError"
    assert 40 < len(rows_in(out)) < 400
    assert server.billed * COST <= spent(out) <= 0.25


def test_what_is_missing_is_said_in_a_line(tmp_path):
    with flaky(0.3, ("half",)) as server:
        run = CliRunner().invoke(cli, command(server, tmp_path / "rows.jsonl", "--limit", 40))
    missing = 40 - len(rows_in(tmp_path / "rows.jsonl"))
    assert run.exit_code == 1
    assert missing > 3
    assert f"{missing} draws are missing, as their calls failed; the same command asks for them again" in str(
        run.exception
    )
    assert "not JSON" in str(run.exception)


def test_after_kill_9_the_rows_are_whole_and_only_what_was_in_flight_is_paid_again(tmp_path):
    out = tmp_path / "rows.jsonl"
    with flaky(0.0, seconds=0.02) as server:
        words = command(server, out, "--limit", 150, "--max-cost", 5, "--concurrency", 4)
        for lines in (20, 60):
            process = subprocess.Popen(
                [sys.executable, "-m", "edgedc", *words],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=Path(__file__).parents[1],
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            )
            while not out.exists() or out.read_bytes().count(b"\n") < lines:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert lines <= len(rows_in(out)) < 150
            assert server.billed * COST <= spent(out) <= 5
        run = CliRunner().invoke(cli, words)
    assert run.exit_code == 0, run.output
    assert len({row["key"] for row in rows_in(out)}) == len(rows_in(out)) == 150
    assert sum(server.given.values()) <= 150 + 2 * 4
    assert server.billed * COST <= spent(out) <= 5


def test_the_pace_is_kept_by_all_threads_together(tmp_path):
    with flaky(0.0) as server:
        started = time.monotonic()
        args = ("--limit", 13, "--concurrency", 8, "--requests-per-minute", 600)
        run = CliRunner().invoke(cli, command(server, tmp_path / "rows.jsonl", *args))
    assert run.exit_code == 0, run.output
    assert time.monotonic() - started >= 12 * 0.1
    assert "at least 1 s" in run.stderr
