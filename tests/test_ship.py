"""What `edgedc export` does beyond a plain bundle: adapters, calibration, --max-drop, raw prompts, precisions."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import demonstrations, write_rows
from safetensors.numpy import load_file, save_file
from test_export import edit_json, make_model

from edgedc.backends import open_backend
from edgedc.backends.onnx_graph import has_cuda
from edgedc.bundle import read_manifest, verify
from edgedc.cli import cli
from edgedc.errors import GateError, InputError
from export.artifacts import make_onnx
from export.gate.candidates import Measured
from export.gate.gate import THRESHOLDS
from export.gguf.tensors import read_tensors
from train.fitting.sft import train
from train.merge import merge
from train.settings import MergeSettings, TrainSettings

QUESTION = demonstrations(8)[6]["question"]


def export(*args: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, args)])


@pytest.fixture(scope="module")
def adapter(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ship")
    data = write_rows(folder / "rows.jsonl", demonstrations(8)[6:])
    settings = TrainSettings(base=str(model_folder), max_steps=60, batch_size=2, learning_rate=1e-2, threads=1)
    train(data, folder / "adapter", settings, lambda _: None)
    return folder / "adapter"


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "questions.jsonl", [{"question": row["question"]} for row in demonstrations(6)])


def test_an_adapter_is_added_while_its_base_is_read(adapter: Path, model_folder: Path, tmp_path: Path) -> None:
    known = write_rows(tmp_path / "known.jsonl", [{"question": row["question"]} for row in demonstrations(8)[6:]])
    order = ("--adapter", adapter, "--quantization", "f16", "--prompts", known)
    done = export(*order, model_folder, tmp_path / "bundle")
    assert done.exit_code == 0, done.exception
    merge(adapter, tmp_path / "merged", MergeSettings())
    assert export("--no-gate", "--quantization", "f16", tmp_path / "merged", tmp_path / "other").exit_code == 0

    manifest = read_manifest(tmp_path / "bundle")
    (ours,), (merged,) = manifest.artifacts, read_manifest(tmp_path / "other").artifacts
    assert (manifest.method, ours.passed, ours.gate["token_ids"]) == ("S_D-T", True, 1.0)
    one, other = tmp_path / "bundle" / ours.path, tmp_path / "other" / merged.path
    assert [t.name for t in read_tensors(one)] == [t.name for t in read_tensors(other)]
    size = sum(tensor.weights for tensor in read_tensors(one) if tensor.is_matrix) * 2
    assert _bits_apart(one, other, size) <= 1  # a unit in the last place of f16


def _bits_apart(one: Path, other: Path, size: int) -> int:
    """The largest difference between the matrices of two f16 GGUFs, in units of the last place."""
    import numpy as np
    from gguf import GGUFReader

    most, compared = 0, 0
    others = {tensor.name: tensor.data for tensor in GGUFReader(other).tensors}
    for tensor in GGUFReader(one).tensors:
        if tensor.data.dtype == np.float16:
            a, b = (data.view(np.int16).astype(np.int32) for data in (tensor.data, others[tensor.name]))
            most, compared = max(most, int(np.abs(a - b).max())), compared + tensor.data.nbytes
    assert compared == size
    return most


def test_an_adapter_alone(adapter: Path, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "adapter.gguf"
    assert export("--adapter", adapter, "--adapter-only", model_folder, out).exit_code == 0
    assert all(tensor.name.endswith((".lora_a", ".lora_b")) for tensor in read_tensors(out))
    assert isinstance(export("--adapter-only", model_folder, out).exception, InputError)
    more = export("--adapter", adapter, "--adapter-only", "--max-drop", "1%", model_folder, out)
    assert str(more.exception).endswith("leave out --max-drop")
    assert export("--adapter", adapter, "--adapter-only", model_folder, out).exit_code == 0  # over its own
    (tmp_path / "mine.gguf").write_bytes(b"GGUF of mine")
    for place in (tmp_path / "absent" / "adapter.gguf", tmp_path / "folder.gguf", tmp_path / "mine.gguf"):
        (tmp_path / "folder.gguf").mkdir(exist_ok=True)
        refused = export("--adapter", adapter, "--adapter-only", model_folder, place)
        assert isinstance(refused.exception, InputError)
        assert str(refused.exception).startswith(f"{place}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter.gguf", "folder.gguf", "mine.gguf"]
    assert (tmp_path / "mine.gguf").read_bytes() == b"GGUF of mine"


@pytest.mark.parametrize("flags", [("--prompts", None), ("--no-gate", "--calibrate", None)])
def test_questions_that_fill_the_context_are_told_before_the_work(flags, model_folder: Path, tmp_path: Path) -> None:
    long = write_rows(tmp_path / "long.jsonl", [{"id": "1", "question": "How long is it, and how wide? " * 400}])
    result = export(*(flag or long for flag in flags), model_folder, tmp_path / "out")
    assert isinstance(result.exception, InputError)
    assert "asked 'How long is it, and how wide? How long i' it reads 5619 tokens, all of its context of 1024" in str(
        result.exception
    )
    assert [path.name for path in tmp_path.iterdir()] == ["long.jsonl"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--adapter", "nowhere"], "nowhere: no adapter_config.json"),
        (["--format", "onnx", "--max-drop", "1%"], "--calibrate and --max-drop are about GGUF"),
        (["--max-drop", "1%", "--no-gate"], "leave out --no-gate"),
        (["--max-drop", "much"], "max-drop 'much': not a share"),
        (["--quantization", "iq2_xs"], "iq2_xs needs an importance matrix: give --calibrate"),
        (["--calibrate", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--format", "onnx", "--precision", "fp16"], "no fp16 graph that runs on a CPU"),
        (["--llama-cpp", "nowhere"], "--llama-cpp nowhere: not needed"),
        (["--quantization", "f16,F32", "--calibrate", "any.jsonl"], "fits quantised types, and f16, f32 is none"),
    ],
)
def test_what_cannot_be_ordered_is_said_before_the_work(
    flags: list[str], said: str, model_folder: Path, tmp_path: Path
) -> None:
    done = export(*flags, model_folder, tmp_path / "out")
    assert isinstance(done.exception, InputError), done.output
    assert said in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_an_adapter_for_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", hidden=128)
    foreign = Path(shutil.copytree(adapter, tmp_path / "foreign"))
    (foreign / "manifest.json").unlink()  # as peft writes it
    done = export("--adapter", foreign, base, tmp_path / "out")
    assert isinstance(done.exception, InputError)
    assert "wrong adapter for this base" in str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "foreign"]


@pytest.mark.parametrize("how", [("--no-gate", "--quantization", "f16"), ("--adapter-only",)])
def test_an_adapter_for_other_weights_of_the_same_shape_is_refused(
    adapter: Path, model_folder: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    base = Path(shutil.copytree(model_folder, tmp_path / "base"))
    weights = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(weights[:-2] + bytes(2))
    flags, out = ("--adapter", adapter, *how), tmp_path / "out.gguf"
    done = export(*flags, base, out)
    assert isinstance(done.exception, InputError)
    assert f"{adapter}: was trained on other weights than {base} has" in str(done.exception)
    (base / "model.safetensors").write_bytes(weights)
    assert export(*flags, base, out).exit_code == 0


def test_what_is_wrong_with_a_base_is_told_of_the_base(adapter: Path, model_folder: Path, tmp_path: Path) -> None:
    """Base and adapter are put together in a folder of links, of which nobody need know."""
    base = Path(shutil.copytree(model_folder, tmp_path / "base"))
    edit_json(base / "config.json", hidden_act="gelu")
    assert str(export("--adapter", adapter, base, tmp_path / "out").exception).startswith(f"{base / 'config.json'}: ")
    edit_json(base / "config.json", model_type="mamba")
    assert str(export("--adapter", adapter, base, tmp_path / "out").exception).startswith(f"{base}: --adapter ")


def test_types_are_fitted_to_the_questions(model_folder: Path, questions: Path, tmp_path: Path) -> None:
    flags = ("--quantization", "iq2_xs,q8_0", "--calibrate", questions, "--no-gate")
    assert export(*flags, model_folder, tmp_path / "out").exit_code == 0
    for artifact in read_manifest(tmp_path / "out").artifacts:
        assert artifact.details["calibrated"]["prompts"] == 6
    report = json.loads((tmp_path / "out" / "export_report.json").read_text())
    types = {row["quantization"]: row["tensors"]["blk.0.ffn_down.weight"]["type"] for row in report["artifacts"]}
    assert types == {"iq2_xs": "iq2_xs", "q8_0": "q8_0"}


def test_the_smallest_type_that_loses_no_more_than_allowed(model_folder: Path, questions: Path, tmp_path: Path) -> None:
    done = export("--max-drop", "0.2", "--prompts", questions, model_folder, tmp_path / "out")
    assert done.exit_code == 0, done.exception
    (artifact,) = read_manifest(tmp_path / "out").artifacts
    *tried, kept = artifact.details["candidates"]
    assert kept["quantization"] == artifact.quantization
    assert (kept["passed"], artifact.passed) == (True, True)
    assert all(row["bytes"] <= artifact.bytes and not row["passed"] for row in tried)
    assert [path.suffix for path in (tmp_path / "out").glob("*.gguf")] == [".gguf"]


def test_a_type_that_was_tried_in_vain_stays_where_it_was_kept(
    model_folder: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert export("--no-gate", "--quantization", "q2_k,q8_0", model_folder, out).exit_code == 0
    before = read_manifest(out)
    monkeypatch.setattr("export.ship.candidate_types", lambda *_, **__: ["q2_k", "q4_0"])
    monkeypatch.setattr(
        "export.ship.measured",
        lambda _folder, artifact, *_: Measured(artifact, float(artifact.quantization != "q2_k"), None, None, None),
    )
    done = export("--max-drop", "1%", "--prompts", questions, model_folder, out)
    assert done.exit_code == 0, done.exception
    manifest = read_manifest(out)
    assert [a.quantization for a in manifest.artifacts] == ["q8_0", "q4_0", "q2_k"]
    assert (manifest.artifacts[0], manifest.artifacts[2]) == before.artifacts
    for artifact in manifest.artifacts:
        verify(out, artifact)


def test_a_model_without_a_chat_template_runs_on_raw_prompts(questions: Path, tmp_path: Path) -> None:
    """What a random model goes on to say hangs by a thread, so its text is not looked at."""
    model = make_model(tmp_path / "model", max_position_embeddings=2048)
    (model / "chat_template.jinja").unlink()
    export(
        "--format", "gguf", "--format", "onnx", "--quantization", "f32", "--prompts", questions, model, tmp_path / "out"
    )
    manifest = read_manifest(tmp_path / "out")
    assert manifest.chat_template_sha256 is None
    assert not (tmp_path / "out" / "chat_template.jinja").exists()
    for artifact in manifest.artifacts:
        gate = artifact.gate
        assert (gate["rendered"], gate["token_ids"], gate["special_ids"], gate["template"]) == (1.0, 1.0, True, True)
        assert gate["kl"] < 1e-4
    _, backend = open_backend(tmp_path / "out", threads=1)
    assert backend.name.endswith("(no chat template: raw prompts)")
    assert backend.render([{"role": "user", "content": "Why?"}]) == "Why?\n"
    backend.close()


def test_a_template_that_was_lost_is_not_raw_prompts(model_folder: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(model_folder, tmp_path / "model"))
    (model / "chat_template.jinja").unlink()
    done = export(model, tmp_path / "out")
    assert isinstance(done.exception, InputError)
    assert "no chat template" in str(done.exception)


def test_precisions_stand_beside_each_other(model_folder: Path, questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = export("--format", "onnx", "--precision", "int8,INT4", "--prompts", questions, model_folder, out)
    assert done.exit_code == 0, done.exception
    for_cuda = ("--format", "onnx", "--precision", "int4,fp16", "--provider", "cuda")
    cuda = export(*for_cuda, "--prompts", questions, model_folder, out)
    assert cuda.exit_code == 0, cuda.exception
    made = {artifact.quantization: artifact for artifact in read_manifest(out).artifacts}
    assert {name for name, artifact in made.items() if artifact.passed} == {"int8", "int4", "int4-cuda", "fp16-cuda"}
    assert made["int4"].details["builder"].startswith("onnxruntime-genai")
    assert len({artifact.path for artifact in made.values()}) == 4
    _, backend = open_backend(out, threads=1)
    assert backend.name == "onnxruntime int4"
    if has_cuda():
        return  # it was gated there, and runs there
    assert made["fp16-cuda"].gate["limits"] == THRESHOLDS["fp16"].__dict__
    assert [line.split()[-4:] for line in cuda.stdout.splitlines() if "cuda/" in line] == [
        ["yes", "(on", "a", "CPU)"]
    ] * 2
    assert "| passed (on a CPU) |" in (out / "README.md").read_text("utf-8")
    looked = CliRunner().invoke(cli, ["doctor", str(out)])
    assert looked.exit_code == 0
    (line,) = [line for line in looked.stdout.splitlines() if "smoke prompt" in line and "int4-cuda" in line]
    assert "skipped" in line
    assert "a graph for CUDA, and onnxruntime offers no CUDA here" in line


@pytest.mark.skipif(has_cuda(), reason="this onnxruntime offers CUDA")
def test_a_graph_that_no_cpu_can_run_is_not_gated_and_says_so(questions: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "qwen", "qwen3", max_position_embeddings=4096)  # the norms of queries, in attention
    for_cuda = ("--format", "onnx", "--precision", "fp16", "--provider", "cuda")
    done = export(*for_cuda, "--prompts", questions, model, tmp_path / "out")
    assert done.exit_code == 0, done.exception
    assert "onnx-fp16-cuda/model.onnx: not gated (no GPU), and a CPU cannot run it" in done.stderr
    assert "not gated (no GPU)" in done.stdout
    assert "Graphs for CUDA that no CPU can run were not compared" in (tmp_path / "out" / "README.md").read_text(
        "utf-8"
    )
    (made,) = read_manifest(tmp_path / "out").artifacts
    assert (made.passed, made.gate, made.details["not_gated"]) == (None, {}, "no GPU")


def test_a_graph_for_cuda_that_is_not_the_model_fails_its_gate(
    model_folder: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(model_folder, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    name = next(name for name in weights if name.endswith("1.mlp.down_proj.weight"))
    save_file(weights | {name: -weights[name]}, other / "model.safetensors", {"format": "pt"})
    monkeypatch.setattr("export.ship.make_onnx", lambda _, *args: make_onnx(other, *args))
    for_cuda = ("--format", "onnx", "--precision", "fp16", "--provider", "cuda")
    done = export(*for_cuda, "--prompts", questions, model_folder, tmp_path / "out")
    assert isinstance(done.exception, GateError)
    (made,) = read_manifest(tmp_path / "out").artifacts
    assert made.passed is False
    assert "kl" in made.gate["failed"]
