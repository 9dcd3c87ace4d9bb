"""The figures of an evaluation's rows. Unknown is None, never 0."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgedc.bench.decompositions import Decompositions, Scored, score, summarise
from edgedc.bench.evaluation import Answering
from edgedc.bench.quality import Quality, Share, quality_of, score_decomposition
from edgedc.bench.statistics import bootstrap_mean
from edgedc.bench.systems import System
from edgedc.decomposer import decomposition_in
from edgedc.files import Row
from edgedc.tasks import Example, Task
from edgedc.usage import Usage


@dataclass(frozen=True)
class Graded:
    """Mean of a task's measure over `n` answered questions, Wilson's interval for shares, else the bootstrap's.

    The bootstrap's is None for fewer questions than it needs.
    """

    metric: str
    value: float
    interval: tuple[float, float] | None
    n: int


@dataclass(frozen=True)
class Figures:
    """Of one system on one task. None is unknown: nobody was asked, or nothing came back.

    `statuses` are the decompositions', `modes` what really happened. `tokens` and `remote_tokens` are means per
    question, `usd` is of the answered questions' remote calls at the prices given, None where one of them has no price;
    `booked` is what was really paid for this run's rows. `empty`: answered questions of which the solver said nothing.
    """

    system: str
    task: str
    mode: str
    questions: int
    failed: int
    first_error: str
    statuses: dict[str, int]
    modes: dict[str, int]
    quality: Quality | None
    decompositions: Decompositions | None
    graded: Graded | None
    paper: Graded | None
    seconds: float | None
    remote_tokens: float | None
    usd: float | None
    booked: float
    simulated: bool
    empty: int

    @property
    def answered(self) -> int:
        return self.questions - self.failed


def figures_of(
    system: System, task: Task, examples: Sequence[Example], rows: Sequence[Row], answering: Answering | None
) -> Figures:
    """All figures of one system's rows, which are those of the examples, in order."""
    done = [(example, row) for example, row in zip(examples, rows, strict=True) if not row["error"]]
    scored = scores_of(done)
    errors = [row["error"] for row in rows if row["error"]]
    calls = [call for _, row in done for call in row["calls"]]
    remote = [call for call in calls if call["where"] == "remote"]
    grades = [row["grade"] for _, row in done if row.get("grade") is not None]
    papers = [row["paper"] for _, row in done if row.get("paper") is not None]
    return Figures(
        system=system.name,
        task=task.name,
        mode=system.mode if answering else "",
        questions=len(rows),
        failed=len(errors),
        first_error=errors[0] if errors else "",
        statuses=dict(Counter(row["status"] for _, row in done if row["status"])),
        modes=dict(Counter(row["mode"] for _, row in done if row.get("mode"))),
        quality=quality_of(
            score_decomposition(decomposition_in(row), example.decomposition)
            for example, row in done
            if example.decomposition and row["status"]
        )
        if scored
        else None,
        decompositions=summarise(scored) if scored else None,
        graded=grade_of(task.metric, grades),
        paper=grade_of("published matching", papers),
        seconds=statistics.median(row["seconds"] for _, row in done)
        if done and answering and answering.timed
        else None,
        remote_tokens=sum(c["input_tokens"] + c["output_tokens"] for c in remote) / len(done) if remote else None,
        usd=_usd(system, remote, answering),
        booked=sum(call["booked"] or 0.0 for row in rows for call in row.get("calls", [])),
        simulated=any(row.get("simulated") for _, row in done),
        empty=sum(not row.get("text", "?").strip() for _, row in done),
    )


def scores_of(done: Sequence[tuple[Example, Row]]) -> list[Scored]:
    """Every decomposition against the known one, where both are there."""
    return [
        score(example.question, decomposition_in(row), example.decomposition)
        for example, row in done
        if example.decomposition and row["status"]
    ]


def grade_of(metric: str, grades: Sequence[float]) -> Graded | None:
    if not grades:
        return None
    if all(grade in (0, 1) for grade in grades):
        share = Share(round(sum(grades)), len(grades))
        return Graded(metric, share.value, share.interval, share.n)
    mean = bootstrap_mean(grades)
    return Graded(metric, mean.value, mean.interval, len(grades))


def _usd(system: System, remote: Sequence[dict[str, Any]], answering: Answering | None) -> float | None:
    if answering is None or answering.price is None:
        return None
    total = 0.0
    for call in remote:
        price = system.price if call["stage"] == "decompose" else answering.price
        if price is None:
            return None
        usage = Usage(call["input_tokens"], call["output_tokens"], call["cached_tokens"], call["source"])
        total += price.cost(usage)
    return total
