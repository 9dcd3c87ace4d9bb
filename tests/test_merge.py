"""Merging: what comes out says what base and adapter said, or nothing comes out."""

import dataclasses
import json
import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import demonstrations, write_rows
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from edgedc.adapter import base_sha256
from edgedc.bundle import Manifest, read_manifest, write_manifest
from edgedc.errors import EdgedcError, GateError, InputError, MissingExtra
from train.agreement import compare, scores_of, texts_for
from train.fitting.base import find_base, load_base
from train.fitting.sft import train
from train.merge import merge
from train.settings import MergeSettings, TrainSettings

BASE = find_base("demo-base")[0]
MANIFEST = Manifest("adapter", "trial", "demo-base", "S_D-T", context_length=1024)


@pytest.fixture
def make(tmp_path: Path):
    """An adapter over demo-base, of any of peft's kinds, as if trained: none of its matrices is nought."""

    def made(config, *, scale: float = 0.05, **recipe) -> Path:
        base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # peft warns of what some tests are about
            tuned = get_peft_model(base, config)
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.data += scale * torch.randn_like(parameter)
        folder = tmp_path / "adapter"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            tuned.save_pretrained(folder, save_embedding_layers=False)
        AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
        write_manifest(folder, dataclasses.replace(MANIFEST, recipe=recipe))
        return folder

    return made


def lora(**more) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | more)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_figures_of_the_agreement_are_those_of_the_folder(make, tmp_path, dtype) -> None:
    adapter = make(lora())
    rows = write_rows(tmp_path / "rows.jsonl", demonstrations(6))
    out = merge(adapter, tmp_path / "out", MergeSettings(dtype=dtype, prompts=str(rows)))
    told = read_manifest(out).recipe["merge"]
    assert (told["onto"], told["dtype"], told["agreement"]["texts"]) == ("base", dtype, 6)
    assert load_file(out / "model.safetensors")["model.norm.weight"].dtype == getattr(torch, dtype)

    tokenizer, base = load_base(BASE, dtype=torch.float32)
    texts = texts_for(tokenizer, read_manifest(out), rows)
    tuned = scores_of(PeftModel.from_pretrained(base, adapter), texts)
    merged = scores_of(AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32), texts)
    assert told["agreement"]["kl"] == pytest.approx(compare(tuned, merged, texts).kl, rel=1e-3, abs=1e-12)
    plain = scores_of(load_base(BASE, dtype=torch.float32)[1], texts)
    assert compare(tuned, plain, texts).kl > 100 * told["agreement"]["kl"]  # the adapter does something


@pytest.mark.parametrize(
    "config",
    [
        lora(use_dora=True),
        lora(use_rslora=True, rank_pattern={"q_proj": 2}),
        lora(target_modules=["q_proj"], modules_to_save=["norm"]),
        lora(target_modules=["q_proj"], modules_to_save=["lm_head"]),  # apart from the embedding that it was
        lora(lora_bias=False, bias="none", init_lora_weights="gaussian"),
    ],
    ids=["dora", "rslora", "norm", "lm_head", "gaussian"],
)
def test_other_kinds_go_through_peft(make, tmp_path, config) -> None:
    out = merge(make(config), tmp_path / "out", MergeSettings())
    assert read_manifest(out).recipe["merge"]["agreement"]["kl"] < 1e-4


def test_a_merge_that_is_not_the_adapter_s_is_refused_and_leaves_nothing(make, tmp_path, edgedc) -> None:
    """Weights so large that half a part in a thousand, float16's rounding, makes another model of them."""
    adapter = make(lora(), scale=0.6)
    with pytest.raises(
        GateError, match=r"merged, it is not what was trained: KL .* worst on '.*'; nothing was written"
    ):
        merge(adapter, tmp_path / "out", MergeSettings())
    assert not (tmp_path / "out").exists()
    code, _, err = edgedc("merge", adapter, tmp_path / "out")
    assert (code, err.count("\n")) == (3, 1)


@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_lora_on_tied_embeddings_is_refused(make, tmp_path, module) -> None:
    adapter = make(lora(target_modules=["q_proj", module]))
    with pytest.raises(InputError, match=f"changes {module}, which the base uses as embedding and as output layer"):
        merge(adapter, tmp_path / "out", MergeSettings())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), "changes the prompt and no weight"),
        (lora(alora_invocation_tokens=[5, 6]), "peft cannot merge it: aLoRA does not support merging"),
        (lora(lora_bias=True), "peft cannot merge it: Impossible to merge LoRA with `lora_bias=True`"),
    ],
    ids=["prompt", "alora", "bias"],
)
def test_what_has_no_merged_form_is_refused(make, tmp_path, config, said) -> None:
    with pytest.raises(InputError, match=said):
        merge(make(config), tmp_path / "out", MergeSettings())
    assert not (tmp_path / "out").exists()


def test_a_whole_model_needs_no_merging(tmp_path, edgedc) -> None:
    code, _, err = edgedc("merge", BASE, tmp_path / "out")
    assert code == 2
    assert err == f"edgedc: {BASE}: not an adapter but a whole model already: there is nothing to merge\n"


