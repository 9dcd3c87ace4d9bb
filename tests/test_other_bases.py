"""Bases that are more than a decoder of text, or decode in another way than most."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_export import edit_json, make_model, make_tokenizer
from test_oracle import train_sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    FalconH1Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from edgedc.backends.transformers import TransformersBackend, as_its_file_has_it
from edgedc.errors import InputError
from export.gguf.quantize import estimate
from export.gguf.tensors import StoredTensor
from export.gguf.vocab_spm import prefix_of
from export.order import Order, check_order
from train.fitting.base import find_base, load_base, with_adapter
from train.settings import TrainSettings

ROOT = Path(__file__).parents[1]
IDS = list(range(5, 45))
SIZES = {"vocab_size": 416, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 3, "bos_token_id": None, "pad_token_id": 0}


def like_llama_2(folder: Path) -> Tokenizer:
    """Give a model a tokenizer of that kind, and a token that its configs alone know of."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    space = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=["▁", "\n"], show_progress=False
    )
    tokenizer.train_from_iterator(
        ["How many legs do two cats have? " * 9, "abcdefghij klmnopqrstuvwxyz 0123456789"], trainer
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    marks = {"content": "<|end|>", "special": True, "normalized": False}
    marks |= dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
    edit_json(
        folder / "tokenizer_config.json",
        tokenizer_class="LlamaTokenizer",
        legacy=True,
        added_tokens_decoder={str(tokenizer.get_vocab_size()): marks},
        **roles,
    )
    return tokenizer


def scores(model: torch.nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return model.eval()(input_ids=torch.tensor([IDS])).logits[0].float().numpy()


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that reads pictures too."""
    folder = tmp_path_factory.mktemp("seeing") / "base"
    torch.manual_seed(0)
    eye = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    eye |= {"image_size": 28, "patch_size": 14}
    text = SIZES | HEADS | {"query_pre_attn_scalar": 16, "max_position_embeddings": 512}
    whole = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=eye, mm_tokens_per_image=4))
    whole.save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def test_of_a_base_that_sees_the_part_that_writes_is_trained(seeing: Path, tmp_path: Path) -> None:
    whole = Gemma3ForConditionalGeneration.from_pretrained(seeing, dtype=torch.float32)
    tokenizer, part = load_base(str(seeing), dtype=torch.float32)
    assert part.config.model_type == "gemma3_text"
    assert not any("vision" in name for name, _ in part.named_parameters())
    assert np.array_equal(scores(part), scores(whole))
    part.save_pretrained(tmp_path / "part")
    tokenizer.save_pretrained(tmp_path / "part")
    backend = TransformersBackend(tmp_path / "part", threads=1)
    assert backend.context_length == 512
    assert np.allclose(backend.logits(IDS, start=0), scores(whole), atol=1e-5)


def test_that_part_in_four_bits_is_prepared_as_any_base(seeing: Path) -> None:
    pytest.importorskip("bitsandbytes")
    part = load_base(str(seeing), dtype=torch.bfloat16, quantised=True)[1]
    adapted = with_adapter(part, TrainSettings(lora_rank=2, tuning="qlora"))
    norms = [weight for name, weight in adapted.named_parameters() if "layernorm" in name]
    assert {weight.dtype for weight in norms} == {torch.float32}  # peft's prepare_model_for_kbit_training


def test_a_text_is_read_as_tokenizer_json_says(tmp_path: Path) -> None:
    """transformers 5 builds Llama 2's tokenizer otherwise, and GGUF has no place for what it then wrote."""
    folder = make_model(tmp_path / "base", "llama")
    written = like_llama_2(folder)
    tokenizer, model = load_base(str(folder), dtype=torch.float32)
    model.save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    backends = [TransformersBackend(path, threads=1) for path in (folder, tmp_path / "student")]
    for text in ("many cats", " many cats", "  two", "</s>cats", "</s> cats", "a</s>\nb<s>  c", "\ncats", ""):
        ids = written.encode(text, add_special_tokens=False).ids
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids, text
        assert [backend.tokenize(text) for backend in backends] == [ids, ids], text
        assert backends[0].text_of(ids) == written.decode(ids), text
    assert {tokenizer.convert_tokens_to_ids("<|end|>")} == {b.tokenize("<|end|>")[0] for b in backends}
    assert tokenizer.convert_tokens_to_ids("<|end|>") == written.get_vocab_size()
    path = tmp_path / "student" / "tokenizer.json"
    assert prefix_of(path, json.loads(path.read_text("utf-8")))  # which GGUF has a place for


def test_a_text_is_read_as_sentencepiece_says_where_there_is_no_tokenizer_json(tmp_path: Path) -> None:
    """As in Vicuna's folder: a space before every stretch, whatever it begins with."""
    pytest.importorskip("sentencepiece")
    folder = make_model(tmp_path / "base", "llama")
    (folder / "tokenizer.json").unlink()
    train_sentencepiece(folder)
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    edit_json(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer", **roles)
    tokenizer, model = load_base(str(folder), dtype=torch.float32)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    (space,), end = tokenizer.convert_tokens_to_ids(["▁"]), tokenizer.eos_token_id
    assert ids(" How many") == [space, *ids("How many")]
    assert ids("How</s>many</s> many") == [*ids("How"), end, *ids("many"), end, space, *ids("many")]
    tokenizer.save_pretrained(tmp_path / "student")
    model.save_pretrained(tmp_path / "student")
    path = tmp_path / "student" / "tokenizer.json"
    assert prefix_of(path, json.loads(path.read_text("utf-8"))) == "every"
    assert TransformersBackend(tmp_path / "student", threads=1).tokenize("a</s> b") == ids("a</s> b")


def test_a_tokenizer_of_another_kind_stays_as_it_is(tmp_path: Path) -> None:
    """Without tokenizer.json: one in Python, and one that normalises or splits in a way of its own."""
    assert as_its_file_has_it(slow := SimpleNamespace(is_fast=False), tmp_path) is slow
    own = Tokenizer(models.Unigram([("▁a", -1.0), ("b", -2.0)], 0))
    own.normalizer, own.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace(prepend_scheme="always")
    fast = PreTrainedTokenizerFast(tokenizer_object=own)
    before = fast.backend_tokenizer.to_str()
    assert as_its_file_has_it(fast, tmp_path).backend_tokenizer.to_str() == before


def test_nothing_is_said_while_a_model_runs(tmp_path: Path) -> None:
    """By transformers, of bars, of names that it is about to drop, and of a class that a tokenizer is not of."""
    folder = make_model(tmp_path / "base", "llama")
    edit_json(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast")  # as R1's distillates have it
    words = ("-m", "edgedc", "decompose", "--no-grammar", "--max-tokens", "3", "--model", str(folder), "How many?")
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in (0, 1), done.stderr  # a random model writes no list
    assert all(line.startswith(("edgedc:", "note:", "backend:")) for line in done.stderr.splitlines()), done.stderr


def test_attention_is_capped_where_the_model_caps_it(tmp_path: Path) -> None:
    """PyTorch's kernel has no caps, and transformers 4.57 took it for Gemma 2."""
    folder = make_model(tmp_path / "base", "gemma2", hidden=64, query_pre_attn_scalar=1, attn_logit_softcapping=2.0)
    exact = scores(AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32))
    assert np.allclose(TransformersBackend(folder, threads=1).logits(IDS, start=0), exact, atol=1e-5)
    assert np.allclose(scores(load_base(str(folder), dtype=torch.float32)[1]), exact, atol=1e-5)


@pytest.mark.skipif(not version("transformers").startswith("4."), reason="transformers 5 reads what it has saved")
@pytest.mark.parametrize("part", [{}, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}])
def test_what_transformers_5_has_saved_is_not_read_as_another_model(part: dict[str, object], tmp_path: Path) -> None:
    """transformers 4.57 takes 10,000 for the rope's base, and says nothing."""
    folder = make_model(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text("utf-8")) | part
    del config["rope_theta"]
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    check_order(folder, Order(("gguf",), gated=False))  # which edgedc reads by itself
    loads: list[Callable[[], object]] = [
        lambda: TransformersBackend(folder, threads=1),
        lambda: find_base(str(folder)),
        lambda: check_order(folder, Order(("gguf",))),
        lambda: check_order(folder, Order(("onnx",), gated=False)),
    ]
    for load in loads:
        if part:
            with pytest.raises(
                InputError, match=r"base: saved by transformers 5, which 4\..* pip install 'transformers>=5'"
            ):
                load()
        else:
            load()


def test_mambas_output_is_not_adapted() -> None:
    """Where its kernels for GPUs run they read that weight past an adapter, and peft refuses it in some families."""
    mamba = {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
    model = AutoModelForCausalLM.from_config(FalconH1Config(**SIZES, **HEADS, **mamba))
    adapted = [
        name for name, _ in with_adapter(model, TrainSettings(lora_rank=2)).named_parameters() if "lora_A" in name
    ]
    assert any("mamba.in_proj" in name for name in adapted)
    assert any("o_proj" in name for name in adapted)
    assert not any("out_proj" in name for name in adapted)


@pytest.mark.parametrize("kind", ["f16", "q4_k_m"])
def test_a_single_number_is_a_tensor_too(kind: str) -> None:
    """Apertus has some in each layer."""
    matrix = StoredTensor("blk.0.ffn_up.weight", "f32", (256, 4), 32.0)
    assert estimate([matrix, StoredTensor("xielu.beta", "f32", (), 32.0)], kind) == estimate([matrix], kind) + 4
