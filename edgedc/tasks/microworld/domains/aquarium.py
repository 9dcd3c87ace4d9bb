"""Tanks, gallons and flakes."""

from edgedc.tasks.microworld.story import Domain, ask, part

AQUARIUM = Domain(
    "aquarium",
    things=("guppy", "shrimp tank", "snail", "shell", "filter", "pebble", "crab", "starfish pond"),
    words={"water": ("salt", "fresh", "warm", "cold")},
    parts=(
        part(
            (
                "A {water} water tank has {n} sections.",
                "{A} builds a {water} water tank with {n} sections.",
                "{A}'s {water} water tank is split into {n} sections.",
            ),
            ("There are {k} {xs} in each section.", "Each section houses {k} {xs}.", "{k} {xs} live in every section."),
            steps=(
                ask(
                    "t",
                    lambda n, k: n * k,
                    "How many {xs} are in the tank?",
                    "How many {xs} live in the tank?",
                    "What is the number of {xs} in the tank?",
                ),
            ),
            gives="stock",
            ordered=True,
            n=(2, 9),
            k=(3, 20),
        ),
        part(
            (
                "{A} pours {n} gallons into the tank every minute.",
                "Each minute {n} gallons run into {A}'s tank.",
                "{A} fills a tank with {n} gallons a minute.",
            ),
            (
                "A leak loses {k} gallons a minute.",
                "Each minute {k} gallons are lost through a leak.",
                "{k} gallons a minute drip out.",
            ),
            ("This goes on for {m} minutes.", "{A} stops after {m} minutes.", "{m} minutes pass."),
            steps=(
                ask("g", lambda n, k: n - k, "How many gallons does the tank gain each minute?"),
                ask(
                    "w",
                    lambda g, m: g * m,
                    "How many gallons are in the tank?",
                    "How much water is in the tank at the end, in gallons?",
                    "What is the tank's content in gallons?",
                ),
            ),
            gives="gallons",
            ordered=True,
            n=(6, 30),
            k=(2, 9),
            m=(3, 20),
        ),
        part(
            ("{k} {xs} are moved to another tank.", "{A} takes {k} {xs} out.", "A friend takes {k} {xs} home."),
            steps=(
                ask(
                    "l",
                    lambda v, k: v - k,
                    "How many {xs} stay in the tank?",
                    "How many {xs} are left in the tank?",
                    "What number of {xs} remains in the tank?",
                ),
            ),
            takes="stock",
            gives="kept",
            k=(2, 20),
        ),
        part(
            (
                "Each remaining {x} eats {k} flakes a day.",
                "A {x} that stays needs {k} flakes a day.",
                "{k} flakes a day go to each {x} that stays.",
            ),
            steps=(
                ask(
                    "f",
                    lambda v, k: v * k,
                    "How many flakes are eaten each day?",
                    "How many flakes does {A} feed a day?",
                    "What number of flakes is needed a day?",
                ),
            ),
            takes="kept",
            gives="flakes",
            k=(2, 8),
        ),
        part(
            (
                "A gallon weighs about {k} pounds.",
                "Each gallon is {k} pounds heavy.",
                "{k} pounds is the weight of a gallon.",
            ),
            steps=(
                ask(
                    "p",
                    lambda v, k: v * k,
                    "How many pounds does the water weigh?",
                    "How heavy is the water in pounds?",
                    "What is the weight of the water?",
                ),
            ),
            takes="gallons",
            gives="pounds",
            k=(7, 9),
        ),
    ),
    asides=(
        "The glass is {n} inches thick.",
        "A lamp shines on the sand.",
        "{A} has read {n} books on fish.",
        "The pump hums.",
    ),
)
