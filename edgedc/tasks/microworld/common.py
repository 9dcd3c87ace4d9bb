"""What every domain shares: people, and parts about owning, comparing and sharing out."""

from edgedc.tasks.microworld.story import Part, ask, part

_HE = (
    "Adam Alan Ben Bruno Carl Chen Dan David Eli Emil Felix Frank George Hugo Ivan Jack James Jonas Karl Kofi Leo Liam "
    "Luis Marco Max Milo Nico Noah Omar Oscar Paul Pedro Raj Ravi Sam Simon Theo Tom Victor Yusuf"
)
_SHE = (
    "Ada Aisha Alice Amy Anna Bella Carla Clara Diana Ella Emma Eva Fatima Freya Grace Hana Ines Ivy Jane Julia Kate "
    "Lara Lena Lily Lucy Maria Maya Mei Mia Nadia Nina Nora Olga Priya Rosa Ruth Sara Sofia Tina Zoe"
)
NAMES: tuple[tuple[str, str], ...] = tuple(
    [(name, "he") for name in _HE.split()] + [(name, "she") for name in _SHE.split()]
)

# Two people of whom a problem speaks beside its hero: never both of one list.
KIN = ("sister", "cousin", "aunt", "niece", "teacher")
OTHER_KIN = ("brother", "uncle", "nephew", "neighbour", "friend")

COMMON: tuple[Part, ...] = (
    part(
        ("{A} has {n} {xs}.", "{A} owns {n} {xs}.", "There are {n} {xs} that belong to {A}."),
        (
            "{A}'s {kin} has {k} times as many {xs}.",
            "The {kin} has {k} times as many as {A} does.",
            "{A}'s {kin} has {k} times that number.",
        ),
        steps=(
            ask(
                "b",
                lambda n, k: n * k,
                "How many {xs} does the {kin} have?",
                "What is the number of {xs} that the {kin} has?",
                "Find how many {xs} the {kin} has.",
            ),
        ),
        gives="b_owns",
        ordered=True,
        n=(3, 40),
        k=(2, 6),
    ),
    part(
        ("{A} has {n} {xs}.", "{A} has got {n} {xs}.", "In the beginning {A} has {n} {xs}."),
        (
            "{A}'s {kin} has {k} more {xs}.",
            "The {kin} has {k} more than {A} does.",
            "Compared with {A}, the {kin} has {k} more {xs}.",
        ),
        steps=(
            ask(
                "b",
                lambda n, k: n + k,
                "How many {xs} does the {kin} have?",
                "What number of {xs} does the {kin} have?",
                "Find the number of {xs} that the {kin} has.",
            ),
            ask(
                "t",
                lambda n, b: n + b,
                "How many {xs} do {A} and the {kin} have together?",
                "How many {xs} do the two have in all?",
                "What is the total number of {xs} that {A} and the {kin} have?",
                "Altogether, how many {xs} do {A} and the {kin} have?",
            ),
        ),
        gives="pool",
        ordered=True,
        n=(4, 60),
        k=(2, 30),
    ),
    part(
        ("{A} has {n} {xs}.", "{A} has collected {n} {xs}."),
        ("{A}'s {kin} has half as many {xs}.", "The {kin} has only half as many as {A}."),
        ("{A}'s {kin2} has {k} fewer {xs} than {A}.", "The {kin2} has {k} fewer than {A} has."),
        steps=(
            ask("b", lambda n: n / 2, "How many {xs} does the {kin} have?", "Find the {kin}'s number of {xs}."),
            ask("c", lambda n, k: n - k, "How many {xs} does the {kin2} have?", "Find the {kin2}'s number of {xs}."),
            ask(
                "t",
                lambda n, b, c: n + b + c,
                "How many {xs} do the three have together?",
                "How many {xs} do {A}, the {kin} and the {kin2} have in all?",
                "What is the total number of {xs} that the three have?",
            ),
        ),
        gives="pool",
        ordered=True,
        n=(8, 60),
        k=(2, 7),
    ),
    part(
        (
            "The {kin2} has {k} fewer {xs} than the {kin}.",
            "The {kin2} has {k} {xs} less than the {kin}.",
            "The {kin2} owns {k} fewer than the {kin}.",
        ),
        steps=(
            ask(
                "c",
                lambda v, k: v - k,
                "How many {xs} does the {kin2} have?",
                "What is the number of {xs} that the {kin2} has?",
                "Find out how many {xs} the {kin2} has.",
            ),
        ),
        takes="b_owns",
        gives="c_owns",
        k=(2, 20),
    ),
    part(
        (
            "The {kin} gives {k} of them away.",
            "The {kin} then gives away {k} {xs}.",
            "The {kin} hands {k} {xs} to a neighbour.",
        ),
        steps=(
            ask(
                "left",
                lambda v, k: v - k,
                "How many {xs} does the {kin} have left?",
                "How many {xs} remain with the {kin}?",
                "How many {xs} does the {kin} keep?",
            ),
        ),
        takes="b_owns",
        gives="pool",
        k=(2, 20),
    ),
    part(
        (
            "The {kin2} puts these {xs} equally into {k} boxes.",
            "The {kin2} packs all of them into {k} boxes, the same number in each.",
            "The {kin2} sorts them evenly into {k} boxes.",
        ),
        steps=(
            ask(
                "box",
                lambda v, k: v / k,
                "How many {xs} go into each box?",
                "How many {xs} are there in one box?",
                "What number of {xs} does each box hold?",
            ),
        ),
        takes="c_owns",
        gives="per_box",
        k=(2, 9),
    ),
    part(
        (
            "They put all of the {xs} together and share them equally among {k} children.",
            "All {xs} are then shared out evenly to {k} children.",
            "The {xs} are divided equally among {k} children.",
        ),
        steps=(
            ask(
                "share",
                lambda v, k: v / k,
                "How many {xs} does each child get?",
                "How many {xs} are there for each child?",
                "What is each child's share of the {xs}?",
            ),
        ),
        takes="pool",
        gives="share",
        k=(2, 9),
    ),
    part(
        ("{k} of the {xs} turn out to be broken.", "It turns out that {k} {xs} are broken.", "{k} {xs} get broken."),
        steps=(
            ask(
                "good",
                lambda v, k: v - k,
                "How many {xs} are not broken?",
                "How many {xs} are still fine?",
                "How many unbroken {xs} are there?",
            ),
        ),
        takes="pool",
        gives="sound",
        k=(2, 9),
    ),
    part(
        (
            "The good {xs} are packed in bags of {k}.",
            "Each bag holds {k} good {xs}.",
            "The others go into bags that hold {k} {xs} each.",
        ),
        steps=(
            ask(
                "bags",
                lambda v, k: v / k,
                "How many bags are filled?",
                "How many bags does that fill?",
                "What number of bags is needed?",
            ),
        ),
        takes="sound",
        gives="bags",
        k=(2, 9),
    ),
    part(
        (
            "Every child gets {k} more {xs} later.",
            "Later each child finds {k} more {xs}.",
            "Each child is then given {k} extra {xs}.",
        ),
        steps=(
            ask(
                "now",
                lambda v, k: v + k,
                "How many {xs} does each child have in the end?",
                "How many {xs} does every child end up with?",
                "With how many {xs} does each child finish?",
            ),
        ),
        takes="share",
        gives="end",
        k=(2, 12),
    ),
)
