"""Recording a solver's calls and playing them again."""

import json
import threading
import time
from pathlib import Path

import pytest

from edgedc.errors import InputError, SolverReply, SolverTimeout
from edgedc.files import read_rows
from edgedc.generation import Generation
from edgedc.solvers.loopback import Timing, serve
from edgedc.solvers.openai import OpenAISolver
from edgedc.solvers.replay import Recording, RecordingSolver, ReplaySolver
from edgedc.solvers.scripted import ScriptedSolver
from edgedc.usage import Usage

KEY = "sk-very-secret-0123456789"


def asked(text: str) -> list:
    return [{"role": "user", "content": text}]


def record(path: Path, solver: object, *questions: str, heard: list | None = None) -> list[Generation]:
    recording = Recording(path)
    recorder = RecordingSolver(solver, recording)
    on_text = heard.append if heard is not None else None
    try:
        return [recorder.solve(asked(question), max_tokens=20, on_text=on_text) for question in questions]
    finally:
        recorder.close()
        recording.close()


def test_a_reply_comes_back_as_it_was_and_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    first = Generation("The answer is: 7", Usage(20, 5, 8, "server"), 0.2, 0.9, "stop", bytes_sent=300, booked=0.01)
    record(path, ScriptedSolver([first, "8"]), "How many?", "And now?")
    solver = ReplaySolver(path)
    made = solver.solve(asked("How many?"), max_tokens=20)
    assert (made.text, made.usage, made.first_token_s, made.total_s) == (first.text, first.usage, 0.2, 0.9)
    assert (made.finish_reason, made.bytes_sent, made.booked) == ("stop", 300, 0.0)
    assert solver.solve(asked("And now?"), max_tokens=20).text == "8"


def test_a_request_that_was_not_recorded_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    record(path, ScriptedSolver(["7"]), "How many?")
    solver = ReplaySolver(path)
    for question, tokens, seed in (("How much?", 20, None), ("How many?", 21, None), ("How many?", 20, 1)):
        with pytest.raises(SolverReply, match="no reply of scripted is recorded") as caught:
            solver.solve(asked(question), max_tokens=tokens, seed=seed)
        assert str(path) in str(caught.value)
        assert "--record" in str(caught.value)


