"""Word problems of one to five steps, made from a seed, with known subquestions, step answers and final answer.

A problem is a head (facts and one or more steps) and a chain of tails, each of which goes on from the number before it.
Phrasing, order of facts, entities, pronouns, numerals, asides that do not matter and the form of the question vary;
the subquestions follow from the meaning, in the order in which the facts are told. The last subquestion asks what the
problem asks. A one-step problem needs no decomposition.
"""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from edgedc.decomposition import Decomposition, decomposition_of
from edgedc.errors import InputError
from edgedc.tasks import Example, Selection
from edgedc.tasks.microworld.common import COMMON, KIN, NAMES, OTHER_KIN
from edgedc.tasks.microworld.domains import HELD_OUT, TRAINED
from edgedc.tasks.microworld.story import Ask, Domain, Part
from edgedc.tasks.scoring import gives_number

SPLITS = ("train", "test", "heldout")
DEFAULT_COUNT = 1000

# How many steps a problem has, and how often.
_STEPS = {1: 8, 2: 27, 3: 30, 4: 20, 5: 15}
_LARGEST = 5000
_IN_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A subquestion, the number that answers it, and the 1-based numbers of the steps that it builds on."""

    ask: str
    value: int
    needs: tuple[int, ...]


@dataclass(frozen=True)
class Problem:
    id: str
    domain: str
    question: str
    steps: tuple[Step, ...]

    @property
    def answer(self) -> str:
        return str(self.steps[-1].value)

    @property
    def decomposition(self) -> Decomposition:
        return decomposition_of([step.ask for step in self.steps] if len(self.steps) > 1 else [])


def problems(split: str, count: int, seed: int = 0) -> Iterator[Problem]:
    """`count` problems of a split, no question twice. Splits and seeds draw from separate random streams.

    Train and test share domains, not questions: a question that both streams could make is given to one of them by
    its hash, so that no test question can ever be trained on.
    """
    if split not in SPLITS:
        raise InputError(f"microworld has no split {split!r}; it has {', '.join(SPLITS)}")
    rng = random.Random(f"microworld 1 {split} {seed}")
    seen: set[str] = set()
    while len(seen) < count:
        wanted = rng.choices(list(_STEPS), list(_STEPS.values()))[0]
        domain = rng.choice(HELD_OUT if split == "heldout" else TRAINED)
        # Numbers that do not work out are drawn again for the same length, or long problems would be rare.
        tries = (_problem(rng, domain, wanted) for _ in range(200))
        problem = next((made for made in tries if made), None)
        if problem is None or problem.question in seen or (split != "heldout" and _side(problem.question) != split):
            continue
        seen.add(problem.question)
        yield replace(problem, id=f"{split}-{seed}-{len(seen)}")


def load(selection: Selection) -> Iterator[Example]:
    for problem in problems(selection.split, selection.limit or DEFAULT_COUNT, selection.seed):
        yield Example(problem.id, problem.question, "", problem.answer, problem.decomposition)


def score(text: str, example: Example) -> bool:
    return gives_number(text, example.answer)


def _side(question: str) -> str:
    """One question in sixteen belongs to the test side."""
    return "test" if random.Random(question).randrange(16) == 0 else "train"


def _problem(rng: random.Random, domain: Domain, wanted: int) -> Problem | None:
    """One try at a problem; None when the numbers drawn do not work out."""
    chain = _chain(rng, domain, wanted)
    if chain is None:
        return None
    words = _words(rng, domain)
    told: list[str] = []
    steps: list[Step] = []
    forms: list[tuple[str, ...]] = []
    carried: tuple[int, int] | None = None  # number of the step that the next part goes on from, and its value
    for piece in chain:
        numbers = {name: rng.randint(low, high) for name, (low, high) in piece.numbers.items()}
        facts = list(piece.facts) if piece.ordered else rng.sample(piece.facts, len(piece.facts))
        known = {name: (0, value) for name, value in numbers.items()} | ({"v": carried} if carried else {})
        for asked in _in_telling_order(piece, facts):
            names = asked.value.__code__.co_varnames[: asked.value.__code__.co_argcount]
            value = asked.value(*(known[name][1] for name in names))
            if value != int(value) or not 0 < value <= _LARGEST:
                return None
            needs = tuple(sorted({known[name][0] for name in names} - {0}))
            filled = tuple(_fill(form, words, numbers, None) for form in asked.forms)
            steps.append(Step(filled[0], int(value), needs))
            forms.append(filled)
            known[asked.name] = (len(steps), int(value))
        carried = known[piece.steps[-1].name]
        told += [_fill(rng.choice(phrasings), words, numbers, rng) for phrasings in facts]
    question = _text(rng, domain, words, told, rng.choice(forms[-1]))
    asks = " ".join(step.ask for step in steps)
    if any(word in asks and word not in question for key, word in words.items() if key != "he"):
        return None  # a subquestion names somebody or something of which the problem does not speak
    return Problem("", domain.name, question, tuple(steps))


def _chain(rng: random.Random, domain: Domain, wanted: int) -> list[Part] | None:
    """A head and tails that have, together, the wanted number of steps."""
    parts = domain.parts + COMMON
    heads = [p for p in parts if not p.takes and len(p.steps) <= wanted]
    # A domain's own heads come twice as often as the ones that all domains share.
    chain = [rng.choices(heads, [2 if p in domain.parts else 1 for p in heads])[0]]
    while (left := wanted - sum(len(p.steps) for p in chain)) > 0:
        tails = [p for p in parts if p.takes == chain[-1].gives and len(p.steps) <= left and p not in chain]
        if not tails:
            return None
        chain.append(rng.choice(tails))
    return chain


def _in_telling_order(piece: Part, facts: list[tuple[str, ...]]) -> list[Ask]:
    """The steps of a part, each as soon as the facts told so far and the steps before it allow."""

    def told_at(name: str) -> int:
        return max((k for k, phrasings in enumerate(facts) if f"{{{name}}}" in phrasings[0]), default=0)

    left = list(piece.steps)
    ready: list[Ask] = []
    while left:
        done = {asked.name for asked in ready}
        open_steps = []
        for asked in left:
            names = asked.value.__code__.co_varnames[: asked.value.__code__.co_argcount]
            if all(name in done or name in piece.numbers or name == "v" for name in names):
                open_steps.append((max((told_at(n) for n in names if n in piece.numbers), default=0), asked))
        ready.append(min(open_steps, key=lambda pair: pair[0])[1])
        left.remove(ready[-1])
    return ready


def _words(rng: random.Random, domain: Domain) -> dict[str, str]:
    name, he = rng.choice(NAMES)
    words = {"A": name, "he": he, "kin": rng.choice(KIN), "kin2": rng.choice(OTHER_KIN)}
    half = len(domain.things) // 2
    for key, thing in (("x", rng.choice(domain.things[:half])), ("y", rng.choice(domain.things[half:]))):
        words |= {key: thing, f"{key}s": plural(thing)}
    return words | {key: rng.choice(choices) for key, choices in domain.words.items()}


def plural(noun: str) -> str:
    if re.search(r"(ch|sh|x|s)$", noun):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if re.search(r"[^aeiou]y$", noun) else f"{noun}s"


def _fill(text: str, words: dict[str, str], numbers: dict[str, int], rng: random.Random | None) -> str:
    """Put words and numbers in; small numbers are spelled out now and then, where rng is given and no $ is before."""

    def number(match: re.Match[str]) -> str:
        value = numbers[match[2]]
        spelled = rng is not None and not match[1] and value < len(_IN_WORDS) and rng.random() < 0.3
        return match[1] + (_IN_WORDS[value] if spelled else str(value))

    names = "|".join(numbers)
    text = re.sub(rf"(\$?)\{{({names})\}}", number, text) if numbers else text
    text = text.format_map(words)
    return text[0].upper() + text[1:]


def _text(rng: random.Random, domain: Domain, words: dict[str, str], told: Iterable[str], question: str) -> str:
    sentences: list[str] = []
    alone = not any(words[key] in " ".join((*told, question)) for key in ("kin", "kin2"))
    for fact in told:
        # Once named, a single person can be "he" or "she".
        again = alone and sentences and words["A"] in sentences[0] and fact.startswith(words["A"] + " ")
        if again and rng.random() < 0.5:
            fact = words["he"].capitalize() + fact.removeprefix(words["A"])
        sentences.append(fact)
    for aside in rng.sample(domain.asides, rng.choices((0, 1, 2), (55, 33, 12))[0]):
        text = _fill(aside, words, {"n": rng.randint(2, 40)}, rng)
        sentences.insert(rng.randint(1, len(sentences)), text)
    place = 0 if rng.random() < 0.12 else len(sentences)
    sentences.insert(place, question)
    return " ".join(sentences)
