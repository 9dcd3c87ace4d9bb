"""Many questions through a local decomposer into a JSONL file that a rerun goes on with."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from edgedc.commands._local import Local
from edgedc.errors import EdgedcError, InputError
from edgedc.files import Row, RowWriter, key_of
from edgedc.pipeline import Decomposer


@dataclass(frozen=True)
class Item:
    """A question of a batch. `name` stands in its row as `id`."""

    name: str | int
    question: str
    premise: str = ""


def keyed(local_key: str, items: Iterable[Item]) -> Iterator[tuple[str, Item]]:
    """Each item with the key of its row. Its place is part of the key, so that a question that comes twice stays."""
    for number, item in enumerate(items):
        yield key_of(local_key, number, item.name, item.question, item.premise), item


def run(
    local: Local, decomposer: Decomposer, items: Iterable[tuple[str, Item]], total: int, verb: str
) -> Iterator[Row]:
    """A row per item, in order. A prompt that the model cannot take becomes a row with `error`; the rest goes on."""
    progress = Progress(verb, total)
    for key, item in items:
        try:
            made = local.row(decomposer, item.question, item.premise)
        except InputError as error:
            made = {"question": item.question, "status": "failed", "error": str(error)}
        progress.step()
        yield {"key": key, "id": item.name, **made}


class Output:
    """The rows of a batch, on disk. `resume` comes first."""

    def __init__(self, writer: RowWriter) -> None:
        self._writer = writer

    @property
    def rows(self) -> list[Row]:
        return list(self._writer.rows.values())

    def resume(self, keys: Iterable[str]) -> tuple[int, int]:
        """(rows that are there, rows that there will be); on stderr too, where some are.

        Raises InputError unless the rows that are there are the first of this batch.
        """
        there = list(self._writer.rows)
        total = 0
        for key in keys:
            if total < len(there) and key != there[total]:
                break
            total += 1
        if total < len(there):
            raise InputError(
                f"{self._writer.path}: row {total + 1} is not this run's (another model, setting or input made it); "
                "give another --output, or remove the file"
            )
        if there:
            click.echo(f"{self._writer.path}: {len(there)} of {total} rows are there already", err=True)
        return len(there), total

    def write(self, row: Row) -> None:
        try:
            self._writer.write(row)
        except OSError as error:
            raise EdgedcError(
                f"{self._writer.path}: cannot be written: {error.strerror}; run again to go on from there"
            ) from error


@contextmanager
def open_output(path: Path) -> Iterator[Output]:
    """The output of a batch, with the rows that are there; one that stays empty is removed again.

    Raises InputError when the path cannot be written, or holds something that edgedc did not write.
    """
    writer = RowWriter(path)
    try:
        with writer:
            yield Output(writer)
    finally:
        if not writer.rows:
            path.unlink(missing_ok=True)


class Progress:
    """Lines on stderr: the count and the rate, every few seconds and at the end."""

    every_s = 5.0

    def __init__(self, verb: str, total: int) -> None:
        self.verb, self.total, self.done = verb, total, 0
        self.started = self.shown = time.monotonic()

    def step(self) -> None:
        self.done += 1
        now = time.monotonic()
        if self.done == self.total or now - self.shown >= self.every_s:
            self.shown = now
            rate = self.done / max(now - self.started, 1e-9)
            click.echo(f"{self.verb}: {self.done} of {self.total}, {rate:.1f} a second", err=True)
