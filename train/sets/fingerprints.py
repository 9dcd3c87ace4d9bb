"""Makes fingerprints.json: what the leak guard knows of public test splits, as hashes, without a word of their text.

From a shell, where the data is:

    python -m train.sets.fingerprints 'gsm8k test'=test.jsonl 'bamboogle test'=bamboogle.json
"""

import json
import sys
from base64 import b64encode
from pathlib import Path

from edgedc.files import write_text

from .leaks import HASH_BYTES, MOST, RUN, SHIPPED, HeldOut, read_held_out


def write_fingerprints(out: Path, sets: dict[str, Path]) -> None:
    """`sets`: the file of each split, by the name that the guard is to call it. Raises InputError for a bad file."""
    parts = []
    for name, path in sets.items():
        lines = ",\n".join(json.dumps([test.words, _packed(test)]) for test in read_held_out(path))
        parts.append(f'{{"name": {json.dumps(name)}, "questions": [\n{lines}\n]}}')
    about = (
        f"For each question: a hash of its words, and {HASH_BYTES * 8}-bit hashes of at most {MOST} of its runs of "
        f"{RUN} words. Made by train/sets/fingerprints.py."
    )
    write_text(out, f'{{"about": {json.dumps(about)},\n"sets": [{",".join(parts)}]}}\n')


def _packed(test: HeldOut) -> str:
    return b64encode(b"".join(run.to_bytes(HASH_BYTES) for run in sorted(test.runs))).decode()


if __name__ == "__main__":
    write_fingerprints(SHIPPED, {name: Path(file) for name, _, file in (a.partition("=") for a in sys.argv[1:])})
