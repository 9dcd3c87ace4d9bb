"""Writes a LoRA adapter as GGUF, which llama.cpp loads over the GGUF of its base.

Format: llama.cpp's src/llama-adapter.cpp. Each pair is NAME.lora_a, (rank, inputs), and NAME.lora_b, (outputs, rank);
llama.cpp adds B @ A * alpha / rank. For the embedding it wants A as (tokens, rank).
"""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_VERSION, GGUFWriter

from edgedc.adapter import check_base
from edgedc.errors import EdgedcError, InputError
from edgedc.files import beside

from ..model.adapter import Adapter, Lora, read_adapter
from ..model.families import Architecture, Place, read_architecture
from ..model.weights import Tensor, open_weights
from .to_gguf import ALIGNMENT, FILE_TYPES, STORED, TENSOR_TYPES, Kind, Placed

_EMBEDDING = "token_embd.weight"
_ENTRY = 256  # bytes, at most, of a tensor in the header


@dataclass(frozen=True)
class _Half:
    """A or B of a pair, as a source of `Placed`."""

    tensor: Tensor
    factor: float = 1.0
    turned: bool = False

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def file(self) -> Path:
        return self.tensor.file

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape[::-1] if self.turned else self.tensor.shape

    def read(self) -> "np.ndarray[Any, Any]":
        with np.errstate(over="ignore"):  # `Placed` says what is too large
            values = self.tensor.read().astype(np.float32, copy=False) * np.float32(self.factor)
        return np.ascontiguousarray(values.T) if self.turned else values


def adapter_to_gguf(base: Path, adapter: Path, out: Path, kind: Kind = "f16") -> None:
    """Write `out`, or nothing: the adapter in this folder, for the model folder that it was trained over.

    llama.cpp has one alpha for all pairs, so what rank-stabilised scaling and alphas of single modules add to it goes
    into B. Raises InputError for an adapter that `read_adapter` refuses or that holds more than LoRA pairs, for a base
    that `read_architecture` refuses, for a value beyond `kind` and for an `out` that cannot be; EdgedcError when the
    disk has no room.
    """
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"{out}: {'a folder' if out.is_dir() else 'its folder is not there'}; give another file")
    check_base(adapter, base)
    architecture = read_architecture(base)
    tensors = open_weights(base)
    read = read_adapter(adapter, tensors, tied=architecture.tied)
    for name, tensor in read.replacements.items():  # peft keeps the base's own embedding beside the pair of one
        if not np.array_equal(tensor.read(), tensors[name].read()):
            raise InputError(
                f"{adapter}: {name} was trained whole, which a GGUF adapter cannot hold: export base and adapter as one"
            )
    alpha = read.alpha or 1.0  # llama.cpp takes 0 for a scale of 1
    placed = list(_place(read, architecture, adapter, alpha, kind))
    needed = sum(-(-half.bytes // ALIGNMENT) * ALIGNMENT + _ENTRY for half in placed)
    if needed > (free := shutil.disk_usage(out.parent).free):
        raise EdgedcError(f"{out}: needs {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free: make room")
    with beside(out) as path, contextlib.closing(GGUFWriter(path, architecture.name)) as writer:
        writer.add_type("adapter")
        writer.add_name(adapter.resolve().name)
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        writer.add_file_type(FILE_TYPES[kind])
        writer.add_quantization_version(GGML_QUANT_VERSION)
        for half in placed:
            writer.add_tensor_info(half.place.name, half.source.shape, STORED[kind], half.bytes, TENSOR_TYPES[kind])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for half in placed:
            writer.write_tensor_data(half.read())


def _place(read: Adapter, architecture: Architecture, adapter: Path, alpha: float, kind: Kind) -> Iterator[Placed]:
    left = dict(read.loras)
    for place in architecture.layout:
        if lora := left.pop(place.source, None):
            yield from _pair(lora, place, alpha, kind)
    if left:
        raise InputError(f"{adapter}: {min(left)} has no place in a {architecture.name} GGUF")


def _pair(lora: Lora, place: Place, alpha: float, kind: Kind) -> Iterator[Placed]:
    a = _Half(lora.a, turned=place.name == _EMBEDDING)
    b = _Half(lora.b, factor=lora.scale * lora.rank / alpha)
    yield Placed(a, Place(place.source, f"{place.name}.lora_a", a.shape), kind)
    yield Placed(b, Place(place.source, f"{place.name}.lora_b", b.shape, place.heads), kind)
