from contextlib import suppress
from dataclasses import replace

import pytest

from edgedc.errors import BudgetError, EdgedcError, InputError, SolverTimeout
from edgedc.prices import Price
from edgedc.prompts import decompose_messages
from edgedc.solvers.loopback import Timing
from edgedc.solvers.simulated import MODEL, simulated_server
from edgedc.tasks.microworld import problems
from train.calls.remote import Remote
from train.calls.spending import Spending


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
    with pytest.raises(EdgedcError, match=r"rows\.jsonl\.spending: cannot be written: Is a directory; what stands"):
        spending.__exit__(None, None, None)


def test_a_call_is_announced_at_what_its_client_sets_aside_for_it_retries_included():
    (problem,) = problems("train", 1)
    messages = decompose_messages(problem.question, style="instruct-1", cap=3)
    with simulated_server([problem], timing=Timing(0.0, 0.0)) as url:
        remote = Remote(MODEL, url, 0.0, 50, Price("m", 1e-6, 1e-5, 1e-6, "2026-08", "test"), retries=2)
        worst = remote.worst(messages)
        for ceiling, share in ((0.99, 1.0), (1.9, 0.5)):
            with replace(remote, ceiling=ceiling * worst).open(share) as solver, pytest.raises(BudgetError):
                solver.solve(messages, max_tokens=50)
        with replace(remote, ceiling=2.1 * worst).open(0.5) as solver:
            assert solver.solve(messages, max_tokens=50).booked < worst
