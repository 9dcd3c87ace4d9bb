"""Builds graphs with the model builder of ONNX Runtime GenAI: few nodes, of contrib operators.

What it makes is run by onnxruntime alone, or by GenAI's own generator, for which genai_config.json and the tokenizer
stand beside the graph. https://onnxruntime.ai/docs/genai/howto/build-model.html
"""

import json
import math
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgedc.bundle import check_model_folder
from edgedc.errors import InputError
from edgedc.files import read_object

from ..model.families import read_head_size, read_windows
from ..model.weights import open_weights
from .first_score import add_first_score
from .ways import other_ways, rope_types

# The architectures whose graphs were compared with transformers', and the rope scalings that reach the graph. The
# builder (0.15.2, 0.18.0) drops others without a word, and builds graphs for other architectures that compute something
# else.
ROPE_TYPES = {
    "LlamaForCausalLM": ("default", "llama3"),
    "MistralForCausalLM": ("default", "linear"),
    "Qwen2ForCausalLM": ("default", "linear"),
    "Qwen3ForCausalLM": ("default", "linear"),
    "Gemma3ForCausalLM": ("default",),
}

# int8 cannot quantise an embedding that the output layer shares. Of int4's methods k_quant_mixed, which gives the
# sensitive matrices eight bits, keeps the model's text; the default one visibly does not.
OPTIONS = {"int8": {"shared_embeddings": "false"}, "int4": {"algo_config": "k_quant_mixed"}, "fp16": {}, "fp32": {}}

HEAD = 16  # what the numbers of a head are to be a multiple of, for the operator that the builder takes (1.31.1)
BLOCK = 32  # how many numbers of a row share a scale in the builder's int4

# GenAI's tokenizer reads them where the graph is.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")

GREEDY = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 1,
    "top_p": 1.0,
}


def check_versions() -> None:
    """Raises InputError for a builder that cannot be imported beside the transformers that is installed."""
    old, new = version("transformers"), version("onnxruntime-genai")
    if int(old.split(".")[0]) < 5 and tuple(map(int, new.split(".")[:2])) > (0, 15):
        raise InputError(
            f"onnxruntime-genai {new} needs transformers 5, and {old} is installed: run  "
            "pip install 'onnxruntime-genai<0.16'"
        )


def check_model(model: Path, precision: str) -> None:
    """Raises InputError for a model whose graph the builder cannot make, or would make wrong. Reads no weights."""
    check_model_folder(model)
    config = read_object(model / "config.json")
    architecture = next(iter(config.get("architectures") or ()), None)
    if architecture not in ROPE_TYPES:
        raise InputError(
            f"{model / 'config.json'}: ONNX Runtime GenAI's builder is not proven for {architecture}, only for "
            f"{', '.join(ROPE_TYPES)}; {other_ways(model)}"
        )
    if "quantization_config" in config:
        raise InputError(f"{model / 'config.json'}: the model is quantised already; export the one it was made from")
    for kind in sorted(rope_types(config) - set(ROPE_TYPES[architecture])):
        raise InputError(
            f"{model / 'config.json'}: ONNX Runtime GenAI's builder would drop the rope scaling {kind!r} of "
            f"{architecture}; {other_ways(model)}"
        )
    if (head := read_head_size(model)) % HEAD:
        raise InputError(
            f"{model / 'config.json'}: ONNX Runtime computes attention with heads of a multiple of {HEAD} numbers, not "
            f"with {head}; {other_ways(model)}"
        )
    windows = read_windows(model)
    # The builder (0.15.2) gives the named window to every layer, but for every sixth of a Gemma, whose ropes go by that
    # too. The gate's questions are shorter than most windows, and cannot tell.
    gemma = architecture == "Gemma3ForCausalLM"
    built = tuple(not gemma or layer % 6 > 0 for layer in range(1, len(windows.sliding) + 1))
    if windows.sliding != built and (gemma or windows.named < windows.context):
        raise InputError(
            f"{model / 'config.json'}: ONNX Runtime GenAI's builder would give other layers of {architecture} the "
            f"sliding window of {windows.named} tokens than have it; {other_ways(model)}"
        )
    if precision == "int4":
        _check_rows(model)


