"""How often a decomposer says exactly what it should have said."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from edgedc.decomposition import Decomposition

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Match:
    """One decomposition against the known one.

    `exact`: same status and every subquestion's text equal, in order. `parsed`: its text could be read. `status`: it
    saw whether to decompose. `count`: as many subquestions, none being right where none are needed.
    """

    exact: bool
    parsed: bool
    status: bool
    count: bool


@dataclass(frozen=True)
class Share:
    """`hits` of `n`, with the 95 % Wilson interval of the share behind it."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.hits, self.n)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} ({low:.1%} to {high:.1%})"


@dataclass(frozen=True)
class Quality:
    """Shares over a set of questions; see Match for what each counts."""

    exact: Share
    parsed: Share
    status: Share
    count: Share

    @property
    def n(self) -> int:
        return self.exact.n


def score_decomposition(made: Decomposition, known: Decomposition) -> Match:
    """`unparsed` never matches: not in status, and not in count, although it has no subquestions either."""
    parsed = made.status != "unparsed"
    status = parsed and made.status == known.status
    return Match(
        exact=status and made.texts == known.texts,
        parsed=parsed,
        status=status,
        count=parsed and len(made.subquestions) == len(known.subquestions),
    )


def quality_of(matches: Iterable[Match]) -> Quality:
    """Raises ValueError when there are no matches: a share of nothing is not a number."""
    matches = list(matches)
    if not matches:
        raise ValueError("no decompositions to score")
    n = len(matches)
    return Quality(
        exact=Share(sum(m.exact for m in matches), n),
        parsed=Share(sum(m.parsed for m in matches), n),
        status=Share(sum(m.status for m in matches), n),
        count=Share(sum(m.count for m in matches), n),
    )


def rouge_l(made: str, known: str) -> float:
    """F1 of the longest common subsequence of words, without case and punctuation (ROUGE-L, Lin 2004); 1 if both have
    no words."""
    ours, theirs = (re.findall(r"\w+", text.casefold()) for text in (made, known))
    if not ours or not theirs:
        return float(ours == theirs)
    lengths = [0] * (len(theirs) + 1)  # of the subsequence common to our words so far and their first k
    for word in ours:
        diagonal = 0
        for k, other in enumerate(theirs, start=1):
            above = lengths[k]
            lengths[k] = diagonal + 1 if word == other else max(above, lengths[k - 1])
            diagonal = above
    return 2 * lengths[-1] / (len(ours) + len(theirs))


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927): sound at 0 and 1 and for few trials, where p +- z*se is not."""
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"no interval for {hits} of {n}")
    share, z2 = hits / n, Z_95 * Z_95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (0.0 if hits == 0 else middle - half, 1.0 if hits == n else middle + half)
