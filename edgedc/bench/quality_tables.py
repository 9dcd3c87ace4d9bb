"""The figures of an evaluation as a person reads them: decompositions, answers, and what really differs."""

from collections.abc import Sequence

from edgedc.bench.figures import Figures, Graded
from edgedc.bench.paired import Compared
from edgedc.bench.quality import Share
from edgedc.bench.statistics import Estimate
from edgedc.bench.table import Cell, table

_SHARES = (
    ("exactly right", "exact"),
    ("could be read", "parsed"),
    ("right whether to decompose", "status"),
    ("right number of subquestions", "count"),
)
# label, field of Decompositions, form
_MEASURES = (
    ("subquestions", "count", ".2f"),
    ("ROUGE-L F1", "rouge", ".3f"),
    ("known subquestions covered", "coverage", ".1%"),
    ("covered ones in order", "order", ".1%"),
    ("references to earlier ones", "references", ".1%"),
    ("numbers that are in the question", "copied", ".1%"),
    ("subquestions repeated", "repeated", ".1%"),
)


def decompositions(figures: Figures) -> str:
    """Against the known ones: shares with counts, then means; "" where none are known."""
    if figures.quality is None or figures.decompositions is None:
        return ""
    rows: list[list[Cell]] = []
    for label, name in _SHARES:
        share: Share = getattr(figures.quality, name)
        rows.append([label, str(share), f"{share.hits} of {share.n}"])
    for label, name, form in _MEASURES:
        estimate: Estimate | None = getattr(figures.decompositions, name)
        rows.append([label, shown(estimate, form), None])
    return table(["", "figure (95 % interval)", "questions"], rows)


def answers(figures: Sequence[Figures], *, paper: bool) -> str:
    """One line a system: how often the solver was right with it, and at what expense."""
    metrics = {one.graded.metric for one in figures if one.graded}
    metric = metrics.pop() if len(metrics) == 1 else "score"
    headers = ["task", "decomposer", "mode", "questions", "failed", f"{metric}\n(95 % interval)"]
    headers += ["published\nmatching", "difference"] if paper else []
    headers += ["tokens\nremote", "$ per 1,000\nquestions", "seconds\nmedian"]
    rows: list[list[Cell]] = []
    for one in figures:
        row: list[Cell] = [one.task, one.system, one.mode, one.questions, one.failed, graded(one.graded)]
        if paper:
            row += [percent(one.paper), gap(one.paper, one.graded)]
        per_1000 = None if one.usd is None or not one.answered else f"${1000 * one.usd / one.answered:,.4f}"
        rows.append([*row, one.remote_tokens, per_1000, one.seconds])
    return table(headers, rows)


def differences(compared: Sequence[Compared]) -> str:
    """One line a comparison, in points of a hundred."""
    cells: list[list[Cell]] = []
    for one in compared:
        made = one.difference
        between = f" ({100 * made.interval[0]:+.1f} to {100 * made.interval[1]:+.1f})" if made.interval else ""
        points = f"{100 * made.value:+.1f}{between}"
        who = f"{one.second} - {one.first}"
        cells.append([one.task, one.measure, who, points, made.n, _p(made.p), _p(one.p_holm), made.test])
    return table(["task", "measure", "compared", "points (95 % interval)", "n", "p", "p (Holm)", "test"], cells)


def notes(figures: Sequence[Figures]) -> list[str]:
    """What a reader must know before they believe a row."""
    said = []
    for one in figures:
        who = f"{one.task}, {one.system}"
        if one.failed:
            said.append(f"{who}: {one.failed} of {one.questions} failed, in no figure, the first: {one.first_error}")
        if one.empty:
            said.append(f"{who}: {one.empty} of {one.answered} replies of the solver were empty, and count as they are")
        said += [
            f"{who}: {count} of {one.answered} asked in mode {mode} instead of {one.mode}"
            for mode, count in one.modes.items()
            if mode != one.mode
        ]
    if any(one.simulated for one in figures):
        said.append("The solver is SIMULATED: what it scores is an assumption.")
    return said


def graded(one: Graded | None) -> str | None:
    return None if one is None else shown(Estimate(one.value, one.interval), ".1%")


def percent(one: Graded | None) -> str | None:
    return None if one is None else f"{one.value:.1%}"


def gap(one: Graded | None, other: Graded | None) -> str | None:
    return None if one is None or other is None else f"{100 * (one.value - other.value):+.1f}"


def shown(estimate: Estimate | None, form: str) -> str | None:
    if estimate is None:
        return None
    if estimate.interval is None:
        return format(estimate.value, form)
    low, high = estimate.interval
    return f"{estimate.value:{form}} ({low:{form}} to {high:{form}})"


def _p(value: float | None) -> str | None:
    if value is None:
        return None
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"
