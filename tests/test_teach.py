import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import write_rows

from edgedc.cli import cli
from edgedc.decomposition import decomposition_of
from edgedc.errors import BudgetError, InputError, SolverTimeout
from edgedc.generation import Generation
from edgedc.prices import Price
from edgedc.solvers.loopback import Timing, serve
from edgedc.solvers.openai import host_of
from edgedc.solvers.scripted import ScriptedSolver
from edgedc.solvers.simulated import MODEL, simulated_server
from edgedc.tasks import Example, Selection, load_examples
from edgedc.tasks.microworld import problems
from edgedc.usage import Usage
from train.sets.pairs import read_pairs
from train.teaching.draws import Form, draw_of, row_of
from train.teaching.teach import TeachSettings, teach
from train.teaching.teachers import GoldTeacher, find_teacher

EXAMPLES = load_examples(Selection(limit=12))
AT_ONCE = Timing(0.0, 0.0)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def taught(examples, teacher, out, **settings):
    """What comes of it, and what was projected."""
    said = []
    result = teach(
        examples, teacher, out, TeachSettings(**settings), announce=said.append, report=lambda progress: None
    )
    return result, said[0]


class Scripted:
    """A teacher of the engines' kind that gives the replies in order, and fails where they are errors."""

    name, identity, price = "teacher", ("teacher",), None

    def __init__(self, *replies, cap=5, cost=0.0):
        self.replies, self.cost, self.asked = iter(replies), cost, []
        self.form = Form("instruct-1", cap, 0, 0.0, 256)
        if cost:
            self.price = Price("m", cost, cost, cost, "2026-08", "test")

    def worst(self, draw):
        return 10 * self.cost

    @contextmanager
    def open(self, share):
        assert share == 1.0

        def ask(draw):
            self.asked.append(draw)
            reply = next(self.replies, "1. First?\n2. Then?")
            if isinstance(reply, Exception):
                raise reply
            made = ScriptedSolver([reply]).solve(draw.messages, max_tokens=self.form.max_tokens)
            return row_of(draw, self.form, self.name, made, cost=self.cost)

        yield ask


def test_gold_rows_can_be_trained_on(tmp_path):
    result, _ = taught(EXAMPLES, GoldTeacher(), tmp_path / "rows.jsonl")
    pairs, left_out = read_pairs(tmp_path / "rows.jsonl", "S_D-T", "compact-1", 5)
    assert [row["subquestions"] for row in rows_of(tmp_path / "rows.jsonl")] == [
        e.decomposition.texts for e in EXAMPLES
    ]
    assert {pair.question for pair in pairs} == {e.question for e in EXAMPLES}
    assert (result.outcomes, result.missing, left_out) == ({"ok": 12}, 0, {})


def test_a_gold_row_is_made_again_when_its_decomposition_changes(tmp_path):
    out = tmp_path / "rows.jsonl"
    for texts in (["A?", "B?"], ["A?", "C?"]):
        taught([Example("1", "Why?", decomposition=decomposition_of(texts))], GoldTeacher(), out)
    assert [row["subquestions"] for row in rows_of(out)] == [["A?", "B?"], ["A?", "C?"]]


def test_gold_needs_decompositions(tmp_path):
    with pytest.raises(InputError, match="question 7 has no decomposition of its own: name a model with --teacher"):
        taught([Example("7", "Why?")], GoldTeacher(), tmp_path / "rows.jsonl")
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_call_that_fails_does_not_end_the_run_and_a_rerun_asks_only_it(tmp_path):
    out, first = tmp_path / "rows.jsonl", Scripted("1. A?\n2. B?", SolverTimeout("teacher: no answer"))
    result, _ = taught(EXAMPLES, first, out, concurrency=1)
    assert (result.missing, str(result.error), result.outcomes) == (1, "teacher: no answer", {"ok": 11})
    second = Scripted()
    result, _ = taught(EXAMPLES, second, out, concurrency=3)
    assert [draw.example.id for draw in second.asked] == [EXAMPLES[1].id]
    assert (result.missing, result.error, result.outcomes) == (0, None, {"ok": 12})
    assert sorted(row["id"] for row in rows_of(out)) == sorted(e.id for e in EXAMPLES)


def test_a_server_that_is_down_is_not_asked_for_ever(tmp_path):
    down = Scripted(*[SolverTimeout("teacher: no answer")] * 100)
    with pytest.raises(SolverTimeout):
        taught(load_examples(Selection(limit=60)), down, tmp_path / "rows.jsonl", concurrency=1)
    assert len(down.asked) == 20


