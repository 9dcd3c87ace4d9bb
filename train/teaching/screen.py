"""Screen demonstrations: run a solver with each decomposition, and see whether it reaches the gold answer (S_D-R)."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edgedc.bench.quality import Share
from edgedc.errors import EdgedcError, InputError
from edgedc.files import Row, key_of, numbered_rows
from edgedc.flags import flag
from edgedc.prompts import MAX_TOKENS_SOLVE
from edgedc.tasks import find_task

from ..calls.engines import Failure, run
from ..calls.projection import Projection, cost_of, project
from ..calls.remote import CallSettings, find_remote
from ..calls.rows import Rows
from ..calls.spending import Spending
from ..sets.pairs import kind_of, unusable
from .trials import Trial, Trials


@dataclass(frozen=True)
class ScreenSettings(CallSettings):
    solver_model: str = flag("", "The model that answers, as its server calls it.")
    solver_url: str = flag("", "Its OpenAI-compatible server.  [EDGEDC_BASE_URL, OPENAI_BASE_URL, else OpenAI]")
    temperature: float = flag(0.0, "Temperature of the solver.")
    seed: int = flag(0, "Seed of the solver.")
    max_tokens: int = flag(MAX_TOKENS_SOLVE, "Longest reply of the solver, in tokens; one that is cut does not pass.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.temperature <= 2:
            raise InputError(f"--temperature {self.temperature}: must be from 0 to 2")
        if self.max_tokens < 1:
            raise InputError(f"--max-tokens {self.max_tokens}: must be at least 1")


@dataclass(frozen=True)
class Progress:
    """`failed`: calls of this run; `passed`: of all `questions`, so far. `spent`: US dollars, all runs."""

    failed: int
    passed: int
    questions: int
    spent: float


@dataclass
class Screened:
    """What the file holds of these demonstrations.

    Questions: `passed` with one of their draws, `rejected` with all of them, `unfinished` because a call failed, and
    `undrawn` without any usable draw. `by_draw` (from 1) and `by_subquestions` (0: none are needed) are the shares of
    tried draws that passed; a draw is tried only where the ones before it did not pass. `unusable` counts draws by
    outcome, `foreign` the file's rows of another solver, setting or input. `error` is the last failure of this run,
    `empty` tried draws of which the solver said nothing, and `uncounted` those of which its server counted no tokens.
    """

    passed: int = 0
    rejected: int = 0
    unfinished: int = 0
    undrawn: int = 0
    by_draw: dict[int, Share] = field(default_factory=dict)
    by_subquestions: dict[int, Share] = field(default_factory=dict)
    unusable: Counter[str] = field(default_factory=Counter)
    foreign: int = 0
    spent: float = 0.0
    error: EdgedcError | None = None
    simulated: bool = False
    unsupported: set[str] = field(default_factory=set)
    empty: int = 0
    uncounted: int = 0

    @property
    def questions(self) -> int:
        return self.passed + self.rejected + self.unfinished + self.undrawn


class _Draw(NamedTuple):
    """A usable draw of a question: its number, its line in the file, and the key of its trial."""

    number: int
    line: int
    key: str


class _Gist(NamedTuple):
    """What is counted of a row; `draw` from 0, `subquestions` how many."""

    verdict: bool
    draw: int
    subquestions: int
    simulated: bool
    unsupported: tuple[str, ...]
    empty: bool
    uncounted: bool


def find_job(settings: ScreenSettings) -> Trials:
    """The solver to ask. Raises InputError as `find_remote` does, and when none is named."""
    if not settings.solver_model:
        raise InputError("no solver: name the model that answers with --solver-model, for example gpt-4o-mini")
    solver = find_remote(
        settings.solver_model, settings.solver_url, settings.temperature, settings.max_tokens, settings
    )
    return Trials(solver, settings.seed)


def screen(
    demonstrations: Path,
    out: Path,
    job: Trials,
    settings: CallSettings,
    *,
    announce: Callable[[Projection], None],
    report: Callable[[Progress], None],
) -> Screened:
    """Append to `out` a row per draw tried: the decomposition, the solver's text, whether its answer is the gold one.

    The draws of a question are tried in order, all first ones before any second one, and none behind one that passed.
    `announce` gets what a round will take before it is asked. Rows are written as the replies come; a rerun asks for
    what is missing, also for what failed. Raises InputError, before anything is asked, for rows that `edgedc teach`
    did not write or that have no gold answer or no task, and what `engines.run` raises when there is no point in
    asking on.
    """
    unusable_draws = Counter[str]()
    questions = _index(demonstrations, job, unusable_draws)

    def gist(row: Row) -> _Gist:
        counted = row["verdict"], row.get("draw", 0), len(row["subquestions"])
        said, uncounted = row["solution"].strip(), row["usage"]["source"] == "estimate"
        return _Gist(*counted, row["simulated"], tuple(row["unsupported"]), not said, uncounted)

    with (
        Rows(out, "screen", gist, asked=job.name, price=job.price) as rows,
        Spending(out, rows.gists, rows.cost) as spending,
    ):
        failed: dict[str, EdgedcError] = {}
        passed = sum(_verdict(draws, rows.gists) is True for draws in questions)
        while lines := _next_lines(questions, rows.gists, failed):
            trials = partial(_trials, demonstrations, lines, job)
            announce(project(trials(), rows.replies, job, settings, spending.total))
            worker = replace(job, solver=replace(job.solver, spent=spending.total))
            for row in _ask(worker, trials(), settings, rows, spending, failed):
                passed += row is not None and row["verdict"]
                report(Progress(len(failed), passed, len(questions), spending.total))
        return _screened(questions, rows.gists, failed, unusable_draws, spending.total)


def _ask(
    job: Trials,
    trials: Iterator[Trial],
    settings: CallSettings,
    rows: Rows[_Gist],
    spending: Spending,
    failed: dict[str, EdgedcError],
) -> Iterator[Row | None]:
    """Make the trials and write their rows; yields each row, and None for a call that failed."""

    def announced() -> Iterator[Trial]:
        for trial in trials:
            spending.asking(trial.key, job.worst(trial))
            yield trial

    with closing(run(job, announced(), engine=settings.engine, concurrency=settings.concurrency)) as results:
        for result in results:
            if isinstance(result, Failure):
                failed[result.item.key] = result.error
                spending.failed(result.item.key, result.error)
                yield None
            else:
                rows.write(result)
                spending.answered(result["key"], cost_of(result, job.price))
                yield result


def _index(path: Path, job: Trials, left_out: Counter[str]) -> list[list[_Draw]]:
    """The usable draws of each question, in order; an empty list for a question that has none."""
    questions: dict[str, list[_Draw]] = {}  # by a hash, as texts may be more than fit into memory
    for line, row in numbered_rows(path):
        where = f"{path}:{line}"
        if kind_of(row, where) != "teach":
            raise InputError(f"{where}: not a row of  edgedc teach: screen what it wrote")
        if not row.get("answer", "").strip():
            raise InputError(f"{where} ({row.get('id', '')}): no gold answer to compare with: take a task that has it")
        if not row.get("task"):
            raise InputError(f"{where}: no task, so it is not known how to compare answers: make it with  edgedc teach")
        try:
            find_task(row["task"])
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        draws = questions.setdefault(key_of(row["question"], row.get("premise", "")), [])
        if why := unusable(row):
            left_out[why] += 1
        else:
            draws.append(_Draw(row.get("draw", 0), line, job.trial(row).key))
    if not questions:
        raise InputError(f"{path}: no rows in it: make some with  edgedc teach")
    return [sorted(draws) for draws in questions.values()]


def _verdict(draws: list[_Draw], rows: Mapping[str, _Gist]) -> bool | None:
    """True: one passed; False: all were tried in vain; None: some are yet to be tried."""
    verdicts = [rows[draw.key].verdict if draw.key in rows else None for draw in draws]
    return True if True in verdicts else None if None in verdicts else False


def _next_lines(questions: list[list[_Draw]], rows: Mapping[str, _Gist], failed: Collection[str]) -> set[int]:
    """The lines of the draws to try next, one a question; where a call has failed in this run, the question rests."""
    undecided = (draws for draws in questions if _verdict(draws, rows) is None)
    following = (next(draw for draw in draws if draw.key not in rows) for draws in undecided)
    return {draw.line for draw in following if draw.key not in failed}


def _trials(path: Path, lines: set[int], job: Trials) -> Iterator[Trial]:
    for line, row in numbered_rows(path):
        if line in lines:
            yield job.trial(row)


def _screened(
    questions: list[list[_Draw]],
    rows: Mapping[str, _Gist],
    failed: Mapping[str, EdgedcError],
    unusable_draws: Counter[str],
    spent: float,
) -> Screened:
    verdicts = [_verdict(draws, rows) if draws else "undrawn" for draws in questions]
    tried = [rows[key] for key in {draw.key: None for draws in questions for draw in draws} if key in rows]
    return Screened(
        passed=verdicts.count(True),
        rejected=verdicts.count(False),
        unfinished=verdicts.count(None),
        undrawn=verdicts.count("undrawn"),
        by_draw=_shares((row.draw + 1, row.verdict) for row in tried),
        by_subquestions=_shares((row.subquestions, row.verdict) for row in tried),
        unusable=unusable_draws,
        foreign=len(rows) - len(tried),
        spent=spent,
        error=next(reversed(failed.values()), None),
        simulated=any(row.simulated for row in tried),
        empty=sum(row.empty for row in tried),
        uncounted=sum(row.uncounted for row in tried),
        unsupported={name for row in tried for name in row.unsupported},
    )


def _shares(verdicts: Iterator[tuple[int, bool]]) -> dict[int, Share]:
    counts = Counter(verdicts)
    groups = sorted({group for group, _ in counts})
    return {g: Share(counts[g, True], counts[g, True] + counts[g, False]) for g in groups}
