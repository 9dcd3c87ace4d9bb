"""Merge an adapter into its base: one model folder that anything can load."""

import dataclasses
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError

from edgedc.bundle import CHAT_TEMPLATE, now, read_manifest, write_manifest
from edgedc.errors import EdgedcError, InputError
from edgedc.files import sha256_of, staged_folder

from .settings import MergeSettings
from .sft import find_base, load_base


def merge(adapter: Path, out: Path, settings: MergeSettings) -> Path:
    """Write the merged model to `out`: safetensors, tokenizer, chat template and manifest.

    The merge is done in float32 and then rounded to `dtype`. Raises InputError for what is not an adapter, or not one
    for its base, and EdgedcError when a weight does not fit the type.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise InputError(f"{adapter}: no adapter_config.json: not an adapter; make one with  edgedc train")
    if not (adapter / "adapter_model.safetensors").is_file():
        raise InputError(f"{adapter}: no adapter_model.safetensors; pickled adapters are not loaded")
    manifest = read_manifest(adapter)
    if PeftConfig.from_pretrained(str(adapter)).peft_type != "LORA":
        raise InputError(f"{adapter}: only LoRA adapters can be merged")
    tokenizer, base = load_base(find_base(manifest.base)[0])
    try:
        tuned = PeftModel.from_pretrained(base.to(torch.float32), str(adapter))
    except (RuntimeError, SafetensorError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{adapter}: does not fit its base {manifest.base}: {reason}") from error
    model = tuned.merge_and_unload(safe_merge=False).to(getattr(torch, settings.dtype))
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise EdgedcError(f"{adapter}: {name} has values that {settings.dtype} cannot hold; use --dtype bfloat16")
    with staged_folder(out) as stage:
        model.save_pretrained(stage, safe_serialization=True)
        tokenizer.save_pretrained(stage)
        write_manifest(
            stage,
            dataclasses.replace(
                manifest,
                kind="model",
                name=out.name,
                chat_template_sha256=sha256_of(stage / CHAT_TEMPLATE),
                parameters=sum(p.numel() for p in model.parameters()),
                created=now(),
                recipe=manifest.recipe | {"merge": dataclasses.asdict(settings)},
            ),
        )
    return out
