"""Real vocabularies, those of llama.cpp's own tests: rebuilt as tokenizer.json, converted by edgedc, read by llama.cpp.

Each has a file of strings (.inp) and one with the ids that the model's own tokenizer made of them (.out).
"""

import re
import unicodedata
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from test_export import edit_json
from test_gguf_vocab import LlamaCpp, converted, merged_by_score, splitting, texts, write_model
from test_oracle import llama_cpp_source
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from edgedc.backends.chat import ChatTemplate
from edgedc.backends.gguf_header import NFC, NORMALIZER, STRING, check_header, reading
from edgedc.backends.llamacpp import LlamaCppBackend
from export.gguf.added_tokens import FORCED
from export.gguf.llama_cpp import convert_with_llama_cpp
from export.gguf.to_gguf import TELLING
from export.gguf.vocab import TokenType
from export.gguf.vocab_bpe import PRE_TOKENIZERS

pytestmark = pytest.mark.oracle

# llama.cpp's vocabulary -> the pre-tokenizer that edgedc knows it by, and whether the model's tokenizer says NFC
BYTE_LEVEL = {
    "gpt-2": ("gpt-2", False),
    "mpt": ("gpt-2", True),
    "starcoder": ("smollm", False),
    "refact": ("smollm", False),
    "command-r": ("smollm", True),
    "llama-bpe": ("llama-bpe", False),
    "qwen2": ("qwen2", True),
    "qwen35": ("qwen35", False),
}
SLOW = ("command-r", "refact")  # which split as starcoder does
LEFT_OUT = ("<|tool_response>",)  # Gemma 3 has none; beside it llama.cpp takes Gemma's "</s>" for text
EXAMPLES = 60
ARRAY = 9
FOURS = {5: "<i4", 6: "<f4"}  # the numbers of int32 and float32


@dataclass(frozen=True)
class Known:
    """A vocabulary of llama.cpp's, and the strings whose ids are known."""

    path: Path
    fields: dict[str, Any]
    added: list[AddedToken]
    answers: list[tuple[str, list[int]]]


@pytest.fixture(scope="module")
def llama_cpp(request: pytest.FixtureRequest) -> Path:
    return llama_cpp_source(request.config.cache)


@pytest.fixture
def known(llama_cpp: Path, request: pytest.FixtureRequest) -> Known:
    path = llama_cpp / "models" / f"ggml-vocab-{request.param}.gguf"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {path.parent}")
    fields = read_fields(path)
    ids = [[int(number) for number in line.split()] for line in Path(f"{path}.out").read_text("utf-8").splitlines()]
    strings = Path(f"{path}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")[: len(ids)]
    return Known(path, fields, added_tokens(fields), list(zip(strings, ids, strict=True)))


def read_fields(path: Path) -> dict[str, Any]:
    """As GGUFReader does, which takes half a minute for the largest."""
    fields: dict[str, Any] = {}
    with reading(path) as reader:
        for _ in range(reader.start()[1]):
            name, kind = reader.text(), reader.take("I")
            if kind != ARRAY:
                fields[name] = reader.value(kind, keep=False)
                continue
            start = reader.at
            kind, count = reader.take("I"), reader.take("Q")
            if kind == STRING:
                fields[name] = reader.strings(count, keep=True)
                continue
            if kind in FOURS:
                fields[name] = np.frombuffer(reader.data, FOURS[kind], count, reader.at).tolist()
            reader.at = start
            reader.value(ARRAY, keep=False)
    return fields


def added_tokens(fields: dict[str, Any]) -> list[AddedToken]:
    """All that a text is searched for: what llama.cpp takes for special by its text too, as Gemma's tags of HTML are.

    Rows of the embedding that have no token are called [PAD...] in a GGUF.
    """
    rows = zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"], strict=True)
    sought = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
    return [
        AddedToken(token, special=kind != TokenType.USER_DEFINED, normalized=False)
        for k, (token, kind) in enumerate(rows)
        if (kind in sought or token in FORCED) and token not in LEFT_OUT and token != f"[PAD{k}]"
    ]


def vocabulary(known: Known) -> dict[str, int]:
    tokens = known.fields["tokenizer.ggml.tokens"]
    return {t: k for k, t in enumerate(tokens) if t != f"[PAD{k}]" and t not in LEFT_OUT}


def merges(known: Known) -> list[tuple[str, str]]:
    """Of the texts of symbols; a "▁" or "Ġ" stands for a space in them."""
    pairs = (merge.split(" ") for merge in known.fields["tokenizer.ggml.merges"])
    return [(left, right) for left, right in pairs]


