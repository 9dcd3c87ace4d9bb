"""Other words for the rarer ones of a row, the same one wherever it stands, so that they have to be copied.

A small model that meets the same few thousand questions again and again learns their subquestions by heart, and then
writes a word that it knows for one that it should have read. What cannot be known can only be copied.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

_COMMON = 0.01  # a word in so large a share of the rows is part of the language, and stays
_SAMPLE = 20_000  # rows that are looked at for it
_REPLACED = 0.85  # share of the words that may be replaced, and are
_INVENTED = 0.35  # share of the new words that no language has
_ENDINGS = ("ing", "ies", "ed", "es", "ly", "er", "s", "y", "e")
_INFLECTIONS = ("s", "es", "d", "ed", "ing", "er", "ers", "ly")
_WORD = re.compile(r"[A-Za-z]{3,}")
_IN_TEXT = re.compile(rf"(\b[Aa]n? )?({_WORD.pattern})")
_ONSETS = (*"bcdfghjklmnprstvwz", "bl", "br", "ch", "cl", "cr", "dr", "fl", "fr", "gl", "gr", "pl", "pr", "qu", "sc")
_STARTS = (*_ONSETS, "sh", "sk", "sl", "sm", "sn", "sp", "st", "str", "sw", "th", "tr", "tw", "")
_VOWELS = (*"aeiou" * 3, "ai", "ea", "ee", "ie", "oa", "oo", "ou")
_CODAS = (*"bdgklmnprt" * 2, "ck", "ft", "ld", "ll", "mp", "nd", "ng", "nt", "rd", "rk", "rm", "rn", "rt", "sh", "st")


@dataclass(frozen=True)
class Lexicon:
    """`common` words stay; `others` are what may stand for another, by their ending."""

    common: frozenset[str]
    others: dict[str, tuple[str, ...]]


def lexicon_of(rows: Iterable[Sequence[str]]) -> Lexicon:
    """From the texts of rows: of the first 20,000, where there are more."""
    counts = Counter[str]()
    looked_at = 0
    for texts in islice(rows, _SAMPLE):
        looked_at += 1
        counts.update({word.lower() for text in texts for word in _WORD.findall(text)})
    common = frozenset(word for word, count in counts.items() if count >= _COMMON * looked_at)
    others: dict[str, list[str]] = {}
    for word in sorted(counts.keys() - common):
        others.setdefault(_ending(word), []).append(word)
    return Lexicon(common, {ending: tuple(words) for ending, words in others.items()})


def reworded(rng: random.Random, texts: Sequence[str], lexicon: Lexicon) -> tuple[str, ...]:
    """The question, which is the first of the texts, and what is written about it, in other words.

    Words that are common, or that the question alone has, stay.
    """
    asked, *rest = ({word.lower() for word in _WORD.findall(text)} - lexicon.common for text in texts)
    words = asked.union(*rest)
    stems = {word: _stem(word, words) for word in sorted(words)}
    shared = sorted({stems[word] for word in asked.intersection(set().union(*rest))})
    taken = {_root(word) for word in words}
    moved: dict[str, str] = {}
    for stem in shared:
        if rng.random() < _REPLACED:
            moved[stem] = _other(rng, stem, lexicon, taken)
            taken.add(_root(moved[stem]))
    new = {word: moved[stem] + word.removeprefix(stem) for word, stem in stems.items() if stem in moved}

    def put(found: re.Match[str]) -> str:
        article, word = found[1] or "", new.get(found[2].lower())
        if word is None:
            return found[0]
        if article:
            article = article[0] + ("n " if word[0] in "aeiou" else " ")
        return article + (word.capitalize() if found[2][0].isupper() else word)

    return tuple(_IN_TEXT.sub(put, text) for text in texts)


def _stem(word: str, words: set[str]) -> str:
    """The shortest word of the row that this is a form of: itself, if there is no other."""
    stems = (word.removesuffix(end) for end in _INFLECTIONS if word.endswith(end))
    return next((_stem(stem, words) for stem in stems if stem in words), word)


def _other(rng: random.Random, word: str, lexicon: Lexicon, taken: set[str]) -> str:
    ending = _ending(word)
    known = lexicon.others.get(ending, ())
    while True:
        new = rng.choice(known) if known and rng.random() >= _INVENTED else _invented(rng) + ending
        if _root(new) not in taken:
            return new


def _invented(rng: random.Random) -> str:
    syllables = rng.choices((1, 2, 3), (2, 5, 1))[0]
    return "".join(rng.choice(_STARTS) + rng.choice(_VOWELS) for _ in range(syllables)) + rng.choice(_CODAS)


def _root(word: str) -> str:
    return word.removesuffix(_ending(word))


def _ending(word: str) -> str:
    return next((end for end in _ENDINGS if word.endswith(end) and len(word) > len(end) + 2), "")
