"""Byte-level BPE: which of llama.cpp's pre-tokenizers splits text as a tokenizer.json does."""

from pathlib import Path
from typing import Any

from edgedc.backends.gguf_header import NFC
from edgedc.errors import InputError

Row = dict[str, Any]

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)

# How tokenizer.json splits text before the merges, and whether it then looks for whole words first (ignore_merges) ->
# llama.cpp's name for both (llama_vocab::impl::load in src/llama-vocab.cpp). Only those that llama.cpp splits with code
# of its own and equally; its other regexes run on std::regex, over letters' classes and not letters. Tekken's and
# gpt-4o's, so run, break Hindi words at every vowel sign (हिन्दी: 6 tokens for the tokenizer's 1), give É no case, and
# overflow the stack at a word of 50,000 letters, which ends the process.
PRE_TOKENIZERS: dict[tuple[tuple[tuple[Any, ...], ...], bool], str] = {
    ((("Digits", True), ("ByteLevel", True)), False): "smollm",
    ((("ByteLevel", True),), False): "gpt-2",
    ((("Split", _LLAMA3, "Isolated", False), ("ByteLevel", False)), True): "llama-bpe",
    ((("Split", _LLAMA3, "Isolated", False), ("ByteLevel", False)), False): "dbrx",
    ((("Split", _LLAMA3.replace("{1,3}", ""), "Isolated", False), ("ByteLevel", False)), False): "qwen2",
    ((("Split", _QWEN35, "Isolated", False), ("ByteLevel", False)), False): "qwen35",
}


def pre_tokenizer(path: Path, described: Row) -> str:
    """llama.cpp's name for the splitting of a tokenizer.json. Raises InputError for one that it does not have."""
    spec = described.get("pre_tokenizer") or {}
    steps = spec.get("pretokenizers", []) if spec.get("type") == "Sequence" else [spec]
    whole_words = bool(described["model"].get("ignore_merges"))
    split = tuple(_step(step) for step in steps)
    pre = PRE_TOKENIZERS.get((split, whole_words))
    if pre is None:
        shape = " + ".join(str(step.get("type")) for step in steps)
        if (split, not whole_words) in PRE_TOKENIZERS:
            shape += f", with ignore_merges {str(whole_words).lower()}"
        raise InputError(
            f"{path}: its pre-tokenizer ({shape}) is none of those known here ({', '.join(PRE_TOKENIZERS.values())}), "
            "and llama.cpp must not guess; export to ONNX instead"
        )
    return pre


def composes(path: Path, described: Row) -> bool:
    """Whether the tokenizer brings text into NFC first, as Qwen's do. Raises InputError where it does something else.

    llama.cpp applies no normalizer; edgedc's backend applies this one, where the file asks for it.
    """
    normalizer = normalizer_of(described)
    if normalizer not in ([], [{"type": NFC}]):
        names = " + ".join(str(step.get("type")) for step in normalizer)
        raise InputError(f"{path}: llama.cpp does not apply its normalizer ({names}); export to ONNX instead")
    return bool(normalizer)


def normalizer_of(described: Row) -> list[Row]:
    """The steps of a tokenizer.json's normalizer, none where it has none."""
    spec = described.get("normalizer") or {"type": "Sequence", "normalizers": []}
    return list(spec.get("normalizers", [])) if spec.get("type") == "Sequence" else [spec]


def _step(step: Row) -> tuple[Any, ...]:
    """What of a pre-tokenizer decides where it splits; `trim_offsets` moves offsets only."""
    match step:
        case {"type": "Digits", "individual_digits": bool() as each}:
            return ("Digits", each)
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return ("ByteLevel", step.get("use_regex", True))
        case {"type": "Split", "pattern": {"Regex": str() as pattern}, "behavior": behavior, "invert": invert}:
            return ("Split", pattern, behavior, invert)
    return ("unknown",)
