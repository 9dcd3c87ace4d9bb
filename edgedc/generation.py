"""What a model is asked and what it gives back, for local backends and remote solvers alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

from edgedc.usage import Usage

# Hears each new piece of a reply's text as it comes, whole characters only; the pieces joined are Generation.text.
# It may be called from another thread than the caller's, and with "" while nothing comes. What it raises ends the call.
# A refusal is not heard: it is no part of an answer.
OnText = Callable[[str], None]


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Request:
    """What a local model is asked."""

    messages: Sequence[Message]
    max_tokens: int
    on_text: OnText | None = None


@dataclass(frozen=True)
class Generation:
    """One reply, with its measurements.

    Seconds are counted from the start of the request: to the first token of any kind (None when there was none), and
    to the last. `bytes_sent` is what left this device to get the reply; 0 for a local model. `finish_reason` is
    `stop`, `length` or what the server said; `refusal` where the server says in a field of its own that the model
    would not answer, and the text is then what it said instead. `booked` is what the call took from its Budget, in
    US dollars, failed attempts that may be billed included; None without one. `unsupported` names the sampling
    settings that the server did not take, so that its own defaults were used. `reasoning_tokens` are those of
    `usage.output_tokens` that went into reasoning, which is paid for and not part of the text, where the server says.
    `constrained`: a grammar kept the model from what it would have written. `beyond`: the server counts more than was
    set aside for the call, at its prices.
    """

    text: str
    usage: Usage
    first_token_s: float | None
    total_s: float
    finish_reason: str
    bytes_sent: int = 0
    booked: float | None = None
    unsupported: tuple[str, ...] = ()
    reasoning_tokens: int = 0
    constrained: bool = False
    beyond: bool = False


class Backend(Protocol):
    """A decomposer that runs on this device."""

    name: str

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The token ids of the rendered prompt, ending where the model is to go on."""

    def generate(self, messages: Sequence[Message], *, max_tokens: int, on_text: OnText | None = None) -> Generation:
        """Decode greedily. Raises ContextError when prompt + max_tokens exceed the context."""

    def close(self) -> None: ...


class Solver(Protocol):
    """A large model that is reached over a network, or stands in for one that is."""

    model: str

    def solve(
        self, messages: Sequence[Message], *, max_tokens: int, seed: int | None = None, on_text: OnText | None = None
    ) -> Generation:
        """Sampled with `seed`, where the solver samples; None: the solver's own. May be called from several threads.

        Raises SolverError, and BudgetError before a call that might go over the ceiling. SolverRefused: no later call
        would fare better; any other SolverError may pass.
        """

    def close(self) -> None: ...
