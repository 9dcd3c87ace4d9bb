"""The corpus: what is generated is right and varied, and what is varied stays right."""

import itertools
import json
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import write_rows

from edgedc.errors import InputError
from edgedc.files import read_rows
from train.corpus import CorpusSettings, is_held_out, problems, rows, write_corpus
from train.corpus.__main__ import command
from train.corpus.blocks import read_domains
from train.corpus.cast import known_words
from train.corpus.english import past, plural, third_person
from train.corpus.hops import questions
from train.corpus.reword import lexicon_of, reworded
from train.corpus.stories import Problem
from train.corpus.vary import renamed, renumbered, reordered, varied, with_other_things
from train.corpus.worked import Worked, numbers_in, recomputed, worked_in
from train.sets.pairs import read_pairs

# Written for these tests, in the form of GSM8K.
ROWS = [
    {
        "question": "Sarah has 40 apples in each of 6 crates. She sells 90 apples. How many apples does Sarah keep?",
        "answer": "How many apples does Sarah have? ** She has 40*6=<<40*6=240>>240 apples.\n"
        "How many apples are left after 90 are sold? ** That leaves 240-90=<<240-90=150>>150.\n#### 150",
    },
    {
        "question": "Tom earns $15 an hour. He works eight hours on Friday and 6 hours on Sunday. What does he earn?",
        "answer": "How many hours does Tom work? ** 8+6=<<8+6=14>>14 hours.\n"
        "How much does Tom earn in 14 hours? ** 14*15=$<<14*15=210>>210.\n#### 210",
    },
    {
        "question": "A shirt costs $50 and is 20% off. Laura buys 3 shirts. What does Laura pay?",
        "answer": "How much is the discount? ** 50*.2=$<<50*.2=10>>10.\n"
        "How much does a shirt cost? ** 50-10=<<50-10=40>>40\n"
        "How much do 3 shirts cost? ** 40*3=<<40*3=120>>120\n#### 120",
    },
    {
        "question": "The red box holds 12 pens. The blue box holds 30 pens. How many pens do the two boxes hold?",
        "answer": "How many pens do the two boxes hold? ** 12+30=<<12+30=42>>42\n#### 42",
    },
]


def made(count: int, seed: int = 0, *, held_out: bool = False) -> list[Problem]:
    return list(itertools.islice(problems(random.Random(seed), held_out=held_out), count))


def worked(number: int) -> Worked:
    return worked_in(ROWS[number], "here")


def value_of(equation: str) -> float:
    assert re.fullmatch(r"[\d. +*/-]+", equation)
    return float(eval(equation))


# ---- word problems


@pytest.mark.parametrize("held_out", [False, True])
def test_the_arithmetic_of_the_steps_gives_the_answer(held_out: bool) -> None:
    for problem in made(1500, held_out=held_out):
        known = {Fraction(str(step.value)) for step in problem.steps}
        assert 2 <= len(problem.steps) <= 8
        for step in problem.steps:
            assert value_of(step.equation) == pytest.approx(step.value), problem
            assert step.value > 0
        assert float(problem.answer) == pytest.approx(problem.steps[-1].value)
        assert Fraction(problem.answer) in known or problem.steps[-1].value != int(problem.steps[-1].value)


def test_every_number_in_a_subquestion_is_told_or_was_found() -> None:
    for problem in made(1500, seed=1):
        told = set(numbers_in(problem.question)) | {Fraction(n) for n in re.findall(r"\d+", problem.question)}
        for place, step in enumerate(problem.steps):
            said = {Fraction(number) for number in re.findall(r"\d+", step.ask.replace(",", ""))}
            earlier = {Fraction(str(s.value)) for s in problem.steps[:place]}
            assert said <= told | earlier, (problem.question, step.ask)


def test_texts_are_whole_sentences_that_say_nothing_twice() -> None:
    for problem in made(1500, seed=2):
        assert not re.search(r"[{}<>|]|\s\s|\s$|\ba [aeio]\w+ |  ", problem.question), problem.question
        assert not problem.question[0].islower()
        assert problem.question.endswith("?")
        assert not re.search(r"(?<!Mr)(?<!Ms)(?<!Mrs)\. [a-z]", problem.question), problem.question
        assert all(
            ask.endswith("?") and not ask[0].islower() and not re.search(r"[{}<>|]", ask)
            for ask in problem.subquestions
        )
        assert len(set(problem.subquestions)) == len(problem.steps)


