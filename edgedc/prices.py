"""What models cost: edgedc's own table, and files in litellm's format."""

import json
import math
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from edgedc.errors import InputError
from edgedc.usage import Usage


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


def find_price(model: str, path: Path | None = None) -> Price:
    """The model's price in the file, or else in edgedc's own table, litellm's or genai-prices', where installed.

    Raises InputError for a model without a price: a missing price is never taken for 0.
    """
    if price := _known(model, path):
        return price
    where = f"in {path}" if path else "in edgedc's table, nor in litellm's or genai-prices' where they are installed"
    raise InputError(
        f"no price is known for {model!r} {where}: name a model of the table with --price-as, or give --prices FILE"
    )


def price_for(model: str, price_as: str, path: Path | None, *ceilings: float | None) -> Price | None:
    """That of `price_as`, where one is named, else the model's; None where it is not known.

    Raises InputError, as `find_price` does, where it was named, or is needed for one of the `ceilings`.
    """
    if price_as or any(ceiling is not None for ceiling in ceilings):
        return find_price(price_as or model, path)
    return _known(model, path)


def _known(model: str, path: Path | None) -> Price | None:
    if (price := load_prices(path).get(model)) or path is not None:
        return price
    from edgedc.installed_prices import installed_price

    return installed_price(model)