def test_questions_that_do_not_fit_are_said(make, tmp_path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question": "Why? " * 2000}) + "\n" + json.dumps({"text": "no question"}) + "\n")
    with pytest.raises(InputError, match=r"rows.jsonl: no row with a `question` that fits the model's 1024 tokens"):
        merge(make(lora()), tmp_path / "out", MergeSettings(prompts=str(rows)))


def test_an_adapter_over_four_bits_comes_closer_on_the_dequantised_base(make, tmp_path) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra `qlora` is not installed")
    out = merge(make(lora(), tuning="qlora"), tmp_path / "out", MergeSettings())
    told = read_manifest(out).recipe["merge"]
    assert told["onto"] == "dequantised base"
    assert told["tried"]["dequantised base"]["kl"] < told["tried"]["base"]["kl"] / 3
    assert told["agreement"]["kl"] == pytest.approx(told["tried"]["dequantised base"]["kl"], rel=0.01)


def test_without_bitsandbytes_such_an_adapter_is_not_merged_unmeasured(make, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "bitsandbytes" else find_spec(name))
    with pytest.raises(MissingExtra, match="bitsandbytes is not installed"):
        merge(make(lora(), tuning="qlora"), tmp_path / "out", MergeSettings())


def test_a_damaged_adapter_is_refused(make, tmp_path) -> None:
    adapter = make(lora())
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in weights.items()}, adapter / "adapter_model.safetensors")
    with pytest.raises(EdgedcError, match=r"q_proj\.weight is not finite with this adapter: it is damaged"):
        merge(adapter, tmp_path / "out", MergeSettings())
    assert not (tmp_path / "out").exists()


def test_neither_adapter_nor_base_are_replaced(make, tmp_path) -> None:
    adapter, base = make(lora()), tmp_path / "base"
    shutil.copytree(BASE, base)
    write_manifest(adapter, dataclasses.replace(MANIFEST, base=str(base)))
    for out in (adapter, base):
        with pytest.raises(InputError, match=f"{out}: would replace {out}, which it is made from"):
            merge(adapter, out, MergeSettings())


def _without(part: str):
    return lambda weights: {name: tensor for name, tensor in weights.items() if part not in name}


def _renamed(weights):
    return {name.removeprefix("base_model."): tensor for name, tensor in weights.items()}


def _deeper(weights):
    return weights | {"base_model.model.model.layers.99.mlp.up_proj.lora_A.weight": torch.zeros(4, 256)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("layers.1."), r"adapter_model\.safetensors lacks .*layers\.1\."),
        (_without("lora_B"), r"adapter_model\.safetensors lacks .*lora_B"),
        (_without(""), r"adapter_model\.safetensors lacks "),
        (_renamed, r"adapter_model\.safetensors lacks "),
        (_deeper, r"layers\.99\.mlp\.up_proj\.lora_A.* has no place on its base demo-base"),
    ],
    ids=["a layer", "half of each", "all", "by other names", "too much"],
)
def test_matrices_that_are_not_where_they_belong_are_refused(make, tmp_path, change, said) -> None:
    """peft leaves them out, and then what is merged agrees with base and adapter: both are the base."""
    file = make(lora()) / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(InputError, match=said):
        merge(file.parent, tmp_path / "out", MergeSettings())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{", "not the settings of an adapter"),
        ("[]", "not the settings of an adapter"),
        ('{"peft_type": "LORRA"}', "not the settings of an adapter: 'LORRA'"),
        ('{"peft_type": "LORA", "r": "4", "target_modules": ["q_proj"]}', "does not fit its base demo-base"),
        ('{"peft_type": "LORA", "lora_alpha": null, "target_modules": ["q_proj"]}', "does not fit its base demo-base"),
    ],
)
def test_settings_that_are_none_are_one_line(make, tmp_path, settings, said) -> None:
    adapter = make(lora())
    (adapter / "adapter_config.json").write_text(settings)
    with pytest.raises(InputError, match=said):
        merge(adapter, tmp_path / "out", MergeSettings())


def test_half_an_adapter_is_one_line(make, tmp_path) -> None:
    file = make(lora()) / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"does not fit its base demo-base: .*header"):
        merge(file.parent, tmp_path / "out", MergeSettings())


def test_odd_rows_to_compare_on(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    odd = [
        {"question": "Whose list is missing?", "status": "decomposed"},
        {"question": "Whose list is of numbers?", "status": "decomposed", "subquestions": [3]},
        {"question": "Whose premise is null?", "premise": None},
        {"question": "Whose premise is a number?", "premise": 3},
    ]
    texts = texts_for(tokenizer, MANIFEST, write_rows(tmp_path / "odd.jsonl", odd))
    assert [(text.question, text.start) for text in texts] == [(row["question"], 0) for row in odd[:3]]
    half = write_rows(tmp_path / "half.jsonl", [*odd, {"question": "Half \ud83d?"}])
    with pytest.raises(InputError, match=r"half\.jsonl:5: not valid Unicode near .*lone surrogate"):
        texts_for(tokenizer, MANIFEST, half)


def test_a_base_that_was_replaced_since_is_refused(model_folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(model_folder, tmp_path / "base"))
    rows = write_rows(tmp_path / "rows.jsonl", demonstrations(2))
    adapter = train(rows, tmp_path / "adapter", TrainSettings(base=str(base), max_steps=1, threads=1), print).folder
    weights = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(weights[:-2] + bytes(2))
    with pytest.raises(InputError, match="was trained on other weights than"):
        merge(adapter, tmp_path / "out", MergeSettings())
    (base / "model.safetensors").write_bytes(weights)
    assert read_manifest(merge(adapter, tmp_path / "out", MergeSettings())).base_sha256 == base_sha256(base)
