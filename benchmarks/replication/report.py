"""The tables, as Markdown, and the same figures as JSON. What solver or teacher has a part in says SIMULATED."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from edgedc.files import Row

from .answers import Cells, Grid
from .claims import LEAST, MARGIN, Judged
from .intervals import Draws, Estimate, estimate
from .plan import IN_WORDS, SIMULATED, SPLITS, Size, Split
from .solver import Skill

# Other solvers for the same decompositions: a verdict that changes with them is the solver's more than the students'.
OTHERS: dict[str, Skill] = {
    "falls less": replace(Skill(), falls=0.75),
    "falls more": replace(Skill(), falls=0.25),
    "never misled": replace(Skill(), misled=0.0),
    "often misled": replace(Skill(), misled=0.75),
    "thinks well": replace(Skill(), overlooked=0.1),
    "reads kindly": replace(Skill(), near=0.75),
}


@dataclass(frozen=True)
class Outcome:
    """`others`: the claims judged again with each of OTHERS."""

    size: Size
    cells: Cells
    draws: Draws
    judged: Sequence[Judged]
    others: Mapping[str, Sequence[Judged]]


def as_json(outcome: Outcome) -> Row:
    return {
        "simulated": SIMULATED,
        "size": asdict(outcome.size),
        "solver": asdict(Skill()),
        "systems": [_system(outcome, name, split) for name, split in outcome.cells],
        "claims": [_claim(one) for one in outcome.judged],
        "other_solvers": {
            name: {"solver": asdict(OTHERS[name]), "verdicts": {one.claim.name: _found(one) for one in judged}}
            for name, judged in outcome.others.items()
        },
    }


def as_text(outcome: Outcome) -> str:
    size = outcome.size
    over = f"{size.seeds} seeds and {size.questions} questions" if size.seeds > 1 else f"{size.questions} questions"
    head = (
        f"{SIMULATED}. 95 % bootstrap intervals over {over}. Differences are in percentage points. `more` holds where "
        f"the interval is above 0, and does not where it is below {LEAST:g}; `no less` holds where it is above "
        f"-{MARGIN:g} (or what the claim names), and does not where it is below that."
    )
    blocks = [head, "### Claims (SIMULATED solver and teacher)", _markdown(_claims(outcome))]
    blocks += ["### Right answers (SIMULATED solver and teacher)", _markdown(_systems(outcome))]
    blocks += ["### Verdicts with other SIMULATED solvers", _markdown(_others(outcome))] if outcome.others else []
    return "\n\n".join(blocks) + "\n"


def _claims(outcome: Outcome) -> Iterator[Sequence[str]]:
    yield "claim", "kind", "published", "here, second minus first", "p (Holm)", "verdict", "so by construction"
    for one in outcome.judged:
        p = "-" if one.p_holm is None else "<0.001" if one.p_holm < 0.001 else f"{one.p_holm:.3f}"
        claim = one.claim
        found = f"{_points(one.estimate)}"
        yield claim.says, claim.kind, claim.published, found, p, f"**{one.verdict}**", claim.built_in or "-"


def _systems(outcome: Outcome) -> Iterator[Sequence[str]]:
    yield (
        "decomposer (and solver)",
        *(f"right, {IN_WORDS[split]}" for split in SPLITS),
        *(f"exactly decomposed, {IN_WORDS[split]}" for split in SPLITS),
        "solver's tokens a question, in-domain",
    )
    for name in dict.fromkeys(name for name, _ in outcome.cells):
        found = {split: _system(outcome, name, split) for split in SPLITS if (name, split) in outcome.cells}
        yield (
            name,
            *(_share(found.get(split, {}).get("right")) for split in SPLITS),
            *(_share(found.get(split, {}).get("exact")) for split in SPLITS),
            f"{found['test']['tokens']:.0f}",
        )


def _others(outcome: Outcome) -> Iterator[Sequence[str]]:
    names = list(outcome.others)
    yield "claim", "as above", *names
    for k, one in enumerate(outcome.judged):
        verdicts = [outcome.others[name][k] for name in names]
        yield one.claim.says, _short(one), *(_short(other) for other in verdicts)


def _short(one: Judged) -> str:
    value = one.estimate.value
    return f"{one.verdict} ({value:+.1f})" if math.isfinite(value) else one.verdict


def _system(outcome: Outcome, name: str, split: Split) -> Row:
    cell = outcome.cells[name, split]

    def share(grid: Grid | None) -> Row | None:
        if grid is None:
            return None
        found = estimate(lambda mean: mean(name, split), {(name, split): grid}, outcome.draws)
        return {"share": found.value, "interval_95": list(found.interval), "by_seed": grid.mean(1).tolist()}

    return {
        "system": name,
        "split": split,
        "right": share(cell.right),
        "exact": share(cell.exact),
        "tokens": float(cell.tokens.mean()),
    }


def _claim(one: Judged) -> Row:
    claim = one.claim
    about = {"name": claim.name, "says": claim.says, "kind": claim.kind, "published": claim.published}
    return about | {"built_in": claim.built_in, "p": one.p, "p_holm": one.p_holm} | _found(one)


def _found(one: Judged) -> Row:
    value, *ends = (
        number if math.isfinite(number) else None for number in (one.estimate.value, *one.estimate.interval)
    )
    return {"points": value, "interval_95": ends if None not in ends else None, "verdict": one.verdict}


def _points(found: Estimate) -> str:
    low, high = found.interval
    if not math.isfinite(high - low):
        return "cannot be told: a ratio to almost nothing"
    return f"{found.value:+.1f} ({low:+.1f} to {high:+.1f})"


def _share(found: Row | None) -> str:
    if found is None:
        return "-"
    low, high = found["interval_95"]
    return f"{100 * found['share']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _markdown(rows: Iterator[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
