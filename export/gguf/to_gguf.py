"""Writes a model folder as GGUF in f32, f16 or bf16, one tensor at a time: memory stays near the largest tensor."""

import contextlib
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFWriter, LlamaFileType

from edgedc.backends.gguf_header import NFC, NORMALIZER, RUNS
from edgedc.errors import EdgedcError, InputError
from edgedc.files import beside

from ..model.families import Architecture, Place, read_architecture
from ..model.weights import open_weights
from .vocab import Vocab, read_vocab

Kind = Literal["f32", "f16", "bf16"]
Array = np.ndarray[Any, Any]

FILE_TYPES = {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "bf16": LlamaFileType.MOSTLY_BF16}
TENSOR_TYPES = {"f32": GGMLQuantizationType.F32, "f16": GGMLQuantizationType.F16, "bf16": GGMLQuantizationType.BF16}
# numpy has no bf16: its bits are the upper half of a float32
STORED: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(np.uint16),
}
LARGEST = {"f32": math.inf, "f16": 65504.0, "bf16": 3.3895313892515355e38}
# Where a name holds one of these, llama.cpp strips spaces behind special tokens, or wants a token that is not there
# (load in src/llama-vocab.cpp).
TELLING = ("phi-3", "phi3", "modern-bert")
ALIGNMENT = 32
CHUNK = 1 << 16  # values rounded at once


class Source(Protocol):
    """A tensor to be read when its turn comes: of a file, or of a file with something added to it."""

    @property
    def name(self) -> str: ...
    @property
    def file(self) -> Path: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def read(self) -> Array:
        """float16 or float32, in an array of the caller's own. Raises InputError when a value is not finite."""


@dataclass(frozen=True)
class Placed:
    """One tensor of the output, and where it comes from. Norms and biases are always f32, as llama.cpp needs them."""

    source: Source
    place: Place
    kind: Kind

    @property
    def bytes(self) -> int:
        return math.prod(self.source.shape) * STORED[self.kind].itemsize

    def read(self) -> Array:
        values = self.source.read()
        if self.place.heads:
            values = _permute(values, self.place.heads)
        if self.place.shift:
            values = values.astype(np.float32) + np.float32(self.place.shift)
        largest = LARGEST[self.kind]
        if values.size and max(float(values.max()), -float(values.min())) > largest:
            raise InputError(f"{self.source.file}: {self.source.name} holds values beyond {self.kind}'s {largest:.6g}")
        return _rounded(values, self.kind)


