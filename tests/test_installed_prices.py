import json
from pathlib import Path

import pytest

from edgedc.errors import InputError
from edgedc.installed_prices import installed_price
from edgedc.prices import find_price


def test_an_installed_litellm_gives_prices_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, about = tmp_path / "litellm", tmp_path / "litellm-9.8.7.dist-info"
    package.mkdir()
    about.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    table = {"new-model": {"input_cost_per_token": 3e-6, "output_cost_per_token": 4e-6}}
    (package / "model_prices_and_context_window_backup.json").write_text(json.dumps(table))
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: litellm\nVersion: 9.8.7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    price = find_price("new-model")
    assert (price.input, price.output, price.cached) == (3e-6, 4e-6, 3e-6)
    assert "litellm 9.8.7" in price.source
    assert price.date.startswith("litellm 9.8.7, installed 20")
    assert find_price("gpt-4o").source != price.source  # edgedc's own table comes first
    with pytest.raises(InputError, match=r"'unheard-of'.*--price-as.*--prices FILE"):
        find_price("unheard-of")


def test_genai_prices_is_asked_where_it_is_installed() -> None:
    pytest.importorskip("genai_prices")
    price = installed_price("gpt-4o")
    assert price is not None
    assert (price.input, price.output, price.cached) == pytest.approx((2.5e-6, 1e-5, 1.25e-6))
    long = installed_price("gemini-2.5-pro")
    assert long is not None
    assert long.up_to == 200_000
    # by the hour, by the request too, by its searches too, and not known
    for model in ("whisper-1", "perplexity/sonar", "gpt-4o-search-preview", "unheard-of"):
        assert installed_price(model) is None, model
