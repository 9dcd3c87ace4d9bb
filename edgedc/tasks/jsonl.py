"""Any JSONL file, with its columns named by flags."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from edgedc.decomposition import Decomposition, decomposition_of, parse
from edgedc.errors import InputError
from edgedc.files import Row, numbered_rows
from edgedc.tasks import Example, Selection
from edgedc.tasks.scoring import gives_number, gives_text, gives_yes_no

# A file may lack the columns that have these names; one that the user named must be there.
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Selection)}
_OPTIONAL = ("premise_column", "answer_column", "decomposition_column")


def load(selection: Selection) -> Iterator[Example]:
    """The rows of the file. Raises InputError, with the line, for an unknown column, an empty question or a bad value.

    A row's own `split`, where it has one, goes before the selection's: no test question becomes a training one so.
    A row may lack any column but the question's. One that the user named and no row has is an error, before any row.
    """
    if not selection.data:
        raise InputError("jsonl needs its file: give --data FILE.jsonl")
    path = Path(selection.data)
    for name in _OPTIONAL:
        if getattr(selection, name) != _DEFAULTS[name]:
            _require(getattr(selection, name), "--" + name.replace("_", "-"), path)
    for number, row in numbered_rows(path):
        yield _example(row, selection, f"{path}:{number}", f"{path.stem}-{number}")


def _require(column: str, flag: str, path: Path) -> None:
    seen: Row = {}
    for _, row in numbered_rows(path):
        if column in row:
            return
        seen.update(row)
    raise InputError(f"{path}: no row has a column {column!r} ({flag}); there are {_list(seen)}")


def score(text: str, example: Example) -> bool:
    """Equal as texts, but for case and punctuation, or as numbers, or as yes and no, where the answer is one.

    No answer: never right.
    """
    return any(gives(text, example.answer) for gives in (gives_text, gives_number, gives_yes_no))


def _example(row: Row, selection: Selection, where: str, id: str) -> Example:
    column = selection.question_column
    if column not in row:
        raise InputError(f"{where}: no column {column!r}; there are {_list(row)}; name one with --question-column")
    question = _text(row, column, where)
    if not question:
        raise InputError(f"{where}: the question in column {column!r} is empty")
    return Example(
        id=id if row.get("id") is None else str(row["id"]),
        question=question,
        premise=_text(row, selection.premise_column, where),
        answer=_text(row, selection.answer_column, where),
        decomposition=_decomposition(row.get(selection.decomposition_column), selection, where),
        split=_text(row, "split", where),
    )


def _text(row: Row, column: str, where: str) -> str:
    match row.get(column):
        case None:
            return ""
        case bool() as truth:
            return "yes" if truth else "no"
        case str() | int() | float() as value:
            return str(value).strip()
        case value:
            raise InputError(f"{where}: column {column!r} holds a {type(value).__name__}, not a text or a number")


def _decomposition(value: object, selection: Selection, where: str) -> Decomposition | None:
    match value:
        case None | "":
            return None
        case list() if all(isinstance(text, str) for text in value):
            return decomposition_of(value)
        case str() if (read := parse(value)).status != "unparsed":
            return read
    column = selection.decomposition_column
    raise InputError(f"{where}: no subquestions can be read from column {column!r}: a list of texts, or a list as text")


def _list(columns: Row) -> str:
    return ", ".join(map(repr, columns)) or "none"
