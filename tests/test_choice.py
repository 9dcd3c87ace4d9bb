"""`--backend auto`: the artifact that is fastest here, measured once, kept, and said."""

import json
import math
import multiprocessing
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_export import edit_json

from edgedc.backends import Choice, choose, open_choice
from edgedc.backends.fastest import typical_seconds
from edgedc.backends.onnx import OnnxBackend
from edgedc.cli import cli
from edgedc.errors import InputError
from edgedc.solvers.loopback import Timing
from edgedc.solvers.simulated import MODEL, simulated_server
from edgedc.tasks.microworld import problems

NAMES = {"llama.cpp f16", "llama.cpp q8_0", "onnxruntime fp32"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEDC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def bundle(bundle_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))


def auto(bundle: Path, **asked: Any) -> Choice:
    return choose(bundle, threads=1, measure=True, **asked)


def kept(home: Path) -> Path:
    (path,) = (home / "speed").glob("*.json")
    return path


def edit_artifacts(bundle: Path, **by_quantization: dict[str, Any]) -> None:
    row = json.loads((bundle / "manifest.json").read_text("utf-8"))
    for artifact in row["artifacts"]:
        artifact |= by_quantization.get(artifact["quantization"], {})
    edit_json(bundle / "manifest.json", artifacts=row["artifacts"])


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_the_fastest_is_taken_and_said_and_later_not_measured_again(bundle: Path, home: Path) -> None:
    first = auto(bundle)
    row = json.loads(kept(home).read_text("utf-8"))
    assert {"llama.cpp q8_0", "onnxruntime fp32"} <= row["seconds"].keys() <= NAMES  # on a busy machine not all
    assert all(seconds > 0 for seconds in row["seconds"].values())
    assert (row["prompt_tokens"], row["reply_tokens"], row["threads"]) == (120, 48, 1)
    assert first.name == min(row["seconds"], key=row["seconds"].get)
    assert first.measured.startswith(f"fastest here: {first.name}, ")
    assert all(name in first.measured for name in NAMES)
    assert "\n" not in first.measured
    assert str(kept(home)) in first.measured

    slow = first.name
    edit_json(kept(home), seconds={**row["seconds"], slow: 9.0})
    second = auto(bundle)
    assert second.name != slow
    assert f"{slow} 9 s" in second.measured
    assert second.measured.endswith("as measured before")
    backend = open_choice(second, threads=1)
    assert backend.name == second.name
    backend.close()
    assert choose(bundle, threads=2).measured == ""


def test_figures_that_cannot_be_read_are_measured_again(bundle: Path, home: Path) -> None:
    edit_artifacts(bundle, fp32={"passed": False})
    auto(bundle)
    for damage in ("", "[1]", '{"seconds": {"llama.cpp f16": NaN}, "failed": {}}'):
        kept(home).write_text(damage)
        assert "measured now" in auto(bundle).measured
        assert "llama.cpp q8_0" in json.loads(kept(home).read_text("utf-8"))["seconds"]


