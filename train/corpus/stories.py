"""Word problems with their subquestions, put together from blocks."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .blocks import Block, Domain, Form, read_domains
from .cast import cast_of, known_words
from .english import capital, plural, right_articles
from .numbers import Factor, shown
from .telling import told

_STEPS = {2: 28, 3: 30, 4: 22, 5: 12, 6: 6, 7: 2}  # how many steps a problem is to have, and how often: as in GSM8K
_LARGEST = 200_000
_DRAWS = 14  # times that the numbers of a block are drawn until they work out
_OWN = 0.66  # share of problems that begin with a block of their own domain, not with a common one
_JOINED = 0.3  # share of longer problems that begin with two numbers
_AS_ASKED = 0.85  # share of problems whose last subquestion has the words of the question

# Money may have cents; everything else that is asked for is whole.
_MONEY = ("How much", "For how much", "What is the total c")


@dataclass(frozen=True)
class Solved:
    """A subquestion, the arithmetic that answers it, and the answer."""

    ask: str
    equation: str
    value: float


@dataclass(frozen=True)
class Problem:
    domain: str
    question: str
    steps: tuple[Solved, ...]

    @property
    def answer(self) -> str:
        return plain(self.steps[-1].value)

    @property
    def subquestions(self) -> list[str]:
        return [step.ask for step in self.steps]


def plain(value: float) -> str:
    """`12`, or `12.50`."""
    return f"{value:.2f}".removesuffix(".00")


def problems(rng: random.Random, *, held_out: bool = False) -> Iterator[Problem]:
    """Word problems without end, of the domains that are trained on, or of the others."""
    common, every = read_domains()
    shelves = [_Shelf(common, domain) for domain in every if domain.held_out == held_out]
    while True:
        problem = _Story(rng, rng.choice(shelves)).problem()
        if problem:
            yield problem


class _Shelf:
    """A domain's blocks, and the common ones that it has words for, by what they take."""

    def __init__(self, common: Domain, domain: Domain) -> None:
        self.domain, self.common = domain, common
        self.lists = common.words | domain.words
        known = known_words(tuple(self.lists))
        shared = [block for block in common.blocks if block.words <= known]
        self.heads = [block for block in domain.blocks if not block.takes]
        self.shared_heads = [block for block in shared if not block.takes]
        self.joins = [block for block in shared if len(block.takes) == 2]
        self.tails: dict[str, list[Block]] = {}
        for block in (*domain.blocks, *shared):
            if len(block.takes) == 1:
                self.tails.setdefault(block.takes[0], []).append(block)

    def head(self, rng: random.Random, steps: int) -> Block:
        heads = self.heads if rng.random() < _OWN or not self.shared_heads else self.shared_heads
        return rng.choice([block for block in heads if len(block.steps) <= steps] or heads)


