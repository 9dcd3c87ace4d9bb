"""GSM8K: grade-school word problems with worked answers; in the socratic form each step has its subquestion.

A row is `{"question": ..., "answer": ...}`; the answer's lines are worked steps, or `subquestion ** worked step`, and
the last is `#### number` (github.com/openai/grade-school-math).
"""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgedc.decomposition import Decomposition, decomposition_of
from edgedc.errors import EdgedcError, InputError, MissingExtra
from edgedc.files import Row, numbered_rows
from edgedc.tasks import Example, Selection
from edgedc.tasks.scoring import gives_number, number_in

METRIC = "exact match"
HUB_ID = "openai/gsm8k"
HUB_CONFIG = "socratic"

# `name` or `owner/name`; anything else that is not there is a missing file.
_HUB_NAME = re.compile(r"[\w.-]+/[\w-]+|[\w-]+", re.ASCII)


def load(selection: Selection) -> Iterator[Example]:
    """The rows of a JSONL file, or of the hub's data set where no file is named.

    Raises InputError for a row that is not GSM8K's, with its line.
    """
    data = selection.data or HUB_ID
    if Path(data).exists() or not _HUB_NAME.fullmatch(data):
        rows = ((f"{data}:{number}", row) for number, row in numbered_rows(Path(data)))
    else:
        rows = ((f"{data} {selection.split} row {k}", row) for k, row in enumerate(_hub_rows(data, selection.split), 1))
    for number, (where, row) in enumerate(rows, start=1):
        yield _example(f"gsm8k-{selection.split}-{number}", row, where)


def score(text: str, example: Example) -> bool:
    return gives_number(text, example.answer)


def paper_grade(text: str, example: Example) -> float:
    """As the released code of arXiv 2402.15000 has it: 1 where any word of the whole text is the answer.

    It drops `$` and all that follows a point, so 18.75 is 18, and `**18**` is not. It raises for an answer that is no
    integer; here that is 0.
    """
    answer = example.answer.replace(",", "")
    if not re.fullmatch(r"-?\d+", answer, re.ASCII):
        return 0.0
    wanted = (answer, f"{int(answer):,}")
    return float(any(word.removesuffix(".").partition(".")[0] in wanted for word in text.replace("$", "").split()))


def _example(id: str, row: Row, where: str) -> Example:
    match row:
        case {"question": str() as question, "answer": str() as worked} if question.strip():
            steps, mark, answer = worked.rpartition("####")
        case _:
            raise InputError(f"{where}: a row of gsm8k has a `question` and an `answer`, both texts that are not empty")
    if not mark or number_in(answer) is None:
        raise InputError(f"{where}: the answer does not end with `#### ` and a number")
    return Example(id, question.strip(), answer=answer.strip().replace(",", ""), decomposition=_subquestions(steps))


def _subquestions(steps: str) -> Decomposition | None:
    """The subquestions of a socratic answer; None for a plain one, which has none to show."""
    asked = [line.partition("**")[0].strip() for line in steps.splitlines() if " ** " in line]
    return decomposition_of(asked) if asked else None


def _hub_rows(data: str, split: str) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtra("datasets", "hub") from error
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a hub out of reach is told once, below
    try:
        yield from datasets.load_dataset(data, HUB_CONFIG, split=split, streaming=True)
    except (OSError, ValueError) as error:
        # The hub's own errors are OSErrors (no connection, no such data set) and ValueErrors (no such split or config).
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EdgedcError(
            f"{data}: no file of that name, and the hub did not give it: {reason}; name a JSONL file with --data"
        ) from error
