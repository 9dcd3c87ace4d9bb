"""A SIMULATED solver that is good at one step and bad at several in one go.

There is one rule, and no mode or condition has a rate of its own: what takes k steps in one go comes out right with
chance `one_step * falls ** (k - 1)`. How many steps that are follows from what the solver was given. It works through
the subquestions in order; a step that is asked while those it builds on are not worked out yet takes them along in the
same go, as does the question itself at the end. So a subquestion that is missing, comes too early or asks for something
else costs what it really costs.
"""

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgedc.bench.quality import rouge_l
from edgedc.errors import SolverRefused
from edgedc.generation import Generation, Message, OnText
from edgedc.prompts import ANSWER_MARK
from edgedc.solvers.simulated import KnownProblem, plain_words, read_request
from edgedc.usage import Usage, estimate_tokens

MODEL = "simulated-limited-solver"

_UNKNOWN = "I do not know."


@dataclass(frozen=True)
class Skill:
    """`one_step`: chance to get a step right; `falls`: what each further step in the same go multiplies it by.

    `overlooked`: chance that, thinking for itself (chain of thought), it does not see a step on the way to the answer.
    `misled`: chance that a subquestion which asks for no step of the problem spoils the answer. `near`: from which
    ROUGE-L on a subquestion is understood as the step whose own words are nearest; 1: in its own words only.
    """

    one_step: float = 0.95
    falls: float = 0.5
    overlooked: float = 0.35
    misled: float = 0.25
    near: float = 1.0

    def chance(self, steps: int) -> float:
        """To get right what takes so many steps in one go."""
        return self.one_step * self.falls ** (steps - 1)


class LimitedSolver:
    """Solves the problems that it was given, by the prompts of edgedc/prompts.py. It decomposes nothing.

    What goes wrong is fixed by the seed, the problem, the step and the steps taken along with it: the same go at the
    same step comes out alike in every condition, so that conditions differ by what they give the solver and not by
    luck. A wrong value is carried on to all that builds on it.
    """

    model = MODEL
    simulated = True

    def __init__(self, problems: Iterable[KnownProblem], skill: Skill, seed: int) -> None:
        self._known = {plain_words(problem.question): problem for problem in problems}
        self._skill, self._seed = skill, seed

    def solve(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        seed: int | None = None,  # noqa: ARG002 (nothing is sampled)
        on_text: OnText | None = None,
    ) -> Generation:
        """Tokens are estimates, by edgedc's own rule. Raises SolverRefused for what it was not given."""
        started = time.monotonic()
        whole = self.reply(messages)
        text = whole[: 4 * max_tokens]
        if on_text:
            on_text(text)
        prompt = "".join(message["content"] for message in messages)
        usage = Usage(estimate_tokens(prompt), estimate_tokens(text), source="estimate")
        reason = "stop" if text == whole else "length"
        return Generation(text, usage, None, time.monotonic() - started, reason, bytes_sent=len(prompt.encode()))

    def close(self) -> None: ...

    def reply(self, messages: Sequence[Message], *, seed: int = 0) -> str:  # noqa: ARG002 (nothing is sampled)
        request = read_request(messages)
        problem = self._known.get(plain_words(request.question))
        if problem is None or request.task in (None, "decompose"):
            raise SolverRefused(f"{MODEL}: asked for what it does not know: {request.question[:60]!r}")
        work = _Work(problem, self._skill, self._seed)
        if request.task == "cot":
            return "\n".join([*work.think(), work.conclude()])
        if request.task == "static":
            lines = [f"{k}. {text} {work.answer(text)}" for k, text in enumerate(request.given, start=1)]
            return "\n".join([*lines, work.conclude()])
        for text, known in zip(request.given, request.answers, strict=False):
            work.recall(text, known)
        if request.task == "step":
            found = work.answer(request.given[-1])
            return found if found == _UNKNOWN else f"{ANSWER_MARK}{found}"
        assert request.task in ("single-stage", "last")
        return work.conclude()


class _Work:
    """What has been worked out of a problem: how far off each step's value is taken to be."""

    def __init__(self, problem: KnownProblem, skill: Skill, seed: int) -> None:
        self._problem, self._skill, self._seed = problem, skill, seed
        self._off: dict[int, int] = {}
        self._astray = 0

    def think(self) -> list[str]:
        """Its own chain of thought: it sees each step on the way, or overlooks it."""
        lines = []
        for number, step in enumerate(self._problem.steps[:-1], start=1):
            if self._draw("sees", number)[0] >= self._skill.overlooked:
                lines.append(f"{step.ask} {self._value(number)}")
        return lines

    def answer(self, text: str) -> str:
        """The value of the step that a subquestion asks for."""
        number = self._step(text)
        if number is None:
            self._stray(text)
            return _UNKNOWN
        return str(self._value(number))

    def recall(self, text: str, known: str) -> None:
        """Take an earlier answer as it stands in the prompt."""
        number = self._step(text)
        if number is None:
            self._stray(text)
        elif known.strip().lstrip("-").isdigit():
            self._off[number] = int(known) - self._problem.steps[number - 1].value

    def conclude(self) -> str:
        last = len(self._problem.steps)
        return f"{ANSWER_MARK}{self._value(last) + self._astray}"

    def _value(self, number: int) -> int:
        """Of a step; what it builds on and is not known yet is taken along in one go."""
        if number not in self._off:
            along = self._unknown(number)
            needs = {need for step in along for need in self._problem.steps[step - 1].needs}
            chance, size = self._draw(number, along)
            slip = 0 if chance < self._skill.chance(len(along)) else size
            self._off[number] = slip + sum(self._off[need] for need in needs if need in self._off)
        return self._problem.steps[number - 1].value + self._off[number]

    def _unknown(self, number: int) -> list[int]:
        """The step and those that it builds on, directly or not, as far as they have not been worked out."""
        along, open_ = set(), [number]
        while open_:
            step = open_.pop()
            if step not in self._off and step not in along:
                along.add(step)
                open_ += self._problem.steps[step - 1].needs
        return sorted(along)

    def _step(self, text: str) -> int | None:
        asks = [step.ask for step in self._problem.steps]
        same = [k for k, ask in enumerate(asks, start=1) if plain_words(ask) == plain_words(text)]
        if same or self._skill.near >= 1:
            return same[0] if same else None
        like = [rouge_l(text, ask) for ask in asks]
        return like.index(max(like)) + 1 if max(like) >= self._skill.near else None

    def _stray(self, text: str) -> None:
        chance, size = self._draw("astray", plain_words(text))
        self._astray += size if chance < self._skill.misled else 0

    def _draw(self, *what: object) -> tuple[float, int]:
        """A chance from 0 to 1, and how far off a value is if it goes wrong: 1 to 9 too much, never cancelling out."""
        text = "|".join(map(str, (self._seed, self._problem.id, *what)))
        digest = hashlib.sha256(text.encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64, 1 + digest[8] % 9
