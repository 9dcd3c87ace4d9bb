"""llama.cpp on a GPU where it was compiled for one, and on the CPU alone wherever that was asked for."""

import ctypes
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_llamacpp import questions

from edgedc.backends import choose, open_choice
from edgedc.backends.llamacpp import has_gpu, model_params
from edgedc.cli import cli
from edgedc.errors import InputError

QUESTION = "How many legs do 3 cats and 2 birds have?"

gpu = pytest.mark.skipif(not has_gpu(), reason="this llama.cpp finds no GPU")


def test_on_the_cpu_llama_cpp_is_given_no_gpu_even_for_long_prompts() -> None:
    params = model_params()
    assert params.n_gpu_layers == 0
    assert ctypes.c_void_p.from_address(params.devices).value is None


def test_on_the_gpu_every_layer_is_there() -> None:
    params = model_params(gpu=True)
    assert params.n_gpu_layers < 0
    assert params.devices is None


@pytest.mark.skipif(has_gpu(), reason="this llama.cpp finds a GPU")
@pytest.mark.parametrize("verb", [["decompose", QUESTION, "--model"], ["bench", "latency"]])
def test_without_a_gpu_it_is_said_how_to_compile_for_one(bundle_folder: Path, verb: list[str]) -> None:
    done = CliRunner().invoke(cli, [*verb, str(bundle_folder), "--backend", "llamacpp-gpu"])
    assert isinstance(done.exception, InputError)
    assert re.search("finds no GPU here: .* CMAKE_ARGS=.*pip install", str(done.exception))
    assert not done.stdout


@gpu
def test_the_gpu_says_what_the_cpu_says(bundle_folder: Path) -> None:
    made = {}
    for engine in ("llamacpp", "llamacpp-gpu"):
        backend = open_choice(choose(bundle_folder, engine=engine, quantization="f16"))
        made[backend.name] = [backend.generate(messages, max_tokens=40).text for messages in questions(8)]
        backend.close()
    assert [name.split(" f16")[0] for name in made] == ["llama.cpp", "llama.cpp (GPU)"]
    on_cpu, on_gpu = made.values()
    assert on_gpu == on_cpu


@gpu
def test_doctor_asks_the_gpu_too(bundle_folder: Path) -> None:
    done = CliRunner().invoke(cli, ["doctor", str(bundle_folder)])
    assert done.exit_code == 0, done.output
    assert "smoke prompt on the GPU" in done.stdout
