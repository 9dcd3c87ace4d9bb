"""Fit a LoRA adapter to demonstrations, or a tiny model from scratch to demonstrations or documents."""

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from edgedc.bundle import CHAT_TEMPLATE, Manifest, check_model_folder, write_manifest
from edgedc.errors import EdgedcError, InputError
from edgedc.files import sha256_of, staged_folder

from .data import IGNORED, RoughlyAlike, describe, encode, read_training_rows, texts_of
from .scratch import make_model, make_tokenizer, save_folder
from .settings import TrainSettings

# The rows that a from-scratch tokenizer is fitted to; more change next to nothing.
_TOKENIZER_ROWS = 20_000
_PAD_TO = 8


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a training run stands; `tokens_per_s` counts every token of the rows, padding left out."""

    step: int
    steps: int
    loss: float
    tokens_per_s: float
    eta_s: float


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a run ended with. `losses` are (step, mean loss since the last entry)."""

    folder: Path
    losses: tuple[tuple[int, float], ...]
    seconds: float
    rows: int
    left_out: dict[str, int]
    trained_parameters: int


def train(data: Path, out: Path, settings: TrainSettings, report: Callable[[Progress], None]) -> Trained:
    """Train on a JSONL file and write an adapter folder (or, from scratch, a model folder) with its manifest.

    Raises InputError for bad data, base or settings before anything is trained, and EdgedcError when the loss stops
    being a number. A killed run goes on from its last checkpoint, kept beside `out`, when it is started again alike.
    """
    _check(settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    rows, left_out = read_training_rows(data)
    torch.manual_seed(settings.seed)
    if settings.from_scratch:
        tokenizer: PreTrainedTokenizerBase = make_tokenizer(
            texts_of(rows[:_TOKENIZER_ROWS], settings), settings.vocabulary
        )
        model: Any = make_model(tokenizer, settings.from_scratch, settings.seed)
        base = f"scratch-{settings.from_scratch}"
    else:
        base_folder, base = find_base(settings.base)
        tokenizer, model = load_base(base_folder)
        model = _with_adapter(model, settings)
    features = encode(data, rows, tokenizer, settings)

    work = out.with_name(f".{out.name}.work")
    trainer = _Trainer(
        model=model,
        args=_arguments(work, settings),
        train_dataset=features,
        data_collator=lambda batch: collate(batch, tokenizer.pad_token_id),
        callbacks=[watch := _Watch(report, sum(len(f["input_ids"]) for f in features) / len(features))],
    )
    trainer.remove_callback(PrinterCallback)
    started = time.monotonic()
    resumed = get_last_checkpoint(str(work)) if work.is_dir() else None
    trainer.train(resume_from_checkpoint=resumed)
    seconds = time.monotonic() - started

    with staged_folder(out) as stage:
        if settings.from_scratch:
            save_folder(model.to(torch.float16), tokenizer, stage)  # as merge does
        else:
            model.save_pretrained(stage, safe_serialization=True)
            tokenizer.save_pretrained(stage)
        write_manifest(
            stage,
            Manifest(
                kind="model" if settings.from_scratch else "adapter",
                name=out.name,
                base=base,
                method="from scratch" if settings.from_scratch else "S_D-T",
                prompt_style=settings.prompt_style,
                max_subquestions=settings.max_subquestions,
                context_length=model.config.max_position_embeddings,
                chat_template_sha256=sha256_of(stage / CHAT_TEMPLATE),
                parameters=sum(p.numel() for p in model.parameters()),
                data=(describe(data, rows),),
                recipe=dataclasses.asdict(settings),
            ),
        )
    shutil.rmtree(work, ignore_errors=True)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Trained(out, tuple(watch.losses), seconds, len(rows), dict(left_out), trainable)


def find_base(name: str) -> tuple[str, str]:
    """(what transformers can load, the name for the manifest) of a base: shipped, a folder, or a hub id."""
    if name == "demo-base":
        return str(resources.files("edgedc").joinpath("models", "demo-base")), name
    if Path(name).exists():
        check_model_folder(Path(name))
        return name, str(Path(name))
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return name, name
    raise InputError(f"{name}: no such base model: give a folder, a hub id (owner/name) or demo-base")


def load_base(name: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and float32 model (bfloat16 on a GPU that has it), from safetensors, no code of the model's own."""
    dtype = torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, use_safetensors=True)
    except OSError as error:
        raise InputError(f"{name}: cannot be loaded as a base model: {str(error).splitlines()[0]}") from error
    if not tokenizer.chat_template:
        raise InputError(f"{name}: its tokenizer has no chat template; take the instruct version of the model")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model


def collate(batch: list[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """Pad to the longest row, in steps of 8: `input_ids`, `attention_mask` and `labels`, each (rows, tokens).

    Kernels are made or tuned anew for every shape they meet; with steps there are few.
    """
    longest = -(-max(len(row["input_ids"]) for row in batch) // _PAD_TO) * _PAD_TO

    def padded(key: str, fill: int) -> torch.Tensor:
        return torch.tensor([row[key] + [fill] * (longest - len(row[key])) for row in batch])

    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in batch])
    return {"input_ids": padded("input_ids", pad), "attention_mask": mask, "labels": padded("labels", IGNORED)}


def _check(settings: TrainSettings) -> None:
    if settings.vocabulary % 256 or settings.vocabulary < 512:
        raise InputError(f"--vocabulary {settings.vocabulary}: must be a multiple of 256, at least 512")
    for name in ("batch_size", "max_length", "lora_rank", "checkpoint_every", "learning_rate", "epochs"):
        if getattr(settings, name) <= 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)}: must be above 0")


