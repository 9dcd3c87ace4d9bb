import pytest

from train.projection import cost_of
from train.spending import Spending


def opened(path, rows):
    return Spending(path / "rows.jsonl", rows, lambda row: cost_of(row, None))


def total(path, rows):
    spending = opened(path, rows)
    spending.close(settled=False)
    return spending.total


def kill(spending, path):
    """Leaves on the disk what is there at this moment."""
    left = (path / "rows.jsonl.spending").read_bytes()
    spending.close(settled=False)
    (path / "rows.jsonl.spending").write_bytes(left)


def row(key, cost):
    return {"key": key, "cost": cost}


def test_without_anything_in_doubt_there_is_no_file(tmp_path):
    spending = opened(tmp_path, {})
    spending.asking("a", 1.0)
    spending.answered(row("a", 0.25))
    spending.asking("b", 1.0)  # not made: the budget did not allow it
    spending.close(settled=True)
    assert spending.total == 0.25
    assert list(tmp_path.iterdir()) == []
    assert total(tmp_path, {"a": row("a", 0.25)}) == 0.25


def test_a_call_that_a_kill_cut_off_counts_at_its_worst_for_ever(tmp_path):
    rows = {}
    for _ in range(2):
        spending = opened(tmp_path, rows)
        spending.asking("a", 1.0)
        spending.asking("b", 1.0)
        rows["b"] = row("b", 0.25)
        kill(spending, tmp_path)
    assert total(tmp_path, rows) == 0.25 + 2.0
    spending = opened(tmp_path, rows)
    spending.asking("a", 1.0)
    rows["a"] = row("a", 0.25)
    spending.answered(rows["a"])
    spending.close(settled=True)
    assert spending.total == total(tmp_path, rows) == 0.5 + 2.0


def test_failed_calls_add_up_over_runs_that_ask_other_things(tmp_path):
    for _ in range(3):
        spending = opened(tmp_path, {})
        spending.asking("a", 1.0)
        spending.failed("a", 0.5)
        spending.close(settled=True)
    other = opened(tmp_path, {})
    other.asking("b", 1.0)
    other.failed("b", 0.0)
    other.close(settled=True)
    assert other.total == total(tmp_path, {}) == pytest.approx(1.5)


def test_what_an_interrupted_run_has_in_flight_stays_in_doubt(tmp_path):
    spending = opened(tmp_path, {})
    spending.asking("a", 1.0)
    spending.close(settled=False)
    assert total(tmp_path, {}) == 1.0
    assert total(tmp_path, {}) == 1.0
