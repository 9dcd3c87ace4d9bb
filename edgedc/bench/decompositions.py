"""How good a decomposer's subquestions are against known ones, each figure with its 95 % interval.

Shares of questions have Wilson intervals. Means, and shares of subquestions or numbers, of which a question has
several, have percentile bootstrap intervals over questions (2,000 resamples with a fixed seed).
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from edgedc.bench.quality import Share, rouge_l, score_decomposition
from edgedc.decomposition import Decomposition

RESAMPLES = 2000

_NUMBER = re.compile(r"(?<![\w#.])\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?<![\w#.])\d+(?:\.\d+)?")
_IN_WORDS = {
    word: str(value)
    for value, word in enumerate(
        (
            *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
            *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
        ),
        start=1,
    )
}
_WORD = re.compile(rf"\b(?:{'|'.join(_IN_WORDS)})\b", re.IGNORECASE)


@dataclass(frozen=True)
class Scored:
    """One decomposition against the known one.

    `rouge`: ROUGE-L F1 of all subquestions as one text against all known ones as one text, in order: words without
    case and punctuation, no stemming; 0 for what could not be read. `numbers` are the numbers in its subquestions, in
    digits, `copied` those that occur in the question, in digits or words, or in a known subquestion: the others are
    made up. `repeated` subquestions say what an earlier one of the same decomposition says, but for case and
    punctuation.
    """

    parsed: bool
    exact: bool
    right_count: bool
    count: int
    rouge: float
    numbers: int
    copied: int
    repeated: int


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; None where there was nothing to count."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Decompositions:
    """The figures of a decomposer over `questions`. `count` is the mean number of subquestions."""

    questions: int
    parsed: Share
    exact: Share
    right_count: Share
    count: Estimate
    rouge: Estimate
    copied: Estimate | None
    repeated: Estimate | None


def score(question: str, made: Decomposition, known: Decomposition) -> Scored:
    match = score_decomposition(made, known)
    texts = made.texts
    allowed = set(_numbers(question, words=True)).union(*(_numbers(text, words=True) for text in known.texts))
    said = [number for text in texts for number in _numbers(text, words=False)]
    plain = [" ".join(re.findall(r"\w+", text.casefold())) for text in texts]
    return Scored(
        parsed=match.parsed,
        exact=match.exact,
        right_count=match.count,
        count=len(texts),
        rouge=rouge_l(" ".join(texts), " ".join(known.texts)) if match.parsed else 0.0,
        numbers=len(said),
        copied=sum(number in allowed for number in said),
        repeated=sum(text in plain[:place] for place, text in enumerate(plain)),
    )


def summarise(scores: Iterable[Scored]) -> Decompositions:
    """Raises ValueError when there are none."""
    scores = list(scores)
    n = len(scores)
    if not n:
        raise ValueError("no decompositions to score")
    ones = [1] * n
    counts = [one.count for one in scores]
    ratios = bootstrap(
        {
            "count": (counts, ones),
            "rouge": ([one.rouge for one in scores], ones),
            "copied": ([one.copied for one in scores], [one.numbers for one in scores]),
            "repeated": ([one.repeated for one in scores], counts),
        }
    )
    count, rouge = ratios["count"], ratios["rouge"]
    assert count is not None
    assert rouge is not None
    return Decompositions(
        questions=n,
        parsed=Share(sum(one.parsed for one in scores), n),
        exact=Share(sum(one.exact for one in scores), n),
        right_count=Share(sum(one.right_count for one in scores), n),
        count=count,
        rouge=rouge,
        copied=ratios["copied"],
        repeated=ratios["repeated"],
    )


def bootstrap(ratios: dict[str, tuple[Sequence[float], Sequence[float]]]) -> dict[str, Estimate | None]:
    """Sum over sum of each pair of columns, one entry a question, with its percentile interval over questions.

    The questions are drawn anew, with replacement, and all columns from the same ones. None where the lower sum is 0.
    """
    rng = random.Random(0)
    n = len(next(iter(ratios.values()))[0])
    draws: dict[str, list[float]] = {name: [] for name in ratios}
    for _ in range(RESAMPLES):
        chosen = rng.choices(range(n), k=n)
        for name, (upper, lower) in ratios.items():
            total = sum([lower[k] for k in chosen])
            if total:
                draws[name].append(sum([upper[k] for k in chosen]) / total)
    return {name: _estimate(upper, lower, draws[name]) for name, (upper, lower) in ratios.items()}


def _estimate(upper: Sequence[float], lower: Sequence[float], draws: list[float]) -> Estimate | None:
    if not sum(lower):
        return None
    draws = sorted(draws)
    edge = round(0.025 * (len(draws) - 1))
    return Estimate(sum(upper) / sum(lower), (draws[edge], draws[-1 - edge]))


def _numbers(text: str, *, words: bool) -> list[Fraction]:
    found = [Fraction(number.replace(",", "")) for number in _NUMBER.findall(text)]
    return found + [Fraction(_IN_WORDS[word.lower()]) for word in _WORD.findall(text)] if words else found
