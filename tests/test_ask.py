"""edgedc ask and edgedc simulate, as a person runs them, against the simulated solver."""

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgedc.cli import main
from edgedc.solvers.loopback import Timing
from edgedc.solvers.simulated import MODEL, Skill, simulated_server
from edgedc.tasks.microworld import problems

PROBLEM = next(problem for problem in problems("test", 50) if len(problem.steps) == 3)


@pytest.fixture
def url() -> Iterator[str]:
    with simulated_server([PROBLEM], Skill(0, 0, 0), timing=Timing(0, 0)) as address:
        yield address


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder, and nothing of the person's own settings."""
    for name in ("EDGEDC_API_KEY", "OPENAI_API_KEY", "EDGEDC_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


class Run:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *args: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr of `edgedc ask`."""
        with pytest.raises(SystemExit) as end:
            main(["ask", *args])
        out, err = self.capsys.readouterr()
        return int(end.value.code or 0), out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


def test_the_answer_goes_to_stdout_and_the_measurements_to_stderr(run: Run, url: str) -> None:
    code, out, err = run(PROBLEM.question, "--solver-url", url, "--solver-model", MODEL, "--mode", "cot")
    assert code == 0
    assert out.endswith(f"The answer is: {PROBLEM.answer}\n")
    assert "(simulated)" in err
    assert re.search(r"\d+ \+ \d+ tokens in \d", err)
    assert re.search(r"\d+ bytes left this device", err)
    assert "no price known" in err
    assert "$0" not in err


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
        ((" ",), "empty"),
        (("Q?",), "--solver-model"),
        (("Q?", "--solver-model", "gpt-4o-mini", "--mode", "cot"), "EDGEDC_API_KEY"),
        (("Q?", "--solver-model", "x", "--max-cost", "1"), "--price-as"),
        (("Q?", "--solver-model", "x", "--price-as", "nobody"), "nobody"),
        (("Q?", "--solver-model", "x", "--prices", "none.json"), "none.json"),
        (("Q?", "--solver-model", "gpt-4o", "--max-cost", "-1"), "--max-cost"),
        (("Q?", "--solver-model", "x", "--solver-url", "nowhere"), "--solver-url"),
        (("Q?", "--solver-model", "x", "--solver-url", "http://127.0.0.1:1"), "edgedc export"),
        (("Q?", "--solver-model", "x", "--solver-url", "http://127.0.0.1:1", "--model", "none"), "none"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(run: Run, args: tuple[str, ...], said: str) -> None:
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_solver_that_is_down_is_one_line(run: Run) -> None:
    where = ("--solver-url", "http://127.0.0.1:1/v1", "--solver-model", "x", "--mode", "cot", "--timeout", "1")
    code, out, err = run("Q?", *where)
    assert (code, out) == (1, "")
    assert err.startswith("edgedc: 127.0.0.1:1: cannot be reached")
    assert err.count("\n") == 1


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
    assert "decomposer " in err
    assert (row["mode"], row["answer"], row["notes"]) == ("interactive", problem.answer, [])
    assert row["subquestions"] == [step.ask for step in problem.steps]
    first, *others = row["stages"]
    assert (first["name"], first["where"], first["bytes_sent"]) == ("decompose", "local", 0)
    assert [stage["where"] for stage in others] == ["remote"] * (len(problem.steps) + 1)
    assert row["bytes_sent"] == sum(stage["bytes_sent"] for stage in others) > 0


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
