import json
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgedc.decomposition import (
    NOT_NEEDED,
    Decomposition,
    Subquestion,
    decomposition_of,
    fill,
    parse,
    render,
)

# Any string that Python can hold, lone surrogates too: a server may send them as \ud800.
ANY_TEXT = st.text(st.characters(), max_size=60)
# Text made of the pieces that the parser looks for, in all orders.
PIECES = [
    "1.",
    "1. ",
    "2) ",
    "(3) ",
    "Q1:",
    "Q1: ",
    "Subquestion 2: ",
    "- ",
    "* ",
    "**",
    "\n",
    "\n\n",
    " ",
    "?",
    "#1",
    "a",
    "How many?",
]
PIECES += [
    "```json\n",
    "```",
    "[",
    "]",
    "{",
    "}",
    '"',
    ",",
    ": ",
    "\\",
    "<think>",
    "</think>",
    NOT_NEEDED,
    " because",
    "１．",
    "（2）",
    "？",
    "\r\n",
]
LIST_LIKE = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@given(st.lists(ANY_TEXT | LIST_LIKE, max_size=6))
@example(["Is it 1. this or 2. that?"])
@example(["No decomposition"])
@example(["No decomposition because 1. x 2. y"])
@example(["1. a </think> 2. b"])
@example(["1. \ud800\udc00 2. b"])
@example(["**bold**", "** **", "****", "*****"])
@example(["1. 1. a", "2. b"])
@settings(deadline=None, max_examples=400)
def test_what_is_rendered_is_read_back(texts: list[str]) -> None:
    made = decomposition_of(texts)
    assert parse(render(made)) == made
    assert decomposition_of(made.texts) == made


@given(ANY_TEXT | LIST_LIKE)
@settings(deadline=None, max_examples=1000)
def test_any_text_is_read_without_error_kept_word_for_word_and_read_back(text: str) -> None:
    read = parse(text)
    assert read.raw == text
    assert (read.status == "decomposed") == bool(read.subquestions)
    assert all(line == " ".join(line.split()) != "" for line in read.texts)
    assert parse(render(read)) == read


QUESTIONS = ["How many eggs are left?", "What do #1 eggs cost?"]


@pytest.mark.parametrize(
    "text",
    [
        "1. How many eggs are left?\n2. What do #1 eggs cost?",
        "1. How many eggs are left?\n2. What do #1 eggs cost?\n",
        "1. How many eggs are left?\r\n2. What do #1 eggs cost?\r\n",
        "1.How many eggs are left?\n2.What do #1 eggs cost?",
        "1) How many eggs are left?\n2) What do #1 eggs cost?",
        "(1) How many eggs are left?\n(2) What do #1 eggs cost?",
        "  1. How many eggs are left?\n\n  2. What do #1 eggs cost?",
        "- How many eggs are left?\n- What do #1 eggs cost?",
        "* How many eggs are left?\n* What do #1 eggs cost?",
        "• How many eggs are left?\n• What do #1 eggs cost?",
        "Q1: How many eggs are left?\nQ2: What do #1 eggs cost?",
        "Q1: Q1: How many eggs are left?\nQ2: What do #1 eggs cost?",
        "- Q1: How many eggs are left?\n- Q2: What do #1 eggs cost?",
        "Subquestion 1: How many eggs are left?\nSubquestion 2: What do #1 eggs cost?",
        "Sub-question #1: How many eggs are left?\nSub-question #2: What do #1 eggs cost?",
        "Step 1 - How many eggs are left?\nStep 2 - What do #1 eggs cost?",
        "**1.** How many eggs are left?\n**2.** What do #1 eggs cost?",
        "**1. How many eggs are left?**\n**2. What do #1 eggs cost?**",
        "1. **How many eggs are left?**\n2. **What do #1 eggs cost?**",
        "**Q1:** How many eggs are left?\n**Q2:** What do #1 eggs cost?",
        "### 1. How many eggs are left?\n### 2. What do #1 eggs cost?",
        "> 1. How many eggs are left?\n> 2. What do #1 eggs cost?",
        '["How many eggs are left?", "What do #1 eggs cost?"]',
        '{"subquestions": ["How many eggs are left?", "What do #1 eggs cost?"]}',
        '[{"id": "1", "question": "How many eggs are left?"}, {"id": "2", "question": "What do #1 eggs cost?"}]',
        '{"Q1": "How many eggs are left?", "Q2": "What do #1 eggs cost?"}',
        'Sure!\n```json\n["How many eggs are left?", "What do #1 eggs cost?"]\n```\nI hope that helps.',
        'Here they are: ["How many eggs are left?", "What do #1 eggs cost?"]',
        "1. How many eggs are left? 2. What do #1 eggs cost?",
        "Q1: How many eggs are left? Q2: What do #1 eggs cost?",
        "The subquestions are: (1) How many eggs are left? (2) What do #1 eggs cost?",
        "How many eggs are left?\nWhat do #1 eggs cost?",
        "How many eggs are left? What do #1 eggs cost?",
        "To answer this, we ask:\n1. How many eggs are left?\n2. What do #1 eggs cost?",
        "**Subquestions:**\n\n1. How many eggs are left?\n2. What do #1 eggs cost?",
        "1. How many eggs are left?\n2. What do #1 eggs cost?\n\nThese two are enough.",
        "1. How many eggs are left?\n2. What do #1 eggs cost?\nThese two are enough.",
        "1. How many eggs\n   are left?\n2. What do #1 eggs cost?",
        "1. How many eggs are left?\n   - she eats three\n2. What do #1 eggs cost?\n   - two dollars each",
        "<think>1. Hm? 2. Two steps?\n\n1. No</think>\n\n1. How many eggs are left?\n2. What do #1 eggs cost?",
        "so two steps are enough.\n</think>\n1. How many eggs are left?\n2. What do #1 eggs cost?",
        "１．How many eggs are left?\n２．What do #1 eggs cost?",
        "（１）How many eggs are left?\n（２）What do #1 eggs cost?",
    ],
)
def test_lists_as_models_write_them(text: str) -> None:
    read = parse(text)
    assert read.subquestions == (Subquestion(QUESTIONS[0]), Subquestion(QUESTIONS[1], (1,)))
    assert read.raw == text


