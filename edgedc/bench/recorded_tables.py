"""Recorded runs as a person reads them: against their publication, and what their measures say of a new decomposer."""

from collections.abc import Mapping, Sequence

from edgedc.bench import quality_tables as show
from edgedc.bench.calibration import LeftOut, correlations, leave_one_out, root_mean_square
from edgedc.bench.decompositions import Scored, summarise
from edgedc.bench.recorded import ALL_QUESTIONS, DECOMPOSERS, SOURCE, Recording, check
from edgedc.bench.table import Cell, table

Scores = Mapping[str, list[Scored]]
Right = Mapping[str, list[bool]]

WHY = (
    f"Published are figures over all {ALL_QUESTIONS:,} questions; here is a part, the same in every row, so that\n"
    "where its questions are easier all rows are higher. p: how likely a random choice of as many is to be this far\n"
    "off, or more, if the published figure holds; rest: what the other questions must then come to."
)
RULE = (
    "Right: the number behind the reply's first `Final answer:` is the gold one. A solver that does not stop goes on\n"
    "with problems of its own, so the last one is not it. --paper: any word of the reply is the gold number, as the\n"
    "released code of arXiv 2402.15000 matches."
)


def accuracies(recordings: Sequence[Recording]) -> str:
    rows: list[list[Cell]] = []
    for one in recordings:
        found, loose = check(one), sum(one.paper.values()) / len(one.paper)
        row: list[Cell] = [one.solver, one.name, one.share.n, str(one.share)]
        if found:
            rest = None if found.rest is None else f"{found.rest:.1%}"
            row += [f"{found.published:.1%}", f"{100 * found.difference:+.1f}", f"{found.p:.2f}", rest]
        else:
            row += [None] * 4
        rows.append([*row, f"{loose:.1%}"])
    headers = [
        "solver",
        "decomposer",
        "here",
        "accuracy (95 % interval)",
        "published",
        "points",
        "p",
        "rest",
        "--paper",
    ]
    return f"Recorded runs on GSM8K, recomputed; published: {SOURCE}\n{table(headers, rows)}"


def measures(scores: Scores) -> str:
    rows: list[list[Cell]] = []
    for name, one in ((name, summarise(made)) for name, made in in_order(scores)):
        cells: list[Cell] = [DECOMPOSERS.get(name, name), show.shown(one.rouge, ".3f"), show.shown(one.coverage, ".1%")]
        rows.append(
            [
                *cells,
                show.shown(one.order, ".1%"),
                f"{one.right_count.value:.1%}",
                show.shown(one.copied, ".1%"),
                show.shown(one.repeated, ".1%"),
            ]
        )
    headers = ["decomposer", "ROUGE-L", "covered", "in order", "right count", "copied numbers", "repeated"]
    return f"Their decompositions against the human ones\n{table(headers, rows)}"


def together(scores: Scores, rights: Mapping[str, Right]) -> str:
    found = {solver: correlations(scores_with(scores, right), right) for solver, right in rights.items()}
    rows: list[list[Cell]] = []
    for k, one in enumerate(next(iter(found.values()))):
        row: list[Cell] = [one.measure]
        for made in found.values():
            r, p = made[k].r, made[k].p
            row += [None if r is None else f"{r:+.3f}", None if p is None else f"{p:.3f}"]
        rows.append(row)
    headers = ["measure", *(part for solver in found for part in (f"r, {solver}", "p"))]
    said = (
        f"How a measure goes with the solver's accuracy over the {len(scores)} decomposers: Pearson's r, and the\n"
        "exact p of all orders. So few decomposers cannot show which of several measures is the one that counts."
    )
    return f"{said}\n{table(headers, rows)}"


def left_out(scores: Scores, rights: Mapping[str, Right]) -> str:
    rows: list[list[Cell]] = []
    errors = []
    for solver, right in rights.items():
        made = leave_one_out(scores_with(scores, right), right)
        for one in made:
            low, high = one.line.interval or (None, None)
            inside = None if low is None or high is None else "yes" if low <= one.accuracy <= high else "no"
            between = None if low is None else f"{low:.1%} to {high:.1%}"
            name = DECOMPOSERS.get(one.decomposer, one.decomposer)
            row: list[Cell] = [solver, name, f"{one.accuracy:.1%}", f"{one.line.value:.1%}", between, inside]
            rows.append([*row, f"{one.line.per_question:.1%}", f"{one.average:.1%}"])
        errors.append(f"{solver}: {errors_said(made)}")
    headers = ["solver", "left out", "accuracy", "estimate", "95 % interval", "holds", "per question", "average"]
    said = (
        "Each decomposer as if it were new, estimated from the others: by the line on mean ROUGE-L, by a logistic\n"
        "regression over single questions, and as the average of the others."
    )
    return "\n".join([said, table(headers, rows), "Errors, root mean square:", *errors])


def errors_said(made: Sequence[LeftOut]) -> str:
    line, single, average = (
        root_mean_square(errors)
        for errors in (
            [one.line.value - one.accuracy for one in made],
            [one.line.per_question - one.accuracy for one in made],
            [one.average - one.accuracy for one in made],
        )
    )
    return f"{100 * line:.1f} points by the line, {100 * single:.1f} per question, {100 * average:.1f} by the average."


def scores_with(scores: Scores, right: Right) -> dict[str, list[Scored]]:
    return {name: scores[name] for name in right}


def in_order(scores: Scores) -> list[tuple[str, list[Scored]]]:
    order = list(DECOMPOSERS)
    return sorted(scores.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order))
