"""Quantised GGUFs hold the types they report, calibration makes small types better, and failures leave nothing."""

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter, dequantize
from hypothesis import given
from hypothesis import strategies as st
from test_export import TEXTS, make_model

from edgedc.backends.llamacpp import LlamaCppBackend
from edgedc.decomposition import render
from edgedc.errors import EdgedcError, InputError
from edgedc.prompts import decompose_messages
from edgedc.tasks.microworld import Problem, problems
from export.gguf.imatrix import Importance, collect, importance
from export.gguf.quantize import contents, estimate, fallback, quantize, types_of
from export.gguf.tensors import StoredTensor, read_tensors
from export.gguf.to_gguf import to_gguf


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose rows are whole blocks of 256 weights, in f32."""
    folder = tmp_path_factory.mktemp("wide")
    to_gguf(make_model(folder / "model"), folder / "f32.gguf", "x", "f32")
    return folder / "f32.gguf"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("narrow")
    to_gguf(make_model(folder / "model", hidden=192), folder / "f16.gguf", "x")
    return folder / "f16.gguf"


@pytest.fixture(scope="module")
def trained(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "f16.gguf"
    to_gguf(model_folder, out, "nano")
    return out


def prompt_of(problem: Problem) -> str:
    """As the trained model's template renders it."""
    content = decompose_messages(problem.question, style="compact-1", cap=5)[0]["content"]
    return f"<|user|>\n{content}<|end|>\n<|assistant|>\n"


@pytest.fixture(scope="module")
def matrix(trained: Path) -> Importance:
    done: list[None] = []
    made = importance(trained, [prompt_of(p) for p in problems("train", 12)], 1024, lambda: done.append(None))
    assert len(done) == made.prompts == 12
    return made


def test_names_in_any_case_aliases_and_numbers() -> None:
    assert types_of("F16, q8_0,Q4_K,q4_k_m") == ["f16", "q8_0", "q4_k_m"]
    assert types_of("BF16,15,Q3_k,Q5_K,7,30") == ["bf16", "q4_k_m", "q3_k_m", "q5_k_m", "q8_0", "iq4_xs"]
    with pytest.raises(InputError, match="unknown quantization '4'"):
        types_of("4")  # a type that llama.cpp has removed
    with pytest.raises(InputError, match="iq2_xs needs an importance matrix: give --calibrate FILE"):
        types_of("q8_0,IQ2_XS")
    assert types_of("IQ2_XS", calibrated=True) == ["iq2_xs"]


def test_the_report_names_what_each_tensor_became(wide: Path, tmp_path: Path) -> None:
    out = tmp_path / "q4_k_m.gguf"
    quantize(wide, out, "q4_k_m")
    held = contents(out)
    stored = GGUFReader(out).tensors
    assert [(t.name, t.type, t.shape) for t in held.tensors] == [
        (t.name, t.tensor_type.name.lower(), tuple(t.shape.tolist())) for t in stored
    ]
    by_name = {t.name: t for t in held.tensors}
    assert (by_name["token_embd.weight"].type, by_name["token_embd.weight"].shape) == ("q6_k", (256, 416))
    assert (by_name["blk.0.attn_q.weight"].type, by_name["blk.0.attn_q.weight"].bits_per_weight) == ("q4_k", 4.5)
    assert by_name["output_norm.weight"].bits_per_weight == 32.0
    assert set(held.matrices) == {"q4_k", "q6_k"}
    weights = sum(int(t.n_elements) for t in stored)
    assert held.bits_per_weight == pytest.approx(8 * sum(int(t.n_bytes) for t in stored) / weights)
    assert fallback("q4_k_m", held) == ""


