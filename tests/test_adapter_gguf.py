"""llama.cpp computes the same with an adapter's GGUF over its base as with the merged model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from test_adapter import LINEAR, PATTERNS, SMALL, make_adapter
from test_export import make_model

from edgedc.child import in_child
from edgedc.errors import InputError
from export.gguf.adapter import adapter_to_gguf
from export.gguf.to_gguf import to_gguf
from export.model.adapter import with_adapter
from export.model.weights import open_weights

IDS = list(range(5, 45))
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "rank-stabilised patterns": ("llama", {**PATTERNS, "use_rslora": True}),
    "embedding and output layer": ("llama-untied", {"target_modules": [*LINEAR, "embed_tokens", "lm_head"]}),
    "another family": ("qwen2", {"alpha_pattern": {"down_proj": 1}}),
}


def scores(model: Path, adapter: Path | None) -> Iterator[np.ndarray]:
    """(tokens, vocabulary); in a child process."""
    from edgedc.backends.llamacpp import LlamaCppBackend

    backend = LlamaCppBackend(model, threads=1, adapter=adapter)
    yield backend.logits(IDS, start=0)
    backend.close()


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
@pytest.mark.parametrize("name", CASES)
def test_base_and_adapter_score_as_the_merged_model(name: str, tmp_path: Path) -> None:
    family, config = CASES[name]
    base = make_model(tmp_path / "base", family, **SMALL)
    adapter = make_adapter(tmp_path / "adapter", base, **config)
    to_gguf(base, tmp_path / "base.gguf", "base", "f32")
    merged = with_adapter(open_weights(base), adapter, tied=not family.endswith("untied"))
    to_gguf(base, tmp_path / "merged.gguf", "merged", "f32", merged)
    adapter_to_gguf(base, adapter, tmp_path / "adapter.gguf", "f32")

    files = [("base.gguf", None), ("base.gguf", tmp_path / "adapter.gguf"), ("merged.gguf", None)]
    alone, together, whole = (next(in_child("llama.cpp", scores, tmp_path / f, a)) for f, a in files)
    np.testing.assert_allclose(together, whole, atol=2e-3, rtol=0)
    assert np.array_equal(together.argmax(-1), whole.argmax(-1))
    assert np.abs(alone - whole).max() > 0.1


def test_what_is_written(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama", **SMALL)
    adapter = make_adapter(tmp_path / "adapter", base, target_modules=["q_proj"])
    adapter_to_gguf(base, adapter, tmp_path / "adapter.gguf")
    reader = GGUFReader(tmp_path / "adapter.gguf")
    said = {key: reader.fields[key].contents() for key in ("general.type", "adapter.type", "adapter.lora.alpha")}
    assert said == {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0}
    held = {tensor.name: (tuple(tensor.data.shape), tensor.data.dtype.name) for tensor in reader.tensors}
    assert held == {
        "blk.0.attn_q.weight.lora_a": ((4, 64), "float16"),
        "blk.0.attn_q.weight.lora_b": ((64, 4), "float16"),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "adapter.gguf", "base"]


def test_a_module_trained_whole_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama", **SMALL)
    adapter = make_adapter(tmp_path / "adapter", base, target_modules=["q_proj"], modules_to_save=["norm"])
    with pytest.raises(InputError, match=r"norm\.weight was trained whole"):
        adapter_to_gguf(base, adapter, tmp_path / "adapter.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]
