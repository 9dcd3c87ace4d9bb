"""How well decomposers do that are small, against ones that were recorded: the same questions, the same measures.

    python benchmarks/box_model.py --model build/default --data ../shared/data

Recorded are DistilGPT-2, GPT-2 small and medium distilled from ChatGPT, GPT-2 medium on screened data, and ChatGPT, on
the first 660 test questions of GSM8K (DT6A/GSM8K-AI-SubQ). A model runs those, Break (another style), the held-out
domains of train.corpus and of microworld, and the held-out part of StrategyQA. Prints a table and writes
results/box_model.json beside this file; what edgedc.bench.decompositions says of each measure holds.
"""

import argparse
import csv
import itertools
import json
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from edgedc.backends import choose, open_choice
from edgedc.backends.grammar import ListGrammar
from edgedc.bench.decompositions import Decompositions, Scored, score, summarise
from edgedc.bench.quality import Share
from edgedc.bench.quality_tables import shown
from edgedc.bench.table import table
from edgedc.bundle import read_manifest, write_manifest
from edgedc.catalogue import find_model
from edgedc.decomposer import Decomposer, decompose
from edgedc.decomposition import Decomposition, decomposition_of, parse
from edgedc.files import read_rows, sha256_of
from edgedc.generation import Generation
from edgedc.machine import cpu_model
from edgedc.prompts import MAX_TOKENS_DECOMPOSE
from edgedc.tasks import Selection, gsm8k, microworld, strategyqa
from edgedc.workshop import workshop

RESULT = Path(__file__).parent / "results" / "box_model.json"
DATA = Path(os.environ.get("EDGEDC_DATA", Path(__file__).parents[2] / "shared" / "data"))
RECORDED = {
    "DistilGPT-2 (82M)": "finetune_dist",
    "GPT-2 small (124M)": "finetune",
    "GPT-2 medium (355M)": "finetune_medium",
    "GPT-2 medium, screened": "filtered_bc_medium",
    "ChatGPT (teacher)": "chat",
}
CARD = "## Measured"
MADE = 500  # questions of a generated set
SEED = 20_000_003  # apart from the seeds of corpora that people train on


@dataclass(frozen=True)
class Item:
    question: str
    known: Decomposition


@dataclass(frozen=True)
class Cost:
    """Of one model on one set: seconds and tokens are medians per question, memory is the process's peak."""

    seconds: float
    first_token_s: float
    tokens_per_s: float
    peak_mb: float


