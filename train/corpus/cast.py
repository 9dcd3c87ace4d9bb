"""Who and what a story is about: the words that stand for {A}, {xs}, {when1} and the others in its texts."""

import random
from dataclasses import dataclass
from functools import cache

from .english import HE, SHE, capital, past, plural, third_person

_WHENS = (
    ("on Monday", "on Tuesday", "on Wednesday"),
    ("on Friday", "on Saturday", "on Sunday"),
    ("in April", "in May", "in June"),
    ("in the first week", "in the second week", "in the third week"),
    ("on the first day", "on the second day", "on the third day"),
    ("in the morning", "in the afternoon", "in the evening"),
    ("last week", "this week", "next week"),
    ("in January", "in February", "in March"),
    ("in the first year", "in the second year", "in the third year"),
    ("in the first hour", "in the second hour", "in the third hour"),
)
_MONTHS = ("January", "March", "May", "July", "September", "November")
_KINDS = (
    ("red", "blue", "green"),
    ("yellow", "purple", "orange"),
    ("black", "white", "gray"),
    ("small", "large", "medium"),
    ("new", "old", "broken"),
    ("plain", "striped", "spotted"),
    ("cheap", "expensive", "free"),
    ("light", "heavy", "very heavy"),
)
_KIN = {
    "he": ("brother", "uncle", "cousin", "friend", "neighbor", "classmate", "grandfather", "colleague"),
    "she": ("sister", "aunt", "cousin", "friend", "neighbor", "classmate", "grandmother", "colleague"),
}
PRONOUNS = {"he": ("he", "his", "him"), "she": ("she", "her", "her")}
_SURNAMES = (
    "Smith", "Jones", "Lee", "Garcia", "Chen", "Patel", "Brown", "Miller", "Davis", "Lopez", "Kim", "Nguyen", "Clark",
    "Young", "Baker", "Hill", "Wood", "Ali", "Silva", "Novak",
)  # fmt: skip

_ROLES = 0.2  # share of stories about `the baker`, where the domain has such people
_TITLES = 0.05  # share of stories about `Mrs. Lee`
_PAST = 0.55  # share of stories in the past tense


@dataclass(frozen=True)
class Cast:
    """`role` is "baker" where {A} is "the baker", else "". `sexes` are those of {A}, {B} and {C}: "he" or "she"."""

    words: dict[str, str]
    sexes: tuple[str, ...]
    role: str
    past: bool

    def second(self, by: str) -> dict[str, str]:
        """The words with {B} in the place of {A} (people), or {y} in that of {x} (things)."""
        if by == "things":
            return self.words | {"x": self.words["y"], "xs": self.words["ys"]}
        he, his, him = PRONOUNS[self.sexes[1]]
        return self.words | {"A": self.words["B"], "he": he, "his": his, "him": him}


def cast_of(rng: random.Random, lists: dict[str, tuple[str, ...]]) -> Cast:
    """`lists` are a domain's words to choose from."""
    sexes = tuple(rng.choice(("he", "she")) for _ in "ABC")
    names, role = _names(rng, sexes, lists)
    in_past = rng.random() < _PAST
    words = dict(zip("ABC", names, strict=True))
    words["he"], words["his"], words["him"] = PRONOUNS[sexes[0]]
    words["his_or_her"] = rng.choice(("his", "her"))
    words["kin"] = rng.choice(_KIN[sexes[1]])
    for name, choices in lists.items():
        if name not in ("thing", "verb", "hero"):
            words[name] = rng.choice(choices)
            words[plural(name)] = plural(words[name])
    if "thing" in lists:
        for name, thing in zip("xyz", rng.sample(lists["thing"], 3), strict=True):
            words[name], words[f"{name}s"] = thing, plural(thing)
    if "verb" in lists:
        words["verb"] = rng.choice(lists["verb"])
        words["verbs"] = past(words["verb"]) if in_past else third_person(words["verb"])
    whens, kinds, start = rng.choice(_WHENS), rng.choice(_KINDS), rng.randrange(len(_MONTHS) - 2)
    for k in range(3):
        words[f"when{k + 1}"], words[f"When{k + 1}"] = whens[k], capital(whens[k])
        words[f"kind{k + 1}"] = kinds[k]
        words[f"month{k + 1}"] = _MONTHS[start + k]
    return Cast(words, sexes, role, in_past)


def _names(rng: random.Random, sexes: tuple[str, ...], lists: dict[str, tuple[str, ...]]) -> tuple[list[str], str]:
    names: list[str] = []
    for sex in sexes:
        name = rng.choice(HE if sex == "he" else SHE)
        while name in names:
            name = rng.choice(HE if sex == "he" else SHE)
        names.append(name)
    if "hero" in lists and rng.random() < _ROLES:
        role = rng.choice(lists["hero"])
        return [f"the {role}", *names[1:]], role
    if rng.random() < _TITLES:
        title = "Mr." if sexes[0] == "he" else rng.choice(("Mrs.", "Ms."))
        names[0] = f"{title} {rng.choice(_SURNAMES)}"
    return names, ""


@cache
def known_words(lists: tuple[str, ...]) -> frozenset[str]:
    """What a cast has words for, given the names of a domain's lists."""
    names = {*lists, *(plural(name) for name in lists), "A", "B", "C", "he", "his", "him", "his_or_her", "kin"}
    names |= {f"{name}{k}" for name in ("when", "When", "kind", "month") for k in (1, 2, 3)}
    return frozenset(names | ({"x", "xs", "y", "ys", "z", "zs"} if "thing" in lists else set()))
