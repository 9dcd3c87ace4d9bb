"""Safetensors are read as they were written; what breaks the format's rules is refused before a number is read."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from edgedc.errors import InputError
from export.model.weights import MAX_HEADER, open_weights

A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B = {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]}


def write(folder: Path, header: object, numbers: bytes, name: str = "model.safetensors") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + numbers)
    return folder


def read_all(folder: Path) -> dict[str, "np.ndarray[Any, Any]"]:
    return {name: tensor.read() for name, tensor in open_weights(folder).items()}


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_all(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text("abc._", min_size=1, max_size=8),
        hnp.arrays(
            st.sampled_from([np.float32, np.float16]),
            hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
            elements={"allow_nan": False, "allow_infinity": False},
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_safetensors_writes_is_read_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    read = read_all(folder)
    assert set(read) == set(tensors)
    for name, values in tensors.items():
        assert read[name].dtype == values.dtype
        assert read[name].shape == values.shape
        assert read[name].tobytes() == values.tobytes()


def test_bfloat16_is_widened_without_loss(tmp_path: Path) -> None:
    halves = np.array([0x3F80, 0xC040, 0x0001, 0x7F7F], np.uint16)
    write(tmp_path, {"x": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}, halves.tobytes())
    values = open_weights(tmp_path)["x"].read()
    assert values.dtype == np.float32
    assert np.array_equal(values.view(np.uint32) >> 16, halves)
    assert values[:2].tolist() == [1.0, -3.0]


HEADERS: dict[str, tuple[object, str]] = {
    "a gap": ({"a": A, "b": {**B, "shape": [2], "data_offsets": [28, 32]}}, "b has a gap before it"),
    "an overlap": ({"a": A, "b": {**B, "data_offsets": [20, 28]}}, "b lies over another tensor"),
    "twice the same numbers": ({"a": A, "c": A, "b": B}, "lies over another tensor"),
    "bytes left over": ({"a": A}, "8 bytes behind the last tensor"),
    "an end behind the file's": ({"a": A, "b": {**B, "shape": [8], "data_offsets": [24, 40]}}, "truncated: b ends 8"),
    "a shape of other numbers": ({"a": {**A, "shape": [2, 2]}, "b": B}, "the entry of a contradicts itself"),
    "a huge shape": ({"a": {**A, "shape": [2**62, 2**62, 3]}, "b": B}, "the entry of a contradicts itself"),
    "a shape that wraps around": ({"a": {**A, "shape": [2**62, 4, 0]}, "b": B}, "the entry of a contradicts itself"),
    "many dimensions": ({"a": {**A, "shape": [1] * 900 + [6]}, "b": B}, "entry of 'a' is malformed"),
    "a negative size": ({"a": {**A, "shape": [-2, -3]}, "b": B}, "entry of 'a' is malformed"),
    "a size that is text": ({"a": {**A, "shape": ["2", 3]}, "b": B}, "entry of 'a' is malformed"),
    "a size that is true": ({"a": {**A, "shape": [6, True]}, "b": B}, "entry of 'a' is malformed"),
    "offsets the wrong way": ({"a": {**A, "data_offsets": [24, 0]}, "b": B}, "contradicts itself"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 24]}, "b": B}, "entry of 'a' is malformed"),
    "a line break in a name": ({"a\nb": A, "b": B}, r"entry of 'a\nb' is malformed"),
    "a name twice": (
        b'{"a":' + json.dumps(A).encode() + b',"a":' + json.dumps(A).encode() + b"}",
        "names a tensor twice",
    ),
    "F64": ({"a": {"dtype": "F64", "shape": [4], "data_offsets": [0, 32]}}, "a is stored as 'F64'"),
    "I64": ({"a": {"dtype": "I64", "shape": [4], "data_offsets": [0, 32]}}, "a is stored as 'I64'"),
    "F8": ({"a": {"dtype": "F8_E4M3", "shape": [32], "data_offsets": [0, 32]}}, "a is stored as 'F8_E4M3'"),
    "a list": ([A, B], "its header is not a JSON object"),
    "nested deeply": (b"[" * 100_000, "its header is not a JSON object"),
    "not JSON": (b"\xff\xfe{}", "its header is not a JSON object"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_breaks_the_rules_is_refused(name: str, tmp_path: Path) -> None:
    header, said = HEADERS[name]
    assert said in refusal(write(tmp_path, header, bytes(32)))


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = (write(tmp_path, {"a": A, "b": B}, bytes(32)) / "model.safetensors").read_bytes()
    for size in (0, 5, 8, 40, len(whole) - 32, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:size])
        assert "truncated" in refusal(tmp_path)


def test_a_length_beyond_reason_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER + 1))
        file.truncate(MAX_HEADER + 100)
    assert "its header has 25000001 bytes" in refusal(tmp_path)


@pytest.mark.parametrize(("dtype", "bits"), [("F32", 31), ("F16", 15), ("BF16", 15)])
def test_a_flipped_bit_that_makes_a_number_infinite_is_named(dtype: str, bits: int, tmp_path: Path) -> None:
    size = (bits + 1) // 8
    values = int.from_bytes({"F32": b"\0\0\x80\x3f", "F16": b"\0\x3c", "BF16": b"\x80\x3f"}[dtype], "little")  # 1.0
    flipped = (values ^ (1 << (bits - 1))).to_bytes(size, "little")  # all bits of the exponent are set
    header = {"w": {"dtype": dtype, "shape": [3], "data_offsets": [0, 3 * size]}}
    write(tmp_path, header, bytes(size) + flipped + bytes(size))
    assert "w holds NaN or infinite values" in refusal(tmp_path)


def test_a_file_that_shrinks_is_said_when_it_is_read(tmp_path: Path) -> None:
    tensor = open_weights(write(tmp_path, {"a": A, "b": B}, bytes(32)))["b"]
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(InputError, match="became shorter"):
        tensor.read()
    file.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        tensor.read()


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    for number, name in enumerate("ab"):
        save_file({name: np.full(4, number, np.float32)}, tmp_path / f"model-{name}.safetensors")
    write_index(tmp_path, {"a": "model-a.safetensors", "b": "model-b.safetensors"})
    return tmp_path


def write_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_are_one_model(sharded: Path) -> None:
    assert {name: values[0] for name, values in read_all(sharded).items()} == {"a": 0.0, "b": 1.0}
    save_file({"c": np.ones(1, np.float32)}, sharded / "model.safetensors")  # which transformers would load
    assert list(open_weights(sharded)) == ["c"]


def test_an_index_without_its_shards_is_refused(sharded: Path) -> None:
    (sharded / "model-b.safetensors").unlink()
    assert "its shard model-b.safetensors is missing" in refusal(sharded)
    shutil.copy(sharded / "model-a.safetensors", sharded / "model-b.safetensors")
    assert "a is in another shard too" in refusal(sharded)
    write_index(sharded, {"a": "model-a.safetensors", "z": "model-a.safetensors"})
    assert "its shards lack z" in refusal(sharded)
    for weight_map in (None, {}, [], {"a": 1}):
        write_index(sharded, weight_map)
        assert "not an index of safetensors shards" in refusal(sharded)
    write_index(sharded, {"a": "../other/model-a.safetensors"})
    assert "is not the name of a shard beside it" in refusal(sharded)
