"""ONNX graphs of every precision say what the model says, through onnxruntime alone and through GenAI's generator."""

import json
import multiprocessing
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_export import edit_json, make_model

from edgedc.backends.onnx import OnnxBackend
from edgedc.backends.transformers import TransformersBackend
from edgedc.child import in_child
from edgedc.decomposition import parse
from edgedc.errors import ContextError, EdgedcError, InputError, MissingExtra
from edgedc.generation import Message
from edgedc.prompts import decompose_messages
from edgedc.tasks.microworld import problems
from export.onnx import genai
from export.onnx.to_onnx import check_onnx, check_precision, to_onnx

CONTEXT = 200
QUESTIONS = [decompose_messages(p.question, style="compact-1", cap=5) for p in problems("train", 6)]
KINDS = (("fp32", "cpu"), ("int8", "cpu"), ("int4", "cpu"), ("fp16", "cuda"))
OPTIMUM = ("fp32", "optimum")
needs_optimum = pytest.mark.skipif(
    find_spec("optimum") is None, reason="optimum, which needs transformers 4.57, is not installed"
)
EVERY = (*KINDS, pytest.param(OPTIMUM, marks=needs_optimum))
# How often the likeliest token must be the model's, after every token of six prompts and replies.
# A graph that computes something else agrees in a fifth of them, by what all replies have in common.
AGREEMENT = {"fp32": 1.0, "fp16": 0.99, "int8": 0.96, "int4": 0.9}


class Export:
    def __init__(self, model: Path, folder: Path, precision: str, provider: str) -> None:
        self.folder = folder
        self.names, self.details = to_onnx(model, folder, precision.upper(), provider.upper(), context_length=CONTEXT)
        self.backend = OnnxBackend(folder / "model.onnx", model, threads=1)


@pytest.fixture(scope="module")
def exports(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Export]:
    """Graphs for CUDA run on the CPU too: the same operators, in float16. OPTIMUM where it is installed."""
    root = tmp_path_factory.mktemp("onnx")
    made = {kind: Export(model_folder, root / "-".join(kind), *kind) for kind in KINDS}
    if find_spec("optimum"):
        made[OPTIMUM] = Export(by_optimum(model_folder, root / "model"), root / "optimum", "fp32", "cpu")
    return made


def by_optimum(model: Path, copy: Path) -> Path:
    """The same model, with a rope that the builder does not make, and that is no other in so short a context."""
    shutil.copytree(model, copy)
    edit_json(copy / "config.json", rope_scaling={"rope_type": "dynamic", "factor": 1.0})
    return copy


@pytest.fixture(scope="module")
def reference(model_folder: Path) -> TransformersBackend:
    return TransformersBackend(model_folder, threads=1)


@pytest.mark.parametrize("kind", EVERY)
def test_every_precision_decomposes_as_the_model_does(kind, exports, reference) -> None:
    backend = exports[kind].backend
    agreed = []
    for messages in QUESTIONS:
        reply = reference.generate(messages, max_tokens=80).text
        got = backend.generate(messages, max_tokens=80).text
        assert parse(got).status == "decomposed"
        assert got == reply  # it knows these by heart, so no two tokens are near each other
        ids = reference.encode(messages) + reference.tokenize(reply)
        expected, scores = (b.logits(ids, start=0) for b in (reference, backend))
        assert scores.shape == expected.shape
        assert scores.dtype == np.float32
        agreed.append(scores.argmax(-1) == expected.argmax(-1))
    assert np.concatenate(agreed).mean() >= AGREEMENT[kind[0]]


def test_genais_generator_says_the_same(exports, families) -> None:
    """Of a random model too, which does not stop, and whose tokens hang on every bit."""
    import onnxruntime_genai

    random = families[-1]
    backends = {exports[kind].folder: exports[kind].backend for kind in KINDS if kind[1] == "cpu"}
    backends[random / "onnx"] = OnnxBackend(random / "onnx" / "model.onnx", random, threads=1)
    for folder, backend in backends.items():
        model = onnxruntime_genai.Model(str(folder))
        tokenizer = onnxruntime_genai.Tokenizer(model)
        for messages in QUESTIONS[:2]:
            ids = backend.encode(messages)
            assert tokenizer.encode(backend.render(messages)).tolist() == ids
            generator = onnxruntime_genai.Generator(model, onnxruntime_genai.GeneratorParams(model))
            generator.append_tokens(ids)
            reply = []
            while not generator.is_done():  # at an end token, or at max_length
                generator.generate_next_token()
                reply.append(int(generator.get_next_tokens()[0]))
            ours = backend.complete(ids, max_tokens=backend.context_length - len(ids))
            assert ours.usage.output_tokens == len(reply)
            assert ours.text == backend.text_of(reply[:-1] if ours.finish_reason == "stop" else reply)


