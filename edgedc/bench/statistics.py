"""Intervals and tests, each with the source of its formula. All of them are exact or seeded, so two runs agree."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgedc.bench.quality import wilson_interval

RESAMPLES = 2000
PAIRED_RESAMPLES = 10_000

# with fewer questions a bootstrap interval is too narrow to be honest, and a test finds nothing
NEEDS = 10


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval.

    None below NEEDS questions, and where drawing them anew changes nothing: 0 of 40 is no proof of 0.
    """

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """Of two systems on the same questions: second minus first, with its 95 % interval.

    `p` is two-sided; None where a test would mean nothing, and `test` then says why.
    """

    value: float
    interval: tuple[float, float] | None
    p: float | None
    test: str
    n: int


def bootstrap(ratios: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> dict[str, Estimate | None]:
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


def bootstrap_mean(values: Sequence[float]) -> Estimate:
    """The mean with its percentile interval. Raises ValueError for no values."""
    if not values:
        raise ValueError("no values to take the mean of")
    estimate = bootstrap({"mean": (values, [1] * len(values))})["mean"]
    assert estimate is not None
    return estimate


def compare(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Paired: entry k of either is the same question. McNemar's exact test for shares, else a paired bootstrap.

    Raises ValueError when they are not equally many, or none.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} values are not pairs")
    if all(value in (0, 1) for value in (*first, *second)):
        gained = sum(b > a for a, b in zip(first, second, strict=True))
        lost = sum(a > b for a, b in zip(first, second, strict=True))
        n = len(first)
        p = mcnemar(gained, lost)
        interval = newcombe_paired(sum(1 for a, b in zip(first, second, strict=True) if a and b), lost, gained, n)
        if gained + lost == 0:
            return Difference(0.0, interval, None, "no question on which only one of the two is right", n)
        return Difference((gained - lost) / n, interval, p, "McNemar, exact", n)
    return paired_bootstrap(first, second)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test (1947): a binomial test of the discordant pairs. 1 where there are none."""
    n = gained + lost
    ways = tail = 1
    for k in range(min(gained, lost)):
        ways = ways * (n - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / (1 << n))


def newcombe_paired(both: int, only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """95 % interval of the difference of two paired shares, second minus first: Newcombe 1998b, method 10."""
    neither = n - both - only_first - only_second
    first, second = (both + only_first) / n, (both + only_second) / n
    low1, high1 = wilson_interval(both + only_first, n)
    low2, high2 = wilson_interval(both + only_second, n)
    product = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    cross = float(both * neither - only_first * only_second)
    if cross > 0:  # his correction for continuity
        cross = max(cross - n / 2, 0.0)
    phi = cross / math.sqrt(product) if product else 0.0
    down = (second - low2) ** 2 - 2 * phi * (second - low2) * (high1 - first) + (high1 - first) ** 2
    up = (high2 - second) ** 2 - 2 * phi * (high2 - second) * (first - low1) + (first - low1) ** 2
    middle = second - first
    return middle - math.sqrt(max(down, 0.0)), middle + math.sqrt(max(up, 0.0))


def paired_bootstrap(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The mean difference, its percentile interval, and a sign-flip permutation test (p of Phipson and Smyth 2010).

    The interval and p are None below NEEDS questions.
    """
    gaps = [b - a for a, b in zip(first, second, strict=True)]
    n, mean = len(gaps), math.fsum(gaps) / len(gaps)
    if n < NEEDS:
        return Difference(mean, None, None, f"fewer than {NEEDS} questions", n)
    rng = random.Random(0)
    means = sorted(sum(rng.choices(gaps, k=n)) / n for _ in range(RESAMPLES))
    edge = round(0.025 * (RESAMPLES - 1))
    interval = (means[edge], means[-1 - edge])
    moved = [abs(gap) for gap in gaps if gap]
    if not moved:
        return Difference(0.0, interval, None, "the two are equal on every question", n)
    reached = 0
    for _ in range(PAIRED_RESAMPLES):
        signs = rng.getrandbits(len(moved))
        total = sum([gap if signs >> k & 1 else -gap for k, gap in enumerate(moved)])
        reached += abs(total) >= n * abs(mean) - 1e-12
    p = (reached + 1) / (PAIRED_RESAMPLES + 1)
    return Difference(mean, interval, p, "sign-flip permutation of the paired differences", n)


def holm(ps: Sequence[float]) -> list[float]:
    """The p-values of several tests, adjusted so that all of them hold together (Holm 1979)."""
    order = sorted(range(len(ps)), key=lambda k: ps[k])
    adjusted, running = [0.0] * len(ps), 0.0
    for rank, k in enumerate(order):
        running = max(running, min(1.0, (len(ps) - rank) * ps[k]))
        adjusted[k] = running
    return adjusted


def half_of(hits: int, n: int, all_hits: int, all_n: int) -> float:
    """Two-sided p that `n` questions drawn at random from `all_n`, of which `all_hits` are right, have `hits` right.

    The hypergeometric distribution; twice the smaller tail. 0 where it is impossible.
    """
    least, most = max(0, n - (all_n - all_hits)), min(n, all_hits)
    if not least <= hits <= most:
        return 0.0
    ways = [math.comb(all_hits, k) * math.comb(all_n - all_hits, n - k) for k in range(least, most + 1)]
    total = sum(ways)
    below, above = sum(ways[: hits - least + 1]), sum(ways[hits - least :])
    return min(1.0, 2 * min(below, above) / total)


def _estimate(upper: Sequence[float], lower: Sequence[float], draws: list[float]) -> Estimate | None:
    if not sum(lower):
        return None
    value = sum(upper) / sum(lower)
    if len(lower) < NEEDS:
        return Estimate(value, None)
    draws = sorted(draws)
    edge = round(0.025 * (len(draws) - 1))
    low, high = draws[edge], draws[-1 - edge]
    return Estimate(value, (low, high) if low < high else None)
