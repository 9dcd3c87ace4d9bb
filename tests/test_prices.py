import dataclasses
import json
from pathlib import Path

import pytest

from edgedc.errors import ContextError, InputError
from edgedc.ledger import Budget
from edgedc.prices import Price, find_price, load_prices
from edgedc.usage import Usage

PRICE = Price("big", input=2e-6, output=10e-6, cached=0.5e-6, date="2026-01-01", source="a test")


def test_cost_by_hand() -> None:
    # 600 fresh at $2, 400 cached at $0.50 and 200 out at $10 per million
    assert PRICE.cost(Usage(1000, 200, cached_tokens=400)) == pytest.approx(0.0012 + 0.0002 + 0.002)
    # a server that reports more cached tokens than input does not make the call cheaper than its output
    assert PRICE.cost(Usage(0, 200, cached_tokens=400)) == pytest.approx(0.0002 + 0.002)


def test_the_table_that_ships_is_dated() -> None:
    prices = load_prices()
    assert prices
    assert all(p.date.startswith("20") and p.source and p.output > 0 for p in prices.values())


def test_an_unknown_model_is_an_error_and_not_free(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'no-such-model'.*--price-as"):
        find_price("no-such-model")
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"per-image": {"output_cost_per_image": 0.1}, "half": {"input_cost_per_token": 1e-6}}))
    for model in ("per-image", "half"):
        with pytest.raises(InputError, match="no price is known"):
            find_price(model, path)
    with pytest.raises(InputError, match="no price is known for 'gpt-4o' in"):  # no other table stands in for a file
        find_price("gpt-4o", path)


@pytest.mark.parametrize(
    "other",
    [
        {"output_cost_per_second": 1e-4},
        {"input_cost_per_character": 2e-7},
        {"output_cost_per_image": 0.04},
        {"search_context_cost_per_query": {"search_context_size_low": 0.01}},
        {"output_cost_per_token": 1e-6},  # what it reads costs something too
        {"input_cost_per_token": 1e-6},
        {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6, "input_cost_per_request": 0.005},
    ],
    ids=str,
)
def test_a_model_that_is_billed_otherwise_is_not_free(tmp_path: Path, other: dict[str, object]) -> None:
    path = tmp_path / "prices.json"
    free = {"input_cost_per_token": 0, "output_cost_per_token": 0.0, "output_cost_per_second": 0, "mode": "chat"}
    path.write_text(json.dumps({"free": free, "m": free | other}))
    assert find_price("free", path).cost(Usage(1000, 1000)) == 0
    with pytest.raises(InputError, match="no price is known for 'm'"):
        find_price("m", path)


def test_a_table_in_litellms_format(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    row = {"input_cost_per_token": 2e-6, "output_cost_per_token": 1e-5}
    path.write_text(json.dumps({"a": row, "b": row | {"cache_read_input_token_cost": 5e-7}}))
    assert find_price("a", path).cached == 2e-6  # no discount is known, so none is counted
    assert find_price("b", path).cached == 5e-7
    assert find_price("a", path).source == str(path)


def test_tokens_that_a_model_thinks_with_may_cost_more(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    row = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "output_cost_per_reasoning_token": 6e-6}
    path.write_text(json.dumps({"m": row}))
    assert find_price("m", path).output == 6e-6  # as much as a reply can cost


@pytest.mark.parametrize(
    "more",
    [
        {"input_cost_per_token_above_272k_tokens": 3e-6, "output_cost_per_token_above_200k_tokens": 9e-6},
        {
            "tiered_pricing": [
                {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "range": [0, 200000.0]},
                {"input_cost_per_token": 3e-6, "output_cost_per_token": 4e-6, "range": [200000.0, 1e6]},
            ]
        },
    ],
    ids=["above", "tiered"],
)
def test_a_call_that_is_too_long_for_a_price_is_not_made_at_it(tmp_path: Path, more: dict[str, object]) -> None:
    path = tmp_path / "prices.json"
    flat = {} if "tiered_pricing" in more else {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    path.write_text(json.dumps({"m": flat | more}))
    price = find_price("m", path)
    assert (price.input, price.output, price.up_to) == (1e-6, 2e-6, 200_000)
    budget = Budget(10, price)
    assert budget.reserve(200_000, 1000, attempts=4).worst == pytest.approx(0.808)
    with pytest.raises(ContextError, match=r"200,001 tokens.*price of m \(.*\) is for up to 200,000:.*--prices FILE"):
        budget.reserve(200_001, 1000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{",
        "[" * 100_000,
        '{"m": {"input_cost_per_token": NaN, "output_cost_per_token": 1}}',
        '{"m": {"input_cost_per_token": 1, "output_cost_per_token": Infinity}}',
        '{"m": {"input_cost_per_token": -1, "output_cost_per_token": 1}}',
        '{"m": {"input_cost_per_token": 1, "output_cost_per_token": 1, "cache_read_input_token_cost": "free"}}',
    ],
)
def test_a_bad_price_table_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"prices\.json") as caught:
        load_prices(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="nothing"):
        load_prices(tmp_path / "nothing")


def test_litellms_own_table(data_folder: Path) -> None:
    path = data_folder / "prices" / "litellm_model_prices_and_context_window.json"
    prices = load_prices(path)
    assert len(prices) > 1000
    assert find_price("gpt-4o-mini", path).input == pytest.approx(1.5e-7)
    assert "gemini/lyria-3-clip-preview" not in prices  # billed by the song
    assert "perplexity/sonar-small-online" not in prices  # and by the request
    assert prices["ollama/llama3.1"].output == 0
    assert "perplexity/sonar-pro" not in prices  # by its searches too
    assert prices["dashscope/qwen3-max"].up_to == 32_000
    assert prices["dashscope/qwen-turbo"].output == 5e-7  # 2e-7 without thinking
    for model, price in load_prices().items():
        assert dataclasses.replace(prices[model], date=price.date, source=price.source) == price
