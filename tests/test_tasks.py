import json
import sys
from itertools import islice
from pathlib import Path

import pytest

from edgedc.errors import InputError, MissingExtra
from edgedc.tasks import TASKS, Example, Selection, find_task, load_examples

SOCRATIC = {
    "question": "Tom had 5 eggs and ate 2. Each is $3. What is the rest worth?",
    "answer": "How many are left? ** 5-2 = <<5-2=3>>3.\nWhat is the rest worth? ** 3*3 = $<<3*3=9>>9.\n#### 9",
}
PLAIN = {"question": "What is 600 + 600?", "answer": "600+600 = <<600+600=1200>>1200\n#### 1,200"}


def lines(path: Path, *rows: object) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def first_error(selection: Selection) -> str:
    """What is raised before anything comes out."""
    with pytest.raises(InputError) as caught:
        next(find_task(selection.task).load(selection))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_gsm8k_reads_socratic_and_plain_rows(tmp_path: Path) -> None:
    path = lines(tmp_path / "train.jsonl", SOCRATIC, "", PLAIN)
    socratic, plain = load_examples(Selection(task="gsm8k", data=path))
    assert socratic.question == SOCRATIC["question"]
    assert socratic.answer == "9"
    assert socratic.decomposition is not None
    assert socratic.decomposition.texts == ["How many are left?", "What is the rest worth?"]
    assert (plain.answer, plain.decomposition) == ("1200", None)
    assert socratic.id != plain.id


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": " ", "answer": "#### 1"}, "not empty"),
        ({"answer": "#### 1"}, "`question`"),
        ({"question": "How many?", "answer": "two"}, "####"),
        ({"question": "How many?", "answer": "#### two"}, "####"),
        ("{'question': 1}", "not JSON"),
        ("[1]", "JSON object"),
    ],
)
def test_a_bad_gsm8k_row_is_named_by_its_line(tmp_path: Path, row: object, said: str) -> None:
    path = lines(tmp_path / "bad.jsonl", PLAIN, row)
    with pytest.raises(InputError, match=r"bad\.jsonl:2: ") as caught:
        load_examples(Selection(task="gsm8k", data=path))
    assert said in str(caught.value)


@pytest.mark.parametrize("task", ["drop", "bamboogle", "strategyqa", "jsonl"])
def test_a_task_that_is_in_a_file_asks_for_it(task: str) -> None:
    assert f"{task} needs its file: give --data" in first_error(Selection(task=task, split="test"))


@pytest.mark.parametrize("task", ["gsm8k", "strategyqa", "jsonl"])
def test_a_missing_file_is_said_at_once(tmp_path: Path, task: str) -> None:
    path = str(tmp_path / "nothing.jsonl")
    assert path in first_error(Selection(task=task, data=path))
    assert str(tmp_path) in first_error(Selection(task=task, data=str(tmp_path)))  # a folder


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    path = lines(tmp_path / "train.jsonl", PLAIN, SOCRATIC, "broken")
    assert len(load_examples(Selection(task="gsm8k", data=path, limit=2))) == 2


def test_without_a_file_gsm8k_needs_the_hub_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # what an import finds where it is not installed
    with pytest.raises(MissingExtra, match=r"edgedc\[hub\]"):
        load_examples(Selection(task="gsm8k"))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The answer is: 1200", True),
        ("First 600.\nThe answer is: $1,200.00.", True),
        ("The answer is: **1,200 dollars**", True),
        ("The answer is: 600 + 600 = 1200", True),
        ("1200", True),
        ("The answer is: 1200%", True),
        ("The answer is: \\(\\$1{,}200\\)", True),
        ("The answer is: 1\\,200 or 1,\\!200", True),
        ("The answer is: 1\u202f200", True),
        ("The answer is: -1200", False),
        ("The answer is: -\\$1200", False),
        ("The answer is: -¥1200", False),
        ("The answer is: 1200.000,00", False),  # neither 1,200 nor its part
        ("The answer is: 1200e3", False),
        ("The answer is: 1200 or 1300", False),
        ("The answer is: 12000", False),
        ("The answer is: 1200.5", False),
        ("1200\nThe answer is: unknown", False),
        ("The answer is: x1200", False),
        ("", False),
    ],
)
def test_a_number_is_right_only_if_it_is_the_answer(text: str, right: bool) -> None:
    assert find_task("gsm8k").score(text, Example("1", "q", answer="1200")) is right


