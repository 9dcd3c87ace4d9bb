"""The model shapes that are measured here, as settings of transformers' configs; and one with random weights."""

from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    # a third of SmolLM2-135M's width and layers, with its vocabulary
    "llama-29m": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
    },
    "smollm2-135m": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 2048,
    },
    "qwen2.5-0.5b": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
    },
}


def make_model(folder: Path, shape: str = "smollm2-135m") -> None:
    """Random weights and a small SentencePiece tokenizer: what every converter reads, with nothing to download."""
    import sentencepiece
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, LlamaTokenizerFast

    torch.manual_seed(0)
    config = AutoConfig.for_model(**SHAPES[shape], tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    texts = folder / "texts"
    texts.write_text("".join(f"How many pens and pencils does each of the {n} children get?\n" for n in range(2000)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(texts), model_prefix=str(folder / "tokenizer"), model_type="bpe", vocab_size=400, byte_fallback=True,
        minloglevel=2,
    )  # fmt: skip
    tokenizer = LlamaTokenizerFast(vocab_file=str(folder / "tokenizer.model"), legacy=False)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    tokenizer.save_pretrained(folder)
    texts.unlink()
    (folder / "tokenizer.vocab").unlink()
