"""The leak guard: training rows whose question occurs in a test split.

A test question is known by hashes alone: of all its words, and of its runs of four words, numbers being all alike. A
row that has the same words, or more than half of the runs, is a leak. So case, punctuation and white space hide
nothing, and neither does another number or another name in a question of some length. Of GSM8K's training rows that
finds three, which are test questions with other numbers (of the 660 at hand); the next nearest row has 44 % of the
runs.
"""

import csv
import hashlib
import io
import json
import re
import unicodedata
from base64 import b64decode
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from edgedc.errors import InputError
from edgedc.files import Row, numbered_rows, read_text

from .pairs import Pair

RUN = 4  # words
ENOUGH = 0.5  # of a test question's runs
AT_LEAST = 3  # runs, where it has so many: two of four is what unrelated short questions share
MOST = 32  # runs kept of one question; of a longer one, those with the smallest hashes, which is a fair sample
HASH_BYTES = 3

SHIPPED = Path(__file__).with_name("fingerprints.json")  # written by train/sets/fingerprints.py

_HELD_OUT = {"test", "dev", "val", "valid", "validation", "eval", "heldout", "held-out"}
# A generated task keeps its splits apart by itself, and they share their phrasings by design: only the words count.
_GENERATED = ("microworld",)
_COLUMNS = ("question", "Question", "question_text", "problem", "context")
# Scripts that put no space between words: Thai to Burmese, Khmer, kana and Han. Each of their letters is a word.
_LONE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"\d+(?:[.,]\d+)*[^\W_{_LONE}]*|[{_LONE}]|[^\W_{_LONE}]+")
_NUMBER_WORD = re.compile("zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve")


@dataclass(frozen=True)
class HeldOut:
    """A test question. `text` is "" where nothing but its hashes is here."""

    place: str
    text: str
    words: str
    runs: frozenset[int]


@dataclass(frozen=True)
class Leak:
    """A row to train on that is in a test split: like `test`, or by its own `split` (None). `how` is for people."""

    pair: Pair
    test: HeldOut | None
    how: str

    def __str__(self) -> str:
        row = f"line {self.pair.line}" + (f" ({self.pair.id})" if self.pair.id else "")
        if self.test is None:
            return f"{row} {self.how}"
        said = f" {self.test.text[:120]!r}" if self.test.text else ""
        return f"{row} is {self.test.place}{said} ({self.how})"


def check_leaks(
    path: Path, pairs: Sequence[Pair], tests: Sequence[HeldOut], *, exclude: bool = False
) -> tuple[list[Pair], list[Leak]]:
    """The pairs that are in no test split, and the leaks, in order; `path` is what the pairs were read from.

    Takes time linear in the text. Raises InputError when there is a leak, unless they are to be excluded, and when
    that leaves nothing.
    """
    leaks = list(find_leaks(pairs, tests))
    if leaks and not exclude:
        shown = "; ".join(map(str, leaks[:3])) + (f"; and {len(leaks) - 3} more" if len(leaks) > 3 else "")
        raise InputError(
            f"{path}: {len(leaks)} of {len(pairs)} rows are in a test split: {shown}: leave them out with "
            "--exclude-leaks, or train on a file without them"
        )
    leaked = {leak.pair.line for leak in leaks}
    kept = [pair for pair in pairs if pair.line not in leaked]
    if not kept:
        raise InputError(f"{path}: every row is in a test split ({leaks[0]}): train on other questions")
    return kept, leaks


def find_leaks(pairs: Iterable[Pair], tests: Sequence[HeldOut]) -> Iterator[Leak]:
    """At most one leak a pair: its own split, else the test question that it is most like."""
    by_words = {test.words: test for test in tests}
    # Questions made from one template are alike but for their numbers: one of them stands for all, or each row made
    # from it would meet every one of them.
    tests = list({test.runs: test for test in tests}.values())
    by_run: dict[int, list[int]] = {}
    for number, test in enumerate(tests):
        for run in test.runs:
            by_run.setdefault(run, []).append(number)
    for pair in pairs:
        if pair.split.casefold() in _HELD_OUT:
            yield Leak(pair, None, f"is of split {pair.split!r} by its own word")
            continue
        words = _words(f"{pair.premise} {pair.question}" if pair.question else pair.prompt)
        if same := by_words.get(_hash_of(words)):
            yield Leak(pair, same, "the same words")
            continue
        if not pair.question:  # a document may ask anywhere: behind `Question:`, what is to be learnt asks
            words += _words(pair.completion)
        hits = Counter(number for run in _runs(words) for number in by_run.get(run, ()))
        alike = [(count / len(tests[k].runs), k) for k, count in hits.items() if _is_like(count, len(tests[k].runs))]
        if alike:
            shared, k = max(alike)
            yield Leak(pair, tests[k], f"{shared:.0%} of its {RUN}-word runs")


