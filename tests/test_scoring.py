"""DROP's official measure, Bamboogle, and the matching of the paper's released code."""

import json
from pathlib import Path

import pytest

from edgedc.errors import InputError
from edgedc.tasks import Example, Selection, find_task, load_examples
from edgedc.tasks.drop import f1

DROP, GSM8K, BAMBOOGLE = find_task("drop"), find_task("gsm8k"), find_task("bamboogle")


def drop(*answers: tuple[str, ...]) -> Example:
    return Example("1", "q", answer=" and ".join(answers[0]), answers=answers)


@pytest.mark.parametrize(
    ("spans", "gold", "score"),
    [
        # by hand, from the definition: bags of words, aligned one to one, over the larger number of spans
        (["the Bears"], ["Bears"], 1.0),  # articles and case do not count
        (["Chicago Bears"], ["Bears"], 0.67),  # P 1/2, R 1
        (["Bears", "Lions"], ["Lions", "Bears"], 1.0),  # in any order
        (["Bears"], ["Bears", "Lions"], 0.5),  # one of two
        (["Bears", "Lions"], ["Bears"], 0.5),  # one too many
        (["Chicago Bears", "Lions"], ["Lions", "Bears"], 0.83),  # (2/3 + 1) / 2
        (["12"], ["12"], 1.0),
        (["12.0"], ["12"], 1.0),  # numbers are compared as floats
        (["1,200"], ["1200"], 1.0),  # punctuation goes, unless it is a number with it
        (["12 yards"], ["13 yards"], 0.0),  # a wrong number is worth nothing, whatever else agrees
        (["yards"], ["13 yards"], 0.0),
        (["12 yards"], ["12-yard"], 0.5),  # hyphens part words: {12, yard} and {12, yards}
        (["12 or 13 yards"], ["13 yards"], 0.67),  # {12, or, 13, yards}: P 1/2, R 1
        (["a b c"], ["d"], 0.0),
        ([""], ["Bears"], 0.0),
        (["x y", "y"], ["y", "x"], 0.83),  # the best alignment, not the first
    ],
)
def test_f1_is_the_official_one(spans: list[str], gold: list[str], score: float) -> None:
    assert f1(spans, gold) == score


def test_the_best_annotator_counts() -> None:
    example = drop(("four",), ("4",), ("Bears", "Lions"))
    assert DROP.grade("The answer is: 4.", example) == 1.0
    assert DROP.score("The answer is: 4.", example)
    assert DROP.grade("The answer is: Lions and the Bears", example) == 1.0
    assert DROP.score("The answer is: the Lions, Bears", example)
    assert DROP.grade("The answer is: Lions", example) == 0.5
    assert DROP.score("The answer is: \\(\\boxed{50.6}\\)", drop(("50.6",)))
    assert DROP.grade("The answer is: \\boxed{\\text{Lions and Bears}}", example) == 1.0
    assert not DROP.score("The answer is: Lions", example)
    assert DROP.grade("I do not know.", example) == 0.0


def test_a_line_is_parted_only_where_several_spans_are_wanted() -> None:
    one = drop(("June 5, 1990",))
    assert DROP.score("The answer is: 5 June 1990", one) is False  # an exact match has the order of the words
    assert DROP.grade("The answer is: 5 June 1990", one) == 1.0
    assert DROP.score("The answer is: June 5, 1990", one)
    several = drop(("5,734", "4,432"))
    assert DROP.score("The answer is: 4,432 and 5,734", several)
    assert DROP.score("The answer is: 5,734, 4,432", several)


