"""How fast a base is trained, and in how much memory: edgedc, a plain transformers Trainer and TRL's SFTTrainer.

The same random model in a real shape, the same rows (microworld's, and GSM8K's where ../shared/data or EDGEDC_DATA has
it), batch, optimiser and arithmetic. Each contender is a process of its own, in turns; it passes over the rows twice,
and the second pass is measured. Tokens are the rows' own: padding does not count. On a CPU one thread computes, and
its CPU time is what counts, so that a machine with other work to do gives the same figures. Prints a table and writes
results/training_speed.json beside this file.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from training_contenders import CONTENDERS, SHAPES, make_data, precision

from edgedc.bench.table import table
from edgedc.machine import this_machine

RESULT = Path(__file__).parent / "results" / "training_speed.json"
# Dense bfloat16 operations a second, from NVIDIA's data sheets; the first of which a card's name has all words counts.
PEAK = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A10": 125e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, help="default: qwen2.5-0.5b on a GPU, else llama-29m")
    parser.add_argument("--tuning", choices=("full", "lora"), default="full", help="what is trained (default: full)")
    parser.add_argument("--batch-size", type=int, help="rows a step (default: 64 on a GPU, else 8)")
    parser.add_argument("--steps", type=int, help="steps of a pass, a multiple of 10 (default: 60 on a GPU, else 10)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each contender (default: 3)")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)  # one run, in this process
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    import torch

    gpu = torch.cuda.is_available()
    args.shape = args.shape or ("qwen2.5-0.5b" if gpu else "llama-29m")
    args.batch_size = args.batch_size or (64 if gpu else 8)
    args.steps = args.steps or (60 if gpu else 10)
    if args.steps % 10:
        parser.error("--steps must be a multiple of 10: edgedc reports every tenth step")
    if args.contender:
        torch.set_num_threads(1)
        print(json.dumps(CONTENDERS[args.contender](args)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder)
        data = make_data(args)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders()}
        for turn in range(args.runs):
            for name in runs:
                runs[name].append(run(name, args))
                print(f"run {turn + 1} of {args.runs}: {name}: {runs[name][-1]['seconds']:.1f} s", file=sys.stderr)
    measured = {name: figures(name, taken, data, args) for name, taken in runs.items()}
    write(args, data, measured)
    show(measured)
    return 0


def contenders() -> list[str]:
    return [name for name in CONTENDERS if find_spec("trl") or not name.startswith("TRL")]


def run(name: str, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--contender", name, "--folder", str(args.folder), "--shape", args.shape]
    for flag in ("tuning", "batch_size", "steps"):
        command += [f"--{flag.replace('_', '-')}", str(getattr(args, flag))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def figures(name: str, runs: list[dict[str, float]], data: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """What the runs come to: tokens a second, memory, and on a known GPU the share of its peak."""
    seconds = [taken["seconds"] for taken in runs]
    made: dict[str, Any] = {
        "seconds": spread(seconds, 3),
        "tokens_per_s": spread([data["tokens"] / s for s in seconds], 1),
        "completion_tokens_per_s": spread([data["completion_tokens"] / s for s in seconds], 1),
        "peak_memory_mb": spread([taken["peak_memory_bytes"] / 1e6 for taken in runs], 0),
    }
    learnt = data["tokens"] - data["rows"] if name == "Trainer, whole text" else data["completion_tokens"]
    if peak := card_peak():
        made["mfu"] = spread([operations(data, learnt, args) / s / peak for s in seconds], 4)
    return made


def operations(data: dict[str, Any], learnt: int, args: argparse.Namespace) -> float:
    """Floating-point operations that one pass over the rows needs.

    Twice a multiplied weight for each token forward and four times backward (PaLM, arXiv 2204.02311, appendix B; a
    frozen weight needs no gradient: two); the output layer only for the `learnt` tokens, and attention
    as causal attention needs it, half of that formula's. What is computed besides, padding above all, is not needed.
    """
    shape = SHAPES[args.shape]
    width, layers, vocabulary = shape["hidden_size"], shape["num_hidden_layers"], shape["vocab_size"]
    head = vocabulary * width  # tied: the embedding itself is looked up, not multiplied
    per_weight = 6 if args.tuning == "full" else 4
    body = (data["parameters"] - head) * data["tokens"] + head * learnt
    return float(per_weight * body + 6 * layers * width * data["squares"])


def card_peak() -> float | None:
    import torch

    return peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def peak_of(name: str) -> float | None:
    words = set(name.replace("-", " ").split())
    return next((peak for card, peak in PEAK.items() if set(card.split()) <= words), None)


def spread(values: list[float], digits: int) -> dict[str, float]:
    three = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, digits) for name, value in three.items()}


def write(args: argparse.Namespace, data: dict[str, Any], measured: dict[str, Any]) -> None:
    import torch

    packages = ("edgedc", "torch", "transformers", "accelerate", "peft", "trl")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    result = {
        "model": f"random weights in the shape {args.shape}, {data['parameters']:,} parameters",
        "tuning": args.tuning,
        "arithmetic": precision(),
        "batch_size": args.batch_size,
        "steps_measured": args.steps,
        "clock": "wall" if gpu else "CPU time of one thread",
        "data": {name: value for name, value in data.items() if name not in ("squares", "parameters")},
        "runs": args.runs,
        "measured": measured,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {name: version(name) for name in packages if find_spec(name)},
        "machine": asdict(this_machine()) | {"gpu": gpu, "load": round(os.getloadavg()[0], 1)},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def show(measured: dict[str, dict[str, Any]]) -> None:
    best = max(row["tokens_per_s"]["median"] for name, row in measured.items() if name.startswith("edgedc"))
    rows = []
    for name, row in measured.items():
        pace = row["tokens_per_s"]
        least, most = (f"{pace[word]:,.0f}" for word in ("least", "most"))
        cells = [name, pace["median"], f"{least} to {most}", row["completion_tokens_per_s"]["median"]]
        cells += [row["peak_memory_mb"]["median"], f"{best / pace['median']:.2f}"]
        rows.append([*cells, f"{row['mfu']['median']:.1%}"] if "mfu" in row else cells)
    heads = ["", "tokens/s", "least to most", "completion\ntokens/s", "peak MB", "edgedc's\nbest is x"]
    print(table([*heads, "MFU"] if any("mfu" in row for row in measured.values()) else heads, rows))


if __name__ == "__main__":
    sys.exit(main())