def test_the_last_subquestion_asks_what_the_problem_asks() -> None:
    asked = [problem for problem in made(400, seed=3) if problem.question.endswith(problem.subquestions[-1])]
    assert len(asked) > 100  # word for word; in the others there is a pronoun or an `if`, or other words


def test_held_out_domains_are_never_generated_for_training() -> None:
    trained = {problem.domain for problem in made(3000)}
    held_out = {problem.domain for problem in made(500, held_out=True)}
    assert not trained & held_out
    assert len(trained) >= 30
    assert len(held_out) >= 5


def test_problems_are_as_varied_as_the_texts_promise() -> None:
    common, domains = read_domains()
    blocks = [block for domain in (common, *domains) for block in domain.blocks]
    assert sum(len(phrasings) for block in blocks for phrasings in block.facts) > 600
    assert sum(len(step.forms) for block in blocks for step in block.steps) > 1000
    some = made(4000, seed=4)
    assert len({problem.question for problem in some}) > 0.998 * len(some)
    assert len({re.sub(r"\d+", "0", problem.question) for problem in some}) > 0.98 * len(some)
    assert {len(problem.steps) for problem in some} >= {2, 3, 4, 5, 6, 7}


def test_every_number_that_a_step_uses_is_told_in_every_phrasing() -> None:
    common, domains = read_domains()
    for block in (block for domain in (common, *domains) for block in domain.blocks):
        told = set("vw") | {step.name for step in block.steps}
        for phrasings in block.facts:
            sets = [{slot.partition("_")[0] for slot in form.slots} & set(block.draws) for form in phrasings]
            assert all(numbers == sets[0] for numbers in sets), phrasings[0]
            told |= sets[0]
        fixed = {
            name for name, draw in block.draws.items() if len({str(draw(random.Random(k))) for k in range(20)}) == 1
        }
        used = set().union(*(step.uses for step in block.steps))
        assert used <= told | fixed, (used - told, block.facts)


def test_domains_have_a_word_for_every_slot_and_a_beginning_for_every_ending() -> None:
    common, domains = read_domains()
    given = {block.gives for domain in (common, *domains) for block in domain.blocks}
    for domain in domains:
        known = known_words(tuple(common.words | domain.words))
        for block in domain.blocks:
            assert block.words <= known, (domain.name, block.words - known)
            assert set(block.takes) <= given, (domain.name, block.takes)


def test_a_seed_makes_the_same_problems_and_another_one_others() -> None:
    assert made(50, seed=5) == made(50, seed=5)
    assert not {p.question for p in made(50, seed=5)} & {p.question for p in made(50, seed=6)}


@pytest.mark.parametrize(
    ("verb", "third", "then"),
    [
        ("buy", "buys", "bought"),
        ("carry", "carries", "carried"),
        ("fix", "fixes", "fixed"),
        ("bake", "bakes", "baked"),
        ("do", "does", "did"),
        ("pick up", "picks up", "picked up"),
        ("choose", "chooses", "chose"),
        ("play", "plays", "played"),
        ("ship", "ships", "shipped"),
        ("fit", "fits", "fit"),
        ("blow up", "blows up", "blew up"),
    ],
)
def test_verbs_are_inflected(verb: str, third: str, then: str) -> None:
    assert third_person(verb) == third
    assert past(third) == past(verb) == then


def test_nouns_are_inflected() -> None:
    words = ("box of tea", "loaf of bread", "baby", "day", "child", "trout", "potato", "knife", "bus", "toy car")
    assert [plural(word) for word in words] == [
        *("boxes of tea", "loaves of bread", "babies", "days", "children", "trout", "potatoes", "knives", "buses"),
        "toy cars",
    ]


# ---- questions of several hops


