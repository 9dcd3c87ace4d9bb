"""Prices of models that edgedc's own table lacks, from packages that have tables and happen to be installed.

Neither package is needed. litellm's table is a JSON file, read where it lies: litellm itself takes seconds to import.
"""

import importlib
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from edgedc.prices import Price, load_prices, searches

_LITELLM = "litellm/model_prices_and_context_window_backup.json"
# Names of genai-prices: what comes with tokens of text, and what every call is billed for where it has a price; the
# rest is billed to those who ask for it (a search), or is all that there is (hours of sound).
_WITH_TOKENS = ("input_mtok", "output_mtok", "output_reasoning_mtok", "cache_")
_ALWAYS = {"requests_kcount", "output_citation_mtok"}


def installed_price(model: str) -> Price | None:
    """From litellm, else from genai-prices; None where neither is installed or knows the model.

    `date` names the package's release, as the tables have no date of their own. Raises InputError for a broken table.
    """
    return _litellm(model) or _genai_prices(model)


def _litellm(model: str) -> Price | None:
    try:
        found = metadata.distribution("litellm")
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(found.locate_file(_LITELLM)))
    if not path.is_file():  # another release may keep it elsewhere
        return None
    price = load_prices(path).get(model)
    if price is None:
        return None
    installed = datetime.fromtimestamp(path.stat().st_mtime, UTC).date()
    date = f"litellm {found.version}, installed {installed}"
    return replace(price, date=date, source=f"litellm {found.version}: {path.name}")


def _genai_prices(model: str) -> Price | None:
    try:
        version = metadata.version("genai-prices")
        package: Any = importlib.import_module("genai_prices")
    except (metadata.PackageNotFoundError, ImportError):
        return None
    try:
        found = package.calc_price(package.Usage(input_tokens=1, output_tokens=1), model_ref=model)
    except LookupError:
        return None
    said = {name: value for name, value in vars(found.model_price).items() if value is not None}
    dollars = {name: float(getattr(value, "base", value)) for name, value in said.items()}  # the shortest calls'
    fresh, output = dollars.get("input_mtok", 0.0) / 1e6, dollars.get("output_mtok", 0.0) / 1e6
    others = {name for name, value in dollars.items() if value and not name.startswith(_WITH_TOKENS)}
    free = not (fresh or output or others)
    if searches(model) or others & _ALWAYS or not ((fresh and output) or free):
        return None
    return Price(
        model,
        input=fresh,
        output=max(output, dollars.get("output_reasoning_mtok", 0.0) / 1e6),
        cached=dollars["cache_read_mtok"] / 1e6 if "cache_read_mtok" in dollars else fresh,
        date=f"genai-prices {version}",
        source=f"genai-prices {version}",
        up_to=min((int(value.tiers[0].start) for value in said.values() if hasattr(value, "tiers")), default=None),
    )
