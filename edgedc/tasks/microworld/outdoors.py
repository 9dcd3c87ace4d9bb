"""Trained domains, second half: farm, garden, sport, work, party."""

from edgedc.tasks.microworld.story import Domain, ask, part

FARM = Domain(
    "farm",
    things=("egg", "apple", "pear", "melon", "carrot", "onion", "plum", "turnip", "lemon", "beet"),
    words={"animal": ("hen", "duck", "goose", "quail"), "town": ("village", "town", "valley", "harbour")},
    parts=(
        part(
            (
                "{A} has {n} rows of trees.",
                "On {A}'s farm there are {n} rows of trees.",
                "{A} planted {n} rows of trees.",
            ),
            ("Each row has {k} trees.", "A row is made of {k} trees.", "There are {k} trees in every row."),
            ("Each tree gives {m} {xs}.", "Every tree bears {m} {xs}.", "A tree yields {m} {xs}."),
            steps=(
                ask("t", lambda n, k: n * k, "How many trees are there?"),
                ask(
                    "x",
                    lambda t, m: t * m,
                    "How many {xs} are picked?",
                    "How many {xs} does {A} harvest?",
                    "What is the harvest of {xs}?",
                ),
            ),
            gives="harvest",
            ordered=True,
            n=(2, 12),
            k=(2, 10),
            m=(2, 20),
        ),
        part(
            (
                "{A} picks {n} {xs} in the morning.",
                "In the morning {A} picks {n} {xs}.",
                "Before noon {n} {xs} are picked by {A}.",
            ),
            (
                "{A} picks {k} {xs} in the afternoon.",
                "In the afternoon {A} picks {k} {xs}.",
                "After noon {k} {xs} are picked by {A}.",
            ),
            steps=(
                ask(
                    "x",
                    lambda n, k: n + k,
                    "How many {xs} are picked?",
                    "How many {xs} does {A} pick that day?",
                    "Find the day's number of {xs}.",
                ),
            ),
            gives="harvest",
            n=(10, 90),
            k=(10, 90),
        ),
        part(
            (
                "{A} keeps {n} birds, and each lays {k} eggs a week.",
                "Each of {A}'s {n} birds lays {k} eggs a week.",
                "There are {n} birds on {A}'s farm; each one lays {k} eggs a week.",
            ),
            ("{A} collects the eggs for {w} weeks.", "This is counted over {w} weeks.", "{w} weeks go by."),
            steps=(
                ask("e", lambda n, k: n * k, "How many eggs are laid each week?"),
                ask(
                    "t",
                    lambda e, w: e * w,
                    "How many eggs are laid in all?",
                    "How many eggs does {A} collect?",
                    "What number of eggs is laid altogether?",
                ),
            ),
            gives="eggs",
            ordered=True,
            n=(3, 20),
            k=(2, 7),
            w=(2, 8),
        ),
        part(
            (
                "{A} packs the eggs in cartons of {k}.",
                "A carton takes {k} eggs.",
                "The eggs go into cartons that hold {k} each.",
            ),
            steps=(
                ask(
                    "c",
                    lambda v, k: v / k,
                    "How many cartons are filled?",
                    "How many cartons does {A} fill?",
                    "What number of cartons is full?",
                ),
            ),
            takes="eggs",
            gives="cartons",
            k=(4, 12),
        ),
        part(
            ("A carton sells for ${p}.", "{A} gets ${p} for a carton.", "In the {town} a carton is worth ${p}."),
            steps=(
                ask(
                    "m",
                    lambda v, p: v * p,
                    "How much money do the cartons bring?",
                    "How much does {A} get for the cartons?",
                    "What does {A} earn with the cartons?",
                ),
            ),
            takes="cartons",
            gives="income",
            p=(2, 9),
        ),
        part(
            ("{k} of the {xs} are rotten.", "{A} throws away {k} bad {xs}.", "Worms have spoilt {k} of the {xs}."),
            steps=(
                ask(
                    "g",
                    lambda v, k: v - k,
                    "How many good {xs} are left?",
                    "How many {xs} are not spoilt?",
                    "What number of {xs} can be used?",
                ),
            ),
            takes="harvest",
            gives="good",
            k=(2, 40),
        ),
        part(
            (
                "The good {xs} are put in crates of {k}.",
                "A crate takes {k} good {xs}.",
                "{A} fills crates with {k} good {xs} each.",
            ),
            steps=(
                ask(
                    "c",
                    lambda v, k: v / k,
                    "How many crates are filled?",
                    "How many crates does {A} need?",
                    "What number of crates is used?",
                ),
            ),
            takes="good",
            gives="crates",
            k=(3, 12),
        ),
        part(
            ("A crate is sold for ${p}.", "{A} asks ${p} for a crate.", "In the {town} people pay ${p} per crate."),
            steps=(
                ask(
                    "m",
                    lambda v, p: v * p,
                    "How much money do the crates bring?",
                    "How much does {A} take for the crates?",
                    "What is earned with the crates?",
                ),
            ),
            takes="crates",
            gives="income",
            p=(3, 20),
        ),
        part(
            (
                "Seed and water cost ${k}.",
                "{A} has to pay ${k} for seed and water.",
                "${k} had been spent on seed and water.",
            ),
            steps=(
                ask(
                    "p",
                    lambda v, k: v - k,
                    "How much profit does {A} make?",
                    "What is {A}'s profit?",
                    "How much does {A} earn after costs?",
                ),
            ),
            takes="income",
            gives="profit",
            k=(3, 40),
        ),
    ),
    asides=(
        "The barn is {n} years old.",
        "A {animal} runs across the yard.",
        "The {town} is near.",
        "{A} gets up early.",
        "The tractor is green.",
        "{n} swallows sit on the wire.",
    ),
)

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
            ("{B} carries {k} of the cans.", "{k} of the cans are carried by {B}.", "{B} helps with {k} cans."),
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
                "{B} scores {k} points more than {A}.",
                "{B}'s score is {k} points above {A}'s.",
                "{B} ends {k} points ahead of {A}.",
            ),
            steps=(
                ask(
                    "b",
                    lambda v, k: v + k,
                    "How many points does {B} score?",
                    "What is {B}'s score?",
                    "How many points are {B}'s?",
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
                    "How many points is {B} short of the record?",
                    "How many points does {B} lack for the record?",
                    "By how many points does {B} miss the record?",
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
            ("{B} makes {k} {xs} an hour.", "In an hour {B} makes {k} {xs}.", "{B}'s output is {k} {xs} per hour."),
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
            ("{B} pays ${k} more rent than {A}.", "{B}'s rent is ${k} higher.", "The rent of {B} is ${k} more."),
            steps=(
                ask(
                    "b",
                    lambda v, k: v + k,
                    "How much rent does {B} pay?",
                    "What is {B}'s rent?",
                    "Find the rent of {B}.",
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
                "{B} and {C} pay the price together, half each.",
                "The price is split in half between {B} and {C}.",
                "{B} and {C} each pay half of the price.",
            ),
            steps=(
                ask(
                    "h",
                    lambda v: v / 2,
                    "How much does {B} pay?",
                    "What is {B}'s half?",
                    "How much money does {B} put in?",
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
