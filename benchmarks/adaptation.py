"""What `edgedc train --base default` makes, in minutes, of the model that `make model` made: Break, before and after.

Break's decompositions (`return ... of #1`) are of a style that it never saw. The first rows are trained on
by a LoRA, the last are measured on before and after, through the GGUFs of both. Each step is a verb, as a user would
type it. Prints a table with intervals and paired differences, and writes results/adaptation.json.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from box_model import DATA, Item, Line, asked, break_items, cells, cost, opened

from edgedc.bench.decompositions import Scored, summarise
from edgedc.bench.statistics import Difference, compare
from edgedc.bench.table import table
from edgedc.catalogue import find_weights
from edgedc.machine import cpu_model

COMPARED = 200  # questions that the export is compared with the model on
RESULT = Path(__file__).parent / "results" / "adaptation.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="default", help="the model to adapt (default: default)")
    parser.add_argument("--bundle", default="default", help="its bundle, measured before (default: default)")
    parser.add_argument("--data", type=Path, default=DATA, help=f"the folder with the public data (default: {DATA})")
    parser.add_argument("--rows", type=int, default=1000, help="trained on (default: 1000)")
    parser.add_argument("--questions", type=int, default=500, help="measured on (default: 500)")
    parser.add_argument("--epochs", type=float, default=4, help="(default: 4)")
    parser.add_argument("--threads", type=int, default=1, help="(default: 1)")
    options = parser.parse_args()
    if not find_weights(Path(options.base)).is_dir():
        sys.exit(f"{options.base}: no such model; make one with  make model")
    items = list(break_items(options.data / "break" / "qdmr_high_level_dev_first1500.csv"))
    trained_on, measured_on = items[: options.rows], items[options.rows :][: options.questions]
    with tempfile.TemporaryDirectory() as scratch:
        after, seconds = adapt(Path(scratch), options.base, trained_on, options.epochs, options.threads)
        made = {
            name: measure(name, Path(bundle), measured_on, options.threads)
            for name, bundle in (("before", options.bundle), ("after", after))
        }
    shown = ("", "n", "ROUGE-L F1", "count", "right count", "exact", "copied", "repeated", "parsed")
    print(table(shown, [[name, *cells(line)[2:10]] for name, (line, _) in made.items()]))
    gains = differences(made["before"][1], made["after"][1])
    for name, gain in gains.items():
        low, high = gain.interval or (math.nan, math.nan)
        print(f"after - before, {name}: {gain.value:+.3f} (95 % interval {low:+.3f} to {high:+.3f}, paired)")
    print(f"trained in {seconds['train']:.0f} s on {len(trained_on)} rows, {options.threads} thread(s)")
    result = {
        "before": asdict(made["before"][0]),
        "after": asdict(made["after"][0]),
        "differences": {name: asdict(gain) for name, gain in gains.items()},
        "rows": len(trained_on),
        "epochs": options.epochs,
        "seconds": seconds,
        "threads": options.threads,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {name: version(name) for name in ("edgedc", "torch", "transformers", "peft")},
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def adapt(scratch: Path, base: str, items: list[Item], epochs: float, threads: int) -> tuple[Path, dict[str, float]]:
    """The bundle of the adapted model, and the seconds that each verb took."""
    rows, prompts = scratch / "break.jsonl", scratch / "prompts.jsonl"
    lines = [json.dumps({"question": i.question, "subquestions": list(i.known.texts)}) + "\n" for i in items]
    rows.write_text("".join(lines))
    # The gate's own prompts are word problems, foreign to this model now.
    prompts.write_text("".join(lines[:COMPARED]))
    adapter, model, bundle = scratch / "adapter", scratch / "student", scratch / "bundle"
    settings = ["--epochs", epochs, "--batch-size", 16, "--learning-rate", "3e-3", "--threads", threads]
    verbs = {
        "train": ["train", "--base", base, "--max-subquestions", "none", *settings, rows, adapter],
        "merge": ["merge", adapter, model],
        "export": ["export", "--quantization", "f16", "--prompts", prompts, model, bundle],
    }
    seconds = {}
    for name, words in verbs.items():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "edgedc", *map(str, words)], check=True, stdout=sys.stderr)
        seconds[name] = round(time.perf_counter() - start, 1)
    return bundle, seconds


def measure(name: str, bundle: Path, items: list[Item], threads: int) -> tuple[Line, list[Scored]]:
    with opened(bundle, threads) as (decomposer, _):
        scores, generations = asked(decomposer, items)
    return Line(f"break, {name}", decomposer.name, summarise(scores), cost(generations)), scores


def differences(before: list[Scored], after: list[Scored]) -> dict[str, Difference]:
    """Paired by question."""
    fields = {"ROUGE-L": "rouge", "right count": "right_count", "exact": "exact"}
    return {
        name: compare([float(getattr(one, f)) for one in before], [float(getattr(one, f)) for one in after])
        for name, f in fields.items()
    }


if __name__ == "__main__":
    sys.exit(main())
