"""Every prompt, for teaching, training, export checks and the runtime.

A student is trained with the style that its manifest names and runs with the same one. Change a text here and its
style gets a new name.
"""

import re
from collections.abc import Sequence
from typing import Literal, get_args

from edgedc.decomposition import Decomposition, render
from edgedc.generation import Message

Style = Literal["instruct-1", "compact-1"]
STYLES: tuple[Style, ...] = get_args(Style)

# The published method caps at three; four- and five-step questions need more, and the cap is a flag everywhere.
MAX_SUBQUESTIONS = 5
MAX_TOKENS_DECOMPOSE = 256
MAX_TOKENS_SOLVE = 1024

ANSWER_MARK = "The answer is: "

# a line that only lays out what stands around it: `**`, `$$`, `\[`, a fence
_LAYOUT = re.compile(r"\s*(?:[*_$]*|```\w*|\\[\[\]()])\s*")

# The worked example of `shots=1`. It has two subquestions, so that it keeps to any cap from two up.
_WORKED = (
    'For example, asked "A bakery fills 6 boxes with 8 rolls each and sells 29 of the rolls. How many rolls does it '
    'keep?", return:\n1. How many rolls does the bakery put into boxes?\n2. How many rolls remain after the sale?\n\n'
    "Break down this one in the same form."
)

_IN_WORDS = ("no", "one", "two", "three", "four", "five")


def decompose_messages(
    question: str, premise: str = "", *, style: Style, cap: int | None, shots: int = 0
) -> list[Message]:
    """Ask for at most `cap` subquestions (None: no limit), with `shots` worked examples, of which there is one.

    `instruct-1` is I_decomp of arXiv 2402.15000, for a teacher that has not been trained to decompose.
    `compact-1` is for a student that has: it costs a tenth of the tokens on every question, and takes no example.
    """
    if shots not in (0, 1) or (shots and (style != "instruct-1" or (cap is not None and cap < 2))):
        raise ValueError(f"there are no {shots} examples for style {style} and a cap of {cap}")
    if style == "instruct-1":
        limit = ""
        if cap is not None:
            count = _IN_WORDS[cap] if cap < len(_IN_WORDS) else str(cap)
            some = "subquestion is" if cap == 1 else "subquestions are"
            limit = f", ensuring that no more than {count} {some} formulated for each question"
        content = (
            "Your task is to break down a given complex question into the most relevant and helpful subquestions"
            f"{limit}. Both the context and the main question will be provided to you. If "
            'the question does not need breaking down to be answered, return "No decomposition"; otherwise, list the '
            "necessary subquestions. Only return subquestions that directly aid in answering the original question, "
            "avoiding any that could be harmful or unhelpful."
        )
        content += f"\n\n{_WORKED}{_asked(question, premise, chr(10))}" if shots else _asked(question, premise, " ")
    else:
        limit = "" if cap is None else f" Subquestions: at most {cap}."
        content = f"Break down.{limit}{_asked(question, premise, chr(10))}"
    return [{"role": "user", "content": content}]


def solve_messages(
    question: str,
    premise: str = "",
    *,
    mode: Literal["single-stage", "cot", "static"],
    decomposition: Decomposition | None = None,
) -> list[Message]:
    """Ask a solver for the answer: at once, with its own reasoning, or by way of the given subquestions."""
    asked = _asked(question, premise, "\n")
    if mode == "single-stage":
        task = "Answer the question with the answer alone, in at most five words and without any reasoning."
    elif mode == "cot":
        task = "Answer the question. Think step by step before you answer."
    else:
        if decomposition is None or decomposition.status != "decomposed":
            raise ValueError("static mode needs a decomposition with subquestions")
        task = "Answer the subquestions one by one, then answer the question."
        asked += f"\nSubquestions:\n{render(decomposition)}"
    return [{"role": "user", "content": f'{task} End with "{ANSWER_MARK}" and the answer.{asked}'}]


def step_messages(
    question: str, premise: str = "", *, solved: Sequence[tuple[str, str]], subquestion: str | None
) -> list[Message]:
    """Interactive mode: the next subquestion, given (subquestion, answer) pairs so far; None: the question itself."""
    task = "Answer only the next subquestion of the question." if subquestion else "Answer the question."
    known = "".join(f"\nSubquestion: {asked}\nAnswer: {answer}" for asked, answer in solved)
    last = f"\nNext subquestion: {subquestion}" if subquestion else ""
    content = f'{task} End with "{ANSWER_MARK}" and the answer.{_asked(question, premise, chr(10))}{known}{last}'
    return [{"role": "user", "content": content}]


def final_answer(text: str) -> str:
    """The line behind the last "The answer is:", else the last line; one that is nothing but layout is none."""
    _, mark, answer = text.rpartition(ANSWER_MARK.rstrip())  # all of it, where there is no mark
    lines = [line for line in answer.splitlines() if not _LAYOUT.fullmatch(line)]
    if not lines:
        return ""
    return (lines[0] if mark else lines[-1]).strip().strip("*").rstrip(".").strip()


def _asked(question: str, premise: str, gap: str) -> str:
    context = f"{gap}Context: {premise}" if premise else ""
    return f"{context}{gap}Question: {question}"
