"""edgedc ask when the network goes, and edgedc flush when it is back: nothing lost, nothing asked or shown twice."""

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Run
from counting import LIST, Counting, counting
from forking import Child, Mother, mother

QUESTION = "How many eggs are left?"
KEY = "sk-planted-0123456789abcdef"


@pytest.fixture
def server() -> Iterator[Counting]:
    with counting() as made:
        yield made


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, alone: Path) -> Path:
    monkeypatch.setenv("EDGEDC_API_KEY", KEY)
    return alone


@pytest.fixture
def run(edgedc: Run) -> Run:
    return edgedc


def rows(run: Run, *args: str) -> list[dict]:
    return [json.loads(line) for line in run(*args)[1].splitlines()]


def asked(server: Counting, mode: str = "interactive", question: str = QUESTION, patience: float = 4) -> list[str]:
    """`edgedc ask` with both models at the server. Where nothing answers, nothing is gained by patience."""
    models = ["--decomposer-model", "d", "--solver-model", "m", "--solver-url", server.url]
    return ["ask", question, *models, "--mode", mode, "--timeout", str(patience if server.plugged else 0.2)]


def waiting(run: Run) -> list[dict]:
    return rows(run, "flush", "--list", "--json")


def test_what_cannot_be_sent_is_printed_as_far_as_it_is_and_waits(run: Run, server: Counting) -> None:
    server.fault = lambda prompt, _: "" if "break down" in prompt else "busy"
    code, out, err = run(*asked(server, "static"))
    assert (code, out) == (1, LIST + "\n")
    assert "edgedc flush" in err.splitlines()[-1]
    row = json.loads(run(*asked(server, "static"), "--json")[1])
    assert (row["partial"], row["status"], row["answer"], row["answered_by"]) == (True, "partial", "", None)
    assert row["subquestions"] == [line[3:] for line in LIST.splitlines()]
    assert [question["key"] for question in waiting(run)][1] == row["key"]

    server.fault = lambda _prompt, _number: ""
    code, out, err = run("flush")
    assert code == 0
    assert out.count(f"# {QUESTION}\n\n{LIST}\n\nLet me think.\nThe answer is: ") == 2
    assert "2 answered" in err
    assert waiting(run) == []
    assert run("flush") == run("flush", "--list") == (0, "", "nothing waits\n")


def test_without_an_outbox_nothing_waits(run: Run, home: Path, server: Counting) -> None:
    server.unplug()
    code, out, err = run(*asked(server, "cot"), "--no-outbox")
    assert (code, out) == (1, "")
    assert "flush" not in err
    assert not home.exists()
    code, out, err = run("flush")
    assert (code, out, err) == (0, "", "nothing waits\n")


def test_an_answered_question_leaves_nothing_behind(run: Run, home: Path, server: Counting) -> None:
    assert run(*asked(server))[0] == 0
    assert waiting(run) == []
    assert not any(b"eggs" in file.read_bytes() for file in home.iterdir())