STRATEGY = {"qid": "a1", "question": "Is it?", "answer": True, "decomposition": ["Who is?", "Is #1 it?"]}


def test_strategyqa_keeps_references(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps([STRATEGY, {"question": "Was it?", "answer": False}]))
    first, second = load_examples(Selection(task="strategyqa", data=str(path)))
    assert (first.id, first.answer) == ("a1", "yes")
    assert first.decomposition is not None
    assert [s.needs for s in first.decomposition.subquestions] == [(), (1,)]
    assert (second.answer, second.decomposition) == ("no", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[\n{"question": "Is it?",\n', "train.json:3: not JSON"),
        ('{"question": "Is it?"}', "JSON list"),
        ('[{"question": "", "answer": true}]', "entry 1"),
        ('[{"question": "Is it?", "answer": "yes"}]', "true or false"),
        ('[{"question": "Is it?", "answer": true, "decomposition": "x"}]', "list of texts"),
        ("[" * 100_000, "not JSON"),
        ("\x00", "not JSON"),
    ],
)
def test_a_bad_strategyqa_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "train.json"
    path.write_text(text)
    assert said in first_error(Selection(task="strategyqa", data=str(path)))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The answer is: yes", True),
        ("The answer is: Yes, it is.", True),
        ("True", True),
        ("The answer is: no", False),
        ("The answer is: not sure", False),
        ("Maybe yes", False),
        ("", False),
    ],
)
def test_yes_and_no(text: str, right: bool) -> None:
    assert find_task("strategyqa").score(text, Example("1", "q", answer="yes")) is right


def test_jsonl_columns_are_named_by_flags(tmp_path: Path) -> None:
    rows = [
        {"q": "How many?", "ctx": "Two eggs.", "a": 2, "sub": ["A?", "B #1?"]},
        {"q": "Is it?", "a": True, "sub": "1. A?\n2. B #1?", "id": None},
        {"q": "And?", "a": None, "sub": None, "id": 77},
    ]
    chosen = Selection(
        task="jsonl",
        data=lines(tmp_path / "mine.jsonl", *rows),
        question_column="q",
        premise_column="ctx",
        answer_column="a",
        decomposition_column="sub",
    )
    first, second, third = load_examples(chosen)
    assert (first.id, second.id) == ("mine-1", "mine-2")  # a null is no id
    assert (first.question, first.premise, first.answer) == ("How many?", "Two eggs.", "2")
    assert first.decomposition == second.decomposition is not None
    assert (second.premise, second.answer) == ("", "yes")
    assert (third.id, third.answer, third.decomposition) == ("77", "", None)


def test_an_example_knows_its_task_and_split(tmp_path: Path) -> None:
    data = lines(tmp_path / "mine.jsonl", {"question": "A?"}, {"question": "B?", "split": "test"})
    first, second = load_examples(Selection(task="jsonl", data=data))
    assert (first.task, first.split) == ("jsonl", "train")
    assert second.split == "test"  # what the row says of itself goes before what the flag says
    (made,) = load_examples(Selection(split="heldout", limit=1))
    assert (made.task, made.split) == ("microworld", "heldout")


