"""On an NVIDIA GPU: training in bfloat16 comes to what the CPU comes to, and what was exported for CUDA runs there.

`make test-gpu` runs these, no other target does, and they have not met a GPU yet. Every command is a process
of its own, as CUDA does not live on in one that is forked.
"""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import demonstrations, write_rows
from safetensors.torch import load_file

from edgedc.backends.onnx_graph import has_cuda
from edgedc.bundle import read_manifest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU that torch can use"),
]
ROOT = Path(__file__).parents[1]
QUICK = ("--max-steps", "12", "--batch-size", "4", "--threads", "1")
NANO = (*QUICK, "--from-scratch", "nano", "--vocabulary", "512")
# Of losses, and of the norm of the weights: bfloat16 keeps 8 bits, and a GPU adds in whatever order it comes to.
LOSS, WEIGHTS = 0.02, 0.01


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", demonstrations(14))


def start(*words: object, on_cpu: bool = False) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {})
    command = [sys.executable, "-m", "edgedc", *map(str, words)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def edgedc(*words: object, on_cpu: bool = False) -> None:
    process = start(*words, on_cpu=on_cpu)
    _, said = process.communicate()
    assert process.returncode == 0, said


def trained(rows: Path, out: Path, *words: object, on_cpu: bool = False) -> tuple[list[float], dict[str, Any]]:
    """Losses of the steps that were logged, and all that training.json has."""
    edgedc("train", *words, rows, out, on_cpu=on_cpu)
    record = json.loads((out / "training.json").read_text())
    return [entry["loss"] for entry in record["history"] if "loss" in entry], record


def assert_same_weights(one: Path, other: Path) -> None:
    (name,) = (path.name for path in one.glob("*.safetensors"))
    ours, theirs = (load_file(folder / name) for folder in (one, other))
    assert ours.keys() == theirs.keys()
    for key, weight in ours.items():
        apart = (weight.float() - theirs[key].float()).norm()
        assert apart <= WEIGHTS * theirs[key].float().norm() + 1e-3, key


@pytest.mark.parametrize(
    "words",
    [NANO, (*NANO, "--packing"), QUICK, (*NANO, "--accumulation", "2", "--gradient-checkpointing")],
    ids=["from scratch", "packed", "lora on the demo's base", "in parts"],
)
def test_the_losses_are_the_cpus(rows: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    losses, record = trained(rows, tmp_path / "gpu", *words)
    expected, theirs = trained(rows, tmp_path / "cpu", *words, "--precision", "float32", on_cpu=True)
    assert record["device"] == torch.cuda.get_device_name()
    assert theirs["device"] == "cpu"
    assert losses == pytest.approx(expected, rel=LOSS)
    assert losses[-1] < losses[0]
    assert record["peak_memory_bytes"] > 0


def test_compiled_the_losses_are_the_same(rows: Path, tmp_path: Path) -> None:
    losses, _ = trained(rows, tmp_path / "compiled", *NANO, "--compile")
    assert losses == pytest.approx(trained(rows, tmp_path / "plain", *NANO)[0], rel=LOSS)


@pytest.mark.skipif(find_spec("flash_attn") is None, reason="flash_attn is not installed")
def test_packed_rows_take_flash_attention(rows: Path, tmp_path: Path) -> None:
    losses, _ = trained(rows, tmp_path / "packed", *NANO, "--packing")
    assert losses == pytest.approx(trained(rows, tmp_path / "plain", *NANO)[0], rel=LOSS)


def test_a_killed_run_goes_on_to_the_same_weights(rows: Path, tmp_path: Path) -> None:
    words = (*NANO, "--checkpoint-every", "3", "--validation", "2", "--validation-every", "6", rows)
    edgedc("train", *words, tmp_path / "whole")
    process = start("train", *words, tmp_path / "killed")
    while not list(tmp_path.glob(".killed.*.work/checkpoint-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed").exists()
    edgedc("train", *words, tmp_path / "killed")
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (extra qlora)")
def test_a_base_in_4_bits_is_adapted_and_merged(rows: Path, tmp_path: Path) -> None:
    losses, _ = trained(rows, tmp_path / "adapter", *QUICK, "--tuning", "qlora")
    assert losses[-1] < losses[0]
    edgedc("merge", tmp_path / "adapter", tmp_path / "merged")


@pytest.mark.skipif(not has_cuda(), reason="this onnxruntime has no CUDA (extra onnx-gpu)")
@pytest.mark.skipif(find_spec("onnxruntime_genai") is None, reason="onnxruntime_genai is not installed (extra export)")
def test_graphs_for_cuda_pass_the_gate_there(rows: Path, tmp_path: Path, model_folder: Path) -> None:
    graphs = ("--format", "onnx", "--provider", "cuda", "--precision", "fp16,int4")
    edgedc("export", *graphs, "--prompts", rows, model_folder, tmp_path / "bundle")
    made = read_manifest(tmp_path / "bundle").artifacts
    assert {(a.quantization, a.passed, a.gate["ran_on"]) for a in made} == {
        ("fp16-cuda", True, "cuda"),
        ("int4-cuda", True, "cuda"),
    }
    edgedc("doctor", tmp_path / "bundle")
