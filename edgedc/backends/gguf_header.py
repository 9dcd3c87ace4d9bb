"""Checks the header of a GGUF before llama.cpp sees the file.

llama.cpp refuses most damaged files by itself; the rest end the process, by an assertion, a signal or want of memory.
Bundles are compared with their hashes first, so this is for files that came another way, or with a manifest to match.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, in little-endian, versions 2 and 3.
"""

import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedc.errors import InputError

# A key of edgedc's own, which llama.cpp's quantiser copies: what the tokenizer does to a text before all else.
NORMALIZER = "edgedc.tokenizer.normalizer"
NFC = "NFC"
# And how many "▁" that a text itself has are taken out of it as a token, "2,31" for two to 31: llama.cpp takes them for
# spaces.
RUNS = "edgedc.tokenizer.runs"

_RANGE = re.compile(r"([1-9]\d?),([1-9]\d?)", re.ASCII)

STRING, _ARRAY = 8, 9
# struct's code of a value, by its type's number
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_FOURS = (4, 5, 6)
_WHOLE = (0, 2, 4, 10)  # the unsigned ones
_LENGTH = struct.Struct("<Q")
_LONGEST_REASON = 300
_LONGEST_NAME = 63  # of a tensor, in llama.cpp
_DIMENSIONS = 4
_MOST_LAYERS = 512
_INTEGER_TENSORS = range(24, 29)  # I8 to I64 and F64: no weight is stored so, and computing with one aborts
_F32 = 0
_TOKENIZERS = ("gpt2", "llama", "bert", "t5", "rwkv", "plamo2", "gemma4", "hybriddna", "whitespace")
_TOKENS = "tokenizer.ggml.tokens"
_BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
# Dimensions that llama.cpp divides or allocates by, with the largest that are taken for sound.
_SIZES = {
    "block_count": _MOST_LAYERS,
    "context_length": 1 << 30,
    "embedding_length": 1 << 20,
    "feed_forward_length": 1 << 24,
    "attention.head_count": 1 << 12,
    "attention.head_count_kv": 1 << 12,
    "attention.key_length": 1 << 14,
    "attention.value_length": 1 << 14,
    "rope.dimension_count": 1 << 14,
}


@dataclass(frozen=True)
class _Array:
    """Its kind and length; what it holds only where that is looked at, as a vocabulary is."""

    kind: int
    count: int
    strings: frozenset[str] = field(default=frozenset(), repr=False)


@dataclass(frozen=True)
class Entry:
    """A tensor's line in the header. `shape` has the length of a row first; `kind` is the number of its ggml_type."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass
class Reader:
    """Takes one value after the other; ValueError or struct.error where there is none to take."""

    data: mmap.mmap
    at: int = 0

    def start(self) -> tuple[int, int]:
        """How many tensors, and how many values of metadata."""
        if self.data[:4] != b"GGUF":
            raise ValueError("it has other first bytes")
        self.skip(4)
        version, tensors, values = (self.take(code) for code in "IQQ")
        if version not in (2, 3):
            raise ValueError(f"version {version}")
        return tensors, values

    def entry(self) -> Entry:
        name, dimensions = self.text(), self.take("I")
        if not 1 <= dimensions <= _DIMENSIONS or not 0 < len(name) <= _LONGEST_NAME:
            raise ValueError(f"the entry of tensor {name[:_LONGEST_NAME]!r} is malformed")
        shape = tuple(self.take("Q") for _ in range(dimensions))
        if not all(shape):
            raise ValueError(f"tensor {name!r} is empty")
        return Entry(name, shape, self.take("I"), self.take("Q"))

    def take(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def skip(self, count: int) -> None:
        if count > len(self.data) - self.at:
            raise ValueError("it is cut short")
        self.at += count

    def text(self) -> str:
        (text,) = self.strings(1, keep=True)
        return text

    def strings(self, count: int, *, keep: bool) -> list[str]:
        """One after the other: those of a vocabulary are half a million, so nothing is done twice."""
        data, at, end, kept = self.data, self.at, len(self.data), []
        for _ in range(count):
            (size,) = _LENGTH.unpack_from(data, at)
            at += 8 + size
            if at > end:
                raise ValueError("it is cut short")
            if keep:
                kept.append(data[at - size : at].decode("utf-8"))
        self.at = at
        return kept

    def value(self, kind: int, *, keep: bool) -> Any:
        if kind == STRING:
            return self.text()
        if kind != _ARRAY:
            return self.take(_code(kind))
        kind, count = self.take("I"), self.take("Q")
        if kind != STRING:
            self.skip(count * struct.calcsize("<" + _code(kind)))
            return _Array(kind, count)
        strings = self.strings(count, keep=keep)
        # llama.cpp reads up to a NUL, and gives an empty token a name of its own
        return _Array(kind, count, frozenset(s.partition("\0")[0] or f"[EMPTY_{k}]" for k, s in enumerate(strings)))


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """A reader at the start of the file. What goes wrong in the block is an InputError that names the file."""
    try:
        if not path.stat().st_size:  # which cannot be mapped
            raise ValueError("it is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield Reader(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, struct.error) as error:
        reason = "it is cut short" if isinstance(error, struct.error) else str(error)[:_LONGEST_REASON]
        raise InputError(f"{path}: not a GGUF that can be loaded: {reason}; copy or export it again") from error


def check_header(path: Path) -> dict[str, Any]:
    """Its metadata. Raises InputError when the file is not a GGUF, or its header contradicts itself, the file's size or
    llama.cpp."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with reading(path) as reader:
        tensors, values = reader.start()
        metadata: dict[str, Any] = {}
        kinds: dict[str, int] = {}
        for _ in range(values):
            name, kind = reader.text(), reader.take("I")
            if not name or name in metadata:
                raise ValueError(f"the key {name!r} is empty or there twice")
            metadata[name], kinds[name] = reader.value(kind, keep=name == _TOKENS), kind
        _check_model(metadata, kinds)
        _check_tokenizer(metadata)
        _check_tensors(reader, tensors, metadata)
    return metadata


