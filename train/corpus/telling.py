"""From the facts of a story to the text of a problem: pronouns, asides, introductions, the form of the question."""

import random
import re

from .blocks import Domain, Form
from .cast import PRONOUNS, Cast
from .english import HE, SHE, capital, with_article

_PRONOUN = 0.6  # share of the places where a name can be a pronoun, and is
_MERGED = 0.2  # share of problems whose last fact goes into the question
_ASIDES = {0: 80, 1: 16, 2: 4}  # how many sentences that do not matter, and how often
_OPENING = 0.12
_INTRODUCED = 0.5

_START = re.compile(r"(?:^|(?<=(?<!Mr)(?<!Ms)(?<!Mrs)[.?] ))[a-z]")
_ASKED_OF = r"\b((?:do|did|does|can|could|will|is|was)(?: not)?) "


def told(rng: random.Random, cast: Cast, domain: Domain, common: Domain, facts: list[str], asked: str) -> str:
    """The problem. `asked` is its last subquestion, with names."""
    facts = list(facts)
    words = cast.words
    alone = not any(words[name] in " ".join((*facts, asked)) for name in "BC")
    if alone:
        facts = _with_pronouns(rng, cast, facts)
        asked = _without_name(cast, asked) if rng.random() < _PRONOUN else asked
    elif rng.random() < _INTRODUCED:
        facts = _introduced(cast, facts)
    if len(facts) > 1 and rng.random() < _MERGED and _can_merge(facts[-1]):
        asked = f"If {_lower(facts.pop()).removesuffix('.')}, {_lower(asked)}"
    for _ in range(rng.choices(list(_ASIDES), list(_ASIDES.values()))[0]):
        asides = domain.asides if domain.asides and rng.random() < 0.5 else common.asides
        facts.insert(rng.randint(1, len(facts)), _said(rng, cast, rng.choice(asides)))
    if domain.openings and rng.random() < _OPENING:
        facts.insert(0, _said(rng, cast, rng.choice(domain.openings)))
    text = " ".join((*facts, asked))
    if cast.role:
        text = re.sub(rf"\b[Tt]he {cast.role}\b", with_article(cast.role), text, count=1)
    return _START.sub(lambda found: found[0].upper(), text)


def _with_pronouns(rng: random.Random, cast: Cast, facts: list[str]) -> list[str]:
    """Once named, the only person of a story may be `he` or `she`."""
    name = cast.words["A"]
    he, his, _ = PRONOUNS[cast.sexes[0]]
    made = facts[:1]
    for fact in facts[1:]:
        if rng.random() < _PRONOUN and capital(name) in " ".join(made):
            fact = re.sub(rf"^{re.escape(capital(name))} ", f"{capital(he)} ", fact)
            fact = re.sub(rf"^{re.escape(capital(name))}'s ", f"{capital(his)} ", fact)
            fact = fact.replace(f", {name} ", f", {he} ").replace(f" and {name} ", f" and {he} ")
        made.append(fact)
    return made


def _without_name(cast: Cast, asked: str) -> str:
    name = cast.words["A"]
    he, his, _ = PRONOUNS[cast.sexes[0]]
    asked = asked.replace(f" {name}'s ", f" {his} ")
    return re.sub(rf"{_ASKED_OF}{re.escape(name)}\b", rf"\1 {he}", asked)


def _introduced(cast: Cast, facts: list[str]) -> list[str]:
    """The second person as somebody of the first one's: `Her cousin Tom has ...`."""
    name, other = capital(cast.words["A"]), cast.words["B"]
    his = capital(PRONOUNS[cast.sexes[0]][1])
    place = next((k for k, fact in enumerate(facts) if other in fact), 0)
    if place and facts[place].startswith(f"{other} ") and name in facts[place - 1]:
        facts = [*facts[:place], f"{his} {cast.words['kin']} {facts[place]}", *facts[place + 1 :]]
    return facts


def _can_merge(fact: str) -> bool:
    return len(fact) < 110 and fact.endswith(".") and not re.search(r"\. |\?", fact)


def _lower(sentence: str) -> str:
    return sentence if sentence.startswith((*HE, *SHE, "Mr", "Ms")) else sentence[0].lower() + sentence[1:]


def _said(rng: random.Random, cast: Cast, form: Form) -> str:
    """A sentence that does not matter, with numbers of the right size: {h} small, {t} in the teens, {d} larger."""
    numbers = {"h": rng.randint(2, 9), "t": rng.randint(11, 19), "d": rng.randint(30, 60), "n": rng.randint(2, 40)}
    return capital(form.tenses[cast.past].format_map(cast.words | {key: str(value) for key, value in numbers.items()}))
