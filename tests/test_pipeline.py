"""The four modes, with scripted models: what is asked, what comes out, what it cost, and nothing degraded silently."""

import pytest

from edgedc.errors import InputError
from edgedc.generation import Generation
from edgedc.ledger import Price, Usage
from edgedc.pipeline import Answer, Decomposer, Mode, Where, answer, decompose, remark
from edgedc.solvers.scripted import ScriptedSolver

QUESTION = "How many eggs are left?"
TWO = "1. How many eggs are laid?\n2. How many of #1 are left?"
PRICE = Price("big", input=1e-6, output=1e-5, cached=1e-7, date="2026-08", source="test")
DEAR = Price("teacher", input=1.0, output=1.0, cached=1.0, date="2026-08", source="test")


def said(text: str, finish: str = "stop", sent: int = 0, source: str = "tokenizer") -> Generation:
    return Generation(text, Usage(10, 2, 4, source), 0.1, 0.5, finish, sent)


def decomposer(reply: str | Generation, where: Where = "local", cap: int | None = 5) -> Decomposer:
    return Decomposer("d", where, ScriptedSolver([reply]).solve, "compact-1", cap)


def ask(mode: Mode, replies: list[str | Generation], by: Decomposer | None = None) -> tuple[Answer, list[str]]:
    """The answer, and what the solver was asked."""
    solver = ScriptedSolver(replies)
    made = answer(QUESTION, mode=mode, solver=solver, decomposer=by)
    assert len(solver.asked) == len(replies)
    return made, [messages[0]["content"] for messages in solver.asked]


@pytest.mark.parametrize("mode", ["single-stage", "cot"])
def test_a_single_stage_is_one_call_without_a_decomposer(mode: Mode) -> None:
    made, asked = ask(mode, ["3 * 4 is 12.\nThe answer is: 12."])
    assert (made.final, made.mode, made.decomposition, made.notes) == ("12", mode, None, ())
    assert [stage.name for stage in made.stages] == ["solve"]
    assert QUESTION in asked[0]
    assert ("step by step" in asked[0]) == (mode == "cot")


def test_static_gives_all_subquestions_in_one_call() -> None:
    made, asked = ask("static", ["12, so 7.\nThe answer is: 7"], decomposer(TWO))
    assert (made.final, made.mode, made.notes) == ("7", "static", ())
    assert TWO in asked[0]
    assert [(stage.name, stage.where) for stage in made.stages] == [("decompose", "local"), ("solve", "remote")]


def test_interactive_asks_one_by_one_and_fills_in_what_was_answered() -> None:
    replies = ["The answer is: 12", "The answer is: 7", "The answer is: 7 eggs."]
    made, asked = ask("interactive", replies, decomposer(TWO))
    assert (made.final, made.mode, made.notes) == ("7 eggs", "interactive", ())
    assert [stage.name for stage in made.stages] == ["decompose", "step 1", "step 2", "solve"]
    assert asked[0].endswith("Next subquestion: How many eggs are laid?")
    assert asked[1].endswith("Next subquestion: How many of 12 are left?")
    assert "Subquestion: How many of 12 are left?\nAnswer: 7" in asked[2]


@pytest.mark.parametrize("mode", ["static", "interactive"])
@pytest.mark.parametrize(
    ("reply", "status", "why"),
    [
        ("No decomposition", "not_needed", "no decomposition is needed"),
        ("I would rather not.", "unparsed", "I would rather not."),
        (said("1. How many eggs are la", "length"), "unparsed", "cut at 256 tokens"),
        (said("1. How many eggs are la", "content_filter"), "unparsed", "How many eggs are la"),
        (said("1. I can't help with eggs.", "refusal"), "unparsed", "I can't help with eggs."),
    ],
)
def test_without_subquestions_the_mode_becomes_cot_and_the_notes_say_why(
    mode: Mode, reply: str | Generation, status: str, why: str
) -> None:
    made, asked = ask(mode, ["The answer is: 7"], decomposer(reply))
    assert made.mode == "cot"
    assert made.decomposition is not None
    assert made.decomposition.status == status
    assert "step by step" in asked[0]
    assert why in " ".join(made.notes)
    assert f"in mode cot instead of {mode}" in made.notes[-1]
    assert made.stages[0].name == "decompose"


def test_a_cut_decomposition_keeps_its_text() -> None:
    cut = said("1. How many eggs are laid?\n2. How", "length")
    made, generation = decompose(decomposer(cut), QUESTION)
    assert (made.status, made.raw) == ("unparsed", cut.text)
    assert generation == cut


def test_subquestions_beyond_the_cap_are_kept_and_pointed_out() -> None:
    by = decomposer(TWO, cap=1)
    made, generation = decompose(by, QUESTION)
    assert len(made.subquestions) == 2
    assert "2 subquestions, more than the 1" in remark(by, made, generation)
    result, _ = ask("static", ["The answer is: 7"], decomposer(TWO, cap=1))
    assert result.mode == "static"
    assert "more than the 1" in result.notes[0]


def test_a_cut_or_empty_reply_of_the_solver_is_pointed_out() -> None:
    made, _ = ask("interactive", ["", said("Let me th", "length"), ""], decomposer(TWO))
    assert any("step 2" in note and "cut" in note for note in made.notes)
    assert "no answer" in made.notes[-1]
    assert made.final == ""


def test_totals_are_of_all_stages_and_a_local_decomposition_is_free() -> None:
    replies: list[str | Generation] = [said("The answer is: 7", sent=100, source="server")]
    made, _ = ask("static", replies, decomposer(said(TWO)))
    assert made.seconds == 1.0
    assert made.bytes_sent == 100
    assert made.usage() == Usage(20, 4, 8, "tokenizer")
    assert made.usage("remote") == Usage(10, 2, 4, "server")
    assert made.cost(PRICE) == pytest.approx(6 * 1e-6 + 4 * 1e-7 + 2 * 1e-5)


def test_a_remote_decomposition_costs_at_its_own_price() -> None:
    made, _ = ask("static", [said("The answer is: 7")], decomposer(said(TWO), where="remote"))
    assert made.cost(PRICE, DEAR) == pytest.approx(12 + 6 * 1e-6 + 4 * 1e-7 + 2 * 1e-5)
    with pytest.raises(ValueError, match="price"):
        made.cost(PRICE)


def test_the_premise_reaches_decomposer_and_solver() -> None:
    small, big = ScriptedSolver([TWO]), ScriptedSolver(["a", "b", "c"])
    by = Decomposer("d", "local", small.solve, "instruct-1")
    answer(QUESTION, "Hens lay eggs.", mode="interactive", solver=big, decomposer=by)
    assert all("Context: Hens lay eggs." in messages[0]["content"] for messages in [*small.asked, *big.asked])


@pytest.mark.parametrize("mode", ["single-stage", "static"])
def test_an_empty_question_is_refused_before_anything_is_asked(mode: Mode) -> None:
    solver = ScriptedSolver(["x"])
    with pytest.raises(InputError, match="empty"):
        answer(" \n", mode=mode, solver=solver, decomposer=decomposer(TWO))
    with pytest.raises(InputError, match="empty"):
        decompose(decomposer(TWO), "")
    assert solver.asked == []
