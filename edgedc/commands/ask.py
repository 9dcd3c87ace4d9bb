"""edgedc ask: break the question down here, have it answered there."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import click

from edgedc.answers import Answer, Asked
from edgedc.backends.greedy import encodable
from edgedc.commands._answers import repeats, row_of, summary, text_of
from edgedc.commands._batch import Progress, keyed, open_output
from edgedc.commands._desk import Desk
from edgedc.commands._fallback import answer_here, choose_fallback
from edgedc.commands._live import Screen
from edgedc.commands._paid import SERVER, Job, Kept, Paying, about_request, open_outbox, prompts, work
from edgedc.commands._questions import Questions, read_question
from edgedc.commands._say import check_shown, say
from edgedc.errors import ContextError, EdgedcError, InputError, SolverError, SolverRefused
from edgedc.files import Row, key_of
from edgedc.flags import flag, flags
from edgedc.outbox import Outbox
from edgedc.prompts import MAX_TOKENS_SOLVE


@dataclass(frozen=True)
class Asking:
    """Whom to ask, and how. Raises InputError when nobody is named."""

    mode: Asked = flag(
        "auto", "How the solver is asked; auto: static, or single-stage where nothing needs breaking down."
    )
    solver_model: str = flag("", "The model that answers, as its server calls it.")
    solver_url: str = flag("", SERVER)
    max_tokens: int = flag(MAX_TOKENS_SOLVE, "Longest reply of the solver.")
    model: Path | None = flag(
        None, "Bundle or model folder that decomposes here.  [newest bundle here, else the model named default]"
    )
    decomposer_model: str = flag("", "Decompose elsewhere, by this model.")
    decomposer_url: str = flag("", "Its server.  [the solver's; key of another server: EDGEDC_DECOMPOSER_API_KEY]")
    fallback_model: Path | None = flag(
        None, "Bundle that answers here where the solver cannot be reached; then nothing waits in the outbox."
    )
    outbox: bool = flag(True, "Keep a question that could not be answered, for  edgedc flush.")

    def __post_init__(self) -> None:
        if not self.solver_model:
            raise InputError("no solver: name the model that answers with --solver-model, for example gpt-4o-mini")
        if self.max_tokens < 1:
            raise InputError(f"--max-tokens {self.max_tokens}: give at least 1")
        if self.decomposer_url and not self.decomposer_model:
            raise InputError("--decomposer-url: name the model there with --decomposer-model")
        if self.decomposer_model and self.model:
            raise InputError("--model decomposes here and --decomposer-model elsewhere: give one of them")


@click.command(short_help="Decompose here, solve there: the whole pairing.")
@click.argument("question", required=False)
@click.option("--premise", default="", help="The text that the question is about.")
@flags(Asking)
@flags(Paying)
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
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
    asking: Asking,
    paying: Paying,
) -> None:
    """Answer QUESTION (- reads it from stdin): decompose it on this device, then ask a solver elsewhere.

    The subquestions and the solver's answer go to stdout; tokens, seconds, money and what left the device to stderr.
    The modes single-stage and cot ask the solver alone. When the solver cannot be reached, what there is is printed,
    and the question waits for  edgedc flush. With --input and --output, a whole file is answered, in order.
    """
    if source is None:
        if output is not None or question is None:
            raise click.UsageError("give a question, or --input FILE and --output FILE")
        check_shown()
        question, premise = encodable(read_question(question)), encodable(premise)
        with ExitStack() as stack:
            pair = Pair(stack, asking, paying)
            _one(pair, replace(pair.job, question=question, premise=premise), as_json)
        return
    if question is not None or premise or as_json:
        raise click.UsageError("--input takes its questions from the file: leave out QUESTION, --premise and --json")
    questions = Questions(source, question_column, premise_column)
    if output is None or questions.once:
        raise click.UsageError("--input needs --output FILE, and a file of its own to read from")
    if output.resolve() == source.resolve():
        raise InputError(f"{output}: both --input and --output; give another --output")
    if not sum(1 for _ in questions):  # reads it all: a bad row is found before anything is paid
        raise InputError(f"{source}: no questions in it")
    with ExitStack() as stack:
        _many(Pair(stack, asking, paying), questions, output)


class Pair:
    """A decomposer and a solver, opened, what stands in where the solver is away, and the outbox.

    `job` lacks only its question. Raises InputError for whatever is missing or wrong, before anything is asked.
    """

    def __init__(self, stack: ExitStack, asking: Asking, paying: Paying) -> None:
        self.desk = Desk(stack, paying)
        self.solver = self.desk.solver(asking.solver_model, asking.solver_url, paying.price_as)
        url = self.solver.solver.url
        decomposes = asking.mode not in ("single-stage", "cot")
        local = self.desk.local(asking.model) if decomposes and not asking.decomposer_model else None
        job = Job(
            *("", "", asking.mode, asking.max_tokens, asking.solver_model, url, paying.price_as),
            folder=str(local.choice.folder.resolve()) if local else "",
            decomposer_model=asking.decomposer_model if decomposes else "",
            decomposer_url=asking.decomposer_url or asking.solver_url,
            prompts=prompts(),
        )
        self.far = self.desk.far_decomposer(job)
        self.job = replace(job, decomposer_url=self.far.solver.url if self.far else "")  # now without a password
        self.key = key_of(replace(self.job, folder="", price_as="").row(), local.key if local else "")
        self.fallback = choose_fallback(asking.fallback_model) if asking.fallback_model else None
        chosen = self.fallback
        self.fallback_key = key_of(chosen.identity(), chosen.engine, chosen.manifest.method) if chosen else ""
        self.box = open_outbox() if asking.outbox else None
        if self.box:
            stack.callback(self.box.close)
        self.decomposer = self.desk.decomposer(job)

    def answer(self, job: Job, kept: Kept | None, screen: Screen | None) -> Answer:
        """By the solver, else by the fallback, else partial."""
        piece, stage = (screen.piece, screen.stage) if screen else (None, None)
        made = work(job, self.solver.solver, self.decomposer, kept=kept, on_piece=piece, on_stage=stage)
        if not made.partial or not self.fallback:
            return made
        if screen:
            screen.again()
        try:
            return answer_here(job.question, job.premise, made, self.fallback, job.max_tokens, piece, stage)
        except EdgedcError as error:
            return replace(made, notes=(*made.notes, f"nor could the model here answer: {error}"))

    def row_key(self, key: str, row: Row) -> str:
        """That of a question's row. What the solver has said is the same whatever stands in for it; what was answered
        here is the fallback's."""
        return key_of(key, self.fallback_key) if row.get("answered_by") == "local" else key

    def names(self) -> dict[str, str]:
        """Who has answered, for `summary`."""
        decomposer = self.far.name if self.far else self.decomposer.name if self.decomposer else ""
        here = self.fallback.manifest.name if self.fallback else ""
        return {"decomposer": decomposer, "remote": self.solver.name, "local": here}


