"""What calls of the OpenAI client cost, and that a ceiling holds."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from wire import ASKED, GOOD, PRICE, WORST, delta, error, server, solver_at, sse

from edgedc.errors import BudgetError, SolverReply
from edgedc.ledger import Budget
from edgedc.solvers.openai import most_tokens


def test_a_call_that_could_go_over_budget_is_not_made() -> None:
    budget = Budget(3 * WORST * 0.99, PRICE)
    with server(GOOD) as made, solver_at(made.url, retries=2, budget=budget) as solver:
        with pytest.raises(BudgetError):
            solver.solve(ASKED, max_tokens=10)
        assert made.requests == []
    assert budget.spent == 0


def test_the_worst_case_of_a_call_counts_bytes() -> None:
    """A tokenizer may make as many of what it does not know: three of each of these characters."""
    for text, tokens in (("How many?", 9), ("幾つ?", 7), ("\ud800", 3)):
        assert most_tokens([{"role": "user", "content": text}]) == 256 + 16 + tokens


def test_a_budget_is_settled_at_what_the_server_counted() -> None:
    budget = Budget(1.0, PRICE)
    with server(GOOD) as made, solver_at(made.url, budget=budget) as solver:
        reply = solver.solve(ASKED, max_tokens=10)
    assert budget.spent == pytest.approx(PRICE.cost(reply.usage))
    assert budget.reserved == pytest.approx(0)


def test_calls_at_the_same_time_wait_for_the_money_that_others_hold() -> None:
    def slowly(connection: socket.socket) -> None:
        time.sleep(0.1)
        connection.sendall(GOOD)

    budget = Budget(1.5 * WORST, PRICE)
    with server(slowly, GOOD) as made, solver_at(made.url, budget=budget) as solver, ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda _: solver.solve(ASKED, max_tokens=10), range(2)))
    assert [reply.text for reply in replies] == ["The answer is: 7"] * 2


def test_calls_of_unknown_cost_are_booked_at_their_worst() -> None:
    failing = error("500 Internal Server Error", "oops", "Retry-After: 0")
    limited = error("429 Too Many Requests", "slow down", "Retry-After: 0")
    uncounted = sse(delta(content="7"), delta("stop"), "[DONE]")
    for acts, booked in (
        ((failing, uncounted), 2 * WORST),
        ((limited, uncounted), WORST),
        ((failing, failing), 2 * WORST),
        ((limited, limited), 0.0),
    ):
        budget = Budget(1.0, PRICE)
        with server(*acts) as made, solver_at(made.url, retries=1, budget=budget) as solver:
            try:
                told = solver.solve(ASKED, max_tokens=10).booked
            except SolverReply as failed:
                assert acts[1] in (failing, limited)
                told = failed.cost
        assert budget.spent == pytest.approx(booked)
        assert told == pytest.approx(booked)
        assert budget.reserved == pytest.approx(0)


def test_a_budget_holds_over_many_calls() -> None:
    budget = Budget(4 * WORST, PRICE)
    with server(*[GOOD] * 200) as made, solver_at(made.url, budget=budget) as solver:
        with suppress(BudgetError):
            for _ in range(200):
                solver.solve(ASKED, max_tokens=10)
        assert 4 < len(made.requests) < 200
    assert budget.spent <= budget.ceiling