def test_the_official_file_is_read_with_all_annotators(tmp_path: Path) -> None:
    empty = {"number": "", "date": {"day": "", "month": "", "year": ""}, "spans": []}
    pairs = [
        {
            "question": "How many?",
            "query_id": "q1",
            "answer": empty | {"number": "3"},
            "validated_answers": {},
        },
        {
            "question": "When?",
            "query_id": "q2",
            "answer": empty | {"date": {"day": "5", "month": "June", "year": "1990"}},
            "validated_answers": [
                empty | {"spans": ["June", "July"]},
                empty,
                empty | {"date": {"day": "", "month": "", "year": "1990"}},
            ],
        },
    ]
    path = tmp_path / "drop_dataset_dev.json"
    path.write_text(json.dumps({"nfl_1": {"passage": "They played.", "qa_pairs": pairs}}))
    first, second = load_examples(Selection("drop", str(path), "test"))
    assert (first.id, first.premise, first.answers) == ("q1", "They played.", (("3",),))
    assert second.answers == (("5 June 1990",), ("June", "July"), ("1990",))
    assert DROP.score("The answer is: July and June", second)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"p": {"passage": "x"}}', "qa_pairs"),
        ('{"p": {"passage": "x", "qa_pairs": [{"question": "How?"}]}}', "question 1"),
        ('{"p": {"passage": "x", "qa_pairs": [{"question": "How?", "answer": {"spans": []}}]}}', "no annotator"),
        ('{"p": {"passage": "x", "qa_pairs": [{"question": "How?", "answer": {}}]}}', "`number`"),
        ("[]", "JSON object"),
    ],
)
def test_a_bad_official_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "drop.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"drop\.json") as caught:
        load_examples(Selection("drop", str(path)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_row_of_drop_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "drop.jsonl"
    good = {"context": "Passage: Two eggs.\nQuestion: How many?\nAnswer:", "ref_text": "2|two"}
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | {"context": "How many?"}) + "\n")
    (example,) = load_examples(Selection("drop", str(path), limit=1))
    assert (example.premise, example.question) == ("Two eggs.", "How many?")
    assert example.answers == (("2",), ("two",))
    with pytest.raises(InputError, match=r"drop\.jsonl:2: "):
        load_examples(Selection("drop", str(path)))
    with pytest.raises(InputError, match="--data"):
        load_examples(Selection("drop"))


def test_all_of_drops_sample_answers_itself(data_folder: Path) -> None:
    examples = load_examples(Selection("drop", str(data_folder / "drop" / "drop_dev_sample400.jsonl"), "test"))
    assert len(examples) == len({example.id for example in examples}) == 400
    for example in examples:
        assert DROP.score(f"So.\nThe answer is: {example.answer}.", example), example.id
        assert DROP.grade(f"The answer is: {example.answer}", example) == 1.0, example.id
        assert DROP.grade("The answer is: zzz", example) == 0.0, example.id


def test_bamboogle_is_a_test_set(tmp_path: Path, data_folder: Path) -> None:
    path = str(data_folder / "bamboogle" / "bamboogle.json")
    examples = load_examples(Selection("bamboogle", path, "test"))
    assert len(examples) == 125
    assert all(BAMBOOGLE.score(f"The answer is: {example.answer}.", example) for example in examples)
    assert not any(BAMBOOGLE.score(f"{one.answer}. The answer is: another", one) for one in examples)
    assert BAMBOOGLE.score("The answer is: 1,812", Example("1", "q", answer="1812", answers=(("1812",),)))
    with pytest.raises(InputError, match="--split test"):
        load_examples(Selection("bamboogle", path, "train"))
    wrong = tmp_path / "b.json"
    wrong.write_text('[{"Question": "Who?", "answer": []}]')
    with pytest.raises(InputError, match="entry 1"):
        load_examples(Selection("bamboogle", str(wrong), "test"))


@pytest.mark.parametrize(
    ("text", "answer", "paper", "strict"),
    [
        ("The answer is: 18", "18", 1, True),
        ("He has 18 eggs. The answer is: 20", "18", 1, False),  # any word of the whole text
        ("The answer is: 18.75", "18", 1, False),  # decimals are cut
        ("The answer is: **18**", "18", 0, True),  # bold is not read
        ("The answer is: $1,080.", "1080", 1, True),
        ("The answer is: 18%", "18", 0, True),
        ("The answer is: 2.5", "2.5", 0, True),  # there the published code raises
    ],
)
def test_the_papers_matching_of_gsm8k_is_reproduced(text: str, answer: str, paper: float, strict: bool) -> None:
    example = Example("1", "q", answer=answer)
    assert GSM8K.paper_grade is not None
    assert GSM8K.paper_grade(text, example) == paper
    assert GSM8K.score(text, example) is strict


def test_the_papers_matching_of_the_others_is_reproduced() -> None:
    who = Example("1", "q", answer="James Madison", answers=(("James Madison",),))
    assert BAMBOOGLE.paper_grade is not None
    assert DROP.paper_grade is not None
    assert BAMBOOGLE.paper_grade('The answer is: "james madison", I think', who) == 1
    assert BAMBOOGLE.paper_grade("James Madison. The answer is: Adams", who) == 0
    assert not BAMBOOGLE.score('The answer is: "james madison", I think', who)
    assert DROP.paper_grade("The Bears had 1,200 fans. The answer is: Lions", drop(("1200",))) == 1
    assert find_task("strategyqa").paper_grade is None  # the paper has no such task


def test_each_task_names_its_measure() -> None:
    assert [find_task(name).metric for name in ("gsm8k", "drop", "bamboogle", "strategyqa")] == [
        "exact match",
        "F1",
        "accuracy",
        "accuracy",
    ]
    assert find_task("strategyqa").grade("The answer is: yes", Example("1", "q", answer="yes")) == 1.0
