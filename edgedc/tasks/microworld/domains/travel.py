"""Distances, speed, fuel and its cost."""

from edgedc.tasks.microworld.story import Domain, ask, part

TRAVEL = Domain(
    "travel",
    things=("suitcase", "map", "postcard", "ticket", "backpack", "camera", "tent", "compass", "blanket", "bottle"),
    words={
        "vehicle": ("train", "bus", "car", "van", "ferry"),
        "place": ("coast", "mountains", "lake", "capital", "border"),
    },
    parts=(
        part(
            (
                "A {vehicle} goes {s} miles an hour.",
                "The speed of a {vehicle} is {s} miles per hour.",
                "A {vehicle} covers {s} miles every hour.",
            ),
            ("It travels for {h} hours.", "It is on the road for {h} hours.", "The ride takes {h} hours."),
            steps=(
                ask(
                    "d",
                    lambda s, h: s * h,
                    "How far does the {vehicle} go?",
                    "How many miles does the {vehicle} travel?",
                    "What distance does the {vehicle} cover?",
                ),
            ),
            gives="miles",
            ordered=True,
            s=(20, 80),
            h=(2, 9),
        ),
        part(
            (
                "On the first day {A} drives {h} hours at {s} miles an hour.",
                "{A} drives at {s} miles an hour for {h} hours on the first day.",
                "For {h} hours of the first day {A} goes {s} miles an hour.",
            ),
            (
                "On the second day {A} drives {g} hours at {r} miles an hour.",
                "{A} drives at {r} miles an hour for {g} hours on the second day.",
                "For {g} hours of the second day {A} goes {r} miles an hour.",
            ),
            steps=(
                ask("a", lambda s, h: s * h, "How far does {A} drive on the first day?"),
                ask("b", lambda r, g: r * g, "How far does {A} drive on the second day?"),
                ask(
                    "t",
                    lambda a, b: a + b,
                    "How far does {A} drive in all?",
                    "How many miles is it altogether?",
                    "What is the total distance that {A} drives?",
                ),
            ),
            gives="miles",
            s=(30, 70),
            h=(2, 8),
            r=(30, 70),
            g=(2, 8),
        ),
        part(
            (
                "It is {d} miles from home to the {place}.",
                "The {place} is {d} miles away.",
                "To get to the {place} one goes {d} miles.",
            ),
            (
                "{A} goes there and back {n} times.",
                "{A} makes the trip there and back {n} times.",
                "There and back, {A} goes {n} times.",
            ),
            steps=(
                ask("r", lambda d: d * 2, "How far is it there and back?"),
                ask(
                    "t",
                    lambda r, n: r * n,
                    "How far does {A} go in all?",
                    "How many miles does {A} go altogether?",
                    "What distance does {A} cover in total?",
                ),
            ),
            gives="miles",
            ordered=True,
            d=(5, 90),
            n=(2, 7),
        ),
        part(
            (
                "A gallon of fuel lasts {k} miles.",
                "The engine gets {k} miles out of a gallon.",
                "For each {k} miles a gallon of fuel is used.",
            ),
            steps=(
                ask(
                    "f",
                    lambda v, k: v / k,
                    "How many gallons of fuel are used?",
                    "How much fuel does that take, in gallons?",
                    "What number of gallons is burnt?",
                ),
            ),
            takes="miles",
            gives="fuel",
            k=(4, 30),
        ),
        part(
            ("A gallon costs ${c}.", "Fuel is sold at ${c} a gallon.", "One pays ${c} for a gallon."),
            steps=(
                ask(
                    "m",
                    lambda v, c: v * c,
                    "How much does the fuel cost?",
                    "What is the price of the fuel?",
                    "How much money goes into fuel?",
                ),
            ),
            takes="fuel",
            gives="fuel_cost",
            c=(2, 6),
        ),
        part(
            (
                "The whole way is {w} miles.",
                "The goal is {w} miles from the start.",
                "In all the way is {w} miles long.",
            ),
            steps=(
                ask(
                    "l",
                    lambda v, w: w - v,
                    "How many miles are left?",
                    "How much farther is it?",
                    "How many miles remain to be done?",
                ),
            ),
            takes="miles",
            gives="miles_left",
            w=(150, 900),
        ),
        part(
            (
                "The rest is done in {k} equal stages.",
                "{k} stages of equal length make up the rest.",
                "What is left is split into {k} equal stages.",
            ),
            steps=(
                ask(
                    "s",
                    lambda v, k: v / k,
                    "How long is each stage?",
                    "How many miles is one stage?",
                    "What is the length of a stage in miles?",
                ),
            ),
            takes="miles_left",
            gives="stage",
            k=(2, 9),
        ),
        part(
            ("The {kin} pays ${k} of that.", "${k} of this is paid by the {kin}.", "The {kin} takes over ${k} of it."),
            steps=(
                ask(
                    "p",
                    lambda v, k: v - k,
                    "How much is left to pay?",
                    "How much remains to be paid?",
                    "What amount is still due?",
                ),
            ),
            takes="fuel_cost",
            gives="rest",
            k=(2, 20),
        ),
    ),
    asides=(
        "The road has {n} bridges.",
        "{A} packed {n} sandwiches.",
        "The weather is fine.",
        "The radio plays old songs.",
        "They left at noon.",
        "There are {n} seats.",
    ),
)
