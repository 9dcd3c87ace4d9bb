"""A trial: one call of a solver with one draw's decomposition, and the row that it becomes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from edgedc.decomposer import CUT, REFUSALS
from edgedc.files import Row, key_of
from edgedc.generation import Generation, Message
from edgedc.prices import Price
from edgedc.prompts import final_answer
from edgedc.tasks import Example, find_task

from ..calls.remote import Remote
from ..sets.pairs import decomposition_in, solver_messages

_KEPT = ("id", "task", "split", "question", "premise", "answer", "answers", "draw", "status", "subquestions")


@dataclass(frozen=True)
class Trial:
    """`demonstration` is the draw's row of `edgedc teach`."""

    key: str
    demonstration: Row
    messages: list[Message]


@dataclass(frozen=True)
class Trials:
    """A Job of train/calls/engines.py: asks a solver elsewhere, and says whether its answer is the gold one."""

    solver: Remote
    seed: int

    @property
    def name(self) -> str:
        return self.solver.name

    @property
    def price(self) -> Price | None:
        return self.solver.price

    def worst(self, trial: Trial) -> float:
        return self.solver.worst(trial.messages)

    def trial(self, demonstration: Row) -> Trial:
        """The key holds all that determines reply and verdict."""
        messages, solver = solver_messages(demonstration), self.solver
        asked = [solver.name, messages, solver.temperature, self.seed, solver.max_tokens]
        known = [demonstration.get(name, "") for name in ("task", "answer", "draw")]
        known += [answers] if (answers := demonstration.get("answers")) else []
        return Trial(key_of("screen", *asked, *known), demonstration, messages)

    @contextmanager
    def open(self, share: float) -> Iterator[Callable[[Trial], Row]]:
        with self.solver.open(share) as solver:

            def ask(trial: Trial) -> Row:
                made = solver.solve(trial.messages, max_tokens=self.solver.max_tokens, seed=self.seed)
                return {**self._row(trial, made), "simulated": solver.simulated}

            yield ask

    def _row(self, trial: Trial, made: Generation) -> Row:
        shown = trial.demonstration
        return {
            "key": trial.key,
            "demonstration": shown.get("key", ""),
            **{name: shown[name] for name in _KEPT if name in shown},
            "solver": self.solver.name,
            "mode": "static" if decomposition_in(shown).status == "decomposed" else "cot",
            "temperature": self.solver.temperature,
            "seed": self.seed,
            "max_tokens": self.solver.max_tokens,
            "unsupported": list(made.unsupported),
            "solution": made.text,
            "final": final_answer(made.text),
            "verdict": _passes(shown, made),
            "finish_reason": made.finish_reason,
            "usage": asdict(made.usage),
            "cost": made.booked,
            "seconds": made.total_s,
            "bytes_sent": made.bytes_sent,
        }


def _passes(shown: Row, made: Generation) -> bool:
    """By the task's strict metric. A solution that was cut or refused is none, whatever stands in it."""
    if made.finish_reason in (*CUT, *REFUSALS):
        return False
    # Some tasks score by `answers` alone; a row of one's own may have nothing but `answer`.
    answers = tuple(tuple(spans) for spans in shown.get("answers") or [[shown["answer"]]])
    asked = str(shown.get("id", "")), shown["question"], shown.get("premise", ""), shown["answer"]
    return find_task(shown["task"]).score(made.text, Example(*asked, answers=answers))
