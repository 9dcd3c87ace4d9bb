"""Fit an adapter, a whole base or a tiny new model to the completions of a training set."""

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from edgedc.backends.cores import physical_cores
from edgedc.bundle import CHAT_TEMPLATE, Manifest, hashes_read, write_manifest
from edgedc.decomposition import NOT_NEEDED
from edgedc.errors import InputError
from edgedc.files import check_replaceable, sha256_of, staged_folder, write_text
from edgedc.machine import MAX_THREADS, this_machine
from edgedc.methods import ANSWERING

from ..sets.leaks import check_leaks, held_out_in
from ..sets.pairs import Pair, read_pairs
from ..settings import TrainSettings
from .base import (
    Base,
    check_tuning,
    device,
    find_base,
    make_trainee,
    uses_bf16,
    write_student,
)
from .checkpoints import alone, discard, full_disk_told, identity, work_folder
from .compiling import check_compiler
from .data import Encoded, check_text, describe, encode, texts_of
from .packing import check_packing
from .processes import is_first, join, together
from .progress import Progress, full_memory_told, memory_peak
from .scratch import save_folder
from .trainer import LOG_EVERY, HeldOut, SftTrainer, Watch
from .validation import held_out

HISTORY = "training.json"


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a run ended with, the runs that it went on from included.

    `losses` are (step, mean loss since the entry before). `best_step` is the step whose weights were kept, `held_out`
    what was measured there; None and empty without validation.
    """

    folder: Path
    losses: tuple[tuple[int, float], ...]
    seconds: float
    rows: int
    left_out: dict[str, int]
    trained_parameters: int
    best_step: int | None
    held_out: dict[str, float]


def train(
    data: Path,
    out: Path,
    settings: TrainSettings,
    report: Callable[[Progress], None],
    warn: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train on a JSONL file and write an adapter folder, or a model folder where all weights are trained.

    `report` hears of every log, `warn` what a person should know. Raises InputError for bad data, base or settings
    before anything is trained, and EdgedcError when the loss stops being a number. A killed run goes on from its last
    checkpoint, kept beside `out`, when it is started again alike.

    Where several processes train together, each calls this; the first one writes, reports and warns.
    """
    settings = join(settings)
    if not is_first():
        report = warn = lambda _: None
    disable_progress_bar()
    with full_memory_told(), together():
        check(settings)
        check_replaceable(out, data, *_files_read(settings))
        torch.set_num_threads(settings.threads or min(torch.get_num_threads(), physical_cores()))
        pairs, left_out = _pairs(data, settings, warn)
        chosen = held_out(pairs, settings.validation)
        tokenizer, model, base = make_trainee(
            settings, texts_of([p for p, held in zip(pairs, chosen, strict=True) if not held])
        )
        if settings.packing:
            check_packing(model, device())
        avoid = settings.unlikelihood > 0
        encoded, imitated = encode(data, pairs, tokenizer, settings.max_length, **_limits(model, base), unwanted=avoid)
        if imitated:
            said = ", ".join(f"{mark} in {count}" for mark, count in imitated.most_common(3))
            warn(f"{data}: special tokens are imitated ({said} rows); they are read as plain text")
        rows = [row for row, held in zip(encoded, chosen, strict=True) if not held]
        held = _to_measure(pairs, encoded, chosen, settings)

        work, notes = work_folder(out, identity(settings, base, rows, held.rows))
        for note in notes:
            warn(note)
    with alone(work, out), full_disk_told(work), full_memory_told(), _board(out, work) as board:
        watch, args = Watch(report, board), _arguments(work, settings, len(rows))
        cached = getattr(model.config, "use_cache", True)
        trainer = SftTrainer(model, tokenizer, rows, held, settings, args, watch)
        trainer.go_on()
        trainer.take_best()
        model.config.use_cache = cached  # which the Trainer turns off, and the student's folder would say

        history = trainer.state.log_history
        trained = _trained(out, history, trainer.best(), rows, left_out, model)
        weights = trainer.shared_weights()
        with together():
            if is_first():
                with staged_folder(out) as stage:
                    _write_model(stage, trainer.model, weights, tokenizer, settings)
                    record = _record(trained, settings, len(held.rows), history)
                    write_text(stage / HISTORY, json.dumps(record, indent=2, default=str) + "\n")
                    made = _manifest(stage, trained, settings, record, base, describe(data, pairs))
                    write_manifest(stage, made)
                discard(work)
    return trained


