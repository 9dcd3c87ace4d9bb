"""Merge an adapter into its base: one model folder that anything can load, and that says what the adapter said."""

import dataclasses
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from edgedc.adapter import CONFIG, WEIGHTS, check_base, check_files, check_untied
from edgedc.bundle import CHAT_TEMPLATE, Manifest, now, read_manifest, write_manifest
from edgedc.errors import EdgedcError, GateError, InputError, need
from edgedc.files import check_replaceable, sha256_of, staged_folder

from .agreement import Agreement, compare, scores_of, texts_for
from .fitting.base import find_base, load_base
from .settings import MergeSettings

Load = partial[tuple[PreTrainedTokenizerBase, PreTrainedModel]]  # of the base, in float32
BASE, DEQUANTISED = "base", "dequantised base"  # what an adapter may be merged onto


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most that KL (nats) and any score may be off; the least share of positions with the same likeliest token."""

    kl: float
    top1: float
    max_difference: float


# About a hundred times the KL, and ten times the largest difference, that sound merges of a model of 4M weights gave:
# float32 8e-12 and 2e-4, float16 7e-7 and 0.04, bfloat16 4e-4 and 1.1, with top-1 from 100 % to 99.8 %.
LIMITS = {
    "float32": Limits(1e-8, 0.995, 0.01),
    "float16": Limits(1e-4, 0.99, 0.5),
    "bfloat16": Limits(0.02, 0.97, 8.0),
}


def merge(adapter: Path, out: Path, settings: MergeSettings) -> Path:
    """Write the merged model to `out`: safetensors, tokenizer, chat template and manifest.

    The merge is done in float32 and then rounded to `dtype`; the folder is read back, and must score the next token as
    base and adapter do. An adapter that was trained over a base in 4 bits is merged onto the 16-bit base and onto the
    dequantised one, and what comes closer is kept. Raises InputError for what is not an adapter, not one for its base
    or of a kind that cannot be merged, EdgedcError when a weight does not fit the type, and GateError when the merged
    model is not the adapter's.
    """
    manifest = _check(adapter)
    base, questions = find_base(manifest.base)[0], Path(settings.prompts) if settings.prompts else None
    check_replaceable(out, adapter, Path(base), *([questions] if questions else []))
    check_base(adapter, Path(base))
    load = partial(load_base, base, manifest.base_revision, dtype=torch.float32)
    quantised = manifest.recipe.get("tuning") == "qlora"
    if quantised:
        need("bitsandbytes", "bitsandbytes", "qlora")
    tokenizer, model = load(quantised=quantised)
    texts = texts_for(tokenizer, manifest, questions)
    dtype = getattr(torch, settings.dtype)
    wanted = scores_of(_adapted(model, adapter, manifest), texts)
    del model
    tried = {}
    for onto in (BASE, DEQUANTISED) if quantised else ():
        merged = _merged(load, onto, adapter, manifest, dtype)
        tried[onto] = compare(wanted, scores_of(merged, texts), texts)
    onto = min(tried, key=lambda name: tried[name].kl) if tried else BASE
    merged = _merged(load, onto, adapter, manifest, dtype)
    with staged_folder(out) as stage:
        merged.to(dtype).save_pretrained(stage, safe_serialization=True)
        tokenizer.save_pretrained(stage)
        parameters = sum(p.numel() for p in merged.parameters())
        del merged
        # What counts is the folder: tied weights, for one, may come back otherwise than they were.
        agreement = compare(wanted, scores_of(_read_back(stage), texts), texts)
        _judge(adapter, agreement, LIMITS["bfloat16" if quantised else settings.dtype])
        recipe = dataclasses.asdict(settings) | {"adapter_sha256": sha256_of(adapter / WEIGHTS), "onto": onto}
        # What it is compared on has no part in the weights: `edgedc distill` need not merge again for it.
        recipe |= {"agreement": dataclasses.asdict(agreement) | {"prompts": recipe.pop("prompts")}}
        if tried:
            recipe["tried"] = {name: dataclasses.asdict(figures) for name, figures in tried.items()}
        merged_manifest = dataclasses.replace(
            manifest,
            kind="model",
            name=out.name,
            chat_template_sha256=sha256_of(stage / CHAT_TEMPLATE),
            parameters=parameters,
            created=now(),
            recipe=manifest.recipe | {"merge": recipe},
        )
        write_manifest(stage, merged_manifest)
    return out


def _read_back(stage: Path) -> PreTrainedModel:
    with tempfile.TemporaryDirectory() as scratch:
        named = Path(scratch) / "merged"  # transformers warns of a folder whose name is no identifier
        named.symlink_to(stage.resolve(), target_is_directory=True)
        return load_base(str(named), dtype=torch.float32)[1]


def _check(adapter: Path) -> Manifest:
    """The manifest of what can be merged; everything that is cheap to find is found here."""
    if (adapter / "config.json").is_file() and not (adapter / CONFIG).is_file():
        raise InputError(f"{adapter}: not an adapter but a whole model already: there is nothing to merge")
    check_files(adapter)
    manifest = read_manifest(adapter)
    try:
        config = PeftConfig.from_pretrained(str(adapter))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{adapter / CONFIG}: not the settings of an adapter: {_in_a_line(error)}") from error
    if config.is_prompt_learning:
        raise InputError(f"{adapter}: {config.peft_type} changes the prompt and no weight: it cannot be merged")
    return manifest


def _judge(adapter: Path, agreement: Agreement, limits: Limits) -> None:
    # `not` and the other way round, so that NaN fails
    if not (
        agreement.kl <= limits.kl
        and agreement.top1 >= limits.top1
        and agreement.max_difference <= limits.max_difference
    ):
        raise GateError(
            f"{adapter}: merged, it is not what was trained: KL {agreement.kl:.1e} (at most {limits.kl:.0e}), top-1 "
            f"{agreement.top1:.1%} (at least {limits.top1:.1%}), scores differ by up to {agreement.max_difference:.2g} "
            f"(at most {limits.max_difference:g}); worst on {agreement.worst!r}; nothing was written, "
            "try --dtype float32"
        )


def _in_float32(load: Load, onto: str) -> PreTrainedModel:
    """What is merged onto: the base, or the base with the weights that its 4 bits stand for."""
    model = load()[1]
    if onto == DEQUANTISED:
        from bitsandbytes.functional import dequantize_4bit
        from bitsandbytes.nn import Linear4bit

        for path, module in load(quantised=True)[1].named_modules():
            if isinstance(module, Linear4bit):
                weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
                model.get_submodule(path).weight.data = weight.float().to(model.device)
    return model


def _adapted(base: PreTrainedModel, adapter: Path, manifest: Manifest) -> PeftModel:
    try:
        if getattr(base.config, "tie_word_embeddings", False):
            with safe_open(adapter / WEIGHTS, "pt") as stored:
                check_untied(adapter, (key for key in stored.keys() if ".lora_" in key))  # noqa: SIM118 (not a dict)
        with _quiet():
            tuned = PeftModel.from_pretrained(base, str(adapter))
            # Once more, as only this tells what found no place. Without it, what is merged would agree all the same.
            read = tuned.load_adapter(str(adapter), tuned.active_adapter)
    except (RuntimeError, SafetensorError, ValueError, TypeError) as error:
        raise InputError(f"{adapter}: does not fit its base {manifest.base}: {_in_a_line(error)}") from error
    if read.missing_keys:
        raise InputError(f"{adapter}: {WEIGHTS} lacks {min(read.missing_keys)}; copy or train the adapter again")
    if read.unexpected_keys:
        raise InputError(
            f"{adapter}: {min(read.unexpected_keys)} has no place on its base {manifest.base}, by {CONFIG}; copy or "
            "train the adapter again"
        )
    return tuned


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _merged(load: Load, onto: str, adapter: Path, manifest: Manifest, dtype: torch.dtype) -> PreTrainedModel:
    """In float32, its weights rounded to what `dtype` can hold. Buffers, such as the rope's, are not weights."""
    tuned = _adapted(_in_float32(load, onto), adapter, manifest)
    if not hasattr(tuned.base_model, "merge_and_unload"):
        raise InputError(
            f"{adapter}: peft cannot merge it: {tuned.active_peft_config.peft_type.value} has no merged form"
        )
    try:
        with _quiet():
            model = tuned.merge_and_unload(safe_merge=False)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{adapter}: peft cannot merge it: {_in_a_line(error)}") from error
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight.data).all():
            raise InputError(f"{adapter}: {name} is not finite with this adapter: it is damaged, train again")
        weight.data = weight.data.to(dtype).float()
        if not torch.isfinite(weight.data).all():
            short = str(dtype).removeprefix("torch.")
            raise EdgedcError(f"{adapter}: {name} has values that {short} cannot hold; use --dtype bfloat16")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """peft warns of what a merge may do to tied embeddings; here that is measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