FAULTS = ["unplugged", *(f"busy {number}" for number in (1, 2, 3, 4, 5)), "drop 2", "drop 5", "cut 1", "cut 4"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_network_that_goes_at_any_call_costs_nothing_twice(run: Run, server: Counting, fault: str) -> None:
    """Decomposition, two steps at the same time, the one that needs both, the question: the network goes at one."""
    if fault == "unplugged":
        server.unplug()
    else:
        how, number = fault.split()
        server.fault = lambda _prompt, count: how if count >= int(number) else ""
    code, _, _ = run(*asked(server, patience=1))
    assert code == 1
    before = server.billed.copy()
    (question,) = waiting(run)
    assert len(question["received"]) == before.total()

    server.fault = lambda _prompt, _number: ""
    if fault == "unplugged":
        server.plug()
    (row,) = rows(run, "flush", "--json")
    assert server.twice == []
    assert server.billed.total() == 5
    assert row["mode"] == "interactive"
    assert [s["name"] for s in row["stages"] if s["finish_reason"] != "failed"] == [
        *("decompose", "step 1", "step 2", "step 3", "solve")
    ]
    assert row["answer"].isdigit()
    assert waiting(run) == []
    assert run("flush")[:2] == (0, "")


def test_a_stream_that_is_unplugged_in_the_middle_is_asked_again_and_only_that(run: Run, server: Counting) -> None:
    def fault(_prompt: str, number: int) -> str:
        return "cut" if number == 2 else "drop" if number > 2 else ""

    server.fault = fault
    assert run(*asked(server, "static", patience=1))[0] == 1
    server.unplug()
    assert run("flush", "--timeout", "0.2")[0] == 1  # still away: it stays
    (question,) = waiting(run)
    assert question["attempts"] == 2
    assert "cannot be reached" in question["error"]
    server.fault = lambda _prompt, _number: ""
    server.plug()
    assert run("flush")[0] == 0
    assert server.twice == []
    assert server.billed.total() == 2


def test_what_one_server_refuses_does_not_block_the_others(run: Run, server: Counting) -> None:
    with counting() as other:
        server.fault = other.fault = lambda _prompt, _number: "busy"
        for number in range(3):
            assert run(*asked(server, "cot", f"Question {number}?"))[0] == 1
        assert run(*asked(other, "cot", "Elsewhere?"))[0] == 1
        server.fault = lambda prompt, _: "refuse" if "Question 1?" in prompt else ""
        other.fault = lambda _prompt, _number: "key"
        code, out, err = run("flush", "--json")
        assert code == 1
        assert [json.loads(line)["question"] for line in out.splitlines()] == ["Question 0?", "Question 2?"]
        assert "1 still waiting, 1 refused for good" in err.splitlines()[-1]
        states = {question["question"]: question["state"] for question in waiting(run)}
        assert states == {"Question 1?": "refused", "Elsewhere?": "waiting"}
        # The one that was refused is not asked again, the other is.
        requests, other.fault = server.asked, lambda _prompt, _number: ""
        assert run("flush")[0] == 0
        assert server.asked == requests
    (refused,) = waiting(run)
    assert run("flush", "--drop", refused["key"])[0] == 0
    assert waiting(run) == []
    code, _, err = run("flush", "--drop", "nonsense")
    assert code == 2
    assert "nonsense" in err


def test_a_server_that_is_away_is_not_asked_for_each_question(run: Run, server: Counting) -> None:
    server.fault = lambda _prompt, _number: "busy"
    for number in range(4):
        run(*asked(server, "cot", f"Question {number}?"))
    before = server.asked
    assert run("flush")[0] == 1
    assert server.asked - before <= 3  # one question, with its retries
    assert len(waiting(run)) == 4


def test_another_server_can_be_asked_instead(run: Run, server: Counting) -> None:
    server.unplug()
    run(*asked(server, "cot"))
    with counting() as other:
        (row,) = rows(run, "flush", "--json", "--solver-url", other.url, "--solver-model", "other")
        assert other.billed.total() == 1
    assert row["solver"] == "other"


def test_another_model_has_its_own_price(run: Run, server: Counting) -> None:
    server.unplug()
    run(*asked(server, "cot"), "--price-as", "gpt-4o-mini")
    server.plug()
    (row,) = rows(run, "flush", "--json", "--solver-model", "gpt-4o")
    assert row["price"]["model"] == "gpt-4o"
    assert row["cost_usd"] > 10 * (row["usage"]["input_tokens"] * 1.5e-7 + row["usage"]["output_tokens"] * 6e-7)


def test_another_model_s_price_is_asked_for_where_there_is_a_ceiling(run: Run, server: Counting) -> None:
    server.unplug()
    run(*asked(server, "cot"), "--price-as", "gpt-4o-mini")
    server.plug()
    code, _, err = run("flush", "--solver-model", "dear", "--max-cost", "1")
    assert (code, server.asked) == (1, 0)
    assert "no price is known for 'dear'" in err
    assert run("flush", "--solver-model", "dear", "--max-cost", "1", "--price-as", "gpt-4o")[0] == 0


def test_each_question_is_priced_as_it_was_asked(run: Run, server: Counting) -> None:
    server.unplug()
    for price in ("gpt-4o-mini", "gpt-4o"):
        run(*asked(server, "cot"), "--price-as", price)
    server.plug()
    assert [row["price"]["model"] for row in rows(run, "flush", "--json")] == ["gpt-4o-mini", "gpt-4o"]


def test_steps_that_another_model_answered_are_told(run: Run, server: Counting) -> None:
    server.fault = lambda prompt, _: "busy" if "How much is " in prompt.rpartition("Next subquestion")[2] else ""
    run(*asked(server), "--price-as", "gpt-4o")
    server.fault = lambda *_: ""
    (row,) = rows(run, "flush", "--json", "--solver-model", "gpt-4o-mini")
    assert any(note.startswith("2 of its steps were answered by m: cost_usd has them") for note in row["notes"])


def test_answers_go_to_a_file_once(run: Run, server: Counting, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    server.unplug()
    for number in range(3):
        run(*asked(server, "cot", f"Question {number}?"))
    server.plug()
    assert run("flush", "--output", str(output))[:2] == (0, "")
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["question"] for row in rows] == [f"Question {number}?" for number in range(3)]
    assert len({row["key"] for row in rows}) == 3


def test_where_nothing_can_be_shown_no_more_is_paid_for(run: Run, server: Counting) -> None:
    server.unplug()
    for number in range(3):
        assert run(*asked(server, "cot", f"How many eggs are {number}?"))[0] == 1
    server.plug()
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-m", "edgedc", "flush"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "edgedc: stdout: cannot be written: No space left on device\n")
    assert server.billed.total() == 1
    assert len(rows(run, "flush", "--json")) == 3
    assert server.billed.total() == 3


def test_an_empty_reply_is_told_and_does_not_wait(run: Run, server: Counting) -> None:
    server.unplug()
    for number in range(2):
        assert run(*asked(server, "cot", f"Question {number}?"))[0] == 1
    server.plug()
    server.reply = lambda prompt: "" if "Question 0" in prompt else "The answer is: 7"
    code, out, err = run("flush")
    assert (code, out) == (1, "# Question 0?\n\n\n\n# Question 1?\n\nThe answer is: 7\n\n")
    assert "1 answered" in err
    assert "0 still waiting, 1 with an empty reply, the first because: the solver's reply is empty (stop)" in err
    assert run("flush") == (0, "", "nothing waits\n")


@pytest.mark.parametrize("empty", ["--drop", "--solver-url", "--solver-model"])
def test_a_value_that_is_empty_is_no_word_to_send_everything(run: Run, server: Counting, empty: str) -> None:
    server.unplug()
    assert run(*asked(server, "cot"))[0] == 1
    server.plug()
    code, out, err = run("flush", empty, "")
    assert (code, out) == (2, "")
    assert f"{empty}: empty; give a" in err
    assert server.asked == 0
    assert len(waiting(run)) == 1


@pytest.mark.parametrize("verb", ["ask", "flush"])
def test_where_stdout_is_closed_nothing_is_paid_for(run: Run, server: Counting, verb: str, tmp_path: Path) -> None:
    server.unplug()
    assert run(*asked(server, "cot"))[0] == 1
    server.plug()
    words = [sys.executable, "-m", "edgedc", *(asked(server, "cot") if verb == "ask" else ["flush"])]
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *words], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("edgedc: stdout: closed")
    assert server.asked == 0
    assert run("flush", "--output", str(tmp_path / "answers.jsonl"))[0] == 0


