"""A matrix of decomposers, solvers, tasks, modes and caps, as a TOML file names them.

[decomposers.student]
use = "bundle"              what --decomposer takes, or the name of a recorded decomposer; its own name if left out
published = "S_D-R"         the row of the published tables that it stands beside
trained_on = "gsm8k"        the task that it was trained on, where that is known
[solvers.large]
model = "gpt-4o-mini"       also: url, price_as, max_tokens, published, replay (a recording, or a folder of runs)
[tasks.gsm8k]
data = "test.jsonl"         also: task (its own name if left out), split, limit, seed
[[tables]]
name = "main"               the cells of a table are all its decomposers x solvers x tasks x modes x caps
decomposers = ["student"]   solvers, tasks: all that there are, if left out
modes = ["static"]          also "interactive"
caps = ["own", "none", 3]   most subquestions; "own": what the model was trained with; "none": no limit
"""

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from edgedc.bench.figures import Graded
from edgedc.bench.published import Cap, Published
from edgedc.bench.table import Cell as TableCell
from edgedc.bench.table import table
from edgedc.errors import InputError
from edgedc.files import read_text
from edgedc.tasks import TASKS, Selection

MODES = ("static", "interactive")


@dataclass(frozen=True)
class DecomposerEntry:
    use: str = ""
    published: str = ""
    trained_on: str = ""


@dataclass(frozen=True)
class SolverEntry:
    model: str = ""
    url: str = ""
    price_as: str = ""
    replay: str = ""
    max_tokens: int = 0
    published: str = ""


@dataclass(frozen=True)
class TaskEntry:
    data: str = ""
    task: str = ""
    split: str = "test"
    limit: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Cell:
    """One figure to be measured, by the names in the file."""

    decomposer: str
    solver: str
    task: str
    mode: str
    cap: Cap


@dataclass(frozen=True)
class Table:
    name: str
    decomposers: tuple[str, ...]
    solvers: tuple[str, ...]
    tasks: tuple[str, ...]
    modes: tuple[str, ...]
    caps: tuple[Cap, ...]

    @property
    def cells(self) -> list[Cell]:
        return [
            Cell(decomposer, solver, task, mode, cap)
            for decomposer, solver, task, mode, cap in itertools.product(
                self.decomposers, self.solvers, self.tasks, self.modes, self.caps
            )
        ]


@dataclass(frozen=True)
class Matrix:
    decomposers: dict[str, DecomposerEntry]
    solvers: dict[str, SolverEntry]
    tasks: dict[str, Selection]
    tables: tuple[Table, ...]

    @property
    def cells(self) -> list[Cell]:
        """Each once, however many tables have it."""
        return list(dict.fromkeys(cell for one in self.tables for cell in one.cells))


@dataclass(frozen=True)
class Outcome:
    """What came of a cell. `why` it could not be run, where it could not; nothing else is known then.

    `tokens` are the remote calls', a question; `failed` questions are in no figure.
    """

    cell: Cell
    graded: Graded | None = None
    failed: int = 0
    tokens: float | None = None
    usd: float | None = None
    simulated: bool = False
    why: str = ""
    published: tuple[Published, ...] = ()


Entry = TypeVar("Entry", DecomposerEntry, SolverEntry, TaskEntry)


def read_matrix(path: Path) -> Matrix:
    """Paths in it are relative to it. Raises InputError, naming the file and the key, for what is not a matrix."""
    try:
        found = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {error}") from error
    if unknown := sorted(set(found) - {"decomposers", "solvers", "tasks", "tables"}):
        raise InputError(f"{path}: unknown {unknown[0]!r}; a matrix has decomposers, solvers, tasks and tables")
    decomposers = _entries(found, "decomposers", DecomposerEntry, path)
    solvers = _entries(found, "solvers", SolverEntry, path)
    tasks = {name: _selection(name, entry, path) for name, entry in _entries(found, "tasks", TaskEntry, path).items()}
    known: dict[str, Mapping[str, Any]] = {"decomposers": decomposers, "solvers": solvers, "tasks": tasks}
    tables = found.get("tables")
    if not isinstance(tables, list) or not tables or not all(isinstance(one, dict) for one in tables):
        raise InputError(f"{path}: it needs [[tables]], at least one")
    made = tuple(_table(one, known, f"{path}: table {k}") for k, one in enumerate(tables, start=1))
    return Matrix(
        {name: _resolved(entry, name, path) for name, entry in decomposers.items()},
        {name: _with_file(entry, path) for name, entry in solvers.items()},
        tasks,
        made,
    )


def _entries(found: Mapping[str, Any], kind: str, entry: type[Entry], path: Path) -> dict[str, Entry]:
    given = found.get(kind)
    if not isinstance(given, dict) or not given:
        raise InputError(f"{path}: it needs [{kind}.NAME], at least one")
    types = {field.name: type(field.default) for field in fields(entry)}
    made = {}
    for name, values in given.items():
        for key, value in values.items() if isinstance(values, dict) else ((name, values),):
            if key not in types:
                raise InputError(f"{path}: [{kind}.{name}] has no {key!r}; it has {', '.join(types)}")
            if type(value) is not types[key]:
                raise InputError(f"{path}: [{kind}.{name}] {key} = {value!r}: give a {types[key].__name__}")
        made[name] = entry(**values)
    return made


