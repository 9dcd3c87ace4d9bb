"""The account that processes share: what is set aside, settled, lost to a kill, and refused."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from faulty import faulty

from edgedc.errors import BudgetError, InputError
from edgedc.home import home
from edgedc.ledger import Budget
from edgedc.prices import Price
from edgedc.spending import Ceilings, Spending
from edgedc.usage import Usage

PRICE = Price("m", input=1e-6, output=1e-5, cached=1e-7, date="2026-08", source="test")


@contextmanager
def account(path: Path, *, run: str = "", **ceilings: float) -> Iterator[Spending]:
    with closing(Spending(Ceilings(**ceilings), path / "spending.sqlite3", run=run)) as made:
        yield made


def test_what_is_held_is_set_aside_until_it_is_settled_at_what_it_cost(tmp_path: Path) -> None:
    with account(tmp_path, max_cost=1.0) as purse:
        first = purse.hold(0.7, wait=False)
        assert (purse.spent, purse.reserved) == (0, 0.7)
        with pytest.raises(BudgetError, match=r"--max-cost \$1.000000 is spent and \$0.700000 set aside"):
            purse.hold(0.4, wait=False)
        purse.settle(first, 0.25)
        assert (purse.spent, purse.reserved) == (0.25, 0)
        purse.settle(purse.hold(0.75, wait=False), 0.75)
        with pytest.raises(BudgetError, match=r"could cost \$0.000001, and \$1.000000 of --max-cost"):
            purse.hold(1e-6, wait=False)


def test_a_ceiling_of_the_day_is_about_all_runs_and_that_of_a_run_about_one(tmp_path: Path) -> None:
    with account(tmp_path) as free:
        free.settle(free.hold(0.6, wait=False), 0.6)
    with account(tmp_path, max_cost=0.5) as other:  # what another run has spent is not its business
        other.settle(other.hold(0.3, wait=False), 0.3)
        assert other.today == pytest.approx(0.9)
    with account(tmp_path, max_cost=0.5, max_cost_per_day=1.0) as last:
        with pytest.raises(BudgetError, match=r"\$0.900000 of --max-cost-per-day \$1.000000"):
            last.hold(0.2, wait=False)
        last.settle(last.hold(0.1, wait=False), 0.05)
        assert (last.spent, last.today) == (0.05, pytest.approx(0.95))


def test_runs_of_one_name_share_a_ceiling(tmp_path: Path) -> None:
    with account(tmp_path, run="a", max_cost=1.0) as one, account(tmp_path, run="a", max_cost=1.0) as two:
        one.hold(0.6, wait=False)
        with pytest.raises(BudgetError):
            two.hold(0.6, wait=False)


def test_models_with_other_prices_draw_on_one_account(tmp_path: Path) -> None:
    dear = Price("dear", input=1e-3, output=1e-3, cached=0, date="", source="")
    with account(tmp_path, max_cost=1.0) as purse:
        cheap = Budget.on(purse, PRICE)
        cheap.settle(cheap.reserve(100, 100), 0.6)
        with pytest.raises(BudgetError):
            cheap.at(dear).reserve(500, 0)
        assert cheap.at(dear).reserve(300, 0).worst == pytest.approx(0.3)
        assert (cheap.spent, cheap.reserved) == (0.6, pytest.approx(0.3))


def test_threads_wait_for_what_others_have_set_aside(tmp_path: Path) -> None:
    """Worst cases of three calls do not fit side by side; what they really cost does."""
    with account(tmp_path, max_cost=0.01) as purse:

        def call(_: int) -> bool:
            hold = purse.hold(0.004, wait=True)
            time.sleep(0.002)
            purse.settle(hold, 0.0001)
            return True

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(call, range(24)))
        assert purse.spent == pytest.approx(0.0024)


def test_a_call_under_way_here_is_waited_for_although_the_clock_makes_it_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop that slept, or a device whose clock was set, while the call was under way; however long that takes."""
    monkeypatch.setattr("edgedc.spending._PATIENCE_S", 0.0)
    with account(tmp_path, max_cost=1.0) as purse, ThreadPoolExecutor(1) as pool:
        hold = purse.hold(0.9, wait=True)
        with closing(sqlite3.connect(tmp_path / "spending.sqlite3")) as file, file:
            file.execute("UPDATE call SET at = at - 3600")
        waiting = pool.submit(purse.hold, 1.0, wait=True)
        time.sleep(0.2)
        assert not waiting.done()
        purse.settle(hold, 0.0)
        assert waiting.result(10).worst == 1.0


