"""From a question to an answer: at once, by the solver's own reasoning, or by way of a decomposition."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from edgedc.decomposition import Decomposition, fill, parse
from edgedc.errors import InputError
from edgedc.generation import Generation, Message, Solver
from edgedc.ledger import Price, Usage, total_usage
from edgedc.prompts import (
    MAX_SUBQUESTIONS,
    MAX_TOKENS_DECOMPOSE,
    MAX_TOKENS_SOLVE,
    Style,
    decompose_messages,
    final_answer,
    solve_messages,
    step_messages,
)

Mode = Literal["single-stage", "cot", "static", "interactive"]
MODES: tuple[Mode, ...] = get_args(Mode)
Where = Literal["local", "remote"]

# finish_reason of a reply that the model, or a filter between it and us, would not give
REFUSALS = ("content_filter", "refusal")


class Generate(Protocol):
    """A Backend's `generate` or a Solver's `solve`."""

    def __call__(self, messages: Sequence[Message], *, max_tokens: int) -> Generation: ...


@dataclass(frozen=True)
class Decomposer:
    """Whoever breaks questions down, with the prompt style it knows and the most subquestions it is asked for."""

    name: str
    where: Where
    generate: Generate
    style: Style
    cap: int | None = MAX_SUBQUESTIONS
    max_tokens: int = MAX_TOKENS_DECOMPOSE


@dataclass(frozen=True)
class Stage:
    """One call: `decompose`, `solve`, `step 1`, `step 2`, ..."""

    name: str
    where: Where
    generation: Generation


@dataclass(frozen=True)
class Answer:
    """What came out, and by which calls.

    `text` is the solver's last reply and `final` the answer in it. `mode` is what really happened; where that is not
    what was asked for, or a reply was cut, `notes` says why. `decomposition` is None where nobody was asked for one.
    """

    text: str
    final: str
    mode: Mode
    decomposition: Decomposition | None
    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """The calls follow one another, so this is what a person waits."""
        return sum(stage.generation.total_s for stage in self.stages)

    @property
    def bytes_sent(self) -> int:
        """What left this device."""
        return sum(stage.generation.bytes_sent for stage in self.stages)

    def usage(self, where: Where | None = None) -> Usage:
        """Tokens of the local calls, of the remote ones, or of all."""
        return total_usage(stage.generation.usage for stage in self.stages if where in (None, stage.where))

    def cost(self, solver: Price, decomposer: Price | None = None) -> float:
        """US dollars of the remote calls. A remote decomposition needs its own price; a local one has none."""
        total = 0.0
        for stage in self.stages:
            if stage.where == "local":
                continue
            price = decomposer if stage.name == "decompose" else solver
            if price is None:
                raise ValueError("the decomposition was remote: its cost needs the decomposer's price")
            total += price.cost(stage.generation.usage)
        return total


def decompose(decomposer: Decomposer, question: str, premise: str = "") -> tuple[Decomposition, Generation]:
    """Ask for a decomposition and read it.

    Raises InputError for an empty question and whatever the decomposer raises.
    """
    if not question.strip():
        raise InputError("the question is empty: give one to decompose")
    messages = decompose_messages(question, premise, style=decomposer.style, cap=decomposer.cap)
    generation = decomposer.generate(messages, max_tokens=decomposer.max_tokens)
    return read_reply(generation), generation


def read_reply(generation: Generation) -> Decomposition:
    """The decomposition in a reply. One that was cut off or refused is `unparsed`: the rest of it is unknown."""
    if generation.finish_reason in ("length", *REFUSALS):
        return Decomposition((), "unparsed", generation.text)
    return parse(generation.text)


def remark(decomposer: Decomposer, decomposition: Decomposition, generation: Generation) -> str:
    """What a reader should know about a decomposition, in a line; "" when all is well.

    Subquestions beyond the cap are kept and pointed out here, never cut.
    """
    if generation.finish_reason == "length":
        return f"the decomposition was cut at {decomposer.max_tokens} tokens"
    if decomposition.status == "unparsed":
        return f"no subquestions could be read from the decomposer's reply {generation.text[:80]!r}"
    if decomposition.exceeds(decomposer.cap):
        return f"{len(decomposition.subquestions)} subquestions, more than the {decomposer.cap} that were asked for"
    return ""


def answer(
    question: str,
    premise: str = "",
    *,
    mode: Mode,
    solver: Solver,
    decomposer: Decomposer | None = None,
    max_tokens: int = MAX_TOKENS_SOLVE,
) -> Answer:
    """Answer a question in one of MODES; `static` and `interactive` need a decomposer, the others ask none.

    Where no decomposition is needed, or none could be read, the solver reasons by itself: the mode becomes `cot` and a
    note says so. `max_tokens` is the limit of each of the solver's replies. Raises InputError for an empty question
    and whatever the decomposer and the solver raise.
    """
    if not question.strip():
        raise InputError("the question is empty: give one to answer")
    if mode in ("single-stage", "cot"):
        return _ask_whole(question, premise, mode, solver, max_tokens, None)
    if decomposer is None:
        raise ValueError(f"mode {mode} needs a decomposer")
    decomposition, generation = decompose(decomposer, question, premise)
    stage = Stage("decompose", decomposer.where, generation)
    said = remark(decomposer, decomposition, generation)
    notes = [said] if said else []
    if decomposition.status != "decomposed":
        why = "no decomposition is needed" if decomposition.status == "not_needed" else "there is no decomposition"
        notes.append(f"{why}: asked in mode cot instead of {mode}")
        mode = "cot"
    if mode == "interactive":
        return _ask_steps(question, premise, solver, max_tokens, decomposition, stage, notes)
    return _ask_whole(question, premise, mode, solver, max_tokens, decomposition, stage, notes)


def _ask_whole(
    question: str,
    premise: str,
    mode: Literal["single-stage", "cot", "static"],
    solver: Solver,
    max_tokens: int,
    decomposition: Decomposition | None,
    before: Stage | None = None,
    notes: Sequence[str] = (),
) -> Answer:
    """One call of the solver for the whole question."""
    given = decomposition if mode == "static" else None
    messages = solve_messages(question, premise, mode=mode, decomposition=given)
    stage = Stage("solve", "remote", solver.solve(messages, max_tokens=max_tokens))
    return _finish(mode, decomposition, [before, stage] if before else [stage], notes, max_tokens)


def _ask_steps(
    question: str,
    premise: str,
    solver: Solver,
    max_tokens: int,
    decomposition: Decomposition,
    before: Stage,
    notes: Sequence[str],
) -> Answer:
    """One call per subquestion, with `#k` replaced by what was answered before, then one for the question itself."""
    stages = [before]
    solved: list[tuple[str, str]] = []
    for number, subquestion in enumerate(decomposition.subquestions, start=1):
        asked = fill(subquestion, [known for _, known in solved])
        messages = step_messages(question, premise, solved=solved, subquestion=asked)
        generation = solver.solve(messages, max_tokens=max_tokens)
        solved.append((asked, final_answer(generation.text)))
        stages.append(Stage(f"step {number}", "remote", generation))
    messages = step_messages(question, premise, solved=solved, subquestion=None)
    stages.append(Stage("solve", "remote", solver.solve(messages, max_tokens=max_tokens)))
    return _finish("interactive", decomposition, stages, notes, max_tokens)


def _finish(
    mode: Mode, decomposition: Decomposition | None, stages: Sequence[Stage], notes: Sequence[str], max_tokens: int
) -> Answer:
    text = stages[-1].generation.text
    final = final_answer(text)
    notes = list(notes)
    for stage in stages:
        if stage.name != "decompose" and stage.generation.finish_reason == "length":
            notes.append(f"the solver's reply ({stage.name}) was cut at {max_tokens} tokens")
    if not final:
        notes.append("the solver gave no answer")
    return Answer(text, final, mode, decomposition, tuple(stages), tuple(notes))
