"""config.json -> what llama.cpp needs to know of a model: its metadata, and where each tensor goes.

The names and rules are llama.cpp's (gguf-py/gguf/constants.py, conversion/, src/models/). A setting that changes what
the model computes, and that llama.cpp would ignore, is refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgedc.errors import InputError
from edgedc.files import read_object

from .rope import read_rope

Value = int | float | str | list[bool]


@dataclass(frozen=True)
class Family:
    """A model_type of transformers.

    `architecture` is llama.cpp's name. `defaults` are transformers' values of what a config.json may leave out; `fixed`
    those that llama.cpp has built in. `optional` are kinds of tensors that not every family has. `shift` is what
    llama.cpp wants added to the weights of the norms.
    """

    architecture: str
    rope: tuple[str, ...] = ("default", "linear", "yarn")
    defaults: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    shift: float = 0.0


_SILU = {"hidden_act": "silu", "quantization_config": None}
_UNBIASED = {"attention_bias": False, "mlp_bias": False}
_LLAMA = Family("llama", rope=("default", "linear", "yarn", "llama3"), fixed=_SILU | _UNBIASED)

FAMILIES = {
    "llama": _LLAMA,
    "mistral": Family("llama", _LLAMA.rope, {"sliding_window": 4096}, _SILU),
    "qwen2": Family("qwen2", fixed=_SILU, optional=("qkv_bias",)),
    "qwen3": Family("qwen3", defaults={"head_dim": 128}, fixed=_SILU | _UNBIASED, optional=("qk_norm",)),
    "gemma3_text": Family(
        "gemma3",
        rope=("default", "linear"),
        defaults={
            "head_dim": 256, "rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0, "tie_word_embeddings": True,
            "sliding_window": 4096, "sliding_window_pattern": 6, "query_pre_attn_scalar": 256,
        },
        fixed={
            "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "attn_logit_softcapping": None,
            "use_bidirectional_attention": False, "quantization_config": None,
        },
        optional=("qk_norm", "post_norms"),
        shift=1.0,  # Gemma3RMSNorm multiplies by 1 + weight
    ),
}  # fmt: skip
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS (src/llama-hparams.h)
_DEFAULTS = {"rope_theta": 10_000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}


@dataclass(frozen=True)
class Place:
    """Where a tensor comes from and goes to. `heads`: its rows are to be permuted within each of so many heads."""

    source: str
    name: str
    shape: tuple[int, ...]
    heads: int = 0
    shift: float = 0.0


@dataclass(frozen=True)
class Architecture:
    """A model as llama.cpp knows it.

    `metadata` has the keys below `{name}.`; its context_length is that up to which llama.cpp computes what the model
    does. `constants` are tensors that follow from the config alone. `tied`: the embedding is the output layer too.
    """

    name: str
    vocab_size: int
    metadata: dict[str, Value]
    layout: tuple[Place, ...]
    constants: "dict[str, np.ndarray[Any, Any]]" = field(compare=False)
    tied: bool


@dataclass(frozen=True)
class Windows:
    """How many tokens the layers attend to: the `sliding` ones to `named`, the others to the whole `context`.

    A window that is longer than the context, or switched off, is as long as the context.
    """

    context: int
    named: int
    sliding: tuple[bool, ...]


def is_known(model: Path) -> bool:
    """Whether this module describes the model's family. Raises InputError when there is no config.json to read."""
    return read_object(model / "config.json").get("model_type") in FAMILIES


def read_architecture(model: Path) -> Architecture:
    """Raises InputError for a config.json that is incomplete, or asks for what llama.cpp does not do in this family."""
    path = model / "config.json"
    kind, config = _settings(path)
    with _told(path):
        _refuse(path, FAMILIES[kind], config)
        return _described(path, kind, FAMILIES[kind], config)


def read_head_size(model: Path) -> int:
    """Numbers of an attention head. Raises InputError as `read_windows` does."""
    path = model / "config.json"
    _, config = _settings(path)
    with _told(path):
        return _head_size(config)


def read_windows(model: Path) -> Windows:
    """Raises InputError for a config.json that is incomplete, or of another family."""
    path = model / "config.json"
    kind, config = _settings(path)
    with _told(path):
        context, layers = int(config["max_position_embeddings"]), int(config["num_hidden_layers"])
        if layers > MAX_LAYERS:
            raise ValueError(f"{layers} layers")
        off = kind.startswith("qwen") and not config.get("use_sliding_window")
        named = context if off else min(context, int(config.get("sliding_window") or context))
        sliding = _sliding_layers(kind, config, layers)
    return Windows(context, named, tuple(sliding))


