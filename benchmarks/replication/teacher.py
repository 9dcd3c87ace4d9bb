"""A SIMULATED teacher that errs: the problem's own decomposition, and at a stated rate a wrong one instead.

It errs in one of two manners. `slips` fall anywhere, and every draw slips anew. `habits` go with a kind of problem (its
domain, and which steps build on which): of the kinds that it has trouble with, it gets most problems wrong, each time
by the same mistake. A student cannot learn a slip, but it can learn a habit.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from edgedc.decomposition import decomposition_of, render
from edgedc.generation import Message
from edgedc.solvers.simulated import plain_words, read_request
from edgedc.tasks.microworld import Problem

MODEL = "simulated-erring-teacher"

Manner = Literal["slips", "habits"]
MANNERS: tuple[Manner, ...] = get_args(Manner)
Mistake = Literal["drops", "swaps", "strays", "declines"]
MISTAKES: tuple[Mistake, ...] = get_args(Mistake)

FIRM = 0.75  # how often a habit shows where it is one


@dataclass(frozen=True)
class ErringTeacher:
    """Decomposes the problems that it was given; any other is a KeyError. All it does is fixed by the seed.

    Each mistake is made equally often: it leaves a subquestion out (`drops`) or asks two of them in the wrong order
    (`swaps`), asks for something that has nothing to do with the problem (`strays`), or says that no decomposition is
    needed (`declines`). Of a problem that needs none, it asks two subquestions all the same.
    """

    known: dict[str, Problem]
    stock: tuple[str, ...]
    manner: Manner
    rate: float
    seed: int

    def reply(self, messages: Sequence[Message], *, seed: int = 0) -> str:
        """`seed` is that of the draw."""
        problem = self.known[plain_words(read_request(messages).question)]
        texts = problem.decomposition.texts
        draw = self._digest(problem.id, seed)
        if self.manner == "slips":
            wrong, how = _chance(draw) < self.rate, draw
        else:
            kind = self._digest(problem.domain, [step.needs for step in problem.steps])
            wrong, how = _chance(kind) < self.rate / FIRM and _chance(draw) < FIRM, kind
        return render(decomposition_of(self._spoilt(texts, problem, how, draw) if wrong else texts))

    def _spoilt(self, texts: list[str], problem: Problem, how: bytes, draw: bytes) -> list[str]:
        """`how` is what mistake and where; `draw` which foreign subquestion, if any."""
        asks = {plain_words(step.ask) for step in problem.steps}
        foreign = next(
            text
            for k in range(len(self.stock))
            if plain_words(text := self.stock[(int.from_bytes(draw[8:12], "big") + k) % len(self.stock)]) not in asks
        )
        if not texts:
            return [foreign, problem.steps[-1].ask]
        place = how[9] % (len(texts) - 1)  # never the last one: the question itself asks for that anyway
        mistake = MISTAKES[how[10] % len(MISTAKES)]
        if mistake == "drops":
            return texts[:place] + texts[place + 1 :]
        if mistake == "swaps":
            return [*texts[:place], texts[place + 1], texts[place], *texts[place + 2 :]]
        return [*texts[:place], foreign, *texts[place + 1 :]] if mistake == "strays" else []

    def _digest(self, *what: object) -> bytes:
        return hashlib.sha256("|".join(map(str, (self.seed, self.manner, *what))).encode()).digest()


def erring_teacher(problems: Iterable[Problem], manner: Manner, rate: float, seed: int) -> ErringTeacher:
    known = {plain_words(problem.question): problem for problem in problems}
    stock = tuple(dict.fromkeys(problem.steps[0].ask for problem in known.values()))
    return ErringTeacher(known, stock, manner, rate, seed)


def _chance(digest: bytes) -> float:
    return int.from_bytes(digest[:8], "big") / 2**64
