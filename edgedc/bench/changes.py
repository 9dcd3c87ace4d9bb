"""Two benches side by side: what really changed, question by question, and what else was different about them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedc.bench.metrics import Record
from edgedc.bench.pair import Results, read_results, records_of
from edgedc.bench.paired import Compared, adjusted
from edgedc.bench.statistics import compare
from edgedc.errors import InputError

SIGNIFICANT = 0.05  # of p-values adjusted for the number of tests


@dataclass(frozen=True)
class Bench:
    """A file of `edgedc bench pair --output`, and its raw rows by system and question; failed ones left out."""

    path: Path
    results: Results
    records: Mapping[str, Mapping[str, Record]]


@dataclass(frozen=True)
class Change:
    """`before` and `after` are means over the questions that both benches answered."""

    compared: Compared
    before: float
    after: float

    @property
    def real(self) -> bool:
        return self.compared.p_holm is not None and self.compared.p_holm < SIGNIFICANT


def read_bench(path: Path) -> Bench:
    """Raises InputError when it is not a bench's results, or its rows are gone."""
    results = read_results(path)
    made = records_of(results, path.with_name(results.rows))
    answered = {system: {one.id: one for one in own if not one.error} for system, own in made.items()}
    return Bench(path, results, answered)


def changes(before: Bench, after: Bench) -> list[Change]:
    """Every measure of every system that is in both, on the questions that both answered.

    Raises InputError when there is no such question. p-values are adjusted for all of these tests together (Holm).
    """
    made: list[tuple[Compared, float, float]] = []
    for system in before.records:
        ours, theirs = before.records[system], after.records.get(system, {})
        both = [(ours[id], theirs[id]) for id in ours if id in theirs and _same(ours[id], theirs[id])]
        for measure, of in _MEASURES.items():
            pairs = [
                (a, b) for a, b in ((of(one), of(other)) for one, other in both) if a is not None and b is not None
            ]
            if pairs:
                firsts, seconds = [a for a, _ in pairs], [b for _, b in pairs]
                compared = Compared(system, measure, str(before.path), str(after.path), compare(firsts, seconds))
                made.append((compared, sum(firsts) / len(pairs), sum(seconds) / len(pairs)))
    if not made:
        raise InputError(f"{before.path} and {after.path}: no system answered the same question in both")
    corrected = adjusted([compared for compared, _, _ in made])
    return [Change(one, a, b) for one, (_, a, b) in zip(corrected, made, strict=True)]


def differences(before: Bench, after: Bench) -> list[str]:
    """What else differs between the two, a line each: figures may have changed for that."""
    pairs = [(name, of(before.results), of(after.results)) for name, of in _CIRCUMSTANCES.items()]
    lines = [f"{name}: {old} before, {new} after" for name, old, new in pairs if old != new]
    only = [(b, a, word) for b, a, word in ((before, after, "before"), (after, before, "after"))]
    for one, other, word in only:
        lines += [f"{system}: only {word}" for system in one.records if system not in other.records]
    return lines


def _same(one: Record, other: Record) -> bool:
    """Whether it is the same question, as far as the rows say."""
    return not (one.example and other.example) or one.example == other.example


def _answered(value: bool | None) -> float | None:
    return None if value is None else float(value)


def _sum(record: Record, tokens: str) -> float | None:
    return float(sum(getattr(call, tokens) for call in record.calls)) if record.calls else None


def _decomposing(record: Record) -> float | None:
    return next((call.total_s for call in record.calls if call.stage == "decompose"), None)


_MEASURES: dict[str, Callable[[Record], float | None]] = {
    "accuracy": lambda record: _answered(record.correct),
    "exact decomposition": lambda record: _answered(record.exact),
    "seconds, all": lambda record: record.seconds,
    "seconds, decomposing": _decomposing,
    "tokens read": lambda record: _sum(record, "input_tokens"),
    "tokens written": lambda record: _sum(record, "output_tokens"),
}
_CIRCUMSTANCES: dict[str, Callable[[Results], object]] = {
    "edgedc": lambda results: results.edgedc,
    "processor": lambda results: results.machine.cpu,
    "cores": lambda results: results.machine.cores,
    "versions": lambda results: ", ".join(f"{k} {v}" for k, v in sorted(results.machine.versions.items())),
    "solver": lambda results: results.solver.model,
    "solver's host": lambda results: results.solver.host,
    "simulated": lambda results: results.solver.simulated,
    "prices": lambda results: f"{results.solver.price.model} of {results.solver.price.date}",
    "load": lambda results: str(results.load),
    "network": lambda results: str(results.network or "as it is"),
    "questions": lambda results: ", ".join(f"{k} {v}" for k, v in results.selection.items() if v not in (None, "")),
}


def summary(found: Sequence[Change]) -> str:
    """The answer in a sentence. That chance could make a difference does not say that there is none."""
    real = [change for change in found if change.real]
    if not real:
        tested = sum(change.compared.p_holm is not None for change in found)
        counted = f"{tested} of {len(found)} differences could be tested"
        return f"No evidence of a change: {counted}, none is more than chance would make."
    said = [f"{c.compared.task}: {c.compared.measure} {c.before:.3g} -> {c.after:.3g}" for c in real]
    return f"{len(real)} of {len(found)} differences are more than chance would make: {'; '.join(said)}."
