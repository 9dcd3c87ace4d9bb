"""Converts a model folder to GGUF in f16 or f32, one tensor at a time: memory stays near the largest tensor."""

import contextlib
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gguf import GGML_QUANT_VERSION, GGUFWriter, LlamaFileType

from edgedc.errors import EdgedcError, InputError

from .gguf_vocab import Vocab, read_json, read_vocab
from .weights import Tensor, open_weights

# config.json's model_type -> llama.cpp's name of the architecture
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
FILE_TYPES = {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16}
F16_MAX = 65504.0

Kind = Literal["f32", "f16"]


@dataclass(frozen=True)
class Shape:
    """The dimensions of a model, by config.json's names."""

    architecture: str
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    context_length: int
    rope_theta: float
    rms_eps: float
    tied: bool


@dataclass(frozen=True)
class Placed:
    """One tensor of the output: its name, where it comes from, and its heads if its rows are to be permuted."""

    name: str
    source: Tensor
    heads: int
    kind: Kind

    @property
    def dtype(self) -> "np.dtype[Any]":
        return np.dtype(np.float16 if self.kind == "f16" and len(self.source.shape) > 1 else np.float32)

    def read(self) -> "np.ndarray[Any, Any]":
        values = self.source.read()
        if self.heads:
            values = _permute(values, self.heads)
        if self.dtype == np.float16 and values.dtype != np.float16 and np.abs(values).max(initial=0) > F16_MAX:
            raise InputError(f"{self.source.file}: {self.source.name} holds values beyond f16's {F16_MAX:.0f}")
        return np.ascontiguousarray(values.astype(self.dtype, copy=False))


