"""What a solver would make of a decomposer that it has never seen, from the decomposer's measures alone.

Recorded decomposers say how the solver's accuracy goes with the measures of their decompositions. The estimate is the
line of accuracy, in logits, on mean ROUGE-L over the decomposers, with the prediction interval of ordinary least
squares. One measure, and the one that they were published with: on a handful of points, choosing the best of many
would fit chance. Beside it stands a logistic regression over single questions, which has many more rows and knows no
more decomposers; `leave_one_out` says how far off each is on a decomposer that it was not fitted on.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgedc.bench.decompositions import Scored

# Student's t, 97.5 %, by degrees of freedom; from 8 on nobody will have measured more decomposers than that
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}

MEASURES: dict[str, Callable[[Sequence[Scored]], float]] = {
    "ROUGE-L": lambda scores: _mean([one.rouge for one in scores]),
    "coverage": lambda scores: _ratio(sum(one.covered for one in scores), sum(one.known for one in scores)),
    "order": lambda scores: _ratio(sum(one.in_order for one in scores), sum(one.pairs for one in scores)),
    "right count": lambda scores: _mean([float(one.right_count) for one in scores]),
    "copied numbers": lambda scores: _ratio(sum(one.copied for one in scores), sum(one.numbers for one in scores)),
    "not repeated": lambda scores: 1 - _ratio(sum(one.repeated for one in scores), sum(one.count for one in scores)),
}


@dataclass(frozen=True)
class Prediction:
    """An estimated accuracy. `outside`: the measure lies beyond all the recorded ones, so that it is extrapolated."""

    value: float
    interval: tuple[float, float] | None
    outside: bool
    per_question: float


@dataclass(frozen=True)
class LeftOut:
    """A recorded decomposer as if it were new: its accuracy, and three predictions from the others alone.

    `average` is theirs, which any use of the measures has to beat.
    """

    decomposer: str
    accuracy: float
    line: Prediction
    average: float


@dataclass(frozen=True)
class Correlation:
    """Pearson's r over the decomposers, with the exact p of all permutations, two-sided. None: does not vary."""

    measure: str
    r: float | None
    p: float | None


def predict(
    scores: Mapping[str, Sequence[Scored]], right: Mapping[str, Sequence[bool]], new: Sequence[Scored]
) -> Prediction:
    """The accuracy of a solver with a new decomposer, on the questions that the recorded ones decomposed too.

    `scores` and `right` have the recorded decomposers' decompositions and whether they led to the answer, question by
    question. Raises ValueError for fewer than three decomposers.
    """
    if len(scores) < 3:
        raise ValueError(f"{len(scores)} recorded decomposers are too few for a line")
    measure = MEASURES["ROUGE-L"]
    x = [measure(scores[name]) for name in scores]
    # in logits, so that no estimate leaves 0 to 1; half a question more, so that none is infinite
    y = [_logit((sum(right[name]) + 0.5) / (len(right[name]) + 1)) for name in scores]
    value, interval = _line_at(x, y, measure(new))
    rows = [_features(one) for name in scores for one in scores[name]]
    weights = _logistic(rows, [float(one) for name in scores for one in right[name]])
    per_question = _mean([_chance(weights, _features(one)) for one in new])
    value, interval = _chance_of(value), interval and (_chance_of(interval[0]), _chance_of(interval[1]))
    return Prediction(value, interval, not min(x) <= measure(new) <= max(x), per_question)


def leave_one_out(scores: Mapping[str, Sequence[Scored]], right: Mapping[str, Sequence[bool]]) -> list[LeftOut]:
    """Raises ValueError for fewer than four decomposers."""
    made = []
    for name in scores:
        others = {other: scores[other] for other in scores if other != name}
        accuracy = {other: _mean([float(one) for one in right[other]]) for other in scores}
        average = _mean([accuracy[other] for other in others])
        made.append(LeftOut(name, accuracy[name], predict(others, right, scores[name]), average))
    return made


def root_mean_square(errors: Sequence[float]) -> float:
    return math.sqrt(_mean([error * error for error in errors]))


