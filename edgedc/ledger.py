"""Tokens, prices and the ceiling on spending."""

import json
import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from edgedc.errors import BudgetError, InputError

Source = Literal["server", "tokenizer", "estimate"]


@dataclass(frozen=True)
class Usage:
    """Tokens of one or more calls. `cached_tokens` are part of `input_tokens`.

    `source` says who counted: the server's `usage`, this machine's tokenizer, or an estimate from the text's length.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    source: Source = "tokenizer"

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def total_usage(parts: Iterable[Usage]) -> Usage:
    """The sum, with the weakest source among the parts."""
    rank: tuple[Source, ...] = ("server", "tokenizer", "estimate")
    parts = list(parts)
    return Usage(
        input_tokens=sum(u.input_tokens for u in parts),
        output_tokens=sum(u.output_tokens for u in parts),
        cached_tokens=sum(u.cached_tokens for u in parts),
        source=max((u.source for u in parts), key=rank.index, default="server"),
    )


def estimate_tokens(text: str) -> int:
    """About four characters of English are a token; used only where nobody counted, and marked as an estimate."""
    return math.ceil(len(text) / 4)


@dataclass(frozen=True)
class Price:
    """US dollars per token of one model, with the day and the origin of the figure."""

    model: str
    input: float
    output: float
    cached: float
    date: str
    source: str

    def cost(self, usage: Usage) -> float:
        """US dollars: fresh input, cached input and output, each at its own price."""
        fresh = max(usage.input_tokens - usage.cached_tokens, 0)
        return fresh * self.input + usage.cached_tokens * self.cached + usage.output_tokens * self.output


def load_prices(path: Path | None = None) -> dict[str, Price]:
    """Read a price table: the one that ships with edgedc, or a file in litellm's format.

    litellm's `model_prices_and_context_window.json` maps a model to `input_cost_per_token`, `output_cost_per_token`
    and, where the provider has it, `cache_read_input_token_cost`. Models without a price per token are left out.
    """
    if path is None:
        text, name = resources.files("edgedc").joinpath("prices.json").read_text("utf-8"), "edgedc/prices.json"
    else:
        try:
            text, name = path.read_text("utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot read the price table: {error}") from error
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not JSON ({error}); a price table is a JSON object in litellm's format") from error
    if not isinstance(table, dict):
        raise InputError(f"{name}: a price table is a JSON object in litellm's format, not a {type(table).__name__}")
    match table.get("_about"):
        case {"date": str() as date, "source": str() as source}:
            pass
        case _:
            date, source = "the file's own", name
    prices = {}
    for model, row in table.items():
        match row:
            case {"input_cost_per_token": int() | float() as fresh, "output_cost_per_token": int() | float() as output}:
                cached = row.get("cache_read_input_token_cost")
                price = Price(model, fresh, output, fresh if cached is None else cached, date, source)
                for dollars in (price.input, price.output, price.cached):
                    if not isinstance(dollars, int | float) or not 0 <= dollars < math.inf:  # false for NaN too
                        raise InputError(f"{name}: {model}: {dollars!r} is not a price per token in US dollars")
                prices[model] = price
    return prices


def find_price(model: str, path: Path | None = None) -> Price:
    """Raises InputError for a model without a price: a missing price is never taken for 0."""
    prices = load_prices(path)
    if model not in prices:
        raise InputError(
            f"no price is known for {model!r}: name a model of the table with --price-as, or give --prices FILE"
        )
    return prices[model]


@dataclass
class _Account:
    """US dollars; shared by the budgets that have one ceiling."""

    spent: float = 0.0
    reserved: float = 0.0
    calls: int = 0  # that hold a reservation
    settled: threading.Condition = field(default_factory=threading.Condition)


class Budget:
    """A ceiling in US dollars. Every call reserves its worst case first, then settles what it really cost.

    Threads may share one. `spent` is what has been spent before; with math.inf as the ceiling, calls are only booked.
    Raises InputError for a ceiling that is not a number above 0.
    """

    def __init__(self, ceiling: float, price: Price, *, spent: float = 0.0) -> None:
        if not ceiling > 0:  # false for NaN too
            raise InputError(f"--max-cost {ceiling}: give US dollars, more than 0")
        self.ceiling = ceiling
        self.price = price
        self._account = _Account(spent)

    @property
    def spent(self) -> float:
        return self._account.spent

    @property
    def reserved(self) -> float:
        return self._account.reserved

    def at(self, price: Price) -> "Budget":
        """The same ceiling and the same spending, for calls of a model with another price."""
        other = Budget(self.ceiling, price)
        other._account = self._account
        return other

    def part(self, share: float) -> "Budget":
        """A budget apart, with this share of what is left, for a worker that cannot see what the others spend."""
        left = self.ceiling - self.spent
        spent = self.spent if share == 1 or math.isinf(left) else self.ceiling - share * left
        return Budget(self.ceiling, self.price, spent=spent)

    def reserve(self, input_tokens: int, max_tokens: int, *, wait: bool = False) -> float:
        """Set the worst case of a call aside. Raises BudgetError when the ceiling does not allow it.

        `wait`: where only the reservations of other threads' calls stand in the way, wait for those to be settled. For
        callers that hold no reservation themselves.
        """
        worst = self.price.cost(Usage(input_tokens, max_tokens))
        account = self._account
        with account.settled:
            while account.spent + account.reserved + worst > self.ceiling:
                if not wait or not account.calls or account.spent + worst > self.ceiling:
                    raise BudgetError(
                        f"the next call could cost ${worst:.6f}, and ${self.spent:.6f} of --max-cost "
                        f"${self.ceiling:.6f} is spent: raise --max-cost or lower --max-tokens"
                    )
                account.settled.wait()
            account.reserved += worst
            account.calls += 1
        return worst

    def settle(self, worst: float, cost: float) -> None:
        """Give a reservation back and book what the call cost."""
        account = self._account
        with account.settled:
            account.calls -= 1
            account.reserved = account.reserved - worst if account.calls else 0.0  # sums of floats leave crumbs
            account.spent += cost
            account.settled.notify_all()
