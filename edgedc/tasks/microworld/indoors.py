"""Trained domains, first half: shopping, travel, recipes, savings, reading."""

from edgedc.tasks.microworld.story import Domain, ask, part

SHOPPING = Domain(
    "shopping",
    things=(
        "pen",
        "notebook",
        "ruler",
        "eraser",
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
            ("{B} pays ${k} of that.", "${k} of this is paid by {B}.", "{B} takes over ${k} of it."),
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
                "{B} saves {k} times as much as {A} each week.",
                "{B}'s weekly savings are {k} times those of {A}.",
                "{B} puts {k} times as much aside each week as {A}.",
            ),
            ("They do this for {n} weeks.", "This goes on for {n} weeks.", "Both keep it up for {n} weeks."),
            steps=(
                ask("b", lambda w, k: w * k, "How much does {B} save each week?"),
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

READING = Domain(
    "reading",
    things=("novel", "comic", "magazine", "atlas", "diary", "notebook", "poem", "story"),
    words={
        "book": ("novel", "thriller", "biography", "saga", "textbook"),
        "day": ("Monday", "Tuesday", "Friday", "Sunday"),
    },
    parts=(
        part(
            ("{A} reads {p} pages a day.", "Each day {A} reads {p} pages.", "{A} gets through {p} pages every day."),
            ("{A} reads for {n} days.", "This lasts {n} days.", "{A} does it for {n} days."),
            steps=(
                ask(
                    "r",
                    lambda p, n: p * n,
                    "How many pages does {A} read?",
                    "What number of pages is read?",
                    "How many pages has {A} read then?",
                ),
            ),
            gives="pages",
            ordered=True,
            p=(5, 60),
            n=(2, 14),
        ),
        part(
            (
                "On {day} {A} reads {p} pages of a {book}.",
                "{A} reads {p} pages of a {book} on {day}.",
                "Of a {book}, {A} reads {p} pages on {day}.",
            ),
            (
                "The day after, {A} reads {k} times as many.",
                "On the next day it is {k} times as many.",
                "The next day {A} reads {k} times that.",
            ),
            steps=(
                ask("b", lambda p, k: p * k, "How many pages does {A} read on the next day?"),
                ask(
                    "t",
                    lambda p, b: p + b,
                    "How many pages does {A} read on both days?",
                    "How many pages is it for the two days together?",
                    "What is the number of pages read in the two days?",
                ),
            ),
            gives="pages",
            ordered=True,
            p=(6, 50),
            k=(2, 4),
        ),
        part(
            ("{A} reads {p} pages an hour.", "In an hour {A} reads {p} pages.", "{A} manages {p} pages per hour."),
            (
                "{A} reads {h} hours in the morning.",
                "In the morning {A} sits over the {book} for {h} hours.",
                "The morning has {h} hours for reading.",
            ),
            (
                "{A} reads {g} hours in the evening.",
                "In the evening {A} takes {g} hours for the {book}.",
                "The evening has {g} hours for reading.",
            ),
            steps=(
                ask("t", lambda h, g: h + g, "How many hours does {A} read?"),
                ask(
                    "r",
                    lambda p, t: p * t,
                    "How many pages does {A} read?",
                    "How many pages does {A} manage that day?",
                    "What number of pages is read?",
                ),
            ),
            gives="pages",
            p=(10, 50),
            h=(2, 5),
            g=(2, 5),
        ),
        part(
            ("The {book} has {w} pages.", "There are {w} pages in the {book}.", "The {book} is {w} pages long."),
            steps=(
                ask(
                    "l",
                    lambda v, w: w - v,
                    "How many pages are left to read?",
                    "How many pages has {A} not read yet?",
                    "How many pages of the {book} remain?",
                ),
            ),
            takes="pages",
            gives="pages_left",
            w=(100, 700),
        ),
        part(
            (
                "{A} wants to finish in {k} days, with as many pages each day.",
                "The rest is to be read in {k} equal days.",
                "{A} spreads the rest evenly over {k} days.",
            ),
            steps=(
                ask(
                    "d",
                    lambda v, k: v / k,
                    "How many pages a day is that?",
                    "How many pages must {A} read each day?",
                    "How many pages come on each day?",
                ),
            ),
            takes="pages_left",
            gives="daily",
            k=(2, 12),
        ),
        part(
            (
                "{A} reads the rest at {k} pages a day.",
                "For the rest, {A} takes {k} pages a day.",
                "From then on {A} reads {k} pages every day.",
            ),
            steps=(
                ask(
                    "d",
                    lambda v, k: v / k,
                    "How many more days does {A} need?",
                    "In how many days is the {book} finished?",
                    "How many days does the rest take?",
                ),
            ),
            takes="pages_left",
            gives="days",
            k=(5, 40),
        ),
        part(
            ("A page has about {w} lines.", "There are {w} lines on a page.", "Each page is printed with {w} lines."),
            steps=(
                ask(
                    "w",
                    lambda v, w: v * w,
                    "How many lines does {A} read?",
                    "What number of lines is that?",
                    "How many lines have been read?",
                ),
            ),
            takes="pages",
            gives="lines",
            w=(12, 40),
        ),
        part(
            ("A page takes {m} minutes.", "{A} needs {m} minutes for a page.", "For each page {A} takes {m} minutes."),
            steps=(
                ask(
                    "m",
                    lambda v, m: v * m,
                    "How many minutes does {A} read a day?",
                    "For how many minutes must {A} read each day?",
                    "How many minutes of reading a day is that?",
                ),
            ),
            takes="daily",
            gives="minutes",
            m=(2, 5),
        ),
    ),
    asides=(
        "The library has {n} rooms.",
        "{A} drinks tea.",
        "The author wrote {n} other books.",
        "The lamp is new.",
        "{A} sits by the window.",
        "The print is small.",
    ),
)
