"""Reads a tokenizer.json as GGUF wants it: byte-level BPE (llama.cpp's "gpt2") and SentencePiece-style BPE ("llama").

What llama.cpp would tokenize in another way is refused here rather than approximated. What it does was taken from
src/llama-vocab.cpp of the version that llama-cpp-python 0.3.36 holds.
"""

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from edgedc.backends.chat import ChatTemplate, end_tokens, raw_prompts, special_tokens
from edgedc.bundle import CHAT_TEMPLATE
from edgedc.errors import InputError
from edgedc.files import read_object

from .added_tokens import check_added_tokens, check_forced_tokens
from .vocab_bpe import composes, pre_tokenizer
from .vocab_spm import BYTES, SPACE, merge_scores, prefix_of


class TokenType(IntEnum):
    """llama.cpp's llama_token_type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# What llama.cpp's own converter gives tokens that no text is merged to.
_SCORES = {TokenType.CONTROL: 0.0, TokenType.UNKNOWN: 0.0, TokenType.BYTE: 0.0, TokenType.UNUSED: -10_000.0}


@dataclass(frozen=True)
class Vocab:
    """`tokens`, `types` and `scores` are indexed by token id; `ends` are the ids that end a reply, the first being EOS.

    `merges` are empty and `scores` given where `model` is "llama". `add_space_prefix` says whether llama.cpp is to
    begin text with a space at the start and behind every special token; `composes` whether text is brought into NFC,
    which llama.cpp does not do; `runs` how many "▁" of a text are a token of their own (see gguf_header.py), or "".
    """

    model: Literal["gpt2", "llama"]
    pre: str
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...] | None
    add_space_prefix: bool
    composes: bool
    runs: str
    unknown: int | None
    bos: int | None
    ends: tuple[int, ...]
    pad: int | None
    add_bos: bool
    add_eos: bool
    chat_template: str | None


def read_vocab(model: Path, size: int) -> Vocab:
    """The tokenizer of a model folder; `size` is the number of rows of its embedding.

    Raises InputError when llama.cpp cannot tokenize in the same way, or when no token ends a reply.
    """
    path = model / "tokenizer.json"
    bare, whole = _encoded(path)  # first, as its merges take as much memory as all that follows
    described = read_object(path)
    bpe = _bpe(path, described)
    spm = bool(bpe.get("byte_fallback"))
    merges = [_pair(merge) for merge in bpe["merges"]]
    tokens, types = _tokens(path, described, size)
    pre, scores, prefix, nfc = "default", None, False, False
    if spm:
        prefix = _space_prefix(model, described)
        scores = _scores(path, tokens, types, merges)
    else:
        pre, nfc = pre_tokenizer(path, described), composes(path, described)
    check_added_tokens(path, described)
    check_forced_tokens(path, (token for token, kind in zip(tokens, types, strict=True) if kind == TokenType.NORMAL))
    ids = {token: number for number, token in enumerate(tokens)}
    settings = _optional(model / "tokenizer_config.json")
    bos, pad = (_id_of(settings.get(key), ids) for key in ("bos_token", "pad_token"))
    ends = _ends(model, ids, size)
    add_bos, add_eos = _added_around(path, bare, whole, bos, ends[0])
    return Vocab(
        model="llama" if spm else "gpt2",
        pre=pre,
        tokens=tokens,
        types=types,
        merges=() if spm else tuple(" ".join(pair) for pair in merges),
        scores=scores,
        add_space_prefix=prefix,
        composes=nfc,
        runs="" if prefix else _runs(described),
        unknown=next((k for k, kind in enumerate(types) if kind == TokenType.UNKNOWN), None),
        bos=bos,
        ends=ends,
        pad=pad,
        add_bos=add_bos,
        add_eos=add_eos,
        chat_template=_chat_template(model),
    )


def read_chat_template(model: Path) -> str:
    """The model's chat template, from its own file or tokenizer_config.json; InputError when it has none."""
    template = _chat_template(model)
    if template is None:
        raise InputError(f"{model}: no chat template ({CHAT_TEMPLATE}): export a model that was trained on one")
    return template


