"""The model that artifacts are compared with is held in what fits into memory, or the export says what is needed."""

import math
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import demonstrations, write_rows
from safetensors.numpy import load_file
from test_export import make_model

from edgedc.bundle import read_manifest
from edgedc.cli import cli
from edgedc.errors import EdgedcError
from export.gate.gate import THRESHOLDS, Limits, limits_for
from export.gate.memory import available_memory, reference_bytes, reference_dtype


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("memory") / "tiny", max_position_embeddings=2048)


def said_for(model: Path, free: int | None) -> tuple[str, list[str]]:
    said: list[str] = []
    return reference_dtype(model, free, said.append), said


def test_this_machine_has_memory() -> None:
    free = available_memory()
    assert free is not None
    assert 1 << 27 < free < 1 << 50


def test_memory_is_what_linux_says_else_all_that_the_machine_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("export.gate.memory.Path", lambda _: tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal:       16 kB\nMemAvailable:    7 kB\n")
    assert available_memory() == 7168
    (tmp_path / "meminfo").unlink()
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert available_memory() == 4_096_000
    monkeypatch.delattr(os, "sysconf")
    assert available_memory() is None


def test_float32_where_it_fits_else_16_bits_else_an_error(model: Path) -> None:
    whole, half = reference_bytes(model, "float32"), reference_bytes(model, "bfloat16")
    weights = (model / "model.safetensors").stat().st_size  # in float32
    assert whole - half == pytest.approx(weights / 2, rel=0.01)
    assert reference_bytes(model, "float16") == half
    assert said_for(model, None) == said_for(model, whole) == ("float32", [])
    dtype, (line,) = said_for(model, whole - 1)
    assert dtype == "bfloat16"
    assert line.startswith("reference: held in bfloat16, 0.4 GB (float32 needs 0.4 GB, and 0.4 GB are available): no")
    needed = r"needs about 0\.4 GB of memory \(bfloat16; float32 0\.4 GB\), and 0\.4 GB are available: .*--no-gate"
    with pytest.raises(EdgedcError, match=needed):
        said_for(model, half - 1)


def test_what_a_model_takes_is_counted_from_its_weights(model: Path) -> None:
    """Each weight, the largest matrix once more while it is merged, and the scores of 512 tokens twice."""
    shapes = [tensor.shape for tensor in load_file(model / "model.safetensors").values()]
    sizes = [math.prod(shape) for shape in shapes]
    scored = 512 * max(shape[0] for shape in shapes)  # as a rule the most rows are the vocabulary's
    assert reference_bytes(model, "float32") == 400_000_000 + 4 * (sum(sizes) + max(sizes) + 2 * scored)


def test_sixteen_bits_are_those_that_are_stored(model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model)
    for dtype in (torch.float16, torch.bfloat16):
        folder = tmp_path / str(dtype)
        loaded.to(dtype).save_pretrained(folder)
        assert said_for(folder, reference_bytes(folder, "float32") - 1)[0] == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_no_limit_is_tighter_than_that_of_the_reference(dtype: str) -> None:
    rounded = THRESHOLDS[{"bfloat16": "bf16", "float16": "f16"}[dtype]]
    for name, own in THRESHOLDS.items():
        limits = limits_for(name, dtype)
        assert limits_for(name) == own
        assert limits.kl == max(own.kl, rounded.kl)
        assert (limits.text, limits.top1) == (min(own.text, rounded.text), min(own.top1, rounded.top1))


def test_what_was_held_in_16_bits_is_said(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = reference_bytes(model_folder, "float32") - 1
    monkeypatch.setattr("export.ship.available_memory", lambda: free)
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": row["question"]} for row in demonstrations(4)])
    out = tmp_path / "out"
    flags = ["--quantization", "f16,q2_k", "--prompts", str(questions)]
    done = CliRunner().invoke(cli, ["export", *flags, str(model_folder), str(out)])
    assert done.exit_code == 0, done.exception
    assert "reference: held in float16, 0.4 GB" in done.stderr  # as it is stored
    whole, small = (artifact.gate for artifact in read_manifest(out).artifacts)
    assert whole["reference_dtype"] == small["reference_dtype"] == "float16"
    assert Limits(**whole["limits"]) == THRESHOLDS["f16"]
    assert Limits(**small["limits"]) == THRESHOLDS["q2_k"]
    assert 0 < whole["kl"] <= THRESHOLDS["f16"].kl
    assert "For want of memory the model was held in float16" in (out / "README.md").read_text("utf-8")


def test_too_little_memory_is_said_before_any_work(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.ship.available_memory", lambda: 300_000_000)
    done = CliRunner().invoke(cli, ["export", str(model), str(tmp_path / "out")])
    assert isinstance(done.exception, EdgedcError)
    assert str(done.exception).startswith(f"{model}: comparing with it needs about 0.4 GB")
    assert not list(tmp_path.iterdir())
    done = CliRunner().invoke(cli, ["export", "--no-gate", "--quantization", "f16", str(model), str(tmp_path / "out")])
    assert done.exit_code == 0, done.exception
