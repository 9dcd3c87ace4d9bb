"""The two kinds of decoder graph that onnxruntime is given, told apart by the inputs they declare.

optimum's takes keys and values of any length and returns them longer. The model builder's has GroupQueryAttention
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md), which counts positions itself and writes
into the buffer that it is given, so nothing is copied from token to token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedc.errors import InputError, MissingExtra
from edgedc.files import read_object

try:
    import numpy as np
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
except ModuleNotFoundError as error:
    raise MissingExtra(error.name or "onnxruntime", "onnx") from error

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_FEEDS = ("input_ids", "attention_mask", "position_ids")
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


@dataclass(frozen=True)
class _Past:
    """One input of keys or values, (batch, heads, tokens, head size), and the output that continues it."""

    name: str
    dtype: Any
    heads: int
    size: int

    @property
    def present(self) -> str:
        return self.name.replace("past_key_values", "present")

    def buffer(self, tokens: int) -> Any:
        return np.zeros((1, self.heads, tokens, self.size), self.dtype)


class Graph:
    """A decoder graph, loaded, with the keys and values of the tokens that it was given last.

    `context_length` is the longest sequence it can run; `max_length` caps it. Raises InputError when the file cannot
    be loaded or run, or is not a decoder with past.
    """

    def __init__(self, path: Path, max_length: int, threads: int) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        self._path = path
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what is wrong arrives as an exception; the log would say it again
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            inputs = {given.name: given for given in self._session.get_inputs()}
            shapes = {name: given.shape for name, given in inputs.items()}
            outputs = {output.name for output in self._session.get_outputs()}
        except _ERRORS as error:
            raise InputError(f"{path}: onnxruntime cannot load it: {_line(error)}") from error
        self._feeds = [name for name in _FEEDS if name in inputs]
        pasts = [given for name, given in inputs.items() if name.startswith("past_key_values.")]
        if not pasts:
            raise InputError(f"{path}: it has no past_key_values inputs: export it as a decoder with past")
        built = _genai_config(path) if any(isinstance(n, str) for p in pasts for n in shapes[p.name][-1:]) else None
        self.context_length = min(max_length, built["context_length"]) if built else max_length
        past = [_past(path, given, built["decoder"]["head_size"] if built else 0) for given in pasts]
        lacking = {"input_ids", "logits", *(p.present for p in past)}
        lacking -= {"input_ids"} & set(inputs) | outputs
        if lacking:
            raise InputError(f"{path}: not a decoder with past: it lacks {', '.join(sorted(lacking))}")
        in_place = built is not None and "position_ids" not in inputs
        self._state: _InPlace | _Growing
        self._state = _InPlace(self._session, past, self.context_length) if in_place else _Growing(self._session, past)
        self._known: list[int] = []
        self.reused = 0
        try:
            scores = self.logits([0], start=0)  # a graph that loads may still not run
        except (*_ERRORS, IndexError) as error:
            raise InputError(f"{path}: onnxruntime cannot run it: {_line(error)}") from error
        if scores.ndim != 2 or not scores.size:
            raise InputError(f"{path}: its logits for one token are {scores.shape}: export it as a decoder with past")

    def logits(self, ids: Sequence[int], *, start: int) -> Any:
        """The scores of the token after each of ids[start:]: (len(ids) - start, vocabulary), in the graph's own type.

        What ids[:start] have in common with the beginning of the last ids is not computed again: `reused` tokens.
        """
        before = min(start, len(self._known))
        self.reused = next((k for k in range(before) if ids[k] != self._known[k]), before)
        self._known = self._known[: self.reused]  # until the rest is computed
        whole = len(ids)
        values = (np.array([ids[self.reused :]]), np.ones((1, whole)), np.arange(self.reused, whole)[None])
        feeds = {name: v.astype(np.int64) for name, v in zip(_FEEDS, values, strict=True) if name in self._feeds}
        logits = self._state.run(feeds, self.reused)
        self._known = list(ids)
        return logits[0, start - self.reused :]


class _Growing:
    """Past in, longer past out."""

    def __init__(self, session: Any, past: list[_Past]) -> None:
        self._session = session
        self._values = {p.name: p.buffer(0) for p in past}
        self._outputs = ["logits", *(p.present for p in past)]

    def run(self, feeds: Mapping[str, Any], seen: int) -> Any:
        past = {name: value[:, :, :seen] for name, value in self._values.items()}
        logits, *present = self._session.run(self._outputs, {**feeds, **past})
        self._values = dict(zip(past, present, strict=True))
        return logits


class _InPlace:
    """Buffers of the whole context, each past and present at once; memory is taken as they fill."""

    def __init__(self, session: Any, past: list[_Past], tokens: int) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._buffers = [ort.OrtValue.ortvalue_from_numpy(p.buffer(tokens)) for p in past]
        for p, buffer in zip(past, self._buffers, strict=True):
            self._binding.bind_ortvalue_input(p.name, buffer)
            self._binding.bind_ortvalue_output(p.present, buffer)

    def run(self, feeds: Mapping[str, Any], seen: int) -> Any:  # noqa: ARG002 (the mask's length says it)
        for name, value in feeds.items():
            self._binding.bind_cpu_input(name, value)
        self._binding.bind_output("logits")  # anew, because its length changes
        self._session.run_with_iobinding(self._binding)
        return self._binding.get_outputs()[-1].numpy()


def _past(path: Path, given: Any, head_size: int) -> _Past:
    match given.shape:
        case [_, int() as heads, _, size] if given.type in _FLOATS:
            return _Past(given.name, _FLOATS[given.type], heads, size if isinstance(size, int) else head_size)
    raise InputError(f"{path}: input {given.name} is {given.type}{given.shape}: export it with past")


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
