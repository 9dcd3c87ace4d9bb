"""`edgedc serve` as a program of its own, with a real model: what it prints, its keys, and how it ends."""

import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from conftest import Run
from openai import BadRequestError
from serving import CLIENT_KEY, serve

from edgedc.generation import Message
from edgedc.solvers.loopback import Timing
from edgedc.solvers.loopback import serve as serve_model
from edgedc.solvers.simulated import MODEL, Skill, simulated_server
from edgedc.tasks.microworld import problems

SERVE_KEY, SOLVER_KEY = "planted-serve-key-1", "planted-solver-key-2"
PROBLEM = next(p for p in problems("train", 6) if len(p.steps) > 1)  # the model knows the first six by heart
USER = {"role": "user", "content": PROBLEM.question}


@pytest.fixture
def run(edgedc: Run) -> Run:
    return partial(edgedc, "serve")


def slow_answer(messages: Sequence[Message], *, seed: int = 0) -> str:
    return " ".join(f"word{k}" for k in range(40)) + ". The answer is: 7"


@contextmanager
def slow_solver(timing: Timing) -> Iterator[tuple[str, ...]]:
    with serve_model(slow_answer, "slow", port=0, timing=timing, simulated=False) as url:
        yield "--solver-url", url, "--solver-model", "slow"


def test_the_whole_pairing_and_no_key_anywhere(bundle_folder: Path, tmp_path: Path) -> None:
    """Ten problems are asked; the two keys of ours and the client's are then looked for wherever text is left."""
    keys = {"EDGEDC_SERVE_KEY": SERVE_KEY, "EDGEDC_API_KEY": SOLVER_KEY}
    with simulated_server([PROBLEM], Skill(0, 1, 1), timing=Timing(0, 0)) as solver:
        flags = ("--solver-url", solver, "--solver-model", MODEL, "--price-as", "gpt-4o-mini", "--max-cost", "1")
        with serve(bundle_folder, tmp_path, *flags, **keys) as program:
            client = program.client(SERVE_KEY)
            made = client.chat.completions.create(model=MODEL, messages=[USER])
            wrong = httpx.get(f"{program.url}/models", headers={"Authorization": f"Bearer {CLIENT_KEY}"})
            bearer = {"Authorization": f"Bearer {SERVE_KEY}"}
            refused = httpx.post(f"{program.url}/chat/completions", headers=bearer, json={"model": SERVE_KEY})
            metrics = httpx.get(program.url.removesuffix("/v1") + "/metrics", headers=bearer)
            title = Path(f"/proc/{program.process.pid}/cmdline").read_text()
            assert program.end(signal.SIGTERM) == 0
            assert program.process.stdout
            printed = program.process.stdout.read() + "".join(program.lines)
    assert made.choices[0].message.content.endswith(f"The answer is: {PROBLEM.answer}")
    more = made.model_extra["edgedc"]
    assert [s["text"] for s in more["decomposition"]["subquestions"]] == [step.ask for step in PROBLEM.steps]
    assert more["cost_usd"] > 0
    assert more["simulated"]
    assert (wrong.status_code, refused.status_code) == (401, 400)
    kept = [path.read_bytes().decode("latin-1") for path in (tmp_path / "edgedc").rglob("*") if path.is_file()]
    assert kept  # the spending ledger
    left = [printed, title, wrong.text, str(wrong.headers), refused.text, metrics.text, made.to_json(), *kept]
    for key in (SERVE_KEY, SOLVER_KEY, CLIENT_KEY):
        assert not [text for text in left if key in text]
    assert "decomposer nano" in printed
    assert f"solver {MODEL}" in printed
    assert re.search(r"^answered in \d+\.\d\d s: \d+ \+ \d+ tokens, \d+ bytes left this device$", printed, re.MULTILINE)
    assert "refused in 0.0" in printed


