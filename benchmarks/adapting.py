"""What a few minutes of LoRA make of the model in the box: another style of decomposition, before and after.

    python benchmarks/adapting.py --data ../shared/data

The first 1,000 rows of Break's high-level development set are trained on, by `edgedc train --base default`, `merge`
and `export` as a user would; the other 500 are measured on, with both models. Prints a table and writes
results/adapting.json beside this file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from box_model import DATA, Item, cells, model_lines, read_sets
from startup import cpu_model

from edgedc.bench.table import table
from edgedc.catalogue import BOX
from edgedc.files import sha256_of

RESULT = Path(__file__).parent / "results" / "adapting.json"
TRAINED = 1000
SETTINGS = (
    "--max-subquestions",
    "none",
    "--lora-rank",
    "32",
    "--lora-alpha",
    "64",
    "--epochs",
    "6",
    "--max-length",
    "512",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help=f"the folder with the public data (default: {DATA})")
    parser.add_argument("--threads", type=int, help="of training and of the models")
    options = parser.parse_args()
    items = read_sets(options.data)["break"]
    trained, tested = items[:TRAINED], {"break, the last 500": items[TRAINED:]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "my.jsonl", trained)
        threads = ("--threads", str(options.threads)) if options.threads else ()
        begun = time.perf_counter()
        edgedc(folder, "train", "--base", "default", *SETTINGS, *threads, "my.jsonl", "adapter")
        seconds = time.perf_counter() - begun
        edgedc(folder, "merge", "adapter", "mine")
        edgedc(folder, "export", "--quantization", "q8_0", "mine", "bundle")
        lines = [*model_lines(BOX, tested, options.threads), *model_lines(folder / "bundle", tested, options.threads)]
    shown = ("set", "decomposer", "n", "ROUGE-L F1", "count", "right count", "exact", "copied", "repeated", "parsed")
    print(table([*shown, "s/question", "tokens/s", "peak MB"], [cells(line) for line in lines]))
    print(f"trained in {seconds:.0f} s")
    result = {
        "lines": [asdict(line) for line in lines],
        "trained_rows": TRAINED,
        "settings": SETTINGS,
        "training_seconds": round(seconds, 1),
        "box": [sha256_of(path) for path in sorted(BOX.glob("*.gguf"))],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def write_rows(path: Path, items: list[Item]) -> None:
    rows = ({"question": item.question, "subquestions": item.known.texts} for item in items)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def edgedc(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "edgedc", *words], cwd=folder, check=True)


if __name__ == "__main__":
    sys.exit(main())
