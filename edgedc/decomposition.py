"""Decompositions, and the only reader and writer of their text."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["decomposed", "not_needed", "unparsed"]

NOT_NEEDED = "No decomposition"

# What is taken from any model, however it came to say more: so many subquestions, of so many characters each.
MOST = 32
LONGEST = 1000

# Control characters, bidirectional overrides and isolates, line and paragraph separators.
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
_REFERENCE = re.compile(r"#([1-9][0-9]?)\b")

# "No decomposition", in quotes or bold, with "is needed" or a reason behind it, on the first line. A bracket before it
# is JSON's, and left to the reader of JSON.
_NOTHING = re.compile(
    r"(?:[^\w\[{]|_)*no (?:further )?(?:sub-?question )?decomposition(?: is)?(?: needed| required| necessary)?"
    r"(?:[\W_]*?(?:\n|\Z)|[.;] |,? (?:because|since|as)\b)",
    re.IGNORECASE,
)


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

    def exceeds(self, cap: int | None) -> bool:
        """Whether there are more subquestions than were asked for; None is no limit."""
        return cap is not None and len(self.subquestions) > cap


def decomposition_of(texts: Iterable[str], raw: str = "") -> Decomposition:
    """A decomposition from its subquestions' texts; none of them, or `No decomposition` alone: none are needed.

    White space and control characters within a text become single spaces, a text wholly in bold loses its `**`, and
    empty texts are dropped. So each subquestion is one line.
    """
    lines = [line for line in map(_one_line, texts) if line]
    if not lines or (len(lines) == 1 and _NOTHING.match(lines[0])):
        return Decomposition((), "not_needed", raw or NOT_NEEDED)
    subquestions = []
    for number, line in enumerate(lines, start=1):
        needs = {int(k) for k in _REFERENCE.findall(line)}
        subquestions.append(Subquestion(line, tuple(sorted(k for k in needs if k < number))))
    made = Decomposition(tuple(subquestions), "decomposed")
    return Decomposition(made.subquestions, "decomposed", raw or render(made))


def fill(subquestion: Subquestion, answers: Sequence[str]) -> str:
    """The subquestion's text with every `#k` that it needs replaced by the k-th answer.

    A reference to an answer that is not there, or is empty, stays as it is. So do all of them where the text would
    become longer than LONGEST: answers are a model's words too.
    """

    def answer(reference: re.Match[str]) -> str:
        k = int(reference[1])
        known = answers[k - 1] if k in subquestion.needs and k <= len(answers) else ""
        return known or reference[0]

    text = _REFERENCE.sub(answer, subquestion.text)
    return text if len(text) <= LONGEST else subquestion.text


def prerequisites(decomposition: Decomposition) -> list[tuple[int, ...]]:
    """For each subquestion the numbers of those that are to be answered before it, directly or through others.

    What a subquestion refers to, it depends on. Where not one of them refers to another, that says nothing: they may
    lean on one another in words ("then", "the rest"), and each comes after all before it.
    """
    told = any(subquestion.needs for subquestion in decomposition.subquestions)
    before: list[tuple[int, ...]] = []
    for number, subquestion in enumerate(decomposition.subquestions, start=1):
        needs = set(subquestion.needs) if told else set(range(1, number))
        before.append(tuple(sorted(needs.union(*(before[k - 1] for k in needs)))))
    return before


def render(decomposition: Decomposition) -> str:
    """The canonical text: `1. ...`, one subquestion a line; `No decomposition`; or the raw text if unparsed.

    A single subquestion that reads like a list of its own (`Is it 2. or 3.?`) is written as JSON.
    """
    if decomposition.status == "decomposed":
        text = "\n".join(f"{k}. {text}" for k, text in enumerate(decomposition.texts, start=1))
        return text if _canonical(text) is not None else json.dumps(decomposition.texts, ensure_ascii=False)
    return NOT_NEEDED if decomposition.status == "not_needed" else decomposition.raw


def parse(raw: str) -> Decomposition:
    """Read a decomposition from any model's text, in time linear in its length. Never raises.

    Accepts what `render` writes, numbered lists (`1.`, `2)`, `(3)`), bullets, `Q1:`, `Subquestion 1:`, JSON (a list, or
    an object with a list in it, fenced or not), lists on one line, and bare questions. Lines before the first item of
    a list are taken for a preamble, and what a reasoning model thought first (`<think>`) is left out.
    `parse(render(d)) == d` for every d that this module makes.
    """
    canonical = _canonical(raw)
    if canonical is not None:
        return decomposition_of(canonical, raw)
    text = _without_thought(raw)
    if _NOTHING.match(text):
        return Decomposition((), "not_needed", raw)
    for reader in (_from_json, _from_numbered_lines, _from_bullets, _from_one_line, _from_bare_questions):
        texts = [t for t in map(_one_line, reader(text)) if t]
        if texts:
            return decomposition_of(texts, raw)
    return Decomposition((), "unparsed", raw)


# A mark is matched against text in which all white space is single spaces: two neighbouring `\s*` would take time
# quadratic in a long run of it. Full-width digits are digits too; their punctuation is listed.
_NUMBER = r"[(（]?(?:(?:sub[- ]?)?question ?#?|step ?#?|q ?#?)? ?\d{1,2} ?(?:[.):．）：、](?!\d)|[-–](?= ))"
_NUMBER_MARK = re.compile(rf"(?P<bold>[*_># ]*)(?:[-•+–] )?{_NUMBER}", re.IGNORECASE)
_BULLET_MARK = re.compile(r"[>_ ]*[-*+•●▪·–—] (?P<bold>)")
_INLINE_MARK = re.compile(rf"(?:(?<= )|^){_NUMBER}(?= )", re.IGNORECASE)
_Q_AGAIN = re.compile(r" ?q\d{1,2} ?[:.)] ?", re.IGNORECASE)
_JSON_START = re.compile(r"\A(?=[\[{])|```(?:json)?\s*(?=[\[{])|:\s*(?=\[\s*[\"{])", re.IGNORECASE)


def _plain(text: str) -> str:
    """White space and what steers a terminal (Unicode's Cc, and marks that turn or hide text) become single spaces."""
    return " ".join(_STEERING.sub(" ", text).split())


def _one_line(text: str) -> str:
    line = _plain(text)
    inside = line[2:-2]
    if inside and line.startswith("**") and line.endswith("**") and "**" not in inside:
        return inside.strip()
    return line


def _canonical(raw: str) -> list[str] | None:
    """The texts if raw is exactly what `render` writes, so that a text which itself looks like a mark survives."""
    texts = []
    for number, line in enumerate(raw.split("\n"), start=1):
        mark = f"{number}. "
        text = line.removeprefix(mark)
        if not line.startswith(mark) or not text or text != _plain(text):
            return None
        texts.append(text)
    return texts if len(texts) > 1 or not _from_one_line(raw) else None


def _without_thought(raw: str) -> str:
    """The text behind a reasoning model's thoughts, whose beginning may stand in the prompt; "" if they never end."""
    text = raw.strip()
    if text.startswith(("[", "{")):
        return text
    if text.startswith("<think>") and "</think>" not in text:
        return ""
    return text.rpartition("</think>")[2].strip()


def _from_json(text: str) -> list[str]:
    start = _JSON_START.search(text)
    if not start:
        return []
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start.end())
    except (ValueError, RecursionError):
        return []
    return _strings_in(value)


