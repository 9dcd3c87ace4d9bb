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
    """Rows to train on: demonstrations that hold a decomposition, or documents (`{"text": ...}`).

    Refused, truncated and unparsable replies are counted, not trained on.
    """
    rows, left_out = [], Counter[str]()
    for number, row in enumerate(read_rows(path), start=1):
        if isinstance(row.get("text"), str):
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


def texts_of(rows: Sequence[Row], settings: TrainSettings) -> list[str]:
    """What a tokenizer made from scratch is fitted to."""
    return [row["text"] if "text" in row else "\n".join(_prompt_and_reply(row, settings)) for row in rows]


def _prompt_and_reply(row: Row, settings: TrainSettings) -> tuple[str, str]:
    messages = _messages(row, settings)
    return messages[0]["content"], render(decomposition_of(row["subquestions"]))


def _messages(row: Row, settings: TrainSettings) -> list[Any]:
    premise = row.get("premise", "")
    return list(
        decompose_messages(row["question"], premise, style=settings.prompt_style, cap=settings.max_subquestions)
    )


def encode(
    path: Path, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, settings: TrainSettings
) -> list[dict[str, list[int]]]:
    """Token ids and labels. Of a demonstration only the completion and its end have labels; of a document, all.

    Raises InputError for a row that is longer than `max_length`.
    """
    features = []
    for number, row in enumerate(rows, start=1):
        if "text" in row:
            # Documents may be written in the chat format, whose marks are special tokens.
            ids = tokenizer(row["text"], add_special_tokens=False)["input_ids"] + [tokenizer.pad_token_id]
            labels = list(ids)
        else:
            prompt = tokenizer.apply_chat_template(
                _messages(row, settings), add_generation_prompt=True, return_dict=False
            )
            reply = tokenizer(_prompt_and_reply(row, settings)[1], add_special_tokens=False)["input_ids"]
            ids = prompt + reply + [tokenizer.eos_token_id]
            labels = [IGNORED] * len(prompt) + ids[len(prompt) :]
        if len(ids) > settings.max_length:
            raise InputError(
                f"{path}: row {number} has {len(ids)} tokens, more than --max-length {settings.max_length}: "
                "raise it or take the row out"
            )
        features.append({"input_ids": ids, "labels": labels})
    return features


def describe(path: Path, rows: Sequence[Row]) -> Data:
    return Data(path.name, len(rows), sha256_of(path))
