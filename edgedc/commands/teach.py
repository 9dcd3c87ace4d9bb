"""`edgedc teach`: demonstrations from a teacher."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edgedc.errors import BudgetError, EdgedcError, InputError, SolverError
from edgedc.flags import flags
from edgedc.tasks import Example, Selection, read_examples
from edgedc.workshop import workshop


class _Questions:
    """The questions that were selected. Each pass reads them anew, so that they may be more than fit into memory."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    def __iter__(self) -> Iterator[Example]:
        return read_examples(self.selection)


@click.command()
@flags(Selection)
@flags(workshop("train.teach").TeachSettings)
@click.argument("out", type=click.Path(path_type=Path))
def command(selection: Selection, teachsettings: Any, out: Path) -> None:
    """Write demonstrations to OUT, JSONL, one row a draw.

    The teacher is a model behind an OpenAI-compatible endpoint, a model on this machine, or `gold`: the task's own
    decompositions. Draws that OUT already has are not asked for again. What could not be had is counted (exit code 1)
    and asked for by the next run.

    --max-cost is a ceiling on all that OUT has cost. Before each call the most that it could cost is set aside. What
    calls may have cost that failed, or were cut off by a kill, is counted too, and kept in OUT.spending.
    """
    questions = _Questions(selection)
    if not any(True for _ in questions):
        raise InputError(f"{selection.data or selection.task}: no questions in split {selection.split!r}")
    teacher = workshop("train.teachers").find_teacher(teachsettings)
    shown = _Shown(teachsettings)
    try:
        taught = workshop("train.teach").teach(
            questions, teacher, out, teachsettings, announce=shown.announce, report=shown.report
        )
    except (BudgetError, SolverError, KeyboardInterrupt):
        click.echo(f"Kept in {out}: {shown.last}. The same command goes on from there.", err=True)
        raise
    if taught.simulated:
        click.echo("The teacher is simulated.", err=True)
    for name in sorted(taught.unsupported):
        click.echo(f"note: the server does not take our {name}: its own default was used (`unsupported`)", err=True)
    said = ", ".join(f"{count} {outcome}" for outcome, count in taught.outcomes.most_common())
    click.echo(f"{out}: {taught.outcomes.total()} rows: {said}" + _dollars("; ", taught.spent))
    if taught.lost:
        click.echo(f"{_dollars('', taught.lost)} of it is the most that calls without a row may have cost", err=True)
    if taught.missing:
        raise EdgedcError(
            f"{out}: {taught.missing} draws are missing, as their calls failed; the same command asks for them again "
            f"({taught.error})"
        )


class _Shown:
    """What is said on stderr before and while a teacher is asked."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.last = "nothing new"
        self._errors: set[str] = set()
        self._started = self._next = time.monotonic()

    def announce(self, projection: Any) -> None:
        if projection.calls and self.settings.teacher != "gold":
            click.echo(_projected(projection, self.settings.max_cost), err=True)
        self._started = self._next = time.monotonic()

    def report(self, progress: Any) -> None:
        """Often at first, then every half minute; and at once the first few things that go wrong."""
        failed = f", {progress.failed} failed" if progress.failed else ""
        self.last = f"{progress.done} of {progress.total} draws{failed}{_dollars(', ', progress.spent)}"
        error = str(progress.error or "")
        if error and error not in self._errors and len(self._errors) < 5:
            self._errors.add(error)
            click.echo(f"  failed: {error}", err=True)
        now = time.monotonic()
        if now >= self._next or progress.done == progress.total:
            click.echo(f"  {self.last}, {_duration(now - self._started)}", err=True)
            self._next = now + min(max(now - self._started, 1.0), 30.0)


def _projected(projection: Any, ceiling: float | None) -> str:
    said = [f"{projection.calls} calls to make"]
    rests_on = f"as the {projection.measured} before" if projection.measured else "if replies have 64 tokens"
    if projection.expected is not None:
        said.append(f"about ${projection.expected:.4f} {rests_on}, at the very worst ${projection.worst:.4f}")
    if projection.seconds is not None:
        least = "" if projection.measured else "at least "
        said.append(f"{least}{_duration(projection.seconds)}")
    if projection.spent:
        said.append(f"${projection.spent:.4f} spent before")
    if ceiling is not None:
        said.append(f"never more than ${ceiling:g} in all")
    return "; ".join(said)


def _dollars(before: str, amount: float) -> str:
    return f"{before}${amount:.6f}" if amount else ""


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
