"""What has been spent on this machine, in an SQLite file that all processes share; two ceilings are kept in it."""

import random
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgedc.database import Database
from edgedc.errors import BudgetError, EdgedcError, InputError
from edgedc.flags import flag
from edgedc.home import home
from edgedc.ledger import Hold
from edgedc.locks import Locks

_VERSION = 1
_SCHEMA = """
CREATE TABLE call (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    day TEXT NOT NULL,
    at REAL NOT NULL,
    held REAL NOT NULL,
    cost REAL
);
CREATE INDEX by_run ON call (run);
CREATE INDEX by_day ON call (day)
"""

# How long to wait for other processes' calls.
_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Ceilings:
    """Raises InputError for an amount that is not above 0."""

    max_cost: float | None = flag(None, "Stop before the calls of this run could cost more US dollars.")
    max_cost_per_day: float | None = flag(
        None,
        "Stop before a day's calls (UTC) of ask, flush, serve and evaluate could cost more US dollars, those of other "
        "processes included.",
    )

    def __post_init__(self) -> None:
        for name in ("max_cost", "max_cost_per_day"):
            value = getattr(self, name)
            if value is not None and not value > 0:  # true for NaN too
                raise InputError(f"--{name.replace('_', '-')} {value}: give US dollars, more than 0")


@dataclass(frozen=True)
class _Booked:
    """US dollars of some calls: settled, and set aside, by calls in flight or by processes that were killed."""

    spent: float
    held: float


class Spending:
    """An account in a file (see edgedc.ledger.Account), for any number of threads and processes.

    Every call is a row, with its worst case until it is settled, and a lock of its process until then, which says to
    the others that it is worth waiting for. A killed process settles nothing, so its worst cases count as spent from
    then on. A process opens the file once at a time (see Locks). `run` names the calls that --max-cost is about;
    processes that give the same name share that ceiling too, and without a name a run has it to itself. Raises what
    Database raises.
    """

    def __init__(self, ceilings: Ceilings, path: Path | None = None, *, run: str = "") -> None:
        self.ceilings, self.run = ceilings, run or secrets.token_hex(8)
        path = path or home() / "spending.sqlite3"
        self._database = Database(path, _SCHEMA, _VERSION)
        self._locks = Locks(path.with_name(path.name + ".locks"))

    def close(self) -> None:
        self._locks.close()
        self._database.close()

    @property
    def spent(self) -> float:
        return self._of("run", self.run).spent

    @property
    def reserved(self) -> float:
        return self._of("run", self.run).held

    @property
    def today(self) -> float:
        """All runs' spending of this day (UTC), what is set aside included."""
        booked = self._of("day", _day())
        return booked.spent + booked.held

    def hold(self, worst: float, *, wait: bool) -> Hold:
        until = time.monotonic() + _PATIENCE_S
        while True:
            number = 0
            try:
                with self._database.transaction() as sql:
                    patient = wait and (time.monotonic() < until or bool(self._locks.mine))
                    refused = self._refusal(worst, patient=patient)
                    if refused is None:
                        row = sql.execute(
                            "INSERT INTO call (run, day, at, held) VALUES (?, ?, ?, ?)",
                            (self.run, _day(), time.time(), worst),
                        )
                        number = row.lastrowid or 0
                        self._locks.take(number)
            except BaseException:  # the row is not there, and its number will be another's
                self._locks.give_back(number)
                raise
            if refused is None:
                return Hold(worst, number)
            if refused:
                raise BudgetError(refused)
            time.sleep(random.uniform(0.02, 0.06))

    def settle(self, hold: Hold, cost: float) -> None:
        # Where that cannot be written the worst case stays; the reply that was paid for must not be lost for it.
        with suppress(EdgedcError), self._database.transaction() as sql:
            sql.execute("UPDATE call SET cost = ? WHERE id = ?", (cost, hold.number))
        self._locks.give_back(hold.number)

    def _refusal(self, worst: float, *, patient: bool) -> str | None:
        """None: there is room. "": there may be, once other calls are settled. Else why not."""
        waiting = False
        for flag_name, ceiling, column, value in (
            ("--max-cost", self.ceilings.max_cost, "run", self.run),
            ("--max-cost-per-day", self.ceilings.max_cost_per_day, "day", _day()),
        ):
            if ceiling is None:
                continue
            booked = self._of(column, value)
            if booked.spent + booked.held + worst <= ceiling:
                continue
            if not patient or booked.spent + self._lost(column, value) + worst > ceiling:
                aside = f" and ${booked.held:.6f} set aside for calls in flight or cut off" if booked.held else ""
                return (
                    f"the next call could cost ${worst:.6f}, and ${booked.spent:.6f} of {flag_name} ${ceiling:.6f} is "
                    f"spent{aside}: raise {flag_name} or lower --max-tokens"
                )
            waiting = True
        return "" if waiting else None

    def _of(self, column: str, value: str) -> _Booked:
        (row,) = self._database.rows(
            f"SELECT total(cost), total(CASE WHEN cost IS NULL THEN held END) FROM call WHERE {column} = ?", value
        )
        return _Booked(*row)

    def _lost(self, column: str, value: str) -> float:
        """What processes had set aside that are gone. A clock cannot tell: a device may sleep, or set it."""
        rows = self._database.rows(f"SELECT id, held FROM call WHERE cost IS NULL AND {column} = ?", value)
        return float(sum(row["held"] for row in rows if not self._locks.held(row["id"])))


def _day() -> str:
    return datetime.now(UTC).date().isoformat()