def test_hops_refer_to_earlier_answers_only_and_use_them() -> None:
    made = list(itertools.islice(questions(random.Random(0)), 2000))
    for one in made:
        assert one.question.endswith("?")
        assert 2 <= len(one.subquestions) <= 5
        used = set()
        for place, text in enumerate(one.subquestions, start=1):
            needs = {int(k) for k in re.findall(r"#(\d)", text)}
            assert all(k < place for k in needs), one
            used |= needs
        assert used == set(range(1, len(one.subquestions))), one
    assert 0.3 < sum(one.answer == "yes" for one in made) / len(made) < 0.7
    assert len({one.question for one in made}) > 1500


def test_hops_know_the_answer() -> None:
    answers = {one.question: one.answer for one in itertools.islice(questions(random.Random(1)), 30_000)}
    heavier = {asked: said for asked, said in answers.items() if asked.startswith("Is an elephant heavier than ")}
    assert heavier.pop("Is an elephant heavier than a blue whale?", "no") == "no"
    assert len(heavier) > 2
    assert set(heavier.values()) == {"yes"}
    early, late = (
        "Isaac Newton|Julius Caesar|Marco Polo|Aristotle",
        "Einstein|Turing|Disney|Presley|Kahlo|Gandhi|Darwin",
    )
    met = [
        said
        for asked, said in answers.items()
        if re.search("have met|dinner|overlap|alive at the same", asked)
        and re.search(early, asked)
        and re.search(late, asked)
    ]
    assert len(met) > 5
    assert set(met) == {"no"}


# ---- variants of real rows


def test_other_numbers_are_carried_through_to_the_answer() -> None:
    seen = set()
    for seed in range(40):
        row = renumbered(random.Random(seed), worked(0))
        each, crates, sold = (int(value) for value in numbers_in(row.question))
        assert row.answer == str(each * crates - sold)
        assert row.subquestions[1] == f"How many apples are left after {sold} are sold?"
        seen.add(row.question)
    assert len(seen) > 30


def test_a_result_in_a_subquestion_changes_with_its_numbers_in_words_or_digits() -> None:
    for seed in range(40):
        row = renumbered(random.Random(seed), worked(1))
        wage, *hours = sorted(numbers_in(row.question), key=lambda value: f"${value}" not in row.question)
        assert set(numbers_in(row.subquestions[1])) == {sum(hours)}
        assert row.answer == str(wage * sum(hours))


def test_percentages_stay_and_results_stay_whole() -> None:
    for seed in range(40):
        row = renumbered(random.Random(seed), worked(2))
        price, percent, count = numbers_in(row.question)
        assert percent == 20
        assert Fraction(row.answer) == price * Fraction(4, 5) * count
        assert Fraction(row.answer).denominator == 1


@pytest.mark.parametrize(
    "answer",
    [
        "How many? ** 40 and 6 make <<240=240>>240.\n#### 240",  # no arithmetic to do again
        "How many? ** 40*6=<<40*6=250>>250.\n#### 250",  # wrong in the data
        "How many? ** 40*6+17=<<40*6+17=257>>257.\n#### 257",  # a number from nowhere
        "How many? ** 40*6=<<40*6=240>>240.\n#### 150",  # the answer is another number
        "How many in 17 boxes? ** 40*6=<<40*6=240>>240.\n#### 240",  # 17: neither told nor found
    ],
)
def test_rows_whose_arithmetic_cannot_be_told_keep_their_numbers(answer: str) -> None:
    row = worked_in({"question": ROWS[0]["question"], "answer": answer}, "here")
    assert all(renumbered(random.Random(seed), row) == row for seed in range(20))


def test_a_number_that_is_a_part_of_the_language_stays() -> None:
    row = worked_in(
        {
            "question": "Amy has 2 cats and twice as many dogs. How many pets does Amy have?",
            "answer": "How many dogs? ** 2*2=<<2*2=4>>4\nHow many pets? ** 2+4=<<2+4=6>>6\n#### 6",
        },
        "here",
    )
    assert all(renumbered(random.Random(seed), row) == row for seed in range(20))


def test_names_change_everywhere_and_keep_their_sex() -> None:
    row = renamed(random.Random(0), worked(1))
    assert "Tom" not in " ".join((row.question, *row.subquestions))
    name = row.question.split()[0]
    assert name in row.subquestions[0]
    assert " He works" in row.question


