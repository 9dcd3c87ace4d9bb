"""The training sets of arXiv 2402.15000, all made from the rows of `edgedc teach` and `edgedc screen`.

S_D-T   decomposer: the first usable draw of each question (teach)
S_D-R   decomposer: the first draw with which the solver reached the gold answer (screen)
S_E-T   solver: the solver's own solution of each question, right or wrong (screen)
S_E-A   solver: the same, what stands behind its last "The answer is:" replaced by the gold answer (screen)
Direct  solver: the gold answer alone (teach or screen)
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgedc.decomposer import CUT, REFUSALS
from edgedc.decomposition import Decomposition, decomposition_of, render
from edgedc.errors import InputError
from edgedc.files import Row, numbered_rows
from edgedc.generation import Message
from edgedc.methods import Method
from edgedc.prompts import ANSWER_MARK, Style, decompose_messages, solve_messages
from edgedc.tasks import Example

Kind = Literal["document", "teach", "screen"]

# The rows that each method is made from. The verb that writes them has the same name.
_MADE_FROM: dict[Method, tuple[Kind, ...]] = {
    "S_D-T": ("teach",),
    "S_D-R": ("screen",),
    "S_E-T": ("screen",),
    "S_E-A": ("screen",),
    "Direct": ("teach", "screen"),
}


# What a row may hold besides its question, status and subquestions, where it is read here.
_FIELDS: dict[str, type] = {
    "status": str,
    "premise": str,
    "answer": str,
    "answers": list,
    "task": str,
    "split": str,
    "draw": int,
    "solution": str,
    "verdict": bool,
}


@dataclass(frozen=True)
class Pair:
    """What is read and what is to be learnt. A document has a `prompt`, as it stands, and no `messages`.

    `line` (from 1) and `split` are those of the row it was made from.
    """

    id: str
    question: str
    premise: str
    messages: list[Message]
    completion: str
    prompt: str = ""
    line: int = 0
    split: str = ""


def read_pairs(path: Path, method: Method, style: Style, cap: int | None) -> tuple[list[Pair], Counter[str]]:
    """One pair a question, and how many rows were left out, by reason.

    Pairs are in the order of their ids, so that rows which came in another order train the same student.

    `style` and `cap` are those of the student's prompt. Documents (`{"prompt": ..., "completion": ...}`) are taken as
    they are, by every method. Raises InputError for a line that is no such row, for rows that another verb has to make
    for this method, and for a file that leaves nothing to train on.
    """
    left_out = Counter[str]()
    documents: list[Pair] = []
    chosen: dict[tuple[str, str], tuple[int, Pair]] = {}  # of each question the lowest draw so far
    for line, row in numbered_rows(path):
        kind = kind_of(row, f"{path}:{line}")
        if kind == "document":
            documents.append(_document(row, line))
            continue
        if kind not in _MADE_FROM[method]:
            raise InputError(_wrong_kind(f"{path}:{line}", kind, method))
        why = _unfit(row, method, cap)
        if why:
            left_out[why] += 1
            continue
        asked, draw = (row["question"], row.get("premise", "")), row.get("draw", 0)
        if asked in chosen:
            left_out["another draw of the same question"] += 1
        if asked not in chosen or draw < chosen[asked][0]:
            chosen[asked] = draw, _pair(row, line, method, style, cap)
    made = (pair for _, pair in chosen.values())
    by_id = sorted(made, key=lambda pair: (pair.id, pair.question, pair.premise))
    pairs = [*documents, *by_id]
    if not pairs:
        reasons = ", ".join(f"{count} {why}" for why, count in left_out.most_common()) or "the file is empty"
        raise InputError(f"{path}: nothing to train on by {method}: {reasons}")
    return pairs, left_out


def kind_of(row: Row, where: str) -> Kind:
    """What a line is. Raises InputError, with its place `where`, for one that is neither."""
    match row:
        case {"prompt": str(), "completion": str()}:
            return "document"
        case {"question": str() as question, "subquestions": list() as texts} if question.strip():
            wrong = next((name for name, kind in _FIELDS.items() if not isinstance(row.get(name, kind()), kind)), None)
            if wrong:
                raise InputError(f"{where}: {wrong} must be {_FIELDS[wrong].__name__}, is {type(row[wrong]).__name__}")
            if not all(isinstance(spans, list) and _are_texts(spans) for spans in row.get("answers", [])):
                raise InputError(f"{where}: answers must be a list of lists of texts")
            if _are_texts(texts):
                return "screen" if "verdict" in row else "teach"
    raise InputError(f"{where}: not a row to train on: it needs a question and a list of subquestions")


def _are_texts(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def unusable(row: Row) -> str:
    """Why a row of `edgedc teach` may not be trained on: its outcome; "" where it may.

    Rows of one's own need no `outcome`, and no `status`: what they have of them tells, `over_cap` too.
    """
    outcome = row.get("outcome")
    if outcome is None:
        outcome = "over_cap" if row.get("over_cap") else "unparsable" if row.get("status") == "unparsed" else "ok"
    return "" if outcome == "ok" else str(outcome)


def decomposition_in(row: Row) -> Decomposition:
    """The decomposition of a usable row."""
    return decomposition_of(row["subquestions"])


def solver_messages(row: Row) -> list[Message]:
    """What a solver is asked with the row's decomposition: as `edgedc.pipeline.answer` asks in mode static."""
    decomposition = decomposition_in(row)
    mode: Literal["static", "cot"] = "static" if decomposition.status == "decomposed" else "cot"
    return solve_messages(row["question"], row.get("premise", ""), mode=mode, decomposition=decomposition)


