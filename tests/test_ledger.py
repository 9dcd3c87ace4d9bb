import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgedc.errors import BudgetError, InputError
from edgedc.ledger import Budget, Purse
from edgedc.prices import Price

PRICE = Price("big", input=2e-6, output=10e-6, cached=0.5e-6, date="2026-01-01", source="a test")


def test_a_budget_is_never_exceeded_even_by_calls_in_flight() -> None:
    budget = Budget(0.01, PRICE)
    first = budget.reserve(1000, 600)  # $0.008
    with pytest.raises(BudgetError, match="--max-cost"):
        budget.reserve(1000, 600)
    budget.settle(first, 0.001)
    second = budget.reserve(1000, 600)  # 0.001 + 0.008
    budget.settle(second, 0.008)
    assert budget.spent == pytest.approx(0.009)
    with pytest.raises(BudgetError):
        budget.reserve(1, 100)  # $0.001002
    budget.reserve(0, 99)


@pytest.mark.parametrize("ceiling", [0, -1, float("nan")])
def test_a_ceiling_is_an_amount(ceiling: float) -> None:
    with pytest.raises(InputError, match="--max-cost"):
        Budget(ceiling, PRICE)


def test_threads_share_a_ceiling_and_wait_for_one_another() -> None:
    """Worst cases of three calls do not fit side by side; what they really cost does."""
    budget, most = Budget(0.01, PRICE), []

    def call(_: int) -> bool:
        try:
            worst = budget.reserve(0, 400, wait=True)  # $0.004
        except BudgetError:
            return False
        most.append(budget.spent + budget.reserved)
        threading.Event().wait(0.002)
        budget.settle(worst, 0.0001)
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(call, range(100)))
    assert max(most) <= 0.01
    assert budget.spent == pytest.approx(0.0001 * sum(made))
    assert 60 <= sum(made) <= 61  # the last one leaves less than its worst case
    assert budget.reserved == 0


def test_a_call_that_fits_to_the_cent_is_made_and_nobody_waits_for_what_never_fits() -> None:
    purse = Purse(1.0)
    first = purse.hold(0.75, wait=True)
    second = purse.hold(0.25, wait=True)
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(purse.hold, 1.25, wait=True).exception
        try:
            assert isinstance(refused(timeout=10), BudgetError)
        finally:
            purse.settle(first, 0.75)
            purse.settle(second, 0.0)
    purse.hold(0.25, wait=True)


def test_a_worker_gets_its_part_of_what_is_left() -> None:
    budget = Budget(0.01, PRICE, spent=0.006)
    part = budget.part(0.5)
    with pytest.raises(BudgetError, match=r"\$0.002000 of --max-cost \$0.010000 is left for it"):
        part.reserve(0, 201)
    part.reserve(0, 199)
    assert budget.part(1.0).spent == 0.006
    free = Budget(math.inf, PRICE, spent=1.0).part(0.5)
    assert free.spent == 1.0
    assert free.reserve(10**9, 10**9).worst > 1000