def check_adapter(path: Path) -> None:
    """Raises InputError when the file is not a LoRA adapter as GGUF: llama.cpp does not say so of every other file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with reading(path) as reader:
        _, values = reader.start()
        metadata = {reader.text(): reader.value(reader.take("I"), keep=False) for _ in range(values)}
        kind = metadata.get("general.type"), metadata.get("adapter.type")
        if kind != ("adapter", "lora"):
            raise ValueError(f"a LoRA adapter was wanted, and its general.type and adapter.type are {kind}")


def _check_model(metadata: dict[str, Any], kinds: dict[str, int]) -> None:
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
        raise ValueError(f"general.architecture is {name!r}")
    for key, most in _SIZES.items():
        value = metadata.get(f"{name}.{key}")
        if value is None and key not in ("block_count", "context_length", "embedding_length"):
            continue
        if isinstance(value, _Array):
            sound = value.count == metadata[f"{name}.block_count"]
        else:
            sound = value is not None and kinds[f"{name}.{key}"] in _WHOLE and 0 < value <= most
        if not sound:
            raise ValueError(f"{name}.{key} is {value!r}")
    if (scaling := metadata.get(f"{name}.rope.scaling.type", "none")) not in _ROPE_SCALINGS:
        raise ValueError(f"{name}.rope.scaling.type is {scaling!r}")
    experts, used = (metadata.get(f"{name}.expert_{key}", 0) for key in ("count", "used_count"))
    if type(experts) is not int or (not isinstance(used, _Array) and (type(used) is not int or used > experts)):
        raise ValueError(f"{name}.expert_used_count is {used!r}, of {experts!r}")


def _check_tokenizer(metadata: dict[str, Any]) -> None:
    model, tokens = metadata.get("tokenizer.ggml.model"), metadata.get(_TOKENS)
    if model not in _TOKENIZERS:
        raise ValueError(f"tokenizer.ggml.model is {model!r}")
    if not isinstance(tokens, _Array) or tokens.kind != STRING or not tokens.count:
        raise ValueError(f"{_TOKENS} is {tokens!r}")
    if len(tokens.strings) < tokens.count:
        raise ValueError(f"two of its {tokens.count} tokens are the same")
    if model == "llama" and not tokens.strings.issuperset(_BYTES):
        raise ValueError(f"it has no token {min(_BYTES - tokens.strings)}, which llama.cpp takes for granted")
    for key in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
        array = metadata.get(key)
        if array is not None and not (
            isinstance(array, _Array) and array.kind in _FOURS and array.count == tokens.count
        ):
            raise ValueError(f"{key} is {array!r}, not one for each of {tokens.count} tokens")
    if NORMALIZER in metadata and (metadata[NORMALIZER] != NFC or model != "gpt2"):
        raise ValueError(f"{NORMALIZER} is {metadata[NORMALIZER]!r}, of a {model} tokenizer")
    runs = _RANGE.fullmatch(str(metadata.get(RUNS, "")))
    if RUNS in metadata and not (runs and int(runs[1]) <= int(runs[2]) and model == "llama"):
        raise ValueError(f"{RUNS} is {metadata[RUNS]!r}, of a {model} tokenizer")
    special = [key for key in metadata if key.startswith("tokenizer.ggml.") and key.endswith("_token_id")]
    for key in special:
        if type(metadata[key]) is not int or not 0 <= metadata[key] < tokens.count:
            raise ValueError(f"{key} is {metadata[key]!r}, of {tokens.count} tokens")


def _check_tensors(reader: Reader, count: int, metadata: dict[str, Any]) -> None:
    layers = metadata[f"{metadata['general.architecture']}.block_count"]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 16 or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment!r}")
    names, last = set(), 0
    for _ in range(count):
        entry = reader.entry()
        name = entry.name
        if name in names or entry.offset % alignment or entry.kind in _INTEGER_TENSORS:
            raise ValueError(f"the entry of tensor {name!r} is malformed, or there twice")
        if len(entry.shape) == 1 and entry.kind != _F32:
            raise ValueError(f"tensor {name!r} has one dimension and is not stored as F32, and llama.cpp aborts")
        layer = name.split(".")[1] if name.startswith("blk.") else "0"
        if not layer.isdecimal() or int(layer) >= layers:
            raise ValueError(f"tensor {name!r} is none of {layers} layers'")
        names.add(name)
        last = max(last, entry.offset)
    if not count or reader.at + last >= len(reader.data):
        raise ValueError("it is cut short" if count else "it holds no tensors")


def _code(kind: int) -> str:
    if kind not in _CODES:
        raise ValueError(f"a value has the unknown type {kind}")
    return _CODES[kind]
