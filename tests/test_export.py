"""GGUF and ONNX artifacts hold the model's numbers, tokenize as it does, and bad input is refused before any output."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from edgedc.backends.chat import ChatTemplate
from edgedc.backends.llamacpp import LlamaCppBackend
from edgedc.bundle import read_manifest, verify
from edgedc.cli import cli
from edgedc.errors import InputError
from export.gguf.quantize import contents
from export.gguf.to_gguf import to_gguf
from export.gguf.vocab import read_vocab
from export.model.weights import open_weights

TEXTS = ["How many apples does Tom have if he buys 12 and gives 3 away?", "The cost of 25 oranges — naïve, isn't it?"]
TEMPLATE = "{% for m in messages %}<|user|>\n{{ m['content'] }}<|end|>\n{% endfor %}<|assistant|>\n"
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
FAMILIES = ("llama", "llama-untied", "mistral", "qwen2", "qwen3")


def make_tokenizer(folder: Path, pre: str = "smollm") -> None:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    split = LLAMA3_SPLIT if pre == "llama-bpe" else LLAMA3_SPLIT.replace("{1,3}", "")
    first = {
        "smollm": [pre_tokenizers.Digits(individual_digits=True)],
        "gpt-2": [],
        "punctuation": [pre_tokenizers.Punctuation()],
    }.get(pre, [pre_tokenizers.Split(Regex(split), "isolated")])
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre in ("smollm", "gpt-2"))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, last]) if first else last
    tokenizer.decoder = decoders.ByteLevel()
    if pre == "lowercase":
        tokenizer.normalizer = normalizers.Lowercase()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)


def make_model(folder: Path, family: str = "llama", *, hidden: int = 256, seed: int = 0, **config: object) -> Path:
    """A random model with its tokenizer; its embedding has more rows than the tokenizer has tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, _, untied = family.partition("-")
    shape = {
        "vocab_size": 416, "hidden_size": hidden, "intermediate_size": 512, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": hidden // 4, "max_position_embeddings": 512,
        "tie_word_embeddings": not untied, "initializer_range": 0.1, "rope_theta": 50_000.0, "rms_norm_eps": 1e-5,
        "eos_token_id": 3, "bos_token_id": None, "pad_token_id": 0, **config,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape))
    for parameter in model.parameters():  # norms and biases that matter
        if parameter.dim() == 1:
            parameter.data.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    make_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("export") / "tiny")


@pytest.fixture
def broken(random_model: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(random_model, tmp_path / "broken"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def export(*args: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, args)])


