"""Local against remote decomposition: the same questions through every system, one row per question and system."""

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgedc import __version__
from edgedc.answers import Answer, Stage
from edgedc.bench.load import Limits, Load, Served, Turn, served, spread
from edgedc.bench.metrics import Record, Summary, call_of, record_from, summarise
from edgedc.bench.network import Network
from edgedc.bench.quality import score_decomposition
from edgedc.bench.systems import MAX_FAILURES, System
from edgedc.bundle import now
from edgedc.errors import ContextError, EdgedcError, InputError, SolverError
from edgedc.files import RowWriter, key_of, read_object, read_rows, write_text
from edgedc.generation import Solver
from edgedc.machine import Machine, this_machine
from edgedc.pipeline import answer
from edgedc.prices import Price
from edgedc.prompts import MAX_TOKENS_SOLVE
from edgedc.tasks import Example
from edgedc.typed import typed

ONE_BY_ONE, NO_LIMITS = Load(), Limits()


@dataclass(frozen=True)
class Provider:
    """A solver, where it is, and at what price its tokens are counted."""

    solver: Solver
    price: Price
    url: str = ""

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
    """A bench's figures. `rows` is the name of the file of raw rows, which lies beside the results.

    That file may hold rows of other runs too: `keys` are those of each system's own, in order. It is empty in results
    of before they were kept.

    `network` is the emulated one, None where it is as it is. `served` has, for each system, how it fared under the
    load; it is empty in results of before there was one.
    """

    edgedc: str
    created: str
    machine: Machine
    selection: dict[str, Any]
    solver: About
    systems: tuple[Summary, ...]
    rows: str
    load: Load = Load()
    limits: Limits = Limits()
    network: Network | None = None
    served: tuple[Served, ...] = ()
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)


def read_results(path: Path) -> Results:
    """What `run_bench` wrote to `output`. Raises InputError for something else."""
    return results_from(read_object(path), path)


def results_from(row: dict[str, Any], where: Path) -> Results:
    """What `Results.to_json` wrote. Raises InputError for something else."""
    try:
        results: Results = typed(row, Results)
        where.with_name(results.rows)
    except (ValueError, InputError) as error:
        raise InputError(f"{where}: not the results of  edgedc bench pair  ({error})") from error
    return results


Progress = Callable[[int, int, Record], None]


def rows_beside(output: Path) -> Path:
    return output.with_name(f"{output.stem}.rows.jsonl")


def records_of(results: Results, rows: Path) -> dict[str, list[Record]]:
    """Each system's records from the raw rows, and none of another run's that the file holds too.

    Where the results have no `keys` they are all that have the system's name. Raises InputError for a row that is
    missing or no bench's.
    """
    found = {str(row.get("key")): row for row in read_rows(rows)}  # of a question asked again, the last
    names = [system.system for system in results.systems]
    keys = results.keys or {n: tuple(key for key, row in found.items() if row.get("system") == n) for n in names}
    try:
        return {name: [record_from({**found[key], "system": name}) for key in keys[name]] for name in names}
    except KeyError as error:
        raise InputError(f"{rows}: not the raw rows of these results: there is none of {error}") from error
    except ValueError as error:
        raise InputError(f"{rows}: not the raw rows of these results ({error})") from error


def run_bench(
    systems: Sequence[System],
    examples: Sequence[Example],
    *,
    provider: Provider,
    score: Callable[[str, Example], bool],
    output: Path,
    selection: dict[str, Any] | None = None,
    max_tokens: int = MAX_TOKENS_SOLVE,
    load: Load = ONE_BY_ONE,
    limits: Limits = NO_LIMITS,
    network: Network | None = None,
    progress: Progress | None = None,
) -> Results:
    """Put every question to every system, and write the results to `output` and the raw rows beside it.

    One at a time, the systems take turns on each question, so that a slow hour of the machine or the network falls on
    all of them; under any other `load` each system has it to itself, one after the other. What a question waits for a
    local model is part of what it takes; several threads ask that then, and it must take them. `network` is what the
    provider's solver is reached through, for the record.

    Rows that are already there are not asked for again; failed ones are. A failure of one question is a row of its own
    and the bench goes on; after MAX_FAILURES in a row, of all systems or of one, and where nothing else came, it
    raises the last one's error. `progress` gets the count of rows so far, the count of all, and the row, in any thread
    but one at a time.

    Raises InputError, before any call, when two systems share a name or an identity, a remote decomposer has no price,
    a question is empty, or the rows that are there were measured under another load or network; and BudgetError where
    the solver does. The rows made until then are kept.
    """
    _validate(systems, examples)
    asking = _Asking(provider, score, max_tokens, f"{load}, network {network or 'as it is'}")
    turns = [(system, k) for k in range(len(examples)) for system in systems]
    records: dict[tuple[str, int], Record] = {}
    failures = _Failures()
    with RowWriter(rows_beside(output)) as writer:
        _check_rows(writer, asking.circumstances, output)

        def key(system: System, k: int) -> str:
            return _key(system, examples[k], provider, max_tokens)

        def note(k: int, record: Record) -> None:
            records[record.system, k] = record
            if progress:
                progress(len(records), len(turns), record)

        def keep(part: list[tuple[System, int]], number: int, made: tuple[Record, EdgedcError | None]) -> None:
            (system, k), (record, error) = part[number], made
            writer.write({"key": key(system, k), **asdict(record)})
            note(k, record)
            failures.count(system.name, error)

        missing = []
        for system, k in turns:
            row = writer.rows.get(key(system, k))
            if row is not None and not row["error"]:
                note(k, record_from({**row, "system": system.name}))
            else:
                missing.append((system, k))
        parts = [missing] if load.one_by_one else [[turn for turn in missing if turn[0] is s] for s in systems]
        for part in parts:
            ask = partial(asking.measure, [(system, examples[k]) for system, k in part], time.monotonic())
            spread(len(part), load, ask, partial(keep, part))
    if failures.last and all(record.error for record in records.values()):
        raise failures.last
    in_order = {system.name: [records[system.name, k] for k in range(len(examples))] for system in systems}
    results = _results(systems, in_order, provider, selection or {}, output)
    fared = tuple(served(in_order[system.name], load, limits) for system in systems)
    keys = {system.name: tuple(key(system, k) for k in range(len(examples))) for system in systems}
    results = replace(results, load=load, limits=limits, network=network, served=fared, keys=keys)
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


