"""What the paper claims, what was measured of it here, and a verdict that follows from the interval alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgedc.bench.published import find_published
from edgedc.bench.statistics import holm, paired_bootstrap

from .answers import INTERACTIVE, STATIC, Cells
from .intervals import Draws, Estimate, Figure, Mean, Values, estimate
from .plan import QUANTISED, Split

Kind = Literal["more", "no less"]
Verdict = Literal["holds", "does not hold", "not settled"]

# Percentage points, set before anything was run. An advantage below LEAST is none that anybody would pay for (the
# smallest that the paper makes something of is 0.8). What is at most MARGIN worse counts as as good: the paper's
# students, which it calls as good as their teacher, are up to 2.4 worse, and in a foreign domain up to 4.7.
LEAST = 1.0
MARGIN = 3.0
FAR_MARGIN = 5.0


@dataclass(frozen=True)
class Claim:
    """`figure` is in percentage points, second minus first; `pair` are the two systems and their split, where it is a
    plain difference. `built_in`: what of the outcome is so by construction of what is simulated; "" where nothing is.
    """

    name: str
    says: str
    kind: Kind
    figure: Figure
    published: str
    built_in: str = ""
    margin: float = MARGIN
    pair: tuple[str, str, Split] | None = None


@dataclass(frozen=True)
class Judged:
    """`p` is of a paired test over the questions (means over the seeds), `p_holm` adjusted for all claims."""

    claim: Claim
    estimate: Estimate
    verdict: Verdict
    p: float | None = None
    p_holm: float | None = None


def verdict(kind: Kind, interval: tuple[float, float], margin: float = MARGIN) -> Verdict:
    """`more` holds where the whole interval is above 0, and does not where it is below LEAST; `no less` holds where
    the whole interval is above -margin, and does not where it is below that. Else nothing is settled."""
    low, high = interval
    floor, ceiling = (0.0, LEAST) if kind == "more" else (-margin, -margin)
    if low > floor:
        return "holds"
    return "does not hold" if high < ceiling else "not settled"


def judge(claims: Sequence[Claim], cells: Cells, draws: Draws, *, tested: bool = True) -> list[Judged]:
    """Without `tested` there are no p-values, which take seconds each. Raises KeyError for a cell that is missing."""
    rights = {key: cell.right for key, cell in cells.items()}
    tokens = {key: cell.tokens for key, cell in cells.items()}
    made = []
    for claim in claims:
        found = estimate(claim.figure, tokens if claim.name == "tokens" else rights, draws)
        p = None
        if tested and claim.pair:
            first, second, split = claim.pair
            one, other = (rights[name, split].mean(0).tolist() for name in (first, second))
            p = paired_bootstrap(one, other).p
        made.append(Judged(claim, found, verdict(claim.kind, found.interval, claim.margin), p))
    with_p = [one for one in made if one.p is not None]
    adjusted = dict(zip((one.claim.name for one in with_p), holm([one.p or 0.0 for one in with_p]), strict=True))
    return [Judged(o.claim, o.estimate, o.verdict, o.p, adjusted.get(o.claim.name)) for o in made]


def _difference(
    name: str,
    says: str,
    what: tuple[str, Kind, str],
    published: str,
    split: Split = "test",
    built_in: str = "",
    margin: float = MARGIN,
) -> Claim:
    """`what` is read from behind: (first, "more", second) says that the second has more than the first."""
    first, kind, second = what

    def figure(mean: Mean) -> Values:
        return 100 * (mean(second, split) - mean(first, split))

    return Claim(name, says, kind, figure, published, built_in, margin, (first, second, split))


def _dearer(mean: Mean) -> Values:
    static, interactive = (mean(f"teacher{mode}", "test") for mode in (STATIC, INTERACTIVE))
    return 100 * (interactive / static - 1)


def _keeps(decomposer: str, solver: str) -> Figure:
    """How much more of its in-domain accuracy a student keeps elsewhere."""

    def figure(mean: Mean) -> Values:
        kept = [mean(name, "heldout") / mean(name, "test") for name in (decomposer, solver)]
        return 100 * (kept[0] - kept[1])

    return figure


def gaps(first: tuple[str, str], second: tuple[str, str]) -> str:
    """The published figures of two pairs of decomposer and solver, second minus first, in points."""
    told = []
    for task in ("gsm8k", "drop", "bamboogle"):
        values = [_published(*pair, task) for pair in (first, second)]
        told.append(f"{values[1] - values[0]:+.1f}")
    return "GSM8K {}, DROP {}, Bamboogle {}".format(*told)


def _published(decomposer: str, solver: str, task: str) -> float:
    mode = "single-stage" if decomposer == "none" else "static"
    return find_published(decomposer, solver, task, mode, "own", "")[0].value


NOT_PUBLISHED = "not published"
_BIG = "GPT-3.5"
_SIM = "the solver is made to be better at one step than at several"

_PLAIN = (
    _difference(
        "two-stage",
        "two-stage beats single-stage (teacher's decompositions)",
        ("single-stage", "more", "teacher"),
        gaps(("none", _BIG), (_BIG, _BIG)),
        built_in=f"the sign: {_SIM}; not that it outweighs the teacher's errors",
    ),
    _difference(
        "two-stage over CoT",
        "two-stage beats the solver's own chain of thought",
        ("cot", "more", "teacher"),
        NOT_PUBLISHED,
        built_in="largely: how often the solver overlooks a step of its own is a setting",
    ),
    _difference(
        "S_D-T as good",
        "S_D-T is as good a decomposer as its teacher",
        ("teacher", "no less", "S_D-T"),
        gaps((_BIG, _BIG), ("S_D-T", _BIG)),
        built_in="that slips cannot be learnt: they fall by lot",
    ),
    _difference(
        "S_D-R as good",
        "S_D-R is as good a decomposer as its teacher",
        ("teacher", "no less", "S_D-R"),
        gaps((_BIG, _BIG), ("S_D-R", _BIG)),
        built_in="as above",
    ),
    _difference(
        "distilling",
        "distilling beats the small model as it was (S_D-R against the base)",
        ("base", "more", "S_D-R"),
        gaps(("Vicuna-13B", _BIG), ("S_D-R", _BIG)),
    ),
    _difference(
        "screening",
        "S_D-R beats S_D-T, with a teacher that slips",
        ("S_D-T", "more", "S_D-R"),
        gaps(("S_D-T", _BIG), ("S_D-R", _BIG)),
    ),
    _difference(
        "screening habits",
        "S_D-R beats S_D-T, with a teacher of bad habits",
        ("S_D-T, habits", "more", "S_D-R, habits"),
        gaps(("S_D-T", _BIG), ("S_D-R", _BIG)),
    ),
    _difference(
        "decomposer over S_E-T",
        "distil the decomposer, not the solver: S_D-R / solver beats teacher / S_E-T",
        ("teacher / S_E-T", "more", "S_D-R"),
        gaps((_BIG, "S_E-T"), ("S_D-R", _BIG)),
        built_in="in part: the student that answers is real and tiny, the other pair's solver is simulated",
    ),
    _difference(
        "decomposer over S_E-A",
        "the same against S_E-A",
        ("teacher / S_E-A", "more", "S_D-R"),
        gaps((_BIG, "S_E-A"), ("S_D-R", _BIG)),
        built_in="in part, as above",
    ),
    _difference(
        "S_E-A over S_E-T",
        "S_E-A beats S_E-T",
        ("teacher / S_E-T", "more", "teacher / S_E-A"),
        gaps((_BIG, "S_E-T"), (_BIG, "S_E-A")),
    ),
    _difference(
        "transfer",
        "in held-out domains S_D-R still beats single-stage",
        ("single-stage", "more", "S_D-R"),
        "GSM8K to DROP +4.5, DROP to GSM8K +42.8",
        split="heldout",
    ),
    _difference(
        "transfer as good",
        f"in held-out domains S_D-R stays close to its teacher (within {FAR_MARGIN:g})",
        ("teacher", "no less", "S_D-R"),
        "GSM8K to DROP -4.7, DROP to GSM8K -2.0",
        split="heldout",
        margin=FAR_MARGIN,
    ),
)
_QUANTISED = tuple(
    _difference(f"{kind} as good", f"{kind} is as good as f16", ("S_D-R", "no less", f"S_D-R, {kind}"), NOT_PUBLISHED)
    for kind in QUANTISED[1:]
)

CLAIMS: tuple[Claim, ...] = (
    *_PLAIN,
    Claim(
        "transfer kept",
        "S_D-R / solver keeps more of its in-domain accuracy in held-out domains than teacher / S_E-T",
        "more",
        _keeps("S_D-R", "teacher / S_E-T"),
        "S_D-R keeps 88 % and 93 %; the distilled solver falls to 7.98 and 11.30",
        built_in="in part: single-stage answers are the solver's own, and no student can lose them all",
    ),
    _difference(
        "static as good",
        "static is as good as interactive",
        (f"teacher{INTERACTIVE}", "no less", f"teacher{STATIC}"),
        "GSM8K +2.2, Bamboogle +0.8",
        built_in="wholly: the simulated solver is as good at a step whichever way it is asked",
    ),
    Claim(
        "tokens",
        "interactive takes more of the solver's tokens than static (in percent)",
        "more",
        _dearer,
        "GSM8K +132 %, Bamboogle +296 %",
        built_in="no: tokens are those of the real prompts, estimated from their characters",
    ),
    *_QUANTISED,
)
