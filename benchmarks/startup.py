"""How long `edgedc --help` takes, against `python -c "import click"`: whole processes, taken in turns.

Prints a table and writes results/startup.json beside this file. Exits 1 if the ratio of the medians is above the limit.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from edgedc.machine import cpu_model

LIMIT = 3.0
RESULT = Path(__file__).parent / "results" / "startup.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=25, help="runs of each command (default: 25)")
    runs = parser.parse_args().runs
    commands = {
        "edgedc --help": [str(Path(sys.executable).with_name("edgedc")), "--help"],
        'python -c "import click"': [sys.executable, "-c", "import click"],
    }
    seconds = measure(commands, runs)
    ours, click = (statistics.median(taken) for taken in seconds.values())
    result = {
        "runs": runs,
        "seconds": {name: summary(taken) for name, taken in seconds.items()},
        "ratio": round(ours / click, 2),
        "limit": LIMIT,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {name: version(name) for name in ("edgedc", "click")} | {"python": platform.python_version()},
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{'command':26}{'median ms':>10}{'p10':>7}{'p90':>7}")
    for name, taken in result["seconds"].items():
        print(f"{name:26}{taken['median'] * 1e3:10.1f}{taken['p10'] * 1e3:7.1f}{taken['p90'] * 1e3:7.1f}")
    print(f"ratio {result['ratio']}, at most {LIMIT}")
    return 1 if ours / click > LIMIT else 0


def measure(commands: dict[str, list[str]], runs: int) -> dict[str, list[float]]:
    """Seconds of each run. The commands take turns, so that a busy moment of the machine meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            if turn:  # the first turn only warms the file cache
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(taken: list[float]) -> dict[str, float]:
    tenths = statistics.quantiles(taken, n=10)
    return {"median": round(statistics.median(taken), 4), "p10": round(tenths[0], 4), "p90": round(tenths[-1], 4)}


if __name__ == "__main__":
    sys.exit(main())
