"""Many questions through a local decomposer, to rows in a file that a rerun goes on with."""

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

import click

from edgedc.commands._asking import duration
from edgedc.commands._local import Local, LocalDecomposer
from edgedc.commands._questions import STDIO, Item
from edgedc.errors import EdgedcError, InputError
from edgedc.files import Row, RowAppender, key_of
from edgedc.generation import Message
from edgedc.prompts import decompose_messages

# Questions that are worked on together. Where two tokens are as likely as each other up to rounding, it depends on the
# company which one is taken; so a run that goes on begins with the whole group that it was in, and ends with the same
# rows as one that was left alone.
GROUP = 128


def keyed(local_key: str, items: Iterable[Item]) -> Iterator[tuple[str, Item]]:
    """Each item with the key of its row. Its place is part of the key, so that a question that comes twice stays."""
    for number, item in enumerate(items):
        yield key_of(local_key, number, item.name, item.question, item.premise), item


def run(
    local: Local,
    decomposer: LocalDecomposer,
    items: Iterable[tuple[str, Item]],
    total: int | None,
    verb: str,
    *,
    done: int = 0,
    again: int = 0,
    idle: Callable[[], bool] = lambda: False,
) -> Generator[Row, None, None]:
    """A row per item, in order, with progress on stderr; `done` of the `total` (None: unknown) came before.

    The first `again` items give no row: they were done, and are only there so that those behind them are worked on in
    the same company as at first (see GROUP). Questions are worked on together, but none waits for those behind it while
    `idle` says that no more are there yet. A prompt that the model cannot take becomes a row with `error`; the rest
    goes on.
    """
    progress = Progress(verb, total, done)
    items = iter(items)
    for first in items:
        for row in _together(local, decomposer, chain([first], islice(items, GROUP - 1)), idle):
            if again:
                again -= 1
                continue
            yield row
            progress.step()
    progress.end()


def _together(
    local: Local, decomposer: LocalDecomposer, items: Iterator[tuple[str, Item]], idle: Callable[[], bool]
) -> Iterator[Row]:
    """Rows of the items up to where `idle`. An error in reading them is raised behind the rows of those before it."""
    asked: deque[tuple[str, Item]] = deque()
    broken: list[EdgedcError] = []

    def requests() -> Iterator[Sequence[Message]]:
        try:
            for key, item in items:
                asked.append((key, item))
                yield decompose_messages(item.question, item.premise, style=decomposer.style, cap=decomposer.cap)
                if idle():
                    return
        except EdgedcError as error:
            broken.append(error)

    for result in decomposer.generate_many(requests()):
        key, item = asked.popleft()
        if isinstance(result, InputError):
            made: Row = {"question": item.question, "status": "failed", "error": str(result)}
        elif isinstance(result, EdgedcError):
            raise result
        else:
            made = local.row_of(decomposer, item.question, result)
        yield {"key": key, "id": item.name, **made}
    if broken:
        raise broken[0]


class Output:
    """The rows of a batch, in a file or, for `-`, on stdout. `match` comes first.

    `counts` has how many there are of each status, and under `constrained` how many the grammar had a part in.
    """

    def __init__(self, path: Path, sync_s: float) -> None:
        self.path, self._sync_s = path, sync_s
        self.counts = Counter[str]()
        self.written = 0  # rows, with those that were there before
        self._file: RowAppender | None = None

    def match(self, keys: Iterator[str], said: Callable[[str, Row], str] = lambda key, _: key) -> int:
        """How many rows are there already. Takes as many keys, and holds one row at a time.

        `said` gives the key that the row of a question must have, by the question's and by who has answered. Raises
        InputError unless they are the first rows of this batch, and when the path cannot be written.
        """

        def seen(row: Row) -> None:
            key = next(keys, None)
            if key is None or said(key, row) != row["key"]:
                here = ", or another --fallback-model" if row.get("answered_by") == "local" else ""
                raise InputError(
                    f"{self.path}: row {self.written + 1} is not this run's (another model, setting or input made it"
                    f"{here}); give another --output, or remove the file"
                )
            self._count(row)

        if self.path != STDIO:
            self._file = RowAppender(self.path, seen, sync_s=self._sync_s)
        return self.written

    def resume(self, keys: Iterable[str], said: Callable[[str, Row], str] = lambda key, _: key) -> tuple[int, int]:
        """(rows that are there, rows that there will be); on stderr too, where some are. Takes all the keys."""
        keys = iter(keys)
        done = self.match(keys, said)
        total = done + sum(1 for _ in keys)
        self.tell(total)
        return done, total

    def tell(self, total: int | None) -> None:
        """On stderr, how many rows are there, where some are."""
        if self.written:
            click.echo(f"{self.path}: {_of(self.written, total)} rows are there already", err=True)

    def write(self, row: Row) -> None:
        """Raises EdgedcError when there is no room."""
        if self._file:
            self._file.write(row)
        else:
            try:
                click.echo(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace"))
            except BrokenPipeError:
                raise
            except OSError as error:
                raise EdgedcError(f"stdout: cannot be written: {error.strerror}") from error
        self._count(row)

    def close(self) -> None:
        if self._file:
            self._file.__exit__(None, None, None)

    def _count(self, row: Row) -> None:
        self.written += 1
        self.counts[str(row.get("status"))] += 1
        self.counts["constrained"] += bool(row.get("constrained"))


@contextmanager
def open_output(path: Path, *, sync_s: float = 0.0) -> Iterator[Output]:
    """The output of a batch; a file that stays empty is removed again. An interrupt says how to go on.

    A loss of power takes the rows of the last `sync_s` seconds; by default none, as they may have been paid for.
    """
    output = Output(path, sync_s)
    try:
        yield output
    except KeyboardInterrupt:
        if path != STDIO and output.written:
            click.echo(f"Kept in {path}: {output.written} rows. The same command goes on from there.", err=True)
        raise
    finally:
        output.close()


class Progress:
    """Lines on stderr: the count, the rate and the time that is left, every few seconds and at the end."""

    every_s = 5.0

    def __init__(self, verb: str, total: int | None, done: int = 0) -> None:
        self.verb, self.total, self.before, self.done = verb, total, done, done
        self.started = self.shown = time.monotonic()

    def step(self) -> None:
        self.done += 1
        if self.done == self.total or time.monotonic() - self.shown >= self.every_s:
            self._show()

    def end(self) -> None:
        if self.total is None:
            self._show()

    def _show(self) -> None:
        self.shown = time.monotonic()
        rate = (self.done - self.before) / max(self.shown - self.started, 1e-9)
        left = f", {duration((self.total - self.done) / rate)} left" if self.total and self.total > self.done else ""
        click.echo(f"{self.verb}: {_of(self.done, self.total)}, {rate:.1f} a second{left}", err=True)


def _of(done: int, total: int | None) -> str:
    return str(done) if total is None else f"{done} of {total}"
