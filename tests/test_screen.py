import json
import os
import pickle
import signal
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import write_rows

from edgedc.cli import cli
from edgedc.decomposition import decomposition_of
from edgedc.errors import BudgetError, InputError, SolverError
from edgedc.files import Row
from edgedc.generation import Message
from edgedc.prompts import solve_messages
from edgedc.solvers.loopback import Timing, serve
from edgedc.solvers.openai import host_of
from edgedc.solvers.simulated import MODEL, simulated_server
from edgedc.tasks.microworld import problems
from train.calls.remote import CallSettings, Remote
from train.sets.pairs import read_pairs
from train.teaching.screen import Screened, ScreenSettings, find_job, screen
from train.teaching.trials import Trials

GOOD, BAD = "How many are left?", "What is the weather?"
PRICES = {"_about": {"date": "d", "source": "s"}, "big": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}}


class Solver:
    """Right where a subquestion is GOOD or none is given, else wrong. Keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken: set[str] = set()  # questions at which the connection breaks
        self.reply = "Some steps.\nThe answer is: {}"
        self._lock = threading.Lock()

    def __call__(self, messages: Sequence[Message], *, seed: int = 0) -> str:
        prompt = messages[0]["content"]
        with self._lock:
            self.asked.append(prompt)
        if any(question in prompt for question in self.broken):
            raise ConnectionError
        return self.reply.format("9" if GOOD in prompt or "Subquestions:" not in prompt else "8")


@contextmanager
def server(solver: Solver) -> Iterator[str]:
    with serve(solver, "big", port=0, timing=Timing(0, 0), simulated=False) as url:
        yield url


def draw(question: str, number: int, *subquestions: str, **changes: object) -> Row:
    """A row as `edgedc teach` writes it."""
    return {
        "key": f"{question}{number}",
        "id": question,
        "task": "gsm8k",
        "split": "train",
        "question": question,
        "premise": "",
        "answer": "9",
        "draw": number,
        "status": "decomposed" if subquestions else "not_needed",
        "subquestions": list(subquestions),
        "over_cap": False,
        "outcome": "ok",
    } | changes


ROWS = [
    draw("A?", 0, GOOD, "And?"),
    draw("A?", 1, GOOD),
    draw("B?", 1, GOOD),
    draw("B?", 0, BAD),
    draw("B?", 2, GOOD, "More?"),
    draw("C?", 0, BAD, "x?"),
    draw("C?", 1, outcome="truncated", status="unparsed"),
    draw("D?", 0),
    draw("E?", 0, outcome="refused", status="unparsed"),
]


def run(data: Path, out: Path, url: str, **changes: Any) -> Screened:
    settings = ScreenSettings(**{"solver_model": "big", "solver_url": url, "retries": 0, "timeout": 10.0} | changes)
    return screen(data, out, find_job(settings), settings, announce=lambda _: None, report=lambda _: None)


def rows_of(out: Path) -> list[Row]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def tried(out: Path) -> list[tuple[str, int, bool]]:
    return sorted((row["question"], row["draw"], row["verdict"]) for row in rows_of(out))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "demonstrations.jsonl", ROWS)


def test_draws_are_tried_in_order_until_one_passes(data: Path, tmp_path: Path) -> None:
    out, solver = tmp_path / "out.jsonl", Solver()
    with server(solver) as url:
        made = run(data, out, url)
    assert tried(out) == [("A?", 0, True), ("B?", 0, False), ("B?", 1, True), ("C?", 0, False), ("D?", 0, True)]
    assert len(solver.asked) == 5
    assert (made.passed, made.rejected, made.undrawn, made.unfinished, made.questions) == (3, 1, 1, 0, 5)
    assert {k: (s.hits, s.n) for k, s in made.by_draw.items()} == {1: (2, 4), 2: (1, 1)}
    assert {k: (s.hits, s.n) for k, s in made.by_subquestions.items()} == {0: (1, 1), 1: (1, 2), 2: (1, 2)}
    assert made.unusable == {"truncated": 1, "refused": 1}


def test_the_solver_is_asked_as_the_pipeline_asks_it(data: Path, tmp_path: Path) -> None:
    out, solver = tmp_path / "out.jsonl", Solver()
    with server(solver) as url:
        run(data, out, url, concurrency=1)
    (static,) = solve_messages("A?", mode="static", decomposition=decomposition_of([GOOD, "And?"]))
    (alone,) = solve_messages("D?", mode="cot")
    assert solver.asked[0] == static["content"]
    assert alone["content"] in solver.asked
    row = rows_of(out)[0]
    assert (row["demonstration"], row["solution"], row["final"]) == ("A?0", "Some steps.\nThe answer is: 9", "9")
    assert (row["solver"], row["mode"], row["temperature"], row["seed"]) == ("big", "static", 0.0, 0)
    assert row["usage"]["source"] == "server"
    assert row["bytes_sent"] > 0


def test_the_rows_make_the_papers_sets(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with server(Solver()) as url:
        run(data, out, url)
    screened, _ = read_pairs(out, "S_D-R", "compact-1", 5)
    assert sorted((p.question, p.completion) for p in screened) == [
        ("A?", f"1. {GOOD}\n2. And?"),
        ("B?", f"1. {GOOD}"),
        ("D?", "No decomposition"),
    ]
    solved = {p.question: p.completion for p in read_pairs(out, "S_E-T", "compact-1", 5)[0]}
    assert solved["C?"] == "Some steps.\nThe answer is: 8"
    gold = {p.question: p.completion for p in read_pairs(out, "S_E-A", "compact-1", 5)[0]}
    assert gold["C?"] == "Some steps.\nThe answer is: 9"


def test_a_rerun_pays_for_nothing_twice(data: Path, tmp_path: Path) -> None:
    out, solver = tmp_path / "out.jsonl", Solver()
    with server(solver) as url:
        run(data, out, url)
        whole = tried(out)
        lines = out.read_text().splitlines(keepends=True)
        out.write_text("".join(lines[:2]) + lines[2][:20])  # as a kill may leave it
        run(data, out, url, concurrency=2, timeout=20.0, retries=3)
        assert len(solver.asked) == 5 + 3
        assert tried(out) == whole
        assert run(data, out, url).passed == 3
        assert len(solver.asked) == 8
        made = run(data, out, url, seed=1)
    assert len(solver.asked) == 13
    assert (made.passed, made.foreign) == (3, 5)


def test_memory_holds_no_whole_row(tmp_path: Path) -> None:
    """Of 40 MB here and 40 MB there. What is tried last is asked for again."""
    out, solver = tmp_path / "out.jsonl", Solver()
    rows = [draw(f"{k}? " + "p" * 100_000, 0, GOOD) for k in range(400)]
    data = write_rows(tmp_path / "large.jsonl", rows[:1])
    with server(solver) as url:
        run(data, out, url)
        (made,) = rows_of(out)
        job = find_job(ScreenSettings(solver_model="big", solver_url=url))
        write_rows(data, rows)
        write_rows(out, [made | {"key": job.trial(row).key, "question": row["question"]} for row in rows[:-1]])
        del rows
        tracemalloc.start()
        try:
            assert run(data, out, url).passed == 400
            assert tracemalloc.get_traced_memory()[1] < 4e6
        finally:
            tracemalloc.stop()
    assert len(solver.asked) == 2


def test_another_gold_answer_is_another_verdict(data: Path, tmp_path: Path) -> None:
    out, solver = tmp_path / "out.jsonl", Solver()
    with server(solver) as url:
        run(data, out, url)
        corrected = [row | {"answer": "8"} if row["question"] == "C?" else row for row in ROWS]
        made = run(write_rows(data, corrected), out, url)
    assert (made.passed, made.rejected, len(solver.asked)) == (4, 0, 6)


def test_whatever_determines_a_verdict_makes_another_trial() -> None:
    row, solver = ROWS[0], Remote("big", "http://here/v1", 0.0, 60, None, CallSettings())

    def key(seed: int = 0, shown: Row = row, **changes: Any) -> str:
        return Trials(replace(solver, **changes), seed).trial(shown).key

    changed: list[Row] = [
        {"question": "Z?"},
        {"premise": "Long ago."},
        {"subquestions": [GOOD]},
        {"task": "drop"},
        {"answer": "8"},
        {"answers": [["8"]]},
        {"draw": 7},
    ]
    keys = [
        *(key(), key(seed=1), key(name="other"), key(temperature=0.5), key(max_tokens=61)),
        *(key(shown=row | change) for change in changed),
    ]
    assert len(set(keys)) == len(keys)
    assert key(shown=row | {"split": "test"}, url="http://there/v1", settings=CallSettings(retries=3)) == keys[0]


def test_a_failed_call_is_counted_and_asked_again(data: Path, tmp_path: Path) -> None:
    out, solver = tmp_path / "out.jsonl", Solver()
    solver.broken = {"B?"}
    with server(solver) as url:
        made = run(data, out, url)
        assert (made.passed, made.unfinished) == (2, 1)
        assert isinstance(made.error, SolverError)
        assert ("B?", 1, True) not in tried(out)  # its first draw is not decided
        solver.broken = set()
        made = run(data, out, url)
    assert (made.passed, made.unfinished, made.error) == (3, 0, None)


def test_a_server_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "many.jsonl", [draw(f"{k}?", 0, GOOD) for k in range(40)])
    solver = Solver()
    solver.broken = {"?"}
    with server(solver) as url, pytest.raises(SolverError):
        run(data, tmp_path / "out.jsonl", url)
    assert 20 <= len(solver.asked) < 40


@pytest.mark.parametrize(
    ("reply", "passes"),
    [
        ("The answer is: {}", True),
        ("The answer is: **${}.00**", True),
        ("The answer is: {} or 10", False),
        ("It may be {}.\nThe answer is: unknown", False),
        ("The answer is: {}" + "\nword" * 60, False),  # cut at 50 tokens
        ("", False),
    ],
)
def test_the_metric_is_the_tasks_strict_one(tmp_path: Path, reply: str, passes: bool) -> None:
    data = write_rows(tmp_path / "one.jsonl", [draw("A?", 0, GOOD)])
    solver = Solver()
    solver.reply = reply
    with server(solver) as url:
        assert run(data, tmp_path / "out.jsonl", url, max_tokens=50).passed == passes


@pytest.mark.parametrize(
    ("task", "answer", "answers", "passes"),
    [
        ("drop", "9", [["8"], ["9"]], True),  # any annotator's
        ("drop", "9 and 4", [["9", "4"]], False),
        ("drop", "9", None, True),  # a row of one's own
        ("bamboogle", "nine", [["nine"], ["9"]], True),
        ("bamboogle", "nine", [["nine"]], False),
        ("bamboogle", "9", None, True),
    ],
)
def test_tasks_that_take_several_answers_are_scored_by_all(
    tmp_path: Path, task: str, answer: str, answers: list[list[str]] | None, passes: bool
) -> None:
    known = {} if answers is None else {"answers": answers}
    data = write_rows(tmp_path / "one.jsonl", [draw("A?", 0, GOOD, task=task, answer=answer, **known)])
    out, solver = tmp_path / "out.jsonl", Solver()
    with server(solver) as url:
        assert run(data, out, url).passed == passes
        write_rows(data, [draw("A?", 0, GOOD, task=task, answer=answer, answers=[["8"]])])
        assert run(data, out, url).passed == 0  # other answers are another verdict
    assert len(solver.asked) == 2


def test_rows_of_ones_own_need_no_status(tmp_path: Path) -> None:
    rows = [draw("A?", 0, GOOD), draw("B?", 0)]
    data = write_rows(tmp_path / "own.jsonl", [{k: v for k, v in row.items() if k != "status"} for row in rows])
    with server(Solver()) as url:
        assert run(data, tmp_path / "out.jsonl", url).passed == 2
    assert {row["question"]: row["mode"] for row in rows_of(tmp_path / "out.jsonl")} == {"A?": "static", "B?": "cot"}


def test_the_ceiling_is_never_passed_over_all_runs(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "many.jsonl", [draw(f"{k}?", 0, BAD) for k in range(30)])
    out, solver = tmp_path / "out.jsonl", Solver()
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps(PRICES))
    with server(solver) as url:
        for ceiling in (0.0012, 0.0015, 0.0015):
            before = len(solver.asked)
            with pytest.raises(BudgetError):
                run(data, out, url, max_cost=ceiling, prices=prices, max_tokens=50)
            assert sum(row["cost"] for row in rows_of(out)) <= ceiling
        assert before == len(solver.asked)  # the third run could ask for nothing
    assert 0 < len(rows_of(out)) == len(solver.asked) < 30


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (draw("X?", 0, GOOD, answer=""), r"demonstrations\.jsonl:2 \(X\?\): no gold answer"),
        (draw("X?", 0, GOOD, answer=" \n"), r"demonstrations\.jsonl:2 \(X\?\): no gold answer"),
        (draw("X?", 0, GOOD, task=""), r"demonstrations\.jsonl:2: no task"),
        (draw("X?", 0, GOOD, task="gsm9k"), r"demonstrations\.jsonl:2: unknown task 'gsm9k'"),
        (draw("X?", 0, GOOD, verdict=True), r"demonstrations\.jsonl:2: not a row of  edgedc teach"),
        ({"question": "X?"}, r"demonstrations\.jsonl:2: not a row to train on"),
    ],
)
def test_bad_rows_are_refused_before_anything_is_asked(tmp_path: Path, row: Row, said: str) -> None:
    data = write_rows(tmp_path / "demonstrations.jsonl", [ROWS[0], row])
    solver = Solver()
    with server(solver) as url, pytest.raises(InputError, match=said):
        run(data, tmp_path / "out.jsonl", url)
    assert not solver.asked
    assert not (tmp_path / "out.jsonl").exists()


def test_demonstrations_are_not_written_to(data: Path) -> None:
    before, solver = data.read_text(), Solver()
    with server(solver) as url, pytest.raises(InputError, match="did not write; give another file"):
        run(data, data, url)
    assert (data.read_text(), solver.asked) == (before, [])


@pytest.mark.parametrize(
    "changes", [{"temperature": 3}, {"max_tokens": 0}, {"concurrency": 0}, {"max_cost": 0.0}, {"timeout": float("inf")}]
)
def test_settings_out_of_range_are_one_line(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(InputError, match=f"^--{name.replace('_', '-')} .*: (must be|give)"):
        ScreenSettings(solver_model="big", **changes)


def test_a_job_can_be_sent_to_other_machines() -> None:
    """Ray pickles it; there is no connection in it until a worker opens it."""
    job = find_job(ScreenSettings(solver_model="gpt-4o-mini", solver_url="http://127.0.0.1:9/v1", max_cost=1.0))
    assert pickle.loads(pickle.dumps(job)) == job


def test_without_a_solver_or_a_price_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--solver-model"):
        find_job(ScreenSettings())
    with pytest.raises(InputError, match="no price is known for 'big'"):
        find_job(ScreenSettings(solver_model="big", solver_url="http://127.0.0.1:9/v1", max_cost=1.0))


def verb(*args: object) -> Result:
    return CliRunner().invoke(cli, ["screen", *map(str, args)])


def test_the_verb_reports_acceptance(tmp_path: Path) -> None:
    made = list(problems("train", 60))
    rows = [
        draw(p.question, 0, *p.decomposition.texts, id=p.id, task="microworld", answer=p.answer, status=status)
        for p in made
        if (status := p.decomposition.status)
    ]
    data, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    with simulated_server(made, timing=Timing(0, 0)) as url:
        result = verb("--solver-model", MODEL, "--solver-url", url, data, out)
    assert result.exit_code == 0, result.output
    passed = sum(row["verdict"] for row in rows_of(out))
    assert 40 <= passed < 60
    assert f"{passed} of 60 questions have a decomposition that passed" in result.stdout
    assert "draw 1" in result.stdout
    assert "cost: no price known" in result.stdout
    assert f"{passed} of 60" in result.stdout
    assert "no subquestions" in result.stdout
    assert f"questions without a passing draw: {60 - passed}" in result.stdout
    assert "The solver is simulated." in result.stdout
    assert "60 calls to make" in result.stderr


def test_the_verb_ends_with_1_when_calls_failed(data: Path, tmp_path: Path) -> None:
    solver = Solver()
    solver.broken = {"B?"}
    with server(solver) as url:
        result = verb("--solver-model", "big", "--solver-url", url, "--retries", 0, data, tmp_path / "out.jsonl")
    assert isinstance(result.exception, SolverError)
    assert "1 question is unfinished, run again" in str(result.exception)
    assert "2 of 5 questions" in result.stdout


def test_the_verb_counts_empty_replies(data: Path, tmp_path: Path) -> None:
    solver = Solver()
    solver.reply = ""
    with server(solver) as url:
        result = verb("--solver-model", "big", "--solver-url", url, data, tmp_path / "out.jsonl")
    assert result.exit_code == 0, result.output
    assert "empty replies of the solver, which do not pass: 7\n" in result.stdout


def test_the_verb_says_what_is_kept_when_the_budget_is_reached(tmp_path: Path) -> None:
    data, out = write_rows(tmp_path / "many.jsonl", [draw(f"{k}?", 0, GOOD) for k in range(30)]), tmp_path / "out.jsonl"
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps(PRICES))
    with server(Solver()) as url:
        how = ["--solver-model", "big", "--solver-url", url, "--max-tokens", 50, "--prices", prices, "--retries", 0]
        result = verb(*how, "--max-cost", 0.0012, data, out)
    assert isinstance(result.exception, BudgetError)
    assert f"30 calls to make, at {host_of(url)}; about $" in result.stderr
    assert f"Kept in {out}: {len(rows_of(out))} of 30 questions passed, $0.00" in result.stderr


def test_the_verb_says_what_is_kept_when_it_is_interrupted(tmp_path: Path) -> None:
    data, out = write_rows(tmp_path / "many.jsonl", [draw(f"{k}?", 0, GOOD) for k in range(30)]), tmp_path / "out.jsonl"
    solver = Solver()

    def reply(messages: Sequence[Message], *, seed: int = 0) -> str:
        if len(solver.asked) == 10:
            os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C
        return solver(messages, seed=seed)

    with serve(reply, "big", port=0, timing=Timing(0, 0), simulated=False) as url:
        result = verb("--solver-model", "big", "--solver-url", url, "--concurrency", 1, data, out)
    assert result.exit_code != 0
    assert 10 <= len(rows_of(out)) < 30
    assert f"Kept in {out}: {len(rows_of(out))} of 30 questions passed. The same command goes on" in result.stderr