def _with_adapter(model: PreTrainedModel, settings: TrainSettings) -> Any:
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _arguments(work: Path, settings: TrainSettings) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(work),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_ratio=0.03,
        weight_decay=0.01,
        adam_beta2=0.98,  # small batches, few steps: the usual 0.999 remembers too long
        max_grad_norm=1.0,
        use_cpu=not torch.cuda.is_available(),
        bf16=_has_bf16(),
        logging_steps=10,
        logging_nan_inf_filter=False,
        save_steps=settings.checkpoint_every,
        save_total_limit=1,
        seed=settings.seed,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
    )


def _has_bf16() -> bool:
    """Whether this machine multiplies in bfloat16 faster than in float32; weights stay in float32 on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    features = getattr(torch.cpu, "get_capabilities", dict)()  # older ones cannot say
    return bool(features.get("avx512_bf16"))


class _Trainer(Trainer):
    """The Trainer with batches of its own."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        order = RoughlyAlike(
            [len(row["input_ids"]) for row in self.train_dataset], self.args.train_batch_size, self.args.seed
        )
        return self.accelerator.prepare(
            DataLoader(
                self.train_dataset,
                batch_size=self.args.train_batch_size,
                sampler=order,
                collate_fn=self.data_collator,
                pin_memory=self.args.dataloader_pin_memory,
            )
        )


class _Watch(TrainerCallback):
    """Turns the Trainer's log into Progress, and stops a run whose loss is no number."""

    def __init__(self, report: Callable[[Progress], None], tokens_per_row: float) -> None:
        self.report = report
        self.tokens_per_row = tokens_per_row
        self.losses: list[tuple[int, float]] = []
        self.started = (0.0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.started = (time.monotonic(), state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        if "loss" not in logs:
            return
        loss = logs["loss"]
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise EdgedcError(f"the loss is {loss} at step {state.global_step}: lower --learning-rate")
        self.losses.append((state.global_step, loss))
        done = state.global_step - self.started[1]
        pace = done / max(time.monotonic() - self.started[0], 1e-9)
        tokens_per_s = pace * args.train_batch_size * self.tokens_per_row
        self.report(
            Progress(
                state.global_step, state.max_steps, loss, tokens_per_s, (state.max_steps - state.global_step) / pace
            )
        )


os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