@pytest.mark.parametrize("family", FAMILIES)
def test_gguf_holds_the_tensors_bit_for_bit(family: str, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", family)
    to_gguf(model, tmp_path / "out.gguf", "x")
    stored = {t.name: t.data for t in GGUFReader(tmp_path / "out.gguf").tensors}
    source = load_file(model / "model.safetensors")
    assert len(stored) == len(source)
    assert np.array_equal(stored["token_embd.weight"], source["model.embed_tokens.weight"].astype(np.float16))
    assert np.array_equal(stored["blk.1.ffn_norm.weight"], source["model.layers.1.post_attention_layernorm.weight"])
    key = source["model.layers.1.self_attn.k_proj.weight"].astype(np.float16)
    if not family.startswith("qwen"):  # 2 heads of 64 rows, each half interleaved with the other
        key = key[[64 * head + half + row for head in (0, 1) for row in range(32) for half in (0, 32)]]
    assert np.array_equal(stored["blk.1.attn_k.weight"], key)


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_computes_the_same_scores(family: str, tmp_path: Path) -> None:
    import llama_cpp
    import torch
    from transformers import AutoModelForCausalLM

    model = make_model(tmp_path / "model", family)
    to_gguf(model, tmp_path / "out.gguf", "x", "f32")
    ids = list(range(5, 205, 4))
    llama = llama_cpp.Llama(str(tmp_path / "out.gguf"), n_ctx=64, n_threads=1, logits_all=True, verbose=False)
    llama.eval(ids)
    got = np.array(llama.scores[: len(ids)])
    llama.close()
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(model)(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(got - expected).max() < 0.02 * expected.std()


def test_shards_and_bfloat16_are_read_exactly(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = make_model(tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    loaded.save_pretrained(tmp_path / "sharded", max_shard_size="1MB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    tensors = open_weights(tmp_path / "sharded")
    for name, expected in loaded.state_dict().items():
        if name in tensors:
            assert np.array_equal(tensors[name].read(), expected.float().numpy())
    assert len(tensors) == 20


@pytest.fixture(scope="module")
def tokenizers_of(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, object]]:
    from tokenizers import Tokenizer

    pairs = {}
    for pre in ("smollm", "gpt-2", "llama-bpe", "qwen2"):
        folder = Path(shutil.copytree(random_model, tmp_path_factory.mktemp("tokenizers") / pre))
        make_tokenizer(folder, pre)
        to_gguf(folder, folder / "out.gguf", pre)
        backend = LlamaCppBackend(folder / "out.gguf", chat=ChatTemplate(TEMPLATE, {}, "here"))
        pairs[pre] = backend, Tokenizer.from_file(str(folder / "tokenizer.json"))
    return pairs


PIECES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        ["<|end|>", "<|user|>\n", "<|end", "'ll", "'S", "  ", "\n\n", "\t", "12345", " 7", "½", "e\u0301", "é"]
    ),
)


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe", "qwen2"])
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(PIECES, max_size=8))
def test_llama_cpp_tokenizes_alike(tokenizers_of: dict[str, tuple], pre: str, pieces: list[str]) -> None:
    backend, tokenizer = tokenizers_of[pre]
    text = "".join(pieces)
    assert backend.tokenize(text) == tokenizer.encode(text, add_special_tokens=False).ids


def test_k_quants_are_what_they_say_and_fallbacks_are_told(random_model: Path, tmp_path: Path) -> None:
    done = export(
        "--no-gate", "--quantization", "Q4_K_M", "--quantization", "f16,q4_k_m", random_model, tmp_path / "out"
    )
    assert done.exit_code == 0, done.output
    assert set(contents(tmp_path / "out" / "tiny-q4_k_m.gguf").matrices) == {"q4_k", "q6_k"}
    assert [a.quantization for a in read_manifest(tmp_path / "out").artifacts] == ["f16", "q4_k_m"]
    assert "multiples of 256" not in done.output

    narrow = make_model(tmp_path / "narrow", hidden=192)
    done = export("--no-gate", "--quantization", "q4_k_m", narrow, tmp_path / "narrow-out")
    assert "not multiples of 256" in done.stderr


def test_a_second_format_joins_the_bundle_and_another_model_does_not(random_model: Path, tmp_path: Path) -> None:
    import onnxruntime

    out = tmp_path / "out"
    assert export("--no-gate", "--quantization", "q8_0", random_model, out).exit_code == 0
    done = export("--no-gate", "--format", "onnx", random_model, out)
    assert done.exit_code == 0, done.output
    manifest = read_manifest(out)
    assert [(a.format, a.quantization, a.passed) for a in manifest.artifacts] == [
        ("gguf", "q8_0", None),
        ("onnx", "fp32", None),
    ]
    for artifact in manifest.artifacts:
        verify(out, artifact)
    assert manifest.artifacts[1].details["opset"] >= 14
    onnxruntime.InferenceSession(out / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    assert "TracerWarning" not in done.output

    before = sorted(path.name for path in tmp_path.iterdir())
    other = make_model(tmp_path / "other", seed=1)
    refused = export("--no-gate", other, out)
    assert isinstance(refused.exception, InputError)
    assert "another model" in str(refused.exception)
    assert read_manifest(out) == manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "other"])


