"""edgedc evaluate --replay DIR: recorded runs against their publication, and what they say of a new decomposer."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import click

from edgedc.bench import quality_tables as show
from edgedc.bench.calibration import Prediction, correlations, leave_one_out, predict
from edgedc.bench.decompositions import Scored, summarise
from edgedc.bench.figures import scores_of
from edgedc.bench.recorded import SOURCE, Recording, check, read_recordings, scores_in
from edgedc.bench.recorded_tables import (
    RULE,
    WHY,
    accuracies,
    errors_said,
    in_order,
    left_out,
    measures,
    scores_with,
    together,
)
from edgedc.bench.sources import words_of
from edgedc.bench.table import Cell, table
from edgedc.commands._local import Settings
from edgedc.commands.evaluate import Evaluated, evaluated
from edgedc.commands.evaluate.systems import Decomposers
from edgedc.errors import InputError
from edgedc.files import Row
from edgedc.tasks import Example, Selection, load_examples

Right = dict[str, list[bool]]

ENOUGH = 4  # with one left out, three points make a line and an error


def show_recorded(
    folder: Path, selection: Selection, settings: Settings, names: Sequence[str], *, as_json: bool
) -> None:
    """Without `names`, the recordings alone. With them, each one's measures, and its estimate for every solver.

    Raises InputError where the known decompositions of the recorded questions are not found.
    """
    recordings = read_recordings(folder)
    examples = _examples(folder, selection, recordings)
    scores = scores_in(recordings, examples)
    rights = {solver: _right(solver, recordings, examples) for solver in dict.fromkeys(r.solver for r in recordings)}
    enough = all(len(right) >= ENOUGH for right in rights.values())
    if names and not enough:
        raise InputError(f"{folder}: an estimate needs {ENOUGH} recorded decomposers for each solver, or more")
    new = _new(selection, examples, settings, names) if names else None
    if as_json:
        click.echo(json.dumps(_as_json(recordings, scores, rights if enough else {}, new), ensure_ascii=False))
        return
    if new:
        for one in new.figures:
            click.echo(f"{one.system}: {one.questions} questions of GSM8K\n{show.decompositions(one)}\n")
        click.echo(_estimates(new, scores, rights))
        return
    blocks = [
        accuracies(recordings),
        WHY,
        RULE,
        measures(scores),
        *([together(scores, rights), left_out(scores, rights)] if enough else []),
    ]
    click.echo("\n\n".join(blocks))


def _examples(folder: Path, selection: Selection, recordings: Sequence[Recording]) -> list[Example]:
    """The recorded questions with their known decompositions: of --data, else of gsm8k/ beside the folder."""
    data = selection.data
    if not data:
        beside = sorted((folder.resolve().parent / "gsm8k").glob("test_socratic*.jsonl"))
        if not beside:
            raise InputError(
                f"{folder}: name GSM8K's socratic test file with --data: the known decompositions are in it"
            )
        data = str(beside[0])
    chosen = replace(selection, task="gsm8k", data=data, split="test", limit=None)
    asked = set(recordings[0].raw).intersection(*(recording.raw for recording in recordings))
    examples = [example for example in load_examples(chosen) if words_of(example.question) in asked]
    if not examples:
        raise InputError(f"{data}: none of its questions was recorded in {folder}")
    return examples[: selection.limit]


def _right(solver: str, recordings: Sequence[Recording], examples: Sequence[Example]) -> Right:
    return {
        recording.decomposer: [recording.right[words_of(example.question)] for example in examples]
        for recording in recordings
        if recording.solver == solver
    }


def _new(selection: Selection, examples: list[Example], settings: Settings, names: Sequence[str]) -> Evaluated:
    with ExitStack() as stack:
        sources = Decomposers(stack, settings)
        for name in names:
            sources.check(name, solver=False)
        return evaluated(replace(selection, task="gsm8k"), examples, names, "static", sources, None, None)


def _estimates(new: Evaluated, scores: dict[str, list[Scored]], rights: dict[str, Right]) -> str:
    rows: list[list[Cell]] = []
    notes = [
        "ESTIMATES for these questions: no solver was asked. By the line on mean ROUGE-L over the recorded ones, with",
        "the interval for one more; per question: a logistic regression. Errors on decomposers that were left out:",
    ]
    for solver, right in rights.items():
        for one in new.figures:
            made = _predicted(new, one.system, scores, right)
            between = f"{made.interval[0]:.1%} to {made.interval[1]:.1%}" if made.interval else None
            beyond = "yes" if made.outside else "no"
            rows.append([solver, one.system, f"{made.value:.1%}", between, beyond, f"{made.per_question:.1%}"])
        notes.append(f"{solver}: {errors_said(leave_one_out(scores_with(scores, right), right))}")
    if any(row[4] == "yes" for row in rows):
        notes.append("Extrapolated: its ROUGE-L lies beyond that of all recorded decomposers; do not rely on it.")
    headers = ["solver", "decomposer", "estimated accuracy", "95 % interval", "extrapolated", "per question"]
    return "\n".join([table(headers, rows), *notes])


def _predicted(new: Evaluated, system: str, scores: dict[str, list[Scored]], right: Right) -> Prediction:
    """On the questions that it decomposed without an error, which are the ones that count for the others too."""
    kept = [k for k, row in enumerate(new.rows[system]) if not row["error"]]
    made = scores_of([(new.examples[k], new.rows[system][k]) for k in kept])
    others = {name: [scores[name][k] for k in kept] for name in right}
    return predict(others, {name: [right[name][k] for k in kept] for name in right}, made)


def _as_json(
    recordings: Sequence[Recording], scores: dict[str, list[Scored]], rights: dict[str, Right], new: Evaluated | None
) -> Row:
    runs = []
    for one in recordings:
        share = {
            "share": one.share.value,
            "interval_95": list(one.share.interval),
            "hits": one.share.hits,
            "n": one.share.n,
        }
        found = check(one)
        runs.append(
            {"solver": one.solver, "decomposer": one.name, "accuracy": share, "published": found and asdict(found)}
        )
    left_out = {
        solver: [asdict(one) for one in leave_one_out(scores_with(scores, right), right)]
        for solver, right in rights.items()
    }
    together = {
        solver: [asdict(one) for one in correlations(scores_with(scores, right), right)]
        for solver, right in rights.items()
    }
    return {
        "source": SOURCE,
        "runs": runs,
        "decompositions": {name: asdict(summarise(made)) for name, made in in_order(scores)},
        "correlations": together,
        "left_out": left_out,
        "estimates": _estimated(new, scores, rights) if new else [],
    }


def _estimated(new: Evaluated, scores: dict[str, list[Scored]], rights: dict[str, Right]) -> list[Row]:
    return [
        {
            "solver": solver,
            "decomposer": one.system,
            **asdict(_predicted(new, one.system, scores, right)),
            "decompositions": one.decompositions and asdict(one.decompositions),
        }
        for one in new.figures
        for solver, right in rights.items()
    ]