def to_gguf(model: Path, out: Path, name: str, kind: Kind = "f16") -> None:
    """Write `out`, or nothing. Matrices become `kind`; norms and biases are f32.

    Raises InputError when the architecture, the tokenizer or a setting has no equal here, when a tensor is missing,
    left over or of the wrong shape, and when a value is not finite or beyond f16.
    """
    shape = read_shape(model)
    vocab = read_vocab(model, shape.vocab_size)
    if len(vocab.ends) > 3:
        raise InputError(f"{model}: {len(vocab.ends)} tokens end a reply; GGUF has room for 3")
    placed = list(place(shape, open_weights(model), model, kind))
    needed = sum(math.prod(tensor.source.shape) * tensor.dtype.itemsize for tensor in placed)
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise EdgedcError(f"{out}: needs {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free: make room")
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    writer = GGUFWriter(beside, shape.architecture)
    try:
        _describe(writer, shape, vocab, name, kind)
        for tensor in placed:
            writer.add_tensor_info(
                tensor.name,
                tensor.source.shape,
                tensor.dtype,
                math.prod(tensor.source.shape) * tensor.dtype.itemsize,
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in placed:
            writer.write_tensor_data(tensor.read())
        writer.close()
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(out)
    finally:
        with contextlib.suppress(OSError):
            writer.close()
        beside.unlink(missing_ok=True)


def read_shape(model: Path) -> Shape:
    """Raises InputError for a config.json that is incomplete or asks for what this converter does not do."""
    path = model / "config.json"
    config = read_json(path)
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise InputError(f"{path}: model_type {kind!r} cannot be exported to GGUF; known: {', '.join(ARCHITECTURES)}")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    _refuse(path, config, rope)
    try:
        heads = int(config["num_attention_heads"])
        window = config.get("sliding_window") if config.get("use_sliding_window", kind == "mistral") else None
        return Shape(
            architecture=ARCHITECTURES[kind],
            hidden_size=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
            intermediate_size=int(config["intermediate_size"]),
            vocab_size=int(config["vocab_size"]),
            # Within its window, sliding attention is full attention: the window bounds what is equal.
            context_length=min(int(config["max_position_embeddings"]), window or 2**31),
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
            rms_eps=float(config.get("rms_norm_eps") or 1e-6),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{path}: no usable {error}; copy or make the model again") from error


def _refuse(path: Path, config: dict[str, Any], rope: dict[str, Any]) -> None:
    scaling = rope.get("rope_type", rope.get("type", "default"))
    wrong = {
        f"rope scaling {scaling!r}": scaling != "default",
        f"hidden_act {config.get('hidden_act')!r}": config.get("hidden_act", "silu") != "silu",
        "attention_bias": bool(config.get("attention_bias")),
        "mlp_bias": bool(config.get("mlp_bias")),
    }
    for what, present in wrong.items():
        if present:
            raise InputError(f"{path}: {what} cannot be exported to GGUF yet; export to ONNX instead")


def place(shape: Shape, tensors: dict[str, Tensor], model: Path, kind: Kind) -> Iterator[Placed]:
    """Every tensor that the architecture has, found among the model's; none may be missing, left over or misshapen."""
    left = {name for name in tensors if not name.endswith("rotary_emb.inv_freq")}
    if shape.tied:
        left.discard("lm_head.weight")
    for source, name, size, heads in _layout(shape):
        if source not in tensors:
            raise InputError(f"{model}: no tensor {source}; copy or make the model again")
        tensor = tensors[source]
        if tensor.shape != size:
            raise InputError(f"{tensor.file}: {source} has shape {tensor.shape}, config.json makes it {size}")
        left.remove(source)
        yield Placed(name, tensor, heads, kind)
    if left:
        raise InputError(
            f"{model}: tensor {min(left)} has no place in a {shape.architecture} GGUF; merge adapters first"
        )


def _layout(shape: Shape) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
    """(name in the model, name in GGUF, shape, heads to permute by) of each tensor."""
    wide, deep, head = shape.hidden_size, shape.intermediate_size, shape.head_dim
    queries, keys = shape.heads * head, shape.kv_heads * head
    # llama.cpp rotates neighbouring pairs for "llama" and halves for the others, so llama's rows are interleaved.
    q, k = (shape.heads, shape.kv_heads) if shape.architecture == "llama" else (0, 0)
    yield "model.embed_tokens.weight", "token_embd.weight", (shape.vocab_size, wide), 0
    for layer in range(shape.layers):
        a, b = f"model.layers.{layer}", f"blk.{layer}"
        yield f"{a}.input_layernorm.weight", f"{b}.attn_norm.weight", (wide,), 0
        yield f"{a}.self_attn.q_proj.weight", f"{b}.attn_q.weight", (queries, wide), q
        yield f"{a}.self_attn.k_proj.weight", f"{b}.attn_k.weight", (keys, wide), k
        yield f"{a}.self_attn.v_proj.weight", f"{b}.attn_v.weight", (keys, wide), 0
        if shape.architecture == "qwen2":
            yield f"{a}.self_attn.q_proj.bias", f"{b}.attn_q.bias", (queries,), 0
            yield f"{a}.self_attn.k_proj.bias", f"{b}.attn_k.bias", (keys,), 0
            yield f"{a}.self_attn.v_proj.bias", f"{b}.attn_v.bias", (keys,), 0
        if shape.architecture == "qwen3":
            yield f"{a}.self_attn.q_norm.weight", f"{b}.attn_q_norm.weight", (head,), 0
            yield f"{a}.self_attn.k_norm.weight", f"{b}.attn_k_norm.weight", (head,), 0
        yield f"{a}.self_attn.o_proj.weight", f"{b}.attn_output.weight", (wide, queries), 0
        yield f"{a}.post_attention_layernorm.weight", f"{b}.ffn_norm.weight", (wide,), 0
        yield f"{a}.mlp.gate_proj.weight", f"{b}.ffn_gate.weight", (deep, wide), 0
        yield f"{a}.mlp.up_proj.weight", f"{b}.ffn_up.weight", (deep, wide), 0
        yield f"{a}.mlp.down_proj.weight", f"{b}.ffn_down.weight", (wide, deep), 0
    yield "model.norm.weight", "output_norm.weight", (wide,), 0
    if not shape.tied:
        yield "lm_head.weight", "output.weight", (shape.vocab_size, wide), 0


def _permute(values: "np.ndarray[Any, Any]", heads: int) -> "np.ndarray[Any, Any]":
    """Rows of each head from (first half, second half) to neighbouring pairs."""
    rows = values.shape[0]
    return values.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(values.shape)


def _describe(writer: GGUFWriter, shape: Shape, vocab: Vocab, name: str, kind: Kind) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_eps)

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocab.pre)
    writer.add_token_list(vocab.tokens)
    writer.add_token_types([int(kind) for kind in vocab.types])
    writer.add_token_merges(vocab.merges)
    if vocab.bos is not None:
        writer.add_bos_token_id(vocab.bos)
    writer.add_eos_token_id(vocab.ends[0])
    for number, add in zip(vocab.ends[1:], (writer.add_eot_token_id, writer.add_eom_token_id), strict=False):
        add(number)
    if vocab.pad is not None:
        writer.add_pad_token_id(vocab.pad)
    writer.add_add_bos_token(vocab.add_bos)
    writer.add_add_eos_token(vocab.add_eos)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(vocab.chat_template)