def correlations(scores: Mapping[str, Sequence[Scored]], right: Mapping[str, Sequence[bool]]) -> list[Correlation]:
    """How each measure goes with accuracy over the decomposers."""
    y = [_mean([float(one) for one in right[name]]) for name in scores]
    made = []
    for name, measure in MEASURES.items():
        x = [measure(scores[decomposer]) for decomposer in scores]
        r = _pearson(x, y)
        p = None
        if r is not None and len(x) <= 8:  # 8! = 40,320
            others = [_pearson(x, list(order)) or 0.0 for order in itertools.permutations(y)]
            p = sum(abs(other) >= abs(r) - 1e-12 for other in others) / len(others)
        made.append(Correlation(name, r, p))
    return made


def _line_at(x: Sequence[float], y: Sequence[float], at: float) -> tuple[float, tuple[float, float] | None]:
    """Ordinary least squares at a point, with its 95 % prediction interval; None where the points are all alike."""
    n, middle, height = len(x), _mean(x), _mean(y)
    spread = sum((one - middle) ** 2 for one in x)
    if not spread:  # all alike: nothing but their average is known
        return height, None
    slope = sum((a - middle) * (b - height) for a, b in zip(x, y, strict=True)) / spread
    value = height + slope * (at - middle)
    left = sum((b - height - slope * (a - middle)) ** 2 for a, b in zip(x, y, strict=True))
    error = math.sqrt(left / (n - 2) * (1 + 1 / n + (at - middle) ** 2 / spread))
    half = _T[min(n - 2, 8)] * error
    return value, (value - half, value + half)


def _features(one: Scored) -> list[float]:
    """1, ROUGE-L, numbers made up, subquestions repeated, and how many steps the question has: how hard it is."""
    return [1.0, one.rouge, float(one.numbers > one.copied), float(one.repeated > 0), float(one.known)]


def _logistic(rows: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """Weights of largest likelihood by Newton's method, with a small ridge so that a feature may be constant."""
    size, ridge = len(rows[0]), 1e-2
    weights = [0.0] * size
    for _ in range(25):
        gradient = [-ridge * weight for weight in weights]
        curve = [[ridge * (i == j) for j in range(size)] for i in range(size)]
        for row, known in zip(rows, right, strict=True):
            chance = _chance(weights, row)
            slack, weight = known - chance, chance * (1 - chance)
            for i, one in enumerate(row):
                gradient[i] += slack * one
                scaled, line = weight * one, curve[i]
                for j in range(i + 1):
                    line[j] += scaled * row[j]
        for i in range(size):
            for j in range(i):
                curve[j][i] = curve[i][j]
        step = _solve(curve, gradient)
        weights = [weight + move for weight, move in zip(weights, step, strict=True)]
        if max(map(abs, step)) < 1e-7:
            break
    return weights


def _solve(matrix: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Gauss and Jordan, with the largest pivot."""
    lines = [[*line, value] for line, value in zip(matrix, values, strict=True)]
    for k in range(len(lines)):
        best = max(range(k, len(lines)), key=lambda row: abs(lines[row][k]))
        lines[k], lines[best] = lines[best], lines[k]
        lines[k] = [value / lines[k][k] for value in lines[k]]
        for row in range(len(lines)):
            if row != k:
                factor = lines[row][k]
                lines[row] = [a - factor * b for a, b in zip(lines[row], lines[k], strict=True)]
    return [line[-1] for line in lines]


def _chance(weights: Sequence[float], row: Sequence[float]) -> float:
    return _chance_of(sum(weight * one for weight, one in zip(weights, row, strict=True)))


def _chance_of(logit: float) -> float:
    return 1 / (1 + math.exp(-max(min(logit, 50.0), -50.0)))


def _logit(chance: float) -> float:
    return math.log(chance / (1 - chance))


def _pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    dx, dy = [one - _mean(x) for one in x], [one - _mean(y) for one in y]
    size = math.sqrt(sum(one * one for one in dx) * sum(one * one for one in dy))
    return sum(a * b for a, b in zip(dx, dy, strict=True)) / size if size > 1e-15 else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
