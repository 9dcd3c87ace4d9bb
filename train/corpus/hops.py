"""Yes/no questions about general knowledge, of two to five hops, with `#1` for the first one's answer."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import CodeType, SimpleNamespace
from typing import Any

from .blocks import TEXTS
from .english import capital

Thing = SimpleNamespace  # `name` and the fields of its kind


@dataclass(frozen=True)
class Hops:
    question: str
    subquestions: tuple[str, ...]
    answer: str


@dataclass
class _Pattern:
    kinds: dict[str, str]
    questions: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    holds: CodeType | None = None
    far: tuple[tuple[CodeType, float], ...] = ()


def questions(rng: random.Random) -> Iterator[Hops]:
    """Questions without end."""
    things, patterns = _read()
    while True:
        made = _ask(rng, rng.choice(patterns), things)
        if made:
            yield made


def _ask(rng: random.Random, pattern: _Pattern, things: dict[str, list[Thing]]) -> Hops | None:
    chosen = {name: rng.choice(things[kind]) for name, kind in pattern.kinds.items()}
    names = [thing.name for thing in chosen.values()]
    if len(set(names)) < len(names):
        return None
    known: dict[str, Any] = {"__builtins__": {}, **chosen}
    if any(abs(eval(code, known)) < least for code, least in pattern.far):
        return None
    assert pattern.holds is not None
    answer = "yes" if eval(pattern.holds, known) else "no"
    text = capital(rng.choice(pattern.questions).format(**chosen))
    return Hops(text, tuple(capital(step.format(**chosen)) for step in pattern.steps), answer)


class _Named(SimpleNamespace):
    """A thing: written and compared by its name."""

    def __format__(self, spec: str) -> str:
        return str(self.name)

    def __eq__(self, other: object) -> bool:
        return bool(self.name == getattr(other, "name", other))

    __hash__ = None  # type: ignore[assignment]


@cache
def _read() -> tuple[dict[str, list[Thing]], list[_Pattern]]:
    things: dict[str, list[Thing]] = {}
    fields: list[str] = []
    for line in _lines("knowledge.txt"):
        if line.startswith("== "):
            kind, _, listed = line[3:].partition(": ")
            fields = [field.strip() for field in listed.split(",")]
            things[kind] = []
            continue
        name, *values = (value.strip() for value in line.split(";"))
        if len(values) != len(fields):
            raise ValueError(f"knowledge.txt: {name} has {len(values)} of {len(fields)} fields")
        things[kind].append(_Named(name=name, **{f: _value(v) for f, v in zip(fields, values, strict=True)}))
    return things, _patterns()


def _patterns() -> list[_Pattern]:
    patterns: list[_Pattern] = []
    for line in _lines("hops.txt"):
        mark, text = line[0], line[1:].strip()
        if mark == ":":
            patterns.append(_Pattern(dict(pair.split() for pair in text.split(","))))
        elif mark == "-":
            patterns[-1].steps += (text,)
        elif mark == "=":
            patterns[-1].holds = _code(text)
        elif line.startswith("far "):
            pairs = (pair.rsplit(",", 1) for pair in line[4:].split(";"))
            patterns[-1].far = tuple((_code(pair.replace(",", " - ")), float(least)) for pair, least in pairs)
        else:
            patterns[-1].questions = tuple(form.strip() for form in line.split("|"))
    return patterns


def _lines(name: str) -> list[str]:
    lines = (line.strip() for line in (TEXTS / name).read_text("utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _code(text: str) -> CodeType:
    return compile(text.strip(), "hops.txt", "eval")


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