def test_full_width_questions_end_at_their_own_mark() -> None:
    assert parse("剩下几个鸡蛋？卖了多少钱？").texts == ["剩下几个鸡蛋？", "卖了多少钱？"]


@pytest.mark.parametrize(
    "text",
    [
        "No decomposition",
        "No decomposition.",
        '"No decomposition"',
        "**No decomposition**",
        "no decomposition needed",
        "No decomposition is needed because the question is simple.",
        "No decomposition.\nThe question is simple.",
        "1. No decomposition",
        "- No decomposition needed.",
        '["No decomposition"]',
        "<think>Is it simple? Yes.</think>No decomposition",
    ],
)
def test_no_decomposition_is_a_result_of_its_own(text: str) -> None:
    assert parse(text) == Decomposition((), "not_needed")
    assert parse(text).raw == text
    assert render(parse(text)) == NOT_NEEDED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n ",
        "The answer is 5.",
        "[]",
        '{"subquestions": []}',
        '["How many eggs are left?", "What do',  # cut off by max_tokens
        "<think>1. How many?\n2. How much?",  # it never stopped thinking
        "[" * 20_000,
    ],
)
def test_what_holds_no_subquestion_is_unparsed(text: str) -> None:
    assert parse(text) == Decomposition((), "unparsed")
    assert render(parse(text)) == text


def test_times_and_decimals_are_not_marks() -> None:
    assert (
        parse("1. Is 10:30 before 1.5 hours from now?\n2.5 kg is how much?").texts[0].startswith("Is 10:30 before 1.5")
    )
    assert parse("What is 2**3?\nWhat is #1**2?").texts == ["What is 2**3?", "What is #1**2?"]
    assert parse("Is verse 5. before verse 7. in it?").texts == ["Is verse 5. before verse 7. in it?"]


def test_only_a_text_wholly_in_bold_loses_its_marks() -> None:
    assert decomposition_of(["**Who is it?**", "**Who** or **what**"]).texts == ["Who is it?", "**Who** or **what**"]


def test_what_stands_behind_a_blank_line_is_no_part_of_the_item_above() -> None:
    assert parse("1. Count the eggs\n2. Add\n   the hens\n\nThat is all.").texts == ["Count the eggs", "Add the hens"]


def test_only_earlier_subquestions_are_needed() -> None:
    texts = ["What is #2?", "Is #1 more than #2 or #3?", "Is #1 more than #2 and #10?"]
    assert [s.needs for s in decomposition_of(texts).subquestions] == [(), (1,), (1, 2)]


def test_references_are_filled_with_the_answers_that_are_there() -> None:
    third = decomposition_of(["A?", "B?", "Is #1 more than #2, #3 or #12?"]).subquestions[2]
    assert fill(third, ["4", "5"]) == "Is 4 more than 5, #3 or #12?"
    assert fill(third, ["4"]) == "Is 4 more than #2, #3 or #12?"


REPEATED = [
    " ",
    "1",
    "(",
    "（",
    "*",
    "?",
    "#",
    "[",
    "{",
    '["',
    '{"a":',
    "**",
    "1. ",
    "1.",
    "\n1. a",
    "\na",
    "\n- ",
    "Q1: ",
    "q",
]
REPEATED += [
    "\n",
    "\t",
    "# ",
    "* ",
    "> ",
    "``` ",
    "```",
    "<think>",
    "</think>",
    ": ",
    ":[",
    "sub question ",
    "a ",
    "no ",
    "１",
]
REPEATED += ["1 \n", "\u2028", "\x00", "- ", "**1", "No decomposition "]


@pytest.mark.parametrize("unit", REPEATED)
@pytest.mark.parametrize("prefix", ["", "\n", "1. a\n", "x"])
def test_time_grows_with_the_length_and_not_with_its_square(unit: str, prefix: str) -> None:
    def seconds(length: int) -> float:
        text = prefix + unit * (length // len(unit)) + "!"
        taken = []
        for _ in range(3):  # the least of them: a collection of this process's garbage alone takes half a second
            start = time.process_time()
            parse(text)
            taken.append(time.process_time() - start)
        return min(taken)

    # A quadratic reader takes 16 times as long, and seconds for the long text; the allowance is for a busy machine.
    assert seconds(20_000) <= 8 * seconds(5_000) + 0.3


@pytest.mark.parametrize("solver", ["chatgpt", "mistral"])
def test_recorded_decompositions_of_real_models(data_folder: Path, solver: str) -> None:
    path = data_folder / "replay" / solver / "eval_chat_first660.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    read = [parse(row["questions"]) for row in rows]
    assert len(rows) == 660
    assert sum(r.status == "decomposed" for r in read) >= 0.99 * len(read)
    assert all(r.raw == row["questions"] for r, row in zip(read, rows, strict=True))
    # These rows have one `Qn:` a line: an independent count of the subquestions.
    assert [len(r.subquestions) for r in read] == [len(row["questions"].strip().splitlines()) for row in rows]
    assert not any(text.lower().startswith(("q1", "q2", "q3")) for r in read for text in r.texts)
    assert read[0].texts[0] == "How many eggs does Janet eat for breakfast every morning?"
    assert read[0].texts[-1] == "How much in dollars does Janet make every day at the farmers' market?"