def test_sigterm_finishes_the_stream_that_is_begun_and_exits_0(bundle_folder: Path, tmp_path: Path) -> None:
    with slow_solver(Timing(0, 0.03)) as flags, serve(bundle_folder, tmp_path, *flags) as program:
        stream = program.client().chat.completions.create(model="edgedc/cot", messages=[USER], stream=True)
        contents = [next(stream).choices[0].delta.content or "" for _ in range(3)]
        program.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            httpx.get(program.url + "/models")
        contents += [chunk.choices[0].delta.content or "" for chunk in stream]
        assert program.process.wait(20) == 0
    assert "".join(contents) == slow_answer([])
    assert any("finishing 1 question" in line for line in program.lines)


def test_a_second_ctrl_c_drops_what_is_begun(bundle_folder: Path, tmp_path: Path) -> None:
    with slow_solver(Timing(60, 0)) as flags, serve(bundle_folder, tmp_path, *flags) as program:
        ended = []

        def ask() -> None:
            body = {"model": "edgedc/cot", "messages": [USER]}
            with pytest.raises(httpx.TransportError):
                httpx.post(f"{program.url}/chat/completions", json=body, timeout=60)
            ended.append(time.monotonic())

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(1)
        started = time.monotonic()
        assert program.end(signal.SIGINT, signal.SIGINT) == 130
        asking.join(10)
    assert ended[0] - started < 10
    assert program.lines[-1] == "edgedc: interrupted\n"
    assert not any("Traceback" in line for line in program.lines)


def test_a_log_that_nobody_reads_any_more_changes_no_reply(bundle_folder: Path, tmp_path: Path) -> None:
    with serve(bundle_folder, tmp_path) as program:
        program.unread()
        with program.client() as client:
            for _ in range(2):
                assert client.chat.completions.create(model="edgedc-decomposer", messages=[USER]).choices
                with pytest.raises(BadRequestError):
                    client.chat.completions.create(model="edgedc-decomposer", messages=[USER], n=2)
        assert program.end(signal.SIGTERM) == 0


def test_without_a_solver_the_decomposer_is_served_until_ctrl_c(bundle_folder: Path, tmp_path: Path, run: Run) -> None:
    with serve(bundle_folder, tmp_path) as program:
        made = program.client().chat.completions.create(model="edgedc-decomposer", messages=[USER])
        port = program.url.rpartition(":")[2].removesuffix("/v1")
        code, out, err = run("--port", port, "--model", str(bundle_folder))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"{port} cannot be used" in err
        assert program.end(signal.SIGINT) == 130
    assert made.choices[0].message.content == "\n".join(f"{k}. {s.ask}" for k, s in enumerate(PROBLEM.steps, start=1))
    assert any("the decomposer alone is served" in line for line in program.lines)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--host", "0.0.0.0"), "EDGEDC_SERVE_KEY"),
        (("--host", "::"), "EDGEDC_SERVE_KEY"),
        (("--host", "256.1.1.1", "--key-file", "key"), "256.1.1.1"),
        (("--port", "70000"), "70000"),
        (("--key-file", "none"), "none"),
        (("--key-file", "empty"), "empty"),
        (("--parallel", "0"), "--parallel"),
        (("--solver-url", "http://127.0.0.1:1"), "--solver-model"),
        (("--solver-model", "gpt-4o-mini"), "EDGEDC_API_KEY"),
        (("--model", "nowhere"), "nowhere"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_served(
    args: tuple[str, ...], said: str, tmp_path: Path, run: Run, alone: Path
) -> None:
    (tmp_path / "key").write_text("key\n")
    (tmp_path / "empty").write_text("\n")
    code, out, err = run("--port", "0", *args)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_without_its_packages_it_names_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in [name for name in sys.modules if name.startswith("edgedc.server")]:
        monkeypatch.delitem(sys.modules, name)
    code, _, err = run("--port", "0")
    assert (code, err) == (2, "edgedc: uvicorn is not installed: run  pip install 'edgedc[serve]'\n")
