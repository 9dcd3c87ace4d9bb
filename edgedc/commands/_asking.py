"""What a verb that asks a model says: what is to come, where it stands, and what is kept when it ends early."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from edgedc.errors import BudgetError, SolverError
from edgedc.words import counted
from edgedc.workshop import workshop


class Asking:
    """`where` the model is: a host, or this machine. `last` is the newest line about where the run stands."""

    def __init__(self, where: str, ceiling: float | None) -> None:
        self.last = "nothing new"
        self._where, self._ceiling = where, ceiling
        self._errors: set[str] = set()
        self._started = self._next = time.monotonic()

    def announce(self, projection: Any) -> None:
        click.echo(_projected(projection, self._where, self._ceiling), err=True)

    def report(self, line: str, error: object = None, *, last: bool = False) -> None:
        """Often at first, then every half minute; and at once the first few things that go wrong."""
        self.last = line
        if error and str(error) not in self._errors and len(self._errors) < 5:
            self._errors.add(str(error))
            click.echo(f"  failed: {error}", err=True)
        now = time.monotonic()
        if now >= self._next or last:
            click.echo(f"  {line}, {duration(now - self._started)}", err=True)
            self._next = now + min(max(now - self._started, 1.0), 30.0)

    @contextmanager
    def kept_in(self, out: Path) -> Iterator[None]:
        """Whatever ends the asking, what has come is in `out`."""
        try:
            yield
        except (BudgetError, SolverError, KeyboardInterrupt):
            click.echo(f"Kept in {out}: {self.last}. The same command goes on from there.", err=True)
            raise


def _projected(projection: Any, where: str, ceiling: float | None) -> str:
    said = [f"{counted(projection.calls, 'call')} to make, at {where}"]
    guessed = f"if replies have {workshop('train.calls.projection').GUESSED_REPLY} tokens"
    rests_on = f"as the {projection.measured} before" if projection.measured else guessed
    if projection.expected is not None:
        said.append(f"about ${projection.expected:.4f} {rests_on}, at the very worst ${projection.worst:.4f}")
    if projection.seconds is not None:
        least = "" if projection.measured else "at least "
        said.append(f"{least}{duration(projection.seconds)}")
    if projection.spent:
        said.append(f"${projection.spent:.4f} spent before")
    if ceiling is not None:
        said.append(f"never more than ${ceiling:g} in all")
    return "; ".join(said)


def dollars(before: str, amount: float) -> str:
    return f"{before}${amount:.6f}" if amount else ""


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
