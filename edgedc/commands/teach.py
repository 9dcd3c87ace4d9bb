"""`edgedc teach`: demonstrations from a teacher."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edgedc.commands._asking import Asking, dollars
from edgedc.commands._say import say
from edgedc.errors import EdgedcError, InputError
from edgedc.flags import flags
from edgedc.tasks import Example, Selection, read_examples
from edgedc.words import counted
from edgedc.workshop import workshop


class _Questions:
    """The questions that were selected. Each pass reads them anew, so that they may be more than fit into memory."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    def __iter__(self) -> Iterator[Example]:
        return read_examples(self.selection)


@click.command()
@flags(Selection)
@flags(workshop("train.teaching.teach").TeachSettings)
@click.argument("out", type=click.Path(path_type=Path))
def command(selection: Selection, teachsettings: Any, out: Path) -> None:
    """Write demonstrations to OUT, JSONL, one row a draw.

    The teacher is a model behind an OpenAI-compatible endpoint, a model on this machine, or `gold`: the task's own
    decompositions. Draws that OUT already has are not asked for again, but get the answers that the data has by now.
    What could not be had is counted (exit code 1) and asked for by the next run.

    --max-cost is a ceiling on all that OUT has cost. Before each call the most that it could cost is set aside. What
    calls may have cost that failed, or were cut off by a kill, is counted too, and kept in OUT.spending.
    """
    questions = _Questions(selection)
    if not any(True for _ in questions):
        raise InputError(f"{selection.data or selection.task}: no questions in split {selection.split!r}")
    teacher = workshop("train.teaching.teachers").find_teacher(teachsettings)
    asking = Asking(teacher.where, teachsettings.max_cost)

    def announce(projection: Any) -> None:
        if projection.calls and teachsettings.teacher != "gold":
            asking.announce(projection)

    def report(now: Any) -> None:
        failed = f", {now.failed} failed" if now.failed else ""
        line = f"{now.done} of {now.total} draws{failed}{dollars(', ', now.spent)}"
        asking.report(line, now.error, last=now.done == now.total)

    module = workshop("train.teaching.teach")
    plan = module.plan(questions, teacher, teachsettings)
    if renewed := workshop("train.teaching.renew").renew_answers(out, plan):
        click.echo(f"note: {counted(renewed, 'row')} of {out} got the answers that the data has now", err=True)
    with asking.kept_in(out):
        taught = module.teach(questions, teacher, out, teachsettings, announce=announce, report=report)
    if taught.simulated:
        click.echo("The teacher is simulated.", err=True)
    for name in sorted(taught.unsupported):
        click.echo(f"note: the server does not take our {name}: its own default was used (`unsupported`)", err=True)
    if taught.uncounted and taught.spent:
        rows = counted(taught.uncounted, "row")
        click.echo(f"note: {rows} without a count of tokens, so that the most they may cost is counted", err=True)
    if taught.all_alike:
        click.echo("note: the draws of each question are all the same: the server may take no temperature", err=True)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in taught.outcomes.most_common())
    rows = counted(taught.outcomes.total(), "row") + (f": {counts}" if counts else "")
    say(f"{out}: {rows}{dollars('; ', taught.spent)}")
    if taught.lost:
        click.echo(f"{dollars('', taught.lost)} of it is the most that calls without a row may have cost", err=True)
    if taught.missing:
        raise EdgedcError(
            f"{out}: {counted(taught.missing, 'draw', 'are')} missing, as their calls failed; the same command asks "
            f"for them again ({taught.error})"
        )
