"""Reads a byte-level BPE tokenizer (tokenizer.json) as GGUF wants it.

What llama.cpp would tokenize in another way is refused here rather than approximated.
"""

import json
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edgedc.bundle import CHAT_TEMPLATE
from edgedc.errors import InputError


class TokenType(IntEnum):
    """llama.cpp's llama_token_type."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


@dataclass(frozen=True)
class Vocab:
    """`tokens` and `types` are indexed by token id; `ends` are the ids that end a reply, the first being EOS."""

    pre: str
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    merges: tuple[str, ...]
    bos: int | None
    ends: tuple[int, ...]
    pad: int | None
    add_bos: bool
    add_eos: bool
    chat_template: str


_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)

# How tokenizer.json splits text before the merges -> llama.cpp's name for the same splitting.
PRE_TOKENIZERS: dict[tuple[tuple[Any, ...], ...], str] = {
    (("Digits", True), ("ByteLevel", True)): "smollm",
    (("ByteLevel", True),): "gpt-2",
    (("Split", _LLAMA3, "Isolated", False), ("ByteLevel", False)): "llama-bpe",
    (("Split", _LLAMA3.replace("{1,3}", ""), "Isolated", False), ("ByteLevel", False)): "qwen2",
}
NORMALIZERS = {"smollm": (None,), "gpt-2": (None,), "llama-bpe": (None,), "qwen2": (None, "NFC")}


def read_vocab(model: Path, size: int) -> Vocab:
    """The tokenizer of a model folder; `size` is the number of rows of its embedding.

    Raises InputError when llama.cpp cannot tokenize in the same way, or when no token ends a reply.
    """
    path = model / "tokenizer.json"
    described = read_json(path)
    tokenizer = _open_tokenizer(path)
    bpe = _byte_level_bpe(path, described)
    pre = _pre_tokenizer(path, described)
    if bpe.get("ignore_merges") and pre != "llama-bpe":
        raise InputError(f"{path}: ignore_merges is not what llama.cpp does with a {pre} tokenizer")
    tokens, types = _tokens(path, described, size)
    ids = {token: number for number, token in enumerate(tokens)}
    settings = read_json(model / "tokenizer_config.json", {})
    bos, pad = (_id_of(settings.get(key), ids) for key in ("bos_token", "pad_token"))
    ends = _ends(model, _id_of(settings.get("eos_token"), ids), size)
    add_bos, add_eos = _added_around(path, tokenizer, bos, ends[0])
    return Vocab(
        pre=pre,
        tokens=tokens,
        types=types,
        merges=tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]),
        bos=bos,
        ends=ends,
        pad=pad,
        add_bos=add_bos,
        add_eos=add_eos,
        chat_template=read_chat_template(model),
    )


def read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object from a file; `default` where there is no file. Raises InputError when it is not a JSON object."""
    try:
        row = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        if default is not None:
            return default
        raise InputError(f"{path}: missing; copy or make the model again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{path}: must be a JSON object, not a {type(row).__name__}")
    return row


def read_chat_template(model: Path) -> str:
    """The model's chat template, from its own file or tokenizer_config.json; InputError when it has none."""
    file = model / CHAT_TEMPLATE
    if file.is_file():
        with file.open(encoding="utf-8", newline="") as lines:  # as it is, carriage returns too
            return lines.read()
    template = read_json(model / "tokenizer_config.json", {}).get("chat_template")
    if isinstance(template, list):
        template = next((row["template"] for row in template if row.get("name") == "default"), None)
    if not isinstance(template, str):
        raise InputError(f"{model}: no chat template ({CHAT_TEMPLATE}): export a model that was trained on one")
    return template


def _byte_level_bpe(path: Path, described: dict[str, Any]) -> dict[str, Any]:
    bpe: dict[str, Any] = described.get("model") or {}
    if bpe.get("type") != "BPE" or bpe.get("byte_fallback"):
        kind = "SentencePiece" if bpe.get("byte_fallback") else bpe.get("type")
        raise InputError(f"{path}: a {kind} tokenizer; only byte-level BPE can be exported to GGUF so far")
    for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if bpe.get(key):
            raise InputError(f"{path}: BPE with {key} {bpe[key]!r} has no equal in llama.cpp")
    return bpe


