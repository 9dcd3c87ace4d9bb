"""Damaged headers of safetensors, GGUF and ONNX: each is refused in one line, or does no harm; no process dies of one.

A child process, with limits on its memory and on the time of each file, opens seeded mutations by what a user's command
would call, until it has refused 500 of them, and has to be alive at the end. Some say nothing that is wrong, as another
letter in a token is not: no reader can tell without a checksum, which is what bundles have. Those don't count.
"""

import random
import resource
import signal
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_export import make_model, make_tokenizer
from test_gguf_vocab import byte_level, composing, sentencepiece_like, write_model

from edgedc.child import in_child
from edgedc.errors import EdgedcError, InputError

REFUSED = 500
EDGE = 1000  # bytes
SECONDS = 20  # for one file: a hang, not a slow machine
MEMORY = 3 << 30  # of address space, which libraries take the most of
NUMBERS = (0, 1, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)
MESSAGE = [{"role": "user", "content": "How many apples?"}]


def mutate(data: bytes, header: int, seed: int) -> bytes:
    """A truncation, flipped bits, or a count, a length or a few bytes replaced, within the first `header` bytes: at its
    beginning, its end or anywhere, as a vocabulary is most of a GGUF's."""
    choose = random.Random(seed)
    edge = choose.randrange(min(header, EDGE))
    changed, at = bytearray(data), choose.choice((edge, header - 1 - edge, choose.randrange(header)))
    match seed % 6:
        case 0:
            return data[:at]
        case 1:
            changed[at] ^= 1 << choose.randrange(8)
        case 2:
            for _ in range(8):
                changed[choose.randrange(header)] = choose.randrange(256)
        case 3:
            changed[at : at + 8] = struct.pack("<Q", choose.choice(NUMBERS))
        case 4:
            changed[at : at + 4] = struct.pack("<I", choose.choice(NUMBERS) & 0xFFFFFFFF)
        case 5:
            del changed[at : at + choose.choice((1, 4, 8, 100))]
    return bytes(changed)


def open_safetensors(path: Path) -> None:
    from export.model.weights import open_weights

    for tensor in open_weights(path.parent).values():
        tensor.read()


def open_gguf(path: Path) -> None:
    from edgedc.backends.llamacpp import LlamaCppBackend

    backend = LlamaCppBackend(path, threads=1)
    try:
        backend.complete(backend.encode(MESSAGE), max_tokens=2)
    finally:
        backend.close()


def open_onnx(path: Path) -> None:
    from edgedc.backends.onnx import OnnxBackend

    backend = OnnxBackend(path, path.parent, threads=1)
    backend.complete(backend.encode(MESSAGE), max_tokens=2)


def outcomes(path: Path, opener: Callable[[Path], None], header: int, most: int) -> Iterator[str]:
    """In a child: "loads" or the error line for each mutation. Any other exception is a bug and ends it."""
    data = path.read_bytes()
    opener(path)  # whole, it loads; this also takes the libraries in before memory is limited
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    refused = 0
    for seed in range(most):
        path.write_bytes(mutate(data, header, seed))
        signal.alarm(SECONDS)
        try:
            opener(path)
            yield "loads"
        except EdgedcError as error:
            refused += 1
            yield str(error)
        signal.alarm(0)
        if refused == REFUSED:
            break
    path.write_bytes(data)
    opener(path)  # what was refused was so for what it is, and not because this process had run out of something


def check(path: Path, opener: Callable[[Path], None], header: int, most: int) -> None:
    """`most` is how many mutations it may take until so many have been refused."""
    lines = list(in_child(path.name, outcomes, path, opener, header, most))
    refused = [line for line in lines if line != "loads"]
    print(f"{path.name}: {len(refused)} of {len(lines)} refused")
    assert len(refused) == REFUSED
    for line in refused:
        assert "\n" not in line
        assert str(path.parent) in line or path.name in line
        assert len(line) < 1000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    return make_model(folder, hidden=64, num_hidden_layers=1, intermediate_size=96)