def _check_rows(writer: RowWriter, circumstances: str, output: Path) -> None:
    """Seconds of different loads and networks are not for the same table."""
    for row in writer.rows.values():
        if row.get("circumstances") != circumstances:
            said = row.get("circumstances") or "another edgedc's"
            raise InputError(
                f"{rows_beside(output)}: its rows were measured under another load or network ({said}; "
                f"now: {circumstances}); give another --output"
            )


def _key(system: System, example: Example, provider: Provider, max_tokens: int) -> str:
    """A hash of all that determines a row. The version stands for the prompts and the scorer; prices play no part."""
    decomposer = system.decomposer
    how = (decomposer.where, decomposer.style, decomposer.cap, decomposer.max_tokens) if decomposer else None
    solver = (provider.solver.model, provider.url, max_tokens)
    return key_of("pair", __version__, system.mode, system.identity, how, solver, asdict(example))


class _Asking:
    """How questions are asked in one sitting of a bench."""

    def __init__(
        self, provider: Provider, score: Callable[[str, Example], bool], max_tokens: int, circumstances: str
    ) -> None:
        self.circumstances = circumstances
        self._provider, self._score, self._max_tokens = provider, score, max_tokens
        self._sitting = secrets.token_hex(4)

    def measure(
        self, part: Sequence[tuple[System, Example]], began: float, number: int, intended: float
    ) -> tuple[Record, EdgedcError | None]:
        """A question's row, and the error in it. It was meant to be asked at `intended`, of time.monotonic."""
        started, (system, example) = time.monotonic(), part[number]
        decomposer = system.decomposer
        turn = Turn(decomposer.generate) if decomposer and decomposer.where == "local" else None
        record = Record(
            system.name,
            example.id,
            queued_s=max(0.0, started - intended),
            asked_s=max(0.0, intended - began),
            sitting=self._sitting,
            circumstances=self.circumstances,
            example=key_of(asdict(example)),
        )
        made: Answer | None = None
        error: EdgedcError | None = None
        try:
            made = answer(
                example.question,
                example.premise,
                mode=system.mode,
                solver=self._provider.solver,
                decomposer=replace(decomposer, generate=turn.generate) if decomposer and turn else decomposer,
                max_tokens=self._max_tokens,
            )
        except (SolverError, ContextError) as raised:
            error = raised
        seconds = time.monotonic() - started
        record = replace(record, seconds=record.queued_s + seconds, turn_s=turn.waited_s if turn else 0.0)
        if made:
            record = replace(record, calls=tuple(call_of(stage, self._price(system, stage)) for stage in made.stages))
            error = made.failure
        if error:
            return replace(record, error=str(error)), error
        assert made
        return self._answered(record, example, made), None

    def _price(self, system: System, stage: Stage) -> Price | None:
        return system.price if stage.name == "decompose" else self._provider.price

    def _answered(self, record: Record, example: Example, made: Answer) -> Record:
        decomposition, gold, solver = made.decomposition, example.decomposition, self._provider.solver
        return replace(
            record,
            mode=made.mode,
            status=decomposition.status if decomposition else None,
            raw=decomposition.raw if decomposition else None,
            exact=score_decomposition(decomposition, gold).exact if decomposition and gold else None,
            answer=made.final,
            correct=self._score(made.text, example) if example.answer else None,
            # a solver learns of its server with the first answer: whether it is simulated, what it refuses
            notes=(*made.notes, *getattr(solver, "remarks", ())),
            simulated=getattr(solver, "simulated", False),
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
