"""Any decomposer with any solver on any task: one row for each question and system; figures.py has their figures."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from edgedc import __version__
from edgedc.answers import Answer, Begun, Stage, begun_from
from edgedc.bench.systems import MAX_FAILURES, System
from edgedc.decomposer import Decomposer, decompose, remark
from edgedc.decomposition import Decomposition
from edgedc.errors import ContextError, EdgedcError, InputError, SolverError, SolverRefused
from edgedc.files import Row, RowWriter, key_of
from edgedc.generation import Generation, Solver
from edgedc.pipeline import answer
from edgedc.prices import Price
from edgedc.prompts import MAX_TOKENS_SOLVE
from edgedc.tasks import Example, Task


@dataclass(frozen=True)
class Answering:
    """The solver of an evaluation. `identity` is all that determines its replies; without a price, money is unknown.

    `timed` is False for one that is played again at once, so that its seconds mean nothing.
    """

    solver: Solver
    identity: str
    price: Price | None = None
    max_tokens: int = MAX_TOKENS_SOLVE
    timed: bool = True


def evaluate(
    systems: Sequence[System],
    task: Task,
    examples: Sequence[Example],
    *,
    answering: Answering | None,
    writer: RowWriter | None = None,
    run: str = "",
    progress: Callable[[], None] | None = None,
) -> dict[str, list[Row]]:
    """The rows of each system, in the order of the examples; without a solver, of decompositions alone.

    Rows that the writer has are not asked for again; failed ones are. One question's failure is a row with `error`;
    after MAX_FAILURES in a row, or one that no later call would mend, it raises. `run` is kept in the rows: the name
    of the spending that they are part of. Raises InputError, before any call, for systems that share a name; and
    BudgetError where the solver does. The rows made until then are kept. `progress` is called at every row.
    """
    if len({system.name for system in systems}) < len(systems):
        raise InputError(f"{', '.join(system.name for system in systems)}: a decomposer is named twice; give each once")
    rows: dict[str, list[Row]] = {system.name: [] for system in systems}
    streak = 0
    for example, system in itertools.product(examples, systems):
        key = row_key(system, example, answering)
        row = writer.rows.get(key) if writer else None
        if row is None or row["error"]:
            begun = begun_from(row["begun"]) if row and row.get("begun") else None
            made, error = _measure(system, task, example, answering, begun)
            row = {"key": key, "system": system.name, "task": task.name, "id": example.id, "run": run, **made}
            if writer:
                writer.write(row)
            streak = streak + 1 if error else 0
            if error and (streak >= MAX_FAILURES or isinstance(error, SolverRefused)):
                raise error
        rows[system.name].append({**row, "system": system.name})
        if progress:
            progress()
    return rows


def rows_there(
    systems: Sequence[System], examples: Sequence[Example], answering: Answering | None, writer: RowWriter
) -> int:
    """How many of the rows need not be asked for."""
    keys = [row_key(system, example, answering) for example in examples for system in systems]
    return sum(key in writer.rows and not writer.rows[key]["error"] for key in keys)


def row_key(system: System, example: Example, answering: Answering | None) -> str:
    """A hash of all that determines a row. The version stands for the prompts and the scorers; prices play no part."""
    decomposer = system.decomposer
    how = (decomposer.where, decomposer.style, decomposer.cap, decomposer.max_tokens) if decomposer else None
    solver = (answering.solver.model, answering.identity, answering.max_tokens, system.mode) if answering else None
    return key_of("evaluate", __version__, system.identity, how, solver, asdict(example))


def _measure(
    system: System, task: Task, example: Example, answering: Answering | None, begun: Begun | None
) -> tuple[Row, EdgedcError | None]:
    """A question's row, and the error that is in it. What a failed row has `begun` is not asked, or paid, again."""
    asked: Row = {"question": example.question, "error": ""}
    if example.decomposition:
        known = example.decomposition
        asked |= {"expected": known.texts, "expected_status": known.status}
    try:
        if answering:
            answered = answer(
                example.question,
                example.premise,
                mode=system.mode,
                solver=answering.solver,
                decomposer=system.decomposer,
                max_tokens=answering.max_tokens,
                begun=begun,
            )
            if answered.failure:
                failed: Row = {"status": "failed", "error": answered.error, "begun": answered.begun.row()}
                return asked | failed | {"calls": list(map(_call, answered.stages))}, answered.failure
            return asked | _answered(system, task, example, answered, answering.solver), None
        if system.decomposer is None:
            raise ValueError(f"{system.name} has no decomposer, and there is no solver: nothing to evaluate")
        decomposition, generation = decompose(system.decomposer, example.question, example.premise)
        stage = Stage("decompose", system.decomposer.where, generation)
        return asked | _decomposed(system.decomposer, decomposition, generation) | {"calls": [_call(stage)]}, None
    except (SolverError, ContextError) as error:
        return asked | {"status": "failed", "error": str(error)}, error


def _decomposed(decomposer: Decomposer, decomposition: Decomposition, generation: Generation) -> Row:
    return {
        "status": decomposition.status,
        "subquestions": [{"text": s.text, "needs": list(s.needs)} for s in decomposition.subquestions],
        "raw": generation.text,
        "over_cap": decomposition.exceeds(decomposer.cap),
        "note": remark(decomposer, decomposition, generation),
        "backend": decomposer.name,
    }


def _answered(system: System, task: Task, example: Example, made: Answer, solver: Solver) -> Row:
    decomposition = made.decomposition
    said: Row = {"status": None}
    if system.decomposer and decomposition:
        said = _decomposed(system.decomposer, decomposition, made.stages[0].generation)
    scored: Row = {"grade": None, "paper": None, "correct": None}
    if example.answer:
        paper = task.paper_grade(made.text, example) if task.paper_grade else None
        scored = {"grade": task.grade(made.text, example), "paper": paper, "correct": task.score(made.text, example)}
    return {
        **said,
        "mode": made.mode,
        "seconds": made.seconds,
        "text": made.text,
        "answer": made.final,
        "gold": example.answer,
        **scored,
        "notes": list(made.notes),
        "simulated": bool(getattr(solver, "simulated", False)),
        "calls": [_call(stage) for stage in made.stages],
    }


def _call(stage: Stage) -> Row:
    made = stage.generation
    return {
        "stage": stage.name,
        "where": stage.where,
        **asdict(made.usage),
        "first_token_s": made.first_token_s,
        "total_s": made.total_s,
        "finish_reason": made.finish_reason,
        "bytes_sent": made.bytes_sent,
        "booked": made.booked,
    }
