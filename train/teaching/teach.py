"""Collect demonstrations: a teacher's decompositions of a task's questions, one JSONL row a draw."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from edgedc.errors import EdgedcError, InputError
from edgedc.files import Row
from edgedc.flags import flag
from edgedc.prompts import MAX_SUBQUESTIONS, MAX_TOKENS_DECOMPOSE
from edgedc.tasks import Example

from ..calls.engines import Failure, run
from ..calls.projection import Projection, cost_of, project
from ..calls.remote import CallSettings
from ..calls.rows import Rows
from ..calls.spending import Spending
from .draws import Draw, draw_of
from .teachers import GoldTeacher, RemoteTeacher, Teacher

_NO_ACCIDENT = 4  # draws that say the same as one before
_WATCHED = 1000  # questions: enough to tell, however many there are
SYNC_S = 1.0  # of rows that cost nothing, a loss of power may take so many seconds


@dataclass(frozen=True)
class TeachSettings(CallSettings):
    teacher: str = flag(
        "gold",
        "Teacher: a bundle, a model folder, a GGUF file or a name in  edgedc models; else a model's name at its "
        "server; or gold: the task's own decompositions.",
    )
    teacher_url: str = flag("", "Its OpenAI-compatible server.  [EDGEDC_BASE_URL, OPENAI_BASE_URL, else OpenAI]")
    draws: int = flag(1, "Decompositions of each question.")
    temperature: float = flag(0.0, "Temperature of the draws; several of them need one above 0.")
    draw_seed: int = flag(0, "Seed of the first draw of each question; the next ones have the next seeds.")
    max_subquestions: int | None = flag(MAX_SUBQUESTIONS, "Cap that the teacher is given.")
    shots: int = flag(0, "Worked examples in the prompt: 0 or 1.")
    max_tokens: int = flag(MAX_TOKENS_DECOMPOSE, "Longest reply of the teacher, in tokens.")

    def __post_init__(self) -> None:
        super().__post_init__()
        cap, shots = self.max_subquestions, self.shots
        for name, wrong, must in (
            ("teacher", not self.teacher, "not be empty"),
            ("draws", self.draws < 1, "be at least 1"),
            ("temperature", not 0 <= self.temperature <= 2, "be from 0 to 2"),
            ("temperature", self.draws > 1 and not self.temperature, "be above 0, or all draws would be the same"),
            ("max-subquestions", cap is not None and cap < 1, "be at least 1, or none"),
            ("shots", shots not in (0, 1), "be 0 or 1"),
            ("max-subquestions", shots and cap is not None and cap < 2, "be at least 2: the worked example has two"),
            ("max-tokens", self.max_tokens < 1, "be at least 1"),
        ):
            if wrong:
                raise InputError(f"--{name} {getattr(self, name.replace('-', '_'))}: must {must}")


@dataclass(frozen=True)
class Progress:
    """`done` of `total` draws have rows, `failed` have none after their retries, the last for the reason `error`.

    `spent` is what the file has cost, in US dollars.
    """

    done: int
    total: int
    failed: int
    spent: float
    error: EdgedcError | None


class _Gist(NamedTuple):
    """What is counted of a row."""

    outcome: str
    unsupported: tuple[str, ...]
    simulated: bool
    uncounted: bool


class _Alike:
    """Whether each question has got the same reply in all its draws, where that is no accident."""

    def __init__(self) -> None:
        self._first: dict[str, int] = {}  # a question's first reply, as a hash
        self._again = self._otherwise = 0

    def see(self, row: Row) -> None:
        reply = hash(row["raw"])
        if row["id"] in self._first:
            same = self._first[row["id"]] == reply
            self._again, self._otherwise = self._again + same, self._otherwise + (not same)
        elif len(self._first) < _WATCHED:
            self._first[row["id"]] = reply

    def __bool__(self) -> bool:
        return self._again >= _NO_ACCIDENT and not self._otherwise


@dataclass
class Taught:
    """What the file holds of what was asked for: draws by outcome, and how many are missing because calls failed.

    `spent` is what the file has cost, and `lost` the part of it for calls that gave no row, at their worst; in US
    dollars. `error` is the last failure. `unsupported`: settings that the server did not take. `uncounted` replies came
    without the server's count of their tokens. `all_alike`: draws at a temperature came out the same.
    """

    outcomes: Counter[str]
    missing: int
    spent: float
    lost: float
    error: EdgedcError | None = None
    unsupported: set[str] = field(default_factory=set)
    simulated: bool = False
    uncounted: int = 0
    all_alike: bool = False

    def add(self, gist: _Gist) -> None:
        self.outcomes[gist.outcome] += 1
        self.missing -= 1
        self.unsupported.update(gist.unsupported)
        self.simulated = self.simulated or gist.simulated
        self.uncounted += gist.uncounted


def teach(
    examples: Iterable[Example],
    teacher: Teacher,
    out: Path,
    settings: TeachSettings,
    *,
    announce: Callable[[Projection], None],
    report: Callable[[Progress], None],
) -> Taught:
    """Append one row per draw that `out` does not have yet. `examples` is gone through several times.

    `announce` gets what is to come before anything is asked. Rows are written as the replies come, so that a kill loses
    what was in flight and nothing else. A call that fails after its retries is counted, and a rerun asks it again.
    Raises InputError, before anything is asked, for a file that holds other rows and for a question without a
    decomposition where those are to be taken, and whatever `engines.run` raises when there is no point in asking on:
    BudgetError, or the last of many failures.
    """

    alike = _Alike()

    def gist(row: Row) -> _Gist:
        alike.see(row)
        uncounted = row["usage"] is not None and row["usage"]["source"] == "estimate"
        return _Gist(row["outcome"], tuple(row["unsupported"]), row["simulated"], uncounted)

    sync_s = 0.0 if isinstance(teacher, RemoteTeacher) else SYNC_S
    with (
        Rows(out, "teach", gist, asked=teacher.name, price=teacher.price, sync_s=sync_s) as rows,
        Spending(out, rows.gists, rows.cost) as spending,
    ):
        taught = _ask(plan(examples, teacher, settings), teacher, settings, rows, spending, announce, report)
        taught.all_alike = settings.temperature > 0 and bool(alike)
        return taught


def _ask(
    plan: Callable[[], Iterator[Draw]],
    teacher: Teacher,
    settings: TeachSettings,
    rows: Rows[_Gist],
    spending: Spending,
    announce: Callable[[Projection], None],
    report: Callable[[Progress], None],
) -> Taught:
    missing: set[str] = set()
    found: set[str] = set()

    def first() -> Iterator[Draw]:
        for draw in plan():
            known = found if draw.key in rows.gists else missing
            if draw.key not in known:
                known.add(draw.key)
                if known is missing:
                    yield draw

    announce(project(first(), rows.replies, teacher, settings, spending.total))
    total = len(found) + len(missing)
    taught = Taught(Counter(), total, spending.total, spending.lost)
    for key in found:
        taught.add(rows.gists[key])

    def asked() -> Iterator[Draw]:
        for draw in plan() if missing else ():
            if draw.key in missing:
                missing.remove(draw.key)  # a question that comes twice is asked once
                spending.asking(draw.key, teacher.worst(draw))
                yield draw
            if not missing:
                return

    if isinstance(teacher, RemoteTeacher):
        teacher = replace(teacher, server=replace(teacher.server, spent=spending.total))
    concurrency = 1 if isinstance(teacher, GoldTeacher) else settings.concurrency
    failed = 0
    with closing(run(teacher, asked(), engine=settings.engine, concurrency=concurrency)) as results:
        for result in results:
            if isinstance(result, Failure):
                failed += 1
                spending.failed(result.item.key, result.error)
                taught.error = result.error
            else:
                rows.write(result)
                spending.answered(result["key"], cost_of(result, teacher.price))
                taught.add(rows.gists[result["key"]])
            taught.spent, taught.lost = spending.total, spending.lost
            report(Progress(total - taught.missing, total, failed, spending.total, taught.error))
    return taught


def plan(examples: Iterable[Example], teacher: Teacher, settings: TeachSettings) -> Callable[[], Iterator[Draw]]:
    """All draws, in order: a run that ends early has asked every question once before it asks one twice.

    They raise InputError for an empty question, and for one without the decomposition that is to be taken.
    """

    def draws() -> Iterator[Draw]:
        for number in range(settings.draws):
            seed = settings.draw_seed + number if isinstance(teacher, RemoteTeacher) else None
            for example in examples:
                if isinstance(teacher, GoldTeacher) and example.decomposition is None:
                    raise InputError(
                        f"question {example.id} has no decomposition of its own: name a model with --teacher"
                    )
                yield draw_of(example, teacher.identity, teacher.form, number, seed)

    return draws
