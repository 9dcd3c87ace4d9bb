"""GGUF artifacts, run by llama.cpp.

This goes to the C interface below `llama_cpp.Llama`: that class keeps batch x vocabulary floats of scores, redirects
the process's stdout and compiles whatever chat template is in the file.
"""

import ctypes
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgedc.backends.chat import ChatTemplate
from edgedc.backends.gguf_header import check_header
from edgedc.backends.greedy import check_context, follow, physical_cores
from edgedc.backends.llamacpp_vocab import LlamaVocab
from edgedc.backends.marks import Marks
from edgedc.bundle import SpecialIds
from edgedc.errors import EdgedcError, InputError, MissingExtra
from edgedc.generation import Generation, Message

try:
    import llama_cpp
    import numpy as np
except ModuleNotFoundError as error:
    raise MissingExtra("llama-cpp-python", "llamacpp") from error

if TYPE_CHECKING:
    import numpy.typing as npt

_BATCH = 512
_LEAST_CONTEXT = 1024

_ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR (ggml.h); llama_cpp/_logger.py has an older numbering
_errors: deque[str] = deque(maxlen=8)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # llama_cpp has no types
def _keep_errors(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    line = text.decode("utf-8", "replace").strip()
    if level == _ERROR_LEVEL and line:
        _errors.append(line)


# llama.cpp writes to stderr by itself. The callback is global to the process, and as a module's name it stays alive.
llama_cpp.llama_log_set(_keep_errors, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def model_params() -> "llama_cpp.llama_model_params":
    """How models are loaded here: on the CPU.

    Compiled by GCC, llama.cpp's kernels for AMX end the process (github.com/ggml-org/llama.cpp/pull/26954: the tile
    configuration is optimised away). Weights are kept from them, which costs the repacking of some types as well;
    a llama.cpp built without AMX loses nothing (`edgedc doctor` names the flag).
    """
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = not has_amx()
    return params


def has_amx() -> bool:
    return b"AMX_INT8 = 1" in llama_cpp.llama_print_system_info()


class LlamaCppBackend:
    """A GGUF file on this machine's CPU. The state of the last prompt is kept, and its common prefix reused.

    `chat` is None for the template in the file. `context_length` 0 is the length the model was trained with. Memory
    for the context grows with the prompts, so that a long context costs nothing until it is used. Raises InputError
    when the file is missing, is not a GGUF, is refused by llama.cpp, or has no chat template.
    """

    def __init__(
        self, path: Path, *, chat: ChatTemplate | None = None, context_length: int = 0, threads: int | None = None
    ) -> None:
        check_header(path)
        self.name = f"llama.cpp {path.name}"
        self._path = path
        self._threads = threads or physical_cores()
        self._context = None
        _errors.clear()
        params = model_params()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise InputError(f"{path}: llama.cpp cannot load it: {_said()}")
        self._vocab = LlamaVocab(self._model, path)
        self._marks = Marks(self._vocab.special, self._vocab.tokenize)
        trained = llama_cpp.llama_model_n_ctx_train(self._model)
        self.context_length = min(context_length or trained, trained)
        self.template = self._template_in_file()
        self._known: list[int] = []  # the tokens whose state is in the context
        self._reused = 0
        try:
            self._chat = chat or self._chat_in_file()
        except InputError:
            self.close()
            raise

    def render(self, messages: Sequence[Message]) -> str:
        return self._chat.render(messages)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self._marks.encode(messages, self.render)

    def tokenize(self, prompt: str) -> list[int]:
        """Ids of a rendered prompt: special tokens in it are read as such, and none is added."""
        return self._vocab.tokenize(prompt)

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> Generation:
        started = time.perf_counter()
        return self.complete(self.encode(messages), max_tokens=max_tokens, started=started)

    def complete(self, ids: Sequence[int], *, max_tokens: int, started: float | None = None) -> Generation:
        """Go on from token ids. Raises ContextError as `generate` does, InputError when there are none."""
        if not ids:
            raise InputError(f"{self._path}: the prompt has no tokens: its chat template writes nothing")
        check_context(len(ids), max_tokens, self.context_length)
        self._make_room(len(ids) + max_tokens)
        return follow(
            self._greedy(list(ids)),
            is_end=self._vocab.is_end,
            text_of=self.text_of,
            started=time.perf_counter() if started is None else started,
            prompt_tokens=len(ids),
            max_tokens=max_tokens,
            cached=lambda: self._reused,
        )

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of a reply, without special tokens."""
        return self._vocab.text_of(ids)

    def special_ids(self) -> SpecialIds:
        return self._vocab.special_ids()

    def logits(self, ids: Sequence[int], *, start: int) -> "npt.NDArray[np.float32]":
        """See ModelBackend."""
        check_context(len(ids), 0, self.context_length)
        self._make_room(len(ids))
        fresh = self._rewind(list(ids), keep=start)
        rows = np.empty((len(ids) - start, self._vocab.size), np.float32)
        for k in range(0, len(fresh), _BATCH):
            batch = fresh[k : k + _BATCH]
            at = len(self._known)
            scored = min(at + len(batch) - start, len(batch))  # the batch's last ones
            self._evaluate(batch, scored=scored)
            if scored > 0:
                scores = llama_cpp.llama_get_logits(self._context)
                first = at + len(batch) - scored - start
                rows[first : first + scored] = np.ctypeslib.as_array(scores, shape=(scored, self._vocab.size))
        return rows

    def close(self) -> None:
        if self._context:
            llama_cpp.llama_free(self._context)
            self._context = None
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._model = None

    def _greedy(self, ids: list[int]) -> Iterator[int]:
        fresh = self._rewind(ids)
        while True:
            for start in range(0, len(fresh), _BATCH):
                self._evaluate(fresh[start : start + _BATCH])
            scores = llama_cpp.llama_get_logits_ith(self._context, -1)
            token = int(np.ctypeslib.as_array(scores, shape=(self._vocab.size,)).argmax())
            yield token
            fresh = [token]

    def _rewind(self, ids: list[int], keep: int | None = None) -> list[int]:
        """Forget what the last prompt does not share with this one; return the tokens that are still to evaluate.

        Those from `keep` on are always evaluated, for their scores; None is the last one.
        """
        most = len(ids) - 1 if keep is None else keep
        shared = next((k for k, (a, b) in enumerate(zip(self._known, ids[:most], strict=False)) if a != b), None)
        self._reused = min(len(self._known), most) if shared is None else shared
        memory = llama_cpp.llama_get_memory(self._context)
        if not llama_cpp.llama_memory_seq_rm(memory, 0, self._reused, -1):  # a recurrent model cannot go back
            llama_cpp.llama_memory_clear(memory, True)
            self._reused = 0
        self._known = ids[: self._reused]
        return ids[self._reused :]

    def _evaluate(self, ids: list[int], *, scored: int = 1) -> None:
        """Take ids into the context, with the scores behind the last `scored` of them."""
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        batch = llama_cpp.llama_batch_get_one(tokens, len(ids))
        batch.logits = (ctypes.c_int8 * len(ids))(*(k >= len(ids) - scored for k in range(len(ids))))
        code = llama_cpp.llama_decode(self._context, batch)
        if code:
            self._forget()
            raise EdgedcError(f"{self._path}: llama.cpp failed while decoding (code {code}): {_said()}")
        self._known += ids

    def _make_room(self, tokens: int) -> None:
        """Have a context of at least this many tokens: the next power of two, at most the model's."""
        if self._context and llama_cpp.llama_n_ctx(self._context) >= tokens:
            return
        self._forget()
        params = llama_cpp.llama_context_default_params()
        wanted = min(max(_LEAST_CONTEXT, 1 << (tokens - 1).bit_length()), self.context_length)
        params.n_ctx = max(wanted, _BATCH)  # llama.cpp aborts on a batch that is larger than its context
        params.n_batch = params.n_ubatch = _BATCH
        params.n_threads = params.n_threads_batch = self._threads
        _errors.clear()
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise EdgedcError(f"{self._path}: llama.cpp has no room for a context of {params.n_ctx} tokens: {_said()}")

    def _forget(self) -> None:
        if self._context:
            llama_cpp.llama_free(self._context)
        self._context, self._known = None, []

    def _template_in_file(self) -> str | None:
        template = llama_cpp.llama_model_chat_template(self._model, None)
        return template.decode("utf-8", "replace") if template else None

    def _chat_in_file(self) -> ChatTemplate:
        if not self.template:
            raise InputError(f"{self._path}: no chat template in it, and none beside it")
        where = f"{self._path} (tokenizer.chat_template)"
        return ChatTemplate(self.template, self._vocab.special_texts(), where)


def _said() -> str:
    """The first errors since the last load or context: the cause; what follows only passes it on."""
    return "; ".join(list(_errors)[:2]) or "it gave no reason"
