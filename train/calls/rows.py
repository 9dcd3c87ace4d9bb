"""The file of a verb's rows, of which memory holds only what the verb goes by: there may be any number of them."""

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

from edgedc.errors import InputError
from edgedc.files import Row, RowAppender
from edgedc.prices import Price

from .projection import Replies, cost_of

Gist = TypeVar("Gist", bound=Hashable)


class Rows(RowAppender, Generic[Gist]):
    """A RowAppender that keeps of each row its key and what `gist` makes of it: `gists`. Equal ones are one object.

    `cost` is what all rows have cost, in US dollars, and `replies` are those of the model that is asked. Of a key that
    comes twice the first row counts. Raises InputError for rows that `verb` did not write, which lack what is read.
    """

    def __init__(
        self,
        path: Path,
        verb: str,
        gist: Callable[[Row], Gist],
        *,
        asked: str,
        price: Price | None,
        sync_s: float = 0.0,
    ) -> None:
        self.gists: dict[str, Gist] = {}
        self.cost = 0.0
        self.replies = Replies()
        self._verb, self._gist, self._asked, self._price = verb, gist, asked, price
        self._same: dict[Gist, Gist] = {}
        super().__init__(path, self._read, sync_s=sync_s)

    def write(self, row: Row) -> None:
        super().write(row)
        self._keep(row)

    def _read(self, row: Row) -> None:
        try:
            self._keep(row)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.path}: holds rows that  edgedc {self._verb}  did not write; give another file to write to"
            ) from error

    def _keep(self, row: Row) -> None:
        if row["key"] in self.gists:
            return
        gist = self._gist(row)
        self.gists[row["key"]] = self._same.setdefault(gist, gist)
        cost = cost_of(row, self._price)
        self.cost += cost
        if self._asked in (row.get("solver"), row.get("teacher")) and row.get("usage"):
            self.replies.add(row, cost)
