"""Means over seeds and questions, and their 95 % bootstrap intervals over both.

Seeds and questions are crossed: every seed is tried on the same questions. Both are drawn anew with replacement, the
questions of either split by themselves, and the same draws serve all cells, so that differences are paired. Of n seeds
n - 1 are drawn, which makes up for there being few of them (Rao and Wu 1988, JASA 83:231). With one seed the interval
is over questions alone.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgedc.bench.statistics import RESAMPLES

from .answers import Cells, Grid
from .plan import Split

Values = npt.NDArray[np.float64]  # one for each resample
Mean = Callable[[str, Split], Values]  # of a system on a split
Figure = Callable[[Mean], Values]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, whose ends are infinite where it cannot be told."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Draws:
    """How often each seed, and each question of a split, was drawn. Entry 0 is the data as they are."""

    seeds: Values
    questions: dict[str, Values]

    def means(self, grid: Grid, split: str) -> Values:
        drawn: Values = np.einsum("rs,sq,rq->r", self.seeds, grid, self.questions[split])
        counted: Values = self.seeds.sum(1) * self.questions[split].sum(1)
        return drawn / counted


def draw(cells: Cells) -> Draws:
    rng = np.random.default_rng(0)
    shapes = {split: cell.right.shape for (_, split), cell in cells.items()}
    n_seeds = next(iter(shapes.values()))[0]

    def drawn(n: int, of: int) -> Values:
        times = rng.multinomial(n, [1 / of] * of, RESAMPLES).astype(float)
        return np.concatenate([np.ones((1, of)), times])

    return Draws(drawn(max(1, n_seeds - 1), n_seeds), {split: drawn(n, n) for split, (_, n) in shapes.items()})


def estimate(figure: Figure, grids: Mapping[tuple[str, Split], Grid], draws: Draws) -> Estimate:
    """A figure made of means, with its percentile interval. Raises KeyError for a cell that is not there.

    A figure that cannot be told in one draw of forty, as a ratio to nothing, has an interval without ends.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        value, *drawn = figure(lambda system, split: draws.means(grids[system, split], split)).tolist()
    known = sorted(one for one in drawn if math.isfinite(one))
    if len(known) < 0.975 * len(drawn):
        return Estimate(value, (-math.inf, math.inf))
    edge = round(0.025 * (len(known) - 1))
    return Estimate(value, (known[edge], known[-1 - edge]))
