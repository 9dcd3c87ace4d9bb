"""`edgedc teach`: demonstrations from a teacher."""

from pathlib import Path
from typing import Any

import click

from edgedc.cli import workshop
from edgedc.errors import InputError
from edgedc.flags import flags
from edgedc.tasks import Selection, load_examples


def _settings() -> type:
    return workshop("train.settings").TeachSettings  # type: ignore[no-any-return]


@click.command()
@flags(Selection)
@flags(_settings())
@click.argument("out", type=click.Path(path_type=Path))
def command(selection: Selection, teachsettings: Any, out: Path) -> None:
    """Write demonstrations to OUT, JSONL, one row a question.

    The teacher is a model behind an OpenAI-compatible endpoint, or `gold`: the task's own decompositions. Rows that
    OUT already has are not asked for again.
    """
    settings = teachsettings
    if settings.concurrency < 1:
        raise InputError(f"--concurrency {settings.concurrency}: must be at least 1")
    examples = load_examples(selection)
    teacher, solver = None, None
    if settings.teacher != "gold":
        teacher, solver = _remote(settings)
    elif settings.teacher_url:
        raise InputError("--teacher-url needs --teacher, the name of the model there")
    try:
        counts = workshop("train.teach").teach(examples, teacher, out, concurrency=settings.concurrency, report=_report)
    finally:
        if solver:
            solver.close()
    if solver and solver.simulated:
        click.echo("The teacher is simulated.", err=True)
    click.echo(f"{out}: {sum(counts.values())} rows: " + ", ".join(f"{n} {name}" for name, n in counts.most_common()))


def _remote(settings: Any) -> tuple[Any, Any]:
    from edgedc.ledger import Budget, find_price
    from edgedc.pipeline import Decomposer
    from edgedc.solvers.openai import open_solver

    budget = None
    if settings.max_cost is not None:
        budget = Budget(settings.max_cost, find_price(settings.price_as or settings.teacher))
    solver = open_solver(settings.teacher, settings.teacher_url, budget=budget, seed=0)
    cap = settings.max_subquestions
    return Decomposer(settings.teacher, "remote", solver.solve, "instruct-1", cap, settings.max_tokens), solver


def _report(done: int, total: int) -> None:
    if done == total or done % max(1, total // 10) == 0:
        click.echo(f"  {done}/{total}", err=True)
