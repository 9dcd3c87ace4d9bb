"""The miniature of the paper: its simulated solver and teacher, its verdicts, and a reduced run from end to end."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from benchmarks.replication.__main__ import main
from benchmarks.replication.answers import Cell
from benchmarks.replication.claims import CLAIMS, LEAST, MARGIN, verdict
from benchmarks.replication.intervals import draw, estimate
from benchmarks.replication.plan import DECOMPOSERS, QUANTISED, SOLVERS
from benchmarks.replication.solver import LimitedSolver, Skill
from benchmarks.replication.teacher import MANNERS, ErringTeacher, erring_teacher
from edgedc.decomposition import Decomposition, decomposition_of, parse
from edgedc.errors import InputError, SolverRefused
from edgedc.generation import Message
from edgedc.prompts import decompose_messages, final_answer, solve_messages, step_messages
from edgedc.tasks.microworld import Problem, problems

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "replication.json"
PROBLEMS = list(problems("test", 400))
LONG = [problem for problem in PROBLEMS if len(problem.steps) >= 3]
STRAY = "How many moons does the harbour master polish?"


# ---- verdicts


@pytest.mark.parametrize(
    ("kind", "interval", "said"),
    [
        ("more", (0.1, 5.0), "holds"),
        ("more", (0.1, LEAST / 2), "holds"),  # a small advantage is one, where it is certain
        ("more", (-2.0, 5.0), "not settled"),
        ("more", (-2.0, LEAST / 2), "does not hold"),
        ("more", (-9.0, -4.0), "does not hold"),
        ("more", (0.0, 0.0), "does not hold"),
        ("no less", (-MARGIN / 2, 4.0), "holds"),
        ("no less", (0.0, 0.0), "holds"),
        ("no less", (-MARGIN - 1, 1.0), "not settled"),
        ("no less", (-9.0, -MARGIN - 1), "does not hold"),
        ("more", (float("-inf"), float("inf")), "not settled"),
    ],
)
def test_a_verdict_follows_from_its_interval(kind, interval, said):
    assert verdict(kind, interval) == said


def test_intervals_are_over_seeds_and_questions_and_paired():
    rng = np.random.default_rng(1)
    luck = rng.random((3, 200))
    one, other = (luck < 0.5).astype(float), (luck < 0.6).astype(float)
    cells = {(name, "test"): Cell(grid, None, grid) for name, grid in (("one", one), ("other", other))}
    grids, draws = {key: cell.right for key, cell in cells.items()}, draw(cells)

    def gap(mean):
        return mean("other", "test") - mean("one", "test")

    share = estimate(lambda mean: mean("one", "test"), grids, draws)
    difference = estimate(gap, grids, draws)
    assert difference.value == pytest.approx(other.mean() - one.mean())
    low, high = difference.interval
    assert 0 < low < difference.value < high
    assert high - low < share.interval[1] - share.interval[0]  # what they have in common does not count
    ratio = estimate(lambda mean: mean("one", "test") / (0 * mean("one", "test")), grids, draws)
    assert verdict("more", ratio.interval) == verdict("no less", ratio.interval) == "not settled"
    uneven = {key: grid * np.array([[0.0], [1.0], [1.0]]) for key, grid in grids.items()}
    wide = estimate(lambda mean: mean("one", "test"), uneven, draws)
    assert wide.interval[1] - wide.interval[0] > 2 * (share.interval[1] - share.interval[0])  # seeds that disagree


# ---- the simulated solver


def _right(problem_list: list[Problem], ask, skill: Skill | None = None) -> float:
    solver = LimitedSolver(PROBLEMS, skill or Skill(), 1)
    return float(np.mean([final_answer(solver.reply(ask(p))) == p.answer for p in problem_list]))


def _static(spoil):
    def ask(problem: Problem) -> list[Message]:
        texts = spoil([step.ask for step in problem.steps])
        return solve_messages(problem.question, mode="static", decomposition=decomposition_of(texts))

    return ask


def _alone(problem: Problem) -> list[Message]:
    return solve_messages(problem.question, mode="single-stage")


def test_a_wrong_decomposition_hurts_the_solver_by_what_it_leaves_to_be_done_in_one_go():
    good = _right(LONG, _static(lambda texts: texts))
    dropped = _right(LONG, _static(lambda texts: texts[1:]))
    swapped = _right(LONG, _static(lambda texts: [texts[1], texts[0], *texts[2:]]))
    stray = _right(LONG, _static(lambda texts: [STRAY, *texts[1:]]))
    nothing = _right(LONG, _static(lambda texts: [STRAY]))
    alone = _right(LONG, _alone)
    assert good > max(dropped, swapped) + 0.05
    assert dropped > stray > nothing
    assert nothing < alone < dropped


def test_the_solver_never_fails_with_perfect_skill_and_a_whole_decomposition():
    assert _right(PROBLEMS, _static(lambda texts: texts), Skill(one_step=1.0)) == 1
    assert _right(LONG, _static(lambda texts: texts[1:]), Skill(one_step=1.0, falls=1.0)) == 1


def test_a_kind_reader_understands_other_words():
    spoil = _static(lambda texts: [text.replace("How many", "How very many") for text in texts])
    assert _right(LONG, spoil, Skill(near=0.75)) == _right(LONG, _static(lambda texts: texts)) > _right(LONG, spoil)


def test_step_by_step_it_reads_the_answers_that_it_gave():
    problem = next(p for p in LONG if p.steps[-1].needs)
    solver = LimitedSolver(PROBLEMS, Skill(one_step=1.0), 1)
    asks = [(step.ask, str(step.value)) for step in problem.steps[:-1]]
    ask = problem.steps[-1].ask
    assert final_answer(solver.reply(step_messages(problem.question, solved=asks, subquestion=ask))) == problem.answer
    asks = [(text, str(int(value) + 3)) for text, value in asks]
    assert final_answer(solver.reply(step_messages(problem.question, solved=asks, subquestion=None))) != problem.answer


def test_it_answers_nothing_else():
    with pytest.raises(SolverRefused, match="does not know"):
        LimitedSolver(PROBLEMS, Skill(), 1).solve(
            solve_messages("What is love?", mode="cot"), max_tokens=100, seed=None
        )


# ---- the simulated teacher


@cache
def _teacher(manner, seed: int) -> ErringTeacher:
    return erring_teacher(PROBLEMS, manner, 0.3, seed)


def _said(manner, problem: Problem, draw: int = 0, seed: int = 1) -> Decomposition:
    teacher = _teacher(manner, seed)
    return parse(teacher.reply(decompose_messages(problem.question, style="instruct-1", cap=5), seed=draw))


@pytest.mark.parametrize("manner", MANNERS)
def test_the_teacher_errs_at_its_rate_and_says_the_same_again(manner):
    wrong = [_said(manner, p) != p.decomposition for p in PROBLEMS[:150]]
    assert 0.15 < np.mean(wrong) < 0.45
    assert [_said(manner, p) != p.decomposition for p in PROBLEMS[:150]] == wrong
    assert [_said(manner, p, seed=2) != p.decomposition for p in PROBLEMS[:150]] != wrong


def test_habits_go_with_a_kind_of_problem_and_slips_with_none():
    def share_of_kinds_mostly_wrong(manner) -> float:
        kinds: dict[object, list[bool]] = {}
        for p in PROBLEMS:
            kind = (p.domain, tuple(step.needs for step in p.steps))
            kinds.setdefault(kind, []).append(_said(manner, p) != p.decomposition)
        shares = [np.mean(wrong) for wrong in kinds.values() if len(wrong) >= 5]
        return float(np.mean([0.05 < share < 0.55 for share in shares]))

    assert share_of_kinds_mostly_wrong("slips") > 0.6 > share_of_kinds_mostly_wrong("habits")


# ---- a reduced run


REDUCED = ["--seeds", "1", "--demonstrations", "24", "--questions", "12", "--max-steps", "1"]


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replication")
    assert _run(folder) == 0
    return folder


def _run(folder: Path, *words: str) -> int:
    return main([*REDUCED, "--work", str(folder / "work"), "--out", str(folder / "out"), *words])


def test_a_reduced_run_judges_every_claim_and_says_what_is_simulated(run_once):
    found = json.loads((run_once / "out" / "replication.json").read_text("utf-8"))
    text = (run_once / "out" / "replication.md").read_text("utf-8")
    assert "SIMULATED" in found["simulated"]
    assert all("SIMULATED" in line for line in text.splitlines() if line.startswith("#"))
    assert [one["name"] for one in found["claims"]] == [claim.name for claim in CLAIMS]
    _check_verdicts(found)
    systems = Counter(one["system"] for one in found["systems"])
    students = [student.name for student in DECOMPOSERS] + [f"teacher / {student.name}" for student in SOLVERS]
    for name in ("single-stage", "cot", "gold", "base", "teacher", "teacher, habits", *students):
        assert systems[name] == 2, name  # in-domain and held-out
        assert f"| {name} |" in text
    assert all(systems[f"S_D-R, {kind}"] == 1 for kind in QUANTISED[1:])
    for claim in CLAIMS:
        assert claim.says in text


def test_a_run_that_was_stopped_goes_on(run_once):
    before = _figures(run_once)
    kept = run_once / "work" / "seed-1" / "slips" / "S_D-T" / "adapter" / "manifest.json"
    made = kept.stat().st_mtime_ns
    answers = run_once / "work" / "seed-1" / "answers.jsonl"
    lines = answers.read_text("utf-8").splitlines(keepends=True)
    answers.write_text("".join(lines[:40]) + lines[40][:30], "utf-8")  # cut off in the middle of a row
    said = run_once / "work" / "seed-1" / "slips" / "S_D-R" / "test.f16.jsonl"
    said.unlink()
    assert _run(run_once) == 0
    assert _figures(run_once) == before
    assert kept.stat().st_mtime_ns == made  # not trained again
    assert len(answers.read_text("utf-8").splitlines()) >= len(lines)


def test_a_folder_of_another_size_is_left_alone(run_once):
    with pytest.raises(InputError, match="another size"):
        _run(run_once, "--questions", "13")


def _figures(folder: Path) -> object:
    found = json.loads((folder / "out" / "replication.json").read_text("utf-8"))
    return found["systems"], found["claims"], found["other_solvers"]


def _check_verdicts(found) -> None:
    margins = {claim.name: claim.margin for claim in CLAIMS}
    for one in found["claims"]:
        interval = one["interval_95"] or (float("-inf"), float("inf"))
        assert one["verdict"] == verdict(one["kind"], interval, margins[one["name"]])


def test_the_recorded_verdicts_follow_from_the_recorded_intervals():
    found = json.loads(RESULTS.read_text("utf-8"))
    assert [one["name"] for one in found["claims"]] == [claim.name for claim in CLAIMS]
    _check_verdicts(found)
    assert "SIMULATED" in found["simulated"]
    assert found["size"]["seeds"] >= 3
