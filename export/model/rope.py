"""Rotary position embeddings: what config.json asks for, as llama.cpp's metadata.

The formulas are those of transformers/modeling_rope_utils.py (4.57 and 5), and of llama.cpp's rope_yarn (ggml-cpu) and
llama_context (src/llama-context.cpp), as of llama-cpp-python 0.3.36.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgedc.errors import InputError

# Per kind of scaling, the settings that must be there. transformers ignores any other of KNOWN.
NEEDED = {
    "default": (),
    "linear": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
KNOWN = {
    "rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings",
    "low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
    "truncate", "finetuned",
}  # fmt: skip
# What llama.cpp has built in for the architectures of families.py.
FIXED = {"partial_rotary_factor": 1.0, "beta_fast": 32, "beta_slow": 1, "truncate": True}


@dataclass(frozen=True)
class Rope:
    """`metadata` has the keys below `{architecture}.rope.`; `factors`, (head size / 2,), divide the frequencies."""

    metadata: dict[str, int | float | str]
    factors: "np.ndarray[Any, Any] | None" = field(default=None, compare=False)


def read_rope(where: str, config: dict[str, Any], head_dim: int, kinds: tuple[str, ...]) -> Rope:
    """The settings of full attention, from `rope_parameters` (transformers 5) or `rope_scaling` and `rope_theta`.

    `kinds` are those that llama.cpp's graph of the architecture does. Raises InputError, which begins with `where`, for
    another one and for a setting that llama.cpp would ignore.
    """
    settings = rope_settings(config)
    kind = str(settings.get("rope_type") or settings.get("type") or "default").lower()
    if kind not in kinds:
        raise InputError(f"{where}: rope scaling {kind!r} is not done by llama.cpp for this architecture")
    if unknown := set(settings) - KNOWN:
        raise InputError(f"{where}: rope scaling {kind!r} with {min(unknown)} has no equal in llama.cpp")
    for name in NEEDED[kind]:
        if not isinstance(settings.get(name), int | float) or settings[name] <= 0:
            raise InputError(f"{where}: rope scaling {kind!r} needs a {name}; copy the model again")
    for name, built_in in FIXED.items():
        if settings.get(name) not in (None, built_in):
            raise InputError(f"{where}: llama.cpp would take {name} {built_in} for the {settings[name]} of its rope")
    theta = float(settings["rope_theta"])
    if not 0 < theta < math.inf:
        raise InputError(f"{where}: rope_theta {theta} is not a base of frequencies; copy the model again")
    metadata: dict[str, int | float | str] = {"freq_base": theta, "dimension_count": head_dim}
    if kind == "llama3":
        if settings["low_freq_factor"] >= settings["high_freq_factor"]:
            raise InputError(f"{where}: rope scaling 'llama3' needs a low_freq_factor below high_freq_factor")
        return Rope(metadata, _llama3_factors(settings, theta, head_dim))
    if kind in ("linear", "yarn"):
        metadata |= {"scaling.type": kind, "scaling.factor": float(settings["factor"])}
    if kind == "yarn":
        original = settings.get("original_max_position_embeddings") or config["max_position_embeddings"]
        metadata["scaling.original_context_length"] = int(original)
        if (attention := _yarn_attention(settings)) != 1.0:
            metadata["scaling.attn_factor"] = attention
    return Rope(metadata)


def rope_settings(config: dict[str, Any]) -> dict[str, Any]:
    """One dictionary, with `rope_theta` in it, whichever version of transformers wrote the config.

    Where both did, transformers 4.57 and 5 go by the old name.
    """
    settings = config.get("rope_scaling") or config.get("rope_parameters") or {}
    settings = dict(settings.get("full_attention") or settings)
    for name in ("rope_theta", "original_max_position_embeddings", "partial_rotary_factor"):
        if settings.get(name) is None and config.get(name) is not None:
            settings[name] = config[name]
    return settings


def _yarn_attention(settings: dict[str, Any]) -> float:
    """The model's factor on cos and sin, over the one that llama.cpp takes by itself: 1 + 0.1 ln(factor)."""

    def scale(multiplier: float) -> float:
        return max(1.0, 1.0 + 0.1 * multiplier * math.log(settings["factor"]))

    wanted = settings.get("attention_factor")
    if wanted is None:
        numerator, denominator = settings.get("mscale"), settings.get("mscale_all_dim")
        wanted = scale(numerator) / scale(denominator) if numerator and denominator else scale(1.0)
    return float(wanted / scale(1.0))


def _llama3_factors(settings: dict[str, Any], theta: float, head_dim: int) -> "np.ndarray[Any, Any]":
    """Long wavelengths are stretched by `factor`, short ones not at all, those between by something between.

    The last bits hang on the order of the operations in float32, which is that of llama.cpp's own converter.
    """
    single = np.float32
    factor, low, high, context = (settings[name] for name in NEEDED["llama3"])
    exponents = np.arange(0, head_dim, 2, dtype=single) / single(head_dim)
    frequencies = single(1) / (theta ** exponents.astype(np.float64)).astype(single)
    wavelengths = single(1) / frequencies * single(2 * math.pi)
    smooth = (single(1) / wavelengths * single(context) - single(low)) / single(high - low)
    between = single(1) / ((single(1) - smooth) / single(factor) + smooth)
    stretched = np.where(wavelengths > context / low, single(factor), between)
    return np.where(wavelengths < context / high, single(1), stretched).astype(single)