def test_narrow_rows_are_told(narrow: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    quantize(narrow, out, "q4_k_m")
    held = contents(out)
    note = fallback("q4_k_m", held)
    # per layer 4 of attention, gate and up have rows of 192; ffn_down has rows of 512
    assert held.matrices == {"q8_0": 2, "q5_0": 11, "q6_k": 1, "q4_k": 1}
    assert "not multiples of 256, so llama.cpp stored 2 as q8_0, 11 as q5_0, of 15:" in note
    assert f"{held.bits_per_weight:.2f} bits per weight" in note
    quantize(narrow, out, "q8_0")
    assert fallback("q8_0", contents(out)) == ""


@pytest.mark.parametrize("kind", ["q5_k_m", "q4_k_m", "q4_0", "q2_k"])
def test_the_size_is_foreseen(kind: str, wide: Path, narrow: Path, tmp_path: Path) -> None:
    for source in (wide, narrow):
        out = tmp_path / "out.gguf"
        quantize(source, out, kind)
        real = sum(t.weights * t.bits_per_weight / 8 for t in read_tensors(out))
        assert estimate(read_tensors(source), kind) == pytest.approx(real, rel=0.15)


def test_a_full_disk_is_foreseen(tmp_path: Path) -> None:
    source = tmp_path / "huge.gguf"
    writer = GGUFWriter(source, "llama")
    writer.add_tensor_info("blk.0.ffn_up.weight", (1 << 30, 1 << 20), np.dtype(np.float16), 1 << 51)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with pytest.raises(EdgedcError, match=r"needs about \d+ MB \(estimated from the tensors' shapes\), and \d+ MB are"):
        quantize(source, tmp_path / "out.gguf", "q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["huge.gguf"]


def test_what_cannot_be_quantised_is_one_line_and_leaves_nothing(wide: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "f32.gguf", tmp_path / "out.gguf"
    source.write_bytes(wide.read_bytes())
    with pytest.raises(InputError, match="into itself"):
        quantize(source, tmp_path / "." / "f32.gguf", "q8_0")
    with pytest.raises(InputError, match="q2_k_s needs an importance matrix"):
        quantize(source, out, "q2_k_s")
    source.write_bytes(wide.read_bytes()[:400_000])
    with pytest.raises(EdgedcError, match="corrupted or incomplete"):
        quantize(source, out, "q8_0")
    source.write_bytes(wide.read_bytes()[:2_000])
    with pytest.raises(InputError, match="cut short"):
        quantize(source, out, "q8_0")
    source.write_bytes(b"not a model")
    with pytest.raises(InputError, match="other first bytes"):
        quantize(source, out, "q8_0")
    with pytest.raises(InputError, match=r"absent\.gguf: cannot be read"):
        quantize(tmp_path / "absent.gguf", out, "q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["f32.gguf"]


@given(st.lists(st.tuples(st.integers(0, 12_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_header_is_refused_or_read(wide: Path, changes: list[tuple[int, int]]) -> None:
    path = wide.with_name("damaged.gguf")
    data = bytearray(wide.read_bytes()[:40_000])
    for place, value in changes:
        data[place] = value
    path.write_bytes(data)
    tensors: list[StoredTensor] = []
    with contextlib.suppress(InputError):
        tensors = read_tensors(path)
    assert all(tensor.weights > 0 and tensor.bits_per_weight > 0 for tensor in tensors)


def test_a_count_beyond_the_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    array = struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 1 << 60)  # a key, and 2**60 strings
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60) + array)
    with pytest.raises(InputError, match="cut short"):
        read_tensors(path)


def test_the_matrix_is_the_mean_square_of_what_each_matrix_is_given(wide: Path) -> None:
    """Against transformers: hooks on the same model's linear layers, over the same tokens."""
    import torch
    from transformers import AutoModelForCausalLM

    sequences = [list(range(5, 205, 2)), list(range(300, 270, -1))]  # the first is longer than a chunk
    got = collect(str(wide), sequences, threads=1)
    assert (got.prompts, got.tokens) == (2, 130)
    model = AutoModelForCausalLM.from_pretrained(wide.with_name("model"))
    parts = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    parts |= {"self_attn.o_proj": "attn_output"} | {
        f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")
    }
    expected: dict[str, torch.Tensor] = {}
    for layer in range(2):
        for theirs, ours in parts.items():
            name = f"blk.{layer}.{ours}.weight"

            def add(module: object, given: tuple[torch.Tensor], _: object, name: str = name) -> None:
                expected[name] = expected.get(name, 0.0) + given[0].double().square().sum(dim=(0, 1))

            model.get_submodule(f"model.layers.{layer}.{theirs}").register_forward_hook(add)
    with torch.inference_mode():
        for ids in sequences:
            model(torch.tensor([ids]))
    assert set(got.columns) == set(expected)
    for name, total in expected.items():
        assert got.columns[name] == pytest.approx((total / 130).numpy(), rel=0.02, abs=1e-7), name


def scores(gguf: Path, sequences: list[str]) -> np.ndarray:
    """Log probabilities of every next token."""
    backend = LlamaCppBackend(gguf, threads=1)
    logits = np.concatenate([backend.logits(backend.tokenize(text), start=0) for text in sequences]).astype(np.float64)
    backend.close()
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def weighted_error(gguf: Path, trained: Path, matrix: Importance) -> float:
    """Squared rounding errors of the layers' matrices, each weighed by the mean square of its input."""
    weights = [
        {t.name: dequantize(t.data, t.tensor_type) for t in GGUFReader(path).tensors if t.name in matrix.columns}
        for path in (gguf, trained)
    ]
    pairs = ((weights[0][name] - weights[1][name], columns) for name, columns in matrix.columns.items())
    return float(sum((np.square(error, dtype=np.float64) * columns).sum() for error, columns in pairs))


@pytest.mark.parametrize("kind", ["q2_k", "iq3_s", "iq4_xs"])
def test_calibration_brings_a_small_type_nearer_to_the_model(
    kind: str, trained: Path, matrix: Importance, tmp_path: Path
) -> None:
    """In what its matrices give on the prompts, and in its scores on problems that it was not calibrated on."""
    texts = [prompt_of(p) + render(p.decomposition) for p in problems("test", 8)]
    expected = scores(trained, texts)
    out = tmp_path / "out.gguf"
    kl, errors = [], []
    for given_matrix in (None, matrix):
        quantize(trained, out, kind, given_matrix)
        kl.append(np.mean((np.exp(expected) * (expected - scores(out, texts))).sum(axis=1)))
        errors.append(weighted_error(out, trained, matrix))
    assert 0 < kl[1] < kl[0]
    assert 0 < errors[1] < errors[0]


def test_types_that_need_a_matrix_are_made_with_one(trained: Path, matrix: Importance, tmp_path: Path) -> None:
    layers = {t.name for t in read_tensors(trained) if t.name.startswith("blk.") and t.is_matrix}
    assert set(matrix.columns) == layers
    quantize(trained, tmp_path / "out.gguf", "iq2_xs", matrix)
    assert contents(tmp_path / "out.gguf").matrices["iq2_xs"] > 6
    assert contents(tmp_path / "out.gguf").bits_per_weight < 3


def test_calibration_says_what_is_wrong(trained: Path, wide: Path) -> None:
    with pytest.raises(InputError, match="--calibrate a file with questions"):
        importance(trained, [], 1024)
    with pytest.raises(InputError, match="context of 16"):
        importance(trained, [TEXTS[0] * 3], 16)
