"""edgedc ask and edgedc simulate, as a person runs them, against the simulated solver."""

import io
import json
import os
import random
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from conftest import Run
from counting import LIST, Counting, counting, reply_to
from forking import mother
from wire import delta, sse
from wire import server as wire_server

from edgedc.commands._paid import Job, prompts
from edgedc.outbox import Outbox
from edgedc.solvers.loopback import Timing
from edgedc.solvers.simulated import MODEL, Skill, simulated_server
from edgedc.tasks.microworld import problems

pytestmark = pytest.mark.usefixtures("alone")

PROBLEM = next(problem for problem in problems("test", 50) if len(problem.steps) == 3)
NOWHERE = ("--solver-url", "http://127.0.0.1:1")


@pytest.fixture
def url() -> Iterator[str]:
    with simulated_server([PROBLEM], Skill(0, 0, 0), timing=Timing(0, 0)) as address:
        yield address


@pytest.fixture
def run(edgedc: Run) -> Run:
    return partial(edgedc, "ask")


def test_the_answer_goes_to_stdout_and_the_measurements_to_stderr(run: Run, url: str) -> None:
    code, out, err = run(PROBLEM.question, "--solver-url", url, "--solver-model", MODEL, "--mode", "cot")
    assert code == 0
    assert out.endswith(f"The answer is: {PROBLEM.answer}\n")
    assert "(simulated)" in err
    assert re.search(r"\d+ \+ \d+ tokens in \d", err)
    assert re.search(r"\d+ bytes left this device", err)
    assert "no price known" in err
    assert "$0" not in err


