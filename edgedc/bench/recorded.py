"""Runs that others recorded: five decomposers and two solvers on GSM8K's test split (DT6A/GSM8K-AI-SubQ, Apache-2.0).

A folder for each solver, in it `eval_<decomposer>*.jsonl` with rows `problem`, `questions` (the decomposition),
`answers` (the solver's text) and `answer` (gold). arXiv 2402.01812 publishes accuracies over all 1,319 questions.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedc.bench.decompositions import Scored, score
from edgedc.bench.quality import Share
from edgedc.bench.sources import words_of
from edgedc.bench.statistics import half_of
from edgedc.decomposition import parse
from edgedc.errors import InputError
from edgedc.files import numbered_rows
from edgedc.tasks import Example, gsm8k
from edgedc.tasks.scoring import number_in

SOURCE = "arXiv 2402.01812"
ALL_QUESTIONS = 1319

# file's middle name -> what it is, and the published accuracy with each solver
DECOMPOSERS = {
    "finetune_dist": "DistilGPT-2",
    "finetune": "GPT-2 small",
    "finetune_medium": "GPT-2 medium",
    "filtered_bc_medium": "GPT-2 medium, screened",
    "chat": "ChatGPT",
}
PUBLISHED = {
    "chatgpt": {
        "finetune_dist": 0.476,
        "finetune": 0.508,
        "finetune_medium": 0.538,
        "filtered_bc_medium": 0.576,
        "chat": 0.682,
    },
    "mistral": {
        "finetune_dist": 0.240,
        "finetune": 0.264,
        "finetune_medium": 0.290,
        "filtered_bc_medium": 0.293,
        "chat": 0.446,
    },
}

_FILE = re.compile(r"eval_(?P<decomposer>\w+?)(?:_first\d+)?\.jsonl")
_FINAL = re.compile(r"Final answer:(.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Recording:
    """One decomposer with one solver. By the question's words: the decomposition's text, and whether it was right.

    `paper`: right as the released code of arXiv 2402.15000 matches, anywhere in the reply.
    """

    solver: str
    decomposer: str
    raw: Mapping[str, str]
    right: Mapping[str, bool]
    paper: Mapping[str, bool]

    @property
    def name(self) -> str:
        return DECOMPOSERS.get(self.decomposer, self.decomposer)

    @property
    def published(self) -> float | None:
        return PUBLISHED.get(self.solver, {}).get(self.decomposer)

    @property
    def share(self) -> Share:
        return Share(sum(self.right.values()), len(self.right))


@dataclass(frozen=True)
class Check:
    """A recording against its published accuracy.

    `p`: how likely a random choice of so many of all the questions is to be this far off or more, when the published
    figure holds; `rest` is the accuracy that the questions which are not here must then have.
    """

    published: float
    difference: float
    rest: float | None
    p: float


def read_recordings(folder: Path) -> list[Recording]:
    """Raises InputError where there are none, or with the line for a row that is none of theirs."""
    found = [
        _read(path, path.parent.name, named["decomposer"])
        for path in sorted(folder.glob("*/eval_*.jsonl"))
        if (named := _FILE.fullmatch(path.name))
    ]
    if not found:
        raise InputError(
            f"{folder}: no recorded runs in it (SOLVER/eval_DECOMPOSER.jsonl); name their folder, or a file of --record"
        )
    order = list(DECOMPOSERS)
    return sorted(found, key=lambda r: (r.solver, order.index(r.decomposer) if r.decomposer in order else len(order)))


def _read(path: Path, solver: str, decomposer: str) -> Recording:
    raw, right, paper = {}, {}, {}
    for number, row in numbered_rows(path):
        match row:
            case {
                "problem": str() as problem,
                "questions": str() as asked,
                "answers": str() as said,
                "answer": int() | float() as gold,
            }:
                key = words_of(problem)
            case _:
                raise InputError(f"{path}:{number}: a row has `problem`, `questions`, `answers` and `answer`, a number")
        raw[key], right[key] = asked, is_right(said, gold)
        paper[key] = bool(gsm8k.paper_grade(said, Example("", problem, answer=f"{gold:g}")))
    return Recording(solver, decomposer, raw, right, paper)


def is_right(said: str, gold: float) -> bool:
    """Whether the first `Final answer:` in a recorded reply is the gold number.

    The first, because a solver that does not stop goes on with problems of its own and their answers; one without the
    line gave no answer.
    """
    found = _FINAL.search(said)
    number = number_in(found[1]) if found else None
    return number is not None and math.isclose(float(number), gold, abs_tol=1e-6)


def check(recording: Recording) -> Check | None:
    """None where nothing is published of it."""
    published, share = recording.published, recording.share
    if published is None:
        return None
    right_of_all = round(published * ALL_QUESTIONS)
    left = ALL_QUESTIONS - share.n
    return Check(
        published=published,
        difference=share.value - published,
        rest=(right_of_all - share.hits) / left if left > 0 else None,
        p=half_of(share.hits, share.n, right_of_all, ALL_QUESTIONS) if left > 0 else 1.0,
    )


def scores_in(recordings: Sequence[Recording], examples: Sequence[Example]) -> dict[str, list[Scored]]:
    """Each decomposer's decompositions of the examples against the known ones. They are the same for every solver.

    Raises InputError for a question that a recording lacks or whose decomposition is not known.
    """
    scores: dict[str, list[Scored]] = {}
    for decomposer, group in itertools.groupby(
        sorted(recordings, key=lambda r: r.decomposer), key=lambda r: r.decomposer
    ):
        raw = next(iter(group)).raw
        scores[decomposer] = []
        for example in examples:
            if example.decomposition is None:
                raise InputError(f"{example.id}: its decomposition is not known: give the socratic file with --data")
            if words_of(example.question) not in raw:
                raise InputError(
                    f"{example.id}: not a recorded question: give GSM8K's test split with --data, and --split test"
                )
            scores[decomposer].append(
                score(example.question, parse(raw[words_of(example.question)]), example.decomposition)
            )
    return scores
