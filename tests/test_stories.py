"""Real weights: stories260K, a pretrained Llama, tells its published story through every artifact."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgedc.backends.llamacpp import LlamaCppBackend
from edgedc.backends.onnx import OnnxBackend
from edgedc.backends.transformers import as_its_file_has_it
from export.gguf.to_gguf import to_gguf
from export.onnx.to_onnx import to_onnx

BOS = 1


def read_checkpoint(path: Path) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """config.json's sizes and the weights, of a version 0 checkpoint of llama2.c (export.py there).

    Seven int32, then the float32 of each kind of tensor, all layers in a row. Its rotary embedding turns neighbouring
    pairs of rows; transformers' turns the first half of a head with the second.
    """
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "vocab_size", "max_position_embeddings")  # fmt: skip
    header = np.fromfile(path, "<i4", len(names))
    sizes = dict(zip(names, map(int, header), strict=True))
    wide, deep, layers, heads, kv_heads, words, _ = map(int, header)
    head = wide // heads
    kinds = {
        "model.embed_tokens": (words, wide),
        "input_layernorm": (wide,),
        "self_attn.q_proj": (wide, wide),
        "self_attn.k_proj": (kv_heads * head, wide),
        "self_attn.v_proj": (kv_heads * head, wide),
        "self_attn.o_proj": (wide, wide),
        "post_attention_layernorm": (wide,),
        "mlp.gate_proj": (deep, wide),
        "mlp.down_proj": (wide, deep),
        "mlp.up_proj": (deep, wide),
        "model.norm": (wide,),
    }
    values, tensors = np.fromfile(path, "<f4", offset=header.nbytes), {}
    for kind, shape in kinds.items():
        for name in [kind] if kind.startswith("model.") else [f"model.layers.{k}.{kind}" for k in range(layers)]:
            tensor, values = values[: math.prod(shape)].reshape(shape), values[math.prod(shape) :]
            if kind in ("self_attn.q_proj", "self_attn.k_proj"):
                tensor = tensor.reshape(-1, head // 2, 2, wide).swapaxes(1, 2).reshape(shape)
            tensors[f"{name}.weight"] = np.ascontiguousarray(tensor)
    assert values.size == sizes["max_position_embeddings"] * head  # the table of cosines and sines ends the file
    return sizes, tensors


@pytest.fixture(scope="module")
def stories(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaTokenizerFast

    folder = tmp_path_factory.mktemp("stories") / "stories260K"
    sizes, tensors = read_checkpoint(data_folder / "stories260K" / "stories260K.bin")
    config = LlamaConfig(**sizes, rms_norm_eps=1e-5, tie_word_embeddings=True, architectures=["LlamaForCausalLM"])
    config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(data_folder / "stories260K" / "tok512.model", folder / "tokenizer.model")
    as_its_file_has_it(LlamaTokenizerFast.from_pretrained(folder), folder).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0]['content'] }}")
    return folder


@pytest.fixture(scope="module")
def published(data_folder: Path) -> str:
    return (data_folder / "stories260K" / "greedy_from_bos.txt").read_text("utf-8").strip()


def test_the_gguf_tells_the_published_story(stories: Path, published: str, tmp_path: Path) -> None:
    to_gguf(stories, tmp_path / "stories.gguf", "stories260K", "f16")
    backend = LlamaCppBackend(tmp_path / "stories.gguf", threads=1)
    told = backend.complete([BOS], max_tokens=256).text
    backend.close()
    assert told.strip() == published


def test_the_onnx_graph_tells_the_published_story(stories: Path, published: str, tmp_path: Path) -> None:
    # Heads of 8 are optimum's.
    pytest.importorskip("optimum", reason="optimum, which needs transformers 4.57, is not installed")
    to_onnx(stories, tmp_path, "fp32")
    backend = OnnxBackend(tmp_path / "model.onnx", stories, threads=1)
    told = backend.complete([BOS], max_tokens=256).text
    backend.close()
    assert told.strip() == published
