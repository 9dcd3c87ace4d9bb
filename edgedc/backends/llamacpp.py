"""GGUF artifacts, run by llama.cpp.

This goes to the C interface below `llama_cpp.Llama`: that class keeps batch x vocabulary floats of scores, redirects
the process's stdout and compiles whatever chat template is in the file.
"""

import ctypes
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedc.backends import huge_pages, llamacpp_log
from edgedc.backends.chat import ChatTemplate
from edgedc.backends.cores import FreeCores, physical_cores
from edgedc.backends.gguf_header import check_adapter, check_header
from edgedc.backends.grammar import ListGrammar
from edgedc.backends.greedy import GreedyBackend, check_context
from edgedc.backends.llamacpp_batch import Batch, Prompt
from edgedc.backends.llamacpp_context import BATCH, SEQUENCES, LlamaContext, Part
from edgedc.backends.llamacpp_vocab import LlamaVocab
from edgedc.backends.marks import Marks
from edgedc.bundle import SpecialIds
from edgedc.errors import EdgedcError, InputError, MissingExtra
from edgedc.generation import Generation, Message, OnText, Request

try:
    import llama_cpp
    import numpy as np
except ModuleNotFoundError as error:
    raise MissingExtra("llama-cpp-python", "llamacpp") from error

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgedc.backends.reply import Scores

_COMMON = 1024  # tokens that a prompt and its reply have at most, as a rule
NO_GPU = (
    "llama.cpp finds no GPU here: see that there is a driver, and compile llama.cpp for it, for NVIDIA's with  "
    "CMAKE_ARGS=-DGGML_CUDA=on pip install --force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python "
    "llama-cpp-python"
)
_UNQUANTISED = (0, 1, 32)  # LLAMA_FTYPE_ALL_F32, _MOSTLY_F16 and _MOSTLY_BF16 (llama.h)

_NO_DEVICES = (ctypes.c_void_p * 1)()  # a list that ends with NULL, as llama.cpp has them

llama_cpp.llama_backend_init()


def model_params(file_type: int = 0, *, gpu: bool = False) -> "llama_cpp.llama_model_params":
    """How models are loaded here: wholly on the CPU, or on the GPU. `file_type` is the GGUF's `general.file_type`.

    Without layers on it, a llama.cpp that was compiled for a GPU would still compute long prompts there, and take some
    of its memory: on the CPU it is given none.

    Compiled by GCC, llama.cpp's kernels for AMX end the process (github.com/ggml-org/llama.cpp/pull/26954: the tile
    configuration is optimised away). Weights are kept from them, which costs the repacking of some types as well;
    a llama.cpp built without AMX loses nothing (`edgedc doctor` names the flag).
    """
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = -1 if gpu else 0  # all, or none
    if not gpu:
        params.devices = ctypes.addressof(_NO_DEVICES)
    params.use_extra_bufts = not has_amx()
    if not gpu and params.use_extra_bufts and file_type not in _UNQUANTISED:
        # Quantised weights are copied into an order that this CPU computes faster with. Read into it and not by way of
        # a mapping of the file, they are in memory once and not twice. (A mapping may lie in larger pages, and be some
        # percent faster for it; these weights are moved into such pages where a model goes on working.)
        if hasattr(llama_cpp, "LLAMA_LOAD_MODE_NONE"):
            params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        else:  # before 0.3.35
            params.use_mmap = False
    return params


