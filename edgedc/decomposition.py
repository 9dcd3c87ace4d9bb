"""Decompositions, and the only reader and writer of their text."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["decomposed", "not_needed", "unparsed"]

NOT_NEEDED = "No decomposition"

_REFERENCE = re.compile(r"#([1-9][0-9]?)\b")


@dataclass(frozen=True)
class Subquestion:
    """One line of text, and the 1-based numbers of the earlier subquestions whose answers it refers to as `#k`."""

    text: str
    needs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Decomposition:
    """What a decomposer said. `raw` is its text, word for word; it does not take part in comparisons.

    `decomposed`: there are subquestions. `not_needed`: it said that none are. `unparsed`: neither could be read from
    its text.
    """

    subquestions: tuple[Subquestion, ...]
    status: Status
    raw: str = field(default="", compare=False)

    @property
    def texts(self) -> list[str]:
        return [subquestion.text for subquestion in self.subquestions]


def decomposition_of(texts: Iterable[str], raw: str = "") -> Decomposition:
    """A decomposition from its subquestions' texts; none of them means that none are needed.

    White space within a text becomes single spaces and empty texts are dropped, so that each subquestion is one line.
    """
    lines = [line for line in (" ".join(text.split()) for text in texts) if line]
    if not lines:
        return Decomposition((), "not_needed", raw or NOT_NEEDED)
    subquestions = []
    for number, line in enumerate(lines, start=1):
        needs = {int(k) for k in _REFERENCE.findall(line)}
        subquestions.append(Subquestion(line, tuple(sorted(k for k in needs if k < number))))
    made = Decomposition(tuple(subquestions), "decomposed")
    return Decomposition(made.subquestions, "decomposed", raw or render(made))


def render(decomposition: Decomposition) -> str:
    """The canonical text: `1. ...`, one subquestion a line; `No decomposition`; or the raw text if unparsed.

    A single subquestion that holds a list mark of its own (`1. Which of 1. and 2.?`) is written as JSON, because the
    list form would be read as two.
    """
    if decomposition.status == "decomposed":
        text = "\n".join(f"{k}. {text}" for k, text in enumerate(decomposition.texts, start=1))
        return text if _canonical(text) is not None else json.dumps(decomposition.texts)
    return NOT_NEEDED if decomposition.status == "not_needed" else decomposition.raw


def parse(raw: str) -> Decomposition:
    """Read a decomposition from any model's text. Never raises.

    Accepts what `render` writes, numbered lists (`1.`, `2)`, `(3)`), bullets, `Q1:`, `Subquestion 1:`, JSON (a list, or
    an object with a list in it, fenced or not), lists on one line, and bare questions. Lines before the first item of
    a list are taken for a preamble. `parse(render(d)) == d` for every d that this module makes.
    """
    canonical = _canonical(raw)
    if canonical is not None:
        return decomposition_of(canonical, raw)
    text = re.sub(r"\A\s*<think>.*?</think>", "", raw, flags=re.DOTALL).strip()
    if _NOTHING.match(text):
        return Decomposition((), "not_needed", raw)
    for reader in (_from_json, _from_marked_lines, _from_one_line, _from_bare_questions):
        texts = [t for t in reader(text) if t.strip()]
        if texts:
            return decomposition_of(texts, raw)
    return Decomposition((), "unparsed", raw)


# "No decomposition", in quotes, bold or with "needed" behind it, alone on the first line.
_NOTHING = re.compile(
    r"[\W_]*no (?:further |sub-?question )?decomposition(?: is)?(?: needed| required| necessary)?[\W_]*?(?:\n|$)",
    re.IGNORECASE,
)
_NUMBER = r"\(?(?:sub-?question\s*#?|question\s*#?|step\s*#?|q\s*#?)?\s*\d{1,2}\s*(?:[.):](?!\d)|-\s)"
_MARK = re.compile(rf"[*_>#\s]*(?:{_NUMBER}|[-*+•–]\s)[*_]*\s*", re.IGNORECASE)
_Q_AGAIN = re.compile(r"q\d{1,2}\s*[:.)]\s*", re.IGNORECASE)
_INLINE_MARK = re.compile(rf"(?:(?<=\s)|^){_NUMBER}(?=\s)\s*", re.IGNORECASE)


def _canonical(raw: str) -> list[str] | None:
    """The texts if raw is exactly what `render` writes, so that a text which itself looks like a mark survives."""
    texts = []
    for number, line in enumerate(raw.split("\n"), start=1):
        mark = f"{number}. "
        text = line.removeprefix(mark)
        if not line.startswith(mark) or not text or text != " ".join(text.split()):
            return None
        texts.append(text)
    return texts if len(texts) > 1 or not _INLINE_MARK.search(texts[0]) else None


def _from_json(text: str) -> list[str]:
    start = re.search(r"\A(?=[\[{])|```(?:json)?\s*(?=[\[{])", text)
    if not start:
        return []
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start.end())
    except (ValueError, RecursionError):
        return []
    return _strings_in(value)


def _strings_in(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = next((v for v in value.values() if isinstance(v, list)), [])
    texts = []
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            item = next((v for v in item.values() if isinstance(v, str)), "")
        if isinstance(item, str):
            texts.append(item)
    return texts


def _from_marked_lines(text: str) -> list[str]:
    """Items of a list, one a line; a line without a mark goes on with the item above it, a blank one ends it."""
    texts: list[str] = []
    open_item = False
    for line in text.splitlines():
        mark = _MARK.match(line)
        if mark and line[mark.end() :].strip():
            item = line[mark.end() :]
            again = _Q_AGAIN.match(item)
            texts.append((item[again.end() :] if again else item).rstrip().removesuffix("**"))
            open_item = True
        elif not line.strip():
            open_item = False
        elif open_item and not texts[-1].rstrip().endswith("?"):
            texts[-1] += " " + line.strip()
    return texts if len(texts) != 1 else _from_one_line(text) or texts


def _from_one_line(text: str) -> list[str]:
    """`1. A? 2. B?` on one line: at least two marks, counting up from 1."""
    text = " ".join(text.split())
    marks = list(_INLINE_MARK.finditer(text))
    numbers = [int(re.sub(r"\D", "", mark.group())) for mark in marks]
    if len(marks) < 2 or numbers != list(range(1, len(marks) + 1)):
        return []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [text[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]


def _from_bare_questions(text: str) -> list[str]:
    return [f"{piece}?" for line in text.splitlines() for piece in line.split("?")[:-1] if piece.strip()]