def test_things_change_everywhere_with_their_article() -> None:
    row = Worked("Sam eats an apple. He has 3 apples. How many apples?", ("How many apples does Sam eat?",), (), "1")
    for seed in range(20):
        other = with_other_things(random.Random(seed), row)
        thing = re.search(r"eats (an?) (\w+)", other.question)
        assert thing
        assert thing[1] == ("an" if thing[2][0] in "aeiou" else "a")
        assert plural(thing[2]) in other.subquestions[0]


def test_only_sentences_that_lean_on_nothing_change_places() -> None:
    free = worked_in({**ROWS[3], "question": "Here are boxes. " + ROWS[3]["question"]}, "here")
    assert reordered(random.Random(0), free).question.startswith("Here are boxes. The blue box")
    assert reordered(random.Random(0), worked(1)) == worked(1)


def test_no_rule_applied_gives_the_row_itself() -> None:
    class Never(random.Random):
        def random(self) -> float:
            return 1.0

    assert all(varied(Never(), worked(k)) == worked(k) for k in range(len(ROWS)))
    assert recomputed(worked(0), {}, frozenset(numbers_in(worked(0).question))) == [240, 150]


def test_real_rows_stay_right(data_folder: Path) -> None:
    real = [worked_in(row, "train") for row in read_rows(data_folder / "gsm8k" / "train_socratic.jsonl")]
    rng = random.Random(0)
    changed = 0
    for row in rng.sample(real, 1200):
        other = renumbered(rng, row)
        if other == row:
            continue
        changed += 1
        given = frozenset(numbers_in(row.question))
        before = recomputed(row, {}, given)
        assert before
        olds, news = numbers_in(row.question), numbers_in(other.question)
        assert len(olds) == len(news)
        after = recomputed(row, {a: b for a, b in zip(olds, news, strict=True) if a != b}, given)
        assert after
        assert Fraction(other.answer) == after[-1]
        for text in other.subquestions:
            assert set(numbers_in(text)) <= set(news) | set(after), (other.question, text)
    assert changed > 500


# ---- other words

# `many`, `does` and the like are in every row, so they are common; what the rows count is in one row each.
SHARED = [
    (
        "Zoe has a dax. How many more daxes does an elf buy?",
        "How many daxes does Zoe have?",
        "How many does an elf buy?",
    ),
    ("Tom has two wugs. How many wugs does he have now?", "How many wugs does Tom have?", "How many more does he buy?"),
] * 60
WORDS = ("bramble", "glimmer", "hollow", "thicket", "walrus", "turnip", "lantern", "gravel", "pillow", "ribbon")
TOLD = [(f"How many does {word} have? Many more have it.", "How many more does it have?") for word in WORDS]


def test_a_rare_word_becomes_another_one_wherever_it_stands() -> None:
    lexicon = lexicon_of([*SHARED, *TOLD])
    assert {"how", "many", "does", "have"} <= lexicon.common
    assert not {"bramble", "turnip"} & lexicon.common
    seen = set()
    for seed in range(200):
        question, first, second = reworded(random.Random(seed), TOLD_OF_TWO, lexicon)
        form = re.fullmatch(r"An? (\w+) has many (\w+)s\. Does it have more (\w+)s\? Many have gravel\.", question)
        assert form, question
        owner, thing, again = form.groups()
        assert thing == again
        assert first == f"How many {thing}s does the {owner} have?"
        assert second == f"Does {'an' if owner[0] in 'aeiou' else 'a'} {owner} have more?"
        assert question.startswith("An ") == (owner[0] in "aeiou")
        assert owner != thing
        seen |= {owner, thing}
    assert len(seen) > 100  # most of them invented, or from elsewhere
    assert seen & set(WORDS)


TOLD_OF_TWO = (
    "An imp has many lanterns. Does it have more lanterns? Many have gravel.",
    "How many lanterns does the imp have?",
    "Does an imp have more?",
)


def test_forms_of_a_word_stay_forms_of_one_word_and_keep_their_capitals() -> None:
    lexicon = lexicon_of(TOLD)
    for seed in range(50):
        question, asked = reworded(random.Random(seed), ("Frobs frob. Frobbing? A frob!", "frob, frobs"), lexicon)
        word = question.split()[1].rstrip(".")
        assert question.split()[0] == f"{word}s".capitalize()
        assert question.endswith(("A ", "An ")[word[0] in "aeiou"] + f"{word}!")
        assert asked == f"{word}, {word}s"


