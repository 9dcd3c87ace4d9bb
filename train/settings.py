"""Every setting of training and merging, with its default and the help text of its flag."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgedc.flags import flag, sources
from edgedc.methods import Method
from edgedc.prompts import MAX_SUBQUESTIONS, Style

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

# These change how long a run takes and what is kept on the way, and not where it leads.
WITHOUT_EFFECT = ("checkpoint_every", "threads", "sources")


@dataclass(frozen=True)
class TrainSettings:
    base: str = flag("demo-base", "Base model: a folder, a hub id, or a name in edgedc models (demo-base ships).")
    from_scratch: Literal["nano", "tiny", "small"] | None = flag(
        None, "Train a new Llama-shaped model of this size, with a tokenizer of its own, instead of a base."
    )
    vocabulary: int = flag(2048, "Largest vocabulary of a tokenizer made from scratch; a multiple of 256.")
    method: Method = flag("S_D-T", "Training set, by its name in the paper: what is made from DATA's rows.")
    held_out: Path | None = flag(None, "File of test questions that must not be trained on; edgedc knows public ones.")
    exclude_leaks: bool = flag(False, "Leave rows that are in a test split out, where they are an error otherwise.")
    prompt_style: Style = flag("compact-1", "Prompt that the student is trained on and runs with.")
    max_subquestions: int | None = flag(MAX_SUBQUESTIONS, "Cap in the student's prompt.")
    tuning: Literal["lora", "qlora", "full"] = flag(
        "lora", "An adapter, an adapter on a base held in 4 bits (by bitsandbytes), or every weight."
    )
    lora_rank: int = flag(16, "Rank of the adapter.")
    lora_alpha: int = flag(32, "Scale of the adapter.")
    lora_dropout: float = flag(0.0, "Dropout in the adapter.")
    epochs: float = flag(3.0, "Passes over the data.")
    max_steps: int = flag(-1, "Stop after so many steps; -1: by epochs.")
    batch_size: int = flag(32, "Rows per step, over all parts and processes.")
    accumulation: int = flag(1, "Parts of a batch that are worked through in turn: less memory, the same result.")
    num_processes: int = flag(
        1, "Processes of this machine that share each batch; each takes a GPU where there are some."
    )
    fsdp: bool = flag(False, "Divide the weights between the processes too (FSDP), for a model that fills a GPU.")
    packing: bool = flag(False, "Put several rows into one sequence, none of which sees another, for less padding.")
    gradient_checkpointing: bool = flag(False, "Work activations out twice instead of keeping them: less memory.")
    compile: bool = flag(False, "Have PyTorch compile the model: a minute or two first, then faster; needs a compiler.")
    precision: Literal["auto", "bfloat16", "float32"] = flag(
        "auto", "Arithmetic; auto takes bfloat16 where the hardware is made for it."
    )
    optimizer: Literal["adamw", "muon"] = flag(
        "adamw", "AdamW, or Muon for the layers' matrices: fewer steps from scratch."
    )
    learning_rate: float = flag(2e-3, "Peak learning rate; cosine decay behind the warm-up.")
    warmup: float = flag(0.03, "Share of the steps in which the learning rate rises.")
    weight_decay: float = flag(0.01, "Weight decay.")
    unlikelihood: float = flag(
        0.0, "Weight of what keeps a subquestion from going on like an earlier one that began alike; 0: none."
    )
    max_length: int = flag(1024, "Longest row in tokens; a longer one is an error, never cut.")
    validation: float = flag(
        0.0, "Questions held out to measure on, as a share below 1 or a count; the best weights of the run are kept."
    )
    validation_every: int = flag(100, "Steps between measurements on the held-out questions.")
    validation_questions: int = flag(50, "Held-out questions that are decomposed at each measurement.")
    checkpoint_every: int = flag(500, "Steps between checkpoints; a rerun goes on from the last one.")
    threads: int | None = flag(None, "CPU threads; default: all cores.")
    seed: int = flag(0, "Seed of weights, order and dropout.")
    sources: dict[str, str] = sources()


@dataclass(frozen=True)
class MergeSettings:
    dtype: Literal["float16", "bfloat16", "float32"] = flag("float16", "Type of the merged weights.")
    prompts: str = flag("", "JSONL with questions to compare merged model and adapter on. By default 16 made-up ones.")
    sources: dict[str, str] = sources()
