"""Bamboogle: 125 questions of two hops with short answers (Press et al. 2023). A test set: nothing is trained on it.

The file is a JSON list of `{"Question": ..., "answer": [...]}`, where `answer` may be one text too.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgedc.errors import InputError
from edgedc.files import read_text
from edgedc.prompts import ANSWER_MARK
from edgedc.tasks import Example, Selection
from edgedc.tasks.scoring import gives_number, gives_text


def load(selection: Selection) -> Iterator[Example]:
    """Raises InputError for an entry that is not Bamboogle's, and for any split but the test split."""
    if selection.split != "test":
        raise InputError(f"bamboogle is a test set and has no split {selection.split!r}: give --split test")
    if not selection.data:
        raise InputError("bamboogle needs its file: give --data bamboogle.json")
    path = Path(selection.data)
    try:
        entries = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(entries, list):
        raise InputError(f"{path}: bamboogle's file is a JSON list of questions, not a {type(entries).__name__}")
    for number, entry in enumerate(entries, start=1):
        yield _example(entry, number, f"{path}, entry {number}")


def score(text: str, example: Example) -> bool:
    """Equal to one of the answers as a text, but for case and punctuation, or as a number where it is one."""
    return any(gives_text(text, answer) or gives_number(text, answer) for (answer,) in example.answers)


def paper_grade(text: str, example: Example) -> float:
    """As the released code of arXiv 2402.15000 has it: 1 where the answer stands in what follows the last mark."""
    said, gold = (_bare(part) for part in (text.rpartition(ANSWER_MARK)[2], example.answer))
    return float(gold in said)


def _bare(text: str) -> str:
    return text.replace(",", "").replace('"', "").lower()


def _example(entry: Any, number: int, where: str) -> Example:
    match entry:
        case {"Question": str() as question, "answer": str() | list() as given} if question.strip():
            answers = [given] if isinstance(given, str) else given
        case _:
            raise InputError(f"{where}: an entry has a `Question` that is not empty and an `answer`")
    if not answers or not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise InputError(f"{where}: `answer` is a text, or a list of texts, that are not empty")
    texts = [answer.strip() for answer in answers]
    id = str(entry.get("id", f"bamboogle_{number}"))
    return Example(id, question.strip(), answer=texts[0], answers=tuple((text,) for text in texts))