def test_an_artifact_that_somebody_removed_leaves_the_bundle(random_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export("--no-gate", "--quantization", "f16,q8_0", random_model, out).exit_code == 0
    (out / "tiny-f16.gguf").unlink()
    done = export("--no-gate", "--quantization", "q4_0", random_model, out)
    assert done.exit_code == 0, done.exception
    assert f"{out / 'tiny-f16.gguf'}: no longer there" in done.stderr
    assert [a.quantization for a in read_manifest(out).artifacts] == ["q8_0", "q4_0"]


def test_the_newest_model_is_taken_and_named(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgedc.bundle import Manifest, write_manifest

    shutil.copytree(random_model, tmp_path / "student")
    write_manifest(tmp_path / "student", Manifest(kind="model", name="org/student", base="b", method="S_D-T"))
    monkeypatch.chdir(tmp_path)
    done = export("--no-gate", "--quantization", "q8_0")
    assert done.exit_code == 0, done.output
    assert "model: student" in done.stderr
    manifest = read_manifest(tmp_path / "student-bundle")
    assert (manifest.kind, manifest.method, manifest.context_length) == ("bundle", "S_D-T", 512)
    assert (tmp_path / "student-bundle" / "org-student-q8_0.gguf").is_file()


def _truncate(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def _edit_weights(model: Path, name: str, value: float | None) -> None:
    tensors = load_file(model / "model.safetensors")
    if value is None:
        del tensors[name]
    else:
        tensors[name][0] = value
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


NORM, DOWN = "model.norm.weight", "model.layers.0.mlp.down_proj.weight"
BREAKS = {
    "truncated": (_truncate, "truncated"),
    "garbage": (lambda m: (m / "model.safetensors").write_bytes(b"\x05" * 64), "not safetensors"),
    "nan": (lambda m: _edit_weights(m, DOWN, float("nan")), f"{DOWN} holds NaN"),
    "overflow": (lambda m: _edit_weights(m, DOWN, 1e5), "beyond f16"),
    "missing tensor": (lambda m: _edit_weights(m, NORM, None), f"no tensor {NORM}"),
    "wrong shape": (lambda m: edit_json(m / "config.json", intermediate_size=500), "config.json makes it"),
    "rope scaling": (lambda m: edit_json(m / "config.json", rope_scaling={"rope_type": "yarn"}), "rope scaling 'yarn'"),
    "code": (lambda m: edit_json(m / "config.json", auto_map={"AutoModel": "x.y"}), "auto_map"),
    "pickle": (lambda m: (m / "pytorch_model.bin").write_bytes(b"x"), "pytorch_model.bin: pickled"),
    "no config": (lambda m: (m / "config.json").unlink(), "no config.json"),
    "no tokenizer": (lambda m: (m / "tokenizer.json").unlink(), "tokenizer"),
    "no end": (
        lambda m: [
            edit_json(m / name, eos_token_id=None, eos_token=None)
            for name in ("config.json", "generation_config.json", "tokenizer_config.json")
        ],
        "no end token: set eos_token",
    ),
    "pre-tokenizer": (lambda m: make_tokenizer(m, "punctuation"), "pre-tokenizer (Punctuation + ByteLevel)"),
    "normalizer": (lambda m: make_tokenizer(m, "lowercase"), "normalizer (Lowercase)"),
}


def test_what_ends_a_reply_of_the_model_ends_one_of_its_gguf(broken: Path) -> None:
    """generation_config.json and config.json need not name the same token, and the model here ends at both."""
    edit_json(broken / "config.json", eos_token_id=5)
    edit_json(broken / "generation_config.json", eos_token_id=[1, 3])
    assert read_vocab(broken, 416).ends == (3, 1, 5)  # the tokenizer's first
    edit_json(broken / "generation_config.json", eos_token_id=416)
    with pytest.raises(InputError, match="token 416 is to end a reply, and the model has the tokens 0 to 415"):
        read_vocab(broken, 416)


@pytest.mark.parametrize("name", BREAKS)
def test_a_bad_model_is_one_line_and_leaves_nothing(name: str, broken: Path, tmp_path: Path) -> None:
    damage, said = BREAKS[name]
    damage(broken)
    done = export("--no-gate", broken, tmp_path / "out")
    assert isinstance(done.exception, InputError), done.output
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--quantization", "q9_9"], "unknown quantization 'q9_9'; known: f32, f16"),
        (["--quantization", ""], "unknown quantization ''"),
        (["--format", "onnx", "--precision", "int3"], "precision 'int3' is not supported yet"),
        (["--prompts", "absent.jsonl"], "absent.jsonl"),
        (["--format", "onnx", "--quantization", "q8_0"], "--quantization has no part in this export"),
        (["--format", "onnx", "--llama-cpp", "."], "--llama-cpp has no part in this export"),
        (["--precision", "int8"], "leave it out, or add --format onnx"),
        (["--provider", "cuda"], "--provider has no part"),
        (["--no-gate", "--prompts", "absent.jsonl"], "leave it out, or leave out --no-gate"),
    ],
)
def test_a_bad_flag_is_refused_before_work(flags: list[str], said: str, random_model: Path, tmp_path: Path) -> None:
    done = export(*flags, random_model, tmp_path / "out")
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_taken_is_left_alone(random_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    done = export("--no-gate", random_model, tmp_path / "out")
    assert isinstance(done.exception, InputError)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no flock")
def test_two_exports_do_not_write_to_one_bundle(random_model: Path, tmp_path: Path) -> None:
    """The one that ended last dropped what the other had made, and said nothing."""
    import fcntl

    with (tmp_path / ".out.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = export("--no-gate", "--quantization", "q8_0", random_model, tmp_path / "out")
        assert str(refused.exception).startswith(f"{tmp_path / 'out'}: another process is writing to it")
    assert export("--no-gate", "--quantization", "q8_0", random_model, tmp_path / "out").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupt_leaves_nothing(random_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgedc", "export", "--no-gate", "--format", "gguf", "--format", "onnx"]
    with subprocess.Popen([*command, str(random_model), str(tmp_path / "out")], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while b"exporting with GenAI" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert not list(tmp_path.iterdir())
