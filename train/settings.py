"""Every setting of teaching, training and merging, with its default and the help text of its flag."""

from dataclasses import dataclass
from typing import Any, Literal

from edgedc.flags import flag
from edgedc.prompts import MAX_SUBQUESTIONS, MAX_TOKENS_DECOMPOSE, Style

# Shapes of models made from scratch. All rows are multiples of 256, so that no k-quant falls back to another type.
_SHARED: dict[str, Any] = {"max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
PRESETS: dict[str, dict[str, Any]] = {
    "nano": _SHARED
    | {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    "tiny": _SHARED
    | {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    "small": _SHARED
    | {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
}


@dataclass(frozen=True)
class TeachSettings:
    teacher: str = flag("gold", "Teacher: a model's name, or gold for the task's own decompositions.")
    teacher_url: str = flag("", "OpenAI-compatible endpoint of the teacher.")
    max_subquestions: int | None = flag(MAX_SUBQUESTIONS, "Cap that the teacher is given.")
    max_tokens: int = flag(MAX_TOKENS_DECOMPOSE, "Longest reply of the teacher, in tokens.")
    concurrency: int = flag(4, "Questions asked at the same time.")
    max_cost: float | None = flag(None, "Stop before spending more than this, in US dollars.")
    price_as: str = flag("", "Price the teacher's tokens as this model of the price table.")


@dataclass(frozen=True)
class TrainSettings:
    base: str = flag("demo-base", "Base model: a folder, a hub id, or demo-base (ships with edgedc).")
    from_scratch: Literal["nano", "tiny", "small"] | None = flag(
        None, "Train a new Llama-shaped model of this size, with a tokenizer of its own, instead of a LoRA adapter."
    )
    vocabulary: int = flag(2048, "Largest vocabulary of a tokenizer made from scratch; a multiple of 256.")
    prompt_style: Style = flag("compact-1", "Prompt that the student is trained on and runs with.")
    max_subquestions: int | None = flag(MAX_SUBQUESTIONS, "Cap in the student's prompt.")
    epochs: float = flag(3.0, "Passes over the data.")
    max_steps: int = flag(-1, "Stop after so many steps; -1: by epochs.")
    batch_size: int = flag(32, "Rows per step.")
    learning_rate: float = flag(2e-3, "Peak learning rate; cosine decay after 3 % warm-up.")
    max_length: int = flag(1024, "Longest row in tokens; a longer one is an error, never cut.")
    lora_rank: int = flag(16, "Rank of the adapter.")
    lora_alpha: int = flag(32, "Scale of the adapter.")
    lora_dropout: float = flag(0.0, "Dropout in the adapter.")
    checkpoint_every: int = flag(500, "Steps between checkpoints; a rerun goes on from the last one.")
    threads: int | None = flag(None, "CPU threads; default: all cores.")
    seed: int = flag(0, "Seed of weights, order and dropout.")


@dataclass(frozen=True)
class MergeSettings:
    dtype: Literal["float16", "bfloat16", "float32"] = flag("float16", "Type of the merged weights.")
