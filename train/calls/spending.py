"""What a file of paid rows has cost over all its runs, with what no row shows: calls that failed or a kill cut off."""

import json
from collections.abc import Container
from pathlib import Path
from types import TracebackType

from edgedc.errors import BudgetError, EdgedcError, InputError, SolverError
from edgedc.files import Row, RowAppender, write_text


class Spending:
    """US dollars: `in_rows`, which are those of the rows with these `keys`, and `lost` around them.

    A call is announced with its worst case before it is made. Afterwards its row says what it cost, or `failed` does;
    where a kill took both, its worst case counts. So `total` is never less than what was spent. What is lost stands in
    `OUT.spending`, lines `{"key", "lost", "asked"}` of which the last of a key counts; it goes when nothing is.

    A context manager. What is left through a BudgetError, a SolverError or nothing had no call in flight any more (see
    train/calls/engines.py): what was announced and neither failed nor gave a row was not made.
    """

    def __init__(self, out: Path, keys: Container[str], in_rows: float) -> None:
        self._path = out.with_name(f"{out.name}.spending")
        self._keys, self.in_rows = keys, in_rows
        self._calls: dict[str, Row] = {}  # those that something is to be said of
        self._writer = RowAppender(self._path, self._read) if self._path.exists() else None
        for call in self._calls.values():
            # What an earlier run asked and got no row for is lost; what it got one for, the row tells.
            call["lost"] += 0.0 if call["key"] in keys else call["asked"]
            call["asked"] = 0.0
        self.lost = sum((call["lost"] for call in self._calls.values()), 0.0)

    def _read(self, call: Row) -> None:
        match call:
            case {"lost": int() | float(), "asked": int() | float()}:
                pass
            case _:
                raise InputError(f"{self._path}: holds lines that edgedc did not write: move it elsewhere")
        if call["lost"] or call["key"] not in self._keys:
            self._calls[call["key"]] = call
        else:
            self._calls.pop(call["key"], None)

    def _write(self, call: Row) -> None:
        self._writer = self._writer or RowAppender(self._path, self._read)
        self._writer.write(call)
        self._calls[call["key"]] = call

    @property
    def total(self) -> float:
        return self.in_rows + self.lost

    def asking(self, key: str, worst: float) -> None:
        """Before a call that may cost something."""
        if worst:
            self._write({"key": key, "lost": self._lost_at(key), "asked": worst})

    def answered(self, key: str, cost: float) -> None:
        """A call gave a row, which has been written, and cost so much."""
        self.in_rows += cost
        if key in self._calls:
            self._calls[key]["asked"] = 0.0  # the row tells
            if not self._calls[key]["lost"]:
                del self._calls[key]

    def failed(self, key: str, error: EdgedcError) -> None:
        """A call came to nothing, and may cost what its error says."""
        cost = (error.cost or 0.0) if isinstance(error, SolverError) else 0.0
        self.lost += cost
        if key in self._calls:
            self._write({"key": key, "lost": self._lost_at(key) + cost, "asked": 0.0})

    def _lost_at(self, key: str) -> float:
        return float(self._calls[key]["lost"]) if key in self._calls else 0.0

    def __enter__(self) -> "Spending":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        settled = kind is None or issubclass(kind, (BudgetError, SolverError))
        self._writer.__exit__(kind, error, trace)
        kept = [{**call, "asked": 0.0 if settled else call["asked"]} for call in self._calls.values()]
        kept = [call for call in kept if call["lost"] or call["asked"]]
        if not kept:
            self._path.unlink(missing_ok=True)  # the writer has taken an empty one away
            return
        try:
            write_text(self._path, "".join(json.dumps(call) + "\n" for call in kept))
        except EdgedcError as failed:
            raise EdgedcError(f"{failed}; what stands in it counts") from failed