def check(settings: TrainSettings) -> None:
    """Raises InputError for a setting that cannot be, or that this machine cannot do."""

    def refuse(name: str, must: str) -> None:
        raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)}: must be {must}")

    if settings.vocabulary % 256 or settings.vocabulary < 512:
        refuse("vocabulary", "a multiple of 256, at least 512")
    counts = ("batch_size", "accumulation", "max_length", "checkpoint_every", "validation_every")
    for name in (*counts, "lora_rank", "lora_alpha", "learning_rate", "epochs"):
        if not getattr(settings, name) > 0:
            refuse(name, "above 0")
    if settings.max_steps < 1 and settings.max_steps != -1:
        refuse("max_steps", "at least 1, or -1")
    if not 0 <= settings.warmup < 1:
        refuse("warmup", "a share of the steps: at least 0 and below 1")
    for name in ("weight_decay", "validation", "validation_questions", "unlikelihood"):
        if not getattr(settings, name) >= 0:
            refuse(name, "at least 0")
    for name in ("epochs", "learning_rate", "weight_decay", "unlikelihood"):
        if math.isinf(getattr(settings, name)):
            refuse(name, "a finite number")
    if not 0 <= settings.lora_dropout < 1:
        refuse("lora_dropout", "a share: at least 0 and below 1")
    if settings.threads is not None and not 1 <= settings.threads <= MAX_THREADS:
        refuse("threads", f"1 to {MAX_THREADS}, or none")
    if not 0 <= settings.seed < 1 << 32:
        refuse("seed", "at least 0 and below 2^32")
    if settings.validation > 1 and settings.validation % 1:
        refuse("validation", "a share below 1, or a whole number of questions")
    if settings.batch_size % _parts(settings):
        refuse(
            "batch_size", f"a multiple of {_parts(settings)}: the parts that --accumulation and processes make of it"
        )
    check_tuning(settings)
    if settings.compile:
        check_compiler()


def check_untaught(data: Path, pairs: Sequence[Pair], settings: TrainSettings, folder: Path) -> int:
    """What `train` would raise of the base, and of pairs with nothing to learn yet, so that nobody is asked in vain.

    `folder` gets what the student will be (see `write_student`). Returns how many tokens it will read.
    """
    disable_progress_bar()
    check_text(data, pairs)
    held_out(pairs, settings.validation)
    tokenizer, model, base = make_trainee(settings, (), weights=settings.packing)
    if settings.packing:
        check_packing(model, device())
    encode(data, pairs, tokenizer, settings.max_length, **_limits(model, base))
    write_student(folder, tokenizer, model)
    return base.context


def _limits(model: Any, base: Base) -> dict[str, int]:
    return {"context": base.context, "vocabulary": model.get_input_embeddings().weight.shape[0]}


def _files_read(settings: TrainSettings) -> list[Path]:
    """What a run reads besides its data."""
    base = [] if settings.from_scratch else [Path(find_base(settings.base)[0])]
    return [*base, *([settings.held_out] if settings.held_out else [])]


def _parts(settings: TrainSettings) -> int:
    return settings.accumulation * settings.num_processes


def _pairs(data: Path, settings: TrainSettings, warn: Callable[[str], None]) -> tuple[list[Pair], Counter[str]]:
    """The training set, without what is in a test split."""
    pairs, left_out = read_pairs(data, settings.method, settings.prompt_style, settings.max_subquestions)
    check_text(data, pairs)
    tests = held_out_in([settings.held_out] if settings.held_out else [])
    pairs, leaks = check_leaks(data, pairs, tests, exclude=settings.exclude_leaks)
    if leaks:
        left_out["in a test split"] += len(leaks)
    if settings.method not in ANSWERING and all(p.messages and p.completion == NOT_NEEDED for p in pairs):
        warn(f'{data}: every row says "{NOT_NEEDED}": the student will learn to decompose nothing')
    return pairs, left_out


def _to_measure(
    pairs: Sequence[Pair], encoded: Sequence[Encoded], chosen: Sequence[bool], settings: TrainSettings
) -> HeldOut:
    held = [(pair, row) for pair, row, is_held in zip(pairs, encoded, chosen, strict=True) if is_held]
    decomposed = [] if settings.method in ANSWERING else [(p, row) for p, row in held if p.messages]
    asked = decomposed[: settings.validation_questions]
    return HeldOut([row for _, row in held], [pair for pair, _ in asked], [row for _, row in asked])


