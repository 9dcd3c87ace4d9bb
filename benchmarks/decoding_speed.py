"""How fast a decomposer runs here, against the engines below it, each in a process of its own and in turns.

On a random model in the shape of SmolLM2-135M, and on the one that --model names. Prints a table and writes
results/decoding_speed.json beside this file. What a ratio is to be stands in LIMITS; this script judges nothing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from llamacpp_contenders import (
    batch,
    decode_bare,
    decode_edgedc,
    decode_transformers,
    memory,
    open_at_work,
    open_bare,
    open_edgedc,
    open_transformers,
    prefix,
)
from onnx_contenders import LIMITS as ONNX_LIMITS
from onnx_contenders import measure_onnx
from shapes import make_model

import edgedc
from edgedc.backends import choose
from edgedc.backends.cores import physical_cores
from edgedc.machine import cpu_model

RESULT = Path(__file__).parent / "results" / "decoding_speed.json"
OWN = Path(edgedc.__file__).parent / "models" / "default"
BEGUN = 4  # times that edgedc and the bare loop are
# What the ratios are to be on two quiet cores: (at least or at most, figure)
LIMITS = {
    "decode: edgedc / bare loop, tokens/s": ("at least", 0.97),
    "decode: edgedc / transformers bf16, tokens/s": ("at least", 5.0),
    "beside a busy core: edgedc / bare loop, tokens/s": ("at least", 1.3),
    "prefix: warm / cold, s": ("at most", 0.1),
    "batch: together / one at a time, tokens/s": ("at least", 2.5),
    "batch: together / one at a time, questions/s": ("at least", 2.2),
    "memory: above file and KV cache, MB": ("at most", 80.0),
    **ONNX_LIMITS,
}


@dataclass(frozen=True)
class Subject:
    """A GGUF with the bundle around it; `source` is the model folder that it was made from, where that is at hand.

    `random`: it says nothing, and its tokenizer knows a single sentence. `threads` None leaves them to edgedc.
    """

    name: str
    bundle: Path
    gguf: Path
    source: Path | None
    random: bool
    threads: int | None
    runs: int
    tokens: int


class Process:
    """A process that has opened something, and runs one thing after the other."""

    def __init__(self, opened: Callable[[Subject], None], subject: Subject) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), opened, (subject,))
        self._subject = subject

    def __call__(self, what: Callable[[Subject], Any]) -> Any:
        return self._pool.submit(what, self._subject).result()

    def close(self) -> None:
        self._pool.shutdown()


Figures = tuple[dict[str, Any], dict[str, float]]


def measure_decoding(subject: Subject) -> Figures:
    """edgedc and the loop that it is to come close to have the machine to themselves; transformers comes after.

    Where a process's memory lies stays as it is while it lives, and is worth more than what edgedc adds: the two are
    begun anew several times.
    """
    ways: dict[str, tuple[Callable[[Subject], None], Callable[[Subject], float]]] = {
        "edgedc": (open_at_work, decode_edgedc),
        "bare loop": (open_bare, decode_bare),
        "bare loop, file read": (partial(open_bare, mapped=False), decode_bare),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(BEGUN):
        processes = {name: Process(opened, subject) for name, (opened, _) in ways.items()}
        turns = {name: partial(processes[name], does) for name, (_, does) in ways.items()}
        for name, made in in_turns(turns, subject.runs).items():
            rates[name] += made
        for process in processes.values():
            process.close()
    ratios = {"decode: edgedc / bare loop, tokens/s": ratio(rates["edgedc"], rates["bare loop"])}
    figures = {f"{name}, tokens/s": summary(made) for name, made in rates.items()}
    if subject.source:
        ours, theirs = Process(open_at_work, subject), Process(open_transformers, subject)
        turns = {"ours": partial(ours, decode_edgedc), "theirs": partial(theirs, decode_transformers)}
        made = in_turns(turns, subject.runs)
        figures["transformers bf16, tokens/s"] = summary(made["theirs"])
        ratios["decode: edgedc / transformers bf16, tokens/s"] = ratio(made["ours"], made["theirs"])
        ours.close()
        theirs.close()
    return figures, ratios


def measure_beside(subject: Subject) -> Figures:
    """While another program keeps one core busy: edgedc as it decides, the loop with a thread for each core."""
    ours, theirs = Process(open_edgedc, replace(subject, threads=None)), Process(open_bare, subject)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        made = in_turns({"ours": partial(ours, decode_edgedc), "theirs": partial(theirs, decode_bare)}, subject.runs)
        busy.kill()
    ours.close()
    theirs.close()
    figures = {
        "beside a busy core: edgedc, tokens/s": summary(made["ours"]),
        "beside a busy core: bare loop, tokens/s": summary(made["theirs"]),
    }
    return figures, {"beside a busy core: edgedc / bare loop, tokens/s": ratio(made["ours"], made["theirs"])}


def measure_prefix(subject: Subject) -> Figures:
    process = Process(open_edgedc, subject)
    pairs = in_turns({"": partial(process, prefix)}, subject.runs)[""]
    process.close()
    cold, warm = (list(column) for column in zip(*pairs, strict=True))
    ratio = median([w / c for c, w in pairs])
    return {"cold prompt, s": summary(cold), "warm prompt, s": summary(warm)}, {"prefix: warm / cold, s": ratio}


def measure_batch(subject: Subject) -> Figures:
    turns = []
    for _ in range(max(1, subject.runs // 2)):  # anew, as the last prompts are still known
        process = Process(open_edgedc, subject)
        turns.append(process(batch))
        process.close()
    figures = {name: summary([turn[name] for turn in turns]) for name in turns[0]}
    ratios = {
        f"batch: together / one at a time, {unit}": median([t[f"together {unit}"] / t[f"alone {unit}"] for t in turns])
        for unit in ("tokens/s", "questions/s")
    }
    return figures, ratios


def measure_memory(subject: Subject) -> Figures:
    process = Process(open_edgedc, subject)
    figures = process(memory)
    process.close()
    return {f"{name}, MB": round(value, 1) for name, value in figures.items()}, {
        "memory: above file and KV cache, MB": figures["above"]
    }


# Each gives its figures, and its ratios by the names in LIMITS.
MEASURES: dict[str, Callable[[Subject], Figures]] = {
    "decode": measure_decoding,
    "beside": measure_beside,
    "prefix": measure_prefix,
    "batch": measure_batch,
    "memory": measure_memory,
    "onnx": measure_onnx,
}


def in_turns(contenders: dict[str, Callable[[], Any]], runs: int) -> dict[str, list[Any]]:
    """Each of them `runs` times: a, b, b, a, a, b. The first turn is not counted."""
    made: dict[str, list[Any]] = {name: [] for name in contenders}
    for turn in range(runs + 1):
        for name, run in list(contenders.items())[:: -1 if turn % 2 else 1]:
            value = run()
            if turn:
                made[name].append(value)
    return made


def median(values: list[float]) -> float:
    return statistics.median(values)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Of two that took turns: each turn's, so that what slows the machine for a while slows both."""
    return median([a / b for a, b in zip(ours, theirs, strict=True)])


