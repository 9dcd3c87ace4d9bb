"""`--compile` and the attention of short rows: the same losses and files in less time, or one line before any work."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import demonstrations, write_rows
from safetensors.torch import load_file

from train.fitting.base import attention, base_dtype, uses_bf16
from train.fitting.launch import train
from train.settings import TrainSettings

QUICK = TrainSettings(
    from_scratch="nano",
    vocabulary=512,
    max_steps=6,
    batch_size=4,
    checkpoint_every=2,
    precision="float32",
    threads=1,
)
ROOT = Path(__file__).parents[1]
COMPILED = ["-m", "edgedc", "train", "--compile", "--from-scratch", "nano", "--vocabulary", "512", "--max-steps", "6"]
COMPILED += ["--batch-size", "4", "--checkpoint-every", "2", "--precision", "float32", "--threads", "1"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", demonstrations(14))


def run(rows: Path, out: Path, **changes: Any) -> tuple[list[float], dict[str, torch.Tensor], list[Any]]:
    """Losses, weights, and what stands in the configs beside them."""
    trained = train(rows, out, dataclasses.replace(QUICK, **changes), lambda progress: None, lambda warning: None)
    (weights,) = out.glob("*.safetensors")
    configs = [json.loads(path.read_text()) for path in sorted(out.glob("*config.json"))]
    return [loss for _, loss in trained.losses], load_file(weights), configs


def test_the_attention_of_short_rows_changes_no_loss_and_no_file(rows, tmp_path) -> None:
    if torch.cuda.is_available():
        pytest.skip("on a GPU one kernel is best for all rows")
    lengths = {"eager": 640, None: 641}  # None: PyTorch's kernel
    made = {}
    for name, length in lengths.items():
        assert attention(dataclasses.replace(QUICK, max_length=length)) == name
        made[name] = run(rows, tmp_path / str(name), max_length=length)
    (losses, weights, configs), (their_losses, their_weights, their_configs) = made.values()
    assert losses == pytest.approx(their_losses, rel=1e-3)
    assert weights.keys() == their_weights.keys()
    assert configs == their_configs


@pytest.mark.parametrize(("generation", "made_for_it"), [(7, False), (8, True)])  # T4 and V100; A100 and later
def test_a_gpu_that_only_imitates_bfloat16_is_given_float32(monkeypatch, generation, made_for_it) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: SimpleNamespace(major=generation))
    monkeypatch.setattr("torch.cuda._check_bf16_tensor_supported", lambda _: True)
    monkeypatch.setattr("train.fitting.base.is_flash_attn_2_available", lambda: True)
    automatic = dataclasses.replace(QUICK, precision="auto", packing=True)
    assert uses_bf16(automatic) == made_for_it
    assert base_dtype() == (torch.bfloat16 if made_for_it else torch.float32)
    assert attention(automatic) == ("flash_attention_2" if made_for_it else None)
    assert attention(dataclasses.replace(automatic, fsdp=True)) is None
    assert uses_bf16(dataclasses.replace(QUICK, precision="bfloat16"))


def test_without_a_compiler_it_is_one_line_before_any_work(rows, tmp_path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU needs another compiler")
    environment = {k: v for k, v in os.environ.items() if k != "CXX"} | {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *COMPILED, str(rows), str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("edgedc: --compile: PyTorch cannot compile here: ")
    assert "install a C++ compiler (g++, or the one that CXX names)" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"validation": 3, "validation_every": 3, "validation_questions": 1},
        {"packing": True, "accumulation": 2, "gradient_checkpointing": True},
        {"from_scratch": None},
        {"num_processes": 2},
    ],
    ids=["measured", "packed, in parts, checkpointed", "lora", "two processes"],
)
def test_compiled_it_learns_the_same_and_writes_the_same_files(rows, tmp_path, changes) -> None:
    losses, weights, configs = run(rows, tmp_path / "compiled", compile=True, **changes)
    their_losses, their_weights, their_configs = run(rows, tmp_path / "plain", **changes)
    assert losses == pytest.approx(their_losses, rel=1e-3)
    assert weights.keys() == their_weights.keys()
    for name, weight in weights.items():
        alike = torch.isclose(weight.float(), their_weights[name].float(), rtol=1e-2, atol=1e-3)
        assert alike.float().mean() > 0.999, name
    assert configs == their_configs


@pytest.mark.slow
def test_compiled_a_killed_run_ends_with_the_same_weights(rows, tmp_path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [*COMPILED, "--validation", "2", "--validation-questions", "1", str(rows)]
    killed, whole = ([sys.executable, *words, str(tmp_path / name)] for name in ("killed", "whole"))
    process = subprocess.Popen(killed, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(tmp_path.glob(".killed.*.work/checkpoint-2")):
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed").exists()
    for command in (killed, whole):
        subprocess.run(command, env=environment, capture_output=True, check=True)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole"))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
