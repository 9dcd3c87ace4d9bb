"""edgedc decompose: a question, or a file of them, into subquestions, with nothing leaving the device."""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edgedc.backends.greedy import encodable
from edgedc.commands._batch import Item, Output, keyed, open_output, run
from edgedc.commands._local import Local, Settings, choose_local, decomposition_in, model_options
from edgedc.decomposition import render
from edgedc.errors import EdgedcError, InputError
from edgedc.files import numbered_rows


@click.command(short_help="Break questions into subquestions, offline.")
@click.argument("question", required=False)
@click.option("--premise", default="", help="What the question is asked about.")
@model_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object with tokens and seconds.")
@click.option("--input", "source", type=click.Path(path_type=Path), help="A JSONL file of questions.")
@click.option("--output", type=click.Path(path_type=Path), help="Its rows; a rerun goes on where this ends.")
@click.option("--question-column", default="question", show_default=True, help="--input: where the question is.")
@click.option("--premise-column", help="--input: where the context is.  [default: premise, where there is one]")
def command(
    question: str | None,
    premise: str,
    as_json: bool,
    source: Path | None,
    output: Path | None,
    question_column: str,
    premise_column: str | None,
    **options: Any,
) -> None:
    """Break QUESTION (- reads it from stdin) into subquestions, offline.

    Prints a numbered list, or "No decomposition" where none is needed. Text that cannot be read as either is printed
    as it is, with exit code 1. With --input and --output, decomposes a whole file, in order.
    """
    settings = Settings(**options)
    if source is None:
        if output is not None:
            raise click.UsageError("--output needs --input; for one question use --json")
        if question is None:
            raise click.UsageError('give a question, "-" for stdin, or --input FILE')
        _one(settings, _read_question(question), premise, as_json)
    else:
        if question is not None or premise or as_json:
            raise click.UsageError(
                "--input takes its questions from the file: leave out QUESTION, --premise and --json"
            )
        if output is None:
            raise click.UsageError("--input needs --output FILE")
        if output.resolve() == source.resolve():
            raise InputError(f"{output}: both --input and --output; give another --output")
        _file(settings, _Table(source, question_column, premise_column), output)


def _read_question(question: str) -> str:
    if question == "-":
        try:
            question = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"stdin: not UTF-8 text: {error}") from error
    if not question.strip():
        raise InputError("the question is empty: give one to decompose")
    return question.strip()


def _one(settings: Settings, question: str, premise: str, as_json: bool) -> None:
    local = choose_local(settings)
    with local.decomposer() as decomposer:
        row = local.row(decomposer, question, premise)
    if as_json:
        click.echo(json.dumps(row, ensure_ascii=False))
    else:
        click.echo(render(decomposition_in(row)))
    if row["status"] == "unparsed":
        raise EdgedcError(row["note"])
    if row["note"]:
        click.echo(f"note: {row['note']}", err=True)


class _Table:
    """The items of a JSONL file; each pass reads it anew, so that it may be larger than memory."""

    def __init__(self, path: Path, question_column: str, premise_column: str | None) -> None:
        self.path, self.question_column, self.premise_column = path, question_column, premise_column

    def __iter__(self) -> Iterator[Item]:
        for number, row in numbered_rows(self.path):
            question = self._text(row, number, self.question_column)
            if not question.strip():
                raise InputError(f"{self.path}:{number}: the question is empty")
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
                raise InputError(f"{self.path}:{number}: column {column!r}: {error}") from error
        if column in row:
            raise InputError(f"{self.path}:{number}: column {column!r} is {json.dumps(value)[:60]}, not text")
        have = ", ".join(row) or "none"
        raise InputError(f"{self.path}:{number}: no column {column!r}; its columns are: {have}")


def _file(settings: Settings, table: _Table, output: Path) -> None:
    if not sum(1 for _ in table):  # reads it all: a bad row is found before the work starts
        raise InputError(f"{table.path}: no questions in it")
    local = choose_local(settings)
    key = local.key
    with open_output(output) as out:
        done, total = out.resume(k for k, _ in keyed(key, table))
        if done < total:
            _rest(local, out, itertools.islice(keyed(key, table), done, None), total - done)
        counts = dict.fromkeys(("decomposed", "not_needed", "unparsed", "failed"), 0)
        for row in out.rows:
            counts[row["status"]] += 1
    click.echo(f"{output}: " + ", ".join(f"{n} {status}" for status, n in counts.items()), err=True)
    if counts["failed"]:
        raise EdgedcError(f"{output}: {counts['failed']} of {total} questions failed; 'error' in their rows says why")


def _rest(local: Local, out: Output, items: Iterator[tuple[str, Item]], total: int) -> None:
    with local.decomposer() as decomposer:
        for row in run(local, decomposer, items, total, "decompose"):
            out.write(row)
