"""The rows of a corpus: generated problems and variants of real ones, in the shares that the settings name."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from edgedc.decomposition import decomposition_of, render
from edgedc.errors import InputError
from edgedc.files import Row, beside, check_writable, key_of, numbered_rows
from edgedc.flags import flag
from edgedc.tasks import Example, Selection, strategyqa
from edgedc.tasks.microworld import problems as microworld_problems

from ..sets.leaks import HeldOut, find_leaks, held_out_in
from ..sets.pairs import Pair
from . import hops, stories
from .reword import Lexicon, lexicon_of, reworded
from .vary import retyped, varied
from .worked import Worked, worked_in

_CHUNK = 4000  # rows that the leak guard looks at together
_HELD_OUT_OF = 7  # one StrategyQA question in so many is never trained on
_IN_VAIN = 500  # rows of a source that are all there already: it has no others
_SAMPLE = 1000  # rows of a source that tell which of its words are common

Item = TypeVar("Item")
# By name: the share of each source, and its rows without end.
Sources = dict[str, tuple[float, Iterator[Row]]]


@dataclass(frozen=True)
class CorpusSettings:
    """Shares are of all rows; what is left of 1 is generated word problems. A source without a file gives none."""

    count: int = flag(200_000, "Rows to write.")
    seed: int = flag(0, "Seed of everything that is drawn.")
    gsm8k: Path | None = flag(None, "Socratic GSM8K to take and vary (train_socratic.jsonl).")
    strategyqa: Path | None = flag(None, "StrategyQA to take and vary (train.json); a seventh is never taken.")
    gsm8k_share: float = flag(0.35, "Share of rows from --gsm8k.")
    strategyqa_share: float = flag(0.04, "Share of rows from --strategyqa.")
    hops_share: float = flag(0.05, "Share of generated questions of general knowledge.")
    microworld_share: float = flag(0.05, "Share of microworld's train split.")
    worked_share: float = flag(0.1, "Share of generated word problems with the arithmetic of each step.")
    reworded_share: float = flag(0.5, "Share of each source's rows whose rarer words are replaced, to be copied.")
    document_share: float = flag(0.0, "Share of the decomposed rows written as documents: the question is learnt too.")


@dataclass(frozen=True)
class Written:
    """How many rows there are of each source, and how many were left out because they are like a test question."""

    rows: Counter[str]
    leaks: Counter[str]


def write_corpus(
    path: Path,
    settings: CorpusSettings,
    held_out: Sequence[Path] = (),
    report: Callable[[int], None] = lambda _: None,
) -> Written:
    """Rows as `edgedc train` reads them, no question twice and none like a test question that edgedc or a file knows.

    `report` is told now and then how many rows there are. Raises InputError for settings or files that are wrong, and
    for a `path` where something else than a corpus is; what was there before then stays.
    """
    check_writable(path, _check_corpus)
    tests = held_out_in(held_out)
    source = rows(settings)
    written = Written(Counter(), Counter())
    with beside(path) as stage, stage.open("w", encoding="utf-8") as file:
        while (left := settings.count - written.rows.total()) > 0:
            for row in _without_leaks(list(islice(source, min(left, _CHUNK))), tests, written.leaks):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                written.rows[row["task"]] += 1
            report(written.rows.total())
    return written


def _check_corpus(path: Path) -> None:
    """Raises InputError for a file whose first row is not as `rows` makes them."""
    row = next((row for _, row in numbered_rows(path)), {})
    if not str(row.get("id")).startswith(f"{row.get('task')}-"):
        raise InputError(f"{path}: not a corpus that was written here")


def _without_leaks(chunk: list[Row], tests: Sequence[HeldOut], leaks: Counter[str]) -> Iterator[Row]:
    pairs = [
        Pair(row["id"], row.get("question", ""), "", [], row.get("completion", ""), row.get("prompt", ""), line)
        for line, row in enumerate(chunk)
    ]
    leaked = {leak.pair.line for leak in find_leaks(pairs, tests)}
    for line, row in enumerate(chunk):
        if line in leaked:
            leaks[row["task"]] += 1
        else:
            yield row


def rows(settings: CorpusSettings) -> Iterator[Row]:
    """Rows without end, their sources mixed, no question twice: the same ones for the same settings.

    Raises InputError as `write_corpus` does, and when there are no more.
    """
    for name in ("reworded_share", "document_share"):
        if not 0 <= getattr(settings, name) <= 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name):g}: a share is from 0 to 1")
    sources = _sources(settings)
    if settings.reworded_share:
        sources = _reworded(sources, settings)
    names, shares = list(sources), [share for share, _ in sources.values()]
    rng = random.Random(f"corpus 1 {settings.seed}")
    seen: set[str] = set()
    while True:
        (name,) = rng.choices(names, shares)
        row = _new(sources[name][1], seen)
        if row is None:
            raise InputError(
                f"--count {settings.count}: {name} has no more rows that are new after {len(seen):,}; ask for fewer, "
                f"or for a smaller --{name}-share"
            )
        if rng.random() < settings.document_share:
            row = _as_document(row)
        yield {"id": f"{name}-{settings.seed}-{len(seen)}", "task": name, "split": "train", **row}


def _as_document(row: Row) -> Row:
    """What a question is like is worth learning as well, for a model that has read nothing yet."""
    if not row.get("subquestions"):
        return row
    listed = render(decomposition_of(row["subquestions"]))
    return {"prompt": "Question:", "completion": f" {row['question']}\n{listed}"}


def _new(source: Iterator[Row], seen: set[str]) -> Row | None:
    """The next row whose question was not seen before; None when there seem to be no more."""
    for row in islice(source, _IN_VAIN):
        text = key_of(row.get("question", row.get("prompt")))
        if text not in seen:
            seen.add(text)
            return row
    return None


def _reworded(sources: Sources, settings: CorpusSettings) -> Sources:
    """The sources with other words in a part of their rows: each keeps its own common words, and takes from all."""
    samples = {name: list(islice(source, _SAMPLE)) for name, (_, source) in _sources(settings).items()}
    others = lexicon_of(_texts(row) for rows in samples.values() for row in rows).others

    def changed(name: str, source: Iterator[Row]) -> Iterator[Row]:
        rng = random.Random(f"corpus 1 {settings.seed} {name} reworded")
        lexicon = Lexicon(lexicon_of(map(_texts, samples[name])).common, others)
        for row in source:
            yield _in_other_words(rng, row, lexicon) if rng.random() < settings.reworded_share else row

    return {name: (share, changed(name, source)) for name, (share, source) in sources.items()}


def _texts(row: Row) -> list[str]:
    """What is read, and what is written about it."""
    return [row["question"], *row["subquestions"]] if "question" in row else [row["prompt"], row["completion"]]


def _in_other_words(rng: random.Random, row: Row, lexicon: Lexicon) -> Row:
    first, *rest = reworded(rng, _texts(row), lexicon)
    if "question" in row:
        return row | {"question": first, "subquestions": rest}
    return row | {"prompt": first, "completion": rest[0]}


def _sources(settings: CorpusSettings) -> Sources:

    def rng(name: str) -> random.Random:
        return random.Random(f"corpus 1 {settings.seed} {name}")

    sources: dict[str, tuple[float, Iterator[Row]]] = {
        "hops": (settings.hops_share, _hops(rng("hops"))),
        "microworld": (settings.microworld_share, _microworld(settings.seed)),
        "worked": (settings.worked_share, _worked(rng("worked"))),
    }
    if settings.gsm8k:
        sources["gsm8k"] = (settings.gsm8k_share, _gsm8k(settings.gsm8k, rng("gsm8k")))
    if settings.strategyqa:
        sources["strategyqa"] = (settings.strategyqa_share, _strategyqa(settings.strategyqa, rng("strategyqa")))
    taken = sum(share for share, _ in sources.values())
    if taken > 1 + 1e-9 or any(share < 0 for share, _ in sources.values()):
        raise InputError(f"the shares add up to {taken:g}: each must be 0 or more, and all together at most 1")
    sources["stories"] = (max(0.0, 1 - taken), _stories(rng("stories")))
    return {name: source for name, source in sources.items() if source[0] > 0}


def _stories(rng: random.Random) -> Iterator[Row]:
    for problem in stories.problems(rng):
        yield _row(problem.question, problem.subquestions, problem.answer) | {"domain": problem.domain}


def _worked(rng: random.Random) -> Iterator[Row]:
    """Exercises that are solved too: to say what is reckoned with what, a problem has to be understood."""
    for problem in stories.problems(rng):
        lines = [f"{step.ask} {step.equation} = {stories.plain(step.value)}" for step in problem.steps]
        yield {"prompt": f"Exercise: {problem.question}\n", "completion": "\n".join(lines)}


def _hops(rng: random.Random) -> Iterator[Row]:
    for made in hops.questions(rng):
        yield _row(made.question, list(made.subquestions), made.answer)


def _microworld(seed: int) -> Iterator[Row]:
    """Thousands at a time, from seeds apart from the small ones that people use."""
    for batch in range(1000):
        for problem in microworld_problems("train", 5000, 7_000_000 + 1000 * seed + batch):
            yield _row(problem.question, problem.decomposition.texts, problem.answer)


def _gsm8k(path: Path, rng: random.Random) -> Iterator[Row]:
    """Rows with a step that is no question (`Define a variable`) or the same one twice, a fifth of all, stay out."""
    every = [worked_in(row, f"{path}:{number}") for number, row in numbered_rows(path)]
    plain = [one for one in every if all(text.endswith("?") for text in one.subquestions) and not _repeats(one)]
    if not plain:
        raise InputError(f"{path}: no row of socratic GSM8K in it")

    def vary(one: Worked) -> Worked:
        other = varied(rng, one)
        return other if other != one else replace(one, question=retyped(rng, one.question))

    for one in _over_and_over(rng, plain, vary):
        yield _row(one.question, list(one.subquestions), one.answer)


def _repeats(worked: Worked) -> bool:
    said = [re.findall(r"\w+", text.casefold()) for text in worked.subquestions]
    return any(text in said[:place] for place, text in enumerate(said))


def _strategyqa(path: Path, rng: random.Random) -> Iterator[Row]:
    examples = (e for e in strategyqa.load(Selection("strategyqa", str(path))) if not is_held_out(e.question))
    plain = [e for e in examples if e.decomposition is not None and e.decomposition.texts]
    if not plain:
        raise InputError(f"{path}: no decomposition in it")

    def vary(example: Example) -> Example:
        return replace(example, question=retyped(rng, example.question))

    for example in _over_and_over(rng, plain, vary):
        assert example.decomposition is not None
        yield _row(example.question, example.decomposition.texts, example.answer)


def is_held_out(question: str) -> bool:
    """Whether a StrategyQA question is of the part that is only measured on: one in seven, by its hash."""
    return int(key_of(" ".join(question.split())), 16) % _HELD_OUT_OF == 0


def _over_and_over(rng: random.Random, items: list[Item], vary: Callable[[Item], Item]) -> Iterator[Item]:
    """Each item as it is, in an order drawn by lot, and then variants of all of them, again and again."""
    yield from rng.sample(items, len(items))
    while True:
        for item in rng.sample(items, len(items)):
            yield vary(item)


def _row(question: str, subquestions: list[str], answer: str) -> Row:
    status = "decomposed" if subquestions else "not_needed"
    return {"question": question, "premise": "", "answer": answer, "status": status, "subquestions": subquestions}