@dataclass(frozen=True)
class Line:
    set: str
    decomposer: str
    quality: Decompositions
    cost: Cost | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", default=[], help="a bundle or model folder; repeatable")
    parser.add_argument("--data", type=Path, default=DATA, help=f"the folder with the public data (default: {DATA})")
    parser.add_argument("--limit", type=int, help="questions of each set (default: all)")
    parser.add_argument("--threads", type=int, help="of a model (default: the physical cores)")
    parser.add_argument("--out", type=Path, default=RESULT, help=f"the JSON to write (default: {RESULT})")
    parser.add_argument(
        "--card", action="store_true", help="put the figures into the card of the first --model, a bundle"
    )
    options = parser.parse_args()
    sets = {name: items[: options.limit] for name, items in read_sets(options.data).items()}
    lines = list(recorded_lines(options.data, sets["gsm8k test"]))
    for path in options.model:
        lines += model_lines(path, sets, options.threads)
    shown = ("set", "decomposer", "n", "ROUGE-L F1", "count", "right count", "exact", "copied", "repeated", "parsed")
    print(table([*shown, "s/question", "tokens/s", "peak MB"], [cells(line) for line in lines]))
    options.out.parent.mkdir(exist_ok=True)
    result = {
        "lines": [asdict(line) for line in lines],
        "models": [str(path) for path in options.model],
        "threads": options.threads,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {"edgedc": version("edgedc")},
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    if options.card:
        write_card(options.model[0], lines)
    return 0


def write_card(bundle: Path, lines: list[Line]) -> None:
    """The figures as a section of the bundle's card, in place of older ones; its hash in the manifest follows."""
    card = bundle / "README.md"
    titles = ("questions", "decomposer", "n", "ROUGE-L F1", "subquestions", "right count", "copied numbers", "repeated")
    rows = [
        [
            line.set,
            line.decomposer,
            q.questions,
            shown(q.rouge, ".3f"),
            shown(q.count, ".2f"),
            _share(q.right_count),
            shown(q.copied, ".1%"),
            shown(q.repeated, ".1%"),
        ]
        for line in lines
        for q in [line.quality]
    ]
    table = "\n".join(
        "| " + " | ".join("-" if cell is None else str(cell) for cell in row) + " |"
        for row in [titles, ["---"] * len(titles), *rows]
    )
    before, _, after = card.read_text("utf-8").partition(CARD)
    rest = after[after.index("\nMade by ") :] if "\nMade by " in after else before[before.index("\nMade by ") :]
    before = before.partition("\nMade by ")[0].rstrip("\n")
    said = "Questions that it never saw, with 95 % intervals, beside recorded decomposers (`benchmarks/box_model.py`)."
    card.write_text(f"{before}\n\n{CARD}\n\n{said}\n\n{table}\n{rest}", "utf-8")
    manifest = read_manifest(bundle)
    write_manifest(bundle, replace(manifest, files=manifest.files | {card.name: sha256_of(card)}))


def read_sets(data: Path) -> dict[str, list[Item]]:
    """Questions that no model of ours was trained on, with human subquestions or those that they were made with."""
    corpus = workshop("train.corpus")
    made = itertools.islice(corpus.problems(random.Random(SEED), held_out=True), MADE)
    asked = strategyqa.load(Selection("strategyqa", str(data / "strategyqa" / "train.json")))
    tested = gsm8k.load(Selection("gsm8k", str(data / "gsm8k" / "test_socratic_first660.jsonl"), "test"))
    heldout = microworld.load(Selection("microworld", split="heldout", limit=MADE, seed=SEED))
    return {
        "gsm8k test": [Item(e.question, e.decomposition) for e in tested if e.decomposition],
        "break": list(break_items(data / "break" / "qdmr_high_level_dev_first1500.csv")),
        "corpus held out": [Item(p.question, decomposition_of(p.subquestions)) for p in made],
        "microworld held out": [Item(e.question, e.decomposition) for e in heldout if e.decomposition],
        "strategyqa held out": [
            Item(e.question, e.decomposition) for e in asked if e.decomposition and corpus.is_held_out(e.question)
        ],
    }


def break_items(path: Path) -> Iterator[Item]:
    """QDMR's steps as they stand (`return ... of #1`): a style of its own, which shows what adapting to it brings."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield Item(row["question_text"], decomposition_of(row["decomposition"].split(";")))


def recorded_lines(data: Path, items: list[Item]) -> Iterator[Line]:
    yield Line("gsm8k test", "(human)", summarise(score(i.question, i.known, i.known) for i in items), None)
    for name, file in RECORDED.items():
        rows = read_rows(data / "replay" / "chatgpt" / f"eval_{file}_first660.jsonl")
        scores = []
        for item, row in zip(items, rows, strict=False):
            if "".join(row["problem"].split()) != "".join(item.question.split()):
                sys.exit(f"{file}: its questions are not those of the test split, in order: {row['problem'][:80]!r}")
            scores.append(score(item.question, parse(row["questions"]), item.known))
        yield Line("gsm8k test", name, summarise(scores), None)


def model_lines(path: Path, sets: dict[str, list[Item]], threads: int | None) -> Iterator[Line]:
    with opened(path, threads) as ways:
        for of, items in sets.items():
            for way in ways:
                print(f"{way.name}: {of}, {len(items)} questions", file=sys.stderr)
                scores, generations = asked(way, items)
                yield Line(of, way.name, summarise(scores), cost(generations))


@contextmanager
def opened(path: Path, threads: int | None) -> Iterator[tuple[Decomposer, Decomposer]]:
    """A bundle or model folder as a decomposer, named as in tables: as `edgedc decompose` runs it, held to a list that
    asks nothing twice, and as it is by itself."""
    choice = choose(find_model(path))
    backend = open_choice(choice, threads=threads)
    manifest = choice.manifest
    style, cap = manifest.prompt_style, manifest.max_subquestions
    name = f"{manifest.name} ({backend.name})"
    free = Decomposer(f"{name}, --no-grammar", "local", backend.generate, style, cap, MAX_TOKENS_DECOMPOSE)
    try:
        yield replace(free, name=name, generate=partial(backend.generate, grammar=ListGrammar(cap))), free
    finally:
        backend.close()


def asked(decomposer: Decomposer, items: list[Item]) -> tuple[list[Scored], list[Generation]]:
    made = [decompose(decomposer, item.question) for item in items]
    scores = [score(item.question, d, item.known) for item, (d, _) in zip(items, made, strict=True)]
    return scores, [generation for _, generation in made]


def cost(generations: list[Generation]) -> Cost:
    spread = [g for g in generations if g.first_token_s is not None and g.total_s > g.first_token_s]
    return Cost(
        seconds=statistics.median(g.total_s for g in generations),
        first_token_s=statistics.median(g.first_token_s for g in spread),
        tokens_per_s=statistics.median((g.usage.output_tokens - 1) / (g.total_s - g.first_token_s) for g in spread),
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,  # KiB on Linux
    )


def cells(line: Line) -> list[str | int | float | None]:
    quality, cost = line.quality, line.cost
    return [
        line.set,
        line.decomposer,
        quality.questions,
        shown(quality.rouge, ".3f"),
        shown(quality.count, ".2f"),
        *(_share(share) for share in (quality.right_count, quality.exact)),
        *(shown(quality.copied, ".1%"), shown(quality.repeated, ".1%")),
        _share(quality.parsed),
        *((cost.seconds, round(cost.tokens_per_s), round(cost.peak_mb)) if cost else (None, None, None)),
    ]


def _share(share: Share) -> str:
    return str(share)


if __name__ == "__main__":
    sys.exit(main())