def _strings_in(value: Any) -> list[str]:
    """The strings of a list, of the first list in an object, or of an object with keys like `Q1`."""
    if isinstance(value, dict):
        numbered = [v for k, v in value.items() if re.search(r"\d", k)]
        value = next((v for v in value.values() if isinstance(v, list)), numbered)
    texts = []
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            strings = {k: v for k, v in item.items() if isinstance(v, str)}
            item = next((v for k, v in strings.items() if "question" in k.lower()), next(iter(strings.values()), ""))
        if isinstance(item, str):
            texts.append(item)
    return texts


def _from_numbered_lines(text: str) -> list[str]:
    texts = _from_marked_lines(text, _NUMBER_MARK)
    return texts if len(texts) != 1 else _from_one_line(text) or texts


def _from_bullets(text: str) -> list[str]:
    return _from_marked_lines(text, _BULLET_MARK)


def _from_marked_lines(text: str, mark: re.Pattern[str]) -> list[str]:
    """Items of a list, one a line; a line without a mark goes on with the item above it, a blank one ends it.

    So does a bullet below a number: it explains the item.
    """
    texts: list[str] = []
    open_item = False
    for line in (" ".join(line.split()) for line in text.splitlines()):
        found = mark.match(line)
        item = line[found.end() :] if found else ""
        if found and "*" in found["bold"]:  # **1.** How? or **1. How?**
            item = item.removeprefix("**") if item.startswith("**") else item.removesuffix("**")
        again = _Q_AGAIN.match(item)
        item = item[again.end() :] if again else item
        if item.strip(" *_"):
            texts.append(item)
            open_item = True
        elif not line or _BULLET_MARK.match(line):
            open_item = False
        elif open_item and not texts[-1].endswith(("?", "？")):
            texts[-1] += " " + line
    return texts


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
    if text.startswith(("[", "{")):  # JSON that was cut off: its pieces are not questions
        return []
    pieces = (piece for line in text.splitlines() for piece in re.split(r"(?<=[?？])", line)[:-1])
    return [piece for piece in pieces if piece.strip(" ?？")]
