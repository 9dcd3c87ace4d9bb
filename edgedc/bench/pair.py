"""Local against remote decomposition: the same questions through every system, one row per question and system."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgedc import __version__
from edgedc.bench.machine import Machine, this_machine
from edgedc.bench.metrics import Record, Summary, call_of, record_from, summarise
from edgedc.bench.quality import score_decomposition
from edgedc.bench.systems import System
from edgedc.bundle import now
from edgedc.errors import ContextError, EdgedcError, InputError, SolverError
from edgedc.files import RowWriter, key_of, write_text
from edgedc.generation import Solver
from edgedc.ledger import Price
from edgedc.pipeline import Answer, answer
from edgedc.prompts import MAX_TOKENS_SOLVE
from edgedc.tasks import Example

# a solver that fails this often in a row is down, not unlucky
MAX_FAILURES = 5


@dataclass(frozen=True)
class Provider:
    """A solver, where it is, and at what price its tokens are counted.

    `settings` is whatever else determines its replies (temperature, seed).
    """

    solver: Solver
    price: Price
    url: str = ""
    settings: str = ""

    @property
    def priced_as(self) -> str:
        """The model whose price is used, where it is another one; else empty."""
        return self.price.model if self.price.model != self.solver.model else ""


@dataclass(frozen=True)
class About:
    """The solver, as the results name it. `host` is the URL's; `price` has its date and source."""

    model: str
    host: str
    simulated: bool
    priced_as: str
    price: Price


@dataclass(frozen=True)
class Results:
    """A bench's figures. `rows` is the name of the file of raw rows, which lies beside the results."""

    edgedc: str
    created: str
    machine: Machine
    selection: dict[str, Any]
    solver: About
    systems: tuple[Summary, ...]
    rows: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)


Progress = Callable[[int, int, Record], None]


def rows_beside(output: Path) -> Path:
    return output.with_name(f"{output.stem}.rows.jsonl")


def run_bench(
    systems: Sequence[System],
    examples: Sequence[Example],
    *,
    provider: Provider,
    score: Callable[[str, Example], bool],
    output: Path,
    selection: dict[str, Any] | None = None,
    max_tokens: int = MAX_TOKENS_SOLVE,
    progress: Progress | None = None,
) -> Results:
    """Put every question to every system, and write the results to `output` and the raw rows beside it.

    The systems take turns on each question, so that a slow hour of the machine or the network falls on all of them.
    Rows that are already there are not asked for again; failed ones are. A failure of one question is a row of its own
    and the bench goes on; after MAX_FAILURES in a row, of all systems or of one, and where nothing else came, it
    raises the last one's error. `progress` gets the count of rows so far, the count of all, and the row.

    Raises InputError, before any call, when two systems share a name or an identity, a remote decomposer has no price
    or a question is empty; and BudgetError where the solver does. The rows made until then are kept.
    """
    _validate(systems, examples)
    records: dict[str, list[Record]] = {system.name: [] for system in systems}
    failures = _Failures()
    total = len(systems) * len(examples)
    with _open_rows(output) as writer:
        turns = [(example, system) for example in examples for system in systems]
        for done, (example, system) in enumerate(turns, start=1):
            key = _key(system, example, provider, max_tokens)
            row = writer.rows.get(key)
            if row is not None and not row["error"]:
                record = record_from({**row, "system": system.name})
            else:
                record, error = _measure(system, example, provider.solver, score, max_tokens)
                writer.write({"key": key, **asdict(record)})
                failures.count(system.name, error)
            records[system.name].append(record)
            if progress:
                progress(done, total, record)
    if failures.last and all(record.error for made in records.values() for record in made):
        raise failures.last
    results = _results(systems, records, provider, selection or {}, output)
    write_text(output, results.to_json() + "\n")
    return results


