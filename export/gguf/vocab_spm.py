"""SentencePiece-style BPE (byte fallback, "▁" for a space): scores with which llama.cpp makes the tokenizer's merges.

tokenizer.json lists merges, pairs of symbols by rank. llama.cpp's "llama" tokenizer (llm_tokenizer_spm_session in
src/llama-vocab.cpp) knows no pairs: it joins whatever neighbours spell a token, that with the highest score first, the
leftmost of equals. Both start from characters. What follows finds scores that make the two alike on every text, or a
text on which no scores could.

It rests on one fact: merges never cross a boundary that is still there, so what happens between two boundaries is
what happens to that stretch of text alone. Whether symbols can ever stand side by side is thus decided by merging
their own text (`_arises`).
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby, pairwise, permutations
from pathlib import Path
from typing import Any, Literal

from edgedc.errors import InputError

from .vocab_bpe import normalizer_of

SPACE = "▁"
BYTES = {f"<0x{byte:02X}>": byte for byte in range(256)}

Pair = tuple[str, str]
Prefix = Literal["every", "none", "first"]

_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPEND = {"type": "Prepend", "prepend": SPACE}
_INERT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def prefix_of(path: Path, described: dict[str, Any]) -> Prefix:
    """Which stretches of text between special tokens the tokenizer begins with a space of its own.

    Raises InputError where it does something else to a text than that and writing "▁" for spaces.
    """
    steps, split = normalizer_of(described), described.get("pre_tokenizer")
    if split in (None, _INERT) and steps == [_PREPEND, _REPLACE]:
        return "every"
    if split in (None, _INERT) and steps == [_REPLACE]:  # no space is left at which Gemma's Split could split
        return "none"
    metaspace = {"type": "Metaspace", "replacement": SPACE, "split": False}
    if split and not steps and metaspace.items() <= split.items():
        if split.get("prepend_scheme") == "never":
            return "none"
        if split.get("prepend_scheme") == "first":
            return "first"
    # A Metaspace that prepends always does so only where no space is; llama.cpp would make two.
    names = " + ".join(str(step.get("type")) for step in [*steps, *([split] if split else [])])
    raise InputError(
        f"{path}: llama.cpp does not treat spaces as this SentencePiece tokenizer does ({names or 'nothing'}); "
        "export to ONNX instead"
    )


def merge_scores(path: Path, vocab: Collection[str], merges: Sequence[Pair]) -> dict[str, float]:
    """The score of each token that merges make: 0, -1, -2, ... in the order in which they are made.

    These are SentencePiece's own where it trained the merges and every token can be made. `vocab` are the texts of all
    tokens that a stretch of text between special tokens can spell. Raises InputError with a text that llama.cpp would
    tokenize in another way.
    """
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    if any(symbol in BYTES for pair in ranks for symbol in (*pair, "".join(pair))):
        raise InputError(f"{path}: merges of byte tokens have no equal in llama.cpp; export to ONNX instead")
    used = {pair: rank for pair, rank in ranks.items() if _arises(pair, ranks)}
    made: dict[str, list[Pair]] = defaultdict(list)
    for pair in used:
        made["".join(pair)].append(pair)
    for different in (_other_neighbours(vocab, ranks, made), _other_order(used, made), _other_place(ranks, made)):
        if text := next(different, None):
            raise InputError(
                f"{path}: no scores make llama.cpp tokenize {text!r} as its merges do; export to ONNX instead"
            )
    return {text: -float(place) for place, text in enumerate(made)}


def _arises(symbols: Sequence[str], ranks: Mapping[Pair, int], below: float = math.inf) -> bool:
    """Whether merging the text of `symbols`, by ranks under `below`, comes by just these symbols."""
    state = list("".join(symbols))
    waiting = [ranks.get(pair, math.inf) for pair in pairwise(state)]
    while len(state) > len(symbols):
        rank = min(waiting)
        if rank >= below:
            return False
        k = waiting.index(rank)
        state[k : k + 2] = [state[k] + state[k + 1]]
        del waiting[k]
        for left in {max(k - 1, 0), min(k, len(waiting) - 1)} if waiting else ():
            waiting[left] = ranks.get((state[left], state[left + 1]), math.inf)
    return state == list(symbols)


def _other_neighbours(
    vocab: Collection[str], ranks: Mapping[Pair, int], made: Mapping[str, list[Pair]]
) -> Iterator[str]:
    """Neighbours that spell a token, and that no merge joins."""
    for text in vocab:
        for k in range(1, len(text)):
            pair = text[:k], text[k:]
            if pair not in ranks and all(len(part) == 1 or part in made for part in pair) and _arises(pair, ranks):
                yield text


def _other_order(used: Mapping[Pair, int], made: Mapping[str, list[Pair]]) -> Iterator[str]:
    """Tokens that have merges before and behind those of another token, or behind a merge that uses them.

    One score cannot stand for two places in the order. And where a token is made in two ways, what is made of it must
    wait until both are done, as llama.cpp takes the leftmost first and tokenizers the lower rank.
    """
    done = set()
    for text, _ in groupby("".join(pair) for pair in used):
        if text in done:
            yield text
        done.add(text)
    for pair, rank in used.items():
        for part in pair:
            if len(made.get(part, ())) > 1 and rank < used[made[part][-1]]:
                yield "".join(pair)


def _other_place(ranks: Mapping[Pair, int], made: Mapping[str, list[Pair]]) -> Iterator[str]:
    """Three symbols of which the first two and the last two spell the same token, and the last two have the lower rank:
    llama.cpp joins the first."""
    for pairs in made.values():
        for late, early in permutations(pairs, 2):
            three = (*late, early[1])
            follows = late[1] == early[0] and ranks[early] < ranks[late]
            if follows and _arises(three, ranks, below=ranks[pairs[0]]):
                yield "".join(three)
