"""edgedc evaluate: any decomposer with any solver on any task, against known decompositions and answers."""

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edgedc.answers import Mode
from edgedc.bench import quality_tables as show
from edgedc.bench.evaluation import evaluate, rows_there
from edgedc.bench.figures import Figures, Graded, figures_of, scores_of
from edgedc.bench.paired import Compared, adjusted, compare_systems
from edgedc.bench.published import Cap
from edgedc.bench.systems import System
from edgedc.commands._batch import Progress
from edgedc.commands._local import Settings, model_options
from edgedc.commands._solver import Opened, Solving, opened, wanted
from edgedc.commands.evaluate.systems import NAMES, Decomposers
from edgedc.errors import BudgetError, InputError, SolverError
from edgedc.files import Row, RowWriter
from edgedc.flags import flags
from edgedc.solvers.loopback import Timing
from edgedc.tasks import Example, Selection, Unseen, find_task, load_examples


@dataclass(frozen=True)
class Evaluated:
    """One task through all systems. The rows of each are those of the examples, in order."""

    selection: Selection
    examples: list[Example]
    systems: list[System]
    rows: dict[str, list[Row]]
    figures: list[Figures]


@click.command(short_help="Score decomposers, with any solver, on any task.")
@model_options
@click.option(
    "--decomposer",
    "decomposers",
    multiple=True,
    metavar="NAME",
    help=f"{', '.join(NAMES)}, a bundle, a name in  edgedc models, or a JSONL file of decompositions; repeatable: the "
    "others are compared with the first. none and cot are the solver alone.  [default: local]",
)
@click.option("--mode", type=click.Choice(["static", "interactive"]), default="static", show_default=True)
@click.option(
    "--tasks", metavar="NAME=FILE,...", help="Several tasks, each with its file; instead of --task and --data."
)
@flags(Unseen)
@flags(Solving)
@flags(Timing)
@click.option("--paper", is_flag=True, help="Also match answers as the paper's released code does, and show the gap.")
@click.option(
    "--matrix",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A TOML file of decomposers, solvers, tasks, modes and caps; fills the paper's tables. Needs --output.",
)
@click.option("--output", type=click.Path(path_type=Path), help="One JSONL row a question; a rerun goes on there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each task and decomposer, not tables.")
def command(
    decomposers: tuple[str, ...],
    mode: Mode,
    tasks: str | None,
    unseen: Unseen,
    solving: Solving,
    timing: Timing,
    paper: bool,
    matrix: Path | None,
    output: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Decompose the selected questions, and with a solver answer them too; compare with what is known.

    Exactly right means: the same status, and every subquestion equal, in order. With --solver-model or --replay the
    answers are scored by the task's own measure, and the decomposers compared with paired tests. --replay DIR reads a
    folder of recorded runs, and estimates from them what a solver would make of a new decomposer.
    """
    settings = Settings(**options)
    if matrix:
        from edgedc.commands.evaluate.matrix import run_matrix

        _check_alone("--matrix", "decomposers", "mode", "tasks", "paper", *(f.name for f in fields(Unseen)))
        run_matrix(matrix, settings, solving, timing, output, as_json=as_json)
        return
    if solving.replay and solving.replay.is_dir():
        from edgedc.commands.evaluate.recorded import show_recorded

        _check_alone("--replay DIR", "mode", "tasks", "paper", "output")
        named = decomposers or (("local",) if settings.model else ())
        show_recorded(solving.replay, unseen, settings, named, as_json=as_json)
        return
    names = decomposers or ("local",)
    with_solver = wanted(solving)
    with ExitStack() as stack:
        sources = Decomposers(stack, settings)
        for name in names:
            sources.check(name, solver=with_solver)
        chosen = [(one, scorable(one, with_solver)) for one in _selections(tasks, unseen)]
        writer = stack.enter_context(RowWriter(output)) if output else None
        run = run_in(writer)
        solver = stack.enter_context(opened(solving, timing, chosen[0][0], run)) if with_solver else None
        try:
            done = [evaluated(one, known, names, mode, sources, solver, writer, run) for one, known in chosen]
        except (SolverError, BudgetError):
            if output:
                click.echo(f"Kept in {output}: what is done. The same command goes on from there.", err=True)
            raise
    compared = adjusted([one for made in done for one in _compared(made, with_solver)])
    if as_json:
        for made in done:
            for line in _as_json(made, compared):
                click.echo(json.dumps(line, ensure_ascii=False))
    else:
        click.echo("\n\n".join(_blocks(done, compared, with_solver=with_solver, paper=paper)))


def _check_alone(what: str, *names: str) -> None:
    """Raises InputError for a flag of these names on the command line, in which `what` takes no notice of it."""
    context = click.get_current_context()
    for param in context.command.params:
        if param.name in names and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
            raise InputError(f"{what} has no use for {param.opts[0]}: leave one of them out")


def run_in(writer: RowWriter | None) -> str:
    """The name of the spending that a file of rows is part of, so that --max-cost holds for it, reruns included."""
    rows = writer.rows.values() if writer else ()
    return next((row["run"] for row in rows if row.get("run")), secrets.token_hex(8))


def _selections(tasks: str | None, selection: Selection) -> list[Selection]:
    if not tasks:
        return [selection]
    pairs = [part.strip().partition("=") for part in tasks.split(",") if part.strip()]
    if not pairs:
        raise InputError(f"--tasks {tasks}: it names none; give NAME=FILE,...")
    for name, _, _ in pairs:
        find_task(name)
    return [replace(selection, task=name, data=data) for name, _, data in pairs]


def scorable(selection: Selection, with_solver: bool) -> list[Example]:
    """The examples. Raises InputError when there is nothing to compare one with."""
    examples = load_examples(selection)
    for example in examples:
        if not with_solver and example.decomposition is None:
            raise InputError(f"{selection.task} {example.id}: its decomposition is not known, so it cannot be scored")
        if with_solver and not example.answer:
            raise InputError(f"{selection.task} {example.id}: its answer is not known, so no solver can be scored")
    return examples


def evaluated(
    selection: Selection,
    examples: list[Example],
    names: Sequence[str],
    mode: Mode,
    sources: Decomposers,
    solver: Opened | None,
    writer: RowWriter | None,
    run: str = "",
    cap: Cap = "own",
) -> Evaluated:
    """One task through the named systems. Raises InputError where nothing of one came back."""
    systems = [sources.system(name, examples, mode, solver, cap) for name in names]
    task, answering = find_task(selection.task), solver.answering if solver else None
    total = len(systems) * len(examples)
    there = rows_there(systems, examples, answering, writer) if writer else 0
    if there and writer:
        click.echo(f"{writer.path}: {there} of {total} rows are there already", err=True)
    bar = Progress("evaluate", total)
    rows = evaluate(systems, task, examples, answering=answering, writer=writer, run=run, progress=bar.step)
    figures = [figures_of(system, task, examples, rows[system.name], answering) for system in systems]
    if failed := next((one for one in figures if one.failed == one.questions), None):
        raise InputError(f"{failed.task}, {failed.system}: every question failed, the first: {failed.first_error}")
    return Evaluated(selection, examples, systems, rows, figures)


def _compared(made: Evaluated, with_solver: bool) -> list[Compared]:
    """The other systems against the first: by their answers, else by their decompositions."""
    task = find_task(made.selection.task)
    if with_solver:
        return compare_systems(task.name, task.metric, made.rows)
    scored = {
        name: [_scored(row, example) for row, example in zip(rows, made.examples, strict=True)]
        for name, rows in made.rows.items()
    }
    exact = compare_systems(task.name, "exactly right", scored, "exact")
    return exact + compare_systems(task.name, "ROUGE-L", scored, "rouge")


def _scored(row: Row, example: Example) -> Row:
    """What is compared of a question's decomposition; nothing of one that failed."""
    made = scores_of([(example, row)] if not row["error"] else [])
    return {"exact": float(made[0].exact), "rouge": made[0].rouge} if made else {}


def _blocks(
    done: Sequence[Evaluated], compared: Sequence[Compared], *, with_solver: bool, paper: bool
) -> Iterator[str]:
    figures = [one for made in done for one in made.figures]
    for made in done:
        for one in made.figures:
            if text := show.decompositions(one):
                who, split = f"{one.system}{_with_backend(made, one)}", made.selection.split
                yield f"{who}: {one.questions} questions of {one.task}, split {split}\n{text}"
    if with_solver:
        yield show.answers(figures, paper=paper)
    if compared:
        yield show.differences(compared)
    if said := show.notes(figures):
        yield "\n".join(said)


def _with_backend(made: Evaluated, one: Figures) -> str:
    backend = _backend(made, one)
    return f", {backend}" if backend and backend != one.system else ""


def _backend(made: Evaluated, one: Figures) -> str:
    return next((row["backend"] for row in made.rows[one.system] if row.get("backend")), "")


def _as_json(made: Evaluated, compared: Sequence[Compared]) -> Iterator[Row]:
    for one in made.figures:
        shares = {}
        if one.quality:
            for name in ("exact", "parsed", "status", "count"):
                share = getattr(one.quality, name)
                shares[name] = {"share": share.value, "interval_95": list(share.interval), "hits": share.hits}
        yield {
            "model": one.system,
            "backend": _backend(made, one),
            "task": one.task,
            "data": made.selection.data,
            "split": made.selection.split,
            "seed": made.selection.seed,
            "n": one.questions,
            "failed": one.failed,
            "first_error": one.first_error,
            "empty": one.empty,
            **shares,
            "decompositions": asdict(one.decompositions) if one.decompositions else None,
            "statuses": one.statuses,
            "mode": one.mode,
            "modes": one.modes,
            "score": _graded(one.graded),
            "paper": _graded(one.paper),
            "seconds": one.seconds,
            "remote_tokens": one.remote_tokens,
            "usd": one.usd,
            "booked": one.booked,
            "simulated": one.simulated,
            "against_first": [asdict(c) for c in compared if (c.task, c.second) == (one.task, one.system)],
        }


def _graded(one: Graded | None) -> Row | None:
    if one is None:
        return None
    return {"metric": one.metric, "value": one.value, "interval_95": one.interval and list(one.interval), "n": one.n}