def test_a_call_of_another_process_is_waited_for_as_long_as_that_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However old the clock makes it, but not for ever; once it is killed nobody waits, however young it is."""
    worst = PRICE.cost(Usage(256 + 16 + len("How many?"), 10))
    with faulty(ever="silence") as server, start(tmp_path, "ask(1)", server.url, 1) as process:
        try:
            until = time.monotonic() + 60
            while not server.requests and time.monotonic() < until:
                time.sleep(0.02)
            with closing(sqlite3.connect(tmp_path / "spending.sqlite3")) as file, file:
                file.execute("UPDATE call SET at = at - 3600")
            with account(tmp_path, max_cost_per_day=1.5 * worst) as purse, ThreadPoolExecutor(1) as pool:
                with monkeypatch.context() as hasty:
                    hasty.setattr("edgedc.spending._PATIENCE_S", 0.2)
                    with pytest.raises(BudgetError, match="in flight or cut off"):
                        purse.hold(worst, wait=True)
                waiting = pool.submit(purse.hold, worst, wait=True)
                time.sleep(0.3)
                assert not waiting.done()
                with closing(sqlite3.connect(tmp_path / "spending.sqlite3")) as file, file:
                    file.execute("UPDATE call SET at = at + 7200")
                process.send_signal(signal.SIGKILL)
                process.wait(30)
                with pytest.raises(BudgetError, match="in flight or cut off"):
                    waiting.result(5)
        finally:
            process.kill()


def test_nobody_waits_for_what_can_never_fit(tmp_path: Path) -> None:
    with account(tmp_path, max_cost=1.0) as purse:
        purse.settle(purse.hold(0.9, wait=False), 0.9)
        started = time.monotonic()
        with pytest.raises(BudgetError):
            purse.hold(0.2, wait=True)
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("name", ["max_cost", "max_cost_per_day"])
@pytest.mark.parametrize("amount", [0, -1, float("nan")])
def test_a_ceiling_is_an_amount(name: str, amount: float) -> None:
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} "):
        Ceilings(**{name: amount})


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "spending.sqlite3"
    path.write_text("my diary, " * 100)
    with pytest.raises(InputError, match=r"spending\.sqlite3"):
        Spending(Ceilings(), path)
    assert path.read_text() == "my diary, " * 100


def test_it_lies_in_the_folder_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDC_HOME", str(tmp_path / "there"))
    with closing(Spending(Ceilings())) as purse:
        purse.hold(0.1, wait=False)
    assert (tmp_path / "there" / "spending.sqlite3").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("EDGEDC_HOME", "~nobody-of-this-name/there")
    with pytest.raises(InputError, match="EDGEDC_HOME"):
        home()
    monkeypatch.delenv("EDGEDC_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert home() == tmp_path / "edgedc"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # to be ignored, says the specification
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".local" / "share" / "edgedc"


# A process that asks until its account is empty; what it has booked goes to stdout.
ASKS = """
import sys
from edgedc.errors import BudgetError
from edgedc.ledger import Budget
from edgedc.prices import Price
from edgedc.solvers.openai import OpenAISolver
from edgedc.spending import Ceilings, Spending

path, url, ceiling = sys.argv[1], sys.argv[2], float(sys.argv[3])
price = Price("m", input=1e-6, output=1e-5, cached=1e-7, date="", source="")

def ask(most):
    from pathlib import Path
    account = Spending(Ceilings(max_cost_per_day=ceiling), Path(path))
    solver = OpenAISolver("m", url, budget=Budget.on(account, price), retries=0, timeout_s=60)
    for _ in range(most):
        try:
            solver.solve([{"role": "user", "content": "How many?"}], max_tokens=10)
        except BudgetError:
            break
    solver.close()
    account.close()
"""
PROCESSES = 16
SIXTEEN = f"""
import os
children = []
for _ in range({PROCESSES}):
    child = os.fork()
    if not child:
        ask(100)
        os._exit(0)
    children.append(child)
print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def start(path: Path, then: str, *args: object) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", ASKS + then, str(path / "spending.sqlite3"), *map(str, args)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts sixteen processes quickly")
def test_a_ceiling_holds_under_sixteen_processes_by_the_servers_own_count(tmp_path: Path) -> None:
    """Each of them asks until it is refused, and the server counts what it bills."""
    ceiling = 0.004
    with faulty() as server:
        with start(tmp_path, SIXTEEN, server.url, ceiling) as process:
            out, _ = process.communicate(timeout=120)
        billed = PRICE.cost(Usage(*server.billed))
        assert out.split() == ["0"] * PROCESSES
        assert all(request.answered for request in server.requests)
    worst = PRICE.cost(Usage(256 + 16 + len("How many?"), 10))
    assert billed <= ceiling
    assert ceiling - billed < worst  # and as much was asked as there was money for
    with account(tmp_path) as purse:
        assert purse.today == pytest.approx(billed)
    assert len(server.requests) > PROCESSES


def test_what_a_killed_process_had_set_aside_counts_as_spent(tmp_path: Path) -> None:
    worst = PRICE.cost(Usage(256 + 16 + len("How many?"), 10))
    with faulty(ever="silence") as server, start(tmp_path, "ask(1)", server.url, 2.5 * worst) as process:
        until = time.monotonic() + 60
        while not server.requests and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert len(server.requests) == 1
    with account(tmp_path, max_cost_per_day=2.5 * worst) as purse:
        assert purse.today == pytest.approx(worst)
        purse.hold(worst, wait=False)
        with pytest.raises(BudgetError, match="in flight or cut off"):
            purse.hold(worst, wait=False)


def test_an_answer_that_has_come_is_not_lost_where_the_account_cannot_be_written(tmp_path: Path) -> None:
    with account(tmp_path, max_cost=1.0) as purse:
        hold = purse.hold(0.5, wait=False)
    purse.settle(hold, 0.1)  # it is closed: the worst case stays
    with account(tmp_path) as again:
        assert again.today == 0.5