def test_the_context_is_the_bundles(exports, model_folder) -> None:
    trained = json.loads((model_folder / "config.json").read_text("utf-8"))["max_position_embeddings"]
    assert trained > CONTEXT
    for kind in KINDS:
        config = json.loads((exports[kind].folder / "genai_config.json").read_text("utf-8"))
        assert (config["model"]["context_length"], config["search"]["max_length"]) == (CONTEXT, CONTEXT)
        assert (config["search"]["do_sample"], config["search"]["num_beams"]) == (False, 1)
        backend = exports[kind].backend
        assert config["model"]["eos_token_id"] == list(backend.special_ids().ends)
        assert backend.context_length == CONTEXT
        prompt = backend.tokenize("word " * CONTEXT)
        with pytest.raises(ContextError, match=rf"may have 7.*{CONTEXT}"):
            backend.complete(prompt, max_tokens=7)
        assert backend.complete(prompt[: CONTEXT - 20], max_tokens=20).usage.output_tokens >= 1


def test_the_details_say_what_was_made(exports) -> None:
    for kind, export in exports.items():
        details = export.details
        assert (details["precision"], details["provider"]) == (kind if kind in KINDS else ("fp32", "cpu"))
        assert export.names[: 1 + len(details["external_data"])] == ["model.onnx", *details["external_data"]]
        assert sorted(path.name for path in export.folder.iterdir()) == sorted(export.names)
        assert details["opset"] >= 14
        assert details["builder"].startswith("optimum-onnx " if kind == OPTIMUM else "onnxruntime-genai ")
        assert details["nodes"] < 100 or kind == OPTIMUM
    sizes = [sum((exports[k].folder / f).stat().st_size for f in exports[k].names[:2]) for k in KINDS]
    assert sizes[2] < sizes[1] < sizes[0]


@pytest.mark.parametrize("kind", [("fp32", "cpu"), ("int4", "cpu"), EVERY[-1]])
def test_a_common_beginning_is_computed_once(kind, exports) -> None:
    backend = exports[kind].backend
    backend.generate([Message(role="user", content="?")], max_tokens=1)
    cold = [backend.generate(messages, max_tokens=60) for messages in QUESTIONS[:2]]
    again = [backend.generate(messages, max_tokens=60) for messages in QUESTIONS[:2]]
    assert [g.text for g in again] == [g.text for g in cold]
    assert 0 < cold[1].usage.cached_tokens < cold[1].usage.input_tokens
    same = backend.generate(QUESTIONS[1], max_tokens=60)
    assert same.text == cold[1].text
    assert same.usage.cached_tokens == same.usage.input_tokens - 1


FAMILIES: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 16, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "qwen2": {},
    "qwen3": {},
    "gemma3_text": {"sliding_window": 16, "num_hidden_layers": 7},
    "gemma3_text-untied": {"sliding_window": 4096},  # longer than the context; the rope is of such a layer all the same
    "llama": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
}


