"""edgedc flush: send the questions that wait for a solver."""

import json
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import click

from edgedc.commands._answers import repeats, row_of, text_of
from edgedc.commands._asking import duration
from edgedc.commands._desk import Desk
from edgedc.commands._paid import Job, Kept, Paying, about_request, open_outbox, prompts, work
from edgedc.commands._say import check_shown, say
from edgedc.errors import BudgetError, EdgedcError, InputError, SolverRefused
from edgedc.files import Row, RowWriter
from edgedc.flags import flag, flags
from edgedc.outbox import Outbox, Question
from edgedc.words import counted


@dataclass(frozen=True)
class Elsewhere:
    """Who is to answer instead of whom a question was meant for."""

    solver_model: str = flag("", "Ask this model.  [the one that each question was meant for]")
    solver_url: str = flag("", "Ask this server.  [the one that each question was meant for]")


@click.command(short_help="Send the questions that wait for a solver.")
@click.option("--list", "listing", is_flag=True, help="Show what waits, and send nothing.")
@click.option("--drop", metavar="KEY", help="Forget the question with this key, as --list shows it.")
@click.option("--output", type=click.Path(path_type=Path), help="Append the answers to this JSONL file.  [stdout]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON objects, one a line.")
@flags(Elsewhere)
@flags(Paying)
def command(
    listing: bool, drop: str | None, output: Path | None, as_json: bool, elsewhere: Elsewhere, paying: Paying
) -> None:
    """Send the questions that `edgedc ask` could not get answered, and print the answers.

    What was answered of a question before is not asked again. Each answer is printed once, and then the question is
    gone; one that fails again stays, and so does one that the server refuses for good, which only --drop removes.
    """
    if drop is not None and not drop.strip():  # a variable of the shell that is not set
        raise InputError("--drop: empty; give a key, as  edgedc flush --list  shows it")
    box = open_outbox(new=False)
    if box is None:
        if drop is not None:
            raise InputError(f"--drop {drop}: no question has this key; see  edgedc flush --list")
        click.echo("nothing waits", err=True)
        return
    with closing(box):
        if drop is None and not any(True for _ in box.questions()):
            click.echo("nothing waits", err=True)
        elif listing:
            _list(box, as_json)
        elif drop is not None:
            _drop(box, drop)
        else:
            if output is None:
                check_shown()
            with ExitStack() as stack:
                writer = stack.enter_context(RowWriter(output)) if output else None
                _Flush(box, Desk(stack, paying), elsewhere, writer, as_json).run()


def _list(box: Outbox, as_json: bool) -> None:
    for question in box.questions():
        row = {
            "key": question.key,
            "question": question.job["question"],
            "asked": question.asked,
            "state": question.state,
            "solver": f"{question.job['model']} at {question.job['url']}",
            "mode": question.job["mode"],
            "received": [s["name"] for s in (question.begun or {"stages": []})["stages"] if not _failed(s)],
            "attempts": question.attempts,
            "error": question.error,
            "doubtful": question.doubtful,
            "batch": question.batch,
        }
        say(json.dumps(row, ensure_ascii=False) if as_json else _line(row))


def _failed(stage: Row) -> bool:
    return bool(stage["generation"]["finish_reason"] == "failed")


def _line(row: Row) -> str:
    asked = " ".join(row["question"].split())
    words = [f"{row['key']}  {row['state']}, {duration(max(time.time() - row['asked'], 0))} old: {asked[:80]}"]
    words.append(
        f"  for {row['solver']}, mode {row['mode']}, received so far: {', '.join(row['received']) or 'nothing'}"
    )
    if row["attempts"]:
        words.append(f"  failed {counted(row['attempts'], 'time')}, at last: {row['error']}")
    if row["doubtful"]:
        words.append(f"  {_doubt(row['doubtful'])}")
    if row["batch"]:
        words.append(f"  of the batch {row['batch']}: the  edgedc ask  that writes it goes on with it")
    return "\n".join(words)


def _doubt(calls: int) -> str:
    return f"{counted(calls, 'call', 'were')} sent in vain, and may be billed too"


def _drop(box: Outbox, key: str) -> None:
    question = box.claim_key(key)
    if question is None:
        there = any(question.key == key for question in box.questions())
        what = "another process works on it: try again later" if there else "no question has this key"
        raise InputError(f"--drop {key}: {what}; see  edgedc flush --list")
    box.remove(question.id)
    click.echo(f"forgotten: {question.job['question'][:80]!r}", err=True)


