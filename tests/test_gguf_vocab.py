"""llama.cpp makes of every text the tokens that the tokenizer makes, or the tokenizer is refused."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from test_export import edit_json, make_model, make_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from edgedc.backends.gguf_header import check_header
from edgedc.backends.llamacpp import LlamaCppBackend
from edgedc.bundle import read_manifest
from edgedc.cli import cli
from edgedc.errors import InputError
from export.gate.prompts import ODD_STRINGS
from export.gguf.to_gguf import to_gguf
from export.gguf.vocab import TokenType, read_chat_template, read_vocab
from export.gguf.vocab_bpe import PRE_TOKENIZERS
from export.gguf.vocab_spm import BYTES, merge_scores

TEXTS = [
    "How many apples does Tom have if he buys 12 and gives 3 away? He'll say: 1,234.50 — isn't it naïve?",
    "  The cost of 25 oranges...\n\n\n\tis it 100000 or 2000?!  Don't   guess; we've  seen  \r\n it. ÉCOLE école Ünïcö",
    "二十 三四 привет мир हिन्दी 한국어 🙂🙂 ½ ²³ ٣٤٥ aaaaaaaaaaaaaaaa ---- ==== ........ __init__(self): x=x+1; //",
] * 3
ADDED = ["<s>", "</s>", "<|user|>", "<|end|>"]
PIECES = [
    *ADDED, "<unk>", "<0x0A>", "don't", "'LL", "'re", "I'", " 123456", "7", "½", "²", "٣", "  ", "   ", "\n", "\n\n",
    "\r\n", "\t", "…", "é", "É", "e\u0301", "हिन्दी", "二", "🙂", "👩‍👩‍👧", "\u00a0", "\u3000", "\u2028", "\u0085",
    "\x00", "\u200b",
    "\u0301", "\u0338", "\u0327", "\u1112\u1161\u11ab", "\u212b", "\u2126", "\u0958", "\ufb1d",
    "▁", "▁▁", "a", "aaa", "the", "ing", " The", "apples", "...", "--", "Ġ", "€", "$5", "<|", "|>", "<", ">", "\ufeff",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=8).map("".join)

# A process of its own: reads JSON strings by line, answers each with its tokens and their text.
CHILD = """
import ctypes, json, sys
from pathlib import Path
import llama_cpp
from edgedc.backends.llamacpp_vocab import LlamaVocab
quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
params = llama_cpp.llama_model_default_params()
params.vocab_only = True
model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), params)
vocab = LlamaVocab(model, Path(sys.argv[1]))
for line in sys.stdin:
    print(json.dumps(vocab.tokenize(json.loads(line))), flush=True)
"""


class LlamaCpp:
    """The tokenizer of a GGUF, in a child process that may die."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8",
        )  # fmt: skip

    def ids(self, text: str) -> list[int]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(text) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"llama.cpp died of {text!r}"
        return list(json.loads(answer))

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def converted(model: Path) -> Iterator[LlamaCpp]:
    to_gguf(model, model / "out.gguf", "tiny")
    llama = LlamaCpp(model / "out.gguf")
    try:
        yield llama
    finally:
        llama.close()


def write_model(
    folder: Path, tokenizer: Tokenizer | Path, template: str | None = "{{ bos_token }}{{ messages }}", **config: Any
) -> Path:
    """A model folder around a tokenizer; its weights are as small as can be, and its embedding has rows to spare."""
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    row = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    size = 3 + max(*row["model"]["vocab"].values(), *(token["id"] for token in row["added_tokens"]))
    settings = {"bos_token": "<s>", "eos_token": "</s>", **({"chat_template": template} if template else {})}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **config}), "utf-8")
    shape = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4, "intermediate_size": 4,
        "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 4,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "hidden_act": "silu",
        "vocab_size": size, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": None,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(shape), "utf-8")
    square, one, layer = np.eye(4, dtype=np.float32), np.ones(4, np.float32), "model.layers.0."
    names = [*(f"self_attn.{x}_proj" for x in "qkvo"), *(f"mlp.{x}_proj" for x in ("gate", "up", "down"))]
    tensors = {f"{layer}{name}.weight": square for name in names}
    tensors |= {f"{layer}{name}_layernorm.weight": one for name in ("input", "post_attention")}
    tensors |= {"model.norm.weight": one, "model.embed_tokens.weight": np.ones((size, 4), np.float32)}
    save_file(tensors, folder / "model.safetensors")
    return folder