def test_a_dash_reads_the_question_from_stdin(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{PROBLEM.question}\n".encode())))
    code, out, _ = run("-", "--solver-url", url, "--solver-model", MODEL, "--mode", "cot")
    assert (code, out.splitlines()[-1]) == (0, f"The answer is: {PROBLEM.answer}")


def test_json_has_everything_and_money_where_the_price_is_known(run: Run, url: str) -> None:
    where = ("--solver-url", url, "--solver-model", MODEL, "--mode", "single-stage", "--json")
    row = json.loads(run(PROBLEM.question, *where)[1])
    assert (row["answer"], row["mode"], row["simulated"], row["cost_usd"]) == (
        PROBLEM.answer,
        "single-stage",
        True,
        None,
    )
    row = json.loads(run(PROBLEM.question, *where, "--price-as", "gpt-4o-mini", "--max-cost", "1")[1])
    usage = row["usage"]
    assert row["cost_usd"] == pytest.approx(usage["input_tokens"] * 1.5e-7 + usage["output_tokens"] * 6e-7)
    assert row["stages"][0]["bytes_sent"] == row["bytes_sent"] > 0


def test_a_ceiling_that_does_not_allow_a_call_exits_4(run: Run, url: str) -> None:
    where = ("--solver-url", url, "--solver-model", MODEL, "--mode", "cot", "--price-as", "gpt-4o-mini")
    code, out, err = run(PROBLEM.question, *where, "--max-cost", "0.000001")
    assert (code, out) == (4, "")
    assert "--max-cost" in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((" ", "--solver-model", "x"), "empty"),
        (("Q\udce4?", "--solver-model", "x", "--mode", "cot"), "lone surrogate"),
        (("Q?", "--premise", "\udce4", "--solver-model", "x", "--mode", "cot"), "lone surrogate"),
        (("Q?",), "--solver-model"),
        (("Q?", "--solver-model", "gpt-4o-mini", "--mode", "cot"), "EDGEDC_API_KEY"),
        (("Q?", "--solver-model", MODEL, "--max-cost", "1"), "start it with  edgedc simulate"),
        (("Q?", "--solver-model", "x", *NOWHERE, "--max-cost", "1"), "--price-as"),
        (("Q?", "--solver-model", "x", *NOWHERE, "--price-as", "nobody"), "nobody"),
        (("Q?", "--solver-model", "x", *NOWHERE, "--prices", "none.json"), "none.json"),
        (("Q?", "--solver-model", "gpt-4o", "--max-cost", "-1"), "--max-cost"),
        (("Q?", "--solver-model", "x", "--timeout", "0"), "--timeout"),
        (("Q?", "--solver-model", "x", "--decomposer-url", "http://127.0.0.1:1"), "--decomposer-model"),
        (("Q?", "--solver-model", "x", "--decomposer-model", "d", "--model", "b"), "give one of them"),
        (("--solver-model", "x"), "--input"),
        (("Q?", "--input", "q", "--output", "a", "--solver-model", "x"), "leave out QUESTION"),
        (("--input", "absent", "--output", "a", "--solver-model", "x"), "absent"),
        (("Q?", "--solver-model", "x", "--solver-url", "nowhere"), "--solver-url"),
        (("Q?", "--solver-model", "x", "--solver-url", "http://127.0.0.1:1", "--model", "none"), "none"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(run: Run, args: tuple[str, ...], said: str) -> None:
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_solver_that_is_down_is_said_in_the_last_line(run: Run) -> None:
    where = ("--solver-url", "http://127.0.0.1:1/v1", "--solver-model", "x", "--mode", "cot", "--timeout", "1")
    code, out, err = run("Q?", *where)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("edgedc: 127.0.0.1:1: cannot be reached")
    assert "0 bytes left this device" in err


def test_what_was_never_sent_is_not_said_to_be_billed(
    run: Run, server: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedc.solvers.openai._FIRST_WAIT_S", 0.01)
    args = ("Q?", *far(server, "--mode", "cot"))
    server.fault = lambda _prompt, _number: "drop"
    assert "\n2 more calls failed and were repeated; a provider may bill 2 of those too\n" in run(*args)[2]
    row = json.loads(run(*args, "--json")[1])
    assert (row["retried"], row["retried_doubtful"]) == (2, 2)
    server.unplug()
    assert "\n2 more calls failed and were repeated\n" in run(*args)[2]
    row = json.loads(run(*args, "--json")[1])
    assert (row["retried"], row["retried_doubtful"]) == (2, 0)


def test_the_repeats_of_a_decomposer_elsewhere_are_counted(
    run: Run, server: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedc.solvers.openai._FIRST_WAIT_S", 0.01)
    server.fault = lambda _prompt, number: "busy" if number == 1 else ""
    row = json.loads(run("Q?", *far(server), "--json")[1])
    assert (row["status"], row["retried"]) == ("answered", 1)


def test_the_whole_pairing(run: Run, bundle_folder: Path) -> None:
    """The fixture's model knows the first train problems by heart."""
    problem = next(p for p in problems("train", 6) if len(p.steps) > 1)
    with simulated_server([problem], Skill(0, 1, 1), timing=Timing(0, 0)) as url:
        where = ("--solver-url", url, "--solver-model", MODEL, "--model", str(bundle_folder))
        code, out, err = run(problem.question, *where)
        row = json.loads(run(problem.question, *where, "--mode", "interactive", "--json")[1])
    assert code == 0
    assert out.startswith(f"1. {problem.steps[0].ask}\n2. ")
    assert out.endswith(f"The answer is: {problem.answer}\n")
    assert re.search(r"^decompose: .+, \d+ \+ \d+ tokens in \S+ s$", err, re.MULTILINE)
    assert (row["mode"], row["answer"], row["notes"]) == ("interactive", problem.answer, [])
    assert row["subquestions"] == [step.ask for step in problem.steps]
    first, *others = row["stages"]
    assert (first["name"], first["where"], first["bytes_sent"]) == ("decompose", "local", 0)
    assert [stage["where"] for stage in others] == ["remote"] * (len(problem.steps) + 1)
    assert row["bytes_sent"] == sum(stage["bytes_sent"] for stage in others) > 0


@pytest.fixture
def server() -> Iterator[Counting]:
    with counting() as made:
        yield made


def far(server: Counting, *more: str) -> list[str]:
    """Decomposer and solver at the server."""
    return ["--decomposer-model", "d", "--solver-model", "m", "--solver-url", server.url, *more]


@pytest.mark.parametrize(
    ("said", "mode"), [(LIST, "static"), ("No decomposition", "single-stage"), ("I would rather not.", "cot")]
)
def test_auto_asks_as_the_decomposition_has_it(run: Run, server: Counting, said: str, mode: str) -> None:
    server.reply = lambda prompt: said if "break down" in prompt else reply_to(prompt)
    row = json.loads(run("Q?", *far(server), "--json")[1])
    assert (row["mode"], row["status"], row["answered_by"]) == (mode, "answered", "remote")
    assert (row["notes"] == []) == (mode == "static")
    assert server.asked == 2


def test_each_stage_has_its_tokens_seconds_dollars_and_bytes(run: Run, server: Counting) -> None:
    code, out, err = run("Q?", *far(server, "--mode", "interactive", "--price-as", "gpt-4o-mini"))
    assert code == 0
    assert out.startswith(f"{LIST}\n\n")
    for stage, model in [("decompose", "d"), ("step 1", "m"), ("step 2", "m"), ("step 3", "m"), ("solve", "m")]:
        line = next(line for line in err.splitlines() if line.startswith(stage))
        assert re.fullmatch(rf"{stage}: {model} at \S+, \d+ \+ \d+ tokens in \S+ s, \$0\.0\d+, \d+ bytes", line)
    row = json.loads(run("Q?", *far(server, "--mode", "interactive", "--price-as", "gpt-4o-mini"), "--json")[1])
    assert row["cost_usd"] == pytest.approx(sum(stage["cost_usd"] for stage in row["stages"]))
    assert row["booked_usd"] == pytest.approx(row["cost_usd"])
    assert row["bytes_sent"] == sum(stage["bytes_sent"] for stage in row["stages"])
    assert all(stage["usage"]["source"] == "server" and stage["total_s"] > 0 for stage in row["stages"])


def test_what_a_failed_call_may_cost_is_told_only_where_a_price_is_known(run: Run, server: Counting) -> None:
    server.fault = lambda _prompt, _number: "busy"
    asked = ("Q?", *far(server, "--mode", "cot", "--timeout", "1", "--json"))
    row = json.loads(run(*asked)[1])
    assert (row["status"], row["cost_usd"], row["booked_usd"]) == ("partial", None, None)
    row = json.loads(run(*asked, "--price-as", "gpt-4o-mini")[1])
    assert (row["status"], row["cost_usd"]) == ("partial", 0)
    assert row["booked_usd"] > 0


def test_a_key_goes_to_its_own_server_only(run: Run, server: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDC_API_KEY", "sk-solver")
    with counting() as other:
        assert run("Q?", *far(server, "--decomposer-url", other.url))[0] == 0
        monkeypatch.setenv("EDGEDC_DECOMPOSER_API_KEY", "sk-decomposer")
        assert run("Q?", *far(server, "--decomposer-url", other.url))[0] == 0
        assert other.keys == {"", "Bearer sk-decomposer"}
    assert server.keys == {"Bearer sk-solver"}


def test_the_ceiling_of_a_day_counts_what_other_runs_spent(run: Run, server: Counting) -> None:
    price = ("--price-as", "gpt-4o", "--mode", "cot", "--max-tokens", "100")
    assert run("Q?", *far(server, *price))[0] == 0  # has no ceiling, and is booked all the same
    row = json.loads(run("Q?", *far(server, *price), "--json", "--max-cost-per-day", "0.05")[1])
    assert row["status"] == "answered"
    code, out, err = run("Q?", *far(server, *price), "--max-cost-per-day", str(2 * row["cost_usd"]))
    assert (code, out) == (4, "")
    assert f"${2 * row['cost_usd']:.6f} of --max-cost-per-day" in err
    assert "--max-cost-per-day" in err
    assert server.asked == 2


def test_on_a_terminal_the_answer_shows_as_it_comes_and_cannot_steer_it(server: Counting) -> None:
    server.reply = lambda prompt: LIST if "break down" in prompt else "One \x1b[31mtwo\x07 " + "three " * 40
    held = []
    server.fault = lambda _prompt, number: "pause" if number == 2 else ""
    terminal, inner = os.openpty()
    command = [sys.executable, "-m", "edgedc", "ask", "Q?", *far(server)]
    with subprocess.Popen(command, stdout=inner, stderr=subprocess.PIPE, text=True) as process:
        os.close(inner)
        said = b""
        while b"two" not in said:  # the first half of the reply, while the server holds the other back
            said += os.read(terminal, 4096)
        held.append(process.poll())
        server.resume.set()
        try:
            while piece := os.read(terminal, 4096):
                said += piece
        except OSError:  # the other end is closed
            pass
        assert process.wait(20) == 0, process.stderr and process.stderr.read()
    os.close(terminal)
    assert held == [None]
    text = said.decode().replace("\r\n", "\n")
    assert text == f"{LIST}\n\nOne \ufffd[31mtwo\ufffd {'three ' * 40}\n"


# -- many questions


def questions(path: Path, count: int) -> Path:
    rows = [{"id": f"q{k}", "question": f"How many on day {k}?", "premise": "Hens."} for k in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_file_is_answered_in_order_and_goes_on_where_the_network_went(
    run: Run, server: Counting, tmp_path: Path
) -> None:
    source, output = questions(tmp_path / "q.jsonl", 4), tmp_path / "a.jsonl"
    batch = ["--input", str(source), "--output", str(output), *far(server, "--mode", "interactive")]
    server.fault = lambda _prompt, number: "busy" if number > 9 else ""  # in the middle of the second question
    code, out, err = run(*batch)
    assert (code, out) == (1, "")
    assert "1 of 4 questions are answered" in err.splitlines()[-1]
    assert len(rows_of(output)) == 1
    server.fault = lambda _prompt, _number: ""
    assert run(*batch)[0] == 0
    rows = rows_of(output)
    assert [row["id"] for row in rows] == ["q0", "q1", "q2", "q3"]
    assert all(row["status"] == "answered" and row["mode"] == "interactive" for row in rows)
    assert server.twice == []
    assert server.billed.total() == 4 * 5
    asked = server.asked
    assert run(*batch)[0] == 0  # nothing is left to do
    assert (server.asked, rows_of(output)) == (asked, rows)


def test_a_question_that_the_server_refuses_is_a_failed_row_and_the_rest_goes_on(
    run: Run, server: Counting, tmp_path: Path
) -> None:
    source, output = questions(tmp_path / "q.jsonl", 3), tmp_path / "a.jsonl"
    server.fault = lambda prompt, _: "refuse" if "day 1" in prompt else ""
    code, _, err = run("--input", str(source), "--output", str(output), *far(server, "--mode", "cot"))
    assert code == 1
    assert "1 of 3 questions failed" in err
    assert [row["status"] for row in rows_of(output)] == ["answered", "failed", "answered"]
    assert "400" in rows_of(output)[1]["error"]


def test_an_empty_reply_is_no_answer_and_is_not_paid_for_again(run: Run, server: Counting, tmp_path: Path) -> None:
    server.reply = lambda prompt: "" if "day 1" in prompt else reply_to(prompt)
    code, out, err = run("What of day 1?", *far(server, "--mode", "cot"))
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("edgedc: the solver's reply is empty (stop), and it is paid for")
    assert server.asked == 1
    with closing(Outbox(tmp_path / "home" / "outbox.sqlite3")) as box:
        assert box.questions() == []
    source, output = questions(tmp_path / "q.jsonl", 3), tmp_path / "a.jsonl"
    batch = ("--input", str(source), "--output", str(output), *far(server, "--mode", "cot"))
    for _ in range(2):
        code, _, err = run(*batch)
        assert code == 1
        assert "2 answered, 1 failed" in err
        assert [row["status"] for row in rows_of(output)] == ["answered", "empty", "answered"]
        assert server.asked == 4


def test_a_bill_beyond_what_a_call_can_have_had_is_booked_and_said(run: Run) -> None:
    usage = {"prompt_tokens": 100_000_000, "completion_tokens": 5}
    act = sse(delta("stop", content="The answer is: 7"), {"choices": [], "usage": usage}, "[DONE]")
    with wire_server(act) as made:
        where = ("--solver-url", made.url, "--solver-model", "m", "--price-as", "gpt-4o-mini")
        code, out, _ = run("Q?", *where, "--mode", "cot", "--json")
    row = json.loads(out)
    assert (code, row["booked_usd"]) == (0, pytest.approx(15.0, rel=1e-3))
    assert row["notes"] == [
        "the server counts 100,000,000 + 5 tokens (solve), more than the call can have had: check its bill"
    ]


def kill_batches(server: Counting, tmp_path: Path, kills: int) -> None:
    count = max(4, kills)
    source, output = questions(tmp_path / "q.jsonl", count), tmp_path / "a.jsonl"
    command = ["ask", "--input", str(source), "--output", str(output), *far(server, "--mode", "interactive")]
    server.delay_s = 0.01
    chance = random.Random(2)
    with mother(tmp_path / "printed") as family:
        for _ in range(kills):
            before, child = server.asked, family.run(command)
            child.until(lambda before=before: server.asked > before)
            time.sleep(chance.uniform(0, 0.3))
            child.kill()
        assert family.run(command).wait() == 0
    rows = rows_of(output)
    assert [row["id"] for row in rows] == [f"q{k}" for k in range(count)]
    assert all(row["status"] == "answered" for row in rows)
    # A kill loses at most the replies that are in the air: two, where two steps are asked at the same time.
    assert server.billed.total() <= 5 * count + 2 * kills


def test_a_killed_batch_loses_and_doubles_no_row(server: Counting, tmp_path: Path) -> None:
    kill_batches(server, tmp_path, 6)


@pytest.mark.slow
def test_a_batch_that_is_killed_a_hundred_times(server: Counting, tmp_path: Path) -> None:
    kill_batches(server, tmp_path, 100)


# Who takes a question out of the outbox is at it until killed: between the row and that there is no other time for it.
ENDLESS = """
CREATE VIEW endless AS WITH RECURSIVE up (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up) SELECT n FROM up;
CREATE TRIGGER slow BEFORE DELETE ON question BEGIN SELECT count(*) FROM endless; END;
"""


def test_what_a_batch_was_killed_behind_leaves_the_outbox_when_the_batch_goes_on(
    run: Run, edgedc: Run, server: Counting, tmp_path: Path
) -> None:
    source, output, other = questions(tmp_path / "q.jsonl", 2), tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    path = tmp_path / "home" / "outbox.sqlite3"

    def batch(output: Path) -> list[str]:
        return ["--input", str(source), "--output", str(output), *far(server, "--mode", "static")]

    def waiting() -> list[tuple[str, str]]:
        rows = [json.loads(line) for line in edgedc("flush", "--list", "--json")[1].splitlines()]
        return [(row["question"], row["batch"]) for row in rows]

    def solver_away(prompt: str, _: int) -> str:
        return "" if "break down" in prompt else "busy"

    server.fault = solver_away
    assert run(*batch(other))[0] == 1
    server.fault = lambda _prompt, _number: ""
    with sqlite3.connect(path) as sql:
        sql.executescript(ENDLESS)
    with mother(tmp_path / "printed") as family:
        child = family.run(["ask", *batch(output)])
        child.until(lambda: output.exists() and output.read_bytes().endswith(b"\n"))
        child.kill()
    with sqlite3.connect(path) as sql:
        sql.execute("DROP TRIGGER slow")
    day_0, day_1 = ("How many on day 0?", "How many on day 1?")
    assert waiting() == [(day_0, str(other)), (day_0, str(output))]
    assert [row["question"] for row in rows_of(output)] == [day_0]

    # What is answered goes; what is begun only, or another batch's, stays, and nothing of it is paid for again.
    server.fault = solver_away
    assert run(*batch(output))[0] == 1
    assert waiting() == [(day_0, str(other)), (day_1, str(output))]
    server.fault = lambda _prompt, _number: ""
    assert [run(*batch(output))[0], run(*batch(other))[0]] == [0, 0]
    assert waiting() == []
    assert server.billed.total() == 2 * 2 * 2
    assert [row["id"] for row in [*rows_of(output), *rows_of(other)]] == ["q0", "q1"] * 2


# -- with a model here


def test_a_question_that_lost_its_process_before_its_decomposition_is_decomposed_by_flush(
    run: Run, edgedc: Run, server: Counting, bundle_folder: Path, tmp_path: Path
) -> None:
    job = Job("Q?", "", "static", 50, "m", server.url, "", str(bundle_folder), "", "", prompts())
    box = Outbox(tmp_path / "home" / "outbox.sqlite3")
    box.release(box.add(job.row()).id)
    box.close()
    code, out, _ = edgedc("flush", "--json")
    assert not code
    row = json.loads(out)
    assert [(stage["name"], stage["where"]) for stage in row["stages"]] == [("decompose", "local"), ("solve", "remote")]
    assert server.asked == 1


def trained_by(bundle: Path, method: str, folder: Path) -> Path:
    """The bundle under the name of another kind of student. What it says is not the point."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"method": method}))
    return folder


def test_a_model_here_answers_where_the_solver_is_away_and_says_so(
    run: Run, edgedc: Run, server: Counting, bundle_folder: Path, tmp_path: Path
) -> None:
    server.fault = lambda _prompt, number: "" if number < 3 else "busy"
    answering = trained_by(bundle_folder, "S_E-T", tmp_path / "answering")
    here = ("--fallback-model", str(answering), "--max-tokens", "20")
    row = json.loads(run("Q?", *far(server, "--mode", "interactive"), *here, "--json")[1])
    assert (row["status"], row["answered_by"], row["partial"]) == ("answered", "local", False)
    assert any("answered on this device by nano" in note for note in row["notes"])
    wheres = {stage["name"]: stage["where"] for stage in row["stages"] if stage["finish_reason"] != "failed"}
    assert (wheres["decompose"], wheres["solve"]) == ("remote", "local")
    assert edgedc("flush", "--list")[1] == ""  # it has its answer, and waits for no other
    decomposing = trained_by(bundle_folder, "S_D-T", tmp_path / "decomposing")
    code, _, err = run("Q?", *far(server), "--fallback-model", str(decomposing))
    assert code == 2
    assert "trained by S_D-T to decompose, not to answer" in err


def test_a_row_of_a_batch_that_a_model_here_has_answered_is_that_models(
    run: Run, server: Counting, bundle_folder: Path, tmp_path: Path
) -> None:
    server.fault = lambda prompt, _: "busy" if "day 1" in prompt else ""
    one, other = (trained_by(bundle_folder, method, tmp_path / method) for method in ("S_E-T", "Direct"))
    source, output = questions(tmp_path / "q.jsonl", 3), tmp_path / "a.jsonl"
    batch = ["--input", str(source), "--output", str(output), *far(server, "--mode", "cot"), "--max-tokens", "20"]
    assert run(*batch, "--fallback-model", str(one))[0] == 0
    rows, asked = output.read_text(), server.asked
    assert [row["answered_by"] for row in rows_of(output)] == ["remote", "local", "remote"]
    for here in ((), ("--fallback-model", str(other))):
        code, _, err = run(*batch, *here)
        assert (code, output.read_text()) == (2, rows)
        assert "row 2 is not this run's (another model, setting or input made it, or another --fallback-model)" in err
    assert run(*batch, "--fallback-model", str(one))[0] == 0
    assert (server.asked, output.read_text()) == (asked, rows)
    first, _ = rows.split("\n", 1)
    output.write_text(f"{first}\n")  # the solver's own rows are whatever stands in for it
    assert run(*batch, "--fallback-model", str(other))[0] == 0
    assert [row["answered_by"] for row in rows_of(output)] == ["remote", "local", "remote"]
    assert output.read_text().startswith(first)
    server.fault = lambda _prompt, _number: ""
    output.write_text(f"{first}\n")
    assert run(*batch)[0] == 0
    assert [row["answered_by"] for row in rows_of(output)] == ["remote"] * 3


def test_simulate_serves_until_it_is_interrupted_and_its_example_works(run: Run) -> None:
    command = [sys.executable, "-m", "edgedc", "simulate", "--port", "0", "--count", "30", "--first-token-s", "0"]
    with subprocess.Popen([*command, "--reasoned", "0"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(6)]
        example = shlex.split(next(line for line in lines if "--mode cot" in line))
        code, out, _ = run(*example[2:])
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert example[:2] == ["edgedc", "ask"]
    assert "simulated" in lines[0]
    assert code == 0
    known = next(p for p in problems("test", 30) if p.question == example[2])
    assert out.endswith(f"The answer is: {known.answer}\n")
