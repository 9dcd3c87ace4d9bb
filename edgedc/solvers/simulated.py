"""A simulated solver for problems whose steps are known, so that the pairing can be tried, tested and shown offline.

It goes wrong at a stated rate per step: seldom on a step that a subquestion asks for, more often on one it has to find
by itself, most often when it may not reason. That decomposition pays here is an assumption, not a finding.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from edgedc.decomposition import Decomposition, decomposition_of, parse, render
from edgedc.errors import InputError
from edgedc.flags import flag
from edgedc.generation import Message
from edgedc.prompts import ANSWER_MARK, STYLES, decompose_messages, solve_messages, step_messages
from edgedc.solvers import SIMULATED_MODEL
from edgedc.solvers.loopback import Timing, serve

MODEL = SIMULATED_MODEL

Kind = Literal["asked", "reasoned", "in_head"]
Task = Literal["decompose", "single-stage", "cot", "static", "step", "last"]


class KnownStep(Protocol):
    """As in tasks/microworld: `needs` are 1-based numbers of earlier steps."""

    @property
    def ask(self) -> str: ...
    @property
    def value(self) -> int: ...
    @property
    def needs(self) -> tuple[int, ...]: ...


class KnownProblem(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def steps(self) -> Sequence[KnownStep]: ...
    @property
    def decomposition(self) -> Decomposition: ...


@dataclass(frozen=True)
class Request:
    """A prompt as a solver reads it: the subquestions that it gives, in order, and the answers to the first of them."""

    task: Task | None
    question: str
    given: list[str]
    answers: list[str]


@dataclass(frozen=True)
class Skill:
    """The chance that a step goes wrong, by how the solver comes to it. Raises InputError for what is no chance."""

    asked: float = flag(0.02, "Chance that a step goes wrong when a subquestion asks for it.")
    reasoned: float = flag(0.10, "Chance that a step goes wrong when the solver finds it by itself.")
    in_head: float = flag(0.25, "Chance that a step goes wrong when the solver may not reason.")
    drawn: float = flag(0.2, "Chance that a sampled decomposition leaves a subquestion out.")

    def __post_init__(self) -> None:
        for name, chance in asdict(self).items():
            if not 0 <= chance <= 1:  # true for NaN too
                raise InputError(f"--{name.replace('_', '-')} {chance}: give a chance, from 0 to 1")


@contextmanager
def simulated_server(
    problems: Iterable[KnownProblem],
    skill: Skill = Skill(),
    port: int = 0,
    *,
    timing: Timing = Timing(),  # noqa: B008 (frozen)
    seed: int = 0,
) -> Iterator[str]:
    """Serve the simulated solver on this machine while the block runs; yields the base URL, which ends in /v1.

    Port 0 takes a free one. Raises InputError when the port is taken.
    """
    mind = SimulatedSolver(problems, skill, seed)
    with serve(mind.reply, MODEL, port=port, timing=timing, simulated=True) as url:
        yield url


class SimulatedSolver:
    """Replies to the prompts of edgedc/prompts.py about the problems it was given.

    Asked to decompose, it gives the problem's known decomposition; sampled, at times one that lacks a subquestion.
    Asked to solve, it is right if and only if no step goes wrong. What goes wrong is fixed by (seed, problem, step,
    kind), and by the seed of a draw, so two runs agree.
    """

    def __init__(self, problems: Iterable[KnownProblem], skill: Skill, seed: int) -> None:
        self._known = {plain_words(problem.question): problem for problem in problems}
        self._skill = skill
        self._seed = seed

    def reply(self, messages: Sequence[Message], *, seed: int | None = None) -> str:
        request = read_request(messages)
        task, given = request.task, request.given
        problem = self._known.get(plain_words(request.question))
        if problem is None or task is None:
            return _UNKNOWN
        if task == "decompose":
            return render(problem.decomposition if seed is None else self._drawn(problem, seed))
        if task in ("single-stage", "cot"):
            values = self._values(problem, set(), "in_head" if task == "single-stage" else "reasoned")
        else:
            values = self._values(problem, {plain_words(text) for text in given}, "reasoned")
        if task == "step":
            return _line(problem, values, given[-1]) if given else _UNKNOWN
        lines = []
        if task == "cot":
            lines = [f"{step.ask} {value}" for step, value in zip(problem.steps, values, strict=True)]
        elif task == "static":
            lines = [f"{k}. {text} {_value(problem, values, text)}" for k, text in enumerate(given, start=1)]
        return "\n".join([*lines, f"{ANSWER_MARK}{values[-1]}"])

    def _drawn(self, problem: KnownProblem, seed: int) -> Decomposition:
        texts = problem.decomposition.texts
        digest = hashlib.sha256(f"{self._seed}|{problem.id}|draw {seed}".encode()).digest()
        if texts and _chance(digest) < self._skill.drawn:
            del texts[digest[8] % len(texts)]
        return decomposition_of(texts)

    def _values(self, problem: KnownProblem, asked: set[str], otherwise: Kind) -> list[int]:
        """What the solver takes each step's value for. An error carries over to the steps that build on it."""
        off: list[int] = []
        for number, step in enumerate(problem.steps, start=1):
            error = self._error(problem.id, number, "asked" if plain_words(step.ask) in asked else otherwise)
            off.append(error + sum(off[need - 1] for need in step.needs))
        off[-1] = off[-1] or sum(off)  # any wrong step makes the answer wrong
        return [step.value + error for step, error in zip(problem.steps, off, strict=True)]

    def _error(self, problem: str, step: int, kind: Kind) -> int:
        """How far off a step comes out by its own fault: 0, or 1 to 9 too much (so that errors never cancel out)."""
        digest = hashlib.sha256(f"{self._seed}|{problem}|{step}|{kind}".encode()).digest()
        rate: float = getattr(self._skill, kind)
        return 1 + digest[8] % 9 if _chance(digest) < rate else 0


