import json
import random
import re
import time
from pathlib import Path

import pytest
from conftest import write_rows

from edgedc.errors import InputError
from edgedc.tasks.microworld import problems
from train.sets.fingerprints import write_fingerprints
from train.sets.leaks import SHIPPED, check_leaks, find_leaks, held_out_in, held_out_of, read_held_out
from train.sets.pairs import Pair

STAMPS = (
    "Max bought stamps at the post office. Some of the stamps had a snowflake design, some had a truck design, and "
    "some had a rose design. Max bought 16 snowflake stamps. He bought 3 more truck stamps than snowflake stamps, and "
    "9 fewer rose stamps than truck stamps. How many stamps did Max buy in all?"
)
FOUNDED = "Who was president of the United States in the year that Citibank was founded?"
HOLES = str.maketrans({".": " ...", ",": "", "?": "!!"})


def pairs_of(*questions: str, split: str = "train") -> list[Pair]:
    return [Pair(f"q{k}", text, "", [], "", line=k, split=split) for k, text in enumerate(questions, start=1)]


KNOWN = [held_out_of("test.jsonl:7", STAMPS), held_out_of("test.jsonl:8", FOUNDED)]


@pytest.mark.parametrize(
    ("question", "how"),
    [
        (STAMPS, "the same words"),
        ("  " + STAMPS.upper().translate(HOLES).replace(" ", "\n "), "the same words"),
        (FOUNDED.lower(), "the same words"),
        (re.sub(r"\d+", lambda number: f"{int(number[0]) * 137:,}", STAMPS), "100% of its 4-word runs"),
        (STAMPS.replace("3 more", "three more"), "100% of its 4-word runs"),
        (STAMPS.replace("Max", "Philippa"), "4-word runs"),
        (f"Read this first. {STAMPS} Show your work.", "100% of its 4-word runs"),
    ],
)
def test_a_planted_question_is_found(question: str, how: str) -> None:
    (leak,) = find_leaks(pairs_of("How many eggs do 3 hens lay?", question), KNOWN)
    assert str(leak).startswith("line 2 (q2) is test.jsonl:")
    assert how in str(leak)
    assert leak.test is not None
    assert leak.test.text[:120] in str(leak)


@pytest.mark.parametrize(
    "text",
    [
        "小明有30个苹果，又买了15个苹果，一共有几个苹果？",
        "りんごが3個あります。さらに5個買いました。全部で何個ですか。",
        "แม่ซื้อส้มมา 12 ผลแล้วให้น้องไป 5 ผลเหลือส้มกี่ผล",
    ],
)
def test_a_question_without_spaces_between_words_is_found_in_a_template_and_with_other_numbers(text: str) -> None:
    known = [held_out_of("test", text)]
    found = find_leaks(pairs_of(f"問: {text} (3)", re.sub(r"\d+", "77 ", text), "小明有一本书。", "りんご"), known)
    assert [leak.pair.line for leak in found] == [1, 2]


def test_phrases_of_the_trade_are_no_leak() -> None:
    rows = pairs_of(
        "Max bought stamps at the post office. How many stamps did he buy in all?",
        "Who was president of the United States?",
        "How many more truck stamps than rose stamps did Max buy at the post office?",
        "",
    )
    assert list(find_leaks(rows, KNOWN)) == []


@pytest.mark.parametrize(
    ("words", "shared", "found"),
    [(9, 6, False), (9, 7, True), (6, 5, False), (6, 6, True), (5, 4, False), (5, 5, True)],
)
def test_more_than_half_of_the_runs_is_a_leak_and_of_few_at_least_three(words: int, shared: int, found: bool) -> None:
    """Of 9 words, which are 6 runs, 3 are too few and 4 enough; of 3 runs, or 2, it takes all."""
    said = ["who", "sold", "nine", "red", "kites", "before", "noon", "on", "Sunday"][:words]
    row = f"{' '.join(said[:shared])}, and whatever became of him?"
    assert bool(list(find_leaks(pairs_of(row), [held_out_of("test", " ".join(said))]))) is found


def test_the_test_question_that_is_named_is_the_one_most_like_the_row() -> None:
    near = held_out_of("test.jsonl:9", STAMPS.replace("in all", "for his aunt in Leeds"))
    (leak,) = find_leaks(pairs_of(f"{near.text} Show your work."), [KNOWN[0], near, KNOWN[1]])
    assert leak.test is near
    assert leak.how.startswith("100%")


