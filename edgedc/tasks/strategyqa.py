"""StrategyQA: yes/no questions with human decompositions, in which `#1` stands for the first one's answer.

The file is a JSON list of `{"qid", "question", "answer": bool, "decomposition": [...]}`
(github.com/eladsegal/strategyqa).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgedc.decomposition import decomposition_of
from edgedc.errors import InputError
from edgedc.files import read_text
from edgedc.tasks import Example, Selection
from edgedc.tasks.scoring import gives_yes_no


def load(selection: Selection) -> Iterator[Example]:
    """The questions of a JSON file. Raises InputError for an entry that is not StrategyQA's, with its number."""
    if not selection.data:
        raise InputError("strategyqa needs its file: give --data train.json (github.com/eladsegal/strategyqa)")
    path = Path(selection.data)
    try:
        entries = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{path}{line}: not JSON: {error}") from error
    if not isinstance(entries, list):
        raise InputError(f"{path}: strategyqa's file is a JSON list of questions, not a {type(entries).__name__}")
    for number, entry in enumerate(entries, start=1):
        yield _example(entry, number, f"{path}, entry {number}")


def score(text: str, example: Example) -> bool:
    return gives_yes_no(text, example.answer)


def _example(entry: Any, number: int, where: str) -> Example:
    match entry:
        case {"question": str() as question, "answer": bool() as yes} if question.strip():
            asked = entry.get("decomposition")
        case _:
            raise InputError(f"{where}: an entry has a `question` that is not empty and an `answer`, true or false")
    if asked is not None and not (isinstance(asked, list) and all(isinstance(text, str) for text in asked)):
        raise InputError(f"{where}: `decomposition` is a list of texts, with `#1` for the first one's answer")
    return Example(
        id=str(entry.get("qid", f"strategyqa-{number}")),
        question=question.strip(),
        answer="yes" if yes else "no",
        decomposition=decomposition_of(asked) if asked else None,
    )
