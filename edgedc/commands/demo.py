"""`edgedc demo`: the whole chain on this machine, as the verbs that a person would type."""

import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

import click

from edgedc.bench.table import table
from edgedc.commands._made import make
from edgedc.commands._verbs import run
from edgedc.doctor import installed
from edgedc.errors import InputError
from edgedc.solvers.loopback import Timing
from edgedc.solvers.simulated import MODEL, simulated_server
from edgedc.tasks.microworld import problems
from edgedc.workshop import workshop

DEMONSTRATIONS = 3000
QUESTIONS = 300  # unseen ones, for the student's share of exactly right decompositions
BASE_QUESTIONS = 40  # the base, through transformers, is slower and hardly needs more
BENCH_QUESTIONS = 40
PRICED_AS = "gpt-4o-mini"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Folder to fill.")
@click.option("--demonstrations", default=DEMONSTRATIONS, show_default=True, help="Questions put to the teacher.")
@click.option("--epochs", default=3.0, show_default=True, help="Passes of the student over them.")
def command(out: Path, demonstrations: int, epochs: float) -> None:
    """Teach, train, merge, export, decompose, ask and bench, offline, on generated word problems.

    Teacher and solver are simulated on this machine, behind a real HTTP server; what depends on them says so. The
    student, its training, its exports and the time they take are real. Stopped, or run again, it goes on with what is
    there: rows, adapter, student and bundle are made once.
    """
    if {"train", "export", "llamacpp", "onnx"} & installed().missing().keys():
        raise InputError("the demo trains and exports: run  pip install 'edgedc[export]'")
    started = time.monotonic()
    with simulated_server(problems("train", demonstrations), timing=Timing(0.0, 0.0)) as teacher:
        _step("Teach: decompositions of the simulated teacher, over HTTP")
        who = ("--teacher", MODEL, "--teacher-url", teacher)
        run("teach", "--limit", demonstrations, *who, out / "demonstrations.jsonl")
    _step("Train: a LoRA adapter on the tiny base that comes with edgedc")
    pace = ("--epochs", epochs, "--batch-size", 16, "--learning-rate", 3e-3)
    make("train", "--base", "demo-base", *pace, out / "demonstrations.jsonl", out / "adapter")
    _step("Merge: one model folder")
    make("merge", out / "adapter", out / "student")
    _step("Export: GGUF and ONNX, each compared with the merged model")
    make("export", "--format", "gguf", "--format", "onnx", out / "student", out / "bundle")

    question = next(p for p in problems("test", 50) if len(p.steps) == 3).question
    _step("Decompose: offline, through llama.cpp and through ONNX Runtime")
    run("decompose", "--model", out / "bundle", "--backend", "llamacpp", question)
    run("decompose", "--model", out / "bundle", "--backend", "onnx", question)

    _step("Evaluate: exactly right decompositions of unseen problems")
    base = workshop("train.fitting.sft").find_base("demo-base")[0]
    as_it_writes = ("--no-grammar", "--limit", BASE_QUESTIONS)  # lists of many kinds: held to one, it gets few right
    shares = [
        ("base, before training", "trained domains", _share("--model", base, *as_it_writes, split="test")),
        ("student", "trained domains", _share("--model", out / "bundle", "--limit", QUESTIONS, split="test")),
        ("student", "held-out domains", _share("--model", out / "bundle", "--limit", QUESTIONS, split="heldout")),
    ]
    with simulated_server(problems("test", BENCH_QUESTIONS)) as url:
        solver = ("--solver-model", MODEL, "--solver-url", url)
        _step("Ask: decompose here, solve there (simulated)")
        run("ask", "--model", out / "bundle", "--price-as", PRICED_AS, *solver, question)
        _step("Bench: local against remote decomposition")
        priced = ("--price-as", PRICED_AS, "--output", out / "bench.json")
        run("bench", "pair", "--model", out / "bundle", "--limit", BENCH_QUESTIONS, *solver, *priced)

    click.echo(f"\nDone in {time.monotonic() - started:.0f} s. Unseen problems, decomposed exactly right:\n")
    click.echo(table(["decomposer", "problems", "share (95 % interval)"], [[*row] for row in shares]))
    click.echo("\nMade here:\n")
    made = {
        "demonstrations.jsonl": "what the teacher said",
        "adapter": "the LoRA adapter",
        "student": "the merged model",
        "bundle": "what goes to the device: manifest, GGUF and ONNX",
        "bench.json": "local against remote (simulated solver)",
    }
    click.echo(table(["path", "what"], [[str(out / name), what] for name, what in made.items()]))


def _step(title: str) -> None:
    click.echo(f"\n== {title}", err=True)


def _share(*args: object, split: str) -> str:
    """The share exactly right that `edgedc evaluate` finds, with its interval."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        run("evaluate", "--task", "microworld", "--split", split, "--json", *args)
    exact: dict[str, Any] = json.loads(said.getvalue())["exact"]
    low, high = exact["interval_95"]
    share = f"{exact['share']:.1%} ({low:.1%} to {high:.1%})"
    click.echo(share)
    return share