def test_a_premise_and_a_document_count_too() -> None:
    passage = held_out_of("passage", "In 1812 Citibank was founded in New York. Who was president then?")
    asked = Pair("a", "Who was president then?", "In 1812 Citibank was founded in New York.", [], "", line=1)
    alone = Pair("b", "Who was president then?", "", [], "", line=2)
    document = Pair("c", "", "", [], "Yes.", prompt=f"<|user|>\n{STAMPS}<|end|>", line=3)
    learnt = Pair("d", "", "", [], f" {STAMPS}\n1. How many truck stamps did Max buy?", prompt="Question:", line=4)
    found = find_leaks([asked, alone, document, learnt], [passage, *KNOWN])
    assert [leak.pair.line for leak in found] == [1, 3, 4]


@pytest.mark.parametrize("split", ["test", "Dev", "validation", "heldout"])
def test_a_row_of_another_split_is_refused_by_its_own_word(split: str) -> None:
    with pytest.raises(InputError, match=rf"line 1 \(q1\) is of split '{split}' by its own word"):
        check_leaks(Path("rows.jsonl"), pairs_of("How many?", split=split), [])


def test_the_error_names_rows_tests_and_the_mend() -> None:
    rows = pairs_of("How many eggs?", STAMPS, FOUNDED, FOUNDED, FOUNDED)
    with pytest.raises(InputError) as caught:
        check_leaks(Path("rows.jsonl"), rows, KNOWN)
    said = str(caught.value)
    assert said.startswith("rows.jsonl: 4 of 5 rows are in a test split: line 2 (q2) is test.jsonl:7 'Max bought")
    assert "line 3 (q3) is test.jsonl:8" in said
    assert "and 1 more: leave them out with --exclude-leaks" in said
    assert "\n" not in said


def test_leaks_can_be_left_out() -> None:
    rows = pairs_of("How many eggs?", STAMPS, FOUNDED)
    kept, leaks = check_leaks(Path("rows.jsonl"), rows, KNOWN, exclude=True)
    assert ([pair.line for pair in kept], [leak.pair.line for leak in leaks]) == ([1], [2, 3])
    assert check_leaks(Path("rows.jsonl"), rows[:1], KNOWN) == (rows[:1], [])
    with pytest.raises(InputError, match=r"every row is in a test split \(line 2"):
        check_leaks(Path("rows.jsonl"), rows[1:], KNOWN, exclude=True)


def test_of_a_generated_task_only_all_words_count(tmp_path: Path) -> None:
    """Its splits share their phrasings by design, and never a question."""
    test = list(problems("test", 300))
    rows = [{"question": p.question, "task": "microworld"} for p in test]
    known = read_held_out(write_rows(tmp_path / "test.jsonl", rows))
    train = [p.question for p in problems("train", 3000)]
    assert list(find_leaks(pairs_of(*train), known)) == []
    assert len(list(find_leaks(pairs_of(*train, test[5].question.lower()), known))) == 1


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("test.jsonl", json.dumps({"question": STAMPS, "answer": "#### 45"}), ":1"),
        ("test.jsonl", "\n" + json.dumps({"problem": STAMPS}), ":2"),
        ("test.json", json.dumps([{"Question": STAMPS}]), ", entry 1"),
        ("test.csv", f'question_id,question_text\n1,"{STAMPS}"\n', ", row 1"),
        ("drop.json", json.dumps({"nfl_1": {"passage": "", "qa_pairs": [{"question": STAMPS}]}}), ", entry 1"),
    ],
)
def test_test_files_of_all_tasks_are_read(tmp_path: Path, name: str, text: str, place: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    (known,) = read_held_out(path)
    assert (known.place, known.text) == (f"{path}{place}", STAMPS)
    assert len(list(find_leaks(pairs_of(STAMPS), [known]))) == 1


def test_the_passage_of_a_test_question_is_part_of_it(tmp_path: Path) -> None:
    row = {"premise": "In 1812 Citibank was founded in New York.", "question": "Who was president then?"}
    (known,) = read_held_out(write_rows(tmp_path / "test.jsonl", [row]))
    assert known.text == f"{row['premise']} {row['question']}"
    assert list(find_leaks(pairs_of(row["question"]), [known])) == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("test.jsonl", '{"answer": 1}', "test.jsonl:1: no question"),
        ("test.jsonl", '{"question": " "}', "test.jsonl:1: no question"),
        ("test.json", "[1]", "entry 1: a list of JSON objects"),
        ("test.json", "{", "not JSON"),
        ("drop.json", '{"nfl_1": {"passage": "", "qa_pairs": ["Who?"]}}', "entry 1: a list of JSON objects"),
        ("drop.json", '{"nfl_1": {"passage": "They played.", "qa_pairs": [{}]}}', "entry 1: no question"),
        ("drop.json", '{"nfl_1": {"passage": "They played.", "qa_pairs": 5}}', "entry 1: no question"),
        ("test.csv", "question_id\n1\n", "row 1: no question"),
        ("test.csv", f'question\n"{"word " * 30_000}"\n', "test.csv: not CSV: field larger than"),
        ("test.jsonl", "", "no questions in it"),
        ("gone.csv", None, "cannot be read"),
    ],
)
def test_a_bad_test_file_is_one_line(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=re.escape(said)):
        held_out_in([path])


