"""How long a GGUF export takes, and how much memory, against llama.cpp's own converter and quantiser.

Both make an f16 and a q4_k_m GGUF of the same random model in the shape of SmolLM2-135M, whole processes in turns. The
gate is off: llama.cpp has none. Prints a table and writes results/export_speed.json beside this file.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from shapes import make_model

from edgedc.machine import cpu_model
from edgedc.workshop import workshop

RESULT = Path(__file__).parent / "results" / "export_speed.json"
TYPES = ("f16", "q4_k_m")
# llama.cpp's quantiser as a program of its own does it: convert, then quantise the file.
QUANTIZE = """
import ctypes, sys, llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = 15  # LLAMA_FTYPE_MOSTLY_Q4_K_M
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(params)))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="exports by each (default: 5)")
    runs = parser.parse_args().runs
    llama_cpp = workshop("export.gguf.llama_cpp").find_converter(None, print)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        # In a process of its own: what is started by a process as large as one with torch begins with its peak.
        maker = multiprocessing.get_context("spawn").Process(target=make_model, args=(model,))
        maker.start()
        maker.join()
        if maker.exitcode:
            return 1
        ours = [[sys.executable, "-m", "edgedc", "export", "--no-gate", "--quantization", ",".join(TYPES)]]
        ours[0] += [str(model), f"{scratch}/bundle"]
        f16 = f"{scratch}/f16.gguf"
        theirs = [
            [sys.executable, str(llama_cpp / "convert_hf_to_gguf.py"), str(model), "--outfile", f16],
            [sys.executable, "-c", QUANTIZE, f16, f"{scratch}/q4_k_m.gguf"],
        ]
        theirs[0] += ["--outtype", "f16"]
        measured = measure({"edgedc export": ours, "llama.cpp": theirs}, runs)
    ratio = {
        name: round(measured["edgedc export"][name]["median"] / measured["llama.cpp"][name]["median"], 2)
        for name in ("seconds", "peak_mb")
    }
    result = {
        "model": "random Llama in the shape of SmolLM2-135M, float32 safetensors",
        "types": TYPES,
        "runs": runs,
        "measured": measured,
        "ratio": ratio,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {name: version(name) for name in ("edgedc", "gguf", "llama-cpp-python", "numpy", "torch")},
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{'':16}{'median s':>10}{'least':>8}{'most':>8}{'peak MB':>10}")
    for name, row in measured.items():
        seconds, memory = row["seconds"], row["peak_mb"]
        print(
            f"{name:16}{seconds['median']:10.1f}{seconds['least']:8.1f}{seconds['most']:8.1f}{memory['median']:10.0f}"
        )
    print(f"ratio: {ratio['seconds']} of the time, {ratio['peak_mb']} of the memory")
    return 0


def measure(programs: dict[str, list[list[str]]], runs: int) -> dict[str, dict[str, dict[str, float]]]:
    """Seconds of each program's processes together, and the largest memory of any. The first turn is not counted."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for turn in range(runs + 1):
        for name, commands in programs.items():
            seconds, memory = zip(*(run(command) for command in commands), strict=True)
            if turn:
                taken[name].append((sum(seconds), max(memory)))
    rows = {name: tuple(zip(*pairs, strict=True)) for name, pairs in taken.items()}
    return {name: {"seconds": summary(seconds), "peak_mb": summary(memory)} for name, (seconds, memory) in rows.items()}


def run(command: list[str]) -> tuple[float, float]:
    """(wall seconds, peak resident MB of the largest process among it and those it waited for) of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command[:4])} failed:\n{said.decode(errors='replace')[-2000:]}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024  # KiB on Linux


def summary(values: tuple[float, ...]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "least": round(min(values), 2),
        "most": round(max(values), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
