"""Domains that nothing is trained on, to measure transfer."""

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

POST = Domain(
    "post",
    things=("letter", "parcel", "card", "envelope", "leaflet", "newspaper"),
    words={"street": ("Mill Street", "Park Road", "High Street", "Station Lane")},
    parts=(
        part(
            (
                "{A} carries {n} {xs} to {street}.",
                "For {street} {A} has {n} {xs}.",
                "{n} {xs} are for {street}, where {A} goes.",
            ),
            (
                "{A} carries {m} {ys} to the next street.",
                "For the next street there are {m} {ys}.",
                "{m} {ys} are for the street after that.",
            ),
            steps=(
                ask(
                    "t",
                    lambda n, m: n + m,
                    "How many items does {A} carry?",
                    "How many items are delivered?",
                    "What number of items does {A} bring?",
                ),
            ),
            gives="items",
            n=(5, 60),
            m=(5, 60),
        ),
        part(
            (
                "A {x} needs {p} stamps and a {y} {q} stamps.",
                "It takes {p} stamps for a {x} and {q} for a {y}.",
                "One puts {p} stamps on a {x} and {q} on a {y}.",
            ),
            (
                "{A} sends {n} {xs} and {m} {ys}.",
                "There are {n} {xs} and {m} {ys} that {A} sends.",
                "{n} {xs} and {m} {ys} are sent by {A}.",
            ),
            steps=(
                ask("a", lambda p, n: p * n, "How many stamps do the {xs} need?"),
                ask("b", lambda q, m: q * m, "How many stamps do the {ys} need?"),
                ask(
                    "t",
                    lambda a, b: a + b,
                    "How many stamps are needed?",
                    "How many stamps does {A} use?",
                    "What is the total number of stamps?",
                ),
            ),
            gives="stamps",
            ordered=True,
            p=(2, 5),
            q=(2, 5),
            n=(2, 12),
            m=(2, 12),
        ),
        part(
            ("Stamps come in sheets of {k}.", "A sheet has {k} stamps.", "There are {k} stamps on a sheet."),
            steps=(
                ask(
                    "s",
                    lambda v, k: v / k,
                    "How many sheets of stamps is that?",
                    "How many sheets does {A} use up?",
                    "What number of sheets is needed?",
                ),
            ),
            takes="stamps",
            gives="sheets",
            k=(2, 10),
        ),
        part(
            (
                "{k} items come back because nobody is at home.",
                "{A} brings {k} items back.",
                "{k} of the items cannot be delivered.",
            ),
            steps=(
                ask(
                    "d",
                    lambda v, k: v - k,
                    "How many items reach their goal?",
                    "How many items are handed over?",
                    "What number of items arrives?",
                ),
            ),
            takes="items",
            gives="arrived",
            k=(2, 20),
        ),
        part(
            (
                "It takes {k} minutes to hand over an item.",
                "{A} needs {k} minutes for each item that arrives.",
                "Each item handed over takes {k} minutes.",
            ),
            steps=(
                ask(
                    "m",
                    lambda v, k: v * k,
                    "How many minutes does that take?",
                    "How long is {A} busy, in minutes?",
                    "What time does that take in minutes?",
                ),
            ),
            takes="arrived",
            gives="minutes",
            k=(2, 6),
        ),
    ),
    asides=("The bag is {n} years old.", "It snows.", "{street} has {n} lamps.", "A dog barks at {A}."),
)

HELD_OUT: tuple[Domain, ...] = (AQUARIUM, POST)
