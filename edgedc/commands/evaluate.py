"""edgedc evaluate: how often a local decomposer says exactly what it should have."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edgedc.bench.quality import Quality, quality_of, score_decomposition
from edgedc.bench.table import table
from edgedc.commands._batch import Item, keyed, open_output, run
from edgedc.commands._local import Local, Settings, choose_local, decomposition_in, model_options
from edgedc.decomposition import Decomposition
from edgedc.errors import InputError
from edgedc.files import Row
from edgedc.flags import flags
from edgedc.tasks import Example, Selection, load_examples

Known = list[tuple[Example, Decomposition]]

_LINES = (
    ("exactly right", "exact"),
    ("could be read", "parsed"),
    ("right whether to decompose", "status"),
    ("right number of subquestions", "count"),
)


@click.command(short_help="Score a decomposer against known decompositions.")
@model_options
@click.option("--output", type=click.Path(path_type=Path), help="One JSONL row a question; a rerun goes on there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
@flags(Selection)
def command(selection: Selection, output: Path | None, as_json: bool, **options: Any) -> None:
    """Decompose the selected questions and compare with their known decompositions.

    Exactly right means: the same status, and every subquestion equal, in order.
    """
    known = _known(selection)
    local = choose_local(Settings(**options))
    rows = _rows(local, known, output)
    for row in rows:
        if row["status"] == "failed":
            raise InputError(f"question {row['id']}: {row['error']}")
    quality = quality_of(
        score_decomposition(decomposition_in(row), right) for row, (_, right) in zip(rows, known, strict=True)
    )
    if as_json:
        click.echo(json.dumps(_as_json(quality, local, selection, rows[-1]["backend"]), ensure_ascii=False))
    else:
        click.echo(f"{local.choice.manifest.name}, {rows[-1]['backend']}: {quality.n} questions of {selection.task}")
        click.echo(table(["", "share (95 % interval)", "questions"], _cells(quality)))


def _known(selection: Selection) -> Known:
    """The examples with their decompositions. Raises InputError when one has none."""
    known = []
    for example in load_examples(selection):
        if example.decomposition is None:
            raise InputError(f"{selection.task} {example.id}: its decomposition is not known, so it cannot be scored")
        known.append((example, example.decomposition))
    return known


def _rows(local: Local, known: Known, output: Path | None) -> list[Row]:
    items = list(keyed(local.key, (Item(e.id, e.question, e.premise) for e, _ in known)))
    if output is None:
        return list(_fresh(local, items))
    with open_output(output) as out:
        done, total = out.resume(key for key, _ in items)
        if done < total:
            for row, (_, right) in zip(_fresh(local, items[done:]), known[done:], strict=True):
                out.write({**row, "expected": right.texts, "expected_status": right.status})
        return out.rows


def _fresh(local: Local, items: list[tuple[str, Item]]) -> Iterator[Row]:
    with local.decomposer() as decomposer:
        yield from run(local, decomposer, items, len(items), "evaluate")


def _cells(quality: Quality) -> list[list[str]]:
    shares = [(label, getattr(quality, name)) for label, name in _LINES]
    return [[label, str(share), f"{share.hits} of {share.n}"] for label, share in shares]


def _as_json(quality: Quality, local: Local, selection: Selection, backend: str) -> Row:
    shares = {name: getattr(quality, name) for _, name in _LINES}
    return {
        "model": local.choice.manifest.name,
        "backend": backend,
        "task": selection.task,
        "data": selection.data,
        "split": selection.split,
        "seed": selection.seed,
        "n": quality.n,
        **{name: {"share": s.value, "interval_95": list(s.interval), "hits": s.hits} for name, s in shares.items()},
    }