def _settings(path: Path) -> tuple[str, dict[str, Any]]:
    """The model_type, and every setting, with transformers' values of what is left out."""
    given = read_object(path)
    kind = given.get("model_type")
    if kind not in FAMILIES:
        raise InputError(f"{path}: model_type {kind!r} is not one that edgedc converts; known: {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    config = _DEFAULTS | family.defaults | {name: value for name, value in given.items() if value is not None}
    if "sliding_window" in given:  # where it is given as null, there is none
        config["sliding_window"] = given["sliding_window"]
    return kind, config


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What goes wrong in the block is wrong in the config, and an InputError that names it."""
    try:
        yield
    except KeyError as error:
        raise InputError(f"{path}: no usable {error}; copy or make the model again") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise InputError(f"{path}: cannot be used: {error}; copy or make the model again") from error


def _refuse(path: Path, family: Family, config: dict[str, Any]) -> None:
    for name, built_in in family.fixed.items():
        if config.get(name, built_in) != built_in:
            raise InputError(
                f"{path}: {name} {config[name]!r} has no equal in llama.cpp's {family.architecture} (it takes "
                f"{built_in!r}); export to ONNX instead"
            )


def _described(path: Path, kind: str, family: Family, config: dict[str, Any]) -> Architecture:
    wide, layers, heads = (int(config[key]) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    head_dim = _head_size(config)
    context = int(config["max_position_embeddings"])
    sizes = {
        "embedding_length": wide,
        "block_count": layers,
        "feed_forward_length": int(config["intermediate_size"]),
        "vocab_size": int(config["vocab_size"]),
        "attention.head_count": heads,
        "attention.head_count_kv": int(config.get("num_key_value_heads") or heads),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
    }
    if layers > MAX_LAYERS or head_dim % 2 or not all(0 < size < 2**32 for size in (context, *sizes.values())):
        raise InputError(f"{path}: its sizes have no place in a GGUF: {layers} layers, {heads} heads of {head_dim}")
    rope = read_rope(str(path), config, head_dim, family.rope)
    if kind == "qwen2" and head_dim * heads != wide:
        raise InputError(f"{path}: head_dim {head_dim} x {heads} heads is not hidden_size {wide}, as in llama.cpp")
    metadata: dict[str, Value] = {
        "context_length": context,
        **sizes,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        **{f"rope.{key}": value for key, value in rope.metadata.items()},
    }
    sliding = _sliding_layers(kind, config, layers)
    if kind == "gemma3_text":
        metadata |= _gemma3(path, config, sliding, head_dim)
    elif any(sliding):  # llama.cpp has no windows here; within its window, sliding attention is full attention
        metadata["context_length"] = min(context, int(config["sliding_window"]))
    tied = bool(config["tie_word_embeddings"])
    return Architecture(
        name=family.architecture,
        vocab_size=int(config["vocab_size"]),
        metadata=metadata,
        layout=tuple(_layout(family, sizes, tied)),
        constants={} if rope.factors is None else {"rope_freqs.weight": rope.factors},
        tied=tied,
    )


def _head_size(config: dict[str, Any]) -> int:
    return int(config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"]))


def _sliding_layers(kind: str, config: dict[str, Any], layers: int) -> list[bool]:
    """Which layers attend to the last `sliding_window` tokens only, by the rules of transformers' configurations."""
    if not config.get("sliding_window") or (kind.startswith("qwen") and not config.get("use_sliding_window")):
        return [False] * layers
    if kind in ("llama", "mistral"):
        return [kind == "mistral"] * layers
    if types := config.get("layer_types"):
        known = {"sliding_attention": True, "full_attention": False}
        if len(types) != layers:
            raise ValueError(f"layer_types: {len(types)} of them for {layers} layers")
        return [known[name] for name in types]
    if kind == "gemma3_text":
        pattern = int(config["sliding_window_pattern"])
        return [(layer + 1) % pattern != 0 for layer in range(layers)]
    return [layer >= int(config.get("max_window_layers", 28)) for layer in range(layers)]


def _gemma3(path: Path, config: dict[str, Any], sliding: list[bool], head_dim: int) -> dict[str, Value]:
    """What llama.cpp reads for Gemma 3 alone; by itself it takes every sixth layer for one of full attention."""
    # llama.cpp knows the 27B model, which scales otherwise, by its number of layers (src/models/gemma3.cpp).
    scalar = config["hidden_size"] // config["num_attention_heads"] if len(sliding) == 62 else head_dim
    if config["query_pre_attn_scalar"] != scalar:
        raise InputError(
            f"{path}: query_pre_attn_scalar {config['query_pre_attn_scalar']} has no equal in llama.cpp's gemma3 (it "
            f"takes {scalar}); export to ONNX instead"
        )
    metadata: dict[str, Value] = {}
    if soft_cap := config.get("final_logit_softcapping"):
        metadata["final_logit_softcapping"] = float(soft_cap)
    if any(sliding):
        local = (config.get("rope_parameters") or {}).get("sliding_attention") or {}
        if local.get("rope_type", "default") != "default":
            raise InputError(f"{path}: rope scaling {local['rope_type']!r} of sliding attention: llama.cpp has none")
        metadata["attention.sliding_window"] = int(config["sliding_window"])
        metadata["rope.freq_base_swa"] = float(local.get("rope_theta") or config["rope_local_base_freq"])
        if sliding != [(layer + 1) % 6 != 0 for layer in range(len(sliding))]:
            metadata["attention.sliding_window_pattern"] = sliding
    return metadata


def _layout(family: Family, sizes: dict[str, int], tied: bool) -> Iterator[Place]:
    """Every tensor that the family has, in llama.cpp's order."""
    wide, deep, head = sizes["embedding_length"], sizes["feed_forward_length"], sizes["attention.key_length"]
    heads, kv_heads = sizes["attention.head_count"], sizes["attention.head_count_kv"]
    queries, keys, shift = heads * head, kv_heads * head, family.shift
    # llama.cpp rotates neighbouring pairs for "llama" and halves for the others, so llama's rows are interleaved.
    q, k = (heads, kv_heads) if family.architecture == "llama" else (0, 0)
    yield Place("model.embed_tokens.weight", "token_embd.weight", (sizes["vocab_size"], wide))
    for layer in range(sizes["block_count"]):
        a, b = f"model.layers.{layer}", f"blk.{layer}"
        yield Place(f"{a}.input_layernorm.weight", f"{b}.attn_norm.weight", (wide,), shift=shift)
        yield Place(f"{a}.self_attn.q_proj.weight", f"{b}.attn_q.weight", (queries, wide), q)
        yield Place(f"{a}.self_attn.k_proj.weight", f"{b}.attn_k.weight", (keys, wide), k)
        yield Place(f"{a}.self_attn.v_proj.weight", f"{b}.attn_v.weight", (keys, wide))
        if "qkv_bias" in family.optional:
            yield Place(f"{a}.self_attn.q_proj.bias", f"{b}.attn_q.bias", (queries,))
            yield Place(f"{a}.self_attn.k_proj.bias", f"{b}.attn_k.bias", (keys,))
            yield Place(f"{a}.self_attn.v_proj.bias", f"{b}.attn_v.bias", (keys,))
        if "qk_norm" in family.optional:
            yield Place(f"{a}.self_attn.q_norm.weight", f"{b}.attn_q_norm.weight", (head,), shift=shift)
            yield Place(f"{a}.self_attn.k_norm.weight", f"{b}.attn_k_norm.weight", (head,), shift=shift)
        yield Place(f"{a}.self_attn.o_proj.weight", f"{b}.attn_output.weight", (wide, queries))
        before_mlp = "post_attention_layernorm"
        if "post_norms" in family.optional:
            yield Place(f"{a}.{before_mlp}.weight", f"{b}.post_attention_norm.weight", (wide,), shift=shift)
            yield Place(f"{a}.post_feedforward_layernorm.weight", f"{b}.post_ffw_norm.weight", (wide,), shift=shift)
            before_mlp = "pre_feedforward_layernorm"
        yield Place(f"{a}.{before_mlp}.weight", f"{b}.ffn_norm.weight", (wide,), shift=shift)
        yield Place(f"{a}.mlp.gate_proj.weight", f"{b}.ffn_gate.weight", (deep, wide))
        yield Place(f"{a}.mlp.up_proj.weight", f"{b}.ffn_up.weight", (deep, wide))
        yield Place(f"{a}.mlp.down_proj.weight", f"{b}.ffn_down.weight", (wide, deep))
    yield Place("model.norm.weight", "output_norm.weight", (wide,), shift=shift)
    if not tied:
        yield Place("lm_head.weight", "output.weight", (sizes["vocab_size"], wide))
