"""Guests, packs and prices."""

from edgedc.tasks.microworld.story import Domain, ask, part

PARTY = Domain(
    "party",
    things=("balloon", "candle", "cupcake", "lantern", "hat", "straw", "napkin", "spoon", "plate", "ribbon"),
    words={"event": ("party", "wedding", "picnic", "feast", "concert")},
    parts=(
        part(
            ("{n} guests come to the {event}.", "For the {event} there are {n} guests.", "The {event} has {n} guests."),
            ("Each guest gets {k} {xs}.", "There are {k} {xs} for every guest.", "Every guest is given {k} {xs}."),
            steps=(
                ask(
                    "x",
                    lambda n, k: n * k,
                    "How many {xs} are needed?",
                    "How many {xs} does it take?",
                    "What number of {xs} must there be?",
                ),
            ),
            gives="need",
            ordered=True,
            n=(4, 40),
            k=(2, 8),
        ),
        part(
            (
                "{n} adults and {m} children come to the {event}.",
                "To the {event} come {n} adults and {m} children.",
                "The {event} is for {n} adults and {m} children.",
            ),
            ("An adult gets {k} {xs}.", "For each adult there are {k} {xs}.", "Each adult takes {k} {xs}."),
            ("A child gets {j} {xs}.", "For each child there are {j} {xs}.", "Each child takes {j} {xs}."),
            steps=(
                ask("a", lambda n, k: n * k, "How many {xs} do the adults get?"),
                ask("b", lambda m, j: m * j, "How many {xs} do the children get?"),
                ask(
                    "x",
                    lambda a, b: a + b,
                    "How many {xs} are needed?",
                    "How many {xs} is that in all?",
                    "What number of {xs} is needed for everyone?",
                ),
            ),
            gives="need",
            n=(3, 20),
            m=(3, 20),
            k=(2, 6),
            j=(2, 6),
        ),
        part(
            (
                "{n} people are invited to the {event}.",
                "{A} invites {n} people to the {event}.",
                "The {event} has {n} invited people.",
            ),
            ("{k} of them cannot come.", "{k} of those invited stay at home.", "But {k} of them are ill."),
            (
                "Each one who comes gets {j} {xs}.",
                "There are {j} {xs} for each one who comes.",
                "Those who come get {j} {xs} each.",
            ),
            steps=(
                ask("g", lambda n, k: n - k, "How many guests come?"),
                ask(
                    "x",
                    lambda g, j: g * j,
                    "How many {xs} are needed?",
                    "How many {xs} will be used?",
                    "What number of {xs} does that take?",
                ),
            ),
            gives="need",
            ordered=True,
            n=(10, 50),
            k=(2, 9),
            j=(2, 6),
        ),
        part(
            ("{A} already has {k} {xs}.", "There are {k} {xs} in the cupboard.", "{k} {xs} were left from last year."),
            steps=(
                ask(
                    "m",
                    lambda v, k: v - k,
                    "How many {xs} must {A} buy?",
                    "How many more {xs} are needed?",
                    "How many {xs} are missing?",
                ),
            ),
            takes="need",
            gives="to_buy",
            k=(2, 30),
        ),
        part(
            ("A pack has {k} {xs}.", "{xs} come in packs of {k}.", "There are {k} {xs} in a pack."),
            steps=(
                ask(
                    "p",
                    lambda v, k: v / k,
                    "How many packs must {A} buy?",
                    "How many packs are bought?",
                    "What number of packs is that?",
                ),
            ),
            takes="to_buy",
            gives="packs",
            k=(2, 12),
        ),
        part(
            ("A pack costs ${p}.", "Each pack is ${p}.", "{A} pays ${p} for a pack."),
            steps=(
                ask(
                    "c",
                    lambda v, p: v * p,
                    "How much do the packs cost?",
                    "What is paid for the packs?",
                    "How much money do the packs take?",
                ),
            ),
            takes="packs",
            gives="price",
            p=(2, 9),
        ),
        part(
            ("{A} has ${b}.", "In {A}'s purse there is ${b}.", "{A} took ${b} along."),
            steps=(
                ask(
                    "l",
                    lambda v, b: b - v,
                    "How much money does {A} have left?",
                    "What is left in the purse?",
                    "How much does {A} still have afterwards?",
                ),
            ),
            takes="price",
            gives="purse",
            b=(20, 250),
        ),
        part(
            (
                "The {kin} and the {kin2} pay the price together, half each.",
                "The price is split in half between the {kin} and the {kin2}.",
                "The {kin} and the {kin2} each pay half of the price.",
            ),
            steps=(
                ask(
                    "h",
                    lambda v: v / 2,
                    "How much does the {kin} pay?",
                    "What is the {kin}'s half?",
                    "How much money does the {kin} put in?",
                ),
            ),
            takes="price",
            gives="half",
        ),
    ),
    asides=(
        "The music is loud.",
        "{A} is {n} years old today.",
        "The hall has {n} doors.",
        "There is a band with {n} players.",
        "It gets dark at eight.",
        "A dog steals a sausage.",
    ),
)
