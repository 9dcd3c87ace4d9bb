"""What is still to be asked and what that will take, said before it is asked."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol, TypeVar

from edgedc.files import Row
from edgedc.generation import Message
from edgedc.ledger import Price, Usage, estimate_tokens

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
    missing: Iterable[Made], rows: Iterable[Row], asked: Asked[Made], settings: CallSettings, spent: float
) -> Projection:
    """From the prompts of the missing calls, and from those of the rows that hold replies of the model asked."""
    calls = prompt_tokens = 0
    worst = 0.0
    for call in missing:
        calls += 1
        prompt_tokens += sum(estimate_tokens(message["content"]) for message in call.messages)
        worst += asked.worst(call)
    replies = [row for row in rows if asked.name in (row.get("solver"), row.get("teacher")) and row["usage"]]
    usage = Usage(prompt_tokens, calls * GUESSED_REPLY, source="estimate")
    if replies:
        read, written = (fmean(row["usage"][name] for row in replies) for name in ("input_tokens", "output_tokens"))
        usage = Usage(round(calls * read), round(calls * written))
    expected = None
    if asked.price:
        expected = calls * fmean(cost_of(row, asked.price) for row in replies) if replies else None
        expected = asked.price.cost(usage) if expected is None else expected
    least = []
    if settings.requests_per_minute:
        least.append(60 * calls / settings.requests_per_minute)
    if settings.tokens_per_minute:
        least.append(60 * usage.tokens / settings.tokens_per_minute)
    if replies:
        least.append(calls * fmean(row["seconds"] for row in replies) / settings.concurrency)
    return Projection(
        calls, len(replies), spent, expected, worst if asked.price else None, max(least) if least else None
    )


def cost_of(row: Row, price: Price | None) -> float:
    """What a row has cost. One that was made without a price counts at this one."""
    cost, usage = row.get("cost"), row.get("usage")
    if cost is None and usage and price:
        return price.cost(Usage(**usage))
    return float(cost or 0.0)
