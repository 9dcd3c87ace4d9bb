"""Quantises a GGUF with llama.cpp's own library."""

import ctypes
import shutil
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedc.child import in_child
from edgedc.errors import EdgedcError, InputError
from edgedc.files import beside

from .tensors import StoredTensor, read_tensors

if TYPE_CHECKING:
    from .imatrix import Importance

BUFFER_BYTES = 64_000_000  # of a tensor's rows in memory at once, of which llama.cpp else takes up to 8 GiB
K_ROW = 256  # weights in a block of the k-quants and of most iq types


@dataclass(frozen=True)
class Type:
    """One of llama.cpp's file types.

    `number` is its llama_ftype (llama.h). `bits` are those per weight that its mix of tensor types (llama-quant.cpp)
    comes to in the layers of an ordinary model, and `narrow` those where rows are not whole blocks of 256 and other
    types take their place. They serve to foresee a file's size, no more. `calibrated` types exist only with an
    importance matrix.
    """

    number: int
    bits: float
    narrow: float
    calibrated: bool = False


# From large to small. Those for one model's architecture only (ternary weights, MXFP4) are left out.
TYPES = {
    "f32": Type(0, 32.0, 32.0),
    "f16": Type(1, 16.0, 16.0),
    "bf16": Type(32, 16.0, 16.0),
    "q8_0": Type(7, 8.5, 8.5),
    "q6_k": Type(18, 6.57, 8.5),
    "q5_k_m": Type(17, 5.7, 6.4),
    "q5_k_s": Type(16, 5.5, 6.0),
    "q5_1": Type(9, 6.0, 6.0),
    "q5_0": Type(8, 5.5, 5.5),
    "q4_k_m": Type(15, 4.8, 5.9),
    "q4_k_s": Type(14, 4.6, 5.6),
    "q4_1": Type(3, 5.0, 5.0),
    "q4_0": Type(2, 4.5, 4.5),
    "iq4_nl": Type(25, 4.5, 4.5),
    "iq4_xs": Type(30, 4.3, 4.5),
    "q3_k_l": Type(13, 4.2, 5.1),
    "q3_k_m": Type(12, 3.9, 5.0),
    "q3_k_s": Type(11, 3.5, 4.5),
    "iq3_m": Type(27, 3.6, 4.6),
    "iq3_s": Type(26, 3.5, 4.5),
    "q2_k": Type(10, 3.0, 4.5),
    "iq3_xs": Type(22, 3.3, 4.5, calibrated=True),
    "iq3_xxs": Type(23, 3.1, 4.5, calibrated=True),
    "q2_k_s": Type(21, 2.7, 4.5, calibrated=True),
    "iq2_m": Type(29, 2.7, 4.5, calibrated=True),
    "iq2_s": Type(28, 2.5, 4.5, calibrated=True),
    "iq2_xs": Type(20, 2.4, 4.5, calibrated=True),
    "iq2_xxs": Type(19, 2.2, 4.5, calibrated=True),
    "iq1_m": Type(31, 1.9, 4.5, calibrated=True),
    "iq1_s": Type(24, 1.7, 4.5, calibrated=True),
}
UNQUANTIZED = ("f32", "f16", "bf16")  # what to_gguf writes itself
# llama-quantize takes these too, and a type's number.
ALIASES = {"q5_k": "q5_k_m", "q4_k": "q4_k_m", "q3_k": "q3_k_m"} | {str(t.number): name for name, t in TYPES.items()}
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
OUTPUT_BITS, OUTPUT_NARROW = 6.57, 8.5  # of the output, or the embedding that serves as one, in every smaller type


@dataclass(frozen=True)
class Contents:
    """What a GGUF really holds: its tensors, the matrices by type, and bits per weight over all tensors."""

    tensors: tuple[StoredTensor, ...]
    matrices: dict[str, int]
    bits_per_weight: float


def types_of(names: str, *, calibrated: bool = False) -> list[str]:
    """`F16,q4_k,7` -> `["f16", "q4_k_m", "q8_0"]`: llama.cpp's names in any case and its numbers, each type once.

    Raises InputError for an unknown one, and for one that needs an importance matrix unless there will be one.
    """
    chosen = []
    for name in names.lower().split(","):
        kind = ALIASES.get(name.strip(), name.strip())
        if kind not in TYPES:
            raise InputError(f"unknown quantization {name.strip()!r}; known: {', '.join(TYPES)}")
        if TYPES[kind].calibrated and not calibrated:
            raise InputError(f"quantization {kind} needs an importance matrix: give --calibrate FILE")
        chosen.append(kind)
    return list(dict.fromkeys(chosen))