@cache
def byte_level(name: str) -> Tokenizer:
    """A tokenizer that splits as `name` does, with merges that run across its splits: one split amiss shows."""
    steps, whole_words = next(key for key, value in PRE_TOKENIZERS.items() if value == name)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=ADDED, initial_alphabet=alphabet, show_progress=False, max_token_length=12
    )
    tokenizer.train_from_iterator([text[k : k + 40] for text in TEXTS for k in range(0, len(text), 23)], trainer)
    tokenizer.pre_tokenizer = splitting(steps)
    row = json.loads(tokenizer.to_str())
    row["model"]["ignore_merges"] = whole_words
    row["model"]["merges"] = row["model"]["merges"][:-100]  # words that only ignore_merges finds
    return Tokenizer.from_str(json.dumps(row))


def splitting(steps: tuple[tuple[Any, ...], ...]) -> pre_tokenizers.PreTokenizer:
    made: list[Any] = []
    for step in steps:
        if step[0] == "Digits":
            made.append(pre_tokenizers.Digits(individual_digits=step[1]))
        elif step[0] == "Split":
            made.append(pre_tokenizers.Split(Regex(step[1]), step[2].lower(), invert=step[3]))
        else:
            made.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=step[1]))
    return made[0] if len(made) == 1 else pre_tokenizers.Sequence(made)