def _pre_tokenizer(path: Path, described: dict[str, Any]) -> str:
    spec = described.get("pre_tokenizer") or {}
    steps = spec.get("pretokenizers", []) if spec.get("type") == "Sequence" else [spec]
    pre = PRE_TOKENIZERS.get(tuple(_step(step) for step in steps))
    if pre is None:
        shape = " + ".join(str(step.get("type")) for step in steps)
        raise InputError(
            f"{path}: its pre-tokenizer ({shape}) is none of those known here ({', '.join(PRE_TOKENIZERS.values())}), "
            "and llama.cpp must not guess; export to ONNX instead"
        )
    normalizer = (described.get("normalizer") or {}).get("type")
    if normalizer not in NORMALIZERS[pre]:
        raise InputError(f"{path}: llama.cpp does not apply its normalizer ({normalizer}); export to ONNX instead")
    return pre


def _step(step: dict[str, Any]) -> tuple[Any, ...]:
    """What of a pre-tokenizer decides where it splits; `trim_offsets` moves offsets only."""
    match step:
        case {"type": "Digits", "individual_digits": bool() as each}:
            return ("Digits", each)
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return ("ByteLevel", step.get("use_regex", True))
        case {"type": "Split", "pattern": {"Regex": str() as pattern}, "behavior": behavior, "invert": invert}:
            return ("Split", pattern, behavior, invert)
    return ("unknown",)


def _tokens(path: Path, described: dict[str, Any], size: int) -> tuple[tuple[str, ...], tuple[TokenType, ...]]:
    by_id = {number: (token, TokenType.NORMAL) for token, number in described["model"]["vocab"].items()}
    for added in described.get("added_tokens", []):
        for key in ("lstrip", "rstrip", "single_word"):
            if added.get(key):
                raise InputError(f"{path}: llama.cpp does not honour {key} of the token {added['content']!r}")
        kind = TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED
        by_id[added["id"]] = (added["content"], kind)
    if max(by_id) >= size:
        raise InputError(f"{path}: token {max(by_id)} has no embedding: the model has {size}; not its tokenizer?")
    # An embedding is often padded to a round number of rows; llama.cpp wants a token for each.
    filled = [by_id.get(number, (f"[PAD{number}]", TokenType.UNUSED)) for number in range(size)]
    return tuple(token for token, _ in filled), tuple(kind for _, kind in filled)


def _id_of(token: Any, ids: dict[str, int]) -> int | None:
    return ids.get(token["content"] if isinstance(token, dict) else token)


def _ends(model: Path, eos: int | None, size: int) -> tuple[int, ...]:
    """The tokenizer's EOS, then the others at which transformers' generate() stops."""
    stops = read_json(model / "generation_config.json", {}).get("eos_token_id")
    if stops is None:
        stops = read_json(model / "config.json").get("eos_token_id")
    stops = stops if isinstance(stops, list) else [stops]
    ends = tuple(dict.fromkeys(number for number in (eos, *stops) if number is not None))
    if not ends or not all(isinstance(number, int) and 0 <= number < size for number in ends):
        raise InputError(f"{model}: no valid end-of-sequence token in tokenizer_config.json or config.json (eos_token)")
    return ends


def _open_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for a file that it cannot read
        raise InputError(f"{path}: not a tokenizer that can be read: {error}") from error


def _added_around(path: Path, tokenizer: Tokenizer, bos: int | None, eos: int) -> tuple[bool, bool]:
    """Whether the tokenizer puts BOS before a text and EOS behind it, found by letting it."""
    bare, whole = (tokenizer.encode("a", add_special_tokens=added).ids for added in (False, True))
    for before, behind in ((False, False), (True, False), (False, True), (True, True)):
        if whole == [bos] * before + bare + [eos] * behind:
            return before, behind
    raise InputError(f"{path}: adds tokens other than BOS and EOS around a text, which llama.cpp cannot")
