"""For every family and type, what edgedc writes is what llama.cpp's own converter writes."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from test_export import TEXTS, edit_json, make_model

from edgedc.backends.chat import ChatTemplate
from edgedc.backends.llamacpp import LlamaCppBackend
from edgedc.backends.transformers import TransformersBackend
from edgedc.bundle import read_manifest
from edgedc.cli import cli
from edgedc.errors import EdgedcError, InputError
from export.gguf.llama_cpp import KEPT, convert_with_llama_cpp, fetch, find_converter
from export.gguf.to_gguf import to_gguf
from export.model.families import is_known

pytestmark = pytest.mark.oracle

UNKNOWN, CONTROL = 2, 3  # llama.cpp's llama_token_type
KINDS = ("f32", "f16", "bf16")
LLAMA3 = {  # Llama 3.2's own
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
LINEAR = {"rope_type": "linear", "factor": 2.0}
# name -> (family as in test_export.make_model, type of the stored weights, settings)
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "float32", {}),
    "llama3": ("llama-untied", "bfloat16", {"rope_scaling": LLAMA3, "head_dim": 64, "rope_theta": 500_000.0}),
    "llama-linear": ("llama", "float16", {"rope_scaling": LINEAR, "num_key_value_heads": 4}),
    "mistral": ("mistral-untied", "float32", {"sliding_window": None, "rope_scaling": YARN}),
    "qwen2": ("qwen2", "float32", {}),
    "qwen2-yarn": ("qwen2-untied", "bfloat16", {"rope_scaling": YARN}),
    "qwen3": ("qwen3-untied", "float32", {"head_dim": 32}),
    # The official converter cuts Gemma's embedding to as many rows as tokenizer.json has entries, which is too few for
    # the tokens that it writes unless the model has just as many.
    "gemma3": (
        "gemma3_text",
        "float32",
        {"num_hidden_layers": 7, "sliding_window": 64, "query_pre_attn_scalar": 16, "vocab_size": 326},
    ),
    "gemma3-linear": (
        "gemma3_text",
        "bfloat16",
        {"rope_scaling": LINEAR, "final_logit_softcapping": 30.0, "head_dim": 32, "query_pre_attn_scalar": 32,
         "vocab_size": 326},
    ),
}  # fmt: skip

SPM = "llama-sentencepiece"
MODELS[SPM] = ("llama", "float32", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2})

# Converts all the models in one process, as importing torch and transformers takes longer than the rest. llama.cpp's
# converter knows a byte-level tokenizer by the hash of what it makes of one text, which a freshly trained one cannot
# meet; so it is told the name of the pre-tokenizer. The rest of the vocabulary it reads by itself, from the file: for
# Qwen2 transformers 5 would build a tokenizer with tokens of its own.
DRIVER = """
import json, sys, transformers
sys.path.insert(0, sys.argv[1])
transformers.AutoTokenizer.from_pretrained = transformers.PreTrainedTokenizerFast.from_pretrained
import convert_hf_to_gguf
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: "smollm"
for model, out, kind in json.loads(sys.argv[2]):
    sys.argv[1:] = [model, "--outfile", out, "--outtype", kind]
    convert_hf_to_gguf.main()
"""


def llama_cpp_source(cache: pytest.Cache) -> Path:
    """llama.cpp's own converter and the vocabularies of its tests, fetched once for all tests that compare with it."""
    given = os.environ.get("EDGEDC_LLAMA_CPP")
    version = importlib.metadata.version("llama-cpp-python")
    folder = Path(given) if given else cache.mkdir("llama.cpp") / version
    try:
        if not given and not folder.is_dir():
            fetch(version, folder, (*KEPT, "models"))
        return find_converter(folder, print)
    except (EdgedcError, KeyError) as error:
        pytest.skip(f"llama.cpp's own converter is not at hand: {error}")


@pytest.fixture(scope="module")
def llama_cpp(request: pytest.FixtureRequest) -> Path:
    return llama_cpp_source(request.config.cache)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import torch

    folder, made = tmp_path_factory.mktemp("oracle"), {}
    for name, (family, dtype, settings) in MODELS.items():
        made[name] = make_model(folder / name, family, hidden=64, intermediate_size=96, **settings)
        weights = {
            key: value.to(getattr(torch, dtype)) for key, value in load_file(made[name] / "model.safetensors").items()
        }
        save_file(weights, made[name] / "model.safetensors", metadata={"format": "pt"})
    from transformers import LlamaTokenizerFast

    alone = train_sentencepiece(made[SPM]).rename(folder / "tokenizer.model")  # beside a tokenizer.json it is not read
    LlamaTokenizerFast.from_pretrained(str(folder), pad_token="</s>", add_prefix_space=True).save_pretrained(made[SPM])
    # As Llama 2's authors wrote it, and transformers until 5.
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, space]}
    path = made[SPM] / "tokenizer.json"
    bpe = json.loads(path.read_text("utf-8"))["model"] | {"unk_token": "<unk>"}
    edit_json(path, normalizer=prepend, pre_tokenizer=None, model=bpe)
    shutil.copy(alone, made[SPM])
    return made


