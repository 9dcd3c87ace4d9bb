"""The questions of a batch: rows of a JSONL file, or lines that come through a pipe as somebody writes them."""

import json
import os
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgedc.backends.greedy import encodable
from edgedc.errors import InputError
from edgedc.files import numbered_rows, rows_in

STDIO = Path("-")


@dataclass(frozen=True)
class Item:
    """A question of a batch. `name` stands in its row as `id`."""

    name: str | int
    question: str
    premise: str = ""


@dataclass(frozen=True)
class Questions:
    """The items of a JSONL file, or of stdin for `-`; each pass reads anew, so that it may be larger than memory.

    Going through them raises InputError, with the line, for a row that is not a question.
    """

    path: Path
    question_column: str = "question"
    premise_column: str | None = None

    @property
    def name(self) -> str:
        return "stdin" if self.path == STDIO else str(self.path)

    @property
    def once(self) -> bool:
        """Whether they can be gone through only once: stdin and pipes."""
        return self.path == STDIO or (self.path.exists() and not self.path.is_file())

    def __iter__(self) -> Iterator[Item]:
        for number, row in rows_in(_stdin(), self.name) if self.path == STDIO else numbered_rows(self.path):
            question = self._text(row, number, self.question_column)
            if not question.strip():
                raise InputError(f"{self.name}:{number}: the question is empty")
            if self.premise_column or row.get("premise") is not None:
                premise = self._text(row, number, self.premise_column or "premise")
            else:
                premise = ""
            name = row.get("id")
            yield Item(name if isinstance(name, str | int) else number, question, premise)

    def _text(self, row: dict[str, Any], number: int, column: str) -> str:
        value = row.get(column)
        if isinstance(value, str):
            try:
                return encodable(value)
            except InputError as error:
                raise InputError(f"{self.name}:{number}: column {column!r}: {error}") from error
        if column in row:
            raise InputError(f"{self.name}:{number}: column {column!r} is {json.dumps(value)[:60]}, not text")
        have = ", ".join(row)[:200] or "none"
        raise InputError(f"{self.name}:{number}: no column {column!r}; its columns are: {have}")


def _stdin() -> IO[bytes]:
    """A reader of its own: Python aborts at its end when a thread still waits in sys.stdin."""
    try:
        return os.fdopen(sys.stdin.fileno(), "rb", closefd=False)
    except (AttributeError, OSError, ValueError) as error:
        raise InputError("stdin: closed; give it questions, or name a file") from error


def read_question(question: str) -> str:
    """A question of the command line; `-` stands for what stdin has. Raises InputError when it is empty."""
    if question == "-":
        try:
            question = sys.stdin.buffer.read().decode("utf-8-sig")
        except AttributeError as error:
            raise InputError("stdin: closed; give it the question") from error
        except UnicodeDecodeError as error:
            raise InputError(f"stdin: not UTF-8 text: {error}") from error
    if not question.strip():
        raise InputError("the question is empty: give one")
    return question.strip()


class ReadAhead:
    """Items that a thread takes from elsewhere, a few ahead. They can be gone through once.

    What that raises is raised behind the items before it.
    """

    def __init__(self, items: Iterable[Item], most: int = 64) -> None:
        self._queue: queue.Queue[Item | Exception | None] = queue.Queue(most)
        threading.Thread(target=self._take, args=(items,), daemon=True).start()

    def __iter__(self) -> Iterator[Item]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def idle(self) -> bool:
        """Whether none waits just now, so that the next one may be long in coming."""
        return self._queue.empty()

    def _take(self, items: Iterable[Item]) -> None:
        try:
            for item in items:
                self._queue.put(item)
            self._queue.put(None)
        except Exception as error:
            self._queue.put(error)