def test_real_rows_in_other_words_ask_for_as_much_and_copy_as_much(data_folder: Path) -> None:
    real = [worked_in(row, "train") for row in read_rows(data_folder / "gsm8k" / "train_socratic.jsonl")]
    told = [(row.question, *row.subquestions) for row in real]
    lexicon = lexicon_of(told)
    assert {"how", "many", "much", "total", "twice", "more"} <= lexicon.common
    rng = random.Random(0)
    changed = 0
    for texts in rng.sample(told, 1000):
        others = reworded(rng, texts, lexicon)
        changed += others != texts
        assert [len(text.split()) for text in others] == [len(text.split()) for text in texts]
        for before, after in zip(texts, others, strict=True):
            assert re.findall(r"\d+", before) == re.findall(r"\d+", after)
            assert before.count("?") == after.count("?")
        assert _shared(others) >= _shared(texts) - 1, (texts, others)
    assert changed > 900


def _shared(texts: tuple[str, ...]) -> int:
    """How many words of the question stand in what is written about it."""
    asked, *rest = (set(re.findall(r"[a-z]+", text.lower())) for text in texts)
    return len(asked & set().union(*rest))


# ---- the file


NO_OTHERS = {"gsm8k_share": 0, "hops_share": 0, "microworld_share": 0, "worked_share": 0}


def corpus_settings(tmp_path: Path, **changes: object) -> CorpusSettings:
    strategyqa = [
        {
            "qid": str(k),
            "question": f"Is {k} a number?",
            "answer": True,
            "decomposition": [f"What is {k}?", "Is #1 so?"],
        }
        for k in range(60)
    ]
    (tmp_path / "train.json").write_text(json.dumps(strategyqa))
    gsm8k = write_rows(tmp_path / "gsm8k.jsonl", ROWS)
    fields = {"count": 300, "gsm8k": gsm8k, "strategyqa": tmp_path / "train.json"} | changes
    return CorpusSettings(**fields)  # type: ignore[arg-type]


def test_a_corpus_is_what_training_reads_and_every_source_is_in_it(tmp_path: Path) -> None:
    written = write_corpus(tmp_path / "c.jsonl", corpus_settings(tmp_path))
    assert written.rows.total() == 300
    assert set(written.rows) == {"stories", "worked", "hops", "microworld", "gsm8k", "strategyqa"}
    assert written.rows["gsm8k"] > 60
    pairs, left_out = read_pairs(tmp_path / "c.jsonl", "S_D-T", "compact-1", None)
    assert len(pairs) == 300
    assert not left_out
    solved = next(pair for pair in pairs if not pair.messages)
    assert re.search(r"\? [\d. */+-]+ = [\d.]+\n.*\? .* = [\d.]+$", solved.completion, re.DOTALL)


