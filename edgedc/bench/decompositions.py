"""How good a decomposer's subquestions are against known ones, each figure with its 95 % interval.

Shares of questions have Wilson intervals. Means, and shares of subquestions or numbers, of which a question has
several, have percentile bootstrap intervals over questions (2,000 resamples with a fixed seed).
"""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from edgedc.assignment import best_pairs
from edgedc.bench.quality import Share, rouge_l, score_decomposition
from edgedc.bench.statistics import Estimate, bootstrap
from edgedc.decomposition import Decomposition

# from this ROUGE-L on two subquestions count as the same one in other words
SAME = 0.5

_REFERENCE = re.compile(r"#(\d+)")
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
    punctuation. `covered` of the `known` subquestions have one of these, of its own, that says the same: ROUGE-L F1 of
    SAME or more, paired for the largest sum. `in_order` of the `pairs` of covered ones stand as the known ones do.
    `references` are the `#k`, `valid` those of an earlier subquestion.
    """

    parsed: bool
    exact: bool
    right_count: bool
    count: int
    rouge: float
    numbers: int
    copied: int
    repeated: int
    known: int
    covered: int
    pairs: int
    in_order: int
    references: int
    valid: int


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
    coverage: Estimate | None
    order: Estimate | None
    references: Estimate | None


def score(question: str, made: Decomposition, known: Decomposition) -> Scored:
    match = score_decomposition(made, known)
    texts = made.texts
    allowed = set(_numbers(question, words=True)).union(*(_numbers(text, words=True) for text in known.texts))
    said = [number for text in texts for number in _numbers(text, words=False)]
    plain = [" ".join(re.findall(r"\w+", text.casefold())) for text in texts]
    places = [place for _, place in _covered(texts, known.texts)]
    pairs = list(itertools.combinations(places, 2))
    references = [(place, int(k)) for place, text in enumerate(texts, start=1) for k in _REFERENCE.findall(text)]
    return Scored(
        parsed=match.parsed,
        exact=match.exact,
        right_count=match.count,
        count=len(texts),
        rouge=rouge_l(" ".join(texts), " ".join(known.texts)) if match.parsed else 0.0,
        numbers=len(said),
        copied=sum(number in allowed for number in said),
        repeated=sum(text in plain[:place] for place, text in enumerate(plain)),
        known=len(known.subquestions),
        covered=len(places),
        pairs=len(pairs),
        in_order=sum(first < second for first, second in pairs),
        references=len(references),
        valid=sum(0 < k < place for place, k in references),
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
            "coverage": ([one.covered for one in scores], [one.known for one in scores]),
            "order": ([one.in_order for one in scores], [one.pairs for one in scores]),
            "references": ([one.valid for one in scores], [one.references for one in scores]),
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
        coverage=ratios["coverage"],
        order=ratios["order"],
        references=ratios["references"],
    )


def _covered(made: list[str], known: list[str]) -> list[tuple[int, int]]:
    """(known, made) places of the subquestions that say the same, one to one."""
    scores = [[rouge_l(text, wanted) for text in made] for wanted in known]
    return [(row, column) for row, column in best_pairs(scores) if scores[row][column] >= SAME]


def _numbers(text: str, *, words: bool) -> list[Fraction]:
    found = [Fraction(number.replace(",", "")) for number in _NUMBER.findall(text)]
    return found + [Fraction(_IN_WORDS[word.lower()]) for word in _WORD.findall(text)] if words else found
