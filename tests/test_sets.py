import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import demonstrations, write_rows

from edgedc.bundle import Artifact, Manifest, write_manifest
from edgedc.cli import cli
from edgedc.decomposition import decomposition_of
from edgedc.errors import InputError
from edgedc.files import Row
from edgedc.methods import METHODS, Method
from edgedc.prompts import decompose_messages, final_answer, solve_messages
from train.sets.pairs import Pair, read_pairs, with_answer

SUBQUESTIONS = ["How many eggs are left?", "What are they worth?"]


def taught(question: str = "What is it worth?", draw: int = 0, **changes: object) -> Row:
    """A row as `edgedc teach` writes it, in what is read of it here."""
    return {
        "key": f"{question} {draw}",
        "id": "q1",
        "task": "gsm8k",
        "split": "train",
        "question": question,
        "premise": "",
        "answer": "9",
        "draw": draw,
        "status": "decomposed",
        "subquestions": SUBQUESTIONS,
        "over_cap": False,
        "outcome": "ok",
    } | changes


def screened(question: str = "What is it worth?", draw: int = 0, **changes: object) -> Row:
    """A row as `edgedc screen` writes it, in what is read of it here."""
    solution = "1. 3 eggs.\n2. $8.\nThe answer is: 8"
    row = taught(question, draw, solver="big", solution=solution, final="8", verdict=False, finish_reason="stop")
    del row["outcome"], row["over_cap"]
    return row | changes


def read(tmp_path: Path, method: Method, *rows: Row, cap: int | None = 5) -> tuple[list[Pair], Counter[str]]:
    return read_pairs(write_rows(tmp_path / "rows.jsonl", list(rows)), method, "compact-1", cap)


def test_s_d_t_takes_the_first_usable_draw_of_each_question(tmp_path: Path) -> None:
    pairs, left_out = read(
        tmp_path,
        "S_D-T",
        taught("A?", 2, subquestions=["third"]),
        taught("A?", 0, outcome="truncated", status="unparsed", subquestions=[]),
        taught("B?", 0, status="not_needed", subquestions=[]),
        taught("A?", 1, subquestions=["second"]),
        taught("C?", 0, outcome="refused", status="unparsed", subquestions=[]),
        taught("D?", 0, outcome="over_cap", over_cap=True),
        taught("A?", 0, premise="Another text.", subquestions=["Of this text?"]),
    )
    assert [(p.question, p.premise, p.completion) for p in pairs] == [
        ("A?", "", "1. second"),
        ("A?", "Another text.", "1. Of this text?"),
        ("B?", "", "No decomposition"),
    ]
    assert pairs[0].messages == decompose_messages("A?", style="compact-1", cap=5)
    assert (pairs[0].id, pairs[0].line, pairs[0].split) == ("q1", 4, "train")
    assert left_out == {"truncated": 1, "refused": 1, "over_cap": 1, "another draw of the same question": 1}


def test_a_decomposition_longer_than_the_students_cap_is_not_trained_on(tmp_path: Path) -> None:
    rows = taught("A?"), taught("B?", subquestions=["only"])
    pairs, left_out = read(tmp_path, "S_D-T", *rows, cap=1)
    assert [p.question for p in pairs] == ["B?"]
    assert left_out == {"over the student's cap": 1}
    assert len(read(tmp_path, "S_D-T", *rows, cap=None)[0]) == 2


def test_s_d_r_takes_the_draw_that_passed(tmp_path: Path) -> None:
    pairs, left_out = read(
        tmp_path,
        "S_D-R",
        screened("A?", 0, subquestions=["bad"]),
        screened("A?", 1, subquestions=["good"], verdict=True),
        screened("B?", 0),
    )
    assert [(p.question, p.completion) for p in pairs] == [("A?", "1. good")]
    assert left_out == {"rejected by the screen": 2}


def test_s_e_t_learns_the_solvers_words_right_or_wrong(tmp_path: Path) -> None:
    alone = screened("B?", status="not_needed", subquestions=[], solution="Nine.\nThe answer is: 9", verdict=True)
    first, second = read(tmp_path, "S_E-T", screened("A?"), screened("A?", 1, verdict=True), alone)[0]
    given = decomposition_of(SUBQUESTIONS)
    assert first.messages == solve_messages("A?", mode="static", decomposition=given)
    assert first.completion == "1. 3 eggs.\n2. $8.\nThe answer is: 8"  # draw 0, although draw 1 passed
    assert second.messages == solve_messages("B?", mode="cot")


@pytest.mark.parametrize("method", ["S_E-T", "S_E-A"])
def test_solutions_that_were_cut_refused_or_empty_are_not_learnt(tmp_path: Path, method: Method) -> None:
    pairs, left_out = read(
        tmp_path,
        method,
        screened("A?"),
        screened("B?", finish_reason="length"),
        screened("B2?", finish_reason="insufficient_system_resource"),
        screened("C?", solution=" "),
        screened("D?", finish_reason="content_filter"),
        screened("E?", finish_reason="refusal", solution="I will not say that The answer is: 8"),
        {k: v for k, v in screened("F?").items() if k != "solution"},
    )
    assert [pair.question for pair in pairs] == ["A?"]
    assert left_out == {
        "with a solution that was cut": 2,
        "with a solution that was refused": 2,
        "with an empty solution": 2,
    }