def test_nothing_is_measured_where_one_is_asked_for_or_one_alone_can_run(
    bundle: Path, home: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [auto(bundle, engine="llamacpp"), auto(bundle, engine="onnx"), auto(bundle, quantization="F16")]
    assert [choice.name for choice in asked] == ["llama.cpp q8_0", "onnxruntime fp32", "llama.cpp f16"]
    assert auto(model_folder).engine == "transformers"
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    alone = auto(bundle)
    assert (alone.name, alone.note) == ("onnxruntime fp32", "llama_cpp is not installed")
    assert {choice.measured for choice in (*asked, alone)} == {""}
    assert not home.exists()


def test_what_passed_its_gate_is_compared_with_its_like_alone(bundle: Path, home: Path) -> None:
    edit_artifacts(bundle, f16={"passed": True}, q8_0={"passed": True})
    assert "fp32" not in auto(bundle).measured
    edit_artifacts(bundle, q8_0={"passed": False})
    only = auto(bundle)
    assert (only.name, only.measured) == ("llama.cpp f16", "")


def test_one_that_cannot_be_measured_is_named_and_not_taken(bundle: Path, home: Path) -> None:
    spoil(next(bundle.glob("*q8_0.gguf")))
    choice = auto(bundle)
    assert choice.name in NAMES - {"llama.cpp q8_0"}
    assert "llama.cpp q8_0 could not be measured: " in choice.measured
    assert "q8_0.gguf: changed since it was exported" in choice.measured
    assert auto(bundle).measured == choice.measured.partition(", measured now")[0] + ", as measured before"


def test_where_none_can_be_measured_the_smallest_is_taken(bundle: Path, home: Path) -> None:
    for path in (*bundle.glob("*.gguf"), bundle / "onnx" / "model.onnx"):
        spoil(path)
    choice = auto(bundle)
    assert choice.name == "llama.cpp q8_0"
    assert "the smallest is taken" in choice.measured
    assert not home.exists()
    with pytest.raises(InputError, match="changed since it was exported"):
        open_choice(choice)


def test_an_engine_that_ends_its_process_does_not_end_this_one(bundle: Path, home: Path) -> None:
    made: list[Choice] = []
    worker = threading.Thread(target=lambda: made.append(auto(bundle)))
    worker.start()
    while not multiprocessing.active_children():
        time.sleep(0.005)
    multiprocessing.active_children()[0].kill()
    worker.join()
    assert "llama.cpp q8_0 could not be measured: its process: killed by SIGKILL" in made[0].measured
    assert made[0].name in NAMES - {"llama.cpp q8_0"}


@pytest.mark.parametrize(
    "verb",
    [
        ["decompose", "How many?"],
        ["ask", "--solver-model", MODEL, "--price-as", "gpt-4o-mini", "--mode", "static", "How many?"],
        ["evaluate", "--limit", "2"],
        ["evaluate", "--limit", "2", "--decomposer", "local", "--decomposer", "gold", "--solver-model", MODEL],
    ],
    ids=["decompose", "ask", "evaluate", "evaluate with a solver"],
)
def test_every_verb_says_it_once(verb: list[str], bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_artifacts(bundle, fp32={"passed": False})
    with simulated_server(problems("test", 2), timing=Timing(0.0, 0.0)) as url:
        monkeypatch.setenv("EDGEDC_BASE_URL", url)
        done = CliRunner().invoke(cli, [*verb, "--model", str(bundle)])
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("fastest here: ") == 1


def test_where_nothing_can_be_kept_that_is_said(bundle: Path, home: Path) -> None:
    edit_artifacts(bundle, fp32={"passed": False})
    home.write_text("a file")
    choice = auto(bundle)
    assert choice.name in NAMES
    assert f"measured now, and not kept: {home}" in choice.measured


def test_two_processes_may_measure_at_once(bundle: Path, home: Path) -> None:
    edit_artifacts(bundle, fp32={"passed": False})
    code = (
        "import sys; from pathlib import Path; from edgedc.backends import choose\n"
        "print(choose(Path(sys.argv[1]), threads=1, measure=True).measured)"
    )
    command = [sys.executable, "-c", code, str(bundle)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in running]
    assert all(line.startswith("fastest here: llama.cpp ") for line in said)
    assert "llama.cpp q8_0" in json.loads(kept(home).read_text("utf-8"))["seconds"]
    assert [path.name for path in (home / "speed").iterdir()] == [kept(home).name]


@pytest.mark.parametrize("context", [2, 20, 1024])
def test_a_short_context_is_no_hindrance(context: int, bundle_folder: Path) -> None:
    backend = OnnxBackend(bundle_folder / "onnx" / "model.onnx", bundle_folder, context_length=context, threads=1)
    assert 0 < typical_seconds(backend, [5, 6, 7]) < math.inf
    backend.close()


def test_a_graph_for_cuda_runs_only_when_it_is_named_and_where_there_is_cuda(bundle: Path) -> None:
    from edgedc.backends.onnx_graph import has_cuda

    edit_artifacts(bundle, fp32={"details": {"provider": "cuda"}})
    assert "fp32" not in auto(bundle).measured
    named = auto(bundle, quantization="fp32")
    if has_cuda():
        pytest.skip("this onnxruntime offers CUDA")
    with pytest.raises(InputError, match=r"model\.onnx: made for CUDA"):
        open_choice(named)