def composing(name: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(byte_level(name).to_str())
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


@cache
def sentencepiece_like(spaces: str, runs: bool = True) -> Tokenizer:
    """BPE with byte fallback; `spaces` names what transformers writes for Llama 2 ("prepend"), Gemma or Mistral."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = replace
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>", *ADDED, *BYTES], show_progress=False, max_token_length=12
    )
    learnt = TEXTS if runs else [" ".join(text.split()) for text in TEXTS]
    tokenizer.train_from_iterator([text[k : k + 40] for text in learnt for k in range(0, len(text), 23)], trainer)
    row = json.loads(tokenizer.to_str())
    row["added_tokens"] = [token for token in row["added_tokens"] if token["content"] not in BYTES]
    tokenizer = Tokenizer.from_str(json.dumps(row))
    if spaces == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    elif spaces == "gemma":
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        tokenizer.normalizer = None
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=spaces, split=False)
    return tokenizer


def agree(pairs: dict[str, tuple[Tokenizer, LlamaCpp]], examples: int, start: str = "<s>") -> None:
    @settings(max_examples=examples, deadline=None)
    @given(texts)
    def check(text: str) -> None:
        for name, (tokenizer, llama) in pairs.items():
            for given_text in (text, start + text) if name != "first" else (start + text,):
                assert (name, llama.ids(given_text)) == (
                    name,
                    tokenizer.encode(given_text, add_special_tokens=False).ids,
                )

    check()


SENTENCEPIECE = ("prepend", "gemma", "never", "first")


def test_llama_cpp_makes_the_tokenizers_tokens(tmp_path: Path) -> None:
    tokenizers = {name: byte_level(name) for name in PRE_TOKENIZERS.values()}
    tokenizers |= {spaces: sentencepiece_like(spaces) for spaces in SENTENCEPIECE}
    tokenizers |= {f"{name}, NFC": composing(name) for name in ("qwen2", "smollm")}
    with ExitStack() as stack:
        pairs = {
            name: (tokenizer, stack.enter_context(converted(write_model(tmp_path / name, tokenizer))))
            for name, tokenizer in tokenizers.items()
        }
        agree(pairs, 40)
        for tokenizer, llama in pairs.values():
            assert all(llama.ids("<s>" + t) == tokenizer.encode("<s>" + t, add_special_tokens=False).ids for t in TEXTS)


@pytest.mark.parametrize("spaces", SENTENCEPIECE)
def test_sentencepiece_fields(spaces: str, tmp_path: Path) -> None:
    vocab = read_vocab(write_model(tmp_path / "model", sentencepiece_like(spaces)), 2000)
    assert (vocab.model, vocab.pre, vocab.merges, vocab.unknown) == ("llama", "default", (), 0)
    assert vocab.add_space_prefix is (spaces == "prepend")
    assert vocab.types[:6] == (TokenType.UNKNOWN, *[TokenType.CONTROL] * 4, TokenType.BYTE)
    assert vocab.types[-1] == TokenType.UNUSED


@pytest.mark.parametrize("name", ["student of Phi-3", "phi3", "a-Modern-BERT"])
def test_llama_cpp_makes_nothing_of_the_models_name(name: str, tmp_path: Path) -> None:
    """It would drop the spaces behind special tokens, or not load for want of some."""
    tokenizer = byte_level("gpt-2")
    model = write_model(tmp_path / "model", tokenizer)
    to_gguf(model, model / "out.gguf", name)
    llama = LlamaCpp(model / "out.gguf")
    for text in ("<|user|> a", "<|end|>\n\n  a</s> b", "<s> <|user|> "):
        assert llama.ids(text) == tokenizer.encode(text).ids
    llama.close()


def test_normalizing_leaves_special_tokens_whole(tmp_path: Path) -> None:
    """The stroke would make one character of itself and a token's last: tokens are taken out first."""
    tokenizer = composing("qwen2")
    with converted(write_model(tmp_path / "model", tokenizer)) as llama:
        ids = llama.ids("<|user|>\u0338cafe\u0301<|end|>")
        assert ids == tokenizer.encode("<|user|>\u0338cafe\u0301<|end|>").ids
        assert (ids[0], ids[-1]) == (tokenizer.token_to_id("<|user|>"), tokenizer.token_to_id("<|end|>"))
        assert llama.ids("cafe\u0301") == llama.ids("caf\u00e9") == tokenizer.encode("caf\u00e9").ids


def test_a_token_that_normalizing_would_make_is_refused_when_it_comes(tmp_path: Path) -> None:
    """llama.cpp would find the token; the tokenizer looks for it before it normalizes."""
    tokenizer = composing("qwen2")
    tokenizer.add_tokens([AddedToken("<K>", normalized=False)])
    model = write_model(tmp_path / "model", tokenizer)
    to_gguf(model, model / "out.gguf", "tiny")
    backend = LlamaCppBackend(model / "out.gguf")
    assert backend.tokenize("a<K>") == tokenizer.encode("a<K>").ids
    with pytest.raises(InputError, match="a prompt spells '<K>' with other characters"):
        backend.tokenize("a<\u212a>")
    backend.close()


@pytest.mark.parametrize("name", PRE_TOKENIZERS.values())
def test_pre_tokenizers_are_recognised(name: str, tmp_path: Path) -> None:
    vocab = read_vocab(write_model(tmp_path / "model", byte_level(name)), 2000)
    assert (vocab.model, vocab.pre, vocab.scores, vocab.unknown) == ("gpt2", name, None, None)


def test_gemmas_runs_of_spaces_and_lines(tmp_path: Path) -> None:
    """Lines are added tokens, spaces are merges that come before all others, and a tab has two texts."""
    row = json.loads(sentencepiece_like("gemma", runs=False).to_str())
    vocab = row["model"]["vocab"]
    runs = ["▁" * n for n in range(2, 9)]
    lines = ["\n" * n for n in range(1, 6)]
    for token in [*runs, *lines]:
        vocab.setdefault(token, len(vocab))
    pairs = [["▁" * n, "▁" * m] for n in range(7, 0, -1) for m in range(8 - n, 0, -1)]
    row["model"]["merges"] = pairs + row["model"]["merges"]
    vocab["\t"] = vocab["<0x09>"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    row["added_tokens"] += [{"id": vocab[token], "content": token, **flags} for token in [*runs, *lines]]
    row["added_tokens"].sort(key=lambda token: token["id"])
    tokenizer = Tokenizer.from_str(json.dumps(row))
    model = write_model(tmp_path / "model", tokenizer)
    # tokenizers saves one of the tab's two texts, now this and now that; Google's own file has both
    for kept in (("\t",), ("<0x09>",), ("\t", "<0x09>")):
        saved = json.loads((model / "tokenizer.json").read_text("utf-8"))
        rest = {token: k for token, k in vocab.items() if token not in ("\t", "<0x09>")}
        saved["model"]["vocab"] = rest | {token: vocab[token] for token in kept}
        (model / "tokenizer.json").write_text(json.dumps(saved), "utf-8")
        with converted(model) as llama:
            assert all(llama.ids("\t" * n + "x") == tokenizer.encode("\t" * n + "x").ids for n in range(9))
    with converted(model) as llama:
        agree({"gemma": (tokenizer, llama)}, 30)
        for n in range(40):
            for text in (" " * n + "the", "a" + " " * n, "\n" * n + " x", " \n" * n, "\t" * n):
                assert llama.ids(text) == tokenizer.encode(text).ids
            for text in ("▁" * n + "the", "  " + "▁" * n, "▁" * n + "  x", "▁ " * n, " ▁▁" * n):  # typed, and no spaces
                assert llama.ids(text) == tokenizer.encode(text).ids
        assert all(llama.ids(text) == tokenizer.encode(text).ids for text in ODD_STRINGS)  # which the gate compares
    whole = (model / "out.gguf").read_bytes()
    assert whole.count(b"2,8") == 1
    (model / "out.gguf").write_bytes(whole.replace(b"2,8", b"8,2"))
    with pytest.raises(InputError, match=r"edgedc\.tokenizer\.runs is '8,2'"):
        check_header(model / "out.gguf")
    read = read_vocab(tmp_path / "model", 2000)
    assert {read.types[vocab[run]] for run in runs} == {TokenType.NORMAL}  # so that they are written as spaces
    assert {read.types[vocab[line]] for line in lines} == {TokenType.USER_DEFINED}


def from_sentencepiece(path: Path) -> tuple[Tokenizer, dict[str, float]]:
    """What transformers makes of a SentencePiece model with a space before every text, and the scores in it."""
    import sentencepiece

    own = sentencepiece.SentencePieceProcessor(str(path))
    scores = {own.id_to_piece(k): own.get_score(k) for k in range(own.get_piece_size())}
    tokenizer, merges = merged_by_score(scores)
    special = [k for k in range(len(scores)) if own.is_control(k) or own.is_unknown(k)]
    tokenizer.add_special_tokens([own.id_to_piece(k) for k in special])
    return tokenizer, {t: scores[t] for t in map("".join, merges)}


def merged_by_score(scores: dict[str, float]) -> tuple[Tokenizer, list[tuple[str, str]]]:
    """A tokenizer and its merges from SentencePiece's pieces, in the order of their ids, with their scores."""
    pieces = {piece: k for k, piece in enumerate(scores)}
    pairs = [(t[:k], t[k:]) for t in pieces for k in range(1, len(t)) if t[:k] in pieces and t[k:] in pieces]
    merges = sorted(pairs, key=lambda pair: (-scores["".join(pair)], -len(pair[0]), -len(pair[1])))
    tokenizer = Tokenizer(models.BPE(pieces, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer, merges


def check_sentencepiece(path: Path, folder: Path, start: str = "<s>") -> None:
    tokenizer, scores = from_sentencepiece(path)
    with converted(write_model(folder, tokenizer)) as llama:
        agree({path.name: (tokenizer, llama)}, 30, start)
    vocab = read_vocab(folder, tokenizer.get_vocab_size() + 3)
    assert vocab.scores
    assert len(scores) > 50
    if all(-len(scores) < score for score in scores.values()):  # Mistral's has gaps where it was edited
        assert {token: vocab.scores[tokenizer.token_to_id(token)] for token in scores} == scores


def test_scores_are_sentencepieces_own(tmp_path: Path) -> None:
    import sentencepiece

    (tmp_path / "text").write_text("\n".join(TEXTS), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "tokenizer"), model_type="bpe", vocab_size=450,
        byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        minloglevel=2, num_threads=1,
    )  # fmt: skip
    check_sentencepiece(tmp_path / "tokenizer.model", tmp_path / "model")


def test_real_gpt2(data_folder: Path, tmp_path: Path) -> None:
    folder = data_folder / "tokenizers"
    merges = (folder / "gpt2_vocab.bpe").read_text("utf-8").splitlines()[1:]
    tokenizer = Tokenizer(
        models.BPE(json.loads((folder / "gpt2_encoder.json").read_text("utf-8")), [tuple(m.split(" ")) for m in merges])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    model = write_model(tmp_path / "model", tokenizer, eos_token="<|endoftext|>", bos_token=None)
    with converted(model) as llama:
        agree({"gpt2": (tokenizer, llama)}, 30, start="<|endoftext|>")


def test_real_mistral(data_folder: Path, tmp_path: Path) -> None:
    """All of its 58,980 merges, and 771 special tokens."""
    source = data_folder / "tokenizers" / "mistral_mistral_instruct_tokenizer_240323.model.v3"
    check_sentencepiece(source, tmp_path / "model", start="<s>[INST]")


def refused(model: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_vocab(model, 2000)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["model"].update(ignore_merges=True), r"ignore_merges true\) is none of those known"),
        (lambda row: row["model"].update(type="Unigram"), "not a tokenizer that can be read|Unigram"),
        (lambda row: row["pre_tokenizer"].update(add_prefix_space=True), "pre-tokenizer"),
        (lambda row: row.update(normalizer={"type": "Lowercase"}), r"normalizer \(Lowercase\)"),
        (lambda row: row.update(normalizer={"type": "NFKC"}), r"normalizer \(NFKC\)"),
        (lambda row: (row.update(normalizer={"type": "NFC"}), row["added_tokens"][2].update(normalized=True)),
         "sought in normalized text"),
        (lambda row: row["added_tokens"][2].update(lstrip=True), r"lstrip of the token '<\|user\|>'"),
        (lambda row: row["model"]["vocab"].update({"<|im_end|>": 1900}), r"reads '<\|im_end\|>' in a text"),
        (lambda row: row["added_tokens"].append({**row["added_tokens"][0], "id": 1900, "content": "[PAD1950]"}),
         "two tokens"),
        (lambda row: row["added_tokens"].append({**row["added_tokens"][0], "id": 1900, "content": "<|tool_response>"}),
         "reads '</s>' as text"),
        (lambda row: row["added_tokens"].extend(
            {**row["added_tokens"][0], "id": 1900 + k, "content": text} for k, text in enumerate(("<<ab", "abc>>"))
        ), "in another way where they meet"),
    ],
)  # fmt: skip
def test_byte_level_refusals(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", byte_level("gpt-2"))
    row = json.loads((model / "tokenizer.json").read_text("utf-8"))
    change(row)
    (model / "tokenizer.json").write_text(json.dumps(row), "utf-8")
    refused(model, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["model"]["vocab"].pop("<0x41>"), "byte_fallback without a token <0x41>"),
        (lambda row: row["model"]["merges"].pop(0), "no scores make llama.cpp tokenize"),
        (lambda row: row["model"]["merges"].reverse(), "no scores make llama.cpp tokenize"),
        (lambda row: row.update(normalizer=None), "does not treat spaces as this"),
        (lambda row: row["added_tokens"][2].update(normalized=True), "sought in normalized text"),
    ],
)
def test_sentencepiece_refusals(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", sentencepiece_like("prepend"))
    row = json.loads((model / "tokenizer.json").read_text("utf-8"))
    change(row)
    (model / "tokenizer.json").write_text(json.dumps(row), "utf-8")
    refused(model, message)


def test_a_first_space_needs_prompts_that_begin_with_a_special_token(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", sentencepiece_like("first"), template="User: {{ messages[0].content }}")
    refused(model, "begin the chat template with {{ bos_token }}")


def test_without_a_chat_template(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", byte_level("gpt-2"), template=None)
    assert read_vocab(model, 2000).chat_template is None
    with pytest.raises(InputError, match="no chat template"):
        read_chat_template(model)
    with converted(model) as llama:
        assert llama.ids("<s>")


SYMBOLS = "ab"


def spm(text: str, scores: dict[str, float]) -> list[str]:
    """llama.cpp's merging: of the neighbours that spell a token those of the highest score, the leftmost of equals."""
    state = list(text)
    while True:
        joined = [a + b for a, b in pairwise(state)]
        best = max(
            (k for k, token in enumerate(joined) if token in scores), key=lambda k: scores[joined[k]], default=None
        )
        if best is None:
            return state
        state[best : best + 2] = [joined[best]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6), st.randoms(use_true_random=False)
)
def test_scores_exist_or_are_refused(picks: list[tuple[int, int]], random: Any) -> None:
    """Of any merges: with scores, every short text is merged alike; without, the text that is named cannot be."""
    tokens, merges = list(SYMBOLS), []
    for left, right in picks:
        pair = tokens[left % len(tokens)], tokens[right % len(tokens)]
        if pair not in merges:
            merges.append(pair)
        if "".join(pair) not in tokens:
            tokens.append("".join(pair))
    if random.random() < 0.5:
        random.shuffle(merges)
    tokenizer = Tokenizer(models.BPE({token: k for k, token in enumerate(tokens)}, merges))
    try:
        scores = merge_scores(Path("tokenizer.json"), tokens, merges)
    except InputError:
        return
    for length in range(1, 9):
        for letters in product(SYMBOLS, repeat=length):
            text = "".join(letters)
            assert spm(text, {**dict.fromkeys(tokens[2:], -1e9), **scores}) == tokenizer.encode(text).tokens


def test_a_qwen_goes_through_the_gate_with_text_that_is_not_composed(tmp_path: Path) -> None:
    """The quantiser copies the key that says NFC."""
    model = make_model(tmp_path / "model", "qwen2", hidden=64, intermediate_size=96, max_position_embeddings=1024)
    make_tokenizer(model, "qwen2")
    edit_json(model / "tokenizer.json", normalizer={"type": "NFC"})
    for file in model.glob("*token*.json"):  # transformers 5 gives each Qwen this token
        file.write_text(file.read_text("utf-8").replace("<|pad|>", "<|endoftext|>"), "utf-8")
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"question": "How many cafe\u0301s, and how many tables?"}))
    order = ["--quantization", "f32,q8_0", "--prompts", tmp_path / "prompts.jsonl", model, tmp_path / "bundle"]
    CliRunner().invoke(cli, ["export", *map(str, order)])
    exact, eight_bit = read_manifest(tmp_path / "bundle").artifacts
    assert (exact.passed, exact.gate["token_ids"], eight_bit.gate["token_ids"]) == (True, 1.0, 1.0)
    assert "give them composed text" in (tmp_path / "bundle" / "README.md").read_text("utf-8")
