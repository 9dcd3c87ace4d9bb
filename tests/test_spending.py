from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest

from edgedc.errors import BudgetError, EdgedcError, InputError, SolverTimeout
from edgedc.prices import Price
from edgedc.prompts import decompose_messages
from edgedc.solvers.loopback import Timing
from edgedc.solvers.simulated import MODEL, simulated_server
from edgedc.tasks.microworld import problems
from edgedc.usage import Usage
from train.calls.projection import GUESSED_REPLY, Replies, cost_of, project
from train.calls.remote import CallSettings, Remote
from train.calls.spending import Spending

PRICE = Price("m", 1e-6, 1e-5, 1e-6, "2026-08", "test")


def opened(path, rows):
    """`rows`: what each has cost, by its key."""
    return Spending(path / "rows.jsonl", rows, sum(rows.values()))


def total(path, rows):
    with opened(path, rows) as spending:
        return spending.total


def failure(cost):
    error = SolverTimeout("no answer")
    error.cost = cost
    return error


def test_without_anything_in_doubt_there_is_no_file(tmp_path):
    with suppress(BudgetError), opened(tmp_path, {}) as spending:
        spending.asking("a", 1.0)
        spending.answered("a", 0.25)
        spending.asking("b", 1.0)
        raise BudgetError  # not made: the budget did not allow it
    assert spending.total == 0.25
    assert list(tmp_path.iterdir()) == []
    assert total(tmp_path, {"a": 0.25}) == 0.25


def test_a_call_that_a_kill_cut_off_counts_at_its_worst_for_ever(tmp_path):
    rows, kept = {}, tmp_path / "rows.jsonl.spending"
    for _ in range(2):
        with opened(tmp_path, rows) as spending:
            spending.asking("a", 1.0)
            spending.asking("b", 1.0)
            rows["b"] = 0.25
            left = kept.read_bytes()
        kept.write_bytes(left)  # what a kill leaves on the disk
    assert total(tmp_path, rows) == 0.25 + 2.0
    with opened(tmp_path, rows) as spending:
        spending.asking("a", 1.0)
        rows["a"] = 0.25
        spending.answered("a", rows["a"])
    assert spending.total == total(tmp_path, rows) == 0.5 + 2.0


def test_a_file_of_that_name_that_is_something_else_is_a_line_and_stays(tmp_path):
    path = tmp_path / "rows.jsonl.spending"
    path.write_text('{"key": "a"}\n')
    with pytest.raises(InputError, match=r"rows.jsonl.spending: holds lines that edgedc did not write"):
        opened(tmp_path, {})
    assert path.read_text() == '{"key": "a"}\n'


def test_failed_calls_add_up_over_runs_that_ask_other_things(tmp_path):
    for _ in range(3):
        with opened(tmp_path, {}) as spending:
            spending.asking("a", 1.0)
            spending.failed("a", failure(0.5))
    with opened(tmp_path, {}) as other:
        other.asking("b", 1.0)
        other.failed("b", EdgedcError("of a model on this machine"))
    assert other.total == total(tmp_path, {}) == pytest.approx(1.5)


def test_what_an_interrupted_run_has_in_flight_stays_in_doubt_and_what_had_failed_does_not(tmp_path):
    with suppress(KeyboardInterrupt), opened(tmp_path, {}) as spending:
        spending.asking("a", 1.0)
        spending.asking("b", 1.0)
        spending.failed("b", failure(0.5))
        raise KeyboardInterrupt
    assert total(tmp_path, {}) == 1.5
    assert total(tmp_path, {}) == 1.5


def test_a_file_that_a_kill_left_empty_is_taken_away(tmp_path):
    (tmp_path / "rows.jsonl.spending").touch()
    assert total(tmp_path, {}) == 0
    assert list(tmp_path.iterdir()) == []