def test_a_request_made_twice_has_both_replies_in_order(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    record(path, ScriptedSolver(["7", "8"]), "How many?", "How many?")
    record(path, ScriptedSolver(["9"]), "How many?")  # another run goes on in the same file
    solver = ReplaySolver(path)
    assert [solver.solve(asked("How many?"), max_tokens=20).text for _ in range(4)] == ["7", "8", "9", "9"]


def test_a_failure_is_played_again_unless_it_was_mended(tmp_path: Path) -> None:
    class Late(ScriptedSolver):
        def solve(self, messages, **how):
            if "late" in messages[0]["content"]:
                raise SolverTimeout("host: sent nothing for 3 s")
            return super().solve(messages, **how)

    path = tmp_path / "calls.jsonl"
    for question in ("How late?", "How late again?"):
        with pytest.raises(SolverTimeout):
            record(path, Late([]), question)
    record(path, ScriptedSolver(["midnight"]), "How late again?")
    solver = ReplaySolver(path)
    with pytest.raises(SolverTimeout, match="recorded: host: sent nothing"):
        solver.solve(asked("How late?"), max_tokens=20)
    assert solver.solve(asked("How late again?"), max_tokens=20).text == "midnight"


def test_neither_key_nor_header_nor_address_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    with serve(lambda messages, **_: f"You sent {KEY}.", "m", port=0, timing=Timing(0, 0), simulated=True) as url:
        solver = OpenAISolver("m", url.replace("http://", f"http://user:{KEY}@"), KEY)
        (made,) = record(path, solver, "What is my key?")
    text = path.read_text()
    assert KEY not in text
    assert "***" in made.text  # the server echoed it, and the solver does not pass it on
    for word in ("authorization", "bearer", "127.0.0.1", "user-agent"):
        assert word not in text.lower()
    assert ReplaySolver(path).simulated


def test_a_recording_keeps_the_pieces_and_plays_them_at_their_pace(tmp_path: Path) -> None:
    path, heard = tmp_path / "calls.jsonl", []
    with serve(lambda *_, **__: "one two three four", "m", port=0, timing=Timing(0.1, 0.06), simulated=True) as url:
        (made,) = record(path, OpenAISolver("m", url), "Count!", heard=heard)
    assert "".join(heard) == made.text == "one two three four"

    said, moments = [], []

    def hear(text: str) -> None:
        said.append(text)
        moments.append(time.monotonic() - started)

    for timing, least, most in (("original", 0.25, 1.5), ("none", 0.0, 0.1), (Timing(0.2, 0.1), 0.49, 1.5)):
        said.clear()
        moments.clear()
        started = time.monotonic()
        again = ReplaySolver(path, timing=timing).solve(asked("Count!"), max_tokens=20, on_text=hear)
        assert least <= time.monotonic() - started <= most
        assert "".join(said) == again.text == made.text
    assert (again.first_token_s, again.total_s) == (pytest.approx(0.2), pytest.approx(0.5))  # four tokens
    assert moments[0] == pytest.approx(0.2, abs=0.1)
    assert moments[-1] > moments[0]


def test_many_threads_may_record_and_play(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    recording = Recording(path)
    with serve(lambda messages, **_: messages[-1]["content"], "m", port=0, timing=Timing(0, 0), simulated=True) as url:
        solver = RecordingSolver(OpenAISolver("m", url), recording)

        def ask(k: int) -> None:
            for j in range(5):
                solver.solve(asked(f"question {k} {j}"), max_tokens=20)

        threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        solver.close()
    recording.close()
    assert len(list(read_rows(path))) == 20
    assert ReplaySolver(path).solve(asked("question 3 4"), max_tokens=20).text == "question 3 4"


def test_what_is_no_recording_is_said_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "1", "question": "How many?"}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl:1: not a recorded call"):
        ReplaySolver(path)
    with pytest.raises(InputError, match="other rows than recorded calls"):
        Recording(path)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="no call is recorded"):
        ReplaySolver(tmp_path / "empty.jsonl")
    record(tmp_path / "calls.jsonl", ScriptedSolver(["7"]), "How many?")
    with pytest.raises(InputError, match="recorded are scripted"):
        ReplaySolver(tmp_path / "calls.jsonl", "gpt-9")
    row = json.loads((tmp_path / "calls.jsonl").read_text())
    del row["reply"]["usage"]
    (tmp_path / "half.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="usage"):
        ReplaySolver(tmp_path / "half.jsonl").solve(asked("How many?"), max_tokens=20)


def test_an_unknown_kind_of_recorded_failure_is_a_bad_reply(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    record(path, ScriptedSolver(["7"]), "How many?")
    row = json.loads(path.read_text()) | {"reply": {"error": "NoSuchError", "message": "odd"}}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(SolverReply, match="odd"):
        ReplaySolver(path).solve(asked("How many?"), max_tokens=20)


def test_evaluate_gives_the_same_figures_from_the_recording_with_no_server(tmp_path: Path, edgedc, alone) -> None:
    calls = tmp_path / "calls.jsonl"

    def run(*args: object) -> list[dict]:
        systems = ("--decomposer", "gold", "--decomposer", "none", "--mode", "interactive")
        common = ("--split", "test", "--limit", "12", "--json")
        code, out, _ = edgedc("evaluate", *systems, *common, *args)
        assert not code
        return [json.loads(line) for line in out.splitlines()]

    live = run("--solver-model", "simulated-solver", "--price-as", "gpt-4o-mini", "--record", calls)
    again = run("--replay", calls, "--price-as", "gpt-4o-mini")
    assert [one["score"] for one in again] == [one["score"] for one in live]
    assert [one["remote_tokens"] for one in again] == [one["remote_tokens"] for one in live]
    assert live[0]["booked"] > 0
    assert again[0]["booked"] == 0  # nothing is paid for it
    assert again[0]["usd"] == pytest.approx(live[0]["usd"])  # what it would cost is known all the same
    assert all(one["simulated"] for one in again)
    paced = run("--replay", calls, "--timing", "emulated", "--first-token-s", "0.01", "--per-token-s", "0")
    assert paced[1]["seconds"] >= 0.01
    assert again[1]["seconds"] is None  # played at once: no time to speak of
