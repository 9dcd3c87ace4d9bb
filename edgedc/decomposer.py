"""Whoever breaks questions down: asking it, and reading what it says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from edgedc.decomposition import LONGEST, MOST, Decomposition, parse
from edgedc.errors import InputError
from edgedc.files import Row
from edgedc.generation import Generation, Message, OnText
from edgedc.prompts import MAX_SUBQUESTIONS, MAX_TOKENS_DECOMPOSE, Style, decompose_messages
from edgedc.words import counted

Where = Literal["local", "remote"]

# finish_reason of a reply that the model, or a filter between it and us, would not give
REFUSALS = ("content_filter", "refusal")
# and of one that is not whole: it was cut at its longest, or its server gave up (DeepSeek, OpenRouter, vLLM)
CUT = ("length", "insufficient_system_resource", "error", "abort")


class Generate(Protocol):
    """A Backend's `generate` or a Solver's `solve`."""

    def __call__(
        self, messages: Sequence[Message], *, max_tokens: int, on_text: OnText | None = None
    ) -> Generation: ...


@dataclass(frozen=True)
class Decomposer:
    """Whoever breaks questions down, with the prompt style it knows and the most subquestions it is asked for."""

    name: str
    where: Where
    generate: Generate
    style: Style
    cap: int | None = MAX_SUBQUESTIONS
    max_tokens: int = MAX_TOKENS_DECOMPOSE


def decompose(
    decomposer: Decomposer, question: str, premise: str = "", *, on_text: OnText | None = None
) -> tuple[Decomposition, Generation]:
    """Ask for a decomposition and read it.

    Raises InputError for an empty question and whatever the decomposer raises.
    """
    if not question.strip():
        raise InputError("the question is empty: give one to decompose")
    messages = decompose_messages(question, premise, style=decomposer.style, cap=decomposer.cap)
    heard = {"on_text": on_text} if on_text else {}
    generation = decomposer.generate(messages, max_tokens=decomposer.max_tokens, **heard)
    return read_reply(generation), generation


def read_reply(generation: Generation) -> Decomposition:
    """The decomposition in a reply.

    One that is not whole, or was refused, is `unparsed`: the rest of it is unknown. So is one beyond MOST and LONGEST:
    it is no decomposition that anybody asked for, and each subquestion costs a call in interactive mode.
    """
    if generation.finish_reason in (*CUT, *REFUSALS):
        return Decomposition((), "unparsed", generation.text)
    made = parse(generation.text)
    return Decomposition((), "unparsed", generation.text) if _beyond(made) else made


def decomposition_in(row: Row) -> Decomposition:
    """The decomposition in a row that keeps a reply as `raw`, and the `status` that `read_reply` gave it."""
    if row["status"] == "unparsed":
        return Decomposition((), "unparsed", row["raw"])
    return parse(row["raw"])


def _beyond(made: Decomposition) -> str:
    """What of it is more than edgedc takes from a model; "" when nothing is."""
    if len(made.subquestions) > MOST:
        return f"{len(made.subquestions)} subquestions, more than the {MOST} that are taken from any model"
    longest = max(map(len, made.texts), default=0)
    return f"a subquestion of {longest} characters, more than the {LONGEST} that are taken" if longest > LONGEST else ""


def cut_at(generation: Generation, max_tokens: int) -> str:
    """How a reply ended that the model did not end: at the limit that it was given, or at one of its server's."""
    written = generation.usage.output_tokens
    if generation.usage.source == "server" and written < max_tokens:
        return f"was cut at {counted(written, 'token')}, before the {max_tokens} it may have: its context may be full"
    return f"was cut at {counted(max_tokens, 'token')}"


def remark(decomposer: Decomposer, decomposition: Decomposition, generation: Generation) -> str:
    """What a reader should know about a decomposition, in a line; "" when all is well.

    Subquestions beyond the cap are kept and pointed out here, never cut.
    """
    if generation.finish_reason == "length":
        return f"the decomposition {cut_at(generation, decomposer.max_tokens)}"
    if generation.finish_reason in CUT:
        return f"the decomposition is not whole: its server ended it as {generation.finish_reason!r}"
    if decomposition.status == "unparsed":
        beyond = "" if generation.finish_reason in REFUSALS else _beyond(parse(generation.text))
        return beyond or f"no subquestions could be read from the decomposer's reply {generation.text[:80]!r}"
    if decomposition.exceeds(decomposer.cap):
        return f"{len(decomposition.subquestions)} subquestions, more than the {decomposer.cap} that were asked for"
    if generation.finish_reason != "stop":
        return f"the decomposition may not be whole: its server ended it as {generation.finish_reason!r}"
    return ""
