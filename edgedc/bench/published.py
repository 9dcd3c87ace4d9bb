"""Published figures to set measured ones beside: of other models and prompts, so for orientation, not as a target."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edgedc.bench.recorded import DECOMPOSERS, PUBLISHED
from edgedc.bench.recorded import SOURCE as RECORDED_SOURCE

PAPER = "arXiv 2402.15000 v3"

Cap = int | Literal["own", "none"]


@dataclass(frozen=True)
class Published:
    """A figure in percent. `trained_on` is "" for a decomposer of the same task, or one that was not trained.

    `tokens` are those of the whole test set, which the paper counts as white-space words.
    """

    table: str
    decomposer: str
    solver: str
    task: str
    value: float
    metric: str = ""
    mode: str = "static"
    cap: Cap = "own"
    trained_on: str = ""
    tokens: int | None = None
    source: str = PAPER


# decomposer, solver: GSM8K exact match, DROP F1, Bamboogle accuracy
_MAIN = (
    ("none", "GPT-3.5", 20.32, 46.51, 49.6),
    ("none", "Vicuna-13B", 9.40, 26.68, 33.6),
    ("GPT-3.5", "GPT-3.5", 65.13, 55.73, 54.4),
    ("Vicuna-13B", "GPT-3.5", 62.93, 47.13, 48.8),
    ("GPT-3.5", "Vicuna-13B", 28.13, 21.29, 32.8),
    ("Vicuna-13B", "Vicuna-13B", 28.51, 20.90, 29.6),
    ("S_D-T", "GPT-3.5", 67.02, 55.19, 52.0),
    ("S_D-R", "GPT-3.5", 67.78, 57.97, 52.0),
    ("GPT-3.5", "S_E-T", 48.98, 13.37, 31.2),
    ("GPT-3.5", "S_E-A", 51.55, 20.34, 40.8),
)
_METRICS = {"gsm8k": "exact match", "drop": "F1", "bamboogle": "accuracy"}

_TRANSFER = (
    Published("transfer", "S_D-R", "GPT-3.5", "drop", 51.05, "F1", trained_on="gsm8k"),
    Published("transfer", "S_D-R", "GPT-3.5", "gsm8k", 63.15, "exact match", trained_on="drop"),
)
_SOLVERS = (
    Published("other solvers", "S_D-R", "Vicuna-13B", "gsm8k", 31.5, "exact match, subset"),
    Published("other solvers", "S_D-R", "Vicuna-13B", "drop", 33.4, "F1, subset"),
    Published("other solvers", "S_D-R", "GPT-4", "gsm8k", 91.5, "exact match, subset"),
    Published("other solvers", "S_D-R", "GPT-4", "drop", 81.0, "F1, subset"),
)
_MODES = (
    Published("modes", "GPT-3.5", "GPT-3.5", "bamboogle", 53.6, "accuracy", mode="interactive", tokens=59_792),
    Published("modes", "GPT-3.5", "GPT-3.5", "gsm8k", 62.92, "exact match", mode="interactive", tokens=823_886),
)
_STATIC_TOKENS = {"bamboogle": 15_106, "gsm8k": 355_302}
_CAPS: tuple[tuple[Cap, float], ...] = (("none", 56.63), (4, 57.19), (3, 59.88), (2, 58.47))


def published() -> Iterator[Published]:
    """All of them."""
    for decomposer, solver, *values in _MAIN:
        for (task, metric), value in zip(_METRICS.items(), values, strict=True):
            both = decomposer == solver == "GPT-3.5"
            mode = "single-stage" if decomposer == "none" else "static"
            tokens = _STATIC_TOKENS.get(task) if both else None
            yield Published("main", decomposer, solver, task, value, metric, mode, tokens=tokens)
    yield from (*_TRANSFER, *_SOLVERS, *_MODES)
    for cap, value in _CAPS:
        yield Published("caps", "GPT-3.5", "GPT-3.5", "drop", value, "F1, subset", cap=cap)
    for solver, accuracies in PUBLISHED.items():
        for decomposer, share in accuracies.items():
            name = DECOMPOSERS[decomposer]
            yield Published("recorded", name, solver, "gsm8k", 100 * share, "accuracy", source=RECORDED_SOURCE)


def find_published(
    decomposer: str, solver: str, task: str, mode: str, cap: Cap, trained_on: str
) -> tuple[Published, ...]:
    """Those of the same cell; none for a cell that nobody published."""
    foreign = "" if trained_on == task else trained_on
    wanted = (decomposer, solver, task, mode, cap, foreign)
    return tuple(
        one
        for one in published()
        if (one.decomposer, one.solver, one.task, one.mode, one.cap, one.trained_on) == wanted
    )
