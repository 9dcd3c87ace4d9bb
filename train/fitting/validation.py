"""Measuring on questions that are held out of the training: the loss on their completions, and their decompositions."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from edgedc.bench.quality import quality_of, rouge_l, score_decomposition
from edgedc.decomposition import parse
from edgedc.errors import InputError
from edgedc.prompts import MAX_TOKENS_DECOMPOSE

from ..sets.pairs import Pair
from .data import Encoded
from .packing import completion_loss, padded

_AT_ONCE = 16  # questions that are decomposed side by side


def held_out(pairs: Sequence[Pair], amount: float) -> list[bool]:
    """Which pairs are held out: a share of the questions (below 1), or a count of them, by a hash of the question.

    So the same questions are chosen every time, pairs of one question stay together, and with a share a question that
    is added to the data moves no other. Raises InputError when that leaves nothing to train or to measure on.
    """
    hashes = [_place(pair) for pair in pairs]
    if amount < 1:
        chosen = [place < amount for place in hashes]
    else:
        smallest = set(sorted(set(hashes))[: int(amount)])
        chosen = [place in smallest for place in hashes]
    if amount and (all(chosen) or not any(chosen)):
        what = "nothing to train on" if all(chosen) else "nothing to measure on"
        raise InputError(f"--validation {amount:g}: of {len(set(hashes))} questions that leaves {what}")
    return chosen


def _place(pair: Pair) -> float:
    """A question's place between 0 and 1; that of a document goes by all it says, as many may begin alike."""
    said = f"{pair.premise} {pair.question}" if pair.question else pair.prompt + pair.completion
    text = " ".join(said.casefold().split())
    return int.from_bytes(hashlib.sha256(text.encode(errors="backslashreplace")).digest()[:6]) / 2**48


@torch.no_grad()
def mean_loss(model: Any, rows: Sequence[Encoded], pad: int, batch_size: int) -> float:
    """Mean cross entropy over the completions' tokens of all rows."""
    model.eval()
    head, total = model.get_output_embeddings(), 0.0
    rows = sorted(rows, key=lambda row: len(row.ids))
    for at in range(0, len(rows), batch_size):
        batch = {k: v.to(model.device) for k, v in padded(rows[at : at + batch_size], pad).items()}
        total += completion_loss(model, batch, head).item()
    return total / sum(len(row.ids) - row.prompt for row in rows)


def decomposition_figures(
    model: Any, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair], rows: Sequence[Encoded]
) -> dict[str, float]:
    """Shares of the questions whose greedy decomposition could be read (`parsed`), has as many subquestions as the
    known one (`count`), or is it (`exact`); and the mean of `rouge_l`."""
    matches, alike = [], []
    order = sorted(range(len(rows)), key=lambda k: rows[k].prompt)
    for at in range(0, len(order), _AT_ONCE):
        some = order[at : at + _AT_ONCE]
        replies = _greedy(model, tokenizer, [rows[k].ids[: rows[k].prompt] for k in some])
        for k, reply in zip(some, replies, strict=True):
            made, known = parse(reply), parse(pairs[k].completion)
            matches.append(score_decomposition(made, known))
            alike.append(rouge_l(" ".join(made.texts), " ".join(known.texts)))
    quality = quality_of(matches)
    shares = {name: getattr(quality, name).value for name in ("parsed", "count", "exact")}
    return shares | {"rouge_l": sum(alike) / len(alike), "questions": quality.n}


@torch.no_grad()
def _greedy(model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]]) -> list[str]:
    """The likeliest replies to prompts of several lengths, padded on the left."""
    model.eval()
    longest, pad = max(map(len, prompts)), tokenizer.pad_token_id
    room = model.config.max_position_embeddings - longest
    made = model.generate(
        input_ids=torch.tensor([[pad] * (longest - len(ids)) + ids for ids in prompts]).to(model.device),
        attention_mask=torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]).to(model.device),
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=max(1, min(MAX_TOKENS_DECOMPOSE, room)),
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=pad,
            use_cache=True,
        ),
    )
    return tokenizer.batch_decode(made[:, longest:], skip_special_tokens=True)
