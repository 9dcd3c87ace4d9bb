"""llama.cpp computes from a GGUF what transformers computes from the model; what it cannot compute is refused."""

import json
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from test_export import edit_json, make_model

from edgedc.child import in_child
from edgedc.errors import EdgedcError, InputError
from export.gguf.to_gguf import to_gguf
from export.model.families import is_known, read_architecture
from export.model.weights import open_weights

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 3}
# Each setting must matter within the 50 tokens that are computed.
COMPUTED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3 rope": ("llama", {"rope_scaling": LLAMA3}),
    "linear rope": ("qwen3", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "head_dim": 32}),
    "yarn": ("qwen2-untied", {"rope_scaling": YARN}),
    "yarn, attention factor": ("llama", {"rope_scaling": {**YARN, "attention_factor": 0.7}}),
    "yarn, mscale": ("mistral", {"rope_scaling": {**YARN, "mscale": 0.5, "mscale_all_dim": 1.5}}),
    "mistral, long head": ("mistral-untied", {"head_dim": 32, "sliding_window": None}),
    "gemma3": ("gemma3_text", {**GEMMA, "num_hidden_layers": 7, "sliding_window": 8, "final_logit_softcapping": 2.0}),
    "gemma3, every second": ("gemma3_text", {**GEMMA, "sliding_window": 8, "sliding_window_pattern": 2}),
    "gemma3, linear rope": (
        "gemma3_text",
        {**GEMMA, "sliding_window": 8, "layer_types": ["full_attention"] * 2 + ["sliding_attention"],
         "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_local_base_freq": 100.0},
    ),
    "gemma3, full attention": ("gemma3_text", {**GEMMA, "layer_types": ["full_attention"] * 3}),
}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("to_gguf") / "small", hidden=64, intermediate_size=96)


@pytest.fixture
def model(small: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(small, tmp_path / "model"))


@pytest.mark.parametrize("name", COMPUTED)
def test_llama_cpp_computes_the_same_scores(name: str, tmp_path: Path) -> None:
    import llama_cpp
    import torch
    from transformers import AutoModelForCausalLM

    family, config = COMPUTED[name]
    model = make_model(tmp_path / "model", family, **{"hidden": 64, "intermediate_size": 96, **config})
    to_gguf(model, tmp_path / "out.gguf", "x", "f32")
    ids = list(range(5, 205, 4))
    cache = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
    path = str(tmp_path / "out.gguf")
    llama = llama_cpp.Llama(path, n_ctx=64, n_threads=1, logits_all=True, verbose=False, **cache)
    llama.eval(ids)
    got = np.array(llama.scores[: len(ids)])
    llama.close()
    loaded = AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager")
    with torch.inference_mode():
        expected = loaded(torch.tensor([ids])).logits[0].numpy()
    near = 0.02 if family.startswith("gemma") else 1e-3  # llama.cpp's GELU is a table of f16 (GGML_GELU_FP16)
    assert np.abs(got - expected).max() < near * expected.std()


def test_both_spellings_of_rope_settings_are_one(model: Path) -> None:
    """transformers 5 puts rope_theta and rope_scaling into rope_parameters."""
    edit_json(model / "config.json", rope_scaling=LLAMA3, rope_theta=50_000.0)
    old = read_architecture(model)
    edit_json(model / "config.json", rope_scaling=None, rope_theta=None)
    edit_json(model / "config.json", rope_parameters={**LLAMA3, "rope_theta": 50_000.0})
    new = read_architecture(model)
    assert old == new
    assert np.array_equal(old.constants["rope_freqs.weight"], new.constants["rope_freqs.weight"])
    assert old.metadata["rope.freq_base"] == 50_000.0


def test_both_spellings_of_gemmas_two_ropes_are_one(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"head_dim": 16, "intermediate_size": 96, "vocab_size": 326, "max_position_embeddings": 512}
    config = {"model_type": "gemma3_text", **sizes, "query_pre_attn_scalar": 16, "sliding_window": 64}
    old = {**config, "rope_theta": 5e5, "rope_local_base_freq": 2e4}
    two = {"full_attention": {"rope_type": "default", "rope_theta": 5e5}, "sliding_attention": {"rope_theta": 2e4}}
    described = []
    for version in (old, {**config, "rope_parameters": two}):
        (tmp_path / "config.json").write_text(json.dumps(version))
        described.append(read_architecture(tmp_path))
    assert described[0] == described[1]
    metadata = described[0].metadata
    assert (metadata["rope.freq_base"], metadata["rope.freq_base_swa"]) == (5e5, 2e4)
    assert metadata["attention.sliding_window"] == 64
    assert "attention.sliding_window_pattern" not in metadata


