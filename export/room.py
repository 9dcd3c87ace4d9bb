"""How much disk an order takes while it is carried out, told from the headers of the weights before the first byte."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgedc.errors import EdgedcError
from edgedc.prompts import MAX_TOKENS_DECOMPOSE

from .gate.observe import SCORES_BYTES
from .gguf.quantize import EMBEDDING, OUTPUT, estimate
from .gguf.tensors import StoredTensor
from .gguf.to_gguf import Source
from .order import Order

# Bytes for each weight of the layers; of an embedding that is the output layer too; of one that is not; of an output
# layer that is a tensor of its own. At the peak, as measured on Llamas: optimum first writes a shared one twice.
GRAPH_BYTES = {"fp32": (4, 8, 4, 4), "fp16": (2, 2, 2, 2), "int8": (1.2, 5.2, 4, 1.2), "int4": (1, 1.1, 4, 1.1)}
ROUNDED_UP = 1.05  # headers, tokenizers, papers; and what is estimated is not exact


def needed_bytes(order: Order, tensors: Mapping[str, Source], questions: int) -> dict[str, int]:
    """What takes room beside OUT until the export is done, each with its bytes. `questions` are asked by the gate."""
    stored = [_stored(name, tensor.shape) for name, tensor in tensors.items()]
    needed: dict[str, int] = {}
    if "gguf" in order.formats:
        kinds = order.types if order.max_drop is None else ["q8_0"]  # one candidate at a time; the next larger is f16
        if order.needs_f16:
            needed["f16"] = estimate(stored, "f16")
        needed |= {kind: estimate(stored, kind) for kind in kinds}
    if "onnx" in order.formats:
        needed |= {f"onnx {precision}": _graph_bytes(precision, stored) for precision in order.graphs}
    if order.gated:
        vocabulary = max((tensor.shape[-1] for tensor in stored if tensor.is_matrix), default=0)
        needed["the gate's scores"] = min(SCORES_BYTES, questions * MAX_TOKENS_DECOMPOSE * vocabulary * 4)
    return {what: int(ROUNDED_UP * size) for what, size in needed.items()}


def _graph_bytes(precision: str, stored: Sequence[StoredTensor]) -> int:
    embedding, output = (sum(t.weights for t in stored if t.name == name) for name in (EMBEDDING, OUTPUT))
    layers = sum(t.weights for t in stored) - embedding - output
    for_layers, for_shared, for_embedding, for_output = GRAPH_BYTES[precision]
    return int(layers * for_layers + embedding * (for_embedding if output else for_shared) + output * for_output)


def check_room(out: Path, needed: Mapping[str, int]) -> None:
    """Raises EdgedcError when the disk that holds `out` has less."""
    place = next(folder for folder in out.absolute().parents if folder.is_dir())
    total, free = sum(needed.values()), shutil.disk_usage(place).free
    if total > free:
        parts = ", ".join(f"{what} {size / 1e6:.0f}" for what, size in needed.items())
        raise EdgedcError(
            f"{out}: needs about {total / 1e6:.0f} MB while it is made ({parts}), and {free / 1e6:.0f} MB are free: "
            "make room, or ask for less at a time"
        )


def _stored(name: str, shape: tuple[int, ...]) -> StoredTensor:
    """As GGUF has it, where only the sizes of the embedding's and the output's types hang on the name."""
    known = EMBEDDING if "embed" in name else OUTPUT if "lm_head" in name else name
    return StoredTensor(known, "f32", shape[::-1], 32.0)