def _chat_template(model: Path) -> str | None:
    file = model / CHAT_TEMPLATE
    if file.is_file():
        with file.open(encoding="utf-8", newline="") as lines:  # as it is, carriage returns too
            return lines.read()
    template = _optional(model / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        template = next((row["template"] for row in template if row.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def _bpe(path: Path, described: dict[str, Any]) -> dict[str, Any]:
    bpe: dict[str, Any] = described.get("model") or {}
    if bpe.get("type") != "BPE":
        # llama.cpp has Unigram only as T5 wants it: another normalisation, and no byte fallback
        raise InputError(f"{path}: a {bpe.get('type')} tokenizer; GGUF takes BPE only; export to ONNX instead")
    allowed = {"unk_token"} if bpe.get("byte_fallback") else set()  # of no effect where every byte is a token
    for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if bpe.get(key) and key not in allowed:
            raise InputError(f"{path}: BPE with {key} {bpe[key]!r} has no equal in llama.cpp")
    if bpe.get("byte_fallback") and bpe.get("ignore_merges"):
        raise InputError(f"{path}: ignore_merges is not what llama.cpp does with a SentencePiece tokenizer")
    missing = [byte for byte in BYTES if byte not in bpe["vocab"] and _character(byte) not in bpe["vocab"]]
    if bpe.get("byte_fallback") and missing:
        raise InputError(f"{path}: byte_fallback without a token {missing[0]} has no equal in llama.cpp")
    return bpe


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _tokens(path: Path, described: dict[str, Any], size: int) -> tuple[tuple[str, ...], tuple[TokenType, ...]]:
    bpe = described["model"]
    by_id: dict[int, tuple[str, TokenType]] = {}
    bytes_of = {_character(byte): byte for byte in BYTES} if bpe.get("byte_fallback") else {}
    for token, number in bpe["vocab"].items():
        # Gemma has "\t" under the id of "<0x09>", and transformers saves one of the two, whichever it comes upon. To
        # llama.cpp too, a character that is no token is its bytes.
        byte = token if bytes_of and token in BYTES else bytes_of.get(token)
        entry = token, TokenType.NORMAL
        if byte is not None and bpe["vocab"].get(byte, number) == number:
            entry = byte, TokenType.BYTE
        if by_id.setdefault(number, entry) != entry:
            raise InputError(f"{path}: token {number} has two texts, {by_id[number][0]!r} and {token!r}")
    for added in described.get("added_tokens", []):
        by_id[added["id"]] = added["content"], _added_type(added, bpe)
    if max(by_id) >= size:
        raise InputError(f"{path}: token {max(by_id)} has no embedding: the model has {size}; not its tokenizer?")
    # An embedding is often padded to a round number of rows; llama.cpp wants a token for each.
    filled = [by_id.get(number, (f"[PAD{number}]", TokenType.UNUSED)) for number in range(size)]
    tokens, types = zip(*filled, strict=True)
    if len(set(tokens)) < size:  # llama.cpp aborts
        twice = Counter(tokens).most_common(1)[0][0]
        raise InputError(f"{path}: two tokens have the text {twice!r}, which llama.cpp does not take")
    return tokens, types


def _character(byte: str) -> str | None:
    """What a byte token stands for alone, None for a part of a character."""
    return chr(BYTES[byte]) if BYTES[byte] < 128 else None


def _added_type(added: dict[str, Any], bpe: dict[str, Any]) -> TokenType:
    content = added["content"]
    if not bpe.get("byte_fallback"):
        return TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED
    if content == bpe.get("unk_token"):
        return TokenType.UNKNOWN
    if _is_run(added):
        # Gemma's runs of spaces. Spaces become these by merges, and only as normal tokens are they written as spaces
        # again. That tokenizers also takes out a typed "▁▁" before the merges is left to edgedc's backend.
        return TokenType.NORMAL
    return TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED


def _is_run(added: dict[str, Any]) -> bool:
    return added["content"].strip(SPACE) == "" and not added.get("special")


def _runs(described: dict[str, Any]) -> str:
    lengths = sorted(len(added["content"]) for added in described.get("added_tokens", []) if _is_run(added))
    if not lengths or lengths[-1] > 99 or lengths != list(range(max(lengths[0], 1), lengths[-1] + 1)):
        return ""
    return f"{lengths[0]},{lengths[-1]}"


def _scores(
    path: Path, tokens: tuple[str, ...], types: tuple[TokenType, ...], merges: list[tuple[str, str]]
) -> tuple[float, ...]:
    """Of merged tokens as `merge_scores` has them, then of the other normal ones in the order of their ids."""
    taken_out = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
    # What is taken out of a text before the merges cannot be spelt by the rest, unless with a "▁" that was a space.
    spelt = [t for t, kind in zip(tokens, types, strict=True) if kind not in taken_out or SPACE in t]
    scores = merge_scores(path, spelt, merges)
    for token, kind in zip(tokens, types, strict=True):
        if kind == TokenType.NORMAL:
            scores.setdefault(token, -float(len(scores)))
    return tuple(
        scores[token] if kind == TokenType.NORMAL else _SCORES.get(kind, -1000.0)
        for token, kind in zip(tokens, types, strict=True)
    )


def _space_prefix(model: Path, described: dict[str, Any]) -> bool:
    """A space that only the very first stretch of text gets is one that no prompt gets which begins with a special
    token. llama.cpp has no such case of its own."""
    path = model / "tokenizer.json"
    prefix = prefix_of(path, described)
    if prefix != "first":
        return prefix == "every"
    template = _chat_template(model)
    chat = ChatTemplate(template, special_tokens(model), str(model)) if template else raw_prompts(model)
    prompt = chat.render([{"role": "user", "content": "a"}])
    if not any(prompt.startswith(added["content"]) for added in described.get("added_tokens", [])):
        raise InputError(
            f"{path}: begins a text with a space, and only its first stretch (Metaspace, first); llama.cpp cannot, "
            "where prompts do not begin with a special token: begin the chat template with {{ bos_token }}"
        )
    return False


def _id_of(token: Any, ids: dict[str, int]) -> int | None:
    return ids.get(token["content"] if isinstance(token, dict) else token)


def _ends(model: Path, ids: dict[str, int], size: int) -> tuple[int, ...]:
    """The tokenizer's EOS, then the others that `end_tokens` finds."""
    eos = ids.get(special_tokens(model).get("eos_token", ""))
    ends = tuple(sorted(end_tokens(model, ids.get), key=lambda number: (number != eos, number)))
    if absent := [number for number in ends if not 0 <= number < size]:
        raise InputError(f"{model}: token {absent[0]} is to end a reply, and the model has the tokens 0 to {size - 1}")
    return ends


def _encoded(path: Path) -> tuple[list[int], list[int]]:
    """A text's ids without and with what the tokenizer puts around it."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for a file that it cannot read
        raise InputError(f"{path}: not a tokenizer that can be read: {error}") from error
    bare, whole = (tokenizer.encode("a", add_special_tokens=added).ids for added in (False, True))
    return bare, whole


def _added_around(path: Path, bare: list[int], whole: list[int], bos: int | None, eos: int) -> tuple[bool, bool]:
    """Whether the tokenizer puts BOS before a text and EOS behind it."""
    for before, behind in ((False, False), (True, False), (False, True), (True, True)):
        if whole == [bos] * before + bare + [eos] * behind:
            return before, behind
    raise InputError(f"{path}: adds tokens other than BOS and EOS around a text, which llama.cpp cannot")