class _Failures:
    """How often it failed in a row: a solver that is down fails all systems, a remote decomposer only its own."""

    def __init__(self) -> None:
        self.last: EdgedcError | None = None
        self._streaks: dict[str, int] = {}

    def count(self, system: str, error: EdgedcError | None) -> None:
        """Raises the error that is one too many."""
        for name in ("", system):
            self._streaks[name] = self._streaks.get(name, 0) + 1 if error else 0
        if error:
            self.last = error
            if max(self._streaks[""], self._streaks[system]) >= MAX_FAILURES:
                raise error


def _open_rows(output: Path) -> RowWriter:
    try:
        return RowWriter(rows_beside(output))
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}; give another --output") from error


def _validate(systems: Sequence[System], examples: Sequence[Example]) -> None:
    for example in examples:
        if not example.question.strip():
            raise InputError(f"{example.id}: the question is empty; leave it out")
    seen: set[object] = set()
    for system in systems:
        which = (system.mode, system.identity)
        if system.name in seen or which in seen:
            raise InputError(f"{system.name}: named twice; give each system once")
        seen.update((system.name, which))
        if system.decomposer and system.decomposer.where == "remote" and system.price is None:
            raise InputError(f"{system.name}: a remote decomposer needs a price: name one with --price-as or --prices")


def _key(system: System, example: Example, provider: Provider, max_tokens: int) -> str:
    """A hash of all that determines a row. The version stands for the prompts and the scorer; prices play no part."""
    decomposer = system.decomposer
    how = (decomposer.where, decomposer.style, decomposer.cap, decomposer.max_tokens) if decomposer else None
    solver = (provider.solver.model, provider.url, provider.settings, max_tokens)
    return key_of("pair", __version__, system.mode, system.identity, how, solver, asdict(example))


def _measure(
    system: System, example: Example, solver: Solver, score: Callable[[str, Example], bool], max_tokens: int
) -> tuple[Record, EdgedcError | None]:
    try:
        made = answer(
            example.question,
            example.premise,
            mode=system.mode,
            solver=solver,
            decomposer=system.decomposer,
            max_tokens=max_tokens,
        )
    except (SolverError, ContextError) as error:
        return Record(system.name, example.id, error=str(error)), error
    return _record(system, example, made, score, solver), None


def _record(
    system: System, example: Example, made: Answer, score: Callable[[str, Example], bool], solver: Solver
) -> Record:
    decomposition, gold = made.decomposition, example.decomposition
    return Record(
        system=system.name,
        id=example.id,
        mode=made.mode,
        status=decomposition.status if decomposition else None,
        raw=decomposition.raw if decomposition else None,
        exact=score_decomposition(decomposition, gold).exact if decomposition and gold else None,
        answer=made.final,
        correct=score(made.text, example) if example.answer else None,
        # what a solver learns of its server it learns with the first answer: whether it is simulated, what it refuses
        notes=(*made.notes, *getattr(solver, "remarks", ())),
        simulated=getattr(solver, "simulated", False),
        calls=tuple(call_of(stage) for stage in made.stages),
    )


def _results(
    systems: Sequence[System],
    records: dict[str, list[Record]],
    provider: Provider,
    selection: dict[str, Any],
    output: Path,
) -> Results:
    summaries = tuple(
        summarise(
            records[system.name],
            system=system.name,
            mode=system.mode,
            decomposer=system.decomposer.where if system.decomposer else None,
            identity=system.identity,
            solver_price=provider.price,
            decomposer_price=system.price and _without_folder(system.price),
        )
        for system in systems
    )
    simulated = any(record.simulated for made in records.values() for record in made)
    price = _without_folder(provider.price)
    # a URL may carry a name and a password before the host
    host = provider.url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    return Results(
        edgedc=__version__,
        created=now(),
        machine=this_machine(),
        selection=selection,
        solver=About(provider.solver.model, host, simulated, provider.priced_as, price),
        systems=summaries,
        rows=rows_beside(output).name,
    )


def _without_folder(price: Price) -> Price:
    """A price from a file of the user's names the file, not where on this machine it lies."""
    return replace(price, source=Path(price.source).name) if Path(price.source).is_absolute() else price