def _wrong_kind(where: str, kind: Kind, method: Method) -> str:
    (verb, *_) = _MADE_FROM[method]
    return f"{where}: a row of  edgedc {kind}, but {method} is trained on rows of  edgedc {verb}: make them with it"


def _unfit(row: Row, method: Method, cap: int | None) -> str:
    """Why a row is not for this method; "" where it is."""
    if method in ("S_E-A", "Direct") and not row.get("answer", "").strip():
        return "without a gold answer"
    if method == "Direct":
        return ""
    if why := unusable(row):
        return why
    if method in ("S_D-T", "S_D-R") and decomposition_in(row).exceeds(cap):
        return "over the student's cap"
    if method == "S_D-R" and not row["verdict"]:
        return "rejected by the screen"
    if method in ("S_E-T", "S_E-A"):
        if row.get("finish_reason") in CUT:
            return "with a solution that was cut"
        if row.get("finish_reason") in REFUSALS:
            return "with a solution that was refused"
        if not row.get("solution", "").strip():
            return "with an empty solution"
    if method == "S_E-A" and ANSWER_MARK.rstrip() not in row["solution"]:
        return f'without "{ANSWER_MARK.rstrip()}" in the solution'
    return ""


def _pair(row: Row, line: int, method: Method, style: Style, cap: int | None) -> Pair:
    question, premise = row["question"], row.get("premise", "")
    messages, completion = _messages(row, method, style, cap), _completion(row, method)
    return Pair(str(row.get("id", "")), question, premise, messages, completion, line=line, split=row.get("split", ""))


def _messages(row: Row, method: Method, style: Style, cap: int | None) -> list[Message]:
    question, premise = row["question"], row.get("premise", "")
    if method in ("S_D-T", "S_D-R"):
        return decompose_messages(question, premise, style=style, cap=cap)
    if method == "Direct":
        return solve_messages(question, premise, mode="single-stage")
    return solver_messages(row)


def _completion(row: Row, method: Method) -> str:
    if method in ("S_D-T", "S_D-R"):
        return render(decomposition_in(row))
    if method == "Direct":
        return f"{ANSWER_MARK}{row['answer']}"
    solution: str = row["solution"].strip()
    return with_answer(solution, row["answer"]) if method == "S_E-A" else solution


def untaught(example: Example, line: int, method: Method, style: Style, cap: int | None) -> Pair:
    """The pair of a question as far as it is known before anybody is asked: with nothing to learn yet."""
    row = {"question": example.question, "premise": example.premise, "subquestions": []}
    messages = _messages(row, method, style, cap)
    return Pair(example.id, example.question, example.premise, messages, "", line=line, split=example.split)


def with_answer(solution: str, answer: str) -> str:
    """The solution with `answer` in place of all that stands behind its last "The answer is:".

    Raises ValueError for a solution that says no such thing: where its answer stands is then a guess.
    """
    before, mark, _ = solution.rpartition(ANSWER_MARK.rstrip())
    if not mark:
        raise ValueError(f"the solution does not say {ANSWER_MARK.rstrip()!r}")
    return f"{before}{ANSWER_MARK}{answer}"


def _document(row: Row, line: int) -> Pair:
    return Pair(str(row.get("id", "")), "", "", [], row["completion"], row["prompt"], line, str(row.get("split", "")))