def to_gguf(model: Path, out: Path, name: str, kind: Kind = "f16", tensors: Mapping[str, Source] | None = None) -> None:
    """Write `out`, or nothing. Matrices become `kind`; norms and biases are f32. `tensors` are read from `model`.

    Raises InputError when the architecture, the tokenizer or a setting has no equal in llama.cpp, when a tensor is
    missing, left over or of the wrong shape, and when a value is not finite or beyond `kind`; EdgedcError when the
    disk has no room.
    """
    architecture, vocab = read_model(model)
    placed = list(place(architecture, open_weights(model) if tensors is None else tensors, model, kind))
    _check_room(out, placed, model, architecture)
    with beside(out) as path, contextlib.closing(GGUFWriter(path, architecture.name)) as writer:
        _describe(writer, architecture, name, kind)
        _describe_vocab(writer, vocab)
        for constant, values in architecture.constants.items():
            writer.add_tensor_info(constant, values.shape, values.dtype, values.nbytes)
        for tensor in placed:
            writer.add_tensor_info(
                tensor.place.name, tensor.source.shape, STORED[tensor.kind], tensor.bytes, TENSOR_TYPES[tensor.kind]
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for values in architecture.constants.values():
            writer.write_tensor_data(values)
        for tensor in placed:
            writer.write_tensor_data(tensor.read())


def read_model(model: Path) -> tuple[Architecture, Vocab]:
    """All of a GGUF but its tensors. Raises InputError as `to_gguf` does; reads no weights."""
    architecture = read_architecture(model)
    vocab = read_vocab(model, architecture.vocab_size)
    if len(vocab.ends) > 3:
        raise InputError(f"{model}: {len(vocab.ends)} tokens end a reply; GGUF has room for 3")
    return architecture, vocab


def place(architecture: Architecture, tensors: Mapping[str, Source], model: Path, kind: Kind) -> Iterator[Placed]:
    """Every tensor that the architecture has, found among the model's; none may be missing, left over or misshapen."""
    left = {name for name in tensors if not name.endswith("rotary_emb.inv_freq")}
    if architecture.tied:
        left.discard("lm_head.weight")
    for where in architecture.layout:
        if where.source not in tensors:
            raise InputError(f"{model}: no tensor {where.source}; copy or make the model again")
        tensor = tensors[where.source]
        if tensor.shape != where.shape:
            raise InputError(
                f"{tensor.file}: {where.source} has shape {tensor.shape}, config.json makes it {where.shape}"
            )
        left.remove(where.source)
        yield Placed(tensor, where, kind if len(where.shape) > 1 else "f32")
    if left:
        raise InputError(
            f"{model}: tensor {min(left)} has no place in a {architecture.name} GGUF; merge adapters first"
        )


def _check_room(out: Path, placed: list[Placed], model: Path, architecture: Architecture) -> None:
    """The numbers take exactly this much. A vocabulary takes less than twice its file, and 32 bytes for each token."""
    numbers = sum(-(-tensor.bytes // ALIGNMENT) * ALIGNMENT + 128 for tensor in placed)
    words = sum(path.stat().st_size for path in model.glob("tokenizer*")) + 16 * architecture.vocab_size
    needed, free = numbers + 2 * words, shutil.disk_usage(out.parent).free
    if needed > free:
        raise EdgedcError(f"{out}: needs {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free: make room")


def _permute(values: Array, heads: int) -> Array:
    """Rows of each head from (first half, second half) to neighbouring pairs."""
    rows = values.shape[0]
    pairs = values.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2)
    return np.ascontiguousarray(pairs.reshape(values.shape))


def _rounded(values: Array, kind: Kind) -> Array:
    """`values` as `kind`, contiguous. float32 is rounded where it lies, since a source reads it for us alone: a second
    array beside the largest tensor would be half as large again."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if kind == "f32" or values.dtype != np.float32:
        flat = flat.astype(np.float16 if kind == "f16" else np.float32, copy=False)
    if flat.dtype == STORED[kind]:
        return flat.reshape(values.shape)
    out = flat.view(STORED[kind])[: flat.size]
    for start in range(0, flat.size, CHUNK):  # what is written never overtakes what is still to be read
        chunk = flat[start : start + CHUNK].copy()
        out[start : start + CHUNK] = _bf16(chunk) if kind == "bf16" else chunk
    return out.reshape(values.shape)


def _bf16(values: Array) -> Array:
    """The bits of the nearest bf16 of each value, ties to the even one, as ggml_compute_fp32_to_bf16 has it."""
    bits = values.view(np.uint32)
    return (bits + (np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1)))) >> 16


def _describe(writer: GGUFWriter, architecture: Architecture, name: str, kind: Kind) -> None:
    writer.add_type("model")
    if not any(part in name.lower() for part in TELLING):
        writer.add_name(name)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    for key, value in architecture.metadata.items():
        add: Any = writer.add_array
        if isinstance(value, int | float | str):
            add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"{architecture.name}.{key}", value)


def _describe_vocab(writer: GGUFWriter, vocab: Vocab) -> None:
    writer.add_tokenizer_model(vocab.model)
    writer.add_tokenizer_pre(vocab.pre)
    writer.add_token_list(vocab.tokens)
    writer.add_token_types([int(kind) for kind in vocab.types])
    if vocab.scores is not None:
        writer.add_token_scores(vocab.scores)
    else:
        writer.add_token_merges(vocab.merges)
    ends = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, number in (
        (writer.add_bos_token_id, vocab.bos),
        (writer.add_unk_token_id, vocab.unknown),
        (writer.add_pad_token_id, vocab.pad),
        *zip(ends, vocab.ends, strict=False),
    ):
        if number is not None:
            add(number)
    writer.add_add_bos_token(vocab.add_bos)
    writer.add_add_eos_token(vocab.add_eos)
    writer.add_add_space_prefix(vocab.add_space_prefix)
    if vocab.composes:
        writer.add_string(NORMALIZER, NFC)
    if vocab.runs:
        writer.add_string(RUNS, vocab.runs)
    if vocab.chat_template is not None:
        writer.add_chat_template(vocab.chat_template)