def _chance(digest: bytes) -> float:
    return int.from_bytes(digest[:8], "big") / 2**64


def _line(problem: KnownProblem, values: Sequence[int], text: str) -> str:
    value = _value(problem, values, text)
    return value if value == _UNKNOWN else f"{ANSWER_MARK}{value}"


def _value(problem: KnownProblem, values: Sequence[int], text: str) -> str:
    """The value of the step that a subquestion asks for, or that the solver does not know it."""
    found = [
        value for step, value in zip(problem.steps, values, strict=True) if plain_words(step.ask) == plain_words(text)
    ]
    return str(found[0]) if found else _UNKNOWN


def read_request(messages: Sequence[Message]) -> Request:
    """What the last prompt asks for. `task` is None for a prompt that is none of edgedc/prompts.py."""
    prompt = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
    head, _, asked = prompt.partition("Question: ")
    # What stands before the question (and its context) says what is to be done.
    task = next((task for start, task in _TASKS.items() if head.startswith(start)), None)
    question, mark, listed = asked.partition("\nSubquestions:\n")
    if mark:
        return Request(task, question, parse(listed).texts, [])
    question = re.split(r"\n(?:Subquestion|Next subquestion): ", asked)[0]
    given = re.findall(r"\n(?:Subquestion|Next subquestion): (.*)", asked)
    return Request(task, question, given, re.findall(r"\nAnswer: (.*)", asked))


def plain_words(text: str) -> str:
    """Two texts with the same words in the same order count as the same."""
    return " ".join(re.findall(r"\w+", text.lower()))


def _head(messages: Sequence[Message]) -> str:
    return messages[0]["content"].partition("Question: ")[0].rstrip()


_UNKNOWN = "I do not know."
_ANY = decomposition_of(["?"])
# How each task's prompt starts. The instructions to decompose go on with the cap.
_TASKS: dict[str, Task] = {
    **{_head(decompose_messages("", style=style, cap=None))[:90]: "decompose" for style in STYLES},
    _head(solve_messages("", mode="single-stage")): "single-stage",
    _head(solve_messages("", mode="cot")): "cot",
    _head(solve_messages("", mode="static", decomposition=_ANY)): "static",
    _head(step_messages("", solved=(), subquestion="?")): "step",
    _head(step_messages("", solved=(), subquestion=None)): "last",
}