def test_the_ceiling_holds_and_what_is_left_stays(run: Run, server: Counting) -> None:
    server.unplug()
    for number in range(3):
        run(*asked(server, "cot", f"Question {number}?"), "--price-as", "gpt-4o-mini")
    server.plug()
    code, _, err = run("flush", "--max-cost", "0.0000001")
    assert code == 4
    assert "--max-cost" in err
    assert server.asked == 0
    assert len(waiting(run)) == 3
    assert run("flush", "--max-cost", "1")[0] == 0


def test_what_was_paid_before_a_ceiling_waits_and_is_not_paid_again(run: Run, server: Counting) -> None:
    # Enough for a decomposition, the longest of which is 256 tokens, and too little for a step of 1024.
    code, out, err = run(*asked(server), "--price-as", "gpt-4o-mini", "--max-cost", "0.0015")
    assert (code, out) == (4, "")
    assert "edgedc flush" in err
    (question,) = waiting(run)
    assert (question["received"], question["doubtful"]) == (["decompose"], 0)
    assert run("flush", "--max-cost", "1")[0] == 0
    assert server.twice == []
    assert server.billed.total() == 5


def test_an_answer_is_printed_even_if_the_outbox_breaks_while_it_comes(run: Run, home: Path, server: Counting) -> None:
    def fault(_prompt: str, number: int) -> str:
        if number == 2:
            with sqlite3.connect(home / "outbox.sqlite3") as sql:
                sql.execute("DROP TABLE question")
        return ""

    server.fault = fault
    code, out, err = run(*asked(server, "static"))
    assert code == 0
    assert "The answer is: " in out
    assert "note: the answer is shown, and could not be taken out of the outbox: " in err


