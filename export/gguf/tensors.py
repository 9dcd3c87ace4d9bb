"""What the tensors of a GGUF are stored as; the metadata before them is passed over."""

import math
from dataclasses import dataclass
from pathlib import Path

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from edgedc.backends.gguf_header import Entry, reading


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as it is stored. `shape` is in GGUF's order: the length of a row first. `type` is in lower case."""

    name: str
    type: str
    shape: tuple[int, ...]
    bits_per_weight: float

    @property
    def weights(self) -> int:
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        return len(self.shape) > 1


def read_tensors(path: Path) -> list[StoredTensor]:
    """Every tensor of a GGUF, in the file's order. Raises InputError when the file does not start as a whole GGUF."""
    with reading(path) as reader:
        tensors, values = reader.start()
        for _ in range(values):
            reader.text()
            reader.value(reader.take("I"), keep=False)
        return [_stored(reader.entry()) for _ in range(tensors)]


def _stored(entry: Entry) -> StoredTensor:
    kind = GGMLQuantizationType(entry.kind)
    block, size = GGML_QUANT_SIZES[kind]
    return StoredTensor(entry.name, kind.name.lower(), entry.shape, 8 * size / block)
