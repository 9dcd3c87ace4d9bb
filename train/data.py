"""Rows of demonstrations or plain documents, and their token ids with the labels that training looks at."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
