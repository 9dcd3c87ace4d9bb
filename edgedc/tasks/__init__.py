"""Questions to decompose, from a dataset or made from a seed. One file per task: load() beside score()."""

import importlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from edgedc.decomposition import Decomposition
from edgedc.errors import InputError
from edgedc.flags import flag

# module of each task; each has  load(selection) -> Iterator[Example]  and  score(text, example) -> bool, at least
TASKS = {
    "microworld": "edgedc.tasks.microworld",
    "gsm8k": "edgedc.tasks.gsm8k",
    "drop": "edgedc.tasks.drop",
    "bamboogle": "edgedc.tasks.bamboogle",
    "strategyqa": "edgedc.tasks.strategyqa",
    "jsonl": "edgedc.tasks.jsonl",
}


@dataclass(frozen=True)
class Example:
    """A question, what it is asked about, and what is known of its answer.

    `answers` are all that count as right, each as its spans, where there may be several; `answer` is the first one's
    text. `read_examples` fills in `task`, and `split` where the data does not have one of its own for each question.
    """

    id: str
    question: str
    premise: str = ""
    answer: str = ""
    decomposition: Decomposition | None = None
    task: str = ""
    split: str = ""
    answers: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Selection:
    """Which questions of which task."""

    task: str = flag("microworld", "Task: microworld, gsm8k, drop, bamboogle, strategyqa or jsonl.")
    data: str = flag("", "The task's file, or its id on the hub. microworld needs none.")
    split: str = flag("train", "Split: train or test; microworld has heldout too (domains never trained on).")
    limit: int | None = flag(None, "Take at most this many questions.")
    seed: int = flag(0, "Seed of generated questions.")
    question_column: str = flag("question", "jsonl: the column with the question.")
    premise_column: str = flag("premise", "jsonl: the column with the context, where there is one.")
    answer_column: str = flag("answer", "jsonl: the column with the answer, where there is one.")
    decomposition_column: str = flag("decomposition", "jsonl: the column with the subquestions, where there is one.")


@dataclass(frozen=True)
class Unseen(Selection):
    """Which questions to measure on: none that a student was trained on, unless they are asked for."""

    split: str = flag("test", "Split: test, or train; microworld has heldout too (domains never trained on).")


@dataclass(frozen=True)
class Task:
    """`load` yields the examples of a selection; `score` says whether a solver's text gives the example's answer.

    `grade` is the task's own measure, from 0 to 1, and `metric` its name: `score` where the module has no other.
    `paper_grade` matches as the released code of arXiv 2402.15000 does, for comparison; None where it has no such task.
    """

    name: str
    load: Callable[[Selection], Iterator[Example]]
    score: Callable[[str, Example], bool]
    grade: Callable[[str, Example], float]
    metric: str
    paper_grade: Callable[[str, Example], float] | None


def find_task(name: str) -> Task:
    if name not in TASKS:
        raise InputError(f"unknown task {name!r}; known: {', '.join(TASKS)}")
    module: Any = importlib.import_module(TASKS[name])
    return Task(
        name,
        module.load,
        module.score,
        grade=getattr(module, "grade", lambda text, example: float(module.score(text, example))),
        metric=getattr(module, "METRIC", "accuracy"),
        paper_grade=getattr(module, "paper_grade", None),
    )


def read_examples(selection: Selection) -> Iterator[Example]:
    """The selected examples, read as they are asked for. Raises InputError as the task's loader does."""
    if selection.limit is not None and selection.limit < 1:
        raise InputError(f"--limit {selection.limit}: must be at least 1")
    for example in itertools.islice(find_task(selection.task).load(selection), selection.limit):
        yield replace(example, task=selection.task, split=example.split or selection.split)


def load_examples(selection: Selection) -> list[Example]:
    """The selected examples. Raises InputError when there are none, or when one has no question."""
    examples = list(read_examples(selection))
    if not examples:
        raise InputError(f"{selection.data or selection.task}: no questions in split {selection.split!r}")
    return examples
