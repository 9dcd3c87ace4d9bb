"""Which artifact of a bundle answers soonest on this machine: measured once, and kept for it.

The figure is the time of a typical question, a prompt of PROMPT_TOKENS and a reply of REPLY_TOKENS. It lies in one
small file below `home()` for each set of artifacts, versions of their engines, CPU and number of threads, so that
processes that measure at the same time only do it twice.
"""

import importlib.metadata
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgedc.backends import Choice, ModelBackend, open_choice
from edgedc.backends.cores import physical_cores
from edgedc.bundle import now
from edgedc.child import in_child
from edgedc.errors import EdgedcError, InputError
from edgedc.files import key_of, read_object, write_text
from edgedc.home import home
from edgedc.machine import cpu_model
from edgedc.prompts import decompose_messages

PROMPT_TOKENS = 120
REPLY_TOKENS = 48
_STEPS = 12  # tokens of the reply that are really made
_ENOUGH_S = 3.0  # after so long only an engine that has no figure yet is measured

_QUESTION = "Ann has 12 pens. Ben has three times as many, and gives her a quarter of his. How many has Ann then?"
_PACKAGES = {"llamacpp": ("llama-cpp-python",), "onnx": ("onnxruntime", "onnxruntime-gpu")}


@dataclass
class Figures:
    """Seconds of a typical question, or why there are none, by the names of artifacts."""

    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def fastest(choices: Sequence[Choice], threads: int | None) -> tuple[Choice | None, str]:
    """The fastest of several artifacts of a bundle, None where no measurement succeeded; and a line that says so.

    They are measured in another process, so that what ends that does not end this one. From small to large, the
    smallest of each engine first; the rest only while it takes no longer than some seconds.
    """
    path = _place(choices, threads)
    figures, when = _read(path, choices), "as measured before"
    if figures is None:
        figures = _measure_all(_in_turn(choices), threads)
        unkept = _keep(path, figures, choices[0].manifest.name, threads) if figures.seconds else "nothing to keep"
        when = f"measured now, and not kept: {unkept}" if unkept else f"measured now, kept in {path}"
    best = min(choices, key=lambda c: figures.seconds.get(c.name, math.inf)) if figures.seconds else None
    return best, _said(best, choices, figures, when)


def typical_seconds(backend: ModelBackend, ids: Sequence[int]) -> float:
    """Seconds that a question takes, reckoned from a prompt of up to PROMPT_TOKENS and _STEPS single tokens.

    `ids` are repeated to that length. Tokens are given, not chosen: an end token does not end the measurement.
    """
    prompt = max(1, min(PROMPT_TOKENS, backend.context_length - _STEPS))
    tokens = (list(ids) * math.ceil((prompt + _STEPS) / len(ids)))[: min(prompt + _STEPS, backend.context_length)]
    backend.logits(tokens[-1:], start=0)  # weights are read from the disk when they are first used

    def timed(length: int) -> float:
        started = time.perf_counter()
        backend.logits(tokens[:length], start=length - 1)  # what was there before is not computed again
        return time.perf_counter() - started

    first = timed(prompt)
    steps = [timed(length) for length in range(prompt + 1, len(tokens) + 1)]
    return first / prompt * PROMPT_TOKENS + (statistics.median(steps) if steps else first) * REPLY_TOKENS


def _measure_all(waiting: list[Choice], threads: int | None) -> Figures:
    figures = Figures()
    started, tried = time.perf_counter(), set()
    while waiting:
        try:
            for seconds in in_child("its process", _measure, waiting, threads):
                choice = waiting.pop(0)
                figures.seconds[choice.name] = seconds
                tried.add(choice.engine)
                if time.perf_counter() - started > _ENOUGH_S and tried.issuperset(c.engine for c in waiting):
                    return figures
        except EdgedcError as error:
            choice = waiting.pop(0)
            figures.failed[choice.name] = str(error)
    return figures


def _measure(choices: list[Choice], threads: int | None) -> Iterator[float]:
    for choice in choices:
        manifest = choice.manifest
        with closing(open_choice(choice, threads=threads)) as backend:
            messages = decompose_messages(_QUESTION, style=manifest.prompt_style, cap=manifest.max_subquestions)
            yield typical_seconds(backend, backend.encode(messages))


def _in_turn(choices: Sequence[Choice]) -> list[Choice]:
    by_size = sorted(choices, key=lambda c: c.artifact.bytes if c.artifact else 0)
    first = {c.engine: c for c in reversed(by_size)}
    return sorted(by_size, key=lambda c: first[c.engine] is not c)


def _said(best: Choice | None, choices: Sequence[Choice], figures: Figures, when: str) -> str:
    failed = [f"{name} could not be measured: {reason}" for name, reason in figures.failed.items()]
    if best is None:
        return f"which artifact is fastest here is not known, the smallest is taken ({'; '.join(failed)})"
    others = [f"{name} {seconds:.2g} s" for name, seconds in figures.seconds.items() if name != best.name]
    left = {choice.name for choice in choices} - figures.seconds.keys() - figures.failed.keys()
    others += [*failed, *(f"{name} not measured" for name in sorted(left))]
    return f"fastest here: {best.name}, {figures.seconds[best.name]:.2g} s a question ({'; '.join(others)}), {when}"


def _place(choices: Sequence[Choice], threads: int | None) -> Path:
    what = [(c.identity(), c.engine, _version(c.engine)) for c in choices]
    key = key_of(what, cpu_model(), threads or physical_cores(), PROMPT_TOKENS, REPLY_TOKENS)
    return home() / "speed" / f"{key}.json"


def _read(path: Path, choices: Sequence[Choice]) -> Figures | None:
    """The figures in a file; None where there is none, or the file is damaged."""
    try:
        row = read_object(path)
    except InputError:
        return None
    names = {choice.name for choice in choices}
    match row:
        case {"seconds": dict() as seconds, "failed": dict() as failed} if seconds and names >= {*seconds, *failed}:
            if all(isinstance(s, float) and 0 < s < math.inf for s in seconds.values()):
                return Figures(seconds, {name: str(reason) for name, reason in failed.items()})
    return None


def _keep(path: Path, figures: Figures, model: str, threads: int | None) -> str:
    """Why it could not be written; "" when it was. What `_read` does not need is for people who look there."""
    about = {"model": model, "cpu": cpu_model(), "threads": threads or physical_cores(), "measured": now()}
    question = {"prompt_tokens": PROMPT_TOKENS, "reply_tokens": REPLY_TOKENS}
    try:
        write_text(path, json.dumps({**about, **question, **asdict(figures)}, indent=2, ensure_ascii=False) + "\n")
    except EdgedcError as error:
        return str(error)
    return ""


def _version(engine: str) -> str:
    for package in _PACKAGES[engine]:
        try:
            return f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
