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

# How long to wait for other processes' calls, and the age at which a reservation is taken for a killed process's.
_PATIENCE_S = 20.0
_STALE_S = 300.0


@dataclass(frozen=True)
class Ceilings:
    """Raises InputError for an amount that is not above 0."""

    max_cost: float | None = flag(None, "Stop before the calls of this run could cost more US dollars.")
    max_cost_per_day: float | None = flag(
        None, "Stop before the calls of all runs of a day (UTC) could cost more US dollars, other processes' included."
    )

    def __post_init__(self) -> None:
        for name in ("max_cost", "max_cost_per_day"):
            value = getattr(self, name)
            if value is not None and not value > 0:  # true for NaN too
                raise InputError(f"--{name.replace('_', '-')} {value}: give US dollars, more than 0")


@dataclass(frozen=True)
class _Booked:
    """US dollars of some calls: settled; set aside, by calls in flight or by processes that were killed; the latter."""

    spent: float
    held: float
    stale: float


class Spending:
    """An account in a file (see edgedc.ledger.Account), for any number of threads and processes.

    Every call is a row, with its worst case until it is settled. A killed process settles nothing, so its worst cases
    count as spent from then on. `run` names the calls that --max-cost is about; processes that give the same name share
    that ceiling too, and without a name a run has it to itself. Raises what Database raises.
    """

    def __init__(self, ceilings: Ceilings, path: Path | None = None, *, run: str = "") -> None:
        self.ceilings, self.run = ceilings, run or secrets.token_hex(8)
        self._in_flight: set[int] = set()  # of this process
        self._database = Database(path or home() / "spending.sqlite3", _SCHEMA, _VERSION)

    def close(self) -> None:
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
            with self._database.transaction() as sql:
                patient = wait and (time.monotonic() < until or bool(self._in_flight))
                refused = self._refusal(worst, patient=patient)
                if refused is None:
                    row = sql.execute(
                        "INSERT INTO call (run, day, at, held) VALUES (?, ?, ?, ?)",
                        (self.run, _day(), time.time(), worst),
                    )
                    assert row.lastrowid is not None
                    self._in_flight.add(row.lastrowid)
                    return Hold(worst, row.lastrowid)
            if refused:
                raise BudgetError(refused)
            time.sleep(random.uniform(0.02, 0.06))

    def settle(self, hold: Hold, cost: float) -> None:
        # Where that cannot be written the worst case stays; the reply that was paid for must not be lost for it.
        with suppress(EdgedcError), self._database.transaction() as sql:
            sql.execute("UPDATE call SET cost = ? WHERE id = ?", (cost, hold.number))
        self._in_flight.discard(hold.number)

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
            if not patient or booked.spent + booked.stale + worst > ceiling:
                aside = f" and ${booked.held:.6f} set aside for calls in flight or cut off" if booked.held else ""
                return (
                    f"the next call could cost ${worst:.6f}, and ${booked.spent:.6f} of {flag_name} ${ceiling:.6f} is "
                    f"spent{aside}: raise {flag_name} or lower --max-tokens"
                )
            waiting = True
        return "" if waiting else None

    def _of(self, column: str, value: str) -> _Booked:
        ours = tuple(self._in_flight)  # which live, whatever the clock says: a device may sleep, or set it
        (row,) = self._database.rows(
            "SELECT total(cost), total(CASE WHEN cost IS NULL THEN held END),"
            f" total(CASE WHEN cost IS NULL AND at < ? AND id NOT IN ({', '.join('?' * len(ours))}) THEN held END)"
            f" FROM call WHERE {column} = ?",
            time.time() - _STALE_S,
            *ours,
            value,
        )
        return _Booked(*row)


def _day() -> str:
    return datetime.now(UTC).date().isoformat()