def _is_like(shared: int, runs: int) -> bool:
    return shared > ENOUGH * runs and shared >= min(AT_LEAST, runs)


def held_out_in(files: Iterable[Path]) -> list[HeldOut]:
    """The test questions that ship with edgedc, and those of these files."""
    return [*shipped_held_out(), *(test for path in files for test in read_held_out(path))]


def shipped_held_out() -> list[HeldOut]:
    """Public test questions, as hashes alone."""
    tests = []
    for known in json.loads(SHIPPED.read_text("utf-8"))["sets"]:
        for number, (words, packed) in enumerate(known["questions"], start=1):
            raw = b64decode(packed)
            runs = frozenset(int.from_bytes(raw[k : k + HASH_BYTES]) for k in range(0, len(raw), HASH_BYTES))
            tests.append(HeldOut(f"question {number} of {known['name']}", "", words, runs))
    return tests


def read_held_out(path: Path) -> list[HeldOut]:
    """The questions of a test file: JSONL, JSON or CSV, with a column that is called as our tasks call it.

    Raises InputError for a file that is none of them, and for a row without a question.
    """
    tests = []
    for where, row in _rows(path):
        text = next((row[name] for name in _COLUMNS if isinstance(row.get(name), str)), "")
        if not text.strip():
            raise InputError(f"{where}: no question: it is looked for in {', '.join(_COLUMNS)}")
        premise = row.get("premise")
        asked = f"{premise} {text}" if isinstance(premise, str) else text
        tests.append(held_out_of(where, asked, generated=row.get("task") in _GENERATED))
    if not tests:
        raise InputError(f"{path}: no questions in it")
    return tests


def held_out_of(place: str, text: str, *, generated: bool = False) -> HeldOut:
    """`generated`: only all of its words count."""
    words = _words(text)
    runs = [] if generated else sorted(_runs(words))[:MOST]
    return HeldOut(place, text.strip(), _hash_of(words), frozenset(runs))


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    if path.suffix == ".csv":
        try:
            for number, row in enumerate(csv.DictReader(io.StringIO(read_text(path))), start=1):
                yield f"{path}, row {number}", row
        except csv.Error as error:  # as a rule a quotation mark too many: the cell that it opens has no end
            raise InputError(f"{path}: not CSV: {error}; mend it, or give JSONL") from error
        return
    if path.suffix != ".json":
        yield from ((f"{path}:{number}", row) for number, row in numbered_rows(path))
        return
    try:
        entries = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    for number, entry in enumerate(_entries(entries), start=1):
        if not isinstance(entry, dict):
            raise InputError(f"{path}, entry {number}: a list of JSON objects is needed, not a {type(entry).__name__}")
        yield f"{path}, entry {number}", entry


def _entries(value: object) -> list[object]:
    """The questions of a JSON file. DROP's own is an object of passages, each with `qa_pairs`."""
    found: list[object] = []
    for passage in value.values() if isinstance(value, dict) else ():
        match passage:
            case {"passage": premise, "qa_pairs": [*pairs]}:
                found += [pair | {"premise": premise} if isinstance(pair, dict) else pair for pair in pairs]
    return found or (value if isinstance(value, list) else [value])


def _words(text: str) -> list[str]:
    """Words and numbers without case, accents of form, punctuation and white space."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def _hash_of(words: Sequence[str]) -> str:
    """Of all the words; thousands may be parted by commas."""
    text = " ".join(word.replace(",", "") for word in words)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _runs(words: Sequence[str]) -> set[int]:
    """Hashes of all runs of RUN words; of the whole, where it is shorter. Any number is `0`."""
    alike = ["0" if word[0].isdigit() or _NUMBER_WORD.fullmatch(word) else word for word in words]
    mask = (1 << 8 * HASH_BYTES) - 1
    return {crc32(" ".join(alike[k : k + RUN]).encode()) & mask for k in range(max(1, len(alike) - RUN + 1))}
