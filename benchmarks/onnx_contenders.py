"""The ONNX backend against GenAI's own generator, on the same int4 graph: a measurement of decoding_speed.py.

Neither is held to a grammar, which GenAI's greedy generator has none of. Each runs in a process of its own.
"""

import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedc.bundle import find_artifact, read_manifest
from edgedc.prompts import decompose_messages

if TYPE_CHECKING:
    from decoding_speed import Figures, Subject

LIMITS = {"onnx: edgedc / GenAI's generator, tokens/s": ("at least", 0.95)}
QUESTION = (
    "A shop sells pens in boxes of 8 and pencils in boxes of 12. How many pens and pencils are in 7 boxes of each?"
)

_held: dict[str, Any] = {}


def measure_onnx(subject: "Subject") -> "Figures":
    """Of the model folder that the subject was made from, else of an int4 graph in its bundle; nothing without one."""
    if subject.source:
        from export.onnx.first_score import add_first_score
        from export.onnx.to_onnx import to_onnx

        with tempfile.TemporaryDirectory() as scratch:
            to_onnx(subject.source, Path(scratch) / "int4", "int4")
            add_first_score(Path(scratch) / "int4" / "model.onnx")
            return _compare(replace(subject, bundle=subject.source, gguf=Path(scratch) / "int4" / "model.onnx"))
    if any(artifact.quantization == "int4" for artifact in read_manifest(subject.bundle).artifacts):
        return _compare(replace(subject, gguf=subject.bundle / find_artifact(subject.bundle, "onnx", "int4")[1].path))
    return {}, {}


def _compare(subject: "Subject") -> "Figures":
    from decoding_speed import Process, in_turns, median, summary

    processes = {"edgedc, onnxruntime": Process(open_ours, subject), "GenAI's generator": Process(open_genai, subject)}
    ways = zip(processes.items(), (run_ours, run_genai), strict=True)
    turns = in_turns({name: partial(process, way) for (name, process), way in ways}, subject.runs)
    for process in processes.values():
        process.close()
    figures = {}
    for name, made in turns.items():
        figures[f"{name}, tokens/s"] = summary([rate for _, rate in made])
        figures[f"{name}, s to the first token"] = summary([first for first, _ in made])
    pairs = list(zip(*turns.values(), strict=True))
    return figures, {next(iter(LIMITS)): median([ours[1] / genai[1] for ours, genai in pairs])}


def open_ours(subject: "Subject") -> None:
    from edgedc.backends.onnx import OnnxBackend

    _held["backend"] = OnnxBackend(subject.gguf, subject.bundle, threads=subject.threads)


def run_ours(subject: "Subject") -> tuple[float, float]:
    """(seconds to the first token of a new prompt, tokens/s from it to the last)."""
    backend = _held["backend"]
    ids = _prompt(backend)
    backend.complete(ids[::-1], max_tokens=1)  # so that nothing of the prompt is known
    made = backend.complete(ids, max_tokens=subject.tokens)
    return made.first_token_s, (made.usage.output_tokens - 1) / (made.total_s - made.first_token_s)


def open_genai(subject: "Subject") -> None:
    import onnxruntime_genai

    open_ours(subject)
    _held["ids"] = _prompt(_held["backend"])
    _held.pop("backend").close()
    config = onnxruntime_genai.Config(str(subject.gguf.parent))
    config.overlay(f'{{"model": {{"decoder": {{"session_options": {{"intra_op_num_threads": {subject.threads}}}}}}}}}')
    _held["model"] = onnxruntime_genai.Model(config)


def run_genai(subject: "Subject") -> tuple[float, float]:
    """As run_ours. No token is turned into text."""
    import onnxruntime_genai

    ids, model = _held["ids"], _held["model"]
    params = onnxruntime_genai.GeneratorParams(model)
    params.set_search_options(max_length=len(ids) + subject.tokens)
    generator = onnxruntime_genai.Generator(model, params)
    start = time.perf_counter()
    generator.append_tokens(ids)
    generator.generate_next_token()
    first = time.perf_counter() - start
    made = 1
    while not generator.is_done():
        generator.generate_next_token()
        generator.get_next_tokens()
        made += 1
    return first, (made - 1) / (time.perf_counter() - start - first)


def _prompt(backend: Any) -> list[int]:
    return backend.encode(decompose_messages(QUESTION, style="instruct-1", cap=5))