def has_gpu() -> bool:
    """Whether llama.cpp was compiled for a GPU, and finds one."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def has_amx() -> bool:
    return b"AMX_INT8 = 1" in llama_cpp.llama_print_system_info()


class LlamaCppBackend(GreedyBackend):
    """A GGUF file on this machine's CPU, mapped into memory where llama.cpp does not rearrange its weights, or a GPU.

    What prompts have in common at their beginnings is evaluated once. `chat` is None for the template in the file.
    `context_length` 0 is the length the model was trained with. `threads` None: one for each physical core that other
    programs leave free, as they come and go. `adapter` is a LoRA as a GGUF (`edgedc export --adapter-only`) that
    llama.cpp adds to this model. Memory for the context grows with the prompts, so that a long context costs nothing
    until it is used. Raises InputError when a file is missing, is not a GGUF, is refused by llama.cpp, or has no chat
    template.
    """

    def __init__(
        self,
        path: Path,
        *,
        chat: ChatTemplate | None = None,
        context_length: int = 0,
        threads: int | None = None,
        adapter: Path | None = None,
        gpu: bool = False,
    ) -> None:
        metadata = check_header(path)
        if adapter:
            check_adapter(adapter)
        self.name = f"llama.cpp {path.name}" + (f" with {adapter.name}" if adapter else "")
        self._path = path
        self._context: LlamaContext | None = None
        self._batching = False
        llamacpp_log.forget()
        if gpu and not has_gpu():
            raise InputError(f"{path}: {NO_GPU}")
        params = model_params(metadata.get("general.file_type", 0), gpu=gpu)
        before = huge_pages.anonymous_memory()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise InputError(f"{path}: llama.cpp cannot load it: {llamacpp_log.said()}")
        weights = () if gpu else huge_pages.pages_since(before)
        try:
            self._vocab = LlamaVocab(self._model, path)
            self._ends = frozenset(self._vocab.special_ids().ends)
            self._marks = Marks(self._vocab.special, self._vocab.tokenize)
            trained = llama_cpp.llama_model_n_ctx_train(self._model)
            self.context_length = min(context_length or trained, trained)
            self.template = self._template_in_file()
            self._chat = chat or self._chat_in_file()
            lora = self._load(adapter) if adapter else None
            how_many = (lambda: threads) if threads else FreeCores(physical_cores()).threads
            self._context = LlamaContext(self._model, path, how_many, self._vocab.size, lora, movable=weights)
        except InputError:
            self.close()
            raise

    def render(self, messages: Sequence[Message]) -> str:
        return self._chat.render(messages)

    def tokenize(self, prompt: str) -> list[int]:
        """Ids of a rendered prompt: special tokens in it are read as such, and none is added."""
        return self._vocab.tokenize(prompt)

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of a reply, without special tokens."""
        return self._vocab.text_of(ids)

    def special_ids(self) -> SpecialIds:
        return self._vocab.special_ids()

    def logits(self, ids: Sequence[int], *, start: int) -> "npt.NDArray[np.float32]":
        """See ModelBackend."""
        check_context(len(ids), 0, self.context_length)
        return self._free_context().all_scores(ids, start=start)

    def generate_many(
        self, requests: Iterable[Sequence[Message]], *, max_tokens: int, grammar: ListGrammar | None = None
    ) -> Iterator[Generation | EdgedcError]:
        """See ModelBackend. Requests are taken up to 64 ahead and run 16 at a time; until the last is answered or this
        is closed, the backend can do nothing else. A reply may differ from that of `generate` where two tokens are as
        likely as each other up to rounding. Raises EdgedcError when llama.cpp fails.
        """
        context = self._free_context()
        context.forget()  # rounding differs with what is shared: the same requests are to have the same replies
        self._batching = True
        try:
            prompts = (self._prompt(messages, max_tokens, grammar) for messages in requests)
            yield from (made for _, made in Batch(context, prompts).results())
        finally:
            self._batching = False

    def generate_as_they_come(
        self, requests: Iterable[Request | None], *, grammar: ListGrammar | None = None
    ) -> Iterator[tuple[int, Generation | EdgedcError]]:
        """See ModelBackend, and `generate_many` for what it shares with this.

        However many long prompts come, memory grows no further than for sixteen of _COMMON tokens, or for the longest.
        """
        context = self._free_context()
        self._batching = True
        try:
            prompts = (self._prompt(r.messages, r.max_tokens, grammar, r.on_text) if r else None for r in requests)
            yield from Batch(context, prompts, most_cells=_COMMON * SEQUENCES).results(in_order=False)
        finally:
            self._batching = False

    def close(self) -> None:
        if self._context:
            self._context.close()
            self._context = None
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._model = None

    def scores(self, ids: list[int], max_tokens: int) -> "Generator[Scores, int, None]":
        context, cells = self._free_context(), len(ids) + max_tokens
        context.make_room(cells)
        self._reused = context.claim(0, ids, keep=len(ids) - 1, cells=cells)
        fresh = ids[self._reused :]
        try:
            while True:
                for start in range(0, len(fresh), BATCH):
                    batch = fresh[start : start + BATCH]
                    context.evaluate([Part(0, batch, scored=1)])
                fresh = [(yield context.scores(len(batch) - 1))]
        finally:
            context.release(0)

    def _prompt(
        self, messages: Sequence[Message], max_tokens: int, grammar: ListGrammar | None, on_text: OnText | None = None
    ) -> Prompt | EdgedcError:
        started = time.perf_counter()
        try:
            ids = self.encode(messages)
            return Prompt(ids, self._begin(ids, max_tokens, grammar, on_text, started), len(ids) + max_tokens)
        except EdgedcError as error:
            return error

    def _free_context(self) -> LlamaContext:
        if self._batching or not self._context:
            raise RuntimeError(f"{self.name}: {'in the middle of generate_many' if self._batching else 'closed'}")
        return self._context

    def _load(self, adapter: Path) -> Any:
        """The adapter, which llama.cpp frees with the model."""
        llamacpp_log.forget()
        loaded = llama_cpp.llama_adapter_lora_init(self._model, str(adapter).encode())
        if not loaded:
            raise InputError(f"{adapter}: llama.cpp cannot add it to {self._path}: {llamacpp_log.said()}")
        return ctypes.cast(loaded, llama_cpp.llama_adapter_lora_p_ctypes)

    def _template_in_file(self) -> str | None:
        template = llama_cpp.llama_model_chat_template(self._model, None)
        return template.decode("utf-8", "replace") if template else None

    def _chat_in_file(self) -> ChatTemplate:
        if not self.template:
            raise InputError(f"{self._path}: no chat template in it, and none beside it")
        where = f"{self._path} (tokenizer.chat_template)"
        return ChatTemplate(self.template, self._vocab.special_texts(), where)
