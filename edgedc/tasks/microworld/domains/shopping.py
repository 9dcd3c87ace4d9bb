"""Buying things: prices, coupons, change, shared bills."""

from edgedc.tasks.microworld.story import Domain, ask, part

SHOPPING = Domain(
    "shopping",
    things=(
        "pen",
        "notebook",
        "ruler",
        "sharpener",
        "folder",
        "marker",
        "candle",
        "mug",
        "towel",
        "lamp",
        "basket",
        "poster",
    ),
    words={"shop": ("market", "corner shop", "mall", "stationery shop", "fair")},
    parts=(
        part(
            (
                "{A} buys {n} {xs} at ${p} each.",
                "{A} buys {n} {xs}, and each {x} costs ${p}.",
                "{A} pays ${p} for each of {n} {xs}.",
            ),
            steps=(
                ask(
                    "c",
                    lambda n, p: n * p,
                    "How much do the {xs} cost?",
                    "What does {A} pay for the {xs}?",
                    "Find the price of all the {xs}.",
                ),
            ),
            gives="bill",
            n=(2, 12),
            p=(2, 15),
        ),
        part(
            (
                "{A} buys {n} {xs} at ${p} each.",
                "At the {shop} {A} takes {n} {xs} for ${p} apiece.",
                "{A} wants {n} {xs} that cost ${p} each.",
            ),
            (
                "{A} buys {m} {ys} at ${q} each.",
                "{A} pays ${q} for each of {m} {ys}.",
                "{A} also picks {m} {ys}; one {y} costs ${q}.",
            ),
            steps=(
                ask("a", lambda n, p: n * p, "How much do the {xs} cost?"),
                ask("b", lambda m, q: m * q, "How much do the {ys} cost?"),
                ask(
                    "t",
                    lambda a, b: a + b,
                    "How much does {A} spend in all?",
                    "What is the whole bill?",
                    "How much money does {A} spend altogether?",
                    "Find the total that {A} pays.",
                ),
            ),
            gives="bill",
            n=(2, 9),
            p=(2, 12),
            m=(2, 9),
            q=(2, 12),
        ),
        part(
            ("A {x} costs ${p} at the {shop}.", "At the {shop} a {x} is sold for ${p}.", "The price of a {x} is ${p}."),
            (
                "A {y} costs ${k} more than a {x}.",
                "A {y} is ${k} dearer than a {x}.",
                "For a {y} one pays ${k} more than for a {x}.",
            ),
            ("{A} buys {n} {ys}.", "{A} takes {n} {ys}.", "{n} {ys} are what {A} buys."),
            steps=(
                ask("y", lambda p, k: p + k, "How much does one {y} cost?"),
                ask(
                    "c",
                    lambda y, n: y * n,
                    "How much do the {ys} cost?",
                    "How much does {A} pay for the {ys}?",
                    "What is the price of all the {ys}?",
                ),
            ),
            gives="bill",
            ordered=True,
            p=(2, 12),
            k=(2, 9),
            n=(2, 9),
        ),
        part(
            (
                "A coupon takes ${d} off the bill.",
                "With a coupon the bill is ${d} lower.",
                "The cashier takes ${d} off because of a coupon.",
            ),
            steps=(
                ask(
                    "pay",
                    lambda v, d: v - d,
                    "How much does {A} pay after the coupon?",
                    "What is left to pay with the coupon?",
                    "How much is the bill once the coupon is used?",
                ),
            ),
            takes="bill",
            gives="due",
            d=(2, 9),
        ),
        part(
            ("{A} pays with ${b}.", "{A} hands over ${b}.", "{A} gives the cashier ${b}."),
            steps=(
                ask(
                    "change",
                    lambda v, b: b - v,
                    "How much change does {A} get?",
                    "What change does {A} receive?",
                    "How much money does {A} get back?",
                ),
            ),
            takes="bill",
            gives="change",
            b=(20, 200),
        ),
        part(
            ("{A} pays with ${b}.", "{A} puts ${b} on the counter.", "{A} gives the cashier ${b}."),
            steps=(
                ask(
                    "change",
                    lambda v, b: b - v,
                    "How much change does {A} get?",
                    "What change does {A} receive?",
                    "How much money does {A} get back?",
                ),
            ),
            takes="due",
            gives="change",
            b=(20, 200),
        ),
        part(
            (
                "{A} and the others, {k} people in all, split the bill equally.",
                "{k} friends share the bill evenly.",
                "The bill is divided equally among {k} friends.",
            ),
            steps=(
                ask(
                    "each",
                    lambda v, k: v / k,
                    "How much does each friend pay?",
                    "What is the share of each friend?",
                    "How much is one friend's part?",
                ),
            ),
            takes="bill",
            gives="each",
            k=(2, 8),
        ),
        part(
            (
                "{A} puts the change into a jar that already holds ${j}.",
                "The change goes into a jar with ${j} in it.",
                "{A} drops the change into a jar in which there is ${j}.",
            ),
            steps=(
                ask(
                    "jar",
                    lambda v, j: v + j,
                    "How much money is in the jar now?",
                    "How much does the jar hold then?",
                    "What amount is in the jar at the end?",
                ),
            ),
            takes="change",
            gives="jar",
            j=(5, 60),
        ),
    ),
    asides=(
        "The {shop} opens at {n} minutes past nine.",
        "{A} has {n} cousins.",
        "It is a rainy day.",
        "The {shop} has {n} shelves.",
        "{A} came by bus.",
        "The queue is {n} people long.",
    ),
)