@pytest.mark.parametrize("ceiling", [[], ["--max-cost", "1"]])
def test_calls_that_are_too_long_for_their_price_are_missing_and_the_rest_is_asked(tmp_path, ceiling):
    """25 of them in a row, which says nothing of the server."""
    questions = [{"question": f"Question {k}: how many? {'x' * 2000 * (2 <= k < 27)}"} for k in range(30)]
    data = write_rows(tmp_path / "data.jsonl", questions)
    out, prices = tmp_path / "rows.jsonl", tmp_path / "prices.json"
    price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
    prices.write_text(json.dumps({"m": price | {"input_cost_per_token_above_2k_tokens": 1e-5}}))
    with serve(lambda messages: "1. First?\n2. Then?", "m", port=0, timing=AT_ONCE, simulated=True) as url:
        task = ["--task", "jsonl", "--data", str(data), "--teacher", "m", "--teacher-url", url]
        how = ["--prices", str(prices), "--concurrency", "1", *ceiling]
        run = CliRunner().invoke(cli, ["teach", *task, *how, str(out)])
    assert run.exit_code == 1
    assert "25 draws are missing" in str(run.exception)
    assert "is for up to 2,000: shorten the question, or give --prices FILE" in str(run.exception)
    assert [row["id"] for row in rows_of(out)] == [f"data-{k + 1}" for k in (0, 1, 27, 28, 29)]
    assert not out.with_name("rows.jsonl.spending").exists()


def test_a_question_that_comes_twice_is_asked_once(tmp_path):
    teacher = Scripted()
    result, projection = taught([*EXAMPLES, *EXAMPLES], teacher, tmp_path / "rows.jsonl")
    assert len(teacher.asked) == projection.calls == result.outcomes.total() == 12


def test_an_empty_question_is_found_before_anybody_is_asked(tmp_path):
    teacher = Scripted()
    with pytest.raises(InputError, match="question 9 is empty"):
        taught([*EXAMPLES, Example("9", " ")], teacher, tmp_path / "rows.jsonl")
    assert not teacher.asked


def test_another_cap_or_teacher_is_another_row_and_anything_else_is_not(tmp_path):
    out = tmp_path / "rows.jsonl"
    taught(EXAMPLES[:2], Scripted(), out)
    taught(EXAMPLES[:2], Scripted(cap=3), out)
    assert [row["cap"] for row in rows_of(out)] == [5, 5, 3, 3]
    again = Scripted(cost=1.0)
    taught(EXAMPLES[:2], again, out, concurrency=9, timeout=3.0, retries=0, requests_per_minute=1.0, max_cost=9.0)
    assert not again.asked


def test_whatever_determines_a_reply_makes_another_draw_and_its_gold_does_not():
    example, form = EXAMPLES[0], Form("instruct-1", 5, 0, 0.7, 256)

    def key(example=example, teacher="teacher", number=0, seed=5, **changes):
        return draw_of(example, (teacher,), replace(form, **changes), number, seed).key

    keys = [
        key(),
        key(replace(example, question="How many?")),
        key(replace(example, premise="Five apples.")),
        key(teacher="another"),
        key(number=1),
        key(seed=6),
        key(style="compact-1"),
        key(shots=1),
        key(temperature=0.5),
        key(max_tokens=60),
    ]
    assert len(set(keys)) == len(keys)
    assert key(replace(example, id="9", answer="9")) == keys[0]


def test_all_answers_that_count_are_in_the_row(tmp_path):
    """`edgedc screen` compares with them."""
    out = tmp_path / "rows.jsonl"
    taught([Example("1", "Why?", answer="9", answers=(("9",), ("8", "1")))], Scripted(), out)
    assert rows_of(out)[0]["answers"] == [["9"], ["8", "1"]]


def test_rows_of_another_verb_are_not_added_to(tmp_path):
    out, teacher = write_rows(tmp_path / "screened.jsonl", [{"key": "k", "verdict": True}]), Scripted()
    with pytest.raises(InputError, match="edgedc teach  did not write; give another file"):
        taught(EXAMPLES, teacher, out)
    assert (teacher.asked, out.read_text()) == ([], '{"key": "k", "verdict": true}\n')


@pytest.mark.parametrize("row", [{}, {"unsupported": 3}, {"simulated": []}, {"cost": "?"}, {"usage": {"tokens": 3}}])
def test_a_row_that_was_tampered_with_is_a_line(tmp_path, row):
    whole = {"outcome": "ok", "unsupported": [], "simulated": False, "cost": None, "usage": None, "teacher": "teacher"}
    out = write_rows(tmp_path / "rows.jsonl", [{"key": "k"} | (whole | row if row else {"outcome": "ok"})])
    with pytest.raises(InputError, match="edgedc teach  did not write; give another file"):
        taught(EXAMPLES, Scripted(cost=1.0), out)


