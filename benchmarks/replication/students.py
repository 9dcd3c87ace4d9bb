"""Makes the students by edgedc's verbs, and has them decompose the test questions; a rerun adds what is missing."""

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgedc.commands._made import is_made
from edgedc.commands._verbs import run, values
from edgedc.files import read_rows, write_text
from edgedc.solvers.loopback import Timing, serve
from edgedc.tasks import read_examples
from edgedc.tasks.microworld import Problem, problems
from edgedc.workshop import workshop

from . import solver, teacher
from .plan import DECOMPOSERS, QUANTISED, SOLVERS, SPLITS, Places, Size, Student, seeds
from .teacher import MANNERS, Manner, erring_teacher

_AT_ONCE = Timing(0.0, 0.0)
_MADE_FAST = ("--batch-size", 16, "--threads", 1)


def make_all(size: Size, places: Places) -> None:
    """Everything that a model has a part in."""
    for split in SPLITS:
        rows = [{"id": e.id, "question": e.question} for e in read_examples(size.selection(split))]
        write_text(places.questions(split), "".join(json.dumps(row) + "\n" for row in rows))
    base = workshop("train.fitting.sft").find_base(size.base)[0]
    _export(base, places.root / "base", "f16")
    for split in SPLITS:
        # the base has never seen a list in edgedc's form: the grammar would force it into one, and spoil what it says
        _decompose(places.root / "base", places.questions(split), places.base(split), "f16", "--no-grammar")
    for seed in seeds(size):
        for manner in MANNERS:
            _teach(size, places, seed, manner)
            _screen(size, places, seed, manner)
        for student in (*DECOMPOSERS, *SOLVERS):
            _train(size, places, seed, student)
        for student in DECOMPOSERS:
            for split in SPLITS:
                bundle = places.student(seed, student) / "bundle"
                _decompose(bundle, places.questions(split), places.said(seed, student, split), "f16")
        _quantise(places, seed)


def screener(size: Size, seed: int) -> solver.LimitedSolver:
    """The solver that screens, on the questions of a seed's demonstrations."""
    return solver.LimitedSolver(problems("train", size.demonstrations, seed), solver.Skill(), seed)


def best(manner: Manner = MANNERS[0]) -> Student:
    """The student that is quantised, and asked step by step."""
    return Student("S_D-R", manner)


def _teach(size: Size, places: Places, seed: int, manner: Manner) -> None:
    known: dict[str, list[Problem]] = {
        "train": list(problems("train", size.demonstrations, seed)),
        **{split: list(problems(split, size.questions, 0)) for split in SPLITS},
    }
    for split, asked in known.items():
        mind = erring_teacher(asked, manner, size.rate, seed)
        drawn = ("--draws", size.draws, "--temperature", 0.7) if split == "train" else ()
        out = places.taught(seed, manner, split)  # type: ignore[arg-type]
        if _has(out, len(asked) * (size.draws if drawn else 1)):
            continue
        which = ("--split", split, "--limit", len(asked), "--seed", seed if split == "train" else 0)
        with serve(mind.reply, teacher.MODEL, port=0, timing=_AT_ONCE, simulated=True) as url:
            _say("teach", *which, "--teacher", teacher.MODEL, "--teacher-url", url, *drawn, out)


def _screen(size: Size, places: Places, seed: int, manner: Manner) -> None:
    out = places.screened(seed, manner)
    done = out.with_suffix(".done")
    if done.exists():
        return
    with serve(screener(size, seed).reply, solver.MODEL, port=0, timing=_AT_ONCE, simulated=True) as url:
        who = ("--solver-model", solver.MODEL, "--solver-url", url)
        _say("screen", *who, places.taught(seed, manner, "train"), out)
    write_text(done, "")


def _train(size: Size, places: Places, seed: int, student: Student) -> None:
    folder = places.student(seed, student)
    rows = places.taught(seed, student.manner, "train")
    rows = rows if student.method == "S_D-T" else places.screened(seed, student.manner)
    words: tuple[object, ...] = ("--base", size.base, "--method", student.method, "--seed", seed, *_MADE_FAST)
    words = (*words, "--epochs", size.epochs, "--max-steps", size.max_steps)
    if student.answers:
        made = folder / "student"  # every weight is trained: arithmetic is harder than a list
        _make("train", made, *words, "--tuning", "full", "--learning-rate", 1e-3, rows, made)
    else:
        made = folder / "adapter"
        _make("train", made, *words, "--learning-rate", 3e-3, rows, made)
        _make("merge", folder / "student", made, folder / "student")
    _export(folder / "student", folder / "bundle", "f16")


def _quantise(places: Places, seed: int) -> None:
    """The other types of one student: its f16 is the bundle that is there."""
    folder = places.student(seed, best())
    gguf = [kind for kind in QUANTISED[1:] if kind != "int4"]
    _export(folder / "student", folder / "quantised", ",".join(gguf))
    _make(
        *("export", folder / "graph", "--no-gate", "--format", "onnx", "--precision", "int4"),
        *(folder / "student", folder / "graph"),
    )
    for kind in QUANTISED[1:]:
        bundle = folder / ("graph" if kind == "int4" else "quantised")
        _decompose(bundle, places.questions("test"), places.said(seed, best(), "test", kind), kind)


def _export(model: Path, bundle: Path, kinds: str) -> None:
    # not gated: what another type says is compared here on more questions than the gate has
    _make("export", bundle, "--no-gate", "--quantization", kinds, model, bundle)


def _decompose(bundle: Path, questions: Path, out: Path, kind: str, *more: str) -> None:
    if _newer(out, bundle) and _has(out, sum(1 for _ in read_rows(questions))):
        return
    if out.exists() and not _newer(out, bundle):
        out.unlink()
    engine = "onnx" if kind == "int4" else "llamacpp"
    how = ("--backend", engine, "--quantization", kind, "--threads", 1, *more)
    _say("decompose", "--model", bundle, *how, "--input", questions, "--output", out)


def _make(verb: str, made: Path, *words: object) -> None:
    if is_made(verb, made, values(verb, *words)):
        return
    if verb == "export" and made.is_dir():
        shutil.rmtree(made)  # of another model: `edgedc export` would add to it
    _say(verb, *words)


def _has(path: Path, rows: int) -> bool:
    return path.is_file() and sum(1 for _ in read_rows(path)) == rows


def _newer(path: Path, folder: Path) -> bool:
    return path.is_file() and path.stat().st_mtime >= (folder / "manifest.json").stat().st_mtime


def _say(*words: object) -> None:
    with _to_stderr():
        run(*words)


@contextmanager
def _to_stderr() -> Iterator[None]:
    """A verb's result is progress here."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
