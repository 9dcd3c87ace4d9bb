"""Texts that a tiny base model is pre-trained on: microworld problems with their subquestions, as exercises.

A large base model has read worked exercises of many kinds before anyone asks it to decompose. So has this one, of one
kind. Small chats about a problem teach it the chat marks, lists of several forms and the words of the trade; edgedc's
own prompt and its form of list are not among them. Held-out domains and the test side of the trained ones do not occur.
The problem's own text is read, not learnt: its names and numbers are drawn by lot, and nothing but noise is to be had
from guessing them.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from edgedc.files import write_text
from edgedc.tasks.microworld import Problem, problems

SEED = 1_000_003  # apart from the small seeds that people use for demonstrations
CHATS = 0.4  # share of the texts that are chats


def documents(count: int) -> Iterator[tuple[str, str]]:
    """(what is read, what is to be learnt)."""
    rng = random.Random(SEED)
    for problem in problems("train", count, SEED):
        yield _chat(rng, problem) if rng.random() < CHATS else _exercise(problem)


def _exercise(problem: Problem) -> tuple[str, str]:
    """A word stands before the problem, so that a name that opens it is the same token as everywhere else."""
    asks = [step.ask for step in problem.steps]
    if len(asks) == 1:
        return f"Exercise: {problem.question}\n", "One step is enough."
    return f"Exercise: {problem.question}\n", "\n".join(f"{a}) {ask}" for a, ask in zip("abcde", asks, strict=False))


def _chat(rng: random.Random, problem: Problem) -> tuple[str, str]:
    asks = [step.ask for step in problem.steps]
    alone = len(asks) == 1
    task, reply = rng.choice(
        (
            ("What is asked in the end?", asks[-1]),
            ("List what has to be known.", "\n".join(f"- {ask}" for ask in asks)),
            ("Go step by step.", "\n".join(f"Step {n}: {ask}" for n, ask in enumerate(asks, start=1))),
            (
                "Is a decomposition of the question needed?",
                "No. One step is enough." if alone else f"Yes, a decomposition into {len(asks)} subquestions.",
            ),
        )
    )
    called = rng.choice(("Problem", "Question"))
    return f"<|user|>\n{task}\n{called}: {problem.question}<|end|>\n<|assistant|>\n", f"{reply}<|end|>"


def write_documents(path: Path, count: int) -> None:
    """One JSON object a line, `{"prompt": ..., "completion": ...}`, as `edgedc train --from-scratch` reads them.

    From a shell:  python -m train.documents FILE COUNT
    """
    rows = ({"prompt": prompt, "completion": completion} for prompt, completion in documents(count))
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    write_documents(Path(sys.argv[1]), int(sys.argv[2]))
