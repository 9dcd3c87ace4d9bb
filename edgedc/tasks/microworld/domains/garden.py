"""Rows, beds, flowers and water."""

from edgedc.tasks.microworld.story import Domain, ask, part

GARDEN = Domain(
    "garden",
    things=("tulip", "rose", "daisy", "lily", "fern", "shrub", "bulb", "seedling", "herb", "cactus"),
    words={"bed": ("sunny", "shady", "round", "long")},
    parts=(
        part(
            ("{A} plants {n} rows of {xs}.", "{n} rows of {xs} are planted by {A}.", "{A} sets {n} rows of {xs}."),
            ("There are {k} {xs} in each row.", "Each row takes {k} {xs}.", "A row has {k} {xs}."),
            steps=(
                ask(
                    "p",
                    lambda n, k: n * k,
                    "How many {xs} does {A} plant?",
                    "How many {xs} are set?",
                    "What is the number of {xs} planted?",
                ),
            ),
            gives="plants",
            ordered=True,
            n=(2, 12),
            k=(3, 15),
        ),
        part(
            (
                "The {bed} bed is {e} feet long and {w} feet wide.",
                "A {bed} bed measures {e} feet by {w} feet.",
                "{A}'s {bed} bed is {w} feet wide and {e} feet long.",
            ),
            (
                "Each square foot takes {k} {xs}.",
                "{k} {xs} go on each square foot.",
                "On a square foot there is room for {k} {xs}.",
            ),
            steps=(
                ask("a", lambda e, w: e * w, "How many square feet is the bed?"),
                ask(
                    "p",
                    lambda a, k: a * k,
                    "How many {xs} fit in the bed?",
                    "For how many {xs} is there room?",
                    "How many {xs} can {A} plant?",
                ),
            ),
            gives="plants",
            ordered=True,
            e=(2, 14),
            w=(2, 9),
            k=(2, 6),
        ),
        part(
            (
                "{A} plants {n} {xs} in the {bed} bed.",
                "In the {bed} bed {A} plants {n} {xs}.",
                "{n} {xs} are put in the {bed} bed.",
            ),
            (
                "Behind the house {A} plants {k} times as many.",
                "{A} plants {k} times as many behind the house.",
                "The number behind the house is {k} times that.",
            ),
            steps=(
                ask("b", lambda n, k: n * k, "How many {xs} are planted behind the house?"),
                ask(
                    "p",
                    lambda n, b: n + b,
                    "How many {xs} does {A} plant?",
                    "How many {xs} are there in both places?",
                    "What is the whole number of {xs}?",
                ),
            ),
            gives="plants",
            ordered=True,
            n=(4, 40),
            k=(2, 5),
        ),
        part(
            ("{k} of them do not grow.", "Frost kills {k} of the {xs}.", "Snails eat {k} of the {xs}."),
            steps=(
                ask(
                    "g",
                    lambda v, k: v - k,
                    "How many {xs} survive?",
                    "How many {xs} live on?",
                    "What number of {xs} is still alive?",
                ),
            ),
            takes="plants",
            gives="alive",
            k=(2, 20),
        ),
        part(
            (
                "Each living {x} has {k} flowers.",
                "{k} flowers open on each living {x}.",
                "Every {x} that lives bears {k} flowers.",
            ),
            steps=(
                ask(
                    "f",
                    lambda v, k: v * k,
                    "How many flowers are there?",
                    "How many flowers open?",
                    "What number of flowers can be seen?",
                ),
            ),
            takes="alive",
            gives="flowers",
            k=(2, 9),
        ),
        part(
            ("{A} ties the flowers in bunches of {k}.", "A bunch is made of {k} flowers.", "{k} flowers make a bunch."),
            steps=(
                ask(
                    "b",
                    lambda v, k: v / k,
                    "How many bunches does {A} tie?",
                    "How many bunches are made?",
                    "What number of bunches does that give?",
                ),
            ),
            takes="flowers",
            gives="bunches",
            k=(3, 12),
        ),
        part(
            (
                "A {x} needs {k} cups of water a day.",
                "Every day a {x} drinks {k} cups of water.",
                "Each {x} takes {k} cups of water a day.",
            ),
            steps=(
                ask(
                    "w",
                    lambda v, k: v * k,
                    "How many cups of water are needed each day?",
                    "How much water does {A} use a day, in cups?",
                    "What number of cups is poured a day?",
                ),
            ),
            takes="plants",
            gives="water",
            k=(2, 6),
        ),
        part(
            ("A can holds {k} cups.", "{A}'s can takes {k} cups.", "{k} cups fit in the can."),
            steps=(
                ask(
                    "c",
                    lambda v, k: v / k,
                    "How many cans of water is that?",
                    "How many times must {A} fill the can?",
                    "What number of cans does {A} carry?",
                ),
            ),
            takes="water",
            gives="cans",
            k=(3, 20),
        ),
        part(
            (
                "The {kin} carries {k} of the cans.",
                "{k} of the cans are carried by the {kin}.",
                "The {kin} helps with {k} cans.",
            ),
            steps=(
                ask(
                    "r",
                    lambda v, k: v - k,
                    "How many cans are left for {A}?",
                    "How many cans does {A} carry alone?",
                    "What number of cans remains for {A}?",
                ),
            ),
            takes="cans",
            gives="own_cans",
            k=(2, 15),
        ),
    ),
    asides=(
        "The fence is {n} feet long.",
        "{A} wears a straw hat.",
        "A bee hums nearby.",
        "The shed was painted {n} years ago.",
        "It has not rained for {n} days.",
        "The soil is dark.",
    ),
)