def test_no_key_and_no_password_is_kept(run: Run, home: Path, server: Counting) -> None:
    url = server.url.replace("http://", "http://someone:pa55word@")
    server.unplug()
    args = (
        "--solver-model",
        "m",
        "--solver-url",
        f"{url}?api-version=1&token=hidden",
        "--mode",
        "static",
        "--timeout",
        "0.2",
    )
    for more in ((), ("--decomposer-url", f"{url}?token=hidden")):
        assert run("ask", QUESTION, *args, "--decomposer-model", "d", *more)[0] == 1
    assert [question["solver"] for question in waiting(run)] == [f"m at {server.url}?api-version=1"] * 2
    kept = b"".join(file.read_bytes() for file in home.iterdir())
    assert b"eggs" in kept
    for secret in (KEY, "pa55word", "hidden"):
        assert secret.encode() not in kept


@pytest.mark.parametrize("verb", ["ask", "flush"])
def test_a_damaged_outbox_is_one_line_before_anything_is_asked(
    run: Run, home: Path, server: Counting, verb: str
) -> None:
    home.mkdir()
    (home / "outbox.sqlite3").write_text("hello" * 100)
    code, out, err = run(*(asked(server, "cot") if verb == "ask" else ("flush",)))
    assert (code, out) == (2, "")
    assert err.startswith(f"edgedc: {home / 'outbox.sqlite3'}: damaged")
    assert err.count("\n") == 1
    assert server.asked == 0


def test_an_outbox_of_a_newer_edgedc_is_refused(run: Run, home: Path, server: Counting) -> None:
    server.unplug()
    run(*asked(server, "cot"))
    with sqlite3.connect(home / "outbox.sqlite3") as sql:
        sql.execute("PRAGMA user_version = 7")
    code, _, err = run("flush")
    assert code == 2
    assert "outbox.sqlite3: a newer edgedc wrote it" in err


def test_an_answer_that_another_edgedc_began_says_so(run: Run, home: Path, server: Counting) -> None:
    server.fault = lambda _prompt, number: "busy" if number > 1 else ""
    run(*asked(server, "static"))
    with sqlite3.connect(home / "outbox.sqlite3") as sql:
        sql.execute("""UPDATE question SET job = json_set(job, '$.prompts', 'of old')""")
    server.fault = lambda _prompt, _number: ""
    (row,) = rows(run, "flush", "--json")
    assert any("other prompts" in note for note in row["notes"])
    assert server.twice == []


def test_list_is_for_people_too(run: Run, server: Counting) -> None:
    server.fault = lambda _prompt, number: "busy" if number > 2 else ""
    run(*asked(server))
    code, out, _ = run("flush", "--list")
    assert code == 0
    assert QUESTION in out
    assert "for m at http://127.0.0.1" in out
    assert re.search(r"received so far: decompose, step \d\n", out)
    assert "failed 1 time, at last: 127.0.0.1" in out


# -- processes that are killed


@pytest.fixture
def family(tmp_path: Path, home: Path) -> Iterator[Mother]:
    with mother(tmp_path / "printed") as made:
        yield made


