"""Pay, output, taxes and rent."""

from edgedc.tasks.microworld.story import Domain, ask, part

WORK = Domain(
    "work",
    things=("chair", "table", "toy", "shirt", "sweater", "vase", "frame", "shelf unit", "bench", "belt"),
    words={"job": ("painter", "carpenter", "gardener", "waiter", "clerk", "tutor")},
    parts=(
        part(
            (
                "{A}, a {job}, earns ${w} an hour.",
                "As a {job}, {A} gets ${w} an hour.",
                "{A} is a {job} who is paid ${w} per hour.",
            ),
            ("{A} works {h} hours.", "The job takes {h} hours.", "{A} is busy for {h} hours."),
            steps=(
                ask(
                    "p",
                    lambda w, h: w * h,
                    "How much does {A} earn?",
                    "What does {A} get for the work?",
                    "How much money is {A} paid?",
                ),
            ),
            gives="pay",
            ordered=True,
            w=(8, 40),
            h=(2, 12),
        ),
        part(
            ("{A} earns ${w} an hour.", "{A} is paid ${w} per hour."),
            ("{A} works {h} hours a day.", "A day's work is {h} hours long.", "Every day {A} works for {h} hours."),
            ("{A} works {d} days.", "This goes on for {d} days.", "{A} comes on {d} days."),
            steps=(
                ask("t", lambda w, h: w * h, "How much does {A} earn a day?"),
                ask(
                    "p",
                    lambda t, d: t * d,
                    "How much does {A} earn?",
                    "What is {A} paid in all?",
                    "How much money does {A} make altogether?",
                ),
            ),
            gives="pay",
            ordered=True,
            w=(8, 30),
            h=(3, 9),
            d=(2, 7),
        ),
        part(
            ("{A} makes {n} {xs} an hour.", "In an hour {A} makes {n} {xs}.", "{A}'s output is {n} {xs} per hour."),
            (
                "The {kin} makes {k} {xs} an hour.",
                "In an hour the {kin} makes {k} {xs}.",
                "The {kin}'s output is {k} {xs} per hour.",
            ),
            ("Both work {h} hours.", "They work together for {h} hours.", "The two of them are at it for {h} hours."),
            steps=(
                ask("t", lambda n, k: n + k, "How many {xs} do they make an hour?"),
                ask(
                    "x",
                    lambda t, h: t * h,
                    "How many {xs} do they make?",
                    "How many {xs} are made in all?",
                    "What number of {xs} do the two make?",
                ),
            ),
            gives="made",
            ordered=True,
            n=(2, 15),
            k=(2, 15),
            h=(2, 9),
        ),
        part(
            (
                "{k} of the {xs} fail the check.",
                "The check finds {k} {xs} with flaws.",
                "{k} {xs} are sent back after the check.",
            ),
            steps=(
                ask(
                    "g",
                    lambda v, k: v - k,
                    "How many {xs} pass the check?",
                    "How many {xs} are all right?",
                    "What number of {xs} has no flaw?",
                ),
            ),
            takes="made",
            gives="passed",
            k=(2, 15),
        ),
        part(
            (
                "Those that pass are sold at ${p} each.",
                "A {x} that passes sells for ${p}.",
                "The price of a {x} that passes is ${p}.",
            ),
            steps=(
                ask(
                    "m",
                    lambda v, p: v * p,
                    "How much money do the {xs} bring?",
                    "What is earned with the {xs}?",
                    "How much is taken for the {xs}?",
                ),
            ),
            takes="passed",
            gives="revenue",
            p=(2, 25),
        ),
        part(
            ("The material costs ${k}.", "${k} is spent on material.", "They have to pay ${k} for material."),
            steps=(
                ask(
                    "p",
                    lambda v, k: v - k,
                    "How much profit is made?",
                    "What is the profit?",
                    "How much remains after the material is paid?",
                ),
            ),
            takes="revenue",
            gives="profit",
            k=(5, 90),
        ),
        part(
            ("{A} pays ${k} in taxes.", "Taxes take ${k} of it.", "Of this, ${k} goes to taxes."),
            steps=(
                ask(
                    "n",
                    lambda v, k: v - k,
                    "How much does {A} keep after taxes?",
                    "What is left after taxes?",
                    "How much money remains when taxes are paid?",
                ),
            ),
            takes="pay",
            gives="net",
            k=(3, 60),
        ),
        part(
            (
                "Half of what is left goes into rent.",
                "{A} uses half of the rest for rent.",
                "The rent takes half of what remains.",
            ),
            steps=(
                ask(
                    "r",
                    lambda v: v / 2,
                    "How much is the rent?",
                    "What does {A} pay for rent?",
                    "How much money goes into rent?",
                ),
            ),
            takes="net",
            gives="rent",
        ),
        part(
            (
                "The {kin} pays ${k} more rent than {A}.",
                "The {kin}'s rent is ${k} higher.",
                "The rent of the {kin} is ${k} more.",
            ),
            steps=(
                ask(
                    "b",
                    lambda v, k: v + k,
                    "How much rent does the {kin} pay?",
                    "What is the {kin}'s rent?",
                    "Find the rent of the {kin}.",
                ),
            ),
            takes="rent",
            gives="b_rent",
            k=(5, 80),
        ),
        part(
            ("There is a bonus of ${k}.", "A bonus adds ${k}.", "The boss gives a bonus of ${k} on top."),
            steps=(
                ask(
                    "b",
                    lambda v, k: v + k,
                    "How much does {A} get with the bonus?",
                    "What is {A}'s pay with the bonus?",
                    "How much money is it with the bonus?",
                ),
            ),
            takes="pay",
            gives="with_bonus",
            k=(5, 90),
        ),
    ),
    asides=(
        "The workshop has {n} windows.",
        "{A} has been there for {n} years.",
        "The boss is friendly.",
        "There is coffee at ten.",
        "The phone rings {n} times.",
        "{A} goes to work by bike.",
    ),
)
