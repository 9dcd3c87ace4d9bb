"""A base with its adapter added while it is read is the model that peft merges, and other adapters are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_export import edit_json, make_model

from edgedc.backends.transformers import TransformersBackend
from edgedc.errors import InputError
from export.model.adapter import with_adapter
from export.model.weights import open_weights

SMALL: dict[str, Any] = {"hidden": 64, "num_hidden_layers": 1, "intermediate_size": 96, "rope_theta": 10_000.0}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_adapter(folder: Path, base: Path, **config: Any) -> Path:
    """An adapter of random numbers, saved by peft."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = {"r": 4, "lora_alpha": 8, "target_modules": LINEAR, "task_type": "CAUSAL_LM", **config}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**config))
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data += torch.randn_like(parameter) * 0.1
    model.save_pretrained(folder)
    return folder


def merged_by_peft(base: Path, adapter: Path) -> dict[str, np.ndarray]:
    """As train/merge.py does it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=False)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("adapter") / "base", "llama", **SMALL)


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("adapter") / "untied", "llama-untied", **SMALL)


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    return make_adapter(base.with_name("adapter"), base)


@pytest.fixture
def broken(adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "broken"))


PATTERNS = {"rank_pattern": {"layers.0.mlp.up_proj": 2, "k_proj": 8}, "alpha_pattern": {r".*\.[gq].*_proj": 3}}
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True, "r": 6, "lora_alpha": 16},
    "patterns": PATTERNS,
    "patterns, rank-stabilised": {**PATTERNS, "use_rslora": True},
    "norms trained whole": {"target_modules": ["q_proj"], "modules_to_save": ["norm"]},
}
UNTIED: dict[str, dict[str, Any]] = {
    "embedding and output layer": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
    "output layer trained whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}


def assert_merged_alike(base: Path, adapter: Path, *, tied: bool) -> None:
    before = open_weights(base)
    ours = with_adapter(before, adapter, tied=tied)
    theirs = merged_by_peft(base, adapter)
    assert list(ours) == list(before)
    changed = 0
    for name, tensor in ours.items():
        values = tensor.read()
        assert values.dtype == np.float32
        assert values.shape == tensor.shape == before[name].shape
        # The same operations in the same order; only the sums within a product may be grouped in another way.
        np.testing.assert_allclose(values, theirs[name], rtol=0, atol=np.spacing(np.float32(4)))
        halves = np.abs(values.astype(np.float16).view(np.int16) - theirs[name].astype(np.float16).view(np.int16))
        assert halves.max() <= 1
        changed += not np.array_equal(values, before[name].read())
    assert changed


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
@pytest.mark.parametrize("name", [*CONFIGS, *UNTIED])
def test_the_sum_is_what_peft_merges(name: str, base: Path, untied: Path, tmp_path: Path) -> None:
    folder = base if name in CONFIGS else untied
    adapter = make_adapter(tmp_path / "adapter", folder, **(CONFIGS | UNTIED)[name])
    assert_merged_alike(folder, adapter, tied=name in CONFIGS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_half_precision_base_is_merged_in_float32(dtype: str, base: Path, adapter: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    half = Path(shutil.copytree(base, tmp_path / "half"))
    tensors = {n: t.to(getattr(torch, dtype)) for n, t in load_file(base / "model.safetensors").items()}
    save_file(tensors, half / "model.safetensors", metadata={"format": "pt"})
    before = open_weights(half)
    ours = with_adapter(before, adapter, tied=True)
    for name, values in merged_by_peft(half, adapter).items():
        if name != "lm_head.weight":
            np.testing.assert_allclose(ours[name].read(), values, rtol=0, atol=np.spacing(np.float32(4)))


def test_a_conv1d_has_its_delta_turned(tmp_path: Path) -> None:
    """GPT-2's layers, which peft marks with fan_in_fan_out."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50, n_positions=16)).save_pretrained(
        tmp_path / "base"
    )
    adapter = make_adapter(tmp_path / "adapter", tmp_path / "base", target_modules=["c_attn"], fan_in_fan_out=True)
    assert json.loads((adapter / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    assert_merged_alike(tmp_path / "base", adapter, tied=True)


def test_many_small_pieces_make_the_same_sum(base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    tensor = with_adapter(open_weights(base), adapter, tied=True)[name]
    whole = tensor.read()
    monkeypatch.setattr("export.model.adapter._CHUNK", 7 * 64)
    np.testing.assert_allclose(tensor.read(), whole, rtol=0, atol=np.spacing(np.float32(4)))


def test_the_reference_merges_in_memory(base: Path, adapter: Path, tmp_path: Path) -> None:
    """What the gate compares with: base and adapter in transformers give the scores of the merged weights."""
    merged = Path(shutil.copytree(base, tmp_path / "merged"))
    tensors = {name: tensor.read() for name, tensor in with_adapter(open_weights(base), adapter, tied=True).items()}
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})
    ids = list(range(5, 45))
    scores = [
        backend.logits(ids, start=0)
        for backend in (
            TransformersBackend(base, threads=1),
            TransformersBackend(base, adapter=adapter, threads=1),
            TransformersBackend(merged, threads=1),
        )
    ]
    np.testing.assert_allclose(scores[1], scores[2], atol=1e-4)
    assert np.abs(scores[0] - scores[1]).max() > 0.1


def edit_tensors(adapter: Path, **changes: np.ndarray | None) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = {**load_file(file), **{name.replace("__", "."): values for name, values in changes.items()}}
    save_file({name: values for name, values in tensors.items() if values is not None}, file)


def rename(adapter: Path, old: str, new: str) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file({name.replace(old, new): values for name, values in load_file(file).items()}, file)


def truncate(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickle(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")


Q_A = "base_model__model__model__layers__0__self_attn__q_proj__lora_A__weight"
Q_B = Q_A.replace("lora_A", "lora_B")
CONFIG = "adapter_config.json"
BREAKS = {
    "DoRA": (lambda a: edit_json(a / CONFIG, use_dora=True), "DoRA cannot be added", True),
    "bias": (lambda a: edit_json(a / CONFIG, bias="all"), "bias 'all' cannot be added", True),
    "other type": (lambda a: edit_json(a / CONFIG, peft_type="IA3"), "peft_type 'IA3'", True),
    "replication": (lambda a: edit_json(a / CONFIG, layer_replication=[[0, 1], [0, 1]]), "layer_replication", True),
    "parameters": (lambda a: edit_json(a / CONFIG, target_parameters=["x"]), "target_parameters", True),
    "tokens": (lambda a: edit_json(a / CONFIG, trainable_token_indices=[1]), "trainable_token_indices", True),
    "names a module to import": (lambda a: edit_json(a / CONFIG, megatron_config={"x": 1}), "megatron_config", True),
    "PiSSA": (lambda a: edit_json(a / CONFIG, init_lora_weights="pissa"), "init_lora_weights 'pissa'", True),
    "not known": (lambda a: edit_json(a / CONFIG, use_lora_of_2030=True), "use_lora_of_2030", True),
    "lora_bias": (lambda a: rename(a, "q_proj.lora_A.weight", "q_proj.lora_B.bias"), "lora_bias", True),
    "pickled": (pickle, "pickled adapters are not loaded", False),
    "no adapter": (lambda a: (a / CONFIG).unlink(), "no adapter_config.json", False),
    "no rank": (lambda a: edit_json(a / CONFIG, r=0), "r must be whole numbers", False),
    "no alpha": (lambda a: edit_json(a / CONFIG, lora_alpha="x"), "no usable r, lora_alpha", False),
    "bad pattern": (lambda a: edit_json(a / CONFIG, alpha_pattern={"(": 1}), "no usable r, lora_alpha", False),
    "other rank": (lambda a: edit_json(a / CONFIG, r=5), "makes the rank 5", False),
    "truncated": (truncate, "truncated", False),
    "NaN": (lambda a: edit_tensors(a, **{Q_A: np.full((4, 64), np.nan, np.float32)}), "holds NaN", False),
    "half a pair": (lambda a: edit_tensors(a, **{Q_A: None}), "has lora_B alone", False),
    "another base": (lambda a: rename(a, "layers.0", "layers.7"), "which has no tensor model.layers.7.", False),
    "another size": (
        lambda a: edit_tensors(a, **{Q_A: np.zeros((4, 32), np.float32)}),
        "wrong adapter for this base: its model.layers.0.self_attn.q_proj.weight is (64, 32), the base's (64, 64)",
        False,
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_cannot_be_added_is_refused_in_one_line(name: str, base: Path, broken: Path) -> None:
    damage, said, names_merge = BREAKS[name]
    damage(broken)
    with pytest.raises(InputError) as caught:
        with_adapter(open_weights(base), broken, tied=True)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ("edgedc merge" in str(caught.value)) == names_merge


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`", "ignore:Setting `save_embedding_layers`")
@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_a_tied_embedding_stays_one(target: str, base: Path, tmp_path: Path) -> None:
    """peft adds the delta to both of its uses, and the merged model is another one than was trained."""
    adapter = make_adapter(tmp_path / "lora", base, target_modules=["q_proj", target])
    with pytest.raises(InputError, match="untie the base before training"):
        with_adapter(open_weights(base), adapter, tied=True)
    adapter = make_adapter(tmp_path / "whole", base, target_modules=["q_proj"], modules_to_save=[target])
    with pytest.raises(InputError, match=r"of its own over a base with tied embeddings .* edgedc merge"):
        with_adapter(open_weights(base), adapter, tied=True)


def test_a_sum_that_overflows_is_said_when_it_is_read(base: Path, broken: Path) -> None:
    edit_tensors(broken, **{Q_A: np.full((4, 64), 1e38, np.float32), Q_B: np.full((64, 4), 10, np.float32)})
    tensor = with_adapter(open_weights(base), broken, tied=True)["model.layers.0.self_attn.q_proj.weight"]
    with pytest.raises(InputError, match="not finite with this adapter"):
        tensor.read()
