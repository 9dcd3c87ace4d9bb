"""Every system on every question, seed by seed: what it decomposed, whether the answer is right, and what it took."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedc.answers import Asked
from edgedc.backends import ModelBackend, choose, open_choice
from edgedc.bench.evaluation import Answering, evaluate
from edgedc.bench.quality import score_decomposition
from edgedc.bench.sources import file_system, gold_system
from edgedc.bench.systems import BASELINES, System
from edgedc.decomposer import decomposition_in
from edgedc.decomposition import decomposition_of
from edgedc.errors import EdgedcError
from edgedc.files import Row, RowWriter
from edgedc.generation import Generation, Message, OnText
from edgedc.tasks import Example, find_task, load_examples
from edgedc.tasks.microworld import problems

from .plan import DECOMPOSERS, QUANTISED, SOLVERS, SPLITS, Places, Size, Split, Student, seeds, suffix
from .solver import LimitedSolver, Skill
from .students import best
from .teacher import MANNERS

STATIC, INTERACTIVE = ", static", ", interactive"
LONGEST = 192  # tokens of a trained solver's reply; the longest that it is trained on has some 150

Grid = npt.NDArray[np.float64]  # seeds x questions


@dataclass(frozen=True)
class Cell:
    """One system on one split. `right` is 0 or 1, `exact` too where it decomposes; `tokens` are the solver's."""

    right: Grid
    exact: Grid | None
    tokens: Grid


Cells = dict[tuple[str, Split], Cell]


def answer_all(size: Size, places: Places) -> Cells:
    """All systems with the solver as it is, the students that answer among them. Answers that are there are kept."""
    made: dict[tuple[str, Split], list[list[Row]]] = {}
    for seed in seeds(size):
        with RowWriter(places.answers(seed)) as writer:
            for split in SPLITS:
                examples = load_examples(size.selection(split))
                rows = _with_solver(size, places, seed, split, examples, Skill(), writer)
                for student in SOLVERS:
                    rows |= _with_student(places, seed, split, examples, student, writer)
                for name, answered in rows.items():
                    made.setdefault((name, split), []).append(answered)
    return {key: _cell(rows) for key, rows in made.items()}


def answer_with(size: Size, places: Places, skill: Skill) -> Cells:
    """The same decompositions with another solver; what a trained solver says is not among them."""
    made: dict[tuple[str, Split], list[list[Row]]] = {}
    for seed in seeds(size):
        for split in SPLITS:
            examples = load_examples(size.selection(split))
            for name, rows in _with_solver(size, places, seed, split, examples, skill, None).items():
                made.setdefault((name, split), []).append(rows)
    return {key: _cell(rows) for key, rows in made.items()}


def _with_solver(
    size: Size,
    places: Places,
    seed: int,
    split: Split,
    examples: Sequence[Example],
    skill: Skill,
    writer: RowWriter | None,
) -> dict[str, list[Row]]:
    solver = LimitedSolver(problems(split, size.questions, 0), skill, seed)
    answering = Answering(solver, f"{skill} seed {seed}", timed=False)
    systems = list(_systems(places, seed, split, examples))
    return _checked(evaluate(systems, find_task("microworld"), examples, answering=answering, writer=writer))


def _systems(places: Places, seed: int, split: Split, examples: Sequence[Example]) -> Iterator[System]:
    """`auto` is the paper's two-stage: static, and single-stage where the decomposer sees nothing to break down."""
    taught = {manner: places.taught(seed, manner, split) for manner in MANNERS}
    said = {student: places.said(seed, student, split) for student in DECOMPOSERS}
    yield from BASELINES
    yield replace(gold_system(examples, "static"), mode="auto")
    yield _system("base", places.base(split), examples)
    for manner, path in taught.items():
        yield _system(f"teacher{suffix(manner)}", path, examples)
    for student, path in said.items():
        yield _system(student.name, path, examples)
    # where the decomposer sees nothing to break down, these two both let the solver reason, so that they differ in
    # nothing but how they ask
    for name, path in (("teacher", taught[MANNERS[0]]), (best().name, said[best()])):
        yield _system(name + STATIC, path, examples, "static")
        yield _system(name + INTERACTIVE, path, examples, "interactive")
    if split == "test":
        for kind in QUANTISED[1:]:
            yield _system(f"{best().name}, {kind}", places.said(seed, best(), split, kind), examples)


def _system(name: str, path: Path, examples: Sequence[Example], mode: Asked = "auto") -> System:
    return replace(file_system(path, examples, "static"), name=name, mode=mode)


def _with_student(
    places: Places, seed: int, split: Split, examples: Sequence[Example], student: Student, writer: RowWriter
) -> dict[str, list[Row]]:
    """A trained solver with the teacher's decompositions, as in the paper's main table."""
    system = _system(f"teacher / {student.name}", places.taught(seed, student.manner, split), examples, "static")
    with _trained(places, seed, student) as answering:
        return _checked(evaluate([system], find_task("microworld"), examples, answering=answering, writer=writer))


@contextmanager
def _trained(places: Places, seed: int, student: Student) -> Iterator[Answering]:
    choice = choose(places.student(seed, student) / "bundle", engine="llamacpp", quantization="f16")
    backend = open_choice(choice, threads=1)
    try:
        yield Answering(Here(backend), " ".join(choice.identity()), max_tokens=LONGEST)
    finally:
        backend.close()


class Here:
    """A model on this machine as a Solver; greedy, one question at a time."""

    simulated = False

    def __init__(self, backend: ModelBackend) -> None:
        self.model = backend.name
        self._backend = backend

    def solve(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        seed: int | None = None,  # noqa: ARG002 (nothing is sampled)
        on_text: OnText | None = None,
    ) -> Generation:
        return self._backend.generate(messages, max_tokens=max_tokens, on_text=on_text)

    def close(self) -> None: ...


def _checked(rows: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Raises EdgedcError for a question that failed: a cell with holes is none."""
    for name, answered in rows.items():
        if failed := next((row for row in answered if row["error"]), None):
            raise EdgedcError(f"{name}, {failed['id']}: {failed['error']}; run again to ask it again")
    return rows


def _cell(rows: list[list[Row]]) -> Cell:
    decomposed = all(row["status"] for row in rows[0])
    return Cell(
        right=_grid(rows, lambda row: row["correct"]),
        exact=_grid(rows, _exact) if decomposed else None,
        tokens=_grid(rows, _tokens),
    )


def _grid(rows: list[list[Row]], value: Callable[[Row], float]) -> Grid:
    return np.array([[float(value(row)) for row in answered] for answered in rows])


def _exact(row: Row) -> bool:
    return score_decomposition(decomposition_in(row), decomposition_of(row["expected"])).exact


def _tokens(row: Row) -> int:
    return sum(call["input_tokens"] + call["output_tokens"] for call in row["calls"] if call["where"] == "remote")
