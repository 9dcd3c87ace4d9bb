"""What is run: how much of it, with which teachers and students, and where its files lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgedc.methods import Method
from edgedc.tasks import Selection

from .teacher import MANNERS, Manner

Split = Literal["test", "heldout"]
SPLITS: tuple[Split, ...] = ("test", "heldout")
IN_WORDS: dict[Split, str] = {"test": "in-domain", "heldout": "held-out"}

SIMULATED = "SIMULATED solver and teacher; the students, their training and their exports are real"


@dataclass(frozen=True)
class Student:
    """Trained on what a teacher of this manner said; `name` is what the tables call it."""

    method: Method
    manner: Manner

    @property
    def name(self) -> str:
        return self.method + suffix(self.manner)

    @property
    def answers(self) -> bool:
        return self.method.startswith("S_E")


def suffix(manner: Manner) -> str:
    """The teacher that slips is the one of all claims that do not name another."""
    return "" if manner == MANNERS[0] else f", {manner}"


DECOMPOSERS = [Student(method, manner) for manner in MANNERS for method in ("S_D-T", "S_D-R")]
SOLVERS = [Student(method, MANNERS[0]) for method in ("S_E-T", "S_E-A")]

# what the student of the last screen is exported to: GGUF's types, and one of ONNX's
QUANTISED = ("f16", "q8_0", "q4_k_m", "int4")


@dataclass(frozen=True)
class Size:
    """How much is run. A seed is a teacher's draws, the questions it is asked, a training and a solver's luck.

    `rate`: how often the teacher errs. `questions` of either split are the same for all seeds. `epochs` are those of
    every student.
    """

    seeds: int = 8
    demonstrations: int = 700
    questions: int = 200
    rate: float = 0.3
    draws: int = 2
    epochs: float = 2.0
    max_steps: int = -1
    base: str = "demo-base"

    def selection(self, split: Split) -> Selection:
        return Selection("microworld", split=split, limit=self.questions, seed=0)


@dataclass(frozen=True)
class Places:
    """The work folder. Whatever is in it is not made again, unless it was made of other inputs or settings."""

    root: Path

    def questions(self, split: Split) -> Path:
        return self.root / f"{split}.questions.jsonl"

    def base(self, split: Split) -> Path:
        return self.root / f"base.{split}.jsonl"

    def seed(self, seed: int) -> Path:
        return self.root / f"seed-{seed}"

    def taught(self, seed: int, manner: Manner, split: Split | Literal["train"]) -> Path:
        return self.seed(seed) / manner / f"teacher.{split}.jsonl"

    def screened(self, seed: int, manner: Manner) -> Path:
        return self.seed(seed) / manner / "screened.jsonl"

    def student(self, seed: int, student: Student) -> Path:
        return self.seed(seed) / student.manner / student.method

    def said(self, seed: int, student: Student, split: Split, quantization: str = "f16") -> Path:
        return self.student(seed, student) / f"{split}.{quantization}.jsonl"

    def answers(self, seed: int) -> Path:
        return self.seed(seed) / "answers.jsonl"


def seeds(size: Size) -> range:
    """From 1: 0 is that of the test questions."""
    return range(1, size.seeds + 1)
