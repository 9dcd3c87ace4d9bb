"""Added tokens that llama.cpp would find elsewhere in a text than tokenizers does.

llama.cpp (llama_vocab::impl::tokenizer_st_partition in src/llama-vocab.cpp) takes added tokens out of the text as it
was given, the longest first, and knows no flags: it guesses lstrip and rstrip from a model's name. tokenizers takes the
leftmost first, in two rounds: those that are not normalized, then, in the normalized text, the rest.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgedc.errors import InputError

from .vocab_bpe import normalizer_of

# llama.cpp finds these in text by what they are called, added or not, wherever its vocabulary has them (`load`).
FORCED = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>",
    "[EOT]", "[EOS]", "</s>", "<eos>", "<｜end▁of▁sentence｜>", "<end_of_utterance>", "<|eom_id|>", "<|return|>",
    "<|call|>", "<|flush|>", "<|calls|>", "<turn|>", "[e~[", "<|tool_response>", "<|fim_prefix|>", "<fim-prefix>",
    "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>", "<|fim_suffix|>",
    "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>",
    "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>",
    "<|middle|>", "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>",
    "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>", "<|channel|>", "<|message|>", "<|start|>",
    "<|constrain|>",
}  # fmt: skip

# Where one of these is, "</s>" is a normal token to llama.cpp, whatever the file says.
UNMAKING = {"<|tool_response>", "<|plamo:eos|>"}


def check_forced_tokens(path: Path, normal: Iterable[str]) -> None:
    """`normal` are the tokens that were not added. Raises InputError for one that llama.cpp treats as if it were."""
    for token in normal:
        if token in FORCED:
            raise InputError(
                f"{path}: llama.cpp reads {token!r} in a text as a special token; make it one (add_special_tokens)"
            )


def check_added_tokens(path: Path, described: dict[str, Any]) -> None:
    """Raises InputError for one that llama.cpp finds where tokenizers does not, or the other way round."""
    added = described.get("added_tokens", [])
    for token in added:
        # Templates put spaces and line breaks beside tokens, and text may too: none of these is without effect.
        for flag in ("lstrip", "rstrip", "single_word"):
            if token.get(flag):
                raise InputError(f"{path}: llama.cpp does not honour {flag} of the token {token['content']!r}")
        if token.get("normalized") and not _unchanged(token["content"], normalizer_of(described)):
            raise InputError(
                f"{path}: the token {token['content']!r} is sought in normalized text, which llama.cpp cannot; "
                "save the tokenizer with normalized=False for it"
            )
    contents = {token["content"] for token in added}
    if "</s>" in contents and (beside := sorted(contents & UNMAKING)):
        raise InputError(f"{path}: llama.cpp reads '</s>' as text where there is a token {beside[0]!r}")
    early = {token["content"] for token in added if not token.get("normalized")}
    late = contents - early
    for first, second in [*_overlaps(early | late), *_between_rounds(early, late)]:
        raise InputError(f"{path}: llama.cpp reads the tokens {first!r} and {second!r} in another way where they meet")


def _unchanged(content: str, normalizer: list[dict[str, Any]]) -> bool:
    """Whether normalizing a text neither makes nor breaks this token in it."""
    for step in normalizer:
        match step:
            case {"type": "Replace", "pattern": {"String": str() as old}, "content": str() as new}:
                if old in content or new in content:
                    return False
            case _:
                return False
    return True


def _overlaps(contents: Iterable[str]) -> list[tuple[str, str]]:
    """Two tokens of which the first, the leftmost, is not the longer, and its end is the other's beginning."""
    contents = set(contents)
    beginning = defaultdict(list)
    for content in contents:
        for k in range(1, len(content)):
            beginning[content[:k]].append(content)
    found = []
    for first in contents:
        for k in range(1, len(first)):
            for second in beginning.get(first[k:], ()):
                text = first[:k] + second
                leftmost = max((c for c in contents if text.startswith(c)), key=len)
                if second != first == leftmost and len(second.encode()) >= len(first.encode()):
                    found.append((first, second))
    return found


def _between_rounds(early: set[str], late: set[str]) -> list[tuple[str, str]]:
    """A token of the second round that has one of the first within it, or overlaps with one."""
    ends = {content[k:]: content for content in early for k in range(1, len(content))}
    starts = {content[:k]: content for content in early for k in range(1, len(content))}
    found = [(one, two) for two in late for one in early if one in two]
    for two in late:
        found += [(ends[two[:k]], two) for k in range(1, len(two)) if two[:k] in ends]
        found += [(two, starts[two[k:]]) for k in range(1, len(two)) if two[k:] in starts]
    return found
