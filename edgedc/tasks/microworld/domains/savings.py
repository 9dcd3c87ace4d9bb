"""Pocket money, gifts, goals and loans."""

from edgedc.tasks.microworld.story import Domain, ask, part

SAVINGS = Domain(
    "savings",
    things=("coin", "stamp", "sticker", "token", "badge", "card", "medal", "pin"),
    words={"goal": ("bike", "guitar", "phone", "skateboard", "telescope", "drum")},
    parts=(
        part(
            ("{A} saves ${w} a week.", "Every week {A} puts ${w} aside.", "{A} lays back ${w} each week."),
            ("{A} does so for {n} weeks.", "This goes on for {n} weeks.", "{A} keeps it up for {n} weeks."),
            steps=(
                ask(
                    "s",
                    lambda w, n: w * n,
                    "How much money does {A} save?",
                    "What sum does {A} save?",
                    "How many dollars does {A} put aside?",
                ),
            ),
            gives="saved",
            ordered=True,
            w=(3, 30),
            n=(2, 15),
        ),
        part(
            ("{A} earns ${e} a week.", "{A}'s pocket money is ${e} a week.", "Each week {A} gets ${e}."),
            (
                "{A} spends ${k} of it each week.",
                "Out of this, ${k} goes on snacks every week.",
                "Every week ${k} of this is spent.",
            ),
            (
                "{A} saves the rest for {n} weeks.",
                "What is left is saved for {n} weeks.",
                "For {n} weeks {A} keeps what is left over.",
            ),
            steps=(
                ask("r", lambda e, k: e - k, "How much does {A} save each week?"),
                ask(
                    "s",
                    lambda r, n: r * n,
                    "How much money does {A} save?",
                    "What sum does {A} save?",
                    "How much does {A} save over that time?",
                ),
            ),
            gives="saved",
            ordered=True,
            e=(8, 50),
            k=(2, 20),
            n=(2, 12),
        ),
        part(
            ("{A} saves ${w} a week.", "{A} puts ${w} aside each week."),
            (
                "The {kin} saves {k} times as much as {A} each week.",
                "The {kin}'s weekly savings are {k} times those of {A}.",
                "The {kin} puts {k} times as much aside each week as {A}.",
            ),
            ("They do this for {n} weeks.", "This goes on for {n} weeks.", "Both keep it up for {n} weeks."),
            steps=(
                ask("b", lambda w, k: w * k, "How much does the {kin} save each week?"),
                ask("t", lambda w, b: w + b, "How much do they save together each week?"),
                ask(
                    "s",
                    lambda t, n: t * n,
                    "How much money do they save?",
                    "What sum do the two of them save?",
                    "How much have they saved at the end?",
                ),
            ),
            gives="saved",
            ordered=True,
            w=(2, 15),
            k=(2, 5),
            n=(2, 10),
        ),
        part(
            (
                "{A} gets ${g} as a birthday gift on top.",
                "A birthday gift adds ${g}.",
                "Then a gift of ${g} comes on top.",
            ),
            steps=(
                ask(
                    "h",
                    lambda v, g: v + g,
                    "How much money is there with the gift?",
                    "What is the sum once the gift is added?",
                    "How much money is it together with the gift?",
                ),
            ),
            takes="saved",
            gives="fund",
            g=(5, 60),
        ),
        part(
            ("A {goal} costs ${c}.", "The price of a {goal} is ${c}.", "For a {goal} one has to pay ${c}."),
            steps=(
                ask(
                    "m",
                    lambda v, c: c - v,
                    "How much money is missing for the {goal}?",
                    "How much more is needed to buy the {goal}?",
                    "How many dollars are short for the {goal}?",
                ),
            ),
            takes="fund",
            gives="short",
            c=(60, 500),
        ),
        part(
            ("A {goal} costs ${c}.", "The price of a {goal} is ${c}.", "The {goal} in the window costs ${c}."),
            steps=(
                ask(
                    "l",
                    lambda v, c: v - c,
                    "How much money is left after buying the {goal}?",
                    "What remains once the {goal} is paid?",
                    "How much is kept after the {goal} is bought?",
                ),
            ),
            takes="saved",
            gives="spare",
            c=(20, 150),
        ),
        part(
            (
                "An uncle lends the rest and wants ${r} back each month.",
                "The rest is borrowed and paid back at ${r} a month.",
                "What is short is lent by an aunt, who gets ${r} back a month.",
            ),
            steps=(
                ask(
                    "n",
                    lambda v, r: v / r,
                    "How many months does it take to pay it back?",
                    "In how many months is the loan paid back?",
                    "For how many months must it be paid back?",
                ),
            ),
            takes="short",
            gives="months",
            r=(2, 25),
        ),
        part(
            (
                "Half of what is left goes to a friend in need.",
                "Then half of the remaining money is given to charity.",
                "Half of the rest is lent to a neighbour.",
            ),
            steps=(
                ask(
                    "h",
                    lambda v: v / 2,
                    "How much money is given away?",
                    "What sum is handed over?",
                    "How much is it that someone else gets?",
                ),
            ),
            takes="spare",
            gives="given",
        ),
    ),
    asides=(
        "The jar is {n} inches tall.",
        "{A} is {n} years old.",
        "The bank closes at four.",
        "{A} reads about money.",
        "The shop has {n} models.",
        "It is the month of May.",
    ),
)