@pytest.mark.parametrize(
    ("kind", "changes", "context"),
    [
        ("mistral", {"sliding_window": 100}, 100),
        ("mistral", {"sliding_window": None}, 512),
        ("qwen2", {"sliding_window": 100, "max_window_layers": 1}, 512),
        ("qwen2", {"sliding_window": 100, "max_window_layers": 1, "use_sliding_window": True}, 100),
        ("qwen2", {"sliding_window": 100, "max_window_layers": 2, "use_sliding_window": True}, 512),
        ("llama", {"sliding_window": 100}, 512),
    ],
)
def test_where_llama_cpp_has_no_windows_the_context_ends_with_the_window(
    kind: str, changes: dict[str, Any], context: int, model: Path
) -> None:
    edit_json(model / "config.json", model_type=kind, **changes)
    assert read_architecture(model).metadata["context_length"] == context


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "family": ({"model_type": "mamba"}, "model_type 'mamba' is not one that edgedc converts"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act 'gelu' has no equal in llama.cpp's llama"),
    "bias": ({"attention_bias": True}, "attention_bias True has no equal"),
    "quantised": ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    "rope kind": ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope scaling 'dynamic'"),
    "no factor": ({"rope_scaling": {"type": "linear"}}, "rope scaling 'linear' needs a factor"),
    "half a llama3": ({"rope_scaling": {**LLAMA3, "low_freq_factor": None}}, "'llama3' needs a low_freq_factor"),
    "llama3 upside down": ({"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}}, "below high_freq_factor"),
    "base": ({"rope_theta": -1.0, "rope_parameters": None}, "rope_theta -1.0 is not a base"),
    "llama3 in qwen2": ({"model_type": "qwen2", "rope_scaling": LLAMA3}, "rope scaling 'llama3' is not done"),
    "unknown rope": ({"rope_scaling": {**YARN, "mrope_section": [1]}}, "'yarn' with mrope_section has no equal"),
    "beta": ({"rope_scaling": {**YARN, "beta_fast": 16}}, "would take beta_fast 32 for the 16"),
    "partial": ({"partial_rotary_factor": 0.5}, "would take partial_rotary_factor 1.0 for the 0.5"),
    "missing": ({"hidden_size": None}, "no usable 'hidden_size'"),
    "nonsense": ({"hidden_size": "wide"}, "cannot be used: invalid literal for int"),
    "nothing": ({"num_attention_heads": 0}, "no place in a GGUF: 2 layers, 0 heads"),
    "odd": ({"head_dim": 15}, "no place in a GGUF: 2 layers, 4 heads of 15"),
    "endless": ({"num_hidden_layers": 10**12}, "no place in a GGUF: 1000000000000 layers"),
    "head": ({"model_type": "qwen2", "head_dim": 32}, "head_dim 32 x 4 heads is not hidden_size 64"),
    "gemma's scale": ({"model_type": "gemma3_text", "query_pre_attn_scalar": 7}, "query_pre_attn_scalar 7 has no"),
    "gemma's cap": ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0"),
    "gemma's sight": ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "use_bidirectional_attent"),
    "layers": ({"model_type": "gemma3_text", "query_pre_attn_scalar": 16, "layer_types": []}, "no tensor"),
    "layer": ({"model_type": "gemma3_text", "query_pre_attn_scalar": 16, "layer_types": ["x", "y"]}, "no usable 'x'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_would_ignore_is_refused_before_any_output(name: str, model: Path) -> None:
    changes, said = REFUSED[name]
    edit_json(model / "config.json", **changes)
    with pytest.raises(InputError) as caught:
        to_gguf(model, model / "out.gguf", "x")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(model.glob("*out.gguf*"))
    assert is_known(model) == (name != "family")


@dataclass(frozen=True)
class Made:
    """A tensor that is in no file, as one is that a LoRA delta was added to."""

    name: str
    file: Path
    shape: tuple[int, ...]
    values: Any

    def read(self) -> Any:
        return self.values() if callable(self.values) else self.values.copy()


def given(model: Path, **values: Any) -> dict[str, Any]:
    """A model's tensors, some of them replaced: `down_0` for that of layer 0."""
    tensors: dict[str, Any] = dict(open_weights(model))
    for key, value in values.items():
        part, _, layer = key.partition("_")
        name = f"model.layers.{layer}.mlp.{part}_proj.weight"
        tensors[name] = Made(name, model, tensors[name].shape, value)
    return tensors


def test_given_tensors_take_the_place_of_the_folders(model: Path) -> None:
    tensors = open_weights(model)
    halves = {name: Made(name, model, t.shape, (t.read() / 2).astype(np.float16)) for name, t in tensors.items()}
    down = halves["model.layers.1.mlp.down_proj.weight"].values
    (model / "model.safetensors").unlink()
    to_gguf(model, model / "out.gguf", "x", "f32", halves)
    stored = {t.name: t.data for t in GGUFReader(model / "out.gguf").tensors}
    assert np.array_equal(stored["blk.1.ffn_down.weight"], down.astype(np.float32))


def test_bf16_is_the_nearest_even(model: Path) -> None:
    import torch

    shape = open_weights(model)["model.layers.0.mlp.down_proj.weight"].shape
    bits = np.random.default_rng(0).integers(0, 2**32, shape, dtype=np.uint32)
    bits[::2] = (bits[::2] & 0xFFFF0000) | 0x8000  # halfway between two
    bits[1::4] &= 0x80FFFFFF  # subnormal, or nearly
    values = bits.view(np.float32)
    values[~(np.abs(values) < 1e38)] = -0.0
    to_gguf(model, model / "out.gguf", "x", "bf16", given(model, down_0=values))
    stored = {t.name: t for t in GGUFReader(model / "out.gguf").tensors}["blk.0.ffn_down.weight"]
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy()
    assert stored.tensor_type.name == "BF16"
    assert np.array_equal(stored.data.view(np.int16), expected)


@pytest.mark.parametrize(("kind", "value"), [("f16", 65505.0), ("f16", -1e5), ("bf16", 3.4e38)])
def test_a_value_beyond_the_type_is_an_error_that_leaves_the_old_file(kind: Any, value: float, model: Path) -> None:
    (model / "out.gguf").write_text("old")
    down = open_weights(model)["model.layers.0.mlp.down_proj.weight"].read()
    down[3, 5] = value
    with pytest.raises(InputError, match=rf"model.layers.0.mlp.down_proj.weight holds values beyond {kind}'s"):
        to_gguf(model, model / "out.gguf", "x", kind, given(model, down_0=down))
    assert [path.name for path in model.glob("*out.gguf*")] == ["out.gguf"]
    assert (model / "out.gguf").read_text() == "old"


def test_a_full_disk_is_foreseen(model: Path) -> None:
    """A model of petabytes, of which nothing is ever read."""
    edit_json(model / "config.json", intermediate_size=2**32 - 1, hidden_size=2**20)
    tensors = {p.source: Made(p.source, model, p.shape, pytest.fail) for p in read_architecture(model).layout}
    with pytest.raises(EdgedcError, match=r"needs 54043197\d+ MB, and \d+ MB are free: make room"):
        to_gguf(model, model / "out.gguf", "x", "f16", tensors)
    assert not list(model.glob("*out.gguf*"))


def _peak(model: Path, kind: Any, deep: int) -> Iterator[int]:
    """Of the memory that is allocated meanwhile, by any thread: so this has a process of its own."""
    tensors: dict[str, Any] = dict(open_weights(model))
    for name, tensor in tensors.items():
        shape = tuple(deep if n == 96 else n for n in tensor.shape)
        if shape != tensor.shape:
            tensors[name] = Made(name, model, shape, lambda shape=shape: np.full(shape, 0.1, np.float32))
    tracemalloc.start()
    to_gguf(model, model / "out.gguf", "x", kind, tensors)
    yield tracemalloc.get_traced_memory()[1]


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_memory_stays_near_the_largest_tensor(kind: Any, small: Path, tmp_path: Path) -> None:
    model, deep = Path(shutil.copytree(small, tmp_path / "model")), 50_000
    edit_json(model / "config.json", intermediate_size=deep)
    (peak,) = in_child("measuring", _peak, model, kind, deep)
    largest = deep * 64 * 4
    assert (model / "out.gguf").stat().st_size > 6 * largest / (1 if kind == "f32" else 2)
    assert peak < 2 * largest


KILLED = """
import sys, time
from pathlib import Path
from export.gguf.to_gguf import to_gguf
from export.model.weights import open_weights, Tensor

class Slow(Tensor):
    def read(self):
        print("reading", flush=True)
        time.sleep(60)

model = Path(sys.argv[1])
tensors = open_weights(model)
last = tensors["model.norm.weight"]
tensors[last.name] = Slow(**vars(last))
to_gguf(model, model / "out.gguf", "x", "f16", tensors)
"""


def test_a_kill_leaves_the_old_file_whole(model: Path) -> None:
    to_gguf(model, model / "out.gguf", "x", "f32")
    old = (model / "out.gguf").read_bytes()
    with subprocess.Popen([sys.executable, "-c", KILLED, model], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reading\n"
        process.send_signal(signal.SIGKILL)
    assert (model / "out.gguf").read_bytes() == old
