"""The table of tensors at the start of a GGUF, read without its metadata's values: a vocabulary costs no memory."""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from edgedc.errors import InputError

MAX_DIMENSIONS = 4
_STRING, _ARRAY = 8, 9
# bytes of a metadata value, by its type's number (gguf_type in llama.cpp's gguf.h)
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


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
    try:
        with path.open("rb") as file:
            return _read(_Header(file, path.stat().st_size))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; export it again") from error
    except (ValueError, KeyError, struct.error) as error:
        raise InputError(f"{path}: not a GGUF that can be read ({error}); export it again") from error


class _Header:
    """Reads little-endian values in turn; never more than the file has."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def take(self, count: int) -> bytes:
        data = self.file.read(count) if count <= self.size else b""
        if len(data) < count:
            raise ValueError("it is cut short")
        return data

    def skip(self, count: int) -> None:
        if self.file.tell() + count > self.size:
            raise ValueError("it is cut short")
        self.file.seek(count, 1)

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def text(self) -> bytes:
        return self.take(self.u64())


def _read(header: _Header) -> list[StoredTensor]:
    if header.take(4) != b"GGUF":
        raise ValueError("other first bytes")
    if (version := header.u32()) not in (2, 3):
        raise ValueError(f"version {version}")
    tensors, values = header.u64(), header.u64()
    for _ in range(values):
        header.text()
        _skip_value(header, header.u32())
    return [_tensor(header) for _ in range(tensors)]


def _skip_value(header: _Header, kind: int) -> None:
    if kind == _STRING:
        header.text()
    elif kind == _ARRAY:
        kind, count = header.u32(), header.u64()
        if kind == _STRING:
            for _ in range(count):
                header.text()
        else:
            header.skip(_SIZES[kind] * count)
    else:
        header.skip(_SIZES[kind])


def _tensor(header: _Header) -> StoredTensor:
    name = header.text().decode("utf-8")
    if not 1 <= (dimensions := header.u32()) <= MAX_DIMENSIONS:
        raise ValueError(f"{dimensions} dimensions")
    shape = tuple(header.u64() for _ in range(dimensions))
    if not all(shape):
        raise ValueError(f"tensor {name!r} is empty")
    kind = GGMLQuantizationType(header.u32())
    header.u64()  # its place in the file
    block, size = GGML_QUANT_SIZES[kind]
    return StoredTensor(name, kind.name.lower(), shape, 8 * size / block)