def heard(server: Counting, child: Child, count: int = 1) -> None:
    """Wait until the server has heard so many more calls, or the process has ended."""
    until = server.asked + count
    child.until(lambda: server.asked >= until)


def test_two_flushes_share_the_questions_and_leave_those_that_are_being_asked(
    run: Run, server: Counting, family: Mother
) -> None:
    server.unplug()
    for number in range(6):
        run(*asked(server, "cot", f"Question {number}?"))
    server.plug()
    server.delay_s = 0.4
    asking = family.run([*asked(server, "cot", "A long one?", 60), "--json"])
    heard(server, asking)
    flushes = [family.run(["flush", "--json"]) for _ in range(2)]
    assert [flush.wait() for flush in flushes] == [0, 0]
    rows = [flush.rows() for flush in flushes]
    assert all(rows)
    assert sorted(row["question"] for part in rows for row in part) == [f"Question {number}?" for number in range(6)]
    assert asking.wait() == 0
    assert server.twice == []
    assert server.asked == 7
    assert waiting(run) == []


def test_a_call_that_a_kill_cuts_off_is_asked_again_and_said_to_be_doubtful(
    run: Run, server: Counting, family: Mother
) -> None:
    server.fault = lambda prompt, _: "" if "break down" in prompt else "stall"
    child = family.run(asked(server, "static", patience=60))
    heard(server, child, 2)
    child.kill()
    server.fault = lambda _prompt, _number: ""
    (question,) = waiting(run)
    assert (question["received"], question["attempts"]) == (["decompose"], 0)
    (row,) = rows(run, "flush", "--json")
    assert row["doubtful"] == 1
    assert any("1 call was sent in vain, and may be billed too" in note for note in row["notes"])
    assert [count for prompt, count in server.billed.items() if "break down" in prompt] == [1]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_call_that_never_left_is_not_doubtful(
    run: Run, server: Counting, family: Mother, how: signal.Signals
) -> None:
    """The decomposer answers, and nobody listens where the solver was: it is ended while it tries."""
    with counting() as other:
        other.unplug()
        args = ["ask", QUESTION, "--decomposer-model", "d", "--decomposer-url", server.url, "--mode", "static"]
        child = family.run([*args, "--solver-model", "m", "--solver-url", other.url, "--timeout", "60"])
        child.until(lambda: any(row["received"] for row in waiting(run)))
        time.sleep(0.1)
        assert not child.ended()
        os.kill(child.pid, how)
        child.wait()
        other.plug()
        (row,) = rows(run, "flush", "--json")
        assert (row["doubtful"], row["notes"]) == (0, [])
        assert (server.asked, other.billed.total()) == (1, 1)


def test_a_call_that_broke_or_fell_silent_after_it_was_sent_is_doubtful(run: Run, server: Counting) -> None:
    for fault in ("drop", "stall"):
        before = server.asked
        server.fault = lambda prompt, _, fault=fault: "" if "break down" in prompt else fault
        assert run(*asked(server, "static", patience=1))[0] == 1
        (question,) = waiting(run)
        assert question["doubtful"] == server.asked - before - 1 >= 1
        server.fault = lambda _prompt, _number: ""
        (row,) = rows(run, "flush", "--json")
        assert row["doubtful"] == question["doubtful"]
        assert any("sent in vain" in note for note in row["notes"])


def test_an_answer_whose_printing_was_cut_off_is_printed_again_and_marked(
    run: Run, server: Counting, family: Mother, tmp_path: Path
) -> None:
    """Nobody reads what it prints, so that it is killed in the middle of that."""
    child = family.run([*asked(server, "cot", "Long? " * 20_000, 60), "--json"], into=fifo(tmp_path / "full"))
    child.until(lambda: any(row["received"] == ["solve"] for row in waiting(run)))
    time.sleep(0.3)
    child.kill()
    (row,) = rows(run, "flush", "--json")
    assert row["shown_before"]
    assert row["answer"].isdigit()
    assert server.asked == 1