def test_of_calls_that_gave_rows_nothing_is_kept_after_a_kill_but_what_was_lost(tmp_path):
    """A run may have made any number of them."""
    kept = tmp_path / "rows.jsonl.spending"
    with opened(tmp_path, {}) as spending:
        spending.asking("a", 1.0)
        spending.failed("a", failure(0.5))
        for key in "abc":
            spending.asking(key, 1.0)
        left = kept.read_bytes()
    kept.write_bytes(left)
    with opened(tmp_path, {"a": 0.25, "b": 0.25}) as spending:
        assert spending.total == 0.5 + 0.5 + 1.0
    assert [line.split('"')[3] for line in kept.read_text().splitlines()] == ["a", "c"]


def test_what_cannot_be_tidied_up_at_the_end_is_a_line_and_counts(tmp_path):
    kept = tmp_path / "rows.jsonl.spending"
    spending = opened(tmp_path, {})
    spending.asking("a", 1.0)
    spending.failed("a", failure(0.5))
    kept.unlink()
    kept.mkdir()
    with pytest.raises(EdgedcError, match=r"rows\.jsonl\.spending: cannot be written: not a .*; what stands"):
        spending.__exit__(None, None, None)


def test_a_call_is_announced_at_what_its_client_sets_aside_for_it_retries_included():
    (problem,) = problems("train", 1)
    messages = decompose_messages(problem.question, style="instruct-1", cap=3)
    with simulated_server([problem], timing=Timing(0.0, 0.0)) as url:
        remote = Remote(MODEL, url, 0.0, 50, PRICE, CallSettings(retries=2))
        worst = remote.worst(messages)

        def at_most(ceiling: float) -> Remote:
            return replace(remote, settings=CallSettings(retries=2, max_cost=ceiling))

        for ceiling, share in ((0.99, 1.0), (1.9, 0.5)):
            with at_most(ceiling * worst).open(share) as solver, pytest.raises(BudgetError):
                solver.solve(messages, max_tokens=50)
        with at_most(2.1 * worst).open(0.5) as solver:
            assert solver.solve(messages, max_tokens=50).booked < worst


def projected(replies, price=PRICE, **settings):
    """Of thirty calls, which read 10 tokens each."""
    calls = [SimpleNamespace(messages=[{"role": "user", "content": "x" * 40}])] * 30
    asked = SimpleNamespace(name="m", price=price, worst=lambda call: 0.5)
    return project(calls, replies, asked, CallSettings(**settings), 0.25)


def test_what_is_to_be_asked_is_projected_from_its_prompts_and_else_from_the_replies_that_there_are():
    made = projected(Replies())
    assert (made.calls, made.measured, made.spent, made.worst, made.seconds) == (30, 0, 0.25, 15.0, None)
    assert made.expected == pytest.approx(30 * PRICE.cost(Usage(10, GUESSED_REPLY)))
    made = projected(Replies(count=10, read=1000, written=200, seconds=40.0, cost=2.0), concurrency=4)
    assert (made.measured, made.expected, made.seconds) == (10, pytest.approx(6.0), pytest.approx(3 * 40 / 4))
    free = projected(Replies(), price=None)
    assert (free.expected, free.worst) == (None, None)


def test_the_slowest_of_the_rates_and_the_measured_speed_says_how_long_it_takes():
    known = Replies(count=10, read=1000, written=200, seconds=40.0)
    assert projected(Replies(), requests_per_minute=10).seconds == pytest.approx(180)
    assert projected(Replies(), tokens_per_minute=100).seconds == pytest.approx(60 * 30 * (10 + GUESSED_REPLY) / 100)
    assert projected(known, tokens_per_minute=600).seconds == pytest.approx(60 * 3600 / 600)
    assert projected(known, requests_per_minute=10, tokens_per_minute=1200).seconds == pytest.approx(180)
    assert projected(known, requests_per_minute=1000, concurrency=1).seconds == pytest.approx(120)


def test_a_row_that_was_made_without_a_price_counts_at_this_one():
    usage = {"input_tokens": 1000, "output_tokens": 100, "cached_tokens": 0, "source": "server"}
    assert cost_of({"cost": None, "usage": usage}, PRICE) == pytest.approx(0.002)
    assert cost_of({"cost": 0.5, "usage": usage}, PRICE) == 0.5
    assert cost_of({"usage": usage}, None) == cost_of({}, PRICE) == 0.0
