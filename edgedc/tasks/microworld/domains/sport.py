"""Laps, points, records and prizes."""

from edgedc.tasks.microworld.story import Domain, ask, part

SPORT = Domain(
    "sport",
    things=("goal", "basket", "hit", "strike", "throw", "serve", "jump", "dive"),
    words={"game": ("match", "tournament", "final", "contest")},
    parts=(
        part(
            ("{A} runs {n} laps.", "{n} laps are run by {A}.", "{A} does {n} laps."),
            ("A lap is {k} yards long.", "Each lap has {k} yards.", "The track measures {k} yards."),
            steps=(
                ask(
                    "d",
                    lambda n, k: n * k,
                    "How many yards does {A} run?",
                    "How far does {A} run, in yards?",
                    "What distance in yards does {A} run?",
                ),
            ),
            gives="yards",
            ordered=True,
            n=(2, 15),
            k=(20, 200),
        ),
        part(
            (
                "{A} scores {n} points in the first half of the {game}.",
                "In the first half of the {game} {A} scores {n} points.",
                "{n} points are scored by {A} in the first half of the {game}.",
            ),
            (
                "In the second half {A} scores {k} more than that.",
                "{A} gets {k} more points than that in the second half.",
                "The second half brings {A} {k} points more than the first.",
            ),
            steps=(
                ask("s", lambda n, k: n + k, "How many points does {A} score in the second half?"),
                ask(
                    "t",
                    lambda n, s: n + s,
                    "How many points does {A} score in the {game}?",
                    "What is {A}'s score in the {game}?",
                    "How many points has {A} at the end of the {game}?",
                ),
            ),
            gives="points",
            ordered=True,
            n=(4, 40),
            k=(2, 20),
        ),
        part(
            ("Each {x} is worth {p} points.", "For a {x} there are {p} points.", "A {x} counts {p} points."),
            ("Each {y} is worth {q} points.", "For a {y} there are {q} points.", "A {y} counts {q} points."),
            (
                "{A} makes {n} {xs} and {m} {ys}.",
                "In the {game} {A} makes {n} {xs} and {m} {ys}.",
                "{n} {xs} and {m} {ys} are made by {A}.",
            ),
            steps=(
                ask("a", lambda p, n: p * n, "How many points are the {xs} worth?"),
                ask("b", lambda q, m: q * m, "How many points are the {ys} worth?"),
                ask(
                    "t",
                    lambda a, b: a + b,
                    "How many points does {A} score in the {game}?",
                    "How many points is that in all?",
                    "What is {A}'s score?",
                ),
            ),
            gives="points",
            ordered=True,
            p=(2, 6),
            q=(2, 6),
            n=(2, 12),
            m=(2, 12),
        ),
        part(
            (
                "{A} loses {k} points for a foul.",
                "A foul costs {A} {k} points.",
                "{k} points are taken off for a foul.",
            ),
            steps=(
                ask(
                    "f",
                    lambda v, k: v - k,
                    "How many points does {A} have after the foul?",
                    "What is {A}'s score after the foul?",
                    "How many points remain after the foul?",
                ),
            ),
            takes="points",
            gives="score",
            k=(2, 9),
        ),
        part(
            (
                "The {kin} scores {k} points more than {A}.",
                "The {kin}'s score is {k} points above {A}'s.",
                "The {kin} ends {k} points ahead of {A}.",
            ),
            steps=(
                ask(
                    "b",
                    lambda v, k: v + k,
                    "How many points does the {kin} score?",
                    "What is the {kin}'s score?",
                    "How many points are the {kin}'s?",
                ),
            ),
            takes="score",
            gives="b_score",
            k=(2, 30),
        ),
        part(
            ("The record is {r} points.", "{r} points are the record.", "The best score ever is {r} points."),
            steps=(
                ask(
                    "m",
                    lambda v, r: r - v,
                    "How many points is the {kin} short of the record?",
                    "How many points does the {kin} lack for the record?",
                    "By how many points does the {kin} miss the record?",
                ),
            ),
            takes="b_score",
            gives="short",
            r=(60, 200),
        ),
        part(
            (
                "{A} does this on {k} days a week.",
                "On {k} days of the week {A} does so.",
                "{A} repeats this {k} days a week.",
            ),
            steps=(
                ask(
                    "w",
                    lambda v, k: v * k,
                    "How many yards does {A} run each week?",
                    "How many yards is that per week?",
                    "What is the weekly distance in yards?",
                ),
            ),
            takes="yards",
            gives="weekly",
            k=(2, 7),
        ),
        part(
            ("The goal is {g} yards.", "{A} wants to reach {g} yards.", "{g} yards are the aim."),
            steps=(
                ask(
                    "l",
                    lambda v, g: g - v,
                    "How many yards are missing?",
                    "How many more yards must {A} run?",
                    "How many yards short is {A}?",
                ),
            ),
            takes="weekly",
            gives="yards_left",
            g=(500, 4900),
        ),
        part(
            ("The prize is ${p} per point.", "Each point earns ${p} for charity.", "A sponsor gives ${p} a point."),
            steps=(
                ask(
                    "m",
                    lambda v, p: v * p,
                    "How much money do the points earn?",
                    "What sum do the points bring?",
                    "How much is paid for the points?",
                ),
            ),
            takes="points",
            gives="money",
            p=(2, 9),
        ),
        part(
            (
                "{k} clubs share the money equally.",
                "The money is split evenly among {k} clubs.",
                "The sum goes in equal parts to {k} clubs.",
            ),
            steps=(
                ask(
                    "c",
                    lambda v, k: v / k,
                    "How much does each club get?",
                    "What is the share of one club?",
                    "How much money is there for every club?",
                ),
            ),
            takes="money",
            gives="club",
            k=(2, 8),
        ),
    ),
    asides=(
        "The stadium has {n} gates.",
        "{A} wears number {n}.",
        "The grass is wet.",
        "The coach has a red cap.",
        "{n} people wave flags.",
        "The {game} is on a Saturday.",
    ),
)
