"""Whether two models say the same: their scores for the next token at every position of some replies."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from edgedc.backends.greedy import encodable
from edgedc.bundle import Manifest
from edgedc.decomposition import decomposition_of, render
from edgedc.errors import InputError
from edgedc.files import numbered_rows
from edgedc.prompts import decompose_messages
from edgedc.tasks.microworld import problems

COUNT = 16
POSITIONS = 64  # of each text, the last; the scores of a vocabulary of 150,000 then take 0.6 GB


@dataclass(frozen=True)
class Text:
    """A question as the model reads it, with a reply where one is known; scores are compared from `start` on."""

    question: str
    ids: list[int]
    start: int


@dataclass(frozen=True)
class Agreement:
    """How the scores of a second model agree with those of a first.

    `kl` is the mean divergence from the first in nats, `top1` the share of positions with the same likeliest token,
    `max_difference` that of any two scores. `worst` is the question with the most KL.
    """

    texts: int
    positions: int
    kl: float
    top1: float
    max_difference: float
    worst: str
    worst_kl: float


def texts_for(tokenizer: PreTrainedTokenizerBase, manifest: Manifest, questions: Path | None) -> list[Text]:
    """The first 16 questions of a JSONL file, or 16 of microworld's, in the prompt that the model was trained with.

    Rows of `edgedc teach` come with their decomposition as the reply. Raises InputError when no row of the file is a
    question that fits the model's context, and for one that no tokenizer can read.
    """
    texts = []
    for question, premise, reply in itertools.islice(_questions(questions), COUNT):
        messages = decompose_messages(question, premise, style=manifest.prompt_style, cap=manifest.max_subquestions)
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        ids = [*prompt, *tokenizer(reply, add_special_tokens=False)["input_ids"]]
        if not manifest.context_length or len(ids) <= manifest.context_length:
            start = len(prompt) - 1 if reply else 0
            texts.append(Text(question, ids, max(start, len(ids) - POSITIONS)))
    if not texts:
        raise InputError(
            f"{questions}: no row with a `question` that fits the model's {manifest.context_length} tokens"
        )
    return texts


def _questions(path: Path | None) -> Iterable[tuple[str, str, str]]:
    """(question, premise, reply or "")."""
    if path is None:
        yield from ((p.question, "", render(p.decomposition)) for p in problems("test", COUNT))
        return
    seen = set()
    for line, row in numbered_rows(path):
        question, premise, texts = row.get("question"), row.get("premise") or "", row.get("subquestions")
        if isinstance(question, str) and isinstance(premise, str) and question not in seen:
            seen.add(question)
            known = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
            known = known and row.get("status") in ("decomposed", "not_needed")
            reply = render(decomposition_of(texts)) if known else ""
            try:
                encodable(f"{question}{premise}{reply}")
            except InputError as error:
                raise InputError(f"{path}:{line}: {error}") from error
            yield question, premise, reply


@torch.no_grad()
def scores_of(model: PreTrainedModel, texts: Sequence[Text]) -> list[torch.Tensor]:
    """For each text, the scores (positions, vocabulary) in float32 on the CPU."""
    model.eval()
    return [model(torch.tensor([text.ids]).to(model.device)).logits[0, text.start :].float().cpu() for text in texts]


def compare(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], texts: Sequence[Text]) -> Agreement:
    """How the second model's scores agree with the first's, on the same texts."""
    kls, same, most, positions = [], 0, 0.0, 0
    for a, b in zip(first, second, strict=True):
        a_log, b_log = a.double().log_softmax(-1), b.double().log_softmax(-1)
        kls.append((a_log.exp() * (a_log - b_log)).sum(-1))
        same += int((a.argmax(-1) == b.argmax(-1)).sum())
        most = max(most, float((a - b).abs().max()))
        positions += len(a)
    means = [float(kl.mean()) for kl in kls]
    worst = max(range(len(texts)), key=lambda n: means[n])
    mean = float(torch.cat(kls).mean())
    return Agreement(len(texts), positions, mean, same / positions, most, texts[worst].question, means[worst])
