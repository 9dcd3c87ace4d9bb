"""Prices of models that edgedc's own table lacks, from packages that have tables and happen to be installed.

Neither package is needed. litellm's table is a JSON file, read where it lies: litellm itself takes seconds to import.
"""

import importlib
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from edgedc.ledger import Price, load_prices

_LITELLM = "litellm/model_prices_and_context_window_backup.json"
_TOKENS = 1000  # few enough for the first tier, where long prompts cost more


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
    return Price(price.model, price.input, price.output, price.cached, date, f"litellm {found.version}: {path.name}")


def _genai_prices(model: str) -> Price | None:
    try:
        version = metadata.version("genai-prices")
        package: Any = importlib.import_module("genai_prices")
    except (metadata.PackageNotFoundError, ImportError):
        return None

    def per_token(**usage: int) -> float:
        return float(package.calc_price(package.Usage(**usage), model_ref=model).total_price) / _TOKENS

    try:
        fresh = per_token(input_tokens=_TOKENS)
        cached = per_token(input_tokens=_TOKENS, cache_read_tokens=_TOKENS)
        output = per_token(output_tokens=_TOKENS)
    except LookupError:
        return None
    return Price(model, fresh, output, cached, f"genai-prices {version}", f"genai-prices {version}")
