"""Variants of real rows: other numbers, names and things, and sentences in another order. What is asked stays right.

Each function gives the row itself where its rule cannot be kept: too little is better than a wrong lesson.
"""

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache

from .english import HE, SHE, in_words, plural
from .worked import IN_WORDS, NUMBER, WORD, Worked, numbers_in, recomputed, value_of

_DRAWS = 30
_STEPS = (1000, 500, 100, 50, 20, 10, 5, 2)
# What else a number may stand for: `half` is a 2 that a question does not show.
_ALSO = {
    2: "half|halv|twice|doubl|pair|both|couple|two",
    3: "third|tripl|thrice|yard",
    4: "quarter|fourth",
    5: "fifth|nickel|weekday",
    7: "week|day",
    10: "tenth|dime|decade",
    12: "dozen|month|year|foot|feet",
    16: "ounce|pound",
    24: "hour|day",
    25: "quarter",
    30: "month",
    36: "yard",
    52: "week|year",
    60: "minute|hour|second",
    100: "%|percent|cent|dollar|century",
    365: "year",
    1000: "kilo|km|kg|gram|meter",
}
_FIXED_AFTER = re.compile(
    r"\s?(?:%|percent|/|:|a\.?m|p\.?m|th\b|st\b|nd\b|rd\b|degrees|(?:arm|hand|leg|wheel|eye|side|finger)s?\b|-wheel)",
    re.IGNORECASE,
)
_CLASSES = (
    ("apple", "pear", "peach", "plum", "mango", "banana", "lemon", "apricot"),
    ("cookie", "muffin", "cupcake", "brownie", "donut", "pancake", "bagel", "scone"),
    ("marble", "sticker", "bead", "button", "badge", "seashell", "pebble"),
    ("pencil", "pen", "eraser", "crayon", "marker", "notebook", "ruler", "folder"),
    ("cow", "goat", "pig", "horse", "donkey", "llama"),
    ("rose", "tulip", "daisy", "sunflower", "lily", "carnation"),
    ("doll", "kite", "puzzle", "robot"),
    ("shirt", "sweater", "jacket", "skirt", "scarf", "hat"),
    ("cabbage", "cucumber", "carrot", "onion", "turnip", "pumpkin"),
)
_CLASS_OF = {thing: things for things in _CLASSES for thing in things}
_SINGULAR = {plural(thing): thing for thing in _CLASS_OF}
_THING = re.compile(rf"\b({'|'.join(sorted((*_CLASS_OF, *_SINGULAR), key=len, reverse=True))})\b")
_ARTICLE = re.compile(r"\b([Aa])n? (?=(\w))")
_EITHER = frozenset(
    ("Alex", "Ali", "Andrea", "Ashley", "Charlie", "Chris", "Courtney", "Dana", "Jackie", "Jay", "Kelly", "Kendra")
) | {"Kim", "Kyle", "Leslie", "Max", "Mei", "Sam", "Sean", "Stacy", "Tracy", "Yuki"}
_SEX = dict.fromkeys(HE, "he") | dict.fromkeys(SHE, "she")
_NAME = re.compile(rf"\b({'|'.join(sorted(_SEX, key=len, reverse=True))})\b(?!['’](?!s)| ?\.[A-Z])")
_BEFORE = ("Tell me:", "Hi!", "So,", "I wonder:", "Quick question:", "Hmm,", "Hello,", "Please help:", "Q:", "Well,")
# A sentence with one of these may lean on the one before it.
_LEANS = re.compile(
    r"\b(he|she|it|they|his|hers?|its|their|him|them|this|that|these|those|then|next|after|before|also|another|"
    r"others?|rest|remain\w*|left|twice|times|double|triple|half|third|quarter|more|less|fewer|than|as|same|each|both|first|"
    r"second|last|finally|later|now|but|however|so|instead|there|here|again|altogether|total|if|every|all|of the|"
    r"\w+days?|January|February|March|April|May|June|July|August|\w+ember|October|hour|week|month|year|morning|afternoon|evening|"
    r"night|noon)\b",
    re.IGNORECASE,
)


def varied(rng: random.Random, worked: Worked) -> Worked:
    """One variant, by all the rules that can be kept; the row itself now and then."""
    for change, share in ((renumbered, 0.7), (renamed, 0.8), (with_other_things, 0.4), (reordered, 0.3)):
        if rng.random() < share:
            worked = change(rng, worked)
    return worked


def renumbered(rng: random.Random, worked: Worked) -> Worked:
    """Other numbers in the question, and what follows from them in the subquestions and the answer."""
    given, before, may_change = _reckoned(worked)
    if not may_change:
        return worked
    for _ in range(_DRAWS):
        changed = {value: _near(rng, value) for value in may_change if rng.random() < 0.8}
        after = recomputed(worked, changed, given)
        if changed and after and _is_sensible(before, after, changed, given):
            put_in = {**changed, **dict(zip(before, after, strict=True))}
            return replace(
                worked,
                question=_with_numbers(worked.question, changed),
                subquestions=tuple(_with_numbers(text, put_in) for text in worked.subquestions),
                calculations=(),
                answer=_written(after[-1]),
            )
    return worked


@cache
def _reckoned(worked: Worked) -> tuple[frozenset[Fraction], list[Fraction], list[Fraction]]:
    """The numbers of the question, the results, and which numbers may change; none where the rules cannot be kept."""
    given = frozenset(numbers_in(worked.question))
    before = recomputed(worked, {}, given) or []
    told = all(value in given or value in before for text in worked.subquestions for value in numbers_in(text))
    sound = told and before and before[-1] == value_of(worked.answer)
    return given, before, _changeable(worked, given) if sound else []


