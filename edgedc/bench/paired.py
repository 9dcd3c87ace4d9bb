"""Which systems really differ: the same questions, every other system against the first, p-values adjusted together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgedc.bench.statistics import Difference, compare, holm
from edgedc.files import Row


@dataclass(frozen=True)
class Compared:
    """`second` minus `first`. `p_holm` is p adjusted for all the comparisons that were made; None where p is."""

    task: str
    measure: str
    first: str
    second: str
    difference: Difference
    p_holm: float | None = None


def compare_systems(task: str, measure: str, rows: Mapping[str, Sequence[Row]], field: str = "grade") -> list[Compared]:
    """Of one task's rows by system, over the questions that both answered. Left out where there are none."""
    (first, ours), *others = rows.items()
    made = []
    for second, theirs in others:
        pairs = [
            (one[field], other[field])
            for one, other in zip(ours, theirs, strict=True)
            if one.get(field) is not None and other.get(field) is not None
        ]
        if pairs:
            made.append(Compared(task, measure, first, second, compare([a for a, _ in pairs], [b for _, b in pairs])))
    return made


def adjusted(compared: Sequence[Compared]) -> list[Compared]:
    """The same with `p_holm`."""
    tested = [one for one in compared if one.difference.p is not None]
    ps = dict(zip(map(id, tested), holm([one.difference.p or 0.0 for one in tested]), strict=True))
    return [replace(one, p_holm=ps.get(id(one))) for one in compared]