def test_of_rows_that_are_there_memory_holds_only_what_is_counted(tmp_path):
    out = tmp_path / "rows.jsonl"
    taught([Example("0", "Why?", "p" * 100_000)], Scripted(), out)
    (row,) = rows_of(out)
    write_rows(out, [row | {"key": str(k)} for k in range(100)])  # 10 MB
    tracemalloc.start()
    try:
        taught(EXAMPLES[:1], Scripted(), out)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("reply", "outcome", "status"),
    [
        ("I would rather not.", "unparsable", "unparsed"),
        ("No decomposition", "ok", "not_needed"),
        ("1. a?\n2. b?\n" + "x" * 2000, "truncated", "unparsed"),
        (Generation("1. a?", Usage(9, 3), 0.1, 0.2, "abort"), "truncated", "unparsed"),  # its server gave up
        ("", "empty", "unparsed"),
        (Generation("", Usage(9, 3), 0.1, 0.2, "content_filter"), "refused", "unparsed"),
        ("1. a?\n2. b?\n3. c?\n4. d?\n5. e?\n6. f?", "over_cap", "decomposed"),
    ],
)
def test_odd_replies_are_kept_and_counted(tmp_path, reply, outcome, status):
    out = tmp_path / "rows.jsonl"
    result, _ = taught(EXAMPLES[:1], Scripted(reply), out)
    (row,) = rows_of(out)
    assert result.outcomes == {outcome: 1}
    text = reply.text if isinstance(reply, Generation) else reply[:1024]
    assert (row["status"], row["raw"]) == (status, text)