def train_sentencepiece(folder: Path) -> Path:
    import sentencepiece

    with (folder / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS * 20), model_writer=file, model_type="bpe", vocab_size=350, byte_fallback=True,
            hard_vocab_limit=False, normalization_rule_name="identity", minloglevel=2,
        )  # fmt: skip
    return folder / "tokenizer.model"


@pytest.fixture(scope="module")
def official(llama_cpp: Path, models: dict[str, Path]) -> dict[tuple[str, str], Path]:
    outs = {(name, kind): models[name] / f"official-{kind}.gguf" for name in models for kind in KINDS}
    orders = json.dumps([[str(models[name]), str(out), kind] for (name, kind), out in outs.items()])
    done = subprocess.run([sys.executable, "-c", DRIVER, llama_cpp, orders], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return outs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_equal_to_the_official_converter(
    name: str, kind: Any, models: dict[str, Path], official: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    to_gguf(models[name], tmp_path / "ours.gguf", name, kind)
    ours, theirs = GGUFReader(tmp_path / "ours.gguf"), GGUFReader(official[name, kind])

    stored = {t.name: t for t in ours.tensors}
    assert stored.keys() == {t.name for t in theirs.tensors}
    for expected in theirs.tensors:
        got = stored[expected.name]
        assert (got.tensor_type, list(got.shape)) == (expected.tensor_type, list(expected.shape)), expected.name
        assert np.array_equal(got.data, expected.data), expected.name

    got, expected = metadata(ours), metadata(theirs)
    assert {key: got.get(key) for key in expected} == expected
    assert {key: got[key] for key in got.keys() - expected.keys()} == implied(got, got.keys() - expected.keys())


def metadata(reader: GGUFReader) -> dict[str, Any]:
    """All that llama.cpp goes by."""
    kept = ("general.architecture", "general.type", "general.file_type", "general.quantization_version")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    fields.pop("tokenizer.ggml.add_sep_token", None)  # of BERT
    if scores := fields.get("tokenizer.ggml.scores"):
        # <unk> is found by its id and not by its type; what is no text's has no use for a score
        types = [CONTROL if kind == UNKNOWN else kind for kind in fields["tokenizer.ggml.token_type"]]
        fields["tokenizer.ggml.token_type"] = types
        pairs = zip(scores, types, strict=True)
        fields["tokenizer.ggml.scores"] = [0.0 if kind == CONTROL else score for score, kind in pairs]
    return {n: v for n, v in fields.items() if n in kept or not n.startswith(("general.", "GGUF."))}


def implied(got: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    """What llama.cpp takes by itself where the official converter leaves a key out."""
    architecture = got["general.architecture"]
    head = got[f"{architecture}.embedding_length"] // got[f"{architecture}.attention.head_count"]
    defaults = {
        f"{architecture}.attention.key_length": head,
        f"{architecture}.attention.value_length": head,
        f"{architecture}.rope.dimension_count": got[f"{architecture}.attention.key_length"],
        f"{architecture}.vocab_size": len(got["tokenizer.ggml.tokens"]),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }
    return {key: defaults[key] for key in keys}


@pytest.fixture(scope="module")
def gemma2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family that edgedc does not know, with a SentencePiece tokenizer."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    folder = tmp_path_factory.mktemp("gemma2")
    train_sentencepiece(folder)
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=400, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(folder)
    return folder


def test_another_family_goes_through_the_official_converter(llama_cpp: Path, gemma2: Path, tmp_path: Path) -> None:
    assert not is_known(gemma2)
    convert_with_llama_cpp(gemma2, tmp_path / "out.gguf", "bf16", llama_cpp)
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
    backend = LlamaCppBackend(tmp_path / "out.gguf", chat=ChatTemplate("{{ messages }}", {}, "here"), threads=1)
    ids = backend.tokenize("How many apples?")
    assert backend.complete(ids, max_tokens=3).usage.output_tokens == 3
    backend.close()


def test_its_output_goes_through_the_gate(llama_cpp: Path, gemma2: Path, tmp_path: Path) -> None:
    """What random weights go on to say hangs by a thread, so their text is not looked at."""
    from transformers import LlamaTokenizerFast

    model = Path(shutil.copytree(gemma2, tmp_path / "model"))
    LlamaTokenizerFast.from_pretrained(
        str(model), add_prefix_space=False, add_bos_token=True, legacy=False
    ).save_pretrained(model)
    for name in ("config.json", "generation_config.json"):
        edit_json(model / name, bos_token_id=1, eos_token_id=2)
    order = ("--quantization", "f16", "--llama-cpp", llama_cpp, model, tmp_path / "out")
    CliRunner().invoke(cli, ["export", *map(str, order)])
    (artifact,) = read_manifest(tmp_path / "out").artifacts
    gate = artifact.gate
    assert (gate["rendered"], gate["token_ids"], gate["special_ids"]) == (1.0, 1.0, True)
    assert gate["kl"] < 0.01


def test_what_the_official_converter_refuses_is_an_error_that_leaves_nothing(
    llama_cpp: Path, gemma2: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = Path(shutil.copytree(gemma2, tmp_path / "broken"))
    edit_json(broken / "config.json", architectures=["AbacusForCausalLM"])
    with pytest.raises(EdgedcError, match="own converter cannot convert it"):
        convert_with_llama_cpp(broken, tmp_path / "out.gguf", "f16", llama_cpp)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
    assert "AbacusForCausalLM is not supported" in capfd.readouterr().err


def test_layers_for_drafting_are_not_asked_for(tmp_path: Path) -> None:
    """transformers leaves Qwen 3.5's out of what it saves, and the converter insisted on them."""
    for kind, flags in (("qwen3_5_text", ["--no-mtp"]), ("gemma2", [])):
        model = tmp_path / kind
        model.mkdir()
        (model / "config.json").write_text(json.dumps({"model_type": kind}), "utf-8")
        script = f"import sys\nassert sys.argv[6:] == {flags}, sys.argv\nopen(sys.argv[3], 'w').write('made')\n"
        (model / "convert_hf_to_gguf.py").write_text(script, "utf-8")
        convert_with_llama_cpp(model, tmp_path / f"{kind}.gguf", "f16", model)
        assert (tmp_path / f"{kind}.gguf").read_text("utf-8") == "made"


def test_a_folder_without_the_converter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--llama-cpp .*: no convert_hf_to_gguf.py"):
        find_converter(tmp_path, print)


def test_a_source_that_cannot_be_fetched_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No package index: the fetch fails, the error says what to do, and the cache stays empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(tmp_path)), ("PIP_CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(name, value)
    said: list[str] = []
    with pytest.raises(EdgedcError, match=r"cannot be fetched: pip: .*--llama-cpp DIR"):
        find_converter(None, said.append)
    assert "once" in said[0]
    assert not list((tmp_path / "edgedc").iterdir())


OTHERS: dict[str, dict[str, Any]] = {
    "apertus": {"tie_word_embeddings": False},
    "exaone4": {"sliding_window": None, "layer_types": ["full_attention"] * 2},
    "falcon_h1": {
        "mamba_d_ssm": 128, "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_n_groups": 1,
    },
    "granite": {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22},
    "hunyuan_v1_dense": {},
    "lfm2": {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "block_auto_adjust_ff_dim": False},
    "ministral3": {},
    "olmo2": {"tie_word_embeddings": False},
    "olmo3": {"tie_word_embeddings": False, "sliding_window": 256, "rope_theta": 500_000.0},  # its own
    "qwen3_5_text": {
        "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 32, "linear_value_head_dim": 32, "linear_conv_kernel_dim": 4,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.25, "mrope_section": [2, 1, 1],
        },
    },
    "smollm3": {},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", OTHERS)
def test_other_families_compute_the_same(family: str, llama_cpp: Path, tmp_path: Path) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if family not in CONFIG_MAPPING_NAMES:
        pytest.skip(f"{family} is not in the transformers that is installed")
    model = make_model(tmp_path / "model", family, hidden=128, intermediate_size=256, **OTHERS[family])
    assert not is_known(model)
    converter = Path(shutil.copytree(llama_cpp, tmp_path / "llama.cpp"))
    (converter / "convert_hf_to_gguf.py").rename(converter / "converting.py")
    (converter / "convert_hf_to_gguf.py").write_text(
        "import converting\nfrom conversion.base import TextModel\n"
        "TextModel.get_vocab_base_pre = lambda self, tokenizer: 'smollm'  # see DRIVER\n"
        "if __name__ == '__main__':\n    converting.main()\n",
        "utf-8",
    )
    convert_with_llama_cpp(model, tmp_path / "out.gguf", "f16", converter)
    ids = list(range(5, 105))
    ours = LlamaCppBackend(tmp_path / "out.gguf", threads=1)
    wanted = TransformersBackend(model, threads=1).logits(ids, start=0)[:, : ours.logits(ids[:2], start=0).shape[1]]
    compared = [log_softmax(scores) for scores in (wanted, ours.logits(ids, start=0))]
    ours.close()
    kl = (np.exp(compared[0]) * (compared[0] - compared[1])).sum(-1).mean()
    assert kl < 1e-4, kl  # as the gate has it for f16


def log_softmax(scores: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    shifted = scores.astype(np.float64) - scores.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
