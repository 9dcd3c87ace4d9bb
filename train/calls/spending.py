"""What a file of paid rows has cost over all its runs, with what no row shows: calls that failed or a kill cut off."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from edgedc.errors import BudgetError, EdgedcError, SolverError
from edgedc.files import Row, RowWriter, write_text


class Spending:
    """US dollars: `in_rows`, by the rows of `rows` (as a RowWriter keeps them), and `lost` around them.

    A call is announced with its worst case before it is made. Afterwards its row says what it cost, or `failed` does;
    where a kill took both, its worst case counts. So `total` is never less than what was spent. What is lost stands in
    `OUT.spending`, lines `{"key", "lost", "asked"}` of which the last of a key counts; it goes when nothing is.

    A context manager. What is left through a BudgetError, a SolverError or nothing had no call in flight any more (see
    train/calls/engines.py): what was announced and neither failed nor gave a row was not made.
    """

    def __init__(self, out: Path, rows: Mapping[str, Row], cost: Callable[[Row], float]) -> None:
        self._path = out.with_name(f"{out.name}.spending")
        self._writer = RowWriter(self._path) if self._path.exists() else None
        self._cost = cost
        self.in_rows, self.lost = sum(map(cost, rows.values())), 0.0
        for key, call in self._writer.rows.items() if self._writer else ():
            # What an earlier run asked and got no row for is lost; what it got one for, the row tells.
            call["lost"] += 0.0 if key in rows else call["asked"]
            call["asked"] = 0.0
            self.lost += call["lost"]

    @property
    def total(self) -> float:
        return self.in_rows + self.lost

    def asking(self, key: str, worst: float) -> None:
        """Before a call that may cost something."""
        if worst:
            self._writer = self._writer or RowWriter(self._path)
            lost = self._writer.rows.get(key, {"lost": 0.0})["lost"]
            self._writer.write({"key": key, "lost": lost, "asked": worst})

    def answered(self, row: Row) -> None:
        """A call gave this row, which has been written."""
        self.in_rows += self._cost(row)
        if self._writer and (call := self._writer.rows.get(row["key"])):
            call["asked"] = 0.0  # the row tells
            if not call["lost"]:
                del self._writer.rows[row["key"]]

    def failed(self, key: str, error: EdgedcError) -> None:
        """A call came to nothing, and may cost what its error says."""
        cost = error.cost if isinstance(error, SolverError) else 0.0
        self.lost += cost
        if self._writer and (call := self._writer.rows.get(key)):
            self._writer.write({"key": key, "lost": call["lost"] + cost, "asked": 0.0})

    def __enter__(self) -> "Spending":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        settled = kind is None or issubclass(kind, (BudgetError, SolverError))
        calls = self._writer.rows.values()
        self._writer.__exit__(kind, error, trace)
        kept = [{**call, "asked": 0.0 if settled else call["asked"]} for call in calls]
        kept = [call for call in kept if call["lost"] or call["asked"]]
        if kept:
            write_text(self._path, "".join(json.dumps(call) + "\n" for call in kept))
        else:
            self._path.unlink()
