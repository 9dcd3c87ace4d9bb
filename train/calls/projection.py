"""What is still to be asked and what that will take, said before it is asked."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from edgedc.files import Row
from edgedc.generation import Message
from edgedc.prices import Price
from edgedc.usage import Usage, estimate_tokens

from .remote import CallSettings

GUESSED_REPLY = 64  # tokens, until there are replies to go by


class Call(Protocol):
    """A Draw of teaching, a Trial of screening."""

    @property
    def messages(self) -> list[Message]: ...


Made = TypeVar("Made", bound=Call, contravariant=True)


class Asked(Protocol[Made]):
    """A Teacher, or the Trials of a solver."""

    @property
    def name(self) -> str: ...
    @property
    def price(self) -> Price | None: ...

    def worst(self, call: Made, /) -> float: ...


@dataclass
class Replies:
    """Sums over the replies that a model has given: how many, their tokens, seconds, and US dollars."""

    count: int = 0
    read: int = 0
    written: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    def add(self, row: Row, cost: float) -> None:
        self.count += 1
        self.read += row["usage"]["input_tokens"]
        self.written += row["usage"]["output_tokens"]
        self.seconds += row["seconds"]
        self.cost += cost


@dataclass(frozen=True)
class Projection:
    """`calls` are to be made, `measured` replies of the same model were there before.

    US dollars are None without a price; `spent` is what the file has cost so far. With nothing measured a reply is
    taken to have GUESSED_REPLY tokens. `worst`: every call is retried to the end and gives its longest reply.
    `seconds` is the longest of what the rates and the measured speed allow; None where neither is known.
    """

    calls: int
    measured: int
    spent: float
    expected: float | None
    worst: float | None
    seconds: float | None


def project(
    missing: Iterable[Made], replies: Replies, asked: Asked[Made], settings: CallSettings, spent: float
) -> Projection:
    """From the prompts of the missing calls, and from the replies that the model asked has given before."""
    calls = prompt_tokens = 0
    worst = 0.0
    for call in missing:
        calls += 1
        prompt_tokens += sum(estimate_tokens(message["content"]) for message in call.messages)
        worst += asked.worst(call)
    usage = Usage(prompt_tokens, calls * GUESSED_REPLY, source="estimate")
    more = calls / replies.count if replies.count else 0.0
    if more:
        usage = Usage(round(more * replies.read), round(more * replies.written))
    expected = None
    if asked.price:
        expected = more * replies.cost if more else asked.price.cost(usage)
    least = []
    if settings.requests_per_minute:
        least.append(60 * calls / settings.requests_per_minute)
    if settings.tokens_per_minute:
        least.append(60 * usage.tokens / settings.tokens_per_minute)
    if more:
        least.append(more * replies.seconds / settings.concurrency)
    return Projection(
        calls, replies.count, spent, expected, worst if asked.price else None, max(least) if least else None
    )


def cost_of(row: Row, price: Price | None) -> float:
    """What a row has cost. One that was made without a price counts at this one."""
    cost, usage = row.get("cost"), row.get("usage")
    if cost is None and usage and price:
        return price.cost(Usage(**usage))
    return float(cost or 0.0)
