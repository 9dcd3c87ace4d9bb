"""Intervals and tests against published figures, and against what they must be."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedc.assignment import best_pairs
from edgedc.bench.paired import adjusted, compare_systems
from edgedc.bench.quality import wilson_interval
from edgedc.bench.statistics import (
    Estimate,
    bootstrap_mean,
    compare,
    half_of,
    holm,
    mcnemar,
    newcombe_paired,
    paired_bootstrap,
)


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(6, 0) == pytest.approx(2 / 2**6)
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(3000, 2900) == pytest.approx(0.1974, abs=0.001)  # large counts: the normal's 0.1974, corrected


def test_the_interval_of_paired_shares_is_newcombes() -> None:
    # Newcombe 1998 (paired), table II, method 10, for a, b, c, d = 36, 12, 2, 0: 0.0569 to 0.3404, first minus second
    low, high = newcombe_paired(36, 12, 2, 50)
    assert (-high, -low) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_the_interval_of_paired_shares_that_go_together_is_corrected_for_continuity() -> None:
    # 32 and 22 of 50 are right, 20 of them with both: phi is (20 x 16 - 12 x 2 - 50 / 2) / sqrt(32 x 18 x 22 x 28)
    phi = 271 / math.sqrt(32 * 18 * 22 * 28)
    (low1, high1), (low2, high2) = wilson_interval(32, 50), wilson_interval(22, 50)
    down, up = (0.44 - low2, high1 - 0.64), (high2 - 0.44, 0.64 - low1)
    low, high = (math.sqrt(a * a - 2 * phi * a * b + b * b) for a, b in (down, up))
    assert newcombe_paired(20, 12, 2, 50) == pytest.approx((-0.2 - low, -0.2 + high))
    # a correlation that is less than its correction counts as none
    assert newcombe_paired(13, 12, 12, 50) == pytest.approx(newcombe_independent(25, 25, 50))


def newcombe_independent(first: int, second: int, n: int) -> tuple[float, float]:
    (low1, high1), (low2, high2) = wilson_interval(first, n), wilson_interval(second, n)
    gap = (second - first) / n
    return gap - math.hypot(second / n - low2, high1 - first / n), gap + math.hypot(
        high2 - second / n, first / n - low1
    )


def test_paired_shares_are_compared_by_mcnemar() -> None:
    first = [1] * 30 + [0] * 20
    second = [1] * 28 + [0] * 2 + [1] * 12 + [0] * 8
    made = compare(first, second)
    assert (made.value, made.n, made.test) == (0.2, 50, "McNemar, exact")
    assert made.p == pytest.approx(mcnemar(12, 2))
    assert made.interval is not None
    assert made.interval[0] < 0.2 < made.interval[1]


def test_systems_that_agree_everywhere_get_no_p() -> None:
    made = compare([1, 0, 1], [1, 0, 1])
    assert (made.value, made.p) == (0.0, None)
    assert "no question" in made.test


def test_a_real_gain_in_f1_is_found_and_an_imagined_one_is_not() -> None:
    rng = random.Random(1)
    first = [rng.random() for _ in range(80)]
    better = paired_bootstrap(first, [one + 0.1 + rng.uniform(-0.1, 0.1) for one in first])
    assert better.p is not None
    assert 0 < better.p < 0.001
    assert better.interval is not None
    assert better.interval[0] > 0.05
    same = paired_bootstrap(first, [one + rng.uniform(-0.1, 0.1) for one in first])
    assert same.p is not None
    assert same.p > 0.05
    assert same.interval is not None
    assert same.interval[0] < 0 < same.interval[1]


def test_equal_gains_have_the_p_of_all_their_signs() -> None:
    """Ten are all gains, or all losses, in 2 of 1,024 ways; nine are too few for a test."""
    made = paired_bootstrap([0.25] * 10, [0.75] * 10)
    assert made.p == pytest.approx(2 / 1024, abs=0.0015)
    assert paired_bootstrap([0.25] * 9, [0.75] * 9).p is None


def test_few_questions_get_a_difference_and_nothing_else() -> None:
    made = paired_bootstrap([0.1, 0.5], [0.4, 0.5])
    assert (made.value, made.interval, made.p) == (pytest.approx(0.15), None, None)
    assert "fewer than" in made.test
    with pytest.raises(ValueError, match="not pairs"):
        compare([1], [1, 0])
    with pytest.raises(ValueError, match="not pairs"):
        compare([], [])


def test_a_test_of_nothing_finds_something_one_time_in_twenty() -> None:
    """Under no difference p is below 0.05 about that often, so it means what it says."""
    found = 0
    for seed in range(200):
        rng = random.Random(seed)
        first = [float(rng.random() < 0.6) for _ in range(120)]
        second = [float(rng.random() < 0.6) for _ in range(120)]
        p = compare(first, second).p
        found += p is not None and p < 0.05
    assert 1 <= found <= 18  # exact tests err on the careful side


def test_the_bootstrap_interval_covers_the_mean() -> None:
    covered = 0
    for seed in range(60):
        rng = random.Random(seed)
        interval = bootstrap_mean([rng.random() for _ in range(60)]).interval
        assert interval is not None
        covered += interval[0] <= 0.5 <= interval[1]
    assert covered >= 52
    assert bootstrap_mean([0.0] * 40) == Estimate(0.0, None)
    assert bootstrap_mean([0.3, 0.7]) == Estimate(0.5, None)  # two values say nothing of their spread
    assert bootstrap_mean([0.3, 0.7, 0.5] * 3).interval is None
    assert bootstrap_mean([0.3, 0.7] * 5).interval is not None


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_a_half_is_judged_by_the_hypergeometric() -> None:
    # 4 of 8 are right; 4 drawn are all right in 1 of 70 ways
    assert half_of(4, 4, 4, 8) == half_of(0, 4, 4, 8) == pytest.approx(2 / 70)
    assert half_of(2, 4, 4, 8) == 1.0
    assert half_of(4, 4, 3, 8) == 0.0  # more than there are
    assert 0.05 < half_of(455, 660, 900, 1319) <= 1.0


@given(
    st.integers(1, 5).flatmap(
        lambda columns: st.lists(
            st.lists(st.integers(0, 9), min_size=columns, max_size=columns), min_size=1, max_size=5
        )
    )
)
def test_pairs_have_the_largest_sum(scores: list[list[int]]) -> None:
    from itertools import permutations

    pairs = best_pairs(scores)
    rows, columns = len(scores), len(scores[0])
    assert len(pairs) == min(rows, columns)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    if rows <= columns:
        best = max(sum(scores[k][p[k]] for k in range(rows)) for p in permutations(range(columns), rows))
    else:
        best = max(sum(scores[p[k]][k] for k in range(columns)) for p in permutations(range(rows), columns))
    assert sum(scores[row][column] for row, column in pairs) == best


def test_nothing_has_no_pairs() -> None:
    assert best_pairs([]) == []
    assert best_pairs([[], []]) == []


def test_only_questions_that_both_answered_are_compared() -> None:
    rows = {"a": [{"grade": 1.0}, {}, {"grade": 0.0}], "b": [{}, {"grade": 1.0}, {"grade": 1.0}], "none": [{}, {}, {}]}
    (made,) = compare_systems("gsm8k", "accuracy", rows)
    assert (made.first, made.second, made.difference.n, made.difference.value) == ("a", "b", 1, 1.0)


def test_all_comparisons_are_adjusted_together() -> None:
    right = {"a": [1.0] * 40, "b": [0.0] * 10 + [1.0] * 30, "c": [1.0] * 40}
    rows = {name: [{"grade": grade} for grade in grades] for name, grades in right.items()}
    rows["b"][0] = {"grade": None}  # it failed: neither's answer to this question counts
    b, c = adjusted(compare_systems("t", "accuracy", rows))
    assert (b.first, b.second, b.difference.n, c.p_holm) == ("a", "b", 39, None)
    assert b.p_holm == b.difference.p == pytest.approx(2 / 2**9)  # the only test that was made
