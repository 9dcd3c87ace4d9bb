"""What an export takes on the disk is known before the first byte, whoever writes it."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_export import edit_json, make_model

from edgedc.bundle import Format, read_manifest
from edgedc.cli import cli
from edgedc.errors import EdgedcError
from export.model.weights import open_weights
from export.order import Order
from export.room import needed_bytes
from export.ship import ship

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module", params=["llama", "llama-untied"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = {"vocab_size": 16_384, "max_position_embeddings": 64}
    return make_model(tmp_path_factory.mktemp("room") / "wide", request.param, **shape)


def disk_of(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))


@pytest.mark.parametrize("format", ["gguf", pytest.param("onnx", marks=pytest.mark.slow)])
def test_sizes_are_foreseen(format: Format, model: Path, tmp_path: Path) -> None:
    order = Order((format,), "f32,f16,bf16,q8_0,q4_k_m,q2_k", "fp32,int8,int4", gated=False)
    foreseen = needed_bytes(order, open_weights(model), 0)
    ship(model, tmp_path / "out", order, print)
    for artifact in read_manifest(tmp_path / "out").artifacts:
        what = artifact.quantization if artifact.format == "gguf" else f"onnx {artifact.quantization}"
        size = sum((tmp_path / "out" / name).stat().st_size for name in artifact.files if "tokenizer" not in name)
        more = 2 if what == "onnx fp32" else 1.3  # which is the size at the peak
        assert 0.95 * size < foreseen[what] < more * size, what


@pytest.mark.parametrize(
    "flags",
    [
        ["--quantization", "f16"],
        ["--quantization", "q4_k_m", "--max-drop"],
        ["--format", "onnx"],
        ["--format", "onnx", "--precision", "int4"],
        ["--llama-cpp"],
    ],
)
def test_a_full_disk_is_foreseen_by_whatever_way(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path / "tiny", max_position_embeddings=2048)  # room for the gate's questions
    if "--llama-cpp" in flags:  # of a family that only llama.cpp's own converter knows; it would be asked next
        edit_json(model / "config.json", model_type="gpt_neox")
        converter = tmp_path / "llama.cpp"
        converter.mkdir()
        (converter / "convert_hf_to_gguf.py").write_text("raise SystemExit('was run')")
        flags = ["--llama-cpp", str(converter)]
    if "--max-drop" in flags:
        flags = ["--max-drop", "1%"]
    before = sorted(tmp_path.iterdir())
    disk_of(100_000, monkeypatch)
    done = CliRunner().invoke(cli, ["export", *flags, str(model), str(tmp_path / "out")])
    assert isinstance(done.exception, EdgedcError), done.exception
    assert "while it is made (" in str(done.exception)
    assert "0 MB are free: make room" in str(done.exception)
    assert sorted(tmp_path.iterdir()) == before


def test_the_gates_scores_need_room_too(model: Path) -> None:
    tensors = open_weights(model)
    asked = needed_bytes(Order(("gguf",), "f16"), tensors, 2)["the gate's scores"]
    assert asked == int(1.05 * 2 * 256 * 16_384 * 4)
    assert "the gate's scores" not in needed_bytes(Order(("gguf",), "f16", gated=False), tensors, 2)
    assert set(needed_bytes(Order(("gguf",), "f32,bf16", gated=False), tensors, 0)) == {"f32", "bf16"}  # no f16 beside
