"""Reads safetensors one tensor at a time, with numpy alone.

Format: https://huggingface.co/docs/safetensors: eight bytes of header length, a JSON header, then the raw numbers. Its
rules are enforced: names are unique, and the tensors fill the file without gaps or overlaps. Nothing is allocated that
the file's size does not vouch for.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedc.errors import InputError
from edgedc.files import read_object

BYTES = {"F32": 4, "F16": 2, "BF16": 2}
# The format allows four times as much; a model of 10,000 tensors needs one megabyte.
MAX_HEADER = 25_000_000
_MAX_DIMENSIONS = 8
_AGAIN = "copy or make the model again"


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
        try:
            values = np.fromfile(self.file, dtype=stored, count=count, offset=self.offset)
        except OSError as error:
            raise InputError(f"{self.file}: cannot be read: {error.strerror}") from error
        if values.size != count:
            raise InputError(f"{self.file}: became shorter while it was read; {_AGAIN}")
        if self.dtype == "BF16":
            wide = values.astype(np.uint32)
            wide <<= 16
            values = wide.view(np.float32)
        if values.size and not (np.isfinite(values.max()) and np.isfinite(values.min())):  # NaN comes through both
            raise InputError(
                f"{self.file}: {self.name} holds NaN or infinite values: the model is damaged, train again"
            )
        return values.reshape(self.shape)


def open_weights(model: Path) -> dict[str, Tensor]:
    """Every tensor of a model folder by its name: model.safetensors or, as transformers has it, the index's shards.

    Raises InputError when a file is missing, truncated, not safetensors, or not what the index says.
    """
    whole, index = model / "model.safetensors", model / "model.safetensors.index.json"
    if whole.is_file() or not index.is_file():
        return open_file(whole)
    placed = _read_index(index)
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(placed.values())):
        if not (model / name).is_file():
            raise InputError(f"{index}: its shard {name} is missing; copy the model again")
        shard = open_file(model / name)
        twice = sorted(set(tensors) & set(shard))
        if twice:
            raise InputError(f"{model / name}: {twice[0]} is in another shard too; copy the model again")
        tensors |= shard
    missing = sorted(set(placed) - set(tensors))
    if missing:
        raise InputError(f"{index}: its shards lack {missing[0]}{_more(missing)}; copy the model again")
    return tensors


def open_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file by their names. Raises InputError as `open_weights` does."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                raise InputError(f"{path}: truncated, or not safetensors; {_AGAIN}")
            if length > MAX_HEADER:
                raise InputError(f"{path}: its header has {length} bytes, more than the {MAX_HEADER} that are read")
            header = json.loads(file.read(length), object_pairs_hook=_unique)
            if not isinstance(header, dict):
                raise ValueError("not an object")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        reason = "names a tensor twice" if isinstance(error, _Twice) else "is not a JSON object"
        raise InputError(f"{path}: not safetensors: its header {reason}; {_AGAIN}") from error
    header.pop("__metadata__", None)
    start = 8 + length
    tensors, ends = {}, []
    for name, row in header.items():
        tensors[name], end = _tensor(path, name, row, start)
        ends.append((tensors[name].offset - start, end, name))
    _check_layout(path, sorted(ends), size - start)
    return tensors


class _Twice(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        raise _Twice
    return held


def _read_index(index: Path) -> dict[str, str]:
    placed = read_object(index).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(file, str) for file in placed.values()):
        raise InputError(f"{index}: not an index of safetensors shards: no weight_map from names to files")
    for file in placed.values():
        if Path(file).name != file or not file.isprintable():
            raise InputError(f"{index}: {file!r} is not the name of a shard beside it")
    return placed


def _tensor(path: Path, name: str, row: Any, start: int) -> tuple[Tensor, int]:
    """The tensor, and where its numbers end, counted from the first tensor's. Its place is checked by the caller."""
    try:
        dtype, shape, (begin, end) = row["dtype"], tuple(row["shape"]), row["data_offsets"]
        sound = isinstance(dtype, str) and name.isprintable() and len(shape) <= _MAX_DIMENSIONS
        sound = sound and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not safetensors: the entry of {name!r} is malformed; {_AGAIN}") from error
    if not sound:
        raise InputError(f"{path}: not safetensors: the entry of {name!r} is malformed; {_AGAIN}")
    if dtype not in BYTES:
        raise InputError(f"{path}: {name} is stored as {dtype!r}; export reads {', '.join(BYTES)}")
    if end - begin != math.prod(shape) * BYTES[dtype]:
        raise InputError(f"{path}: not safetensors: the entry of {name} contradicts itself; {_AGAIN}")
    return Tensor(name, path, dtype, shape, start + begin), end


def _check_layout(path: Path, places: list[tuple[int, int, str]], size: int) -> None:
    """`places` are (begin, end, name) in order, `size` is that of all numbers. They must be an exact cover."""
    at = 0
    for begin, end, name in places:
        if end > size:
            raise InputError(f"{path}: truncated: {name} ends {end - size} bytes behind the file's end; copy it again")
        if begin != at:
            what = "lies over another tensor" if begin < at else "has a gap before it"
            raise InputError(f"{path}: not safetensors: {name} {what}; {_AGAIN}")
        at = end
    if at != size:
        raise InputError(f"{path}: not safetensors: {size - at} bytes behind the last tensor; {_AGAIN}")


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
