"""edgedc evaluate --matrix FILE: cell by cell, each with its reason where it could not be run."""

import json
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import click

from edgedc.answers import Mode
from edgedc.bench.figures import Graded, grade_of
from edgedc.bench.matrix import Cell, Matrix, Outcome, SolverEntry, read_matrix, show_matrix
from edgedc.bench.published import Published, find_published
from edgedc.bench.recorded import DECOMPOSERS, read_recordings
from edgedc.bench.sources import words_of
from edgedc.commands._local import Settings
from edgedc.commands._solver import Solving, opened
from edgedc.commands.evaluate import evaluated, run_in, scorable
from edgedc.commands.evaluate.systems import Decomposers
from edgedc.errors import BudgetError, EdgedcError, InputError
from edgedc.files import RowWriter
from edgedc.solvers.loopback import Timing
from edgedc.tasks import load_examples


def run_matrix(
    path: Path, settings: Settings, solving: Solving, timing: Timing, output: Path | None, *, as_json: bool
) -> None:
    """Fill the tables of the file. Rows are kept in `output`, and a rerun asks for none of them again.

    A cell that fails does not end the others. Raises BudgetError, after the tables, when the ceiling was reached, and
    the first error when no cell could be run.
    """
    matrix = read_matrix(path)
    if output is None:
        raise InputError("--matrix needs --output FILE.jsonl: the rows are kept there, and a rerun goes on from them")
    if solving.solver_model or solving.solver_url or solving.replay:
        raise InputError(f"--matrix: the solvers stand in {path}: leave out --solver-model, --solver-url and --replay")
    outcomes: list[Outcome] = []
    errors: list[EdgedcError] = []
    reached: BudgetError | None = None
    with ExitStack() as stack:
        writer = stack.enter_context(RowWriter(output))
        sources, run = Decomposers(stack, settings), run_in(writer)
        for number, cell in enumerate(matrix.cells, start=1):
            click.echo(f"cell {number} of {len(matrix.cells)}: {' / '.join(map(str, asdict(cell).values()))}", err=True)
            figures = _published(matrix, cell)
            try:
                if reached:
                    raise reached
                outcomes.append(replace(_run(matrix, cell, solving, timing, sources, writer, run), published=figures))
            except EdgedcError as error:
                reached = error if isinstance(error, BudgetError) else reached
                errors.append(error)
                outcomes.append(Outcome(cell, why=str(error), published=figures))
    if len(errors) == len(outcomes):
        raise errors[0]
    click.echo(json.dumps([asdict(one) for one in outcomes]) if as_json else show_matrix(matrix, outcomes))
    if reached:
        raise reached


def _published(matrix: Matrix, cell: Cell) -> tuple[Published, ...]:
    decomposer, solver = matrix.decomposers[cell.decomposer], matrix.solvers[cell.solver]
    mode = "single-stage" if decomposer.use == "none" else cell.mode
    return find_published(
        decomposer.published or (decomposer.use if decomposer.use == "none" else ""),
        solver.published,
        matrix.tasks[cell.task].task,
        mode,
        cell.cap,
        decomposer.trained_on,
    )


def _run(
    matrix: Matrix,
    cell: Cell,
    solving: Solving,
    timing: Timing,
    sources: Decomposers,
    writer: RowWriter,
    run: str,
) -> Outcome:
    solver, selection = matrix.solvers[cell.solver], matrix.tasks[cell.task]
    use = matrix.decomposers[cell.decomposer].use
    if solver.replay and Path(solver.replay).is_dir():
        return Outcome(cell, _recorded(Path(solver.replay), use, cell, matrix))
    if fixed := _fixed(use, cell):
        raise InputError(f"{cell.decomposer}: {fixed}")
    sources.check(use, solver=True)
    examples = scorable(selection, with_solver=True)
    with opened(_solving(solving, solver), timing, selection, run) as answering:
        mode: Mode = "interactive" if cell.mode == "interactive" else "static"
        made = evaluated(selection, examples, [use], mode, sources, answering, writer, run, cap=cell.cap)
    (figures,) = made.figures
    return Outcome(
        cell, figures.graded, figures.failed, figures.remote_tokens, figures.usd, simulated=figures.simulated
    )


def _fixed(use: str, cell: Cell) -> str:
    """Why this mode or cap would say nothing: the cell would be another one under a wrong name. "" when it does."""
    if use in ("none", "cot") and (cell.mode, cell.cap) != ("static", "own"):
        return "the solver alone has no decomposition, so neither a mode nor a cap: it stands under static and own"
    if (use == "gold" or Path(use).is_file()) and cell.cap != "own":
        return "its decompositions are there already, and no cap changes them: only own says something"
    return ""


def _solving(solving: Solving, solver: SolverEntry) -> Solving:
    return replace(
        solving,
        solver_model=solver.model,
        solver_url=solver.url,
        price_as=solver.price_as or solving.price_as,
        replay=Path(solver.replay) if solver.replay else None,
        solver_max_tokens=solver.max_tokens or solving.solver_max_tokens,
    )


def _recorded(folder: Path, decomposer: str, cell: Cell, matrix: Matrix) -> Graded:
    """A cell that others ran and recorded: nothing is asked. Raises InputError where they did not."""
    if (cell.mode, cell.cap) != ("static", "own"):
        raise InputError(f"{folder}: recorded runs are static, with the decomposer's own number of subquestions")
    name = Path(decomposer).name
    runs = [one for one in read_recordings(folder.parent) if one.solver == folder.name and one.decomposer == name]
    if not runs:
        raise InputError(f"{folder}: no run of {name} is recorded; known names: {', '.join(DECOMPOSERS)}")
    asked = [words_of(example.question) for example in load_examples(matrix.tasks[cell.task])]
    right = [float(runs[0].right[words]) for words in asked if words in runs[0].right]
    graded = grade_of("accuracy, recorded", right)
    if graded is None or len(right) < len(asked):
        raise InputError(f"{folder}: {len(asked) - len(right)} of the {len(asked)} questions were not recorded")
    return graded
