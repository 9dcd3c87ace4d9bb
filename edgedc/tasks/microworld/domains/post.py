"""Items, stamps and sheets."""

from edgedc.tasks.microworld.story import Domain, ask, part

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