class _Story:
    """One try at a problem: blocks told one after another, each going on from the number before it."""

    def __init__(self, rng: random.Random, shelf: _Shelf) -> None:
        self.rng, self.shelf = rng, shelf
        self.cast = cast_of(rng, shelf.lists)
        self.words = self.cast.words
        self.facts: list[str] = []
        self.steps: list[Solved] = []
        self.blocks: list[Block] = []
        self.value = 0.0
        self.forms: tuple[Form, ...] = ()
        self.filling: dict[str, Any] = {}

    def problem(self) -> Problem | None:
        """None when the numbers that were drawn do not work out, or the problem would be too short."""
        rng = self.rng
        wanted = rng.choices(list(_STEPS), list(_STEPS.values()))[0]
        ok = self._join(wanted) if wanted > 2 and rng.random() < _JOINED else self._add(self.shelf.head(rng, wanted))
        while ok and len(self.steps) < wanted:
            tails = self.shelf.tails.get(self.blocks[-1].gives, ())
            fit = [b for b in tails if len(b.steps) <= wanted - len(self.steps) and self._is_new(b)]
            if not fit:
                break
            ok = self._add(rng.choice(fit), v=self.value)
        if not ok or len(self.steps) < 2:
            return None
        asked = _filled(rng.choice(self.forms), self.cast.past, self.filling)
        steps = list(self.steps)
        if rng.random() < _AS_ASKED:
            steps[-1] = Solved(asked, steps[-1].equation, steps[-1].value)
        if len({step.ask for step in steps}) < len(steps):
            return None
        text = told(rng, self.cast, self.shelf.domain, self.shelf.common, self.facts, asked)
        return Problem(self.shelf.domain.name, text, tuple(steps))

    def _is_new(self, block: Block) -> bool:
        """No block twice, and never back to a kind that was left: hours to minutes to hours."""
        kinds = [told.gives for told in self.blocks]
        return block not in self.blocks and (block.gives == kinds[-1] or block.gives not in kinds)

    def _join(self, wanted: int) -> bool:
        """Two beginnings, of two things or two people, and what their numbers are together."""
        rng = self.rng
        join = rng.choice(self.shelf.joins)
        taken = {"y", "ys", "z", "zs"} if join.by == "things" else {"B", "C", "kin"}
        every = self.shelf.heads if rng.random() < 0.5 else (*self.shelf.heads, *self.shelf.shared_heads)
        heads = [b for b in every if b.gives == join.takes[0] and len(b.steps) < wanted - 1 and not b.words & taken]
        if not heads:
            return False
        first = rng.choice(heads)
        if not self._add(first):
            return False
        one, self.words = self.value, self.cast.second(join.by)
        if not self._add(first if rng.random() < 0.5 else rng.choice(heads)):
            return False
        self.words = self.cast.words
        return self._add(join, v=one, w=self.value)

    def _add(self, block: Block, **carried: float) -> bool:
        """Tell a block; False when no numbers work out."""
        worked = self._work_out(block, carried)
        if worked is None:
            return False
        drawn, known = worked
        words: dict[str, Any] = self.words | self._number_words(block, drawn)
        tense = self.cast.past
        for phrasings in block.facts:
            text = _filled(self.rng.choice(phrasings), tense, words)
            self.facts += [text] if text else []
        texts = {name: value if isinstance(value, Factor) else plain(value) for name, value in known.items()}
        for step in block.steps:
            ask = _filled(step.forms[0], tense, words)
            self.steps.append(Solved(ask, step.equation(texts), known[step.name]))
        self.value, self.forms, self.filling = known[block.steps[-1].name], block.steps[-1].forms, words
        self.blocks.append(block)
        if block.of:
            thing = block.of.format_map(words)
            self.words = self.words | {"x": thing, "xs": plural(thing)}
        return True

    def _work_out(self, block: Block, carried: dict[str, float]) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(the numbers drawn, all numbers of the block by name)."""
        for _ in range(_DRAWS):
            drawn = {name: draw(self.rng) for name, draw in block.draws.items()}
            known: dict[str, Any] = drawn | carried
            for step in block.steps:
                value = known[step.name] = round(step.value(known), 6)
                unit = 100 if step.forms[0].tenses[0].startswith(_MONEY) else 1
                if not 0 < value <= _LARGEST or abs(value * unit - round(value * unit)) > 1e-6:
                    break
            else:
                return drawn, known
        return None

    def _number_words(self, block: Block, drawn: dict[str, Any]) -> dict[str, str]:
        words: dict[str, str] = {}
        for name, value in drawn.items():
            if isinstance(value, Factor):
                words.update((name + suffix, text) for suffix, text in value.words.items())
            else:
                words[name] = shown(self.rng, value, money=name in block.money, spell=name in block.spelled)
        return words


def _filled(form: Form, tense: int, words: dict[str, Any]) -> str:
    """ "" stays: a fact need not be said."""
    text = right_articles(form.tenses[tense].format_map(words))
    return capital(text) if text else ""
