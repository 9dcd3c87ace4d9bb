"""Rows of demonstrations or plain documents, and their token ids with the labels that training looks at."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase

from edgedc.bundle import Data
from edgedc.decomposition import decomposition_of, render
from edgedc.errors import InputError
from edgedc.files import Row, read_rows, sha256_of
from edgedc.prompts import decompose_messages

from .settings import TrainSettings

IGNORED = -100  # the label that PyTorch's cross entropy leaves out


def read_training_rows(path: Path) -> tuple[list[Row], Counter[str]]:
    """Rows to train on: demonstrations that hold a decomposition, or documents (`{"prompt": ..., "completion": ...}`).

    Refused, truncated and unparsable replies are counted, not trained on.
    """
    rows, left_out = [], Counter[str]()
    for number, row in enumerate(read_rows(path), start=1):
        if _is_document(row):
            rows.append(row)
        elif "question" not in row or "status" not in row:
            raise InputError(f"{path}:{number}: not a row of  edgedc teach  (question, status, subquestions)")
        elif row["status"] == "unparsed" or row.get("over_cap"):
            left_out["more subquestions than the cap" if row.get("over_cap") else "unparsed"] += 1
        else:
            rows.append(row)
    if not rows:
        raise InputError(f"{path}: no row to train on ({sum(left_out.values())} left out)")
    return rows, left_out


def _is_document(row: Row) -> bool:
    return isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str)


def texts_of(rows: Sequence[Row], settings: TrainSettings) -> list[str]:
    """What a tokenizer made from scratch is fitted to."""
    return [
        row["prompt"] + row["completion"]
        if _is_document(row)
        else f"{_messages(row, settings)[0]['content']}\n{_reply(row)}"
        for row in rows
    ]


def _reply(row: Row) -> str:
    return render(decomposition_of(row["subquestions"]))


def _messages(row: Row, settings: TrainSettings) -> list[Any]:
    premise = row.get("premise", "")
    return list(
        decompose_messages(row["question"], premise, style=settings.prompt_style, cap=settings.max_subquestions)
    )


def encode(
    path: Path, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, settings: TrainSettings
) -> list[dict[str, list[int]]]:
    """Token ids and labels: only the completion, with the token that ends it, has labels.

    Raises InputError for a row that is longer than `max_length`.
    """
    features = []
    for number, row in enumerate(rows, start=1):
        if _is_document(row):
            # Documents may be written in the chat format, whose marks are special tokens.
            prompt = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
            reply, end = row["completion"], tokenizer.pad_token_id
        else:
            prompt = tokenizer.apply_chat_template(
                _messages(row, settings), add_generation_prompt=True, return_dict=False
            )
            reply, end = _reply(row), tokenizer.eos_token_id
        completion = [*tokenizer(reply, add_special_tokens=False)["input_ids"], end]
        ids, labels = prompt + completion, [IGNORED] * len(prompt) + completion
        if len(ids) > settings.max_length:
            raise InputError(
                f"{path}: row {number} has {len(ids)} tokens, more than --max-length {settings.max_length}: "
                "raise it or take the row out"
            )
        features.append({"input_ids": ids, "labels": labels})
    return features


def describe(path: Path, rows: Sequence[Row]) -> Data:
    return Data(path.name, len(rows), sha256_of(path))


class RoughlyAlike(Sampler[int]):
    """An order of rows whose batches hold rows of roughly the same length and come in random order.

    Rows of one length are often of one kind: the shortest ones have the shortest replies. Batches sorted to the token
    would each teach one kind, and a run of them, long to short, would teach and unteach it; so lengths count only
    roughly (a fifth more padding), and neighbours have nothing in common. A new order every epoch, the same one for
    the same seed, so that a resumed run skips exactly what it has seen.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed} {self.epoch}")
        rows = rng.sample(range(len(self.lengths)), len(self.lengths))
        whole = len(rows) - len(rows) % self.batch_size
        rough = sorted(rows[:whole], key=lambda row: self.lengths[row] * rng.uniform(0.75, 1.25))
        batches = [rough[at : at + self.batch_size] for at in range(0, whole, self.batch_size)]
        rng.shuffle(batches)
        return iter([row for batch in batches for row in batch] + rows[whole:])
