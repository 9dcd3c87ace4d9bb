"""Tokens, prices and the ceiling on spending."""

import json
import math
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Protocol

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
    """US dollars per token of one model, with the day and the origin of the figure.

    `up_to` is how many tokens a call may read at these prices; None where a long one costs no more. Where tokens that a
    model thinks with cost more than what it says, `output` is theirs.
    """

    model: str
    input: float
    output: float
    cached: float
    date: str
    source: str
    up_to: int | None = None

    def cost(self, usage: Usage) -> float:
        """US dollars: fresh input, cached input and output, each at its own price."""
        fresh = max(usage.input_tokens - usage.cached_tokens, 0)
        return fresh * self.input + usage.cached_tokens * self.cached + usage.output_tokens * self.output


def load_prices(path: Path | None = None) -> dict[str, Price]:
    """Read a price table: the one that ships with edgedc, or a file in litellm's format.

    litellm's `model_prices_and_context_window.json` maps a model to `input_cost_per_token`, `output_cost_per_token`
    and, where the provider has it, `cache_read_input_token_cost`. Where long calls cost more a row has
    `input_cost_per_token_above_200k_tokens`, or these prices in each of `tiered_pricing`, which begins with the
    shortest. Models that are not priced by the token are left out.
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
    rows = ((model, _shortest(row)) for model, row in table.items() if isinstance(row, dict))
    prices = (_price(model, row, name, date, source) for model, row in rows)
    return {price.model: price for price in prices if price}


def _shortest(row: dict[str, Any]) -> dict[str, Any]:
    match row.get("tiered_pricing"):
        case [dict() as tier, *_]:
            return row | tier
    return row


def _price(model: str, row: dict[str, Any], table: str, date: str, source: str) -> Price | None:
    """None where tokens are not all that a call costs, or not priced."""
    match row:
        case {"input_cost_per_token": int() | float() as fresh, "output_cost_per_token": int() | float() as output}:
            cached, thought = row.get("cache_read_input_token_cost"), row.get("output_cost_per_reasoning_token")
        case _:
            return None
    figures = [fresh, output, fresh if cached is None else cached, output if thought is None else thought]
    for dollars in figures:
        if not isinstance(dollars, int | float) or not 0 <= dollars < math.inf:  # false for NaN too
            raise InputError(f"{table}: {model}: {dollars!r} is not a price per token in US dollars")
    if not _by_the_token(model, row):
        return None
    return Price(model, fresh, max(output, figures[3]), figures[2], date, source, _up_to(row))


def _up_to(row: dict[str, Any]) -> int | None:
    limits = [int(found[1]) * 1000 for name in row if (found := _LONG.fullmatch(name))]
    match row.get("range"):
        case [_, int() | float() as end] if end < math.inf:
            limits.append(int(end))
    return min(limits, default=None)


_LONG = re.compile(r"(?:input_cost_per_token|output_cost_per_token|cache_read_input_token_cost)_above_(\d+)k_tokens")
_SEARCHING = re.compile(r"\bsonar\b|-search-|\bdeep-research\b")


def searches(model: str) -> bool:
    """Whether a model searches the web at every call: that is billed by the search, whether a table knows it or not."""
    return _SEARCHING.search(model) is not None


def _by_the_token(model: str, row: dict[str, Any]) -> bool:
    """Whether tokens are all that a call costs. What is billed by the second, the image or otherwise has 0 for its
    tokens, or for its input or output, as a model does that is free: only where nothing else has a price is it one."""
    if row["input_cost_per_token"] and row["output_cost_per_token"]:
        return not row.get("input_cost_per_request") and not searches(model)
    return not any(value for name, value in row.items() if "cost" in name)


def known_price(model: str, path: Path | None = None) -> Price | None:
    """The model's price in the file, or else in edgedc's own table, litellm's or genai-prices', where installed."""
    if (price := load_prices(path).get(model)) or path is not None:
        return price
    from edgedc.installed_prices import installed_price

    return installed_price(model)


def find_price(model: str, path: Path | None = None) -> Price:
    """As `known_price`. Raises InputError for a model without a price: a missing price is never taken for 0."""
    if price := known_price(model, path):
        return price
    where = f"in {path}" if path else "in edgedc's table, nor in litellm's or genai-prices' where they are installed"
    raise InputError(
        f"no price is known for {model!r} {where}: name a model of the table with --price-as, or give --prices FILE"
    )


@dataclass(frozen=True)
class Hold:
    """What an account has set aside for a call: its worst case in US dollars, and the account's number for it."""

    worst: float
    number: int = 0