def _selection(name: str, entry: TaskEntry, path: Path) -> Selection:
    task = entry.task or name
    if task not in TASKS:
        raise InputError(f"{path}: [tasks.{name}] is no task; known: {', '.join(TASKS)}; name one with `task`")
    data = str(path.parent / entry.data) if entry.data else ""
    return Selection(task, data, entry.split, entry.limit or None, entry.seed)


def _resolved(entry: DecomposerEntry, name: str, path: Path) -> DecomposerEntry:
    use = entry.use or name
    beside = path.parent / use
    return DecomposerEntry(str(beside) if beside.exists() else use, entry.published, entry.trained_on)


def _with_file(entry: SolverEntry, path: Path) -> SolverEntry:
    if not entry.replay:
        return entry
    return replace(entry, replay=str(path.parent / entry.replay))


def _table(given: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]], where: str) -> Table:
    parts: dict[str, Any] = {name: given.get(name, list(there)) for name, there in known.items()}
    parts |= {"modes": given.get("modes", ["static"]), "caps": given.get("caps", ["own"])}
    if unknown := sorted(set(given) - {"name", *parts}):
        raise InputError(f"{where}: unknown {unknown[0]!r}; a table has name, {', '.join(parts)}")
    for name, values in parts.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}: {name} is a list of names that is not empty")
        for value in values:
            if name in known and value not in known[name]:
                raise InputError(f"{where}: {name}: there is no [{name}.{value}]")
            if name == "modes" and value not in MODES:
                raise InputError(f"{where}: modes: {value!r} is none of {', '.join(MODES)}")
            if name == "caps" and not (value in ("own", "none") or (type(value) is int and value > 0)):
                raise InputError(f"{where}: caps: {value!r} is not a number above 0, nor own or none")
    return Table(str(given.get("name", where)), **{name: tuple(values) for name, values in parts.items()})


def show_matrix(matrix: Matrix, outcomes: Sequence[Outcome]) -> str:
    """A table each: a line for each decomposer, solver, mode and cap; two columns a task, measured and published."""
    by_cell = {outcome.cell: outcome for outcome in outcomes}
    reasons: list[str] = []
    blocks = [_shown(one, by_cell, reasons) for one in matrix.tables]
    if reasons:
        blocks.append("\n".join(f"[{k}] not run: {why}" for k, why in enumerate(reasons, start=1)))
    sources = sorted({one.source for outcome in outcomes for one in outcome.published})
    if sources:
        said = f"Published: {'; '.join(sources)}; with other models and prompts, some on a subset of the questions."
        blocks.append(said)
    if any(outcome.simulated for outcome in outcomes):
        blocks.append("* the solver is SIMULATED: what it scores is an assumption")
    return "\n\n".join(blocks)


def _shown(wanted: Table, outcomes: Mapping[Cell, Outcome], reasons: list[str]) -> str:
    headers = ["decomposer", "solver"]
    varied = [name for name, values in (("mode", wanted.modes), ("cap", wanted.caps)) if len(values) > 1]
    headers += varied
    for task in wanted.tasks:
        here = [outcomes[cell] for cell in wanted.cells if cell.task == task]
        metrics = {one.graded.metric for one in here if one.graded}
        metric = ", ".join(sorted(metrics))
        headers += [f"{task}\n{metric}\n(95 % interval)", "\npublished", "tokens a\nquestion"]
    rows: list[list[TableCell]] = []
    for decomposer, solver, mode, cap in itertools.product(
        wanted.decomposers, wanted.solvers, wanted.modes, wanted.caps
    ):
        row: list[TableCell] = [decomposer, solver]
        row += [str(value) for name, value in (("mode", mode), ("cap", cap)) if name in varied]
        for task in wanted.tasks:
            outcome = outcomes[Cell(decomposer, solver, task, mode, cap)]
            beside = " / ".join(_beside(figure, words="mode" in varied) for figure in outcome.published) or None
            row += [_figure(outcome, reasons), beside, outcome.tokens]
        rows.append(row)
    return f"{wanted.name}\n{table(headers, rows)}"


def _beside(figure: Published, *, words: bool) -> str:
    """The published figure; where modes are compared, with the words of the test set, its tokens."""
    return f"{figure.value:g}" + (f" ({figure.tokens:,} words)" if words and figure.tokens else "")


def _figure(outcome: Outcome, reasons: list[str]) -> str:
    if outcome.graded is None:
        if outcome.why not in reasons:
            reasons.append(outcome.why)
        return f"not run [{reasons.index(outcome.why) + 1}]"
    between = outcome.graded.interval
    said = f" ({100 * between[0]:.1f} to {100 * between[1]:.1f})" if between else ""
    marks = "*" * outcome.simulated + (f" -{outcome.failed} failed" if outcome.failed else "")
    return f"{100 * outcome.graded.value:.1f}{said}{marks}"