def test_what_failed_calls_cost_is_counted_in_the_next_run(tmp_path):
    failure = SolverTimeout("teacher: no answer")
    failure.cost = 0.25
    result, _ = taught(EXAMPLES, Scripted("1. A?", failure, cost=0.5), tmp_path / "rows.jsonl", concurrency=1)
    assert result.spent == pytest.approx(11 * 0.5 + 0.25)
    result, projection = taught(EXAMPLES, Scripted(cost=0.5), tmp_path / "rows.jsonl")
    assert projection.spent == pytest.approx(11 * 0.5 + 0.25)
    assert (projection.calls, projection.expected, projection.worst) == (1, pytest.approx(0.5), pytest.approx(5.0))
    assert result.spent == pytest.approx(12 * 0.5 + 0.25)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"draws": 2}, "--temperature 0.0: must be above 0, or all draws would be the same"),
        ({"teacher": ""}, "--teacher : must not be empty"),
        ({"draws": 0}, "--draws 0: must be at least 1"),
        ({"temperature": 2.5}, "--temperature 2.5"),
        ({"shots": 2}, "--shots 2: must be 0 or 1"),
        ({"shots": 1, "max_subquestions": 1}, "--max-subquestions 1: must be at least 2"),
        ({"max_subquestions": 0}, "--max-subquestions 0: must be at least 1, or none"),
        ({"requests_per_minute": 0.0}, "--requests-per-minute 0.0"),
        ({"max_cost": float("nan")}, "--max-cost nan"),
        ({"temperature": 0.7, "draws": 2}, "the task's own decompositions are always the same"),
        ({"teacher_url": "http://127.0.0.1:1/v1"}, "--teacher-url needs --teacher"),
        ({"teacher": "no-such.gguf"}, "no-such.gguf: no such file"),
        ({"teacher": "./nope"}, "./nope: no such file or folder, and no name in  edgedc models"),
        ({"teacher": "~/nope"}, "~/nope: no such file"),
        ({"teacher": "nope/"}, "nope/: no such file"),
        ({"teacher": "tests/nope"}, "for a model of that name at a server add --teacher-url"),
        ({"teacher": "default", "draws": 2, "temperature": 0.5}, "default: a model on this machine"),
        ({"teacher": "m", "teacher_url": "nonsense"}, "check --teacher-url"),
        ({"teacher": "m", "teacher_url": "http://127.0.0.1:1/v1", "max_cost": 1.0}, "no price is known for 'm'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_a_line(settings, said):
    with pytest.raises(InputError) as caught:
        find_teacher(TeachSettings(**settings))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_that_openai_hardly_has_is_not_sent_there_unasked(monkeypatch):
    for name in ("EDGEDC_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    with pytest.raises(InputError, match=r"bundle: no model here .* add --teacher-url"):
        find_teacher(TeachSettings(teacher="bundle"))
    assert find_teacher(TeachSettings(teacher="gpt-4o-mini")).where == "api.openai.com"
    assert find_teacher(TeachSettings(teacher="ft:mine", price_as="gpt-4o-mini")).where == "api.openai.com"
    assert find_teacher(TeachSettings(teacher="bundle", teacher_url="https://api.openai.com/v1")).name == "bundle"
    monkeypatch.setenv("EDGEDC_BASE_URL", "http://127.0.0.1:9/v1")
    assert find_teacher(TeachSettings(teacher="meta-llama/Llama-3")).where == "127.0.0.1:9"


def invoke(*args):
    return CliRunner().invoke(cli, ["teach", *map(str, args)])


def test_the_verb_teaches_over_http_within_its_budget(tmp_path):
    out = tmp_path / "rows.jsonl"
    with simulated_server(problems("train", 8), timing=AT_ONCE) as url:
        args = ("--limit", 8, "--teacher", MODEL, "--teacher-url", url, "--price-as", "gpt-4o", out)
        poor = invoke("--max-cost", 0.000001, *args)
        assert type(poor.exception) is BudgetError
        assert "Kept in" in poor.stderr
        assert not out.with_name("rows.jsonl.spending").exists()
        done = invoke("--max-cost", 1, *args)
        again = invoke("--max-cost", 1, *args)
    assert done.exit_code == again.exit_code == 0, done.output
    assert f"8 calls to make, at {host_of(url)}; about $" in done.stderr
    assert "never more than $1 in all" in done.stderr
    assert "simulated" in done.stderr
    assert done.stdout.startswith(f"{out}: 8 rows: 8 ok; $0.0")
    assert again.stdout == done.stdout
    rows = sorted(rows_of(out), key=lambda row: int(row["id"].split("-")[-1]))
    assert [row["subquestions"] for row in rows] == [p.decomposition.texts for p in problems("train", 8)]
    assert done.stdout.endswith(f"${sum(row['cost'] for row in rows):.6f}\n")


def test_an_answer_that_was_forgotten_or_corrected_is_put_in_and_nothing_is_paid_again(tmp_path):
    """Without one no row can be screened."""
    data, rows, link = tmp_path / "data.jsonl", tmp_path / "rows.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(rows)
    known = [{"question": p.question, "gold": p.answer} for p in problems("train", 5)]
    with simulated_server(problems("train", 5), timing=AT_ONCE) as url:
        args = ("--task", "jsonl", "--data", data, "--teacher", MODEL, "--teacher-url", url, link)
        write_rows(data, known)
        invoke(*args)
        before = rows_of(rows)
        done = invoke("--answer-column", "gold", *args)
        assert "note: 5 rows" in done.stderr
        assert "calls to make" not in done.stderr
        assert sorted(row["answer"] for row in rows_of(rows)) == sorted(str(row["gold"]) for row in known)
        write_rows(data, [known[0] | {"gold": 99}, *known])  # of a question that comes twice the first counts
        assert "note: 1 row of" in invoke("--answer-column", "gold", *args).stderr
        assert "note" not in invoke("--answer-column", "gold", *args).stderr
        assert "note" not in invoke(*args).stderr  # it takes none away
    assert {row["answer"] for row in rows_of(rows) if row["question"] == known[0]["question"]} == {"99"}
    assert [row | {"answer": ""} for row in rows_of(rows)] == before
    assert link.is_symlink()


def test_a_disk_that_is_full_behind_stdout_is_a_line(tmp_path):
    words = [sys.executable, "-m", "edgedc", "teach", "--limit", "2", str(tmp_path / "rows.jsonl")]
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert (run.returncode, len(rows_of(tmp_path / "rows.jsonl"))) == (1, 2)
    assert run.stderr.splitlines()[-1] == "edgedc: stdout: cannot be written: No space left on device"


def test_the_verb_says_so_when_nothing_came(tmp_path):
    out = tmp_path / "rows.jsonl"
    done = invoke("--limit", 2, "--teacher", "m", "--teacher-url", "http://127.0.0.1:9/v1", "--retries", 0, out)
    assert done.exit_code == 1
    assert done.stdout == f"{out}: 0 rows\n"
    assert "2 draws are missing" in str(done.exception)


def test_draws_differ_by_their_seed_and_a_larger_order_asks_only_for_what_is_new(tmp_path):
    out = tmp_path / "rows.jsonl"
    with simulated_server(problems("train", 30), timing=AT_ONCE) as url:
        args = ("--teacher", MODEL, "--teacher-url", url, "--temperature", 0.7, "--draw-seed", 5)
        assert invoke(*args, "--limit", 20, out).exit_code == 0
        grown = invoke(*args, "--limit", 30, "--draws", 3, "--concurrency", 9, out)
    assert "70 calls to make" in grown.stderr
    rows = rows_of(out)
    assert {(row["draw"], row["seed"]) for row in rows} == {(0, 5), (1, 6), (2, 7)}
    assert len({(row["id"], row["draw"]) for row in rows}) == len(rows) == 90
    by_draw = [{row["id"]: row["subquestions"] for row in rows if row["draw"] == k} for k in range(3)]
    assert by_draw[0] != by_draw[1] != by_draw[2]


@pytest.mark.parametrize(("cap", "said"), [("none", ""), ("2", "no more than two"), ("4", "no more than four")])
def test_the_cap_and_the_worked_example_reach_the_teacher(tmp_path, cap, said):
    prompts = []

    def reply(messages, *, seed=None):
        prompts.append(messages[0]["content"])
        return "1. A?\n2. B?\n3. C?"

    with serve(reply, "m", port=0, timing=AT_ONCE, simulated=False) as url:
        args = ("--limit", 2, "--teacher", "m", "--teacher-url", url, "--shots", 1, "--max-subquestions", cap)
        result = invoke(*args, tmp_path / "rows.jsonl")
    assert result.exit_code == 0, result.output
    assert ("no more than" in prompts[0]) == bool(said)
    assert all(said in prompt and prompt.count("For example") == 1 for prompt in prompts)
    rows = rows_of(tmp_path / "rows.jsonl")
    assert {row["cap"] for row in rows} == {None if cap == "none" else int(cap)}
    assert {(row["shots"], row["cost"], row["simulated"]) for row in rows} == {(1, None, False)}
    assert {row["outcome"] for row in rows} == {"over_cap" if cap == "2" else "ok"}


@pytest.mark.parametrize("kind", ["model folder", "bundle", "gguf"])
def test_a_model_on_this_machine_teaches(tmp_path, kind, model_folder, bundle_folder):
    """It knows the first six problems by heart, in the prompt style of its manifest, which a bare GGUF lacks."""
    teacher = {"model folder": model_folder, "bundle": bundle_folder, "gguf": tmp_path / "nano.gguf"}[kind]
    if kind == "gguf":
        shutil.copy(next(bundle_folder.glob("*q8_0*.gguf")), teacher)
    args = ("--limit", 6, "--teacher", teacher, "--max-tokens", 128, tmp_path / "rows.jsonl")
    done = invoke(*args)
    assert done.exit_code == 0, done.output
    assert "0 calls" not in invoke(*args).stderr
    rows = {row["id"]: row for row in rows_of(tmp_path / "rows.jsonl")}
    assert len(rows) == 6
    style = "instruct-1" if kind == "gguf" else "compact-1"
    told = {(row["prompt_style"], row["cost"], row["bytes_sent"], row["seed"]) for row in rows.values()}
    assert told == {(style, 0.0, 0, None)}
    assert {row["usage"]["source"] for row in rows.values()} == {"tokenizer"}
    if kind != "gguf":
        assert [rows[p.id]["subquestions"] for p in problems("train", 6)] == [
            p.decomposition.texts for p in problems("train", 6)
        ]
    with pytest.raises(InputError, match="always the same"):
        find_teacher(TeachSettings(teacher=str(teacher), draws=2, temperature=0.7))


def test_a_gguf_of_a_bundle_goes_by_the_bundle(bundle_folder):
    with pytest.raises(InputError, match="name the bundle"):
        find_teacher(TeachSettings(teacher=str(next(bundle_folder.glob("*.gguf")))))


INTERRUPTED = """
import os, signal, sys
from edgedc.backends.llamacpp import LlamaCppBackend
from edgedc.cli import main
from train.calls import engines

engines.GRACE_S = 0.0  # a larger model's reply takes longer than the grace
generate = LlamaCppBackend.generate

def interrupted(self, *args, on_text, **how):
    def hear(piece):
        os.kill(os.getpid(), signal.SIGINT)
        on_text(piece)
    return generate(self, *args, on_text=hear, **how)

LlamaCppBackend.generate = interrupted
main(["teach", "--teacher", *sys.argv[1:]])
"""


def test_ctrl_c_does_not_free_a_model_that_is_at_work(tmp_path, bundle_folder):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            INTERRUPTED,
            shutil.copy(next(bundle_folder.glob("*q8_0*.gguf")), tmp_path),
            "rows.jsonl",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        timeout=120,
        check=False,
    )
    assert done.returncode == 130, (done.returncode, -signal.SIGSEGV, done.stderr)
    assert "Kept in rows.jsonl" in done.stderr
