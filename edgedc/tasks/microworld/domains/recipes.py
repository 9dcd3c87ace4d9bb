"""Baking: trays, cups, bags, plates."""

from edgedc.tasks.microworld.story import Domain, ask, part

RECIPES = Domain(
    "recipes",
    things=("cookie", "muffin", "pancake", "bun", "waffle", "pie", "tart", "bagel", "dumpling", "brownie"),
    words={"stuff": ("flour", "sugar", "milk", "butter", "cocoa")},
    parts=(
        part(
            (
                "{A} bakes {n} trays of {xs}.",
                "{A} fills {n} trays with {xs}.",
                "There are {n} trays of {xs} that {A} bakes.",
            ),
            ("Each tray holds {k} {xs}.", "On every tray there are {k} {xs}.", "A tray has room for {k} {xs}."),
            steps=(
                ask(
                    "t",
                    lambda n, k: n * k,
                    "How many {xs} does {A} bake?",
                    "How many {xs} come out of the oven?",
                    "What number of {xs} is baked?",
                ),
            ),
            gives="baked",
            ordered=True,
            n=(2, 12),
            k=(4, 24),
        ),
        part(
            (
                "A batch of {xs} needs {g} cups of {stuff}.",
                "For one batch of {xs} one takes {g} cups of {stuff}.",
                "{g} cups of {stuff} go into a batch of {xs}.",
            ),
            (
                "A batch of {ys} needs {h} cups of {stuff}.",
                "For one batch of {ys} one takes {h} cups of {stuff}.",
                "{h} cups of {stuff} go into a batch of {ys}.",
            ),
            (
                "{A} makes {n} batches of {xs} and {m} batches of {ys}.",
                "{n} batches of {xs} and {m} of {ys} are made.",
                "{A} plans {n} batches of {xs} and {m} batches of {ys}.",
            ),
            steps=(
                ask("a", lambda g, n: g * n, "How much {stuff} do the {xs} need?"),
                ask("b", lambda h, m: h * m, "How much {stuff} do the {ys} need?"),
                ask(
                    "t",
                    lambda a, b: a + b,
                    "How much {stuff} is needed in all?",
                    "How many cups of {stuff} does {A} need altogether?",
                    "What is the total amount of {stuff} in cups?",
                ),
            ),
            gives="cups",
            ordered=True,
            g=(2, 9),
            h=(2, 9),
            n=(2, 6),
            m=(2, 6),
        ),
        part(
            (
                "A recipe for {p} people takes {g} cups of {stuff}.",
                "{g} cups of {stuff} are enough for {p} people.",
                "For {p} people the recipe says {g} cups of {stuff}.",
            ),
            ("{A} cooks for {q} people.", "{q} people come to eat at {A}'s.", "{A} has {q} people at the table."),
            steps=(
                ask("f", lambda q, p: q / p, "How many times is the recipe needed?"),
                ask(
                    "c",
                    lambda f, g: f * g,
                    "How much {stuff} is needed in all?",
                    "How many cups of {stuff} does {A} take?",
                    "Find the amount of {stuff} in cups.",
                ),
            ),
            gives="cups",
            ordered=True,
            p=(2, 6),
            g=(2, 9),
            q=(6, 48),
        ),
        part(
            (
                "There are {k} cups of {stuff} in the kitchen already.",
                "{A} has {k} cups of {stuff} at home.",
                "{k} cups of {stuff} stand on the shelf.",
            ),
            steps=(
                ask(
                    "b",
                    lambda v, k: v - k,
                    "How much {stuff} must {A} buy?",
                    "How many cups of {stuff} are missing?",
                    "How many more cups of {stuff} does {A} need?",
                ),
            ),
            takes="cups",
            gives="missing",
            k=(2, 15),
        ),
        part(
            (
                "A bag holds {k} cups of {stuff}.",
                "{stuff} is sold in bags of {k} cups.",
                "There are {k} cups in a bag of {stuff}.",
            ),
            steps=(
                ask(
                    "b",
                    lambda v, k: v / k,
                    "How many bags of {stuff} does {A} buy?",
                    "What number of bags must {A} buy?",
                    "How many bags is that?",
                ),
            ),
            takes="missing",
            gives="bags_of",
            k=(2, 8),
        ),
        part(
            ("{k} {xs} burn.", "{A} burns {k} of them.", "Of the {xs}, {k} are burnt."),
            steps=(
                ask(
                    "g",
                    lambda v, k: v - k,
                    "How many {xs} are good?",
                    "How many {xs} are not burnt?",
                    "What number of {xs} can be eaten?",
                ),
            ),
            takes="baked",
            gives="good",
            k=(2, 12),
        ),
        part(
            (
                "{A} puts the good {xs} on plates, {k} on each.",
                "{k} good {xs} fit on a plate.",
                "Each plate gets {k} good {xs}.",
            ),
            steps=(
                ask(
                    "p",
                    lambda v, k: v / k,
                    "How many plates are filled?",
                    "How many plates does {A} need?",
                    "What number of plates is used?",
                ),
            ),
            takes="good",
            gives="plates",
            k=(2, 9),
        ),
        part(
            ("{A} sells each plate for ${d}.", "A plate brings ${d}.", "Every plate is sold at ${d}."),
            steps=(
                ask(
                    "m",
                    lambda v, d: v * d,
                    "How much money do the plates bring?",
                    "How much does {A} earn with the plates?",
                    "What does {A} get for all the plates?",
                ),
            ),
            takes="plates",
            gives="takings",
            d=(2, 15),
        ),
        part(
            (
                "The things that went into it cost ${k}.",
                "{A} spent ${k} on what went into them.",
                "What it took to make them cost {A} ${k}.",
            ),
            steps=(
                ask(
                    "w",
                    lambda v, k: v - k,
                    "How much profit does {A} make?",
                    "What is {A}'s profit?",
                    "How much does {A} gain in the end?",
                ),
            ),
            takes="takings",
            gives="profit",
            k=(2, 30),
        ),
    ),
    asides=(
        "The oven is {n} years old.",
        "{A} likes to sing while baking.",
        "The kitchen smells of vanilla.",
        "The recipe stands on page {n}.",
        "It takes {n} minutes to heat the oven.",
        "A cat sleeps under the table.",
    ),
)