def quantize(source: Path, out: Path, kind: str, importance: "Importance | None" = None) -> None:
    """Write `out` from an f16, bf16 or f32 GGUF, or nothing.

    Raises InputError when `source` is not a GGUF or is `out` itself, and EdgedcError when the disk has no room for it
    or llama.cpp fails.
    """
    if out.resolve() == source.resolve():  # llama.cpp would write over what it has mapped, and die
        raise InputError(f"{out}: cannot be quantised into itself; give another file")
    if TYPES[kind].calibrated and importance is None:
        raise InputError(f"quantization {kind} needs an importance matrix: give --calibrate FILE")
    needed, free = estimate(read_tensors(source), kind), shutil.disk_usage(out.parent).free
    if needed > free:
        raise EdgedcError(
            f"{out}: needs about {needed / 1e6:.0f} MB (estimated from the tensors' shapes), and {free / 1e6:.0f} MB "
            "are free: make room"
        )
    columns = None if importance is None else importance.columns
    with beside(out) as path:
        for _ in in_child(f"quantising {out.name}", _quantize, str(source), str(path), kind, columns):
            pass


def _quantize(source: str, out: str, kind: str, columns: "dict[str, Any] | None") -> Iterator[None]:
    import llama_cpp

    said: deque[str] = deque(maxlen=2)

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # llama_cpp has no types
    def keep(level: int, text: bytes, _: ctypes.c_void_p) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level in (3, 4) and line:  # GGML_LOG_LEVEL_WARN, GGML_LOG_LEVEL_ERROR (ggml.h)
            said.append(line)

    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = TYPES[kind].number
    params.max_buf_size = BUFFER_BYTES  # versions without it take whole tensors at a time
    if columns is not None:
        params.imatrix = _importance_list(columns)
    code = llama_cpp.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params))
    if code:
        raise EdgedcError(f"{source}: llama.cpp cannot quantise it to {kind}: {'; '.join(said) or f'code {code}'}")
    yield None


def _importance_list(columns: dict[str, Any]) -> Any:
    """The matrix as llama.cpp takes it: an array of (name, floats, count) that ends with an empty name."""
    import llama_cpp

    entry = getattr(llama_cpp, "llama_model_imatrix_data", None)
    if entry is None:
        raise EdgedcError("this llama-cpp-python takes no importance matrix: pip install -U llama-cpp-python")
    pointer = ctypes.POINTER(ctypes.c_float)
    entries = [entry(name.encode(), values.ctypes.data_as(pointer), values.size) for name, values in columns.items()]
    return (entry * (len(entries) + 1))(*entries)


def contents(path: Path) -> Contents:
    """Read back what each tensor became, which is not always what was asked for. Raises InputError."""
    tensors = read_tensors(path)
    matrices = Counter(t.type for t in tensors if t.is_matrix)
    bits = sum(t.weights * t.bits_per_weight for t in tensors) / sum(t.weights for t in tensors)
    return Contents(tuple(tensors), dict(matrices), bits)


def fallback(kind: str, held: Contents) -> str:
    """What llama.cpp did, silently, with rows that are not whole blocks of 256 weights; "" when it had no need to."""
    if TYPES[kind].narrow == TYPES[kind].bits:
        return ""
    matrices = [t for t in held.tensors if t.is_matrix]
    narrow = Counter(t.type for t in matrices if t.shape[0] % K_ROW)
    if not narrow:
        return ""
    types = ", ".join(f"{count} as {name}" for name, count in narrow.items())
    return (
        f"the rows of some matrices are not multiples of {K_ROW}, so llama.cpp stored {types}, of "
        f"{len(matrices)}: {held.bits_per_weight:.2f} bits per weight"
    )


def estimate(tensors: Sequence[StoredTensor], kind: str) -> int:
    """About how many bytes the tensors of an unquantised GGUF will take as `kind`, by their shapes alone."""
    output = OUTPUT if any(t.name == OUTPUT for t in tensors) else EMBEDDING
    return int(sum(t.weights * _bits(t, kind, output) for t in tensors) / 8)


def _bits(tensor: StoredTensor, kind: str, output: str) -> float:
    if not tensor.is_matrix:
        return tensor.bits_per_weight
    narrow = tensor.shape[0] % K_ROW != 0
    if tensor.name == output and TYPES[kind].bits < OUTPUT_NARROW:
        return OUTPUT_NARROW if narrow else OUTPUT_BITS
    return TYPES[kind].narrow if narrow else TYPES[kind].bits