def summary(values: list[float]) -> dict[str, float]:
    named = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, 4) for name, value in named.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, default=OWN, help="a bundle, or a model folder (default: the one in the box)"
    )
    parser.add_argument("--quantization", default="q4_0", help="of the random model (default: q4_0)")
    parser.add_argument("--model-quantization", default="q8_0", help="of a model folder (default: q8_0)")
    parser.add_argument("--threads", type=int, default=physical_cores(), help="default: the physical cores")
    parser.add_argument("--runs", type=int, default=7, help="of each contender (default: 7)")
    parser.add_argument("--tokens", type=int, default=64, help="of a reply (default: 64)")
    parser.add_argument("--only", choices=MEASURES, action="append", help="repeatable; nothing is recorded")
    args = parser.parse_args()
    subjects = []
    with tempfile.TemporaryDirectory() as scratch:
        rest = (args.threads, args.runs, args.tokens)
        folder = Path(scratch) / "random"
        maker = get_context("spawn").Process(target=make_model, args=(folder,))  # so that this process stays small
        maker.start()
        maker.join()
        bundle = exported(folder, Path(scratch) / "bundle", args.quantization)
        name = f"random 135M, {args.quantization}"
        subjects.append(Subject(name, bundle, next(bundle.glob("*.gguf")), folder, True, *rest))
        source = None if any(args.model.glob("*.gguf")) else args.model
        bundle = exported(source, Path(scratch) / "own", args.model_quantization) if source else args.model
        choice = choose(bundle, engine="llamacpp")
        assert choice.artifact is not None
        name = f"{choice.manifest.name}, {choice.artifact.quantization}"
        subjects.append(Subject(name, bundle, bundle / choice.artifact.path, source, False, *rest))
        measured = {subject.name: measure(subject, args.only or list(MEASURES)) for subject in subjects}
    result = {
        "limits": LIMITS,
        "runs": args.runs,
        "threads": args.threads,
        "reply_tokens": args.tokens,
        "measured": measured,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {name: version(name) for name in ("edgedc", "llama-cpp-python", "numpy", "torch", "transformers")},
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
    }
    if not args.only:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def exported(folder: Path, bundle: Path, quantization: str) -> Path:
    command = [sys.executable, "-m", "edgedc", "export", "--no-gate", "--quantization", quantization]
    subprocess.run([*command, str(folder), str(bundle)], check=True, stdout=subprocess.DEVNULL)
    return bundle


def measure(subject: Subject, names: list[str]) -> dict[str, dict[str, Any]]:
    figures: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    for name in names:
        some, more = MEASURES[name](subject)
        figures |= some
        ratios |= more
    print(f"{subject.name:50}{'median':>12}{'least':>12}{'most':>12}")
    for name, figure in figures.items():
        row = figure if isinstance(figure, dict) else {"median": figure}
        print(f"  {name:48}" + "".join(f"{value:12.3f}" for value in row.values()))
    for name, ratio in ratios.items():
        print(f"  {name:48}{ratio:12.3f}  {' '.join(map(str, LIMITS[name]))}")
    return {"figures": figures, "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()}}


if __name__ == "__main__":
    sys.exit(main())