def test_documents_teach_the_question_too(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c.jsonl", corpus_settings(tmp_path, document_share=0.5, worked_share=0))
    pairs, _ = read_pairs(tmp_path / "c.jsonl", "S_D-T", "compact-1", None)
    documents = [pair for pair in pairs if not pair.messages]
    assert 100 < len(documents) < 200
    assert all(pair.prompt == "Question:" and "\n1. " in pair.completion for pair in documents)


def test_a_part_of_every_source_is_in_other_words(tmp_path: Path) -> None:
    def asked(share: float) -> dict[str, set[str]]:
        made: dict[str, set[str]] = {}
        for row in itertools.islice(rows(corpus_settings(tmp_path, reworded_share=share)), 300):
            made.setdefault(row["task"], set()).add(row.get("question", row.get("prompt")))
        return made

    never, half = asked(0), asked(0.5)
    for task in ("stories", "worked"):
        assert 0.2 < len(half[task] - never[task]) / len(half[task]) < 0.8, task


def test_rows_that_ask_the_same_twice_or_ask_nothing_teach_nothing(tmp_path: Path) -> None:
    twice = "How much is it? ** 2+3=<<2+3=5>>5\nHow MUCH is it ? ** 5*2=<<5*2=10>>10\n#### 10"
    nothing = "Define a variable ** x\nHow much is it? ** 2+3=<<2+3=5>>5\n#### 5"
    bad = [
        {"question": f"What is the {name} of it?", "answer": text} for name, text in (("wob", twice), ("zib", nothing))
    ]
    settings = corpus_settings(tmp_path, gsm8k=write_rows(tmp_path / "g.jsonl", [*ROWS, *bad]), reworded_share=0)
    asked = " ".join(row["question"] for row in itertools.islice(rows(settings), 300) if row["task"] == "gsm8k")
    assert "shirt" in asked.lower() or "skirt" in asked.lower()
    assert not {"wob", "zib"} & set(asked.split())


def test_the_same_settings_write_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        write_corpus(tmp_path / name, corpus_settings(tmp_path))
    write_corpus(tmp_path / "c", corpus_settings(tmp_path, seed=1))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    questions = [{row.get("question", row.get("prompt")) for row in read_rows(tmp_path / name)} for name in "ac"]
    assert len(questions[0]) == 300
    assert len(questions[0] & questions[1]) < 0.3 * 300  # the real rows are in both


def test_held_out_strategyqa_questions_are_not_in_it(tmp_path: Path) -> None:
    settings = corpus_settings(tmp_path, strategyqa_share=0.5, gsm8k_share=0, hops_share=0, microworld_share=0)
    asked = {row["question"].casefold() for row in itertools.islice(rows(settings), 300) if row["task"] == "strategyqa"}
    numbers = {int(number) for question in asked for number in re.findall(r"\d+", question)}
    assert numbers == {k for k in range(60) if not is_held_out(f"Is {k} a number?")}
    assert len(numbers) < 60


def test_a_corpus_takes_the_place_of_a_corpus_and_of_nothing_else(tmp_path: Path) -> None:
    settings = corpus_settings(tmp_path)
    for mine in (settings.gsm8k, settings.strategyqa):
        assert mine is not None
        before = mine.read_bytes()
        with pytest.raises(InputError, match="it would be overwritten: give another file to write to"):
            write_corpus(mine, settings)
        assert mine.read_bytes() == before
    for _ in range(2):
        write_corpus(tmp_path / "c.jsonl", settings)


@pytest.mark.parametrize("document_share", [0, 1])
def test_a_row_like_a_test_question_is_left_out_and_counted(tmp_path: Path, document_share: float) -> None:
    settings = corpus_settings(tmp_path, gsm8k_share=0.4, document_share=document_share)
    tests = write_rows(tmp_path / "test.jsonl", [{"question": row["question"]} for row in ROWS[:2]])
    written = write_corpus(tmp_path / "c.jsonl", settings, [tests])
    assert written.leaks["gsm8k"] > 0
    assert written.rows.total() == 300
    said = (tmp_path / "c.jsonl").read_text("utf-8")
    assert not any(row["question"] in said for row in ROWS[:2])
    assert all(row["question"] in said for row in ROWS[2:])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gsm8k_share": 0.9}, "add up to 1.14"),
        ({"hops_share": -0.1}, "0 or more"),
        ({"reworded_share": 3}, "--reworded-share 3: a share is from 0 to 1"),
        ({"document_share": -2}, "--document-share -2: a share is from 0 to 1"),
        ({"gsm8k": Path("nowhere.jsonl")}, "nowhere.jsonl: cannot be read"),
        ({"strategyqa_share": 1.0, "count": 9000} | NO_OTHERS, "ask for fewer"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        write_corpus(tmp_path / "c.jsonl", corpus_settings(tmp_path, **changes))
    assert not (tmp_path / "c.jsonl").exists()
    assert not list(tmp_path.glob(".c*"))


def test_the_command_writes_the_file_and_says_what_is_in_it(tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    result = CliRunner().invoke(command, [str(out), "--count", "50", "--gsm8k-share", "0"])
    assert result.exit_code == 0
    assert f"{out}: 50 rows (" in result.output
    assert sum(1 for _ in read_rows(out)) == 50
    wrong = CliRunner().invoke(command, [str(out), "--hops-share", "2"])
    assert wrong.exit_code == 2
    assert "shares add up to" in wrong.output