def test_s_e_a_puts_the_gold_answer_behind_the_last_mark(tmp_path: Path) -> None:
    twice = "The answer is: 3 (to the first).\nSo 8.\n**The answer is: $8**\nI hope this helps."
    (pair,), left_out = read(
        tmp_path,
        "S_E-A",
        screened("A?", solution=twice),
        screened("B?", solution="It is 8."),
        screened("C?", answer=""),
    )
    assert pair.completion == "The answer is: 3 (to the first).\nSo 8.\n**The answer is: 9"
    assert final_answer(pair.completion) == "9"
    assert left_out == {'without "The answer is:" in the solution': 1, "without a gold answer": 1}
    with pytest.raises(ValueError, match="does not say"):
        with_answer("It is 8.", "9")


@pytest.mark.parametrize("row", [taught(outcome="refused", status="unparsed", subquestions=[]), screened()])
def test_direct_learns_the_gold_answer_alone(tmp_path: Path, row: Row) -> None:
    (pair,), _ = read(tmp_path, "Direct", row, row | {"key": "2", "question": "No gold?", "answer": ""})
    assert pair.messages == solve_messages("What is it worth?", mode="single-stage")
    assert pair.completion == "The answer is: 9"


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_the_wrong_verb_name_the_right_one(tmp_path: Path, method: Method) -> None:
    row, verb = (screened(), "teach") if method == "S_D-T" else (taught(), "screen")
    if method == "Direct":
        assert read(tmp_path, method, row)
        return
    with pytest.raises(InputError, match=rf"rows\.jsonl:1: .*{method} is trained on rows of  edgedc {verb}"):
        read(tmp_path, method, row)


def test_documents_are_taken_as_they_are(tmp_path: Path) -> None:
    pairs, _ = read(tmp_path, "S_D-T", {"prompt": "<|user|>\nSum?", "completion": "Yes."}, taught())
    assert (pairs[0].prompt, pairs[0].completion, pairs[0].messages) == ("<|user|>\nSum?", "Yes.", [])
    assert pairs[1].prompt == ""


def test_rows_of_ones_own_need_no_outcome(tmp_path: Path) -> None:
    rows = demonstrations(6)
    pairs, left_out = read(tmp_path, "S_D-T", *rows, rows[0] | {"question": "X?", "status": "unparsed"})
    assert len(pairs) == 6
    assert left_out == {"unparsable": 1}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "A?"}, "not a row to train on"),
        (taught(" "), "not a row to train on"),
        (taught(subquestions=["A?", 2]), "not a row to train on"),
        (taught(draw="0"), "draw must be int, is str"),
        (screened(solution=None), "solution must be str, is NoneType"),
        (taught(answer=9), "answer must be str, is int"),
        (taught(answers=["9"]), "answers must be a list of lists of texts"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: Row, said: str) -> None:
    with pytest.raises(InputError, match=r"rows\.jsonl:2: ") as caught:
        read(tmp_path, "S_D-T", taught(), row)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_to_train_on_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to train on by S_D-R: 2 rejected by the screen"):
        read(tmp_path, "S_D-R", screened("A?"), screened("B?"))
    for method in ("S_E-A", "Direct"):
        with pytest.raises(InputError, match=f"nothing to train on by {method}: 1 without a gold answer"):
            read(tmp_path, method, screened("A?", answer=" "))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="the file is empty"):
        read_pairs(tmp_path / "empty.jsonl", "S_D-T", "compact-1", 5)


def test_subquestions_with_control_characters_stay_one_line_each(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(taught(subquestions=["How\nmany\x00 eggs?", "1. 2. 3."])) + "\n")
    (pair,), _ = read_pairs(path, "S_D-T", "compact-1", 5)
    assert pair.completion.count("\n") == 1


@pytest.mark.parametrize("method", ["S_E-T", "S_E-A", "Direct"])
@pytest.mark.parametrize(
    "verb", [["decompose", "How many?"], ["ask", "--solver-model", "x", "How many?"], ["evaluate"]]
)
def test_a_student_that_answers_is_no_decomposer(tmp_path: Path, verb: list[str], method: Method) -> None:
    (tmp_path / "student.gguf").write_bytes(b"GGUF")
    artifact = Artifact(("student.gguf",), "gguf", "f16", 4, ("0",))
    write_manifest(tmp_path, Manifest("bundle", "student", "tiny", method, artifacts=(artifact,)))
    result = CliRunner().invoke(
        cli, [*verb, "--model", str(tmp_path)], env={"OPENAI_API_KEY": "x", "EDGEDC_BASE_URL": "http://127.0.0.1:9/v1"}
    )
    assert isinstance(result.exception, InputError)
    assert f"trained by {method} to answer questions, not to decompose" in str(result.exception)