class _Flush:
    """One run."""

    def __init__(self, box: Outbox, desk: Desk, elsewhere: Elsewhere, writer: RowWriter | None, as_json: bool) -> None:
        self._box, self._desk, self._elsewhere, self._writer, self._as_json = box, desk, elsewhere, writer, as_json
        self._answered = self._refused = self._empty = self._doubtful = 0
        self._mine: set[int] = set()  # questions that this run had in hand
        self._down: set[tuple[str, str]] = set()  # (model, server) that no more is sent to
        self._error = ""  # the first

    def run(self) -> None:
        """Raises BudgetError at the ceiling, and EdgedcError when something failed, and waits or was refused."""
        try:
            while question := self._box.claim(after=max(self._mine, default=0)):
                self._mine.add(question.id)
                self._send(question)
        finally:
            self._tell()
        left = [question.id for question in self._box.questions() if question.state == "waiting" and not question.batch]
        waiting = len(self._mine.intersection(left))
        if waiting or self._refused or self._empty:
            refused = f"{self._refused} refused for good (edgedc flush --list), " if self._refused else ""
            empty = f"{self._empty} with an empty reply, " if self._empty else ""
            raise EdgedcError(f"{waiting} still waiting, {refused}{empty}the first because: {self._error}")
        if left:
            click.echo(f"{counted(len(left), 'other', 'are')} in the hands of other processes", err=True)

    def _send(self, question: Question) -> None:
        job = Job(**question.job)
        job = replace(job, model=self._elsewhere.solver_model or job.model, url=self._elsewhere.solver_url or job.url)
        if (job.model, job.url) in self._down:
            self._box.release(question.id)
            return
        kept = Kept(self._box, question)
        refused, row = False, None
        try:
            error, row = self._answer(job, kept)
        except BudgetError as broke:
            kept.wait(str(broke))
            raise
        except EdgedcError as failure:
            error = str(failure)
            refused = isinstance(failure, SolverRefused) and about_request(failure)
            if isinstance(failure, SolverRefused) and not refused:
                self._down.add((job.model, job.url))
        except BaseException:
            self._box.release(question.id)
            raise
        if row:  # what cannot be shown is no reason to pay for the next one: it ends the run
            try:
                self._show(row, kept)
            except BaseException:
                self._box.release(question.id)
                raise
            if row["status"] == "empty":
                self._empty += 1
                self._error = self._error or row["error"]
        elif error:
            kept.wait(error, refused=refused)
            click.echo(f"not answered: {job.question[:60]!r}: {error}", err=True)
            self._refused += refused
            self._error = self._error or error

    def _answer(self, job: Job, kept: Kept) -> tuple[str, Row | None]:
        """Why there is no answer, or its row."""
        asked = kept.question.job["model"]  # a price that stood in for this one's is not another model's
        solver = self._desk.solver(job.model, job.url, job.price_as if job.model == asked else "")
        far = self._desk.far_decomposer(job)
        before = repeats(solver, far)
        decomposer = None if kept.begun and kept.begun.decomposition else self._desk.decomposer(job)
        result = work(job, solver.solver, decomposer, kept=kept)
        if result.partial:
            if result.decomposition or result.begun.mode in (
                "single-stage",
                "cot",
            ):  # else it is the decomposer's fault
                self._down.add((job.model, job.url))
            return result.error, None
        row = row_of(job, kept.question.key, result, solver, far, before=before)
        notes = [*row["notes"], *_history(job, kept.question)]
        history = {"shown_before": kept.question.shown, "doubtful": kept.question.doubtful}
        return "", row | {"notes": notes} | history

    def _show(self, row: Row, kept: Kept) -> None:
        """Before it is removed, so that a kill loses nothing; it is marked, so that it is known for shown then."""
        kept.show(partial=False)
        if self._writer:
            if row["key"] not in self._writer.rows:
                self._writer.write(row)
        elif self._as_json:
            say(json.dumps(row, ensure_ascii=False))
        else:
            say(f"# {' '.join(row['question'].split())}\n\n{text_of(row)}\n")
        kept.done("")
        self._answered += row["status"] == "answered"
        self._doubtful += kept.question.doubtful
        notes = [] if self._writer or self._as_json else row["notes"]
        for note in [*notes, *([kept.trouble] if kept.trouble else [])]:
            click.echo(f"note: {note}", err=True)

    def _tell(self) -> None:
        if not self._answered:
            return
        spent = "" if self._desk.spent is None else f", ${self._desk.spent:.6f}"
        doubt = f"; {_doubt(self._doubtful)}" if self._doubtful else ""
        where = f" to {self._writer.path}" if self._writer else ""
        click.echo(f"{self._answered} answered{where}{spent}{doubt}", err=True)


def _history(job: Job, question: Question) -> list[str]:
    """What a reader should know of how the answer came about."""
    notes = []
    if question.doubtful:
        notes.append(_doubt(question.doubtful))
    if question.shown:
        notes.append("it may have been shown before: whoever showed it was killed then")
    before = [
        s for s in (question.begun or {"stages": []})["stages"] if s["name"].startswith("step") and not _failed(s)
    ]
    if before and job.model != question.job["model"]:
        notes.append(
            f"{len(before)} of its steps were answered by {question.job['model']}: cost_usd has them at the price of "
            f"{job.model}, and booked_usd at their own"
        )
    if question.begun and job.prompts != prompts():
        notes.append("it was begun by another edgedc, with other prompts")
    return notes
