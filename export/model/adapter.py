"""Reads a LoRA adapter in peft's format and adds it to the base's tensors as each is read; numpy alone.

The result is that of peft's `merge_and_unload` on a float32 base: base + (B @ A) * scale, in float32. Where that would
not be the model that was trained, and where a setting is not known to be neutral, the adapter is refused.
"""

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedc.adapter import CONFIG, TIED, WEIGHTS, check_files, check_untied
from edgedc.bundle import MANIFEST, read_manifest
from edgedc.errors import InputError
from edgedc.files import read_object

from .weights import Tensor, open_file

_PREFIX = "base_model.model."
_CHUNK = 8_000_000  # numbers of a delta in memory at a time, so that merging needs little more than the tensor

# What is read below, and what has no part in merging. Any other key must be off: it may change what is merged.
_READ = {"peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out", "bias"}
_IRRELEVANT = {
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config", "exclude_modules",
    "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_dropout", "megatron_core",
    "modules_to_save", "peft_version", "qalora_group_size", "revision", "runtime_config",
    "target_modules", "task_type",
}  # fmt: skip
# The other ways to begin (PiSSA, OLoRA, CorDA, LoftQ, ...) change the base's weights before training.
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Lora:
    """One module's pair. `a` is (rank, inputs), `b` (outputs, rank); an embedding's and a Conv1D's delta is turned."""

    a: Tensor
    b: Tensor
    scale: float
    turned: bool

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        shape = (self.b.shape[0], self.a.shape[1])
        return shape[::-1] if self.turned else shape

    def read(self) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
        """A and B in float32."""
        return self.a.read().astype(np.float32, copy=False), self.b.read().astype(np.float32, copy=False)


@dataclass(frozen=True)
class Adapter:
    """`loras` and `replacements` (modules that were trained whole) by the name of the base's tensor."""

    alpha: float
    loras: dict[str, Lora]
    replacements: dict[str, Tensor]


@dataclass(frozen=True)
class Merged(Tensor):
    """A base's tensor with its delta added when it is read."""

    base: Tensor
    lora: Lora

    def read(self) -> "np.ndarray[Any, Any]":
        """float32. Raises InputError when a value, or a sum, is not finite."""
        values = self.base.read().astype(np.float32, copy=False)
        a, b = self.lora.read()
        rows = max(1, _CHUNK // max(1, values.shape[1]))
        scale = np.float32(self.lora.scale)
        with np.errstate(over="ignore", invalid="ignore"):  # said below, in one line
            for at in range(0, len(values), rows):
                part = slice(at, at + rows)
                delta = (b @ a[:, part]).T if self.lora.turned else b[part] @ a
                values[part] += delta * scale
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.lora.b.file}: {self.name} is not finite with this adapter: it is damaged, train again"
            )
        return values


def with_adapter(tensors: dict[str, Tensor], adapter: Path, *, tied: bool) -> dict[str, Tensor]:
    """`tensors` of a base, by name and in order, with the adapter in this folder added to each as it is read.

    `tied` says that the base's output layer is its embedding. Raises InputError, before a tensor of the base is read,
    for what is not an adapter of a kind that can be added, for one that does not fit the base, and for one that holds
    NaN.
    """
    read = read_adapter(adapter, tensors, tied=tied)
    merged = tensors | read.replacements
    for name, lora in read.loras.items():
        base = merged[name]
        merged[name] = Merged(name, base.file, "F32", base.shape, base.offset, base, lora)
    return merged


def read_adapter(adapter: Path, tensors: dict[str, Tensor], *, tied: bool) -> Adapter:
    """The adapter in a folder, every tensor of it read once and matched with one of the base. See `with_adapter`."""
    config = _read_config(adapter)
    stored = open_file(adapter / WEIGHTS)
    pairs: dict[tuple[str, bool], dict[str, Tensor]] = {}
    replacements: dict[str, Tensor] = {}
    for key, tensor in stored.items():
        module, part = _place(adapter, key)
        if part in ("A", "B"):
            pairs.setdefault((module, ".lora_embedding_" in key), {})[part] = tensor
        else:
            name = f"{module}.{part}" if module else part
            replacements[name] = dataclasses.replace(tensor, name=name)
    loras = {}
    for (module, embedding), pair in pairs.items():
        if (module, not embedding) in pairs:
            raise InputError(f"{adapter / WEIGHTS}: {module} has two kinds of LoRA matrices; train the adapter again")
        loras[f"{module}.weight"] = _lora(adapter, config, module, pair, embedding or bool(config["fan_in_fan_out"]))
    if not loras:
        raise InputError(f"{adapter / WEIGHTS}: holds no LoRA matrices")
    if tied:
        check_untied(adapter, loras)
        for name in replacements:
            if any(part in TIED for part in name.split(".")):
                raise _refused(adapter, f"a {name} of its own over a base with tied embeddings")
    _check_fit(adapter, tensors, loras, replacements)
    for tensor in stored.values():
        tensor.read()
    return Adapter(float(config["lora_alpha"]), loras, replacements)


