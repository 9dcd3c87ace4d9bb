"""Harvests, eggs, crates and income."""

from edgedc.tasks.microworld.story import Domain, ask, part

FARM = Domain(
    "farm",
    things=("egg", "apple", "pear", "melon", "carrot", "onion", "plum", "turnip", "lemon", "beet"),
    words={"animal": ("hen", "duck", "goose", "quail"), "town": ("village", "town", "valley", "harbour")},
    parts=(
        part(
            (
                "{A} has {n} rows of trees.",
                "On {A}'s farm there are {n} rows of trees.",
                "{A} planted {n} rows of trees.",
            ),
            ("Each row has {k} trees.", "A row is made of {k} trees.", "There are {k} trees in every row."),
            ("Each tree gives {m} {xs}.", "Every tree bears {m} {xs}.", "A tree yields {m} {xs}."),
            steps=(
                ask("t", lambda n, k: n * k, "How many trees are there?"),
                ask(
                    "x",
                    lambda t, m: t * m,
                    "How many {xs} are picked?",
                    "How many {xs} does {A} harvest?",
                    "What is the harvest of {xs}?",
                ),
            ),
            gives="harvest",
            ordered=True,
            n=(2, 12),
            k=(2, 10),
            m=(2, 20),
        ),
        part(
            (
                "{A} picks {n} {xs} in the morning.",
                "In the morning {A} picks {n} {xs}.",
                "Before noon {n} {xs} are picked by {A}.",
            ),
            (
                "{A} picks {k} {xs} in the afternoon.",
                "In the afternoon {A} picks {k} {xs}.",
                "After noon {k} {xs} are picked by {A}.",
            ),
            steps=(
                ask(
                    "x",
                    lambda n, k: n + k,
                    "How many {xs} are picked?",
                    "How many {xs} does {A} pick that day?",
                    "Find the day's number of {xs}.",
                ),
            ),
            gives="harvest",
            n=(10, 90),
            k=(10, 90),
        ),
        part(
            (
                "{A} keeps {n} birds, and each lays {k} eggs a week.",
                "Each of {A}'s {n} birds lays {k} eggs a week.",
                "There are {n} birds on {A}'s farm; each one lays {k} eggs a week.",
            ),
            ("{A} collects the eggs for {w} weeks.", "This is counted over {w} weeks.", "{w} weeks go by."),
            steps=(
                ask("e", lambda n, k: n * k, "How many eggs are laid each week?"),
                ask(
                    "t",
                    lambda e, w: e * w,
                    "How many eggs are laid in all?",
                    "How many eggs does {A} collect?",
                    "What number of eggs is laid altogether?",
                ),
            ),
            gives="eggs",
            ordered=True,
            n=(3, 20),
            k=(2, 7),
            w=(2, 8),
        ),
        part(
            (
                "{A} packs the eggs in cartons of {k}.",
                "A carton takes {k} eggs.",
                "The eggs go into cartons that hold {k} each.",
            ),
            steps=(
                ask(
                    "c",
                    lambda v, k: v / k,
                    "How many cartons are filled?",
                    "How many cartons does {A} fill?",
                    "What number of cartons is full?",
                ),
            ),
            takes="eggs",
            gives="cartons",
            k=(4, 12),
        ),
        part(
            ("A carton sells for ${p}.", "{A} gets ${p} for a carton.", "In the {town} a carton is worth ${p}."),
            steps=(
                ask(
                    "m",
                    lambda v, p: v * p,
                    "How much money do the cartons bring?",
                    "How much does {A} get for the cartons?",
                    "What does {A} earn with the cartons?",
                ),
            ),
            takes="cartons",
            gives="income",
            p=(2, 9),
        ),
        part(
            ("{k} of the {xs} are rotten.", "{A} throws away {k} bad {xs}.", "Worms have spoilt {k} of the {xs}."),
            steps=(
                ask(
                    "g",
                    lambda v, k: v - k,
                    "How many good {xs} are left?",
                    "How many {xs} are not spoilt?",
                    "What number of {xs} can be used?",
                ),
            ),
            takes="harvest",
            gives="good",
            k=(2, 40),
        ),
        part(
            (
                "The good {xs} are put in crates of {k}.",
                "A crate takes {k} good {xs}.",
                "{A} fills crates with {k} good {xs} each.",
            ),
            steps=(
                ask(
                    "c",
                    lambda v, k: v / k,
                    "How many crates are filled?",
                    "How many crates does {A} need?",
                    "What number of crates is used?",
                ),
            ),
            takes="good",
            gives="crates",
            k=(3, 12),
        ),
        part(
            ("A crate is sold for ${p}.", "{A} asks ${p} for a crate.", "In the {town} people pay ${p} per crate."),
            steps=(
                ask(
                    "m",
                    lambda v, p: v * p,
                    "How much money do the crates bring?",
                    "How much does {A} take for the crates?",
                    "What is earned with the crates?",
                ),
            ),
            takes="crates",
            gives="income",
            p=(3, 20),
        ),
        part(
            (
                "Seed and water cost ${k}.",
                "{A} has to pay ${k} for seed and water.",
                "${k} had been spent on seed and water.",
            ),
            steps=(
                ask(
                    "p",
                    lambda v, k: v - k,
                    "How much profit does {A} make?",
                    "What is {A}'s profit?",
                    "How much does {A} earn after costs?",
                ),
            ),
            takes="income",
            gives="profit",
            k=(3, 40),
        ),
    ),
    asides=(
        "The barn is {n} years old.",
        "A {animal} runs across the yard.",
        "The {town} is near.",
        "{A} gets up early.",
        "The tractor is green.",
        "{n} swallows sit on the wire.",
    ),
)