def test_jsonl_says_which_columns_there_are(tmp_path: Path) -> None:
    path = lines(tmp_path / "mine.jsonl", {"q": "How many?", "a": 2}, {"q": "And?", "more": 3})
    said = first_error(Selection(task="jsonl", data=path))
    assert said.startswith(f"{path}:1: no column 'question'")
    assert "'q', 'a'" in said
    assert "--question-column" in said
    said = first_error(Selection(task="jsonl", data=path, question_column="q", answer_column="gold", limit=1))
    assert "'gold' (--answer-column)" in said
    assert "'q', 'a', 'more'" in said
    assert len(load_examples(Selection(task="jsonl", data=path, question_column="q", answer_column="a"))) == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "  "}, "empty"),
        ({"question": None}, "empty"),
        ({"question": ["a"]}, "holds a list"),
        ({"question": "a?", "decomposition": "I cannot."}, "no subquestions can be read"),
        ({"question": "a?", "decomposition": ["Who?", 1]}, "no subquestions can be read"),
    ],
)
def test_a_bad_jsonl_row_is_named_by_its_line(tmp_path: Path, row: object, said: str) -> None:
    path = lines(tmp_path / "mine.jsonl", {"question": "fine?"}, row)
    with pytest.raises(InputError, match=r"mine\.jsonl:2: ") as caught:
        load_examples(Selection(task="jsonl", data=path))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("The answer is: the Eiffel Tower.", "Eiffel tower", True),
        ("The answer is: 1,200 eggs", "1200", True),
        ("The answer is: Eiffel", "Eiffel tower", False),
        ("The answer is: -5", "5", False),
        ("The answer is: -$5", "5", False),
        ("The answer is: 1/2", "1.2", False),
        ("The answer is: ½", "1/2", True),
        ("The answer is: .5", "5", False),
        ("The answer is: 5 June", "5 May", False),
        ("The answer is: Gemini 11", "Apollo 11", False),
        ("The answer is: It was Apollo 11.", "Apollo 11", True),
        ("The answer is: 1990–1995", "1990-1995", True),
        ("The answer is: $18", "18 dollars", True),
        ("The answer is: \\boxed{18}", "18 dollars", True),
        ("The answer is: \\(\\boxed{18 \\text{ dollars}}\\)", "18 dollars", True),
        ("The answer is: $\\boxed{\\text{Eiffel Tower}}$.", "Eiffel tower", True),
        ("The answer is: \\boxed{No}", "no", True),
        ("The answer is: Yes, it is.", "yes", True),  # what `true` in the file has become
        ("The answer is: False", "No", True),
        ("The answer is: No", "yes", False),
        ("The answer is: ", "", False),
        ("anything", "", False),
    ],
)
def test_jsonl_answers_are_texts_or_numbers(text: str, answer: str, right: bool) -> None:
    assert find_task("jsonl").score(text, Example("1", "q", answer=answer)) is right


def test_every_task_loads_beside_its_score() -> None:
    for name in TASKS:
        task = find_task(name)
        assert callable(task.load)
        assert callable(task.score)
    with pytest.raises(InputError, match="microworld, gsm8k, drop, bamboogle, strategyqa, jsonl"):
        find_task("gsm9k")


def test_an_empty_file_has_no_questions(tmp_path: Path) -> None:
    path = lines(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="no questions"):
        load_examples(Selection(task="jsonl", data=path))


def test_all_of_gsm8k(data_folder: Path) -> None:
    path = data_folder / "gsm8k" / "train_socratic.jsonl"
    examples = load_examples(Selection(task="gsm8k", data=str(path)))
    counts = [len(e.decomposition.subquestions) for e in examples if e.decomposition]
    assert len(examples) == len({e.id for e in examples}) == 7473
    assert sum(counts) / len(examples) == pytest.approx(3.58, abs=0.005)
    score = find_task("gsm8k").score
    assert all(score(f"So {e.answer} it is.\nThe answer is: ${e.answer}.", e) for e in examples)
    assert not any(score(f"The answer is: 1{e.answer.removeprefix('-')}", e) for e in islice(examples, 500))


def test_all_of_strategyqa(data_folder: Path) -> None:
    path = data_folder / "strategyqa" / "train.json"
    examples = load_examples(Selection(task="strategyqa", data=str(path)))
    assert len(examples) == 2061
    assert all(e.decomposition and e.answer in ("yes", "no") for e in examples)
    assert examples[0].decomposition is not None
    assert examples[0].decomposition.subquestions[2].needs == (1, 2)
