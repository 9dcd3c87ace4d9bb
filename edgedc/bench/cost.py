"""What a question costs with local and with remote decomposition, and after how many questions the first has paid.

Cloud cost per query: tokens at dated prices, as a bench counted them. Local cost: joules / 3.6e6 x price per kWh and,
apart from it, the hardware's price spread over the seconds that it works in its life. Seconds are means, as tokens are:
what all questions take, over their number, so that a long tail is paid for. Break-even queries: fixed cost (teaching
and training included) / (cost of the remote way - cost of the local way), "never" where that is not above 0.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgedc.bench.metrics import Summary
from edgedc.errors import InputError
from edgedc.flags import flag

JOULES_PER_KWH = 3.6e6
_YEAR_S = 365 * 86400
_FACTORS = (0.5, 2.0)

Average = Literal["mean", "median"]


@dataclass(frozen=True)
class CostSettings:
    """Raises InputError, naming the flag, for what cannot be."""

    kwh_price: float = flag(0.30, "US dollars per kWh.")
    watts: float = flag(15.0, "What the device draws while it decomposes, where nothing was metered.")
    hardware_price: float = flag(0.0, "US dollars of the device, where it is bought for this; 0: it is there anyway.")
    lifetime: float = flag(4.0, "Years that the device is used.")
    utilisation: float = flag(0.1, "Share of those years in which it works.")
    fixed: float = flag(0.0, "US dollars spent once: the teacher's bill, the training, people's time.")
    queries_per_day: float = flag(1000.0, "Questions a day, for break-even in days.")

    def __post_init__(self) -> None:
        for name in ("kwh_price", "hardware_price", "fixed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: give US dollars, at least 0")
        for name in ("watts", "lifetime", "queries_per_day"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be above 0")
        if not 0 < self.utilisation <= 1:
            raise InputError(f"--utilisation {self.utilisation}: a share of the time, above 0 and at most 1")


@dataclass(frozen=True)
class PerQuery:
    """US dollars of one question, by where they go. Remote decomposition has `decompose`, local one the other three."""

    solve: float
    decompose: float = 0.0
    electricity: float = 0.0
    hardware: float = 0.0

    @property
    def marginal(self) -> float:
        """Without hardware that is there anyway."""
        return self.solve + self.decompose + self.electricity

    @property
    def total(self) -> float:
        return self.marginal + self.hardware


@dataclass(frozen=True)
class Comparison:
    """`queries` and `days` to break even are None for "never". `energy` names where the joules come from.

    `average` says what the local seconds are: the median where the results are of before the mean was kept.
    """

    name: str
    remote: PerQuery
    local: PerQuery
    remote_correct: float | None  # US dollars per correct answer
    local_correct: float | None
    energy: str
    queries: float | None
    days: float | None
    average: Average


@dataclass(frozen=True)
class Question:
    """What a question takes with one local system, from which its cost follows."""

    name: str
    remote: PerQuery
    solve: float
    seconds: float
    joules: float | None
    energy: str
    remote_accuracy: float | None
    local_accuracy: float | None
    average: Average = "mean"


def questions(systems: Sequence[Summary], joules: Mapping[str, tuple[float, str]]) -> list[Question]:
    """One for each local system of a bench (`edgedc bench pair`).

    `joules` are those of one decomposition and their source, by the system's name. Raises InputError when the
    bench has no remote decomposer, or no local one, to compare.
    """
    remote = next((s for s in systems if s.decomposer == "remote"), None)
    locals_ = [s for s in systems if s.decomposer == "local"]
    if not remote or not locals_ or remote.solve_usd_per_1000 is None or remote.decompose_usd_per_1000 is None:
        raise InputError("the bench compares no local with a remote decomposer: run  edgedc bench pair  with both")
    far = PerQuery(remote.solve_usd_per_1000 / 1000, remote.decompose_usd_per_1000 / 1000)
    made = []
    for system in locals_:
        if system.solve_usd_per_1000 is None or system.decompose_s is None:
            continue  # all its questions failed: nothing is known of it
        mean = system.decompose_mean_s
        metered = joules.get(system.system)
        made.append(
            Question(
                system.system,
                far,
                system.solve_usd_per_1000 / 1000,
                system.decompose_s if mean is None else mean,
                metered[0] if metered else None,
                metered[1] if metered else "",
                remote.accuracy,
                system.accuracy,
                "median" if mean is None else "mean",
            )
        )
    return made


def compare(question: Question, settings: CostSettings) -> Comparison:
    joules = settings.watts * question.seconds if question.joules is None else question.joules
    worked = settings.lifetime * _YEAR_S * settings.utilisation
    local = PerQuery(
        question.solve,
        electricity=joules / JOULES_PER_KWH * settings.kwh_price,
        hardware=settings.hardware_price / worked * question.seconds,
    )
    queries = break_even(settings.fixed, question.remote.total, local.total)
    return Comparison(
        question.name,
        question.remote,
        local,
        _per_correct(question.remote, question.remote_accuracy),
        _per_correct(local, question.local_accuracy),
        question.energy or f"estimate: {settings.watts:g} W for {question.seconds:.3g} s",
        queries,
        None if queries is None else queries / settings.queries_per_day,
        question.average,
    )


def break_even(fixed: float, remote: float, local: float) -> float | None:
    """Queries; None for never. With nothing spent beforehand the first one has paid."""
    saved = remote - local
    return fixed / saved if saved > 0 else None


def sensitivity(question: Question, settings: CostSettings) -> Iterator[tuple[str, float, Comparison]]:
    """(what, its factor, the comparison) with one assumption halved or doubled at a time."""
    for factor in _FACTORS:
        scaled = replace(
            question,
            remote=PerQuery(question.remote.solve * factor, question.remote.decompose * factor),
            solve=question.solve * factor,
        )
        yield "prices of tokens", factor, compare(scaled, settings)
        decomposing = replace(question.remote, decompose=question.remote.decompose * factor)
        yield "tokens of a remote decomposition", factor, compare(replace(question, remote=decomposing), settings)
        yield "price per kWh", factor, compare(question, replace(settings, kwh_price=settings.kwh_price * factor))
        if settings.hardware_price:
            used = min(1.0, settings.utilisation * factor)
            yield "utilisation", used / settings.utilisation, compare(question, replace(settings, utilisation=used))
        yield "fixed cost", factor, compare(question, replace(settings, fixed=settings.fixed * factor))


def _per_correct(query: PerQuery, accuracy: float | None) -> float | None:
    return query.total / accuracy if accuracy else None
