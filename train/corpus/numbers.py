"""Numbers that are drawn for a problem: plain ones, comparisons (`twice as many as`) and parts (`a third`)."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from .english import in_words

_PRICES = (*range(1, 21), *range(1, 21), 24, 25, 30, 35, 40, 50, 0.5, 1.5, 2.5, 3.5, 4.5, 0.25, 0.75, 1.25)
_TIMES = {2: ("twice", "twice", "two times"), 3: ("three times", "3 times")}
_PARTS = {
    Fraction(1, 2): ("half", "half", "half", "1/2"),
    Fraction(1, 3): ("a third", "one-third", "one third", "1/3"),
    Fraction(1, 4): ("a quarter", "one-fourth", "a fourth", "1/4"),
    Fraction(1, 5): ("a fifth", "one-fifth", "1/5"),
    Fraction(1, 6): ("one-sixth", "1/6"),
    Fraction(1, 8): ("an eighth", "1/8"),
    Fraction(1, 10): ("a tenth", "1/10"),
    Fraction(2, 3): ("two-thirds", "two thirds", "2/3"),
    Fraction(3, 4): ("three-quarters", "three-fourths", "3/4"),
    Fraction(2, 5): ("two-fifths", "2/5"),
    Fraction(3, 5): ("three-fifths", "3/5"),
    Fraction(4, 5): ("four-fifths", "4/5"),
    Fraction(3, 8): ("3/8",),
}
_PERCENTS = (10, 20, 20, 25, 25, 30, 40, 50, 50, 60, 70, 75, 80, 90)


@dataclass(frozen=True)
class Factor:
    """A number seen from another one: `times` of it and `plus`. `words` are its forms in a text, by suffix.

    `{r}` is `twice as many` or `5 more`, `{r_than}` the `as` or `than` that goes with it, and `{r_much}` the same of
    money. A part has `{f}` alone: `a third`, before `of`.
    """

    times: Fraction
    plus: int
    words: dict[str, str]

    def __call__(self, value: float) -> float:
        return float(self.times * Fraction(value).limit_denominator(100) + self.plus)

    def equation(self, of: str) -> str:
        times = self.times
        text = of if times == 1 else f"{of} * {times.numerator}" if times.numerator > 1 or times > 1 else of
        if times.denominator > 1:
            text += f" / {times.denominator}"
        return text + (f" + {self.plus}" if self.plus > 0 else f" - {-self.plus}" if self.plus < 0 else "")


Number = float | Factor
Draw = Callable[[random.Random], Number]


def draw_of(spec: str) -> Draw:
    """What `3..40`, `5..100/5`, `in 1,2,5`, `price`, `rel` or `part` stands for. Raises ValueError for another spec."""
    if spec == "rel":
        return _comparison
    if spec == "part":
        return _part
    if spec == "price":
        return lambda rng: rng.choice(_PRICES)
    if spec.startswith("in "):
        chosen = [float(value) if "." in value else int(value) for value in spec[3:].split(",")]
        return lambda rng: rng.choice(chosen)
    span, _, step = spec.partition("/")
    low, dots, high = span.partition("..")
    if not dots:
        raise ValueError(f"no such range of numbers: {spec!r}")
    values = range(int(low), int(high) + 1, int(step or 1))
    return lambda rng: values[int(rng.random() * len(values))]


def _comparison(rng: random.Random) -> Factor:
    kind = rng.random()
    if kind < 0.4:
        return _times(rng, rng.choices((2, 3, 4, 5, 6), (40, 25, 15, 13, 7))[0], 0)
    if kind < 0.57:
        part = rng.choices((Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(2, 3)), (60, 17, 15, 8))[0]
        said = rng.choice(_PARTS[part])
        return Factor(part, 0, {"": f"{said} as many", "_than": "as", "_much": f"{said} as much"})
    if kind < 0.9:
        plus = rng.randint(2, 25) if rng.random() < 0.8 else rng.randrange(30, 101, 5)
        said = _spelled(rng, plus)
        if kind < 0.75:
            return Factor(Fraction(1), plus, {"": f"{said} more", "_than": "than", "_much": f"${plus} more"})
        words = {"": f"{said} {rng.choice(('fewer', 'less'))}", "_than": "than", "_much": f"${plus} less"}
        return Factor(Fraction(1), -plus, words)
    if kind < 0.95:
        percent = rng.choice(_PERCENTS)
        sign, word = rng.choice(((1, "more"), (-1, "fewer")))
        much = "more" if sign == 1 else "less"
        said = rng.choice((f"{percent}%", f"{percent} percent"))
        words = {"": f"{said} {word}", "_than": "than", "_much": f"{said} {much}"}
        return Factor(1 + sign * Fraction(percent, 100), 0, words)
    return _times(rng, rng.choice((2, 2, 3, 4)), rng.choice((-1, 1)) * rng.randint(2, 15))


def _times(rng: random.Random, times: int, plus: int) -> Factor:
    said = rng.choice(_TIMES.get(times, (f"{in_words(times)} times", f"{times} times")))
    many, much, link = f"{said} as many", f"{said} as much", "as"
    if plus:
        word = f"{abs(plus)} {'more' if plus > 0 else 'less'} than"
        many, much = f"{word} {many}", f"${word} {much}"
    return Factor(Fraction(times), plus, {"": many, "_than": link, "_much": much})


def _part(rng: random.Random) -> Factor:
    if rng.random() < 0.35:
        percent = rng.choice(_PERCENTS)
        return Factor(Fraction(percent, 100), 0, {"": rng.choice((f"{percent}%", f"{percent} percent"))})
    part = rng.choices(list(_PARTS), (30, 15, 15, 8, 4, 3, 4, 6, 6, 4, 3, 2, 1))[0]
    return Factor(part, 0, {"": rng.choice(_PARTS[part])})


def _spelled(rng: random.Random, value: int) -> str:
    return in_words(value) if value <= 12 and rng.random() < 0.3 else str(value)


def shown(rng: random.Random, value: float, *, money: bool, spell: bool) -> str:
    """A plain number as a text has it: `12`, `twelve` where it may be spelled, `1,200`, `2.50` of money."""
    if value != int(value):
        return f"{value:.2f}" if money else f"{value:g}"
    if spell and value <= 12 and rng.random() < 0.25:
        return in_words(int(value))
    return f"{int(value):,}" if value >= 1000 and rng.random() < 0.6 else str(int(value))