class Account(Protocol):
    """Money that several callers draw on, in US dollars: Purse in memory, or edgedc.spending's file."""

    @property
    def spent(self) -> float: ...

    @property
    def reserved(self) -> float: ...

    def hold(self, worst: float, *, wait: bool) -> Hold:
        """Set money aside. Raises BudgetError where a ceiling does not allow it; see Budget.reserve."""

    def settle(self, hold: Hold, cost: float) -> None:
        """Give a reservation back and book what the call cost."""


class Purse:
    """An account in this process's memory, for any number of threads, with one ceiling."""

    def __init__(self, ceiling: float, spent: float = 0.0) -> None:
        self.ceiling, self.spent, self.reserved = ceiling, spent, 0.0
        self._calls = 0  # that hold a reservation
        self._settled = threading.Condition()

    def hold(self, worst: float, *, wait: bool) -> Hold:
        with self._settled:
            while self.spent + self.reserved + worst > self.ceiling:
                if not wait or not self._calls or self.spent + worst > self.ceiling:
                    raise BudgetError(
                        f"the next call could cost ${worst:.6f}, and ${self.spent:.6f} of --max-cost "
                        f"${self.ceiling:.6f} is spent: raise --max-cost or lower --max-tokens"
                    )
                self._settled.wait()
            self.reserved += worst
            self._calls += 1
        return Hold(worst)

    def settle(self, hold: Hold, cost: float) -> None:
        with self._settled:
            self._calls -= 1
            self.reserved = self.reserved - hold.worst if self._calls else 0.0  # sums of floats leave crumbs
            self.spent += cost
            self._settled.notify_all()


class Budget:
    """What calls of one model are paid from. Every call reserves its worst case first, then settles what it cost.

    Made with a ceiling in US dollars, it has a Purse of its own; `spent` is what has been spent before, and with
    math.inf as the ceiling calls are only booked. `Budget.on(account, price)` draws on any other account. Raises
    InputError for a ceiling that is not a number above 0.
    """

    def __init__(self, ceiling: float, price: Price, *, spent: float = 0.0) -> None:
        if not ceiling > 0:  # false for NaN too
            raise InputError(f"--max-cost {ceiling}: give US dollars, more than 0")
        self.ceiling = ceiling
        self.price = price
        self._account: Account = Purse(ceiling, spent)

    @classmethod
    def on(cls, account: Account, price: Price) -> "Budget":
        """Draw on an account that has its own ceilings."""
        made = cls(math.inf, price)
        made._account = account
        return made

    @property
    def spent(self) -> float:
        return self._account.spent

    @property
    def reserved(self) -> float:
        return self._account.reserved

    def at(self, price: Price) -> "Budget":
        """The same account, for calls of a model with another price."""
        made = Budget(self.ceiling, price)
        made._account = self._account
        return made

    def part(self, share: float) -> "Budget":
        """A budget apart, with this share of what is left, for a worker that cannot see what the others spend."""
        left = self.ceiling - self.spent
        spent = self.spent if share == 1 or math.isinf(left) else self.ceiling - share * left
        return Budget(self.ceiling, self.price, spent=spent)

    def reserve(self, input_tokens: int, max_tokens: int, *, attempts: int = 1, wait: bool = False) -> Hold:
        """Set the worst case of a call aside, which may be sent `attempts` times.

        `wait`: where only the reservations of other calls stand in the way, wait for those to be settled. For callers
        that hold no reservation themselves. Raises BudgetError when a ceiling does not allow it, and for a call that
        may be too long for the price.
        """
        price = self.price
        if price.up_to is not None and input_tokens > price.up_to:
            raise BudgetError(
                f"a call could have {input_tokens:,} tokens, and the price of {price.model} ({price.source}) is for up "
                f"to {price.up_to:,}: shorten the question, or give --prices FILE with a price without that limit"
            )
        return self._account.hold(attempts * price.cost(Usage(input_tokens, max_tokens)), wait=wait)

    def settle(self, hold: Hold, cost: float) -> None:
        """Give a reservation back and book what the call cost."""
        self._account.settle(hold, cost)
