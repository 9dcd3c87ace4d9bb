"""Reads safetensors one tensor at a time, with numpy alone.

Format: https://huggingface.co/docs/safetensors: eight bytes of header length, a JSON header, then the raw numbers.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedc.errors import InputError

BYTES = {"F32": 4, "F16": 2, "BF16": 2}
MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class Tensor:
    """Where the numbers of one tensor lie; nothing is read before `read`."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def read(self) -> "np.ndarray[Any, Any]":
        """float16 where it is stored so, else float32 (bfloat16 is widened, which loses nothing).

        Raises InputError when a value is not finite.
        """
        count = math.prod(self.shape)
        stored = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[self.dtype]
        values = np.fromfile(self.file, dtype=stored, count=count, offset=self.offset)
        if self.dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.file}: {self.name} holds NaN or infinite values: the model is damaged, train again"
            )
        return values.reshape(self.shape)


def open_weights(model: Path) -> dict[str, Tensor]:
    """Every tensor of a model folder by its name: model.safetensors, or the shards that its index names.

    Raises InputError when a file is missing, truncated or not safetensors.
    """
    index = model / "model.safetensors.index.json"
    if not index.is_file():
        return _open_file(model / "model.safetensors")
    try:
        placed: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        names = sorted({Path(file).name for file in placed.values()})  # .name: an index never leads out of its folder
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index}: not an index of safetensors shards: {error}") from error
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors |= _open_file(model / name)
    missing = sorted(set(placed) - set(tensors))
    if missing:
        raise InputError(f"{index}: its shards lack {missing[0]}{_more(missing)}; copy the model again")
    return tensors


def _open_file(path: Path) -> dict[str, Tensor]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, MAX_HEADER):
                raise InputError(f"{path}: truncated, or not safetensors; copy or make the model again")
            header = json.loads(file.read(length))
            if not isinstance(header, dict):
                raise ValueError("not an object")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: not safetensors: its header is not a JSON object; copy or make the model again"
        ) from error
    header.pop("__metadata__", None)
    return {name: _tensor(path, name, row, 8 + length, size) for name, row in header.items()}


def _tensor(path: Path, name: str, row: Any, start: int, size: int) -> Tensor:
    try:
        dtype, shape, (begin, end) = str(row["dtype"]), tuple(int(n) for n in row["shape"]), row["data_offsets"]
        expected = math.prod(shape) * BYTES[dtype] if dtype in BYTES else end - begin
        sound = min(shape, default=1) >= 0 and 0 <= begin <= end and end - begin == expected
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not safetensors: the entry of {name} is malformed") from error
    if dtype not in BYTES:
        raise InputError(f"{path}: {name} is stored as {dtype}; export reads {', '.join(BYTES)}")
    if not sound:
        raise InputError(f"{path}: not safetensors: the entry of {name} contradicts itself")
    if start + end > size:
        raise InputError(
            f"{path}: truncated: {name} ends {start + end - size} bytes behind the file's end; copy it again"
        )
    return Tensor(name, path, dtype, shape, start + begin)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
