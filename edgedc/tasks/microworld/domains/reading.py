"""Pages, hours and days with a book."""

from edgedc.tasks.microworld.story import Domain, ask, part

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