def byte_level(known: Known, pre: str, *, composes: bool) -> Tokenizer:
    steps, whole_words = next(key for key, value in PRE_TOKENIZERS.items() if value == pre)
    tokenizer = Tokenizer(models.BPE(vocabulary(known), merges(known), ignore_merges=whole_words))
    tokenizer.pre_tokenizer = splitting(steps)
    tokenizer.normalizer = normalizers.NFC() if composes else None
    return with_added(known, tokenizer)


def with_added(known: Known, tokenizer: Tokenizer) -> Tokenizer:
    for token in known.added:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    return tokenizer


@pytest.mark.parametrize(
    "known",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in BYTE_LEVEL],
    indirect=True,
)
def test_byte_level(known: Known, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pre, composes = BYTE_LEVEL[request.node.callspec.params["known"]]
    check(known, byte_level(known, pre, composes=composes), tmp_path, composes=composes)


@pytest.mark.parametrize("known", ["llama-spm", "phi-3"], indirect=True)
def test_sentencepiece(known: Known, tmp_path: Path) -> None:
    pieces = zip(known.fields["tokenizer.ggml.tokens"], known.fields["tokenizer.ggml.scores"], strict=True)
    tokenizer, _ = merged_by_score({t: score for k, (t, score) in enumerate(pieces) if t != f"[PAD{k}]"})
    check(known, with_added(known, tokenizer), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("known", ["gemma-4"], indirect=True)
def test_gemma(known: Known, tmp_path: Path) -> None:
    """Gemma 4's words and merges, as many as Gemma 3's, in a tokenizer like Gemma 3's."""
    bpe = models.BPE(vocabulary(known), merges(known), unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    check(known, with_added(known, tokenizer), tmp_path)


def check(known: Known, tokenizer: Tokenizer, folder: Path, *, composes: bool = False) -> None:
    """edgedc's GGUF against the tokenizer, the known answers, and llama.cpp's GGUF, which normalizes nothing."""
    tokens, kinds = (known.fields[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type"))
    marked = [t.content for t in known.added if kinds[tokens.index(t.content)] == TokenType.NORMAL]
    # By a model's name llama.cpp takes the space behind a special token away, which edgedc has no such name for.
    telling = any(word in known.fields.get("general.name", "").lower() for word in TELLING)
    strips = re.compile(f"({'|'.join(re.escape(t.content) for t in known.added)})\\s" if telling else "(?!)")
    names = {name: tokens[known.fields[f"tokenizer.ggml.{name}_id"]] for name in ("bos_token", "eos_token")}
    model = write_model(folder / "model", tokenizer, **names)
    with closing(LlamaCpp(known.path)) as official, converted(model) as ours:

        def ids(text: str) -> list[int]:
            expected: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
            assert (text, ours.ids(text)) == (text, expected)
            composed = not composes or unicodedata.is_normalized("NFC", text)
            if composed and not any(t in text for t in marked) and not strips.search(text):
                assert (text, official.ids(text)) == (text, expected)
            return expected

        @settings(max_examples=EXAMPLES, deadline=None)
        @given(texts)
        @example("</s>  ")
        def same(text: str) -> None:
            ids(text)

        assert [(text, ids(text)) for text, _ in known.answers] == known.answers
        same()


@pytest.mark.slow
@pytest.mark.parametrize("known", ["qwen2"], indirect=True)
def test_llama_cpps_own_converter_is_made_to_say_nfc(known: Known, llama_cpp: Path, tmp_path: Path) -> None:
    """Of a family that edgedc does not know; nothing else in the file is touched."""
    from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    sizes |= {"head_dim": 16, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32}
    config = Qwen3MoeConfig(vocab_size=151936, intermediate_size=32, tie_word_embeddings=True, **sizes)
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer = byte_level(known, "qwen2", composes=True)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(tmp_path / "model")
    files = {}
    for composes in (True, False):
        files[composes] = tmp_path / f"{composes}.gguf"
        convert_with_llama_cpp(tmp_path / "model", files[composes], "f16", llama_cpp)
        edit_json(tmp_path / "model" / "tokenizer.json", normalizer=None)
    check_header(files[True])
    with closing(LlamaCpp(files[True])) as llama:
        for text in ("cafe\u0301", "<|im_end|>\u0338a", *(text for text, _ in known.answers)):
            assert llama.ids(text) == tokenizer.encode(text).ids
    assert read_fields(files[True]) == {**read_fields(files[False]), NORMALIZER: NFC}
    assert np.array_equal(*(logits(path) for path in files.values()))


def logits(path: Path) -> "np.ndarray[Any, Any]":
    backend = LlamaCppBackend(path, chat=ChatTemplate("{{ messages }}", {}, "here"), threads=1)
    scores = backend.logits([1, 2, 3], start=0)
    backend.close()
    return scores