def test_safetensors(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((model / "model.safetensors").read_bytes())
    length = int.from_bytes(path.read_bytes()[:8], "little")
    check(path, open_safetensors, 8 + length, 600)


TOKENIZERS = {
    "byte-level": partial(byte_level, "smollm"),
    "byte-level, NFC": partial(composing, "qwen2"),
    "SentencePiece": partial(sentencepiece_like, "prepend"),
}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_gguf(tokenizer: str, tmp_path: Path) -> None:
    from gguf import GGUFReader

    from export.gguf.to_gguf import to_gguf

    model = write_model(tmp_path / "model", TOKENIZERS[tokenizer](), "{{ messages[0].content }}")
    path = tmp_path / "model.gguf"
    to_gguf(model, path, "tiny")
    check(path, open_gguf, GGUFReader(path).data_offset, 1200)


def tiny_gguf(folder: Path, template: str) -> Path:
    from export.gguf.to_gguf import to_gguf

    to_gguf(write_model(folder / "model", byte_level("smollm"), template), folder / "model.gguf", "tiny")
    return folder / "model.gguf"


def test_a_norm_in_f16_is_refused(tmp_path: Path) -> None:
    """llama.cpp loads it, and aborts when it computes with it."""
    path = tiny_gguf(tmp_path, "{{ messages[0].content }}")
    data, name = bytearray(path.read_bytes()), b"blk.0.attn_norm.weight"
    data[data.index(name) + len(name) + 12] = 1  # behind the number of dimensions, and one dimension
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"'blk.0.attn_norm.weight' has one dimension and is not stored as F32"):
        open_gguf(path)


@pytest.mark.parametrize("template", ["{{ '' }}", "<|user|> hello <|end|>", "{{ messages | length }}"])
def test_a_template_that_writes_nothing_of_the_question_is_refused(tmp_path: Path, template: str) -> None:
    with pytest.raises(InputError, match="the chat template writes the same whatever is asked"):
        open_gguf(tiny_gguf(tmp_path, template))


def test_onnx(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    make_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 64, "eos_token_id": 3}')
    path.write_bytes(tiny_graph())
    check(path, open_onnx, len(path.read_bytes()), 1000)


def tiny_graph() -> bytes:
    """A decoder with past, and no weights, so that it is all header: a token's embedding is its number."""
    from onnx import TensorProto, helper, numpy_helper
    from onnx.helper import make_node

    number, weight, vocabulary = TensorProto.INT64, TensorProto.FLOAT, 416

    def value(name: str, kind: int, *shape: int | str) -> object:
        return helper.make_tensor_value_info(name, kind, shape)

    constants = {"zero": 0, "one": 1, "end": vocabulary, "last": [2]}
    nodes = [
        make_node("Cast", ["input_ids"], ["numbers"], to=weight),
        make_node("Unsqueeze", ["numbers", "last"], ["embedded"]),
        make_node("Unsqueeze", ["embedded", "last"], ["turned"]),
        make_node("Transpose", ["turned"], ["fresh"], perm=[0, 2, 1, 3]),
        make_node("Concat", ["past_key_values.0.key", "fresh"], ["present.0.key"], axis=2),
        make_node("Concat", ["past_key_values.0.value", "fresh"], ["present.0.value"], axis=2),
        make_node("Range", ["zero", "end", "one"], ["range"]),
        make_node("Cast", ["range"], ["table"], to=weight),
        make_node("Mul", ["embedded", "table"], ["logits"]),
    ]
    past = [value(f"past_key_values.0.{name}", weight, 1, 1, "past", 1) for name in ("key", "value")]
    present = [value(f"present.0.{name}", weight, 1, 1, "whole", 1) for name in ("key", "value")]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [value("input_ids", number, 1, "tokens"), *past],
        [value("logits", weight, 1, "tokens", vocabulary), *present],
        [numpy_helper.from_array(np.array(constant), name) for name, constant in constants.items()],
    )
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return data
