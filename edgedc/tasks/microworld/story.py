"""The parts that word problems are put together from."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Ask:
    """One step: a number computed from others, the subquestion that asks for it, and other ways to ask the same.

    The parameters of `value` are names: numbers of the part, earlier steps of the part, or `v`, the number that the
    part before it ended with. The first form is the subquestion; any of them can be the problem's own question.
    """

    name: str
    value: Callable[..., float]
    forms: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """Facts and the steps they allow. A head starts a problem; a tail takes the number that a part before it `gives`.

    `facts` holds the phrasings of each fact; the facts of a part can be told in any order unless `ordered`. In a text
    `{A}` is the hero, `{kin}` and `{kin2}` are other people, `{x}` `{xs}` `{y}` `{ys}` things of the domain, and other
    lower-case names numbers of the part or words of the domain.
    """

    facts: tuple[tuple[str, ...], ...]
    steps: tuple[Ask, ...]
    gives: str
    takes: str = ""
    numbers: dict[str, tuple[int, int]] = field(default_factory=dict)
    ordered: bool = False


@dataclass(frozen=True)
class Domain:
    """What is special about one walk of life. `things` are singular nouns with a regular plural."""

    name: str
    things: tuple[str, ...]
    parts: tuple[Part, ...]
    asides: tuple[str, ...]
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)


def ask(name: str, value: Callable[..., float], *forms: str) -> Ask:
    return Ask(name, value, forms)


def part(
    *facts: tuple[str, ...],
    steps: tuple[Ask, ...],
    gives: str,
    takes: str = "",
    ordered: bool = False,
    **numbers: tuple[int, int],
) -> Part:
    return Part(facts, steps, gives, takes, numbers, ordered)
