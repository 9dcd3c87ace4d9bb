"""ONNX artifacts, run by onnxruntime: a decoder that takes its past as inputs and gives it back (optimum's layout)."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgedc.backends.chat import end_tokens, read_chat_template, read_config
from edgedc.backends.greedy import check_context, follow, physical_cores
from edgedc.errors import InputError, MissingExtra
from edgedc.generation import Generation, Message

try:
    import numpy as np
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
    from tokenizers import Tokenizer
except ModuleNotFoundError as error:
    raise MissingExtra(error.name or "onnxruntime", "onnx") from error

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
# onnxruntime's exceptions have no common base but Exception
_LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
_FEEDS = ("input_ids", "attention_mask", "position_ids")


class OnnxBackend:
    """An ONNX graph on this machine's CPU, with the tokenizer and configs of the folder it belongs to.

    `folder` holds tokenizer.json, chat_template.jinja and the configs that name the end tokens. `context_length` 0 is
    the one in config.json. Raises InputError when a file is missing or cannot be loaded, or when the graph is not a
    decoder with past.
    """

    def __init__(self, path: Path, folder: Path, *, context_length: int = 0, threads: int | None = None) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        self.name = f"onnxruntime {path.name}"
        self.context_length = _context_length(folder, context_length)
        self._chat = read_chat_template(folder)
        self._tokenizer = read_tokenizer(folder)
        self._ends = end_tokens(folder, self._tokenizer.token_to_id)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or physical_cores()
        options.log_severity_level = 4  # what is wrong arrives as an exception; the log would say it again
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _LOAD_ERRORS as error:
            raise InputError(f"{path}: onnxruntime cannot load it: {' '.join(str(error).split())[:300]}") from error
        self._empty_past = _empty_past(path, self._session)
        inputs = {i.name for i in self._session.get_inputs()}
        self._feeds = [name for name in _FEEDS if name in inputs]
        self._outputs = ["logits", *(name.replace("past_key_values", "present") for name in self._empty_past)]
        lacking = ({"input_ids"} - inputs) | (set(self._outputs) - {o.name for o in self._session.get_outputs()})
        if lacking:
            raise InputError(f"{path}: not a decoder with past: it lacks {', '.join(sorted(lacking))}")

    def render(self, messages: Sequence[Message]) -> str:
        return self._chat.render(messages)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenize(self.render(messages))

    def tokenize(self, prompt: str) -> list[int]:
        """Ids of a rendered prompt: special tokens in it are read as such, and none is added."""
        ids: list[int] = self._tokenizer.encode(prompt, add_special_tokens=False).ids
        return ids

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> Generation:
        started = time.perf_counter()
        return self.complete(self.encode(messages), max_tokens=max_tokens, started=started)

    def complete(self, ids: Sequence[int], *, max_tokens: int, started: float | None = None) -> Generation:
        """Go on from token ids. Raises ContextError as `generate` does."""
        check_context(len(ids), max_tokens, self.context_length)
        return follow(
            self._greedy(list(ids)),
            is_end=self._ends.__contains__,
            text_of=self.text_of,
            started=time.perf_counter() if started is None else started,
            prompt_tokens=len(ids),
            max_tokens=max_tokens,
        )

    def text_of(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def close(self) -> None:
        del self._session

    def _greedy(self, ids: list[int]) -> Iterator[int]:
        past, seen = self._empty_past, 0
        while True:
            whole = seen + len(ids)
            values = (np.array([ids]), np.ones((1, whole)), np.arange(seen, whole)[None])
            feeds = {name: v.astype(np.int64) for name, v in zip(_FEEDS, values, strict=True) if name in self._feeds}
            logits, *present = self._session.run(self._outputs, {**feeds, **past})
            past, seen = dict(zip(past, present, strict=True)), whole
            token = int(logits[0, -1].argmax())
            yield token
            ids = [token]


def read_tokenizer(folder: Path) -> Tokenizer:
    """tokenizer.json, without the truncation and padding that training may have left in it."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{path}: missing; copy it from the model that was exported")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for a file that it cannot read
        raise InputError(f"{path}: not a tokenizer that can be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _context_length(folder: Path, asked: int) -> int:
    trained = read_config(folder, "config.json").get("max_position_embeddings")
    if not isinstance(trained, int):
        if not asked:
            raise InputError(f"{folder / 'config.json'}: no max_position_embeddings: the model's context is unknown")
        return asked
    return min(asked or trained, trained)


def _empty_past(path: Path, session: Any) -> dict[str, Any]:
    """Keys and values of no tokens yet, (1, heads, 0, head size), by input name and in the graph's order."""
    past = {}
    for given in session.get_inputs():
        if not given.name.startswith("past_key_values."):
            continue
        match given.shape:
            case [_, int() as heads, _, int() as size] if given.type in _TYPES:
                past[given.name] = np.zeros((1, heads, 0, size), _TYPES[given.type])
            case _:
                raise InputError(f"{path}: input {given.name} is {given.type}{given.shape}: export it with past")
    if not past:
        raise InputError(f"{path}: it has no past_key_values inputs: export it as a decoder with past")
    return past
