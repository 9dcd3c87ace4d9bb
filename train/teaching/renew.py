"""Gold answers of rows that are there: one that was left out, or corrected since, is put in: the reply is paid for."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from edgedc.files import Row, RowAppender, beside, read_rows

from .draws import Draw, gold_of


def renew_answers(out: Path, plan: Callable[[], Iterator[Draw]]) -> int:
    """Give the rows of `out` the answers that their questions have by now, and say how many rows that changed.

    Of a question that comes twice the first counts, as it is the one that is asked; one without an answer takes none
    away. A kill leaves the old file or the new one. Raises what RowAppender and `plan` raise.
    """
    if not out.exists():
        return 0
    had: dict[str, int] = {}  # as hashes: the rows may be more than fit into memory

    def see(row: Row) -> None:
        had[row["key"]] = hash(str([row.get("answer"), row.get("answers")]))

    with RowAppender(out, see):  # nobody else writes to it meanwhile
        new: dict[str, Row] = {}
        for draw in plan() if had else ():
            gold, old = gold_of(draw.example), had.pop(draw.key, None)
            if old is not None and gold["answer"] and hash(str(list(gold.values()))) != old:
                new[draw.key] = gold
            if not had:
                break
        if new:
            path = out.resolve()  # a link stays one
            with beside(path) as stage, RowAppender(stage, see, sync_s=math.inf) as writer:
                for row in read_rows(path):
                    writer.write(row | new.get(row["key"], {}))
    return len(new)
