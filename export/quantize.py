"""Quantises a GGUF with llama.cpp's own library."""

import ctypes
import os
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgedc.errors import EdgedcError, InputError

from .child import in_child

# llama.cpp's llama_ftype (llama.h). Those that need an importance matrix, and those for one model only, are left out.
# The first two are what to_gguf writes itself.
TYPES = {
    "f32": 0,
    "f16": 1,
    "q8_0": 7,
    "q6_k": 18,
    "q5_k_m": 17,
    "q5_k_s": 16,
    "q5_1": 9,
    "q5_0": 8,
    "q4_k_m": 15,
    "q4_k_s": 14,
    "q4_1": 3,
    "q4_0": 2,
    "iq4_nl": 25,
    "iq4_xs": 30,
    "q3_k_l": 13,
    "q3_k_m": 12,
    "q3_k_s": 11,
    "q2_k": 10,
}
UNQUANTIZED = ("f32", "f16")
ALIASES = {"q5_k": "q5_k_m", "q4_k": "q4_k_m", "q3_k": "q3_k_m"}


@dataclass(frozen=True)
class Contents:
    """What a GGUF really holds: matrices by type, and bits per weight over all tensors."""

    matrices: dict[str, int]
    bits_per_weight: float


def types_of(names: str) -> list[str]:
    """`F16,q4_k` -> `["f16", "q4_k_m"]`: llama.cpp's names in any case, each once. Raises InputError."""
    chosen = []
    for name in names.lower().split(","):
        kind = ALIASES.get(name.strip(), name.strip())
        if kind not in TYPES:
            raise InputError(f"unknown quantization {name.strip()!r}; known: {', '.join(TYPES)}")
        chosen.append(kind)
    return list(dict.fromkeys(chosen))


def quantize(source: Path, out: Path, kind: str) -> None:
    """Write `out` from an f16 or f32 GGUF, or nothing. Raises EdgedcError when llama.cpp fails."""
    if out.resolve() == source.resolve():  # llama.cpp would write over what it has mapped, and die
        raise InputError(f"{out}: cannot be quantised into itself")
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        for _ in in_child(f"quantising {out.name}", _quantize, str(source), str(beside), kind):
            pass
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)


def _quantize(source: str, out: str, kind: str) -> Iterator[None]:
    import llama_cpp

    said: deque[str] = deque(maxlen=2)

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # llama_cpp has no types
    def keep(level: int, text: bytes, _: ctypes.c_void_p) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level in (3, 4) and line:  # GGML_LOG_LEVEL_WARN, GGML_LOG_LEVEL_ERROR (ggml.h)
            said.append(line)

    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = TYPES[kind]
    code = llama_cpp.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params))
    if code:
        raise EdgedcError(f"{source}: llama.cpp cannot quantise it to {kind}: {'; '.join(said) or f'code {code}'}")
    yield None


def contents(path: Path) -> Contents:
    """Read back what each tensor became, which is not always what was asked for."""
    from gguf import GGUFReader

    tensors = GGUFReader(path).tensors
    matrices = Counter(t.tensor_type.name.lower() for t in tensors if len(t.shape) > 1)
    weights = sum(int(t.n_elements) for t in tensors)
    return Contents(dict(matrices), 8 * sum(int(t.n_bytes) for t in tensors) / weights)
