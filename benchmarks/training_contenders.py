"""Who is compared in training_speed.py, each called in a process of its own; and the model and the rows for all.

A contender passes over the rows twice, and says how many seconds the second pass took.
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shapes import SHAPES

from edgedc.files import key_of
from edgedc.tasks import Selection, read_examples

GSM8K = Path(os.environ.get("EDGEDC_DATA", Path(__file__).parents[2] / "shared" / "data")) / "gsm8k"


def make_data(args: argparse.Namespace) -> dict[str, Any]:
    """A base folder and `rows.jsonl` in the folder; what there is to count in them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from train.fitting.data import encode
    from train.fitting.scratch import make_tokenizer
    from train.sets.leaks import check_leaks, held_out_in
    from train.sets.pairs import read_pairs

    count = args.steps * args.batch_size
    rows = demonstrations(count + count // 10)
    data = write_rows(args.folder / "rows.jsonl", rows)
    kept, _ = check_leaks(data, read_pairs(data, "S_D-T", "compact-1", None)[0], held_out_in([]), exclude=True)
    rows = [rows[pair.line - 1] for pair in kept[:count]]  # edgedc would refuse the others
    pairs, _ = read_pairs(write_rows(data, rows), "S_D-T", "compact-1", None)
    texts = [f"{pair.messages[0]['content']}\n{pair.completion}" for pair in pairs]
    tokenizer = make_tokenizer(texts, 8192)
    torch.manual_seed(0)
    config = AutoConfig.for_model(**SHAPES[args.shape], tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(args.folder / "base")
    tokenizer.save_pretrained(args.folder / "base")
    encoded, _ = encode(data, pairs, tokenizer, 2048)
    lengths = [len(row.ids) for row in encoded]
    return {
        "rows": len(rows),
        "from": sorted({row["task"] for row in rows}),
        "tokens": sum(lengths),
        "completion_tokens": sum(len(row.ids) - row.prompt for row in encoded),
        "row_tokens": {"median": statistics.median(lengths), "longest": max(lengths)},
        "squares": sum(length**2 for length in lengths),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def demonstrations(count: int) -> list[dict[str, Any]]:
    """Rows as `edgedc teach --teacher gold` writes them, half of them GSM8K's where that is at hand."""

    def examples() -> Iterator[Any]:
        own = read_examples(Selection(limit=count))
        file = GSM8K / "train_socratic.jsonl"
        if not file.is_file():
            yield from own
            return
        for pair in zip(own, read_examples(Selection("gsm8k", data=str(file), limit=count)), strict=True):
            yield from pair

    rows = []
    for example, _ in zip(examples(), range(count), strict=False):
        gold = example.decomposition
        row = {"key": key_of(example.question), "id": example.id, "question": example.question, "task": example.task}
        rows.append(row | {"status": gold.status, "subquestions": gold.texts, "outcome": "ok", "over_cap": False})
    return rows


def edgedc(args: argparse.Namespace, *, packing: bool) -> dict[str, float]:
    from train.fitting.sft import train
    from train.settings import TrainSettings

    settings = TrainSettings(
        base=str(args.folder / "base"),
        tuning=args.tuning,
        max_subquestions=None,
        epochs=2.0,
        batch_size=args.batch_size,
        packing=packing,
        precision=precision(),
        learning_rate=2e-5,
        max_length=2048,
        checkpoint_every=10**9,
        threads=1,
    )
    at: dict[int, tuple[float, int]] = {}

    def report(progress: Any) -> None:
        at[progress.step] = clock(), peak_memory()  # a report has waited for the GPU

    with tempfile.TemporaryDirectory() as out:
        train(args.folder / "rows.jsonl", Path(out) / "made", settings, report)
    (before, _), (after, peak) = at[args.steps], at[2 * args.steps]
    return {"seconds": after - before, "peak_memory_bytes": peak}


def transformers(args: argparse.Namespace, *, completion_only: bool) -> dict[str, float]:
    """The loop of many a tutorial: the chat as one text, padded batches, and the loss on all of it or on the reply."""
    from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer, model, pairs = loaded(args)
    rows = []
    for pair in pairs:
        prompt = tokenizer.apply_chat_template(pair.messages, add_generation_prompt=True, tokenize=False)
        asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        said = tokenizer(pair.completion + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        row = {"input_ids": asked + said, "attention_mask": [1] * len(asked + said)}
        rows.append(row | ({"labels": [-100] * len(asked) + said} if completion_only else {}))
    collate = DataCollatorForSeq2Seq if completion_only else DataCollatorForLanguageModeling
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(output_dir=out, **arguments(args)),
            train_dataset=rows,
            data_collator=collate(tokenizer, **({} if completion_only else {"mlm": False})),
        )
        return second_pass(trainer, args)


def trl(args: argparse.Namespace) -> dict[str, float]:
    """Its defaults: loss on the completion only, padded batches."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer, model, pairs = loaded(args)
    reply = [[{"role": "assistant", "content": pair.completion}] for pair in pairs]
    rows = Dataset.from_dict({"prompt": [pair.messages for pair in pairs], "completion": reply})
    with tempfile.TemporaryDirectory() as out:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(output_dir=out, max_length=2048, **arguments(args)),
            train_dataset=rows,
            processing_class=tokenizer,
        )
        return second_pass(trainer, args)


CONTENDERS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "edgedc": lambda args: edgedc(args, packing=False),
    "edgedc --packing": lambda args: edgedc(args, packing=True),
    "Trainer, whole text": lambda args: transformers(args, completion_only=False),
    "Trainer, completion": lambda args: transformers(args, completion_only=True),
    "TRL SFTTrainer": trl,
}


def loaded(args: argparse.Namespace) -> tuple[Any, Any, list[Any]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from train.fitting.base import with_adapter
    from train.sets.pairs import read_pairs
    from train.settings import TrainSettings

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.folder / "base")
    model = AutoModelForCausalLM.from_pretrained(args.folder / "base", dtype=torch.float32)
    if args.tuning == "lora":
        model = with_adapter(model, TrainSettings())
    return tokenizer, model, read_pairs(args.folder / "rows.jsonl", "S_D-T", "compact-1", None)[0]


def arguments(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    return {
        "max_steps": 2 * args.steps,
        "per_device_train_batch_size": args.batch_size,
        "learning_rate": 2e-5,
        "lr_scheduler_type": "cosine",
        "gradient_checkpointing": False,
        "bf16": precision() == "bfloat16",
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_steps": 10,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def precision() -> str:
    import torch

    return "bfloat16" if torch.cuda.is_available() else "float32"


def second_pass(trainer: Any, args: argparse.Namespace) -> dict[str, float]:
    import torch
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    at = {}

    class Clock(TrainerCallback):
        def on_step_end(self, given: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if state.global_step in (args.steps, 2 * args.steps):
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                at[state.global_step] = clock()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Clock())
    trainer.train()
    return {"seconds": at[2 * args.steps] - at[args.steps], "peak_memory_bytes": peak_memory()}


def clock() -> float:
    """Seconds: of the wall on a GPU; on a CPU those that this process, with its one thread, has computed."""
    import torch

    return time.monotonic() if torch.cuda.is_available() else time.process_time()


def peak_memory() -> int:
    """Of the GPU where there is one, else of this process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
