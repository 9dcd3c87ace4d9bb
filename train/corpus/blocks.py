"""Reads texts/*.txt: the blocks that problems are put together from.

    == shopping                              a domain; `== music (held out)`: never in the split train
    thing: apple, box of tea                 words to choose from; {thing} is one of them and {things} its plural
    aside: The store closes at {h}. | ...    sentences that do not matter
    opening: {A} goes to a store. | ...      a sentence to begin with

    spent -> spent                           a block: it takes a number of the kind `spent`, and gives one
    q 5..40/5, d part                        numbers to draw (see numbers.draw_of)
    {A} <gets> a {q}% discount. | ...        a fact, in several phrasings, one fact a line
    c = v - v*q/100 :: How much ...? | ...   a step: its value, and ways to ask for it; the first is the plainest

A block without a kind before the arrow begins a problem. `count + count by people -> lead` goes on from two numbers,
which are of two people (the second begins with {B} for {A}) or of two things (with {y} for {x}); they are `v` and `w`.
After `-> count of basket of fruit`, {x} is a basket of fruit.

In a text {A}, {B} and {C} are people, {he}, {his} and {him} are A, {x}, {y} and {z} things of the domain and {xs} more
of them, {when1} to {when3} times and {kind1} to {kind3} kinds; {verb} and {verbs} are what the domain does with its
things, and <sells> is in the problem's tense. A step's value is arithmetic on drawn numbers, earlier steps of its
block, v and w.
"""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

from .english import past
from .numbers import Draw, draw_of

TEXTS = Path(__file__).with_name("texts")
FILES = ("shops", "food", "people", "nature", "making", "moving", "time", "heldout")

_HEADER = re.compile(r"(?:(\S+)(?: \+ (\S+) by (things|people))? )?-> (\S+)(?: of (.+))?")
_DRAWS = re.compile(r"[a-z] (?:\d|in |price|rel|part)")
_STEP = re.compile(r"([a-z]) = (.+?) :: (.+)")
_LIST = re.compile(r"(\w+): (.+)")
_ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div),
    *(ast.Name, ast.Load, ast.Constant, ast.Call),
)
_VERB = re.compile(r"<([\w' -]+)>")


@dataclass(frozen=True)
class Form:
    """One phrasing, in the present and in the past, as templates of str.format."""

    tenses: tuple[str, str]

    @property
    def slots(self) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(self.tenses[0]) if name}


@dataclass(frozen=True)
class Step:
    """One number to be found: `value` of the numbers that it `uses`; `equation` shows the sum, given them as texts."""

    name: str
    uses: frozenset[str]
    value: Callable[[dict[str, Any]], float]
    equation: Callable[[dict[str, Any]], str]
    forms: tuple[Form, ...]


@dataclass(frozen=True)
class Block:
    """`words` are what its texts need beside its own numbers, `money` and `spelled` names of such numbers."""

    takes: tuple[str, ...]
    by: str
    gives: str
    of: str
    draws: dict[str, Draw] = field(default_factory=dict)
    facts: list[tuple[Form, ...]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    words: set[str] = field(default_factory=set)
    money: set[str] = field(default_factory=set)
    spelled: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Domain:
    name: str
    held_out: bool
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    asides: list[Form] = field(default_factory=list)
    openings: list[Form] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


@cache
def read_domains() -> tuple[Domain, tuple[Domain, ...]]:
    """(what all domains share, the domains)."""
    (common,) = _read(TEXTS / "common.txt")
    return common, tuple(domain for name in FILES for domain in _read(TEXTS / f"{name}.txt"))


def _read(path: Path) -> list[Domain]:
    domains: list[Domain] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            _take(line.strip(), domains)
        except (ValueError, SyntaxError, LookupError) as error:
            raise ValueError(f"{path.name}:{number}: {error}") from error
    for block in (block for domain in domains for block in domain.blocks):
        _look_at_slots(block)
    return domains


def _take(line: str, domains: list[Domain]) -> None:
    """One line, for the last domain and its last block."""
    if not line or line.startswith("#"):
        return
    if line.startswith("== "):
        name = line.removeprefix("== ")
        domains.append(Domain(name.removesuffix(" (held out)"), name.endswith(" (held out)")))
        return
    domain = domains[-1]
    if header := _HEADER.fullmatch(line):
        takes = tuple(kind for kind in header.group(1, 2) if kind)
        domain.blocks.append(Block(takes, header[3] or "", header[4], header[5] or ""))
    elif not domain.blocks:
        named = _LIST.fullmatch(line)
        if not named:
            raise ValueError(f"neither a list of words nor the head of a block: {line!r}")
        if named[1] in ("aside", "opening"):
            (domain.asides if named[1] == "aside" else domain.openings).extend(_forms(named[2]))
        else:
            domain.words[named[1]] = tuple(word.strip() for word in named[2].split(","))
    elif _DRAWS.match(line):
        for spec in re.split(r", (?=[a-z] )", line):
            domain.blocks[-1].draws[spec[0]] = draw_of(spec[2:])
    elif step := _STEP.fullmatch(line):
        domain.blocks[-1].steps.append(_step(step[1], step[2], step[3]))
    else:
        domain.blocks[-1].facts.append(tuple(_forms(line)))


def _forms(line: str) -> list[Form]:
    return [
        Form((_VERB.sub(r"\1", text), _VERB.sub(lambda verb: past(verb[1]), text)))
        for text in (text.strip() for text in line.split("|"))
    ]


def _step(name: str, expression: str, forms: str) -> Step:
    tree = ast.parse(expression, mode="eval")
    if other := next((node for node in ast.walk(tree) if not isinstance(node, _ARITHMETIC)), None):
        raise ValueError(f"{expression!r} is not arithmetic: {type(other).__name__}")
    code = compile(tree, name, "eval")
    return Step(
        name,
        frozenset(code.co_names),
        lambda known: eval(code, {"__builtins__": {}}, known),
        _equation(tree.body),
        tuple(_forms(forms)),
    )


def _equation(node: ast.expr) -> Callable[[dict[str, Any]], str]:
    """The expression with its numbers put in; the values of a dict are texts, or Factors that are called."""
    match node:
        case ast.Constant(value=value):
            return lambda _: f"{value:g}"
        case ast.Name(id=name):
            return lambda known: str(known[name])
        case ast.Call(func=ast.Name(id=name), args=[inner]):
            of = _equation(inner)
            return lambda known: known[name].equation(of(known))
        case ast.BinOp(left=left, op=op, right=right):
            sign = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}[type(op)]
            one, other = _equation(left), _equation(right)
            return lambda known: f"{one(known)} {sign} {other(known)}"
    raise ValueError(f"cannot show {ast.unparse(node)!r}")


def _look_at_slots(block: Block) -> None:
    """Which words the block's texts need, which of its numbers are money, and which may be spelled out."""
    forms = [form for several in (*block.facts, *(step.forms for step in block.steps)) for form in several]
    texts = " ".join(form.tenses[0] for form in forms)
    numbers = {f"{name}{suffix}" for name in block.draws for suffix in ("", "_than", "_much")}
    block.words.update(set().union(*(form.slots for form in forms)) - numbers)
    block.money.update(re.findall(r"\$\{(\w)\}", texts))
    stuck = set(re.findall(r"\{(\w)\}(?=[\w%/-])", texts))
    block.spelled.update(set(block.draws) - block.money - stuck)
