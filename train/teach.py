"""Collect demonstrations: a teacher's decompositions of a task's questions, one JSONL row each."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path

from edgedc.decomposition import Decomposition
from edgedc.errors import InputError, SolverError
from edgedc.files import Row, RowWriter, key_of
from edgedc.generation import Generation
from edgedc.pipeline import Decomposer, decompose
from edgedc.tasks import Example


def teach(
    examples: Sequence[Example],
    teacher: Decomposer | None,
    out: Path,
    *,
    concurrency: int = 1,
    report: Callable[[int, int], None],
) -> Counter[str]:
    """Append one row per question that `out` does not have yet; returns how many rows of each status it then holds.

    `teacher` None takes the examples' own decompositions; one without any is an InputError. Rows are written as the
    replies come, so that a kill loses what was in flight and nothing else. A call that fails after its retries ends the
    run with its error, once the calls in flight are written.
    """
    missing = next((e for e in examples if e.decomposition is None), None) if teacher is None else None
    if missing:
        raise InputError(f"question {missing.id} has no decomposition of its own: name a model with --teacher")
    with RowWriter(out) as writer:
        todo = [(key, e) for e in examples if (key := _key(e, teacher)) not in writer.rows]
        done = len(examples) - len(todo)
        for key, example, decomposition, generation in _replies(todo, teacher, concurrency):
            writer.write(_row(key, example, teacher, decomposition, generation))
            done += 1
            report(done, len(examples))
        return Counter("over the cap" if row["over_cap"] else row["status"] for row in writer.rows.values())


Reply = tuple[str, Example, Decomposition, Generation | None]


def _replies(todo: Sequence[tuple[str, Example]], teacher: Decomposer | None, concurrency: int) -> Iterator[Reply]:
    if teacher is None:
        for key, example in todo:
            assert example.decomposition is not None  # teach has looked
            yield key, example, example.decomposition, None
        return

    def ask(key: str, example: Example) -> Reply:
        return key, example, *decompose(teacher, example.question, example.premise)

    waiting = iter(todo)
    failed: SolverError | None = None
    with ThreadPoolExecutor(concurrency) as pool:
        running: set[Future[Reply]] = set()
        while True:
            while failed is None and len(running) < concurrency and (item := next(waiting, None)):
                running.add(pool.submit(ask, *item))
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                try:
                    reply = future.result()
                except SolverError as error:
                    failed = failed or error
                else:
                    yield reply
    if failed:
        raise failed


def _key(example: Example, teacher: Decomposer | None) -> str:
    who = [teacher.name, teacher.style, teacher.cap, teacher.max_tokens] if teacher else "gold"
    return key_of(who, example.question, example.premise)


def _row(
    key: str, example: Example, teacher: Decomposer | None, decomposition: Decomposition, generation: Generation | None
) -> Row:
    cap = teacher.cap if teacher else None
    return {
        "key": key,
        "id": example.id,
        "question": example.question,
        "premise": example.premise,
        "answer": example.answer,
        "status": decomposition.status,
        "subquestions": decomposition.texts,
        "over_cap": decomposition.exceeds(cap),
        "raw": decomposition.raw,
        "teacher": teacher.name if teacher else "gold",
        "prompt_style": teacher.style if teacher else None,
        "cap": cap,
        "finish_reason": generation.finish_reason if generation else None,
        "usage": asdict(generation.usage) if generation else None,
        "seconds": generation.total_s if generation else None,
    }