def fifo(path: Path) -> Path:
    """A pipe that has a reader, who does not read; it holds 64 kB."""
    os.mkfifo(path)
    os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    return path


def test_an_interrupted_question_waits_only_if_something_was_paid(run: Run, server: Counting, family: Mother) -> None:
    for number in (1, 2):
        server.fault = lambda _prompt, count, number=server.asked + number: "stall" if count == number else ""
        child = family.run(asked(server, "static", f"Question {number}?", 60))
        heard(server, child, number)
        time.sleep(0.1)
        os.kill(child.pid, signal.SIGINT)
        assert child.wait() == 130
        assert ("edgedc flush" in child.err) == (number == 2)
    (question,) = waiting(run)
    assert (question["question"], question["received"], question["doubtful"]) == ("Question 2?", ["decompose"], 1)


def kill_asks(run: Run, server: Counting, family: Mother, count: int) -> None:
    server.delay_s = 0.02
    chance = random.Random(0)
    kept = 0
    for number in range(count):
        question = f"How many eggs are left on day {number}?"
        child = family.run([*asked(server, question=question, patience=60), "--json"])
        if number % 4:
            heard(server, child)
        time.sleep(chance.uniform(0, 0.3))
        child.kill()
        printed, waits = child.rows(), waiting(run)
        assert waits or printed or not any(question in prompt for prompt in server.begun), "it was sent, and is lost"
        answers = rows(run, "flush", "--json")
        assert len(answers) == len(waits)
        kept += len(answers)
        if printed and answers:
            assert (answers[0]["shown_before"], answers[0]["answer"]) == (True, printed[0]["answer"])
        # A reply that nobody lived to keep is paid for again, and that is said: never more than were asked at once.
        again = [prompt for prompt in server.twice if question in prompt]
        assert len(again) <= 2
        assert not again or any("billed too" in note for note in answers[0]["notes"])
    assert kept
    assert all(times <= 2 for times in server.billed.values())
    assert waiting(run) == []


def kill_flushes(run: Run, server: Counting, family: Mother, tmp_path: Path, kills: int) -> None:
    """The same questions through one pair of flushes after the other, each killed at some moment."""
    output = tmp_path / "answers.jsonl"
    questions = [f"How many eggs are left on day {number}?" for number in range(2 * kills)]
    server.unplug()
    for question in questions:
        run(*asked(server, question=question))
    server.plug()
    server.delay_s = 0.01
    chance = random.Random(1)
    printed = []
    for _ in range(kills):
        pair = [family.run(["flush", "--json"]), family.run(["flush", "--output", str(output)])]
        heard(server, pair[0])
        time.sleep(chance.uniform(0, 0.4))
        for child in pair:
            child.kill()
        printed += pair[0].rows()
    assert run("flush", "--output", str(output))[0] == 0
    assert waiting(run) == []
    rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    assert len({row["key"] for row in rows}) == len(rows)
    assert {row["question"] for row in [*printed, *rows]} == set(questions)
    # What was printed by one that was killed then comes again, and says so.
    times = Counter(row["key"] for row in [*printed, *rows])
    marked = {row["key"] for row in [*printed, *rows] if row["shown_before"]}
    assert {key for key, count in times.items() if count > 1} <= marked
    for row in [*printed, *rows]:
        again = [prompt for prompt in server.twice if row["question"] in prompt]
        assert not again or any("billed too" in note for note in row["notes"])


def test_a_killed_ask_loses_nothing_and_asks_nothing_twice_in_silence(
    run: Run, server: Counting, family: Mother
) -> None:
    kill_asks(run, server, family, 8)


def test_killed_flushes_lose_and_double_nothing(run: Run, server: Counting, family: Mother, tmp_path: Path) -> None:
    kill_flushes(run, server, family, tmp_path, 4)


@pytest.mark.slow
def test_a_hundred_killed_asks(run: Run, server: Counting, family: Mother) -> None:
    kill_asks(run, server, family, 100)


@pytest.mark.slow
def test_a_hundred_killed_flushes(run: Run, server: Counting, family: Mother, tmp_path: Path) -> None:
    kill_flushes(run, server, family, tmp_path, 100)
