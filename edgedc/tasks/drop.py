"""DROP: questions about a passage whose answers are numbers, dates or spans of text, several of them at times.

`grade` is the official F1 and `score` the official exact match (Dua et al. 2019; allennlp_rc/eval/drop_eval.py): the
best over all annotators. The file is the official JSON, an object of passages with `qa_pairs`, or JSONL rows of
`context` (`Passage: ... Question: ... Answer:`) and `ref_text`, which joins annotators by a bar and spans by ` and `.
"""

import re
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgedc.assignment import best_pairs
from edgedc.errors import InputError
from edgedc.files import Row, numbered_rows, read_object
from edgedc.tasks import Example, Selection
from edgedc.tasks.scoring import answer_in

METRIC = "F1"

_CONTEXT = re.compile(r"\s*(?:Passage: )?(?P<passage>.*)\nQuestion: (?P<question>.*?)\s*(?:\nAnswer:)?\s*", re.DOTALL)
_JOINED = re.compile(r",? and |[;,] ?(?!\d{3}\b)")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_MARKS = str.maketrans("", "", string.punctuation)


def load(selection: Selection) -> Iterator[Example]:
    """Raises InputError for a file or a row that is not DROP's, with its line or the question's id."""
    if not selection.data:
        raise InputError("drop needs its file: give --data drop_dataset_dev.json (allenai.org/data/drop), or JSONL")
    path = Path(selection.data)
    yield from (_official(path) if path.suffix == ".json" else _rows(path))


def score(text: str, example: Example) -> bool:
    """The official exact match: some annotator's spans, as many and no others, but for what `_plain` leaves out."""
    return any(_equal(_spans_of(text, gold), gold) for gold in example.answers)


def grade(text: str, example: Example) -> float:
    """The official F1, from 0 to 1."""
    return max((f1(_spans_of(text, gold), gold) for gold in example.answers), default=0.0)


def paper_grade(text: str, example: Example) -> float:
    """As the released code of arXiv 2402.15000 has it: 1 where the first annotator's answer stands anywhere in it."""
    return float(example.answer.casefold().strip().replace(",", "") in text.casefold().replace(",", ""))


def f1(spans: Sequence[str], gold: Sequence[str]) -> float:
    """Mean F1 of word bags over the best one-to-one pairs of spans; a span without a partner counts as 0.

    A gold bag with a number in it gets nothing from one that shares no number. Rounded to two places, as officially.
    """
    ours, theirs = ([set(_plain(span).split()) for span in side] for side in (spans, gold))
    scores = [[_bag_f1(made, known) for made in ours] for known in theirs]
    pairs = best_pairs(scores)
    return round(sum(scores[row][column] for row, column in pairs) / max(len(ours), len(theirs)), 2)


def _equal(spans: Sequence[str], gold: Sequence[str]) -> bool:
    return len(spans) == len(gold) and set(map(_plain, spans)) == set(map(_plain, gold))


def _bag_f1(made: set[str], known: set[str]) -> float:
    numbers = {word for word in known if _number(word) is not None}
    common = len(made & known)
    if numbers and not numbers & made:
        return 0.0
    if not made or not known:  # an empty bag has all that it needs of nothing
        return float(made == known)
    return 2 * common / (len(made) + len(known))


def _spans_of(text: str, gold: Sequence[str]) -> list[str]:
    """The final answer as spans. A text is one span, unless several are wanted: then `and`, commas and `;` part it.

    The official metric takes a list from the system; a solver writes one line.
    """
    answer = answer_in(text)
    parts = [part for part in map(str.strip, _JOINED.split(answer)) if part] if len(gold) > 1 else []
    return parts or [answer]


def _plain(span: str) -> str:
    """Lower case, no articles, no punctuation but in numbers, which become floats; hyphens part words."""
    words = []
    for token in re.split(r"[ -]", span.lower()):
        number = _number(token)
        word = token if number is not None else token.translate(_NO_MARKS)
        number = _number(word)
        words += [str(number)] if number is not None else _ARTICLES.sub(" ", word).split()
    return " ".join(words)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _official(path: Path) -> Iterator[Example]:
    """`{passage id: {"passage", "qa_pairs": [{"question", "query_id", "answer", "validated_answers"}]}}`."""
    for name, entry in read_object(path).items():
        match entry:
            case {"passage": str() as passage, "qa_pairs": list() as pairs}:
                pass
            case _:
                raise InputError(f"{path}: {name}: an entry of drop has a `passage` and `qa_pairs`")
        for number, pair in enumerate(pairs, start=1):
            where = f"{path}: {name}, question {number}"
            match pair:
                case {"question": str() as question, "answer": dict() as first, **rest} if question.strip():
                    pass
                case _:
                    raise InputError(f"{where}: it needs a `question` that is not empty and an `answer`")
            others: Any = rest.get("validated_answers")
            answers = [_spans_in(answer, where) for answer in [first, *(others if isinstance(others, list) else [])]]
            yield _example(str(rest.get("query_id", f"{name}-{number}")), question, passage, answers, where)


def _spans_in(answer: Any, where: str) -> tuple[str, ...]:
    """The spans of an official answer: its number, its spans, or its date as `day month year`; () if all are empty."""
    match answer:
        case {"number": str() | int() | float() as number} if str(number).strip():
            return (str(number),)
        case {"spans": [_, *_] as spans} if all(isinstance(span, str) for span in spans):
            return tuple(spans)
        case {"date": dict() as date}:
            words = [str(date.get(part, "")).strip() for part in ("day", "month", "year")]
            return (" ".join(filter(None, words)),) if any(words) else ()
        case {"number": _} | {"spans": _}:
            return ()
    raise InputError(f"{where}: an answer has a `number`, `spans` or a `date`")


def _rows(path: Path) -> Iterator[Example]:
    for number, row in numbered_rows(path):
        where = f"{path}:{number}"
        passage, question, reference = _texts(row, where)
        answers = [tuple(part for part in map(str.strip, one.split(" and ")) if part) for one in reference.split("|")]
        yield _example(f"drop-{number}", question, passage, answers, where)


def _texts(row: Row, where: str) -> tuple[str, str, str]:
    match row:
        case {"context": str() as context, "ref_text": str() as reference}:
            found = _CONTEXT.fullmatch(context)
            if found and found["question"].strip():
                return found["passage"], found["question"], reference
    raise InputError(f"{where}: a row of drop has `context`, with a line `Question: ...` in it, and `ref_text`")


def _example(id: str, question: str, passage: str, answers: Sequence[tuple[str, ...]], where: str) -> Example:
    known = tuple(dict.fromkeys(answer for answer in answers if answer))
    if not known:
        raise InputError(f"{where}: no annotator gives an answer")
    return Example(id, question.strip(), passage.strip(), " and ".join(known[0]), answers=known)
