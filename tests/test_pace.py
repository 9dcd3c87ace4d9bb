"""The pace over real seconds: short ones."""

import functools
import threading
import time

import pytest
from wire import ASKED, GOOD, error, server, solver_at

from edgedc.solvers.pace import Pace


def seconds(call, *args):
    started = time.monotonic()
    call(*args)
    return time.monotonic() - started


def test_without_limits_nobody_waits():
    pace = Pace()
    assert seconds(lambda: [pace.wait(10**9) for _ in range(100)]) < 0.05


def test_requests_are_spread_over_all_threads():
    pace, times = Pace(requests_per_minute=1200), []

    def ask():
        for _ in range(3):
            pace.wait(1)
            times.append(time.monotonic())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.sort()
    # A late thread may come close before the next one; over any stretch there are never too many.
    assert all(times[k + n] - times[k] >= 0.05 * (n - 1) for n in (3, 6, 11) for k in range(12 - n))
    assert times[-1] - times[0] < 2


def test_tokens_count_at_their_most_until_they_are_given_back():
    pace = Pace(tokens_per_minute=60_000)  # a millisecond each
    pace.wait(100)
    assert seconds(pace.wait, 300) == pytest.approx(0.1, abs=0.08)
    pace.give_back(290)
    assert seconds(pace.wait, 1) < 0.1


def test_a_server_that_says_wait_holds_all_back():
    pace = Pace()
    pace.hold(0.2)
    pace.hold(0.1)
    assert seconds(pace.wait, 1) >= 0.19


def test_what_a_pace_lets_a_call_wait_is_not_of_its_time():
    busy = error("503 Busy", "later", "Retry-After: 0")
    pace = Pace(requests_per_minute=100)
    with server(busy, GOOD) as made, solver_at(made.url, retries=1, timeout_s=0.55, read_s=0.5, pace=pace) as solver:
        assert solver.solve(ASKED, max_tokens=10).text == "The answer is: 7"


def test_what_a_reply_does_not_use_is_given_back_to_the_pace():
    pace = Pace(requests_per_minute=300, tokens_per_minute=60_000)  # a millisecond each
    with server(GOOD, GOOD) as made, solver_at(made.url, pace=pace) as solver:
        ask = functools.partial(solver.solve, ASKED, max_tokens=2000)  # and 25 are used
        assert 0.2 <= seconds(lambda: [ask(), ask()]) < 1


def test_a_wait_that_a_server_asks_one_call_for_is_every_call_s(monkeypatch):
    monkeypatch.setattr("edgedc.solvers.openai._sleep", lambda *_: None)  # as if another call came meanwhile
    again = error("429 Busy", "later", "Retry-After: 0.3")
    with server(again, GOOD) as made, solver_at(made.url, retries=1, pace=Pace()) as solver:
        assert seconds(lambda: solver.solve(ASKED, max_tokens=10)) >= 0.3