def _build(models: list[Path]) -> Iterator[None]:
    for model in models:
        out = model / "onnx"
        out.mkdir()
        genai.build(str(model), out, "int8", "cpu", 400)
        yield


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Random models, each with its int8 graph in onnx/."""
    root = tmp_path_factory.mktemp("families")
    models = [make_model(root / family, family, **config) for family, config in FAMILIES.items()]
    list(in_child("building", _build, models))
    return models


def test_every_family_that_is_accepted_is_built_right(families: list[Path]) -> None:
    accepted = {json.loads((m / "config.json").read_text("utf-8"))["architectures"][0] for m in families}
    assert accepted == set(genai.ROPE_TYPES)
    ids = list(range(5, 85))
    for model in families:
        genai.check_model(model, "int4")
        built = OnnxBackend(model / "onnx" / "model.onnx", model, threads=1).logits(ids, start=0)
        expected = TransformersBackend(model, threads=1).logits(ids, start=0)
        assert (built.argmax(-1) == expected.argmax(-1)).mean() > 0.7, model.name


def test_a_killed_child_leaves_nothing(model_folder: Path, tmp_path: Path) -> None:
    raised: list[EdgedcError] = []

    def export() -> None:
        try:
            to_onnx(model_folder, tmp_path / "out", "int4")
        except EdgedcError as error:
            raised.append(error)

    worker = threading.Thread(target=export)
    worker.start()
    while worker.is_alive() and not list(tmp_path.glob(".onnx.*/*")):  # until it writes
        time.sleep(0.01)
    multiprocessing.active_children()[0].kill()
    worker.join()
    assert "exporting to ONNX: killed by SIGKILL" in str(raised[0])
    assert not list(tmp_path.iterdir())
    Path(str(raised[0]).rpartition(" ")[2]).unlink()


@pytest.mark.parametrize(
    ("precision", "provider", "said"),
    [
        ("int3", "cpu", "precision 'int3' is not supported yet; known: fp32, fp16, int8, int4"),
        ("int4", "tpu", "unknown provider 'tpu'; known: cpu, cuda"),
        ("FP16", "cpu", "fp16 for cpu: .* use int8 or fp32"),
        ("fp32", "CUDA", "fp32 for cuda: .* with provider cpu"),
    ],
)
def test_what_makes_no_sense_is_refused(precision: str, provider: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_precision(precision, provider)


def _config(**changes: object) -> Callable[[Path], None]:
    return lambda model: edit_json(model / "config.json", **changes)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_config(architectures=["MambaForCausalLM"]), r"config\.json: .* not proven for MambaForCausalLM, only for"),
        (_config(architectures=None), "not proven for None"),
        (_config(rope_scaling=YARN), "would drop the rope scaling 'yarn' of LlamaForCausalLM"),
        (_config(rope_scaling={"type": "linear", "factor": 2.0}), "rope scaling 'linear'"),
        (_config(rope_parameters={"full_attention": YARN}), "rope scaling 'yarn'"),
        (_config(head_dim=24), "multiple of 16 numbers, not with 24; export it as fp32 or to GGUF"),
        (_config(sliding_window=100), "sliding window of 100 tokens"),  # no Llama's, but the builder takes it
        (
            _config(
                architectures=["Qwen2ForCausalLM"],
                model_type="qwen2",
                use_sliding_window=True,
                sliding_window=100,
                max_window_layers=1,
            ),
            "would give other layers of Qwen2ForCausalLM the sliding window",
        ),
        (
            _config(
                architectures=["Gemma3ForCausalLM"],
                model_type="gemma3_text",
                sliding_window=100,
                layer_types=["sliding_attention", "full_attention"],
            ),
            "would give other layers of Gemma3ForCausalLM",
        ),
        (
            _config(
                architectures=["Gemma3ForCausalLM"],
                model_type="gemma3_text",
                sliding_window=4096,
                layer_types=["sliding_attention", "full_attention"],
            ),
            "would give other layers of Gemma3ForCausalLM",
        ),
        (_config(quantization_config={"quant_method": "gptq"}), "quantised already"),
        (_config(auto_map={"AutoModel": "x.y"}), "auto_map"),
        (lambda model: (model / "pytorch_model.bin").write_bytes(b"x"), "pickled"),
    ],
)
def test_a_model_that_would_be_built_wrong_is_refused(damage, said, model_folder: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(model_folder, tmp_path / "model"))
    damage(model)
    for export in (lambda: check_onnx(model, "int4"), lambda: to_onnx(model, tmp_path / "out", "int4")):
        with pytest.raises(InputError, match=said) as caught:
            export()
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("4.57.6", "0.18.0", "needs transformers 5"), ("4.57.6", "0.15.2", ""), ("5.24.0", "0.18.0", "")],
)
def test_a_builder_that_transformers_is_too_old_for_is_named(old, new, said, model_folder, monkeypatch) -> None:
    monkeypatch.setattr(genai, "version", {"transformers": old, "onnxruntime-genai": new}.get)
    if said:
        with pytest.raises(InputError, match=f"{new} {said}, and {old} is installed: run  pip install"):
            check_onnx(model_folder, "fp32")
    else:
        check_onnx(model_folder, "fp32")


@needs_optimum
def test_what_only_optimum_exports_names_its_extra(model_folder, tmp_path, monkeypatch) -> None:
    model = by_optimum(model_folder, tmp_path / "model")
    check_onnx(model, "fp32")
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name.startswith("optimum") else find_spec(name)
    )
    with pytest.raises(MissingExtra, match=r"optimum-onnx is not installed: run  pip install 'edgedc\[optimum\]'"):
        check_onnx(model, "fp32")
    check_onnx(model_folder, "fp32")


def test_what_transformers_5_has_saved_is_not_sent_to_optimum(model_folder: Path, tmp_path: Path) -> None:
    """Which has transformers 4.57 installed, and that refuses the folder."""
    model = by_optimum(model_folder, tmp_path / "model")
    edit_json(model / "tokenizer_config.json", tokenizer_class="TokenizersBackend")
    with pytest.raises(InputError, match=r"saved by transformers 5, and optimum-onnx, .*: export it to GGUF, or train"):
        check_onnx(model, "fp32")


def test_rows_that_int4_cannot_pack_are_refused_before_the_work(tmp_path: Path) -> None:
    model = make_model(tmp_path / "odd", "llama", intermediate_size=80)  # three blocks of 32
    with pytest.raises(InputError, match=r"down_proj.weight has rows of 80 numbers, .*export it as int8"):
        check_onnx(model, "int4")
    check_onnx(model, "int8")
    check_onnx(make_model(tmp_path / "even", "llama", intermediate_size=100), "int4")


@needs_optimum
def test_rope_that_changes_with_the_length_is_refused(model_folder: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(model_folder, tmp_path / "model"))
    factors = {"short_factor": [1.0] * 32, "long_factor": [4.0] * 32, "factor": 4.0}
    edit_json(model / "config.json", rope_scaling={"rope_type": "longrope", **factors})
    check_onnx(model, "fp32")  # one length for all of its context
    edit_json(model / "config.json", original_max_position_embeddings=256)
    with pytest.raises(InputError, match=r"config\.json: rope scaling 'longrope' changes beyond 256 tokens.*as it is"):
        check_onnx(model, "fp32")
    edit_json(model / "config.json", architectures=["Phi3ForCausalLM"], model_type="phi3")
    with pytest.raises(InputError, match="to GGUF"):
        check_onnx(model, "fp32")


@pytest.mark.parametrize(
    ("rope", "advice"),
    [
        ({"rope_type": "yarn", "factor": 2.0}, "export it as fp32 or to GGUF"),
        ({"rope_type": "dynamic", "factor": 2.0}, "export it as fp32"),
        ({"rope_type": "longrope"}, "run it as it is, with --backend transformers"),
    ],
)
def test_what_is_advised_instead_of_a_built_graph_is_not_refused_too(rope, advice, model_folder, tmp_path) -> None:
    model = Path(shutil.copytree(model_folder, tmp_path / "model"))
    edit_json(model / "config.json", rope_scaling=rope, original_max_position_embeddings=256)
    with pytest.raises(InputError, match=f"; {advice}$"):
        check_onnx(model, "int8")


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 100},
        {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "sliding_window": 100},  # switched off
        {"sliding_window": 4096},  # longer than the context
    ],
)
def test_windows_that_the_builder_has_too_are_accepted(change, model_folder: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(model_folder, tmp_path / "model"))
    edit_json(model / "config.json", **change)
    check_onnx(model, "int4")


@pytest.mark.parametrize("package", ["onnxruntime-genai", "onnx-ir"])
def test_without_the_builder_the_command_is_named(package, model_folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    with pytest.raises(MissingExtra, match=rf"{package} .* pip install 'edgedc\[export\]'"):
        to_onnx(model_folder, tmp_path / "out", "int4")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_cannot_be_run_is_named(exports, model_folder, tmp_path) -> None:
    folder = Path(shutil.copytree(exports["int4", "cpu"].folder, tmp_path / "int4"))
    graph, config = folder / "model.onnx", folder / "genai_config.json"
    row = json.loads(config.read_text("utf-8"))
    row["model"]["decoder"]["head_size"] = 48
    config.write_text(json.dumps(row), "utf-8")
    with pytest.raises(InputError, match=r"model\.onnx: onnxruntime cannot run it"):
        OnnxBackend(graph, model_folder)
    config.write_text('{"model": {}}', "utf-8")
    with pytest.raises(InputError, match=r"genai_config\.json: no context_length"):
        OnnxBackend(graph, model_folder)
    config.unlink()
    with pytest.raises(InputError, match=r"genai_config\.json: missing"):
        OnnxBackend(graph, model_folder)
    (folder / "model.onnx.data").unlink()
    with pytest.raises(InputError, match=r"model\.onnx: onnxruntime cannot load it"):
        OnnxBackend(graph, model_folder)
