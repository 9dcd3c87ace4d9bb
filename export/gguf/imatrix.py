"""An importance matrix of the decomposition task: how strongly each input of each matrix is used by its own prompts.

For every matrix of the model's layers it holds the mean square of each input column, as llama.cpp's llama-imatrix
does; llama.cpp's quantiser then weighs a column's rounding errors by it. The inputs are watched inside llama.cpp, on
the f16 GGUF that is quantised, through the callback that its scheduler offers: so the tensors' names need no
translation, whatever the model's family, and torch is not loaded.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedc.child import in_child
from edgedc.errors import EdgedcError, InputError
from edgedc.prompts import MAX_TOKENS_DECOMPOSE

from ..gate.observe import threads_for

if TYPE_CHECKING:
    import numpy as np

    Columns = dict[str, np.ndarray[Any, np.dtype[np.float32]]]

CHUNK = 64  # tokens evaluated at once; each has its scores kept, which is what takes the memory


@dataclass(frozen=True)
class Importance:
    """`columns` maps a tensor's name to the mean squares of its inputs, one for each weight of a row.

    They were taken over `tokens` tokens of `prompts` prompts and replies.
    """

    columns: "Columns"
    prompts: int
    tokens: int


def importance(
    gguf: Path,
    prompts: Sequence[str],
    context: int,
    on_prompt: Callable[[], None] = lambda: None,
) -> Importance:
    """The matrix of an unquantised GGUF over prompts and its own greedy replies; in a child process.

    `prompts` are rendered: texts as the model sees them. `on_prompt` is called after each reply. `context` is the
    number of tokens that prompt and reply may have together. Raises InputError when there are no prompts or one does
    not fit, and EdgedcError when llama.cpp fails.
    """
    if not prompts:
        raise InputError("an importance matrix needs prompts: give --calibrate a file with questions")
    threads = threads_for(gguf.stat().st_size) if gguf.is_file() else None
    child = in_child(f"calibrating on {gguf}", _importance, str(gguf), prompts, context, threads)
    for item in child:
        if item is None:
            on_prompt()
        else:
            matrix: Importance = item
    return matrix


def _importance(gguf: str, prompts: Sequence[str], context: int, threads: int | None) -> Iterator[Importance | None]:
    """None for each prompt that has its reply, and the matrix at the end."""
    from edgedc.backends.chat import ChatTemplate
    from edgedc.backends.llamacpp import LlamaCppBackend

    unused = ChatTemplate("{{ messages }}", {}, gguf)  # a model without a template can be calibrated too
    backend = LlamaCppBackend(Path(gguf), chat=unused, context_length=context, threads=threads)
    sequences = []
    for prompt in prompts:
        ids = backend.tokenize(prompt)
        room = max(1, backend.context_length - len(ids))
        reply = backend.complete(ids, max_tokens=min(MAX_TOKENS_DECOMPOSE, room)).text
        sequences.append(backend.tokenize(prompt + reply))
        yield None
    backend.close()
    yield collect(gguf, sequences, threads)


def collect(gguf: str, sequences: Sequence[Sequence[int]], threads: int | None = None) -> Importance:
    """The matrix over token ids, each sequence from an empty context. Loads the model into this process.

    The output's matrix and the embedding are left out, as llama-imatrix leaves them out: they stay at six bits or
    more. Raises EdgedcError when llama.cpp fails, and for a mixture of experts, whose inputs go by expert.
    """
    import llama_cpp

    from edgedc.backends.cores import physical_cores
    from edgedc.backends.llamacpp import model_params

    watcher = _Watcher()
    callback = llama_cpp.ggml_backend_sched_eval_callback(watcher)
    model = llama_cpp.llama_model_load_from_file(gguf.encode(), model_params())
    if not model:
        raise EdgedcError(f"{gguf}: llama.cpp cannot load it")
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = max(CHUNK, *map(len, sequences))
    params.n_batch = params.n_ubatch = CHUNK
    params.n_threads = params.n_threads_batch = threads or physical_cores()
    params.op_offload = params.offload_kqv = False  # inputs stay in this machine's memory
    params.cb_eval = callback
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        raise EdgedcError(f"{gguf}: llama.cpp has no room for a context of {params.n_ctx} tokens")
    for ids in sequences:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        for start in range(0, len(ids), CHUNK):
            _evaluate(gguf, context, ids[start : start + CHUNK], start)
            if watcher.failed:
                raise EdgedcError(f"{gguf}: cannot be calibrated: {watcher.failed}")
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return Importance(watcher.columns(), len(sequences), sum(map(len, sequences)))


def _evaluate(gguf: str, context: Any, ids: Sequence[int], start: int) -> None:
    """All tokens' scores are asked for: else the last layer would work out the last token alone."""
    import llama_cpp

    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for k, token in enumerate(ids):
        batch.token[k], batch.pos[k] = token, start + k
        batch.n_seq_id[k], batch.seq_id[k][0] = 1, 0
        batch.logits[k] = True
    code = llama_cpp.llama_decode(context, batch)
    llama_cpp.llama_batch_free(batch)
    if code:
        raise EdgedcError(f"{gguf}: llama.cpp failed while calibrating (code {code})")


class _Tensor(ctypes.Structure):
    """ggml_tensor (ggml.h). llama_cpp offers no accessor for what an operation reads."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    ]


class _Watcher:
    """Sums the squares of what the layers' matrices are multiplied with, as llama.cpp calculates.

    It is called twice for each operation: before (`ask`), to say whether it wants to see it, and after. It must not
    raise, since it is called from C: `failed` says what went wrong, and ends the calculation.
    """

    def __init__(self) -> None:
        from llama_cpp._ggml import libggml

        self.failed = ""
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._operation, self._name, self._data = libggml.ggml_op_desc, libggml.ggml_get_name, libggml.ggml_get_data
        self._operation.restype = ctypes.c_char_p
        self._name.restype = self._data.restype = ctypes.c_void_p
        for function in (self._operation, self._name, self._data):
            function.argtypes = [ctypes.c_void_p]

    def __call__(self, address: int, ask: bool, _: Any) -> bool:
        operation = self._operation(address)
        if self.failed or operation not in (b"MUL_MAT", b"MUL_MAT_ID"):
            return False
        tensor = _Tensor.from_address(address)
        if (self._name(address), self._data(address)) != (address + _Tensor.name.offset, tensor.data):
            self.failed = "this llama-cpp-python lays out tensors in another way; install the version edgedc asks for"
            return False
        name = _Tensor.from_address(tensor.src[0]).name.decode("utf-8", "replace")
        if not (name.startswith("blk.") and name.endswith(".weight")):
            return False
        if operation == b"MUL_MAT_ID":
            self.failed = f"{name} is a mixture of experts"
            return False
        if not ask:
            self._add(name, _Tensor.from_address(tensor.src[1]))
        return True

    def _add(self, name: str, inputs: _Tensor) -> None:
        import numpy as np

        shape, strides = inputs.ne[::-1], inputs.nb[::-1]
        size = 4 + sum((count - 1) * stride for count, stride in zip(shape, strides, strict=True))
        memory = (ctypes.c_char * size).from_address(inputs.data)
        values = np.ndarray(shape, np.float32, memory, strides=strides)
        squares = np.square(values, dtype=np.float64).reshape(-1, shape[-1])
        self._sums[name] = self._sums.get(name, 0.0) + squares.sum(axis=0)
        self._counts[name] = self._counts.get(name, 0) + len(squares)

    def columns(self) -> "Columns":
        import numpy as np

        return {name: (total / self._counts[name]).astype(np.float32) for name, total in self._sums.items()}