def _arguments(work: Path, settings: TrainSettings, rows: int) -> TrainingArguments:
    steps = settings.max_steps
    if steps == -1:
        steps = math.ceil(settings.epochs * math.ceil(rows / settings.batch_size))
    how: dict[str, Any] = {}
    if settings.gradient_checkpointing:
        new = hasattr(TrainingArguments, "activation_checkpointing")  # transformers 6 drops the old name
        name = "activation_checkpointing" if new else "gradient_checkpointing"
        how = {name: True, f"{name}_kwargs": {"use_reentrant": False}}
    bf16 = uses_bf16(settings)
    # transformers takes what an earlier run of this process, or its parent's, has left here before its own flag.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if bf16 else "no"
    args = TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size // _parts(settings),
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        # The first step of a warm-up has a rate of 0: a run of one step would change nothing.
        warmup_steps=min(math.ceil(settings.warmup * steps), steps - 1),
        weight_decay=settings.weight_decay,
        adam_beta2=0.98,  # small batches, few steps: the usual 0.999 remembers too long
        max_grad_norm=1.0,
        use_cpu=not torch.cuda.is_available(),
        bf16=bf16,
        logging_steps=LOG_EVERY,
        logging_nan_inf_filter=False,
        save_strategy="no",  # trainer.py says when
        seed=settings.seed,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        **how,
    )
    if args.n_gpu > 1:
        args._n_gpu = 1  # several GPUs are for several processes; one would split its batches over them
    return args


@contextmanager
def _board(out: Path, work: Path) -> Iterator[Any]:
    """A TensorBoard log beside `out`, one for each run by its key; None where it is not installed.

    Closed however the run ends: its thread would stay, and where TensorFlow writes for it the last two minutes too.
    """
    if not is_first() or find_spec("tensorboard") is None:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(out.with_name(f"{out.name}.tensorboard") / work.name.split(".")[-2])) as board:
        yield board


def _trained(
    out: Path,
    history: Sequence[dict[str, Any]],
    best: dict[str, Any] | None,
    rows: Sequence[Encoded],
    left_out: Counter[str],
    model: Any,
) -> Trained:
    return Trained(
        out,
        tuple((entry["step"], entry["loss"]) for entry in history if "loss" in entry),
        history[-1]["seconds"],
        len(rows),
        dict(left_out),
        sum(p.numel() for p in model.parameters() if p.requires_grad),
        best["step"] if best else None,
        best["held_out"] if best else {},
    )


def _write_model(
    stage: Path, model: Any, weights: Any, tokenizer: PreTrainedTokenizerBase, settings: TrainSettings
) -> None:
    if settings.from_scratch or settings.tuning == "full":
        if weights is not None:
            beside = model.generation_config
            with torch.device("meta"):
                model = type(model)(model.config)
            model.generation_config = beside
            model.load_state_dict(weights, assign=True)
            model.tie_weights()
        most = max(p.abs().max().item() for p in model.parameters())
        dtype = torch.float16 if most < torch.finfo(torch.float16).max else torch.bfloat16
        save_folder(model.to(dtype), tokenizer, stage)
    else:
        model.save_pretrained(stage, state_dict=weights, safe_serialization=True)
        tokenizer.save_pretrained(stage)


def _record(trained: Trained, settings: TrainSettings, held: int, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    last = history[-1]
    return {
        "settings": dataclasses.asdict(settings),
        "rows": trained.rows,
        "held_out_rows": held,
        "left_out": trained.left_out,
        "trained_parameters": trained.trained_parameters,
        "steps": last["step"],
        "kept": {
            "step": trained.best_step or last["step"],
            "loss": trained.losses[-1][1],
            "held_out": trained.held_out,
        },
        "tokens": last["tokens"],
        "seconds": last["seconds"],
        "tokens_per_s": round(last["tokens"] / last["seconds"], 1),
        "peak_memory_bytes": memory_peak(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "machine": dataclasses.asdict(this_machine()),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate", "tokenizers")},
        "history": list(history),
    }


def _manifest(
    stage: Path,
    trained: Trained,
    settings: TrainSettings,
    record: dict[str, Any],
    base: Base,
    data: Any,
) -> Manifest:
    essentials = ("rows", "held_out_rows", "steps", "kept", "tokens_per_s", "seconds", "peak_memory_bytes", "device")
    recipe = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(settings).items()}
    read = hashes_read({"held_out": settings.held_out})
    whole = bool(settings.from_scratch) or settings.tuning == "full"
    return Manifest(
        kind="model" if whole else "adapter",
        name=trained.folder.name,
        base=base.name,
        base_revision=base.revision,
        base_sha256=base.sha256,
        method="from scratch" if settings.from_scratch else settings.method,
        prompt_style=settings.prompt_style,
        max_subquestions=settings.max_subquestions,
        context_length=base.context,
        chat_template_sha256=sha256_of(stage / CHAT_TEMPLATE),
        parameters=base.parameters,
        data=(data,),
        recipe=recipe | {"training": {name: record[name] for name in essentials}, "read": read},
    )