@contextmanager
def _kept(box: Outbox | None, job: Job, key: str = "", batch: str = "") -> Iterator[Kept | None]:
    """The question's place in the outbox, or None without one. An error leaves it there if something was paid for."""
    if box is None:
        yield None
        return
    kept = Kept(box, (box.claim_key(key) if key else None) or box.add(job.row(), key=key, batch=batch))
    try:
        yield kept
    except BaseException as error:
        if kept.leave(error) and not batch:
            click.echo("What has been answered so far is kept: go on with  edgedc flush", err=True)
        raise


def _one(pair: Pair, job: Job, as_json: bool) -> None:
    screen = Screen() if sys.stdout.isatty() and not as_json else None
    with _kept(pair.box, job) as kept:
        before = repeats(pair.solver, pair.far)
        result = pair.answer(job, kept, screen)
        row = row_of(job, kept.question.key if kept else "", result, pair.solver, pair.far, before=before)
        if kept:
            kept.show(partial=result.partial)
        if as_json:
            say(json.dumps(row, ensure_ascii=False))
        elif screen:
            screen.finish(row)
        elif text := text_of(row):
            say(text)
        if kept:
            kept.done(result.error)
    for line in summary(row, pair.solver, pair.names()):
        click.echo(line, err=True)
    for note in [*row["notes"], *([kept.trouble] if kept and kept.trouble else [])]:
        click.echo(f"note: {note}", err=True)
    if result.partial:
        waits = "; the question waits: send it later with  edgedc flush" if kept else ""
        raise SolverError(f"{result.error}{waits}")
    if result.empty:
        raise SolverError(result.empty)


def _many(pair: Pair, questions: Questions, output: Path) -> None:
    batch = str(output.resolve())
    with open_output(output) as out:
        done, total = out.resume((key for key, _ in keyed(pair.key, questions)), pair.row_key)
        if pair.box:
            _forget(pair.box, batch, (key for key, _ in islice(keyed(pair.key, questions), done)))
        progress = Progress("ask", total, done)
        for key, item in islice(keyed(pair.key, questions), done, None):
            job = replace(pair.job, question=item.question, premise=item.premise)
            with _kept(pair.box, job, key_of(key, batch), batch) as kept:
                row = _row(pair, job, key, kept)
                if row["status"] == "partial":
                    so_far = f"{out.written} of {total} questions are answered, and the same command goes on from there"
                    raise SolverError(f"{row['error']}; {so_far}")
                row["key"] = pair.row_key(key, row)
                out.write({"key": key, "id": item.name} | row)
                if kept:
                    kept.done("")
            progress.step()
        counts = dict(out.counts)
    failed = counts.get("failed", 0) + counts.get("empty", 0)
    spent = "" if pair.desk.spent is None else f", ${pair.desk.spent:.6f} booked by this run"
    click.echo(f"{output}: {counts.get('answered', 0)} answered, {failed} failed{spent}", err=True)
    if failed:
        raise EdgedcError(f"{output}: {failed} of {total} questions failed; 'error' in their rows says why")


def _forget(box: Outbox, batch: str, keys: Iterable[str]) -> None:
    """Take out of the outbox what has its row, by these keys: a kill between the two left it there for ever."""
    if not (left := box.keys(batch)):  # as a rule; then no key is made
        return
    for key in left.intersection(key_of(key, batch) for key in keys):
        if question := box.claim_key(key):
            box.remove(question.id)


def _row(pair: Pair, job: Job, key: str, kept: Kept | None) -> Row:
    """A question that cannot be asked becomes a failed row; what concerns the others too is raised."""
    before = repeats(pair.solver, pair.far)
    try:
        result = pair.answer(job, kept, None)
    except (ContextError, SolverRefused) as error:
        if isinstance(error, SolverRefused) and not about_request(error):
            raise
        return {"question": job.question, "status": "failed", "error": str(error)}
    return row_of(job, key, result, pair.solver, pair.far, before=before)