def test_public_test_questions_are_known_without_a_file() -> None:
    (leak,) = find_leaks(pairs_of("How many eggs?", FOUNDED.upper()), held_out_in([]))
    assert str(leak) == "line 2 (q2) is question 1 of bamboogle test (the same words)"
    assert SHIPPED.stat().st_size < 128_000


def test_the_fingerprints_are_those_of_the_data(data_folder: Path, tmp_path: Path) -> None:
    sets = {
        "gsm8k test (first 660 of 1,319)": data_folder / "gsm8k" / "test_socratic_first660.jsonl",
        "bamboogle test": data_folder / "bamboogle" / "bamboogle.json",
    }
    write_fingerprints(tmp_path / "made.json", sets)
    assert (tmp_path / "made.json").read_bytes() == SHIPPED.read_bytes()


def questions(path: Path) -> list[str]:
    return [json.loads(line)["question"] for line in path.read_text("utf-8").splitlines()]


def test_of_gsm8k_only_real_twins_are_found(data_folder: Path) -> None:
    train = questions(data_folder / "gsm8k" / "train_socratic.jsonl")
    test = read_held_out(data_folder / "gsm8k" / "test_socratic_first660.jsonl")
    found = [(leak.pair.line, str(leak.test and leak.test.text)) for leak in find_leaks(pairs_of(*train), test)]
    assert [line for line, _ in found] == [21, 1315, 5163]
    assert found[0][1] == STAMPS
    assert found[1][1] == found[2][1]
    assert found[1][1].startswith("A plane travels 1200 miles in 3 hours.")


def test_every_planted_gsm8k_question_is_found(data_folder: Path) -> None:
    known = read_held_out(data_folder / "gsm8k" / "test_socratic_first660.jsonl")
    rng = random.Random(0)
    for plant in (
        lambda text: text,
        lambda text: f" {text.upper().translate(HOLES)} ",
        lambda text: re.sub(r"\d+", lambda _: str(rng.randint(2, 9999)), text),
    ):
        found = {leak.pair.line: leak.test for leak in find_leaks(pairs_of(*(plant(one.text) for one in known)), known)}
        assert [found.get(line) for line in range(1, 661)] == known


def test_time_grows_with_the_text_alone() -> None:
    """The rows of a set hold different words, as real ones do; four times the rows take about four times as long."""
    rng = random.Random(0)
    words = [f"w{k}" for k in range(5000)]
    rows = pairs_of(*(" ".join(rng.choices(words, k=45)) for _ in range(8000)))
    known = held_out_in([])

    def seconds(count: int) -> float:
        started = time.process_time()
        assert list(find_leaks(rows[:count], known)) == []
        return time.process_time() - started

    seconds(500)
    assert seconds(8000) < 12 * seconds(2000)


def test_questions_made_from_a_template_do_not_each_meet_each() -> None:
    """Ten times the test questions take hardly longer, as they are alike but for their numbers."""
    text = STAMPS.replace("16", "{}").replace(" 3 ", " {} ").replace(" 9 ", " {} ")
    texts = [text.format(k, k + 1, k + 2) for k in range(3000)]
    rows = pairs_of(*(f"{text} Show your work." for text in texts[:300]))

    def seconds(count: int) -> float:
        known = [held_out_of(f"test.jsonl:{k}", text) for k, text in enumerate(texts[:count])]
        started = time.process_time()
        assert len(list(find_leaks(rows, known))) == 300
        return time.process_time() - started

    seconds(300)
    assert seconds(3000) < 4 * seconds(300)