def _check_rows(model: Path) -> None:
    """onnxruntime's quantiser (1.31.1) packs the zero points of two blocks of a row into a byte, and fails where one
    is left over."""
    for tensor in open_weights(model).values():
        if len(tensor.shape) == 2 and "_proj." in tensor.name and math.ceil(tensor.shape[1] / BLOCK) % 2:
            raise InputError(
                f"{tensor.file}: {tensor.name} has rows of {tensor.shape[1]} numbers, an odd count of int4's blocks of "
                f"{BLOCK}, which ONNX Runtime cannot pack; export it as int8"
            )


def build(model: str, out: Path, precision: str, provider: str, context_length: int) -> str:
    """Write model.onnx, model.onnx.data, genai_config.json and the tokenizer into `out`; return the builder's name.

    Runs nothing that came with the model and fetches nothing. Call it in a process of its own: it changes the
    environment, and prints. `context_length` is the longest sequence that the graph has rotary embeddings for.
    """
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")  # read when transformers is imported
    import onnxruntime_genai
    from onnxruntime_genai.models import builder

    # The builder takes any matrix with as many rows as the vocabulary for the output layer: in a small model's MLP too.
    builder.Model.has_lm_head = lambda self, module: module is self.weights.get_output_embeddings()
    cache = str(out / "cache")
    arguments = (None, model, str(out), precision, provider, cache)
    options: dict[str, Any] = {"hf_token": "false", "hf_remote": "false", **OPTIONS[precision]}
    # From 0.18 on a sliding layer's cache would not run with less room than its window, and our backend makes as much
    # as a prompt and its reply take.
    options["windowed_kv_cache"] = "false"
    builder.check_extra_options(*arguments, options)
    _prepare(options["hf_details"]["hf_config"], Path(model), context_length)
    builder.create_model(*arguments, **options)
    shutil.rmtree(cache, ignore_errors=True)
    _write_config(Path(model), out / "genai_config.json", context_length)
    add_first_score(out / "model.onnx")
    for name in TOKENIZER_FILES:
        (out / name).unlink(missing_ok=True)  # the builder saved the tokenizer anew
        if (Path(model) / name).is_file():
            shutil.copyfile(Path(model) / name, out / name)
    return f"onnxruntime-genai {onnxruntime_genai.__version__}"


def _prepare(config: Any, model: Path, context_length: int) -> None:
    """Say what the builder looks for elsewhere than where transformers has it."""
    # before max_position_embeddings, which yarn and others also read
    config.seq_length = context_length
    # From 0.18 on a window is given to the layers that are said to have one, which Mistral's config leaves unsaid.
    windows = read_windows(model)
    config.layer_types = ["sliding_attention" if slides else "full_attention" for slides in windows.sliding]
    ropes = getattr(config, "rope_parameters", None) or {}
    if "full_attention" in ropes:  # Gemma 3's, from transformers 5 on
        config.rope_parameters = dict(ropes["full_attention"])
        config.rope_theta = config.rope_parameters["rope_theta"]
        config.rope_local_base_freq = ropes["sliding_attention"]["rope_theta"]


def _write_config(model: Path, path: Path, context_length: int) -> None:
    """Make GenAI's generator do what our backend does: greedy, the same end tokens, never beyond the context."""
    from edgedc.backends.chat import end_tokens
    from edgedc.backends.onnx import read_tokenizer

    config = read_object(path)
    config["model"]["context_length"] = context_length
    config["model"]["eos_token_id"] = sorted(end_tokens(model, read_tokenizer(model).token_to_id))
    config["search"] |= {**GREEDY, "max_length": context_length}
    path.write_text(json.dumps(config, indent=4) + "\n", "utf-8")
