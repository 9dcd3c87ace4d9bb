import pytest

from edgedc.decomposition import decomposition_of, parse
from edgedc.prompts import STYLES, Style, decompose_messages, final_answer, solve_messages, step_messages


@pytest.mark.parametrize("style", STYLES)
def test_the_question_the_context_and_the_cap_are_in_the_prompt(style: Style) -> None:
    [message] = decompose_messages("How many?", "Two eggs.", style=style, cap=4)
    assert message["content"].endswith("Question: How many?")
    assert "Context: Two eggs." in message["content"]
    [capped] = decompose_messages("How many?", style=style, cap=2)
    [free] = decompose_messages("How many?", style=style, cap=None)
    assert len({message["content"], capped["content"], free["content"]}) == 3
    assert "at most" not in free["content"]
    assert "no more than" not in free["content"]
    assert "Context: " not in free["content"]


def test_the_cap_reads_as_english() -> None:
    def said(cap: int) -> str:
        return decompose_messages("Q?", style="instruct-1", cap=cap)[0]["content"]

    assert "no more than one subquestion is formulated" in said(1)
    assert "no more than three subquestions are formulated" in said(3)
    assert "no more than 12 subquestions are formulated" in said(12)


def test_the_worked_example_stands_before_the_question_and_keeps_to_the_cap() -> None:
    def said(cap: int | None) -> str:
        return decompose_messages("How many?", "Two eggs.", style="instruct-1", cap=cap, shots=1)[0]["content"]

    for cap in (None, 2, 3, 4):
        bare = decompose_messages("How many?", "Two eggs.", style="instruct-1", cap=cap)[0]["content"]
        example = said(cap).removeprefix(bare.partition(" Context: ")[0]).partition("\nContext: ")[0]
        assert len(parse(example.partition("return:")[2].partition("\n\n")[0]).subquestions) == 2
        assert said(cap).endswith("\nContext: Two eggs.\nQuestion: How many?")
        assert said(cap).count("Question: ") == 1
    for style, cap in (("compact-1", 3), ("instruct-1", 1)):
        with pytest.raises(ValueError, match="examples"):
            decompose_messages("How many?", style=style, cap=cap, shots=1)


def test_every_way_to_solve_asks_for_a_marked_answer() -> None:
    made = decomposition_of(["A?", "B of #1?"])
    prompts = [
        solve_messages("How many?", mode="single-stage"),
        solve_messages("How many?", mode="cot"),
        solve_messages("How many?", mode="static", decomposition=made),
        step_messages("How many?", solved=[("A?", "4")], subquestion="B of 4?"),
        step_messages("How many?", solved=[("A?", "4"), ("B of 4?", "5")], subquestion=None),
    ]
    assert all('End with "The answer is: "' in prompt[0]["content"] for prompt in prompts)
    assert len({prompt[0]["content"] for prompt in prompts}) == len(prompts)
    assert prompts[2][0]["content"].endswith("1. A?\n2. B of #1?")
    assert "Subquestion: A?\nAnswer: 4" in prompts[3][0]["content"]
    tasks = [prompt[0]["content"].partition("Question:")[0] for prompt in prompts[3:]]
    assert ["next subquestion" in task for task in tasks] == [True, False]


def test_static_mode_without_subquestions_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="subquestions"):
        solve_messages("How many?", mode="static", decomposition=decomposition_of([]))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Two and two.\nThe answer is: 4.", "4"),
        ("The answer is: 3. No. The answer is: 4\nThat is it.", "4"),
        ("The answer is: **4**", "4"),
        ("The answer is: ** 4 **", "4"),
        ("The answer is:\n4", "4"),
        ("Two and two.\n4", "4"),
        ("**The answer is:**\n\n4", "4"),  # as models lay it out
        ("The answer is:\n\\[\n\\boxed{4}\n\\]", "\\boxed{4}"),
        ("Two and two.\n$$\n4\n$$", "4"),
        ("The answer is:\n```text\n4\n```", "4"),
        ("The answer is:", ""),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_the_final_answer_stands_behind_its_mark(text: str, answer: str) -> None:
    assert final_answer(text) == answer