def _read_config(adapter: Path) -> dict[str, Any]:
    path = adapter / CONFIG
    check_files(adapter)
    if (adapter / MANIFEST).is_file() and read_manifest(adapter).recipe.get("tuning") == "qlora":
        raise InputError(
            f"{adapter}: was trained over its base in 4 bits, and over the whole one it says something else: put it "
            f"onto what fits it with  edgedc merge {adapter} MERGED  and export that"
        )
    config = {"bias": "none", "fan_in_fan_out": False, "use_rslora": False, **read_object(path)}
    for pattern in ("rank_pattern", "alpha_pattern"):
        config[pattern] = config.get(pattern) or {}
    if config.get("peft_type") != "LORA":
        raise _refused(path, f"peft_type {config.get('peft_type')!r}")
    if config["bias"] != "none":
        raise _refused(path, f"bias {config['bias']!r}")
    if config.get("init_lora_weights", True) not in _STARTS:
        raise _refused(path, f"init_lora_weights {config['init_lora_weights']!r}")
    for key in sorted(set(config) - _READ - _IRRELEVANT):
        if config[key]:
            raise _refused(path, "DoRA" if key == "use_dora" else key)
    _check_numbers(path, config)
    return config


def _check_numbers(path: Path, config: dict[str, Any]) -> None:
    ranks, alphas = config["rank_pattern"], config["alpha_pattern"]
    try:
        sound = all(type(r) is int and r > 0 for r in [config["r"], *ranks.values()])
        sound = sound and all(math.isfinite(float(alpha)) for alpha in [config["lora_alpha"], *alphas.values()])
        for pattern in (*ranks, *alphas):
            re.compile(pattern)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, re.error) as error:
        raise InputError(f"{path}: no usable r, lora_alpha, rank_pattern or alpha_pattern: {error}") from error
    if not sound:
        raise InputError(f"{path}: r must be whole numbers above 0, and lora_alpha finite ones")


def _place(adapter: Path, key: str) -> tuple[str, str]:
    """(module, "A" or "B"), or (module, parameter) for one that was trained, or is kept, whole."""
    path = adapter / WEIGHTS
    name = key.removeprefix(_PREFIX)
    if "lora_magnitude_vector" in name:
        raise _refused(path, "DoRA")
    if name.endswith(".lora_B.bias"):
        raise _refused(path, "lora_bias")
    if found := re.fullmatch(r"(.+)\.(?:lora_([AB])\.weight|lora_embedding_([AB]))", name):
        return found[1], found[2] or found[3]
    module, _, parameter = name.rpartition(".")
    # peft saves the weights under an adapted embedding too, in case that the vocabulary grew
    return module.removesuffix(".base_layer"), parameter


def _lora(adapter: Path, config: dict[str, Any], module: str, pair: dict[str, Tensor], turned: bool) -> Lora:
    path = adapter / WEIGHTS
    if len(pair) < 2:
        raise InputError(f"{path}: {module} has lora_{min(pair)} alone; copy or train the adapter again")
    rank = _of_pattern(config["rank_pattern"], module, config["r"])
    alpha = float(_of_pattern(config["alpha_pattern"], module, config["lora_alpha"]))
    a, b = pair["A"], pair["B"]
    if len(a.shape) != 2 or len(b.shape) != 2 or (a.shape[0], b.shape[1]) != (rank, rank):
        raise InputError(
            f"{path}: {module} has A {a.shape} and B {b.shape}, {CONFIG} makes the rank {rank}; train the adapter again"
        )
    return Lora(a, b, alpha / (math.sqrt(rank) if config["use_rslora"] else rank), turned)


def _of_pattern(patterns: dict[str, Any], module: str, default: Any) -> Any:
    """The value of the first pattern that matches the module's name, or the end of it from a dot on, as in peft."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _check_fit(
    adapter: Path, tensors: dict[str, Tensor], loras: dict[str, Lora], replacements: dict[str, Tensor]
) -> None:
    wanted = [(name, tensor.shape) for name, tensor in replacements.items()]
    wanted += [(name, lora.shape) for name, lora in loras.items()]
    for name, shape in wanted:
        if name not in tensors:
            raise InputError(f"{adapter}: wrong adapter for this base, which has no tensor {name}")
        if tensors[name].shape != shape:
            raise InputError(
                f"{adapter}: wrong adapter for this base: its {name} is {shape}, the base's {tensors[name].shape}"
            )


def _refused(path: Path, what: str) -> InputError:
    return InputError(f"{path}: {what} cannot be added while exporting; merge first with  edgedc merge")
