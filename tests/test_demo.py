"""The commands of the README, run as they stand there. Minutes on 2 cores: make test-slow."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgedc.doctor
from edgedc.commands._made import make
from edgedc.commands._verbs import run
from edgedc.errors import InputError
from edgedc.solvers.loopback import Timing
from edgedc.solvers.simulated import MODEL, Skill, simulated_server
from edgedc.tasks.microworld import problems

ROOT = Path(__file__).parents[1]
EDGEDC = Path(sys.executable).with_name("edgedc")


def test_what_the_demo_has_made_is_not_made_again(tmp_path, capsys):
    rows, model = tmp_path / "rows.jsonl", tmp_path / "model"
    run("teach", "--limit", 8, rows)
    train = ("train", "--from-scratch", "nano", "--vocabulary", 512)
    for epochs, made in ((1, True), (1, False), (2, True)):
        before = (model / "manifest.json").stat().st_mtime_ns if model.exists() else None
        capsys.readouterr()
        assert make(*train, "--epochs", epochs, rows, model) == made
        said = capsys.readouterr().err
        assert ("edgedc train" in said) == made
        assert (f"{model}: there already, made of the same inputs with the same settings" in said) != made
        assert ((model / "manifest.json").stat().st_mtime_ns != before) == made


def test_a_demo_that_could_not_end_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.setitem(edgedc.doctor.EXTRAS, "export", ("edgedc-no-such-package",))
    with pytest.raises(InputError, match=r"pip install 'edgedc\[export\]'"):
        run("demo", "--out", tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_the_demo_makes_a_student_that_works(tmp_path):
    done = subprocess.run([EDGEDC, "demo"], cwd=tmp_path, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr
    share = re.search(r"student +trained domains +([\d.]+)%", done.stdout)
    assert share, done.stdout
    assert float(share[1]) >= 95
    seconds = re.search(r"Done in (\d+) s", done.stdout)
    assert seconds
    assert {p.name for p in (tmp_path / "demo").iterdir()} >= {"adapter", "student", "bundle", "bench.json"}
    assert "SIMULATED" in done.stdout
    again = subprocess.run([EDGEDC, "demo"], cwd=tmp_path, capture_output=True, text=True, timeout=1500, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count(": there already, made of the same inputs with the same settings") == 3
    assert share[0] in again.stdout


@pytest.mark.slow
def test_the_six_lines_of_the_readme_run(tmp_path):
    """A simulated solver, which knows the README's question, stands in for the one that needs a key."""
    lines = re.search(r"Six lines.*?```\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)[1]
    question = re.search(r"edgedc ask .*'(.*)'", lines)[1]
    known = next(p for p in problems("test", 1500) if p.question == question)
    with simulated_server([known], Skill(0, 0, 0), timing=Timing(0.0, 0.0)) as url:
        for line in lines.strip().splitlines():
            done = subprocess.run(
                line.replace("edgedc", str(EDGEDC), 1).replace("gpt-4o-mini", MODEL),
                shell=True,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=1200,
                check=False,
                env={"EDGEDC_BASE_URL": url, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            if line.startswith("edgedc decompose"):
                assert done.stdout == "".join(f"{n}. {step.ask}\n" for n, step in enumerate(known.steps, start=1))
            if line.startswith("edgedc ask"):
                assert done.stdout.endswith(f"The answer is: {known.answer}\n")
