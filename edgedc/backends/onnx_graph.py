"""A decoder graph in onnxruntime, and what it knows of the tokens that it was given last.

Its keys and values are held in one of two ways (onnx_state.py). A prompt goes through in parts of _PART tokens, so that
memory does not grow with its length.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from edgedc.errors import EdgedcError, InputError, MissingExtra, NoGpu
from edgedc.files import read_object

try:
    import numpy as np
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
except ModuleNotFoundError as error:
    raise MissingExtra(error.name or "onnxruntime", "onnx") from error

from edgedc.backends.onnx_state import Growing, InPlace, Past, Scored

Provider = Literal["cpu", "cuda"]

_PART = 128
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
# onnxruntime's exceptions have no common base but Exception; IO binding raises RuntimeError
_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
    UnicodeDecodeError,  # names in a damaged graph, and messages that quote them
    MemoryError,
)


class Graph:
    """A decoder graph, loaded, with the keys and values of the tokens that it was given last.

    `context_length` is the longest sequence it can run; `max_length` caps it. Raises InputError when the file cannot
    be loaded or run, or is not a decoder with past; NoGpu when it is for CUDA, and that cannot be used here.
    """

    def __init__(self, path: Path, max_length: int, threads: int, provider: Provider = "cpu") -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        if provider == "cuda" and not has_cuda():
            raise NoGpu(
                f"{path}: made for CUDA, which this onnxruntime does not offer: run  pip install 'edgedc[onnx-gpu]'  "
                "on a machine with an NVIDIA GPU, or take another artifact"
            )
        session = _load(path, threads, provider)
        pasts = [given for given in session.get_inputs() if given.name.startswith("past_key_values.")]
        if not pasts:
            raise InputError(f"{path}: it has no past_key_values inputs: export it as a decoder with past")
        built = _genai_config(path) if any(isinstance(n, str) for given in pasts for n in given.shape[-1:]) else None
        self.context_length = min(max_length, built["context_length"]) if built else max_length
        past = [_past(path, given, built["decoder"]["head_size"] if built else 0) for given in pasts]
        scored = _scored(path, session, past)
        self._state: InPlace | Growing
        if built and scored.vocabulary and not any(given.name == "position_ids" for given in session.get_inputs()):
            self._state = InPlace(session, past, scored, self.context_length, provider)
        else:
            self._state = Growing(session, past, scored)
        self._path = path
        self._known: list[int] = []
        self.reused = 0
        try:
            scores = self.logits([0], start=0)  # a graph that loads may still not run
        except EdgedcError as error:
            raise InputError(str(error)) from error
        if scores.ndim != 2 or not scores.size:
            raise InputError(f"{path}: its logits for one token are {scores.shape}: export it as a decoder with past")

    def make_room(self, tokens: int) -> None:
        """For a prompt and its reply together, so that `step` has where to go."""
        if self._state.make_room(tokens):
            self._known = []

    def logits(self, ids: Sequence[int], *, start: int) -> Any:
        """The scores of the token after each of ids[start:]: (len(ids) - start, vocabulary), in the graph's own type.

        What ids[:start] have in common with the beginning of the last ids is not computed again: `reused` tokens.
        Raises EdgedcError when onnxruntime fails.
        """
        self.make_room(len(ids))
        before = min(start, len(self._known))
        self.reused = next((k for k in range(before) if ids[k] != self._known[k]), before)
        self._known = self._known[: self.reused]  # until the rest is computed
        rows = []
        for first in range(self.reused, len(ids), _PART):
            part = ids[first : first + _PART]
            scores = self._run(self._state.run, part, seen=first, first=max(0, min(start - first, len(part) - 1)))
            if first + len(part) > start:
                rows.append(scores)
        self._known = list(ids)
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def step(self, token: int) -> Any:
        """The scores after one more token: (vocabulary,), good until the next call."""
        scores = self._run(self._state.step, token, seen=len(self._known))
        self._known.append(token)
        return scores

    def _run(self, run: Callable[..., Any], *args: Any, **kwargs: int) -> Any:
        try:
            return run(*args, **kwargs)
        except (*_ERRORS, IndexError) as error:
            raise EdgedcError(f"{self._path}: onnxruntime cannot run it: {_line(error)}") from error


def has_cuda() -> bool:
    return _CUDA in ort.get_available_providers()


def _load(path: Path, threads: int, provider: Provider) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what is wrong arrives as an exception; the log would say it again
    providers = [_CUDA, _CPU] if provider == "cuda" else [_CPU]
    if provider == "cuda":
        ort.set_default_logger_severity(4)  # a provider that fails is logged apart from its session, with colours
        with contextlib.redirect_stdout(None):
            ort.preload_dlls()  # pip's CUDA and cuDNN, which onnxruntime does not look for by itself
    try:
        session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        for given in (*session.get_inputs(), *session.get_outputs()):
            given.name, given.shape  # noqa: B018 (which raises in a damaged graph)
    except _ERRORS as error:
        raise InputError(f"{path}: onnxruntime cannot load it: {_line(error)}") from error
    if provider == "cuda" and _CUDA not in session.get_providers():
        raise NoGpu(
            f"{path}: onnxruntime found no GPU that it can use: install NVIDIA's driver, and CUDA with  "
            "pip install 'edgedc[onnx-gpu]'  or take another artifact"
        )
    return session


def _past(path: Path, given: Any, head_size: int) -> Past:
    match given.shape:
        case [_, int() as heads, _, size] if given.type in _FLOATS:
            return Past(given.name, _FLOATS[given.type], heads, size if isinstance(size, int) else head_size)
    raise InputError(f"{path}: input {given.name} is {given.type}{given.shape}: export it with past")


def _scored(path: Path, session: Any, past: list[Past]) -> Scored:
    outputs = {output.name: output for output in session.get_outputs()}
    lacking = {"input_ids"} - {given.name for given in session.get_inputs()}
    lacking |= {"logits", *(p.present for p in past)} - set(outputs)
    if lacking:
        raise InputError(f"{path}: not a decoder with past: it lacks {', '.join(sorted(lacking))}")
    logits = outputs["logits"]
    vocabulary = logits.shape[-1] if logits.shape and logits.type in _FLOATS else None
    chosen = any(given.name == Scored.FIRST for given in session.get_overridable_initializers())
    return Scored(vocabulary if isinstance(vocabulary, int) else 0, _FLOATS.get(logits.type, np.float32), chosen)


def _genai_config(path: Path) -> Any:
    """What the builder says of a graph that leaves it open: its head size, and how far its rotary embeddings reach."""
    beside = path.with_name("genai_config.json")
    if not beside.is_file():
        raise InputError(f"{beside}: missing; the graph beside it cannot be run without: copy or export it again")
    model = read_object(beside).get("model")
    match model:
        case {"context_length": int(), "decoder": {"head_size": int()}}:
            return model
    raise InputError(f"{beside}: no context_length or head_size in it; export the model again")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