def _changeable(worked: Worked, given: frozenset[Fraction]) -> list[Fraction]:
    """Whole numbers of the question that are reckoned with, and can mean nothing else."""
    fixed = {Fraction(1)}
    for found in NUMBER.finditer(worked.question):
        value = value_of(found[0])
        year = not found[1] and "," not in found[0] and value is not None and 1900 <= value <= 2100
        if value is not None and (year or value.denominator > 1 or _FIXED_AFTER.match(worked.question, found.end())):
            fixed.add(value)
    used = {value_of(number) for expression, _ in worked.calculations for number in re.findall(r"[\d.]+", expression)}
    text = worked.question.lower()
    return sorted(
        value
        for value in given - fixed
        if value in used and not re.search(_ALSO.get(int(value), r"(?!)").removesuffix("|two"), text)
    )


def _near(rng: random.Random, value: Fraction) -> Fraction:
    """From half to twice as much, and as round."""
    step = next((step for step in _STEPS if value % step == 0 and value >= 2 * step), 1)
    return Fraction(
        step * rng.randint(max(-(-int(value) // (2 * step)), 2 if step == 1 else 1), 2 * int(value) // step)
    )


def _is_sensible(
    before: list[Fraction], after: list[Fraction], changed: dict[Fraction, Fraction], given: frozenset[Fraction]
) -> bool:
    """Whole where it was whole, positive, of the same order, and every number still tells one thing from another."""
    kept = given - set(changed)
    distinct = [*changed.values(), *set(after)]
    return (
        all(new > 0 and old / 5 < new < old * 5 for old, new in zip(before, after, strict=True))
        and all(
            (new.denominator == 1) if old.denominator == 1 else (100 % new.denominator == 0)
            for old, new in zip(before, after, strict=True)
        )
        and len(set(distinct)) == len(distinct)
        and not kept & set(distinct)
    )


def _with_numbers(text: str, put_in: dict[Fraction, Fraction]) -> str:
    def digits(found: re.Match[str]) -> str:
        value = value_of(found[0])
        if value not in put_in:
            return found[0]
        return found[1] + _written(put_in[value], commas="," in found[0])

    def words(found: re.Match[str]) -> str:
        value = IN_WORDS[found[0].lower()]
        if value not in put_in:
            return found[0]
        said = in_words(int(put_in[value])) if put_in[value].denominator == 1 else _written(put_in[value])
        return said.capitalize() if found[0][0].isupper() else said

    return WORD.sub(words, NUMBER.sub(digits, text))


def _written(value: Fraction, *, commas: bool = False) -> str:
    if value.denominator == 1:
        return f"{int(value):,}" if commas else str(int(value))
    return f"{float(value):.2f}"


def renamed(rng: random.Random, worked: Worked) -> Worked:
    """Other first names, of the same sex, wherever one stands."""
    names = Counter(_NAME.findall(worked.question))
    put_in: dict[str, str] = {}
    for name, count in names.items():
        if name in _EITHER or len(re.findall(rf"\b{name}\b", worked.question)) != count:
            continue
        choices = HE if _SEX[name] == "he" else SHE
        new = rng.choice(choices)
        if new not in _EITHER and new not in put_in.values() and not any(new in text for text in _texts(worked)):
            put_in[name] = new
    return _replaced(worked, lambda text: _NAME.sub(lambda found: put_in.get(found[0], found[0]), text))


def with_other_things(rng: random.Random, worked: Worked) -> Worked:
    """Pears for apples, all through the row."""
    text = " ".join(_texts(worked))
    put_in: dict[str, str] = {}
    for found in dict.fromkeys(_THING.findall(worked.question)):
        thing = _SINGULAR.get(found, found)
        new = rng.choice(_CLASS_OF[thing])
        if thing not in put_in and new not in put_in.values() and new not in text:
            put_in[thing] = new

    def swapped(found: re.Match[str]) -> str:
        thing = _SINGULAR.get(found[0], found[0])
        if thing not in put_in:
            return found[0]
        return put_in[thing] if found[0] == thing else plural(put_in[thing])

    def right(text: str) -> str:
        text = _THING.sub(swapped, text)
        return _ARTICLE.sub(lambda a: f"{a[1]}{'n' if a[2] in 'aeio' else ''} " if _follows(a) else a[0], text)

    def _follows(article: re.Match[str]) -> bool:
        return article.string.startswith(tuple(put_in.values()), article.end())

    return _replaced(worked, right)


def reordered(rng: random.Random, worked: Worked) -> Worked:
    """Two neighbouring sentences, neither of which leans on another, the other way round."""
    sentences = re.split(r"(?<=[.?!]) ", worked.question)
    places = [
        k
        for k in range(1, len(sentences) - 2)
        if all(
            re.search(r"\d", text) and text.endswith(".") and not _LEANS.search(text) for text in sentences[k : k + 2]
        )
    ]
    if not places:
        return worked
    k = rng.choice(places)
    sentences[k : k + 2] = reversed(sentences[k : k + 2])
    return replace(worked, question=" ".join(sentences))


def retyped(rng: random.Random, question: str) -> str:
    """As people type who are in a hurry: without capitals, without a question mark, with a word before it."""
    kind = rng.random()
    if kind < 0.3:
        question = question.lower()
    elif kind < 0.5:
        question = question[0].lower() + question[1:]
    if rng.random() < 0.4:
        question = question.rstrip("?. ")
    return f"{rng.choice(_BEFORE)} {question}" if rng.random() < 0.4 else question


def _texts(worked: Worked) -> tuple[str, ...]:
    return worked.question, *worked.subquestions


def _replaced(worked: Worked, change: Callable[[str], str]) -> Worked:
    return replace(
        worked, question=change(worked.question), subquestions=tuple(change(text) for text in worked.subquestions)
    )
