"""Percentiles with bootstrap intervals, and only those that the number of values supports."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from edgedc.bench.statistics import NEEDS, Estimate

P90_NEEDS = 20
P99_NEEDS = 100


@dataclass(frozen=True)
class Percentiles:
    """None for what so few values do not support: p90 needs P90_NEEDS of them, p99 P99_NEEDS, an interval NEEDS."""

    n: int
    p50: Estimate | None = None
    p90: Estimate | None = None
    p99: Estimate | None = None


def percentiles(values: Sequence[float]) -> Percentiles:
    ordered, n = sorted(values), len(values)
    return Percentiles(
        n,
        p50=_percentile(ordered, 50) if n else None,
        p90=_percentile(ordered, 90) if n >= P90_NEEDS else None,
        p99=_percentile(ordered, 99) if n >= P99_NEEDS else None,
    )


def _percentile(ordered: Sequence[float], percent: int) -> Estimate:
    n = len(ordered)
    if n == 1:
        return Estimate(ordered[0], None)
    value = statistics.quantiles(ordered, n=100, method="inclusive")[percent - 1]
    if n < NEEDS:
        return Estimate(value, None)
    place = (n - 1) * percent / 100
    low = ordered[_bound(n, math.floor(place) + 1, 0.025) - 1]
    high = ordered[_bound(n, math.ceil(place) + 1, 0.975) - 1]
    return Estimate(value, (low, high))


def _bound(n: int, rank: int, share: float) -> int:
    """The rank that is reached by this share of all bootstrap samples' values of `rank`, both from 1.

    Exact, where drawing samples would only come near it: the value of `rank` in a sample is at most the j-th of all
    when at least `rank` of the n draws are, each with chance j / n (Maritz and Jarrett 1978).
    """
    low, high = 1, n
    while low < high:
        middle = (low + high) // 2
        if _at_least(n, rank, middle / n) >= share:
            high = middle
        else:
            low = middle + 1
    return low


def _at_least(n: int, hits: int, chance: float) -> float:
    """That a binomial variable reaches `hits`."""
    yes, no, ways = math.log(chance), math.log1p(-chance), _log_ways(n)
    return math.fsum(math.exp(ways[k] + k * yes + (n - k) * no) for k in range(hits, n + 1))


@cache
def _log_ways(n: int) -> tuple[float, ...]:
    whole = math.lgamma(n + 1)
    return tuple(whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1))
