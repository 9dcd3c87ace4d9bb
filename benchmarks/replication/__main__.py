"""Run the miniature: make what is missing, answer, judge, and write the results.

    python -m benchmarks.replication

A rerun goes on from the work folder. Prints the tables and writes results/replication.json and .md beside the other
benchmarks' results.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

from edgedc.errors import InputError
from edgedc.files import read_object, write_text
from edgedc.machine import this_machine

from .answers import answer_all, answer_with
from .claims import CLAIMS, judge
from .intervals import draw
from .plan import Places, Size
from .report import OTHERS, Outcome, as_json, as_text
from .students import make_all

RESULTS = Path(__file__).parents[1] / "results"


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replication", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/replication"), help="default: build/replication")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    for field in dataclasses.fields(Size):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    options = vars(parser.parse_args(words))
    work, out = options.pop("work"), options.pop("out")
    outcome = replicate(Size(**options), work)
    text = as_text(outcome)
    print(text)
    write_text(out / "replication.md", text)
    about = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu_seconds": round(read_object(work / "cpu.json")["seconds"]),
        "versions": {name: version(name) for name in ("edgedc", "torch", "transformers", "peft", "llama-cpp-python")},
        "machine": dataclasses.asdict(this_machine()),
    }
    write_text(out / "replication.json", json.dumps(as_json(outcome) | about, indent=1) + "\n")
    return 0


def replicate(size: Size, work: Path) -> Outcome:
    """Everything, from what is in the work folder. Raises InputError for a folder of another size."""
    _claim_folder(size, work)
    places, others = Places(work), {}
    try:
        make_all(size, places)
        cells = answer_all(size, places)
        draws = draw(cells)
        for name, skill in OTHERS.items():
            print(f"with another solver: {name}", file=sys.stderr)
            # what a trained solver says does not depend on the simulated one
            others[name] = judge(CLAIMS, cells | answer_with(size, places, skill), draws, tested=False)
        return Outcome(size, cells, draws, judge(CLAIMS, cells, draws), others)
    finally:
        _count(work / "cpu.json")


def _claim_folder(size: Size, work: Path) -> None:
    plan, wanted = work / "size.json", dataclasses.asdict(size)
    del wanted["seeds"]  # each has a folder of its own, and more of them can be run at any time
    if plan.exists() and read_object(plan) != wanted:
        raise InputError(f"{work}: holds a run of another size; give another --work, or remove it")
    write_text(plan, json.dumps(wanted) + "\n")


def _count(path: Path) -> None:
    """Add this process's CPU time to that of the runs before it, so that a run that was stopped says what it took."""
    before = read_object(path)["seconds"] if path.exists() else 0.0
    times = os.times()
    write_text(path, json.dumps({"seconds": before + sum(times[:4])}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
