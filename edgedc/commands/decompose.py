"""edgedc decompose: a question, or a file of them, into subquestions, with nothing leaving the device."""

import json
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click

from edgedc.commands._batch import GROUP, Output, keyed, open_output, run
from edgedc.commands._local import Local, Settings, choose_local, model_options
from edgedc.commands._questions import STDIO, Questions, ReadAhead, read_question
from edgedc.commands._say import say
from edgedc.decomposer import decomposition_in
from edgedc.decomposition import render
from edgedc.errors import EdgedcError, InputError
from edgedc.files import Row

SYNC_S = 1.0  # what a loss of power takes is made again, at no cost: no reason to wait for the disk at every row


@click.command(short_help="Break questions into subquestions, offline.")
@click.argument("question", required=False)
@click.option("--premise", default="", help="What the question is asked about.")
@model_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object with tokens and seconds.")
@click.option("--input", "source", type=click.Path(path_type=Path), help="A JSONL file of questions; - for stdin.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="--input: its rows; a rerun goes on where they end.  [default: -, stdout]",
)
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
    as it is, with exit code 1. With --input, decomposes a whole file, in order, to rows of JSON. Where --grammar kept
    the model from what it would have written, its row has "constrained": true.
    """
    settings = Settings(**options)
    if source is None:
        if output is not None:
            raise click.UsageError("--output needs --input; for one question use --json")
        if question is None:
            raise click.UsageError('give a question, "-" for stdin, or --input FILE')
        _one(settings, read_question(question), premise, as_json)
    else:
        if question is not None or premise or as_json:
            raise click.UsageError(
                "--input takes its questions from the file: leave out QUESTION, --premise and --json"
            )
        output = output or STDIO
        if source != STDIO and output.resolve() == source.resolve():
            raise InputError(f"{output}: both --input and --output; give another --output")
        _file(settings, Questions(source, question_column, premise_column), output)


def _one(settings: Settings, question: str, premise: str, as_json: bool) -> None:
    local = choose_local(settings)
    live = sys.stdout.isatty() and not as_json
    with local.decomposer() as decomposer:
        row = local.row(decomposer, question, premise, partial(say, nl=False) if live else None)
    if as_json:
        say(json.dumps(row, ensure_ascii=False))
    else:
        _print(row, said=live)
    if row["status"] == "unparsed":
        raise EdgedcError(row["note"])
    if row["note"]:
        click.echo(f"note: {row['note']}", err=True)


def _print(row: Row, *, said: bool) -> None:
    """The list; where the reply has been said as it came, only if it reads otherwise than it was written."""
    text = render(decomposition_in(row))
    if said:
        say("")
        if text == row["raw"]:
            return
        click.echo("read as:", err=True)
    say(text)


def _file(settings: Settings, questions: Questions, output: Path) -> None:
    # What can be read twice is read through first, so that a bad row is found before the work starts
    total = None if questions.once else sum(1 for _ in questions)
    if total == 0:
        raise InputError(f"{questions.name}: no questions in it")
    local = choose_local(settings)
    with open_output(output, sync_s=SYNC_S) as out, closing(_rows(local, questions, total, out)) as rows:
        for row in rows:
            out.write(row)
    if not out.written:
        raise InputError(f"{questions.name}: no questions in it")
    _summarise(output, out.counts)


def _rows(local: Local, questions: Questions, total: int | None, out: Output) -> Generator[Row, None, None]:
    """Those that the output does not have yet. A model that has nothing to do is not loaded."""
    ahead = ReadAhead(questions) if questions.once else None
    items = keyed(local.key, ahead or questions)
    done, again = out.match(key for key, _ in items), 0
    out.tell(total)
    if ahead is None and done < (total or 0):
        again = done % GROUP
        items = islice(keyed(local.key, questions), done - again, None)
    first = next(items, None)
    if first is None:
        return
    with local.decomposer() as decomposer:
        idle = ahead.idle if ahead else lambda: False
        rest = chain([first], items)
        with closing(run(local, decomposer, rest, total, "decompose", done=done, again=again, idle=idle)) as rows:
            yield from rows


def _summarise(output: Path, counts: Counter[str]) -> None:
    statuses = ("decomposed", "not_needed", "unparsed", "failed")
    name, total = "stdout" if output == STDIO else output, sum(counts[status] for status in statuses)
    click.echo(f"{name}: " + ", ".join(f"{counts[status]} {status}" for status in statuses), err=True)
    if counts["constrained"]:
        click.echo(f"{name}: --grammar had a part in {counts['constrained']} of {total} replies", err=True)
    if counts["failed"]:
        raise EdgedcError(f"{name}: {counts['failed']} of {total} questions failed; 'error' in their rows says why")
