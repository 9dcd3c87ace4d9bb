"""`edgedc screen`: keep the decompositions with which a solver reaches the gold answer."""

from pathlib import Path
from typing import Any

import click

from edgedc.bench.table import table
from edgedc.commands._asking import Asking, dollars
from edgedc.commands._say import say
from edgedc.errors import SolverError
from edgedc.flags import flags
from edgedc.words import counted
from edgedc.workshop import workshop


@click.command()
@flags(workshop("train.teaching.screen").ScreenSettings)
@click.argument("demonstrations", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def command(screensettings: Any, demonstrations: Path, out: Path) -> None:
    """Have a solver answer with each decomposition of DEMONSTRATIONS, and write what became of it to OUT.

    The solver is a model behind an OpenAI-compatible server. The draws of a question are tried in order until its
    answer is the gold one by the task's own metric. OUT is JSONL, one row a draw tried; what it has is not asked for
    again. It is what  edgedc train  takes for the methods S_D-R, S_E-T, S_E-A and Direct.
    """
    module = workshop("train.teaching.screen")
    job = module.find_job(screensettings)
    asking = Asking(job.solver.host, screensettings.max_cost)

    def report(now: Any) -> None:
        failed = f", {now.failed} calls failed" if now.failed else ""
        asking.report(f"{now.passed} of {now.questions} questions passed{failed}{dollars(', ', now.spent)}")

    with asking.kept_in(out):
        made = module.screen(demonstrations, out, job, screensettings, announce=asking.announce, report=report)
    say(f"{out}: {made.passed} of {made.questions} questions have a decomposition that passed")
    if made.by_draw:
        say(table(["", "passed (95 % interval)", "draws tried"], _cells(made)))
    for line in _notes(made, job.price):
        say(line)
    if made.unfinished:
        unfinished = counted(made.unfinished, "question", "are")
        raise SolverError(f"{out}: {unfinished} unfinished, run again to ask on; last: {made.error}")


def _cells(made: Any) -> list[list[str]]:
    shares = [
        *((f"draw {draw}" + ", where none passed before" * (draw > 1), s) for draw, s in made.by_draw.items()),
        *((f"{count or 'no'} subquestion{'s' * (count != 1)}", s) for count, s in made.by_subquestions.items()),
    ]
    return [[label, str(share), f"{share.hits} of {share.n}"] for label, share in shares]


def _notes(made: Any, price: Any) -> list[str]:
    lines = [
        f"questions without a passing draw: {made.rejected}",
        f"cost, all runs: ${made.spent:.6f} (price of {price.model}, {price.date})"
        if price
        else "cost: no price known (name one with --price-as)",
    ]
    if made.undrawn:
        lines.append(f"questions without a usable draw: {made.undrawn}")
    if made.unusable:
        lines.append("draws not tried: " + ", ".join(f"{n} {why}" for why, n in made.unusable.most_common()))
    if made.empty:
        lines.append(f"empty replies of the solver, which do not pass: {made.empty}")
    if made.foreign:
        lines.append(f"rows of another solver, setting or input, not counted here: {made.foreign}")
    if made.uncounted and made.spent:
        lines.append(f"without a count of tokens, so that the most they may cost is counted: {made.uncounted}")
    if made.unsupported:
        lines.append(f"the server does not take our {' and '.join(sorted(made.unsupported))}: its default was used")
    if made.simulated:
        lines.append("The solver is simulated.")
    return lines
