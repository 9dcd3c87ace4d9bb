"""Adapters in peft's format: what training, merging and exporting must agree on."""

import hashlib
import logging
import warnings
from collections.abc import Iterable
from pathlib import Path

from edgedc.bundle import MANIFEST, read_manifest
from edgedc.errors import InputError
from edgedc.files import sha256_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TIED = ("embed_tokens", "lm_head")  # modules that are one tensor where a base's embeddings are tied


def hush_peft() -> None:
    """Before peft is imported. It asks transformers 5.24 by an old name, and imports bitsandbytes where that is
    installed, which warns of a kernel that nobody here needs."""
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def check_files(adapter: Path) -> None:
    """Raises InputError for a folder that holds no adapter, and for one with pickled weights."""
    if not (adapter / CONFIG).is_file():
        raise InputError(f"{adapter}: no {CONFIG}: not an adapter; make one with  edgedc train")
    if not (adapter / WEIGHTS).is_file():
        raise InputError(f"{adapter}: no {WEIGHTS}; pickled adapters are not loaded, save it as safetensors")


def base_sha256(base: Path) -> str:
    """Of all safetensors of a folder together; whatever they are named."""
    return hashlib.sha256(" ".join(sha256_of(path) for path in sorted(base.glob("*.safetensors"))).encode()).hexdigest()


def check_base(adapter: Path, base: Path) -> None:
    """Raises InputError for a folder whose weights are not those that the adapter was trained on, where that is known.

    Another model of the same shape takes the adapter without a word, and makes something that nobody trained.
    """
    known = read_manifest(adapter).base_sha256 if (adapter / MANIFEST).is_file() else ""
    if known and base.is_dir() and known != base_sha256(base):
        raise InputError(
            f"{adapter}: was trained on other weights than {base} has: restore its base, or train it again"
        )


def check_untied(adapter: Path, names: Iterable[str]) -> None:
    """Raises InputError where one of these tensors with a LoRA is the base's embedding and its output layer.

    The LoRA was trained on one of the two uses, and merging changes both.
    """
    for name in names:
        if module := next((module for module in TIED if module in name.split(".")), None):
            raise InputError(
                f"{adapter}: changes {module}, which the base uses as embedding and as output layer; merged into both "
                "it is not the model that was trained: untie the base before training"
            )
