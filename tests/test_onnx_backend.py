"""The ONNX backend: prompts in parts, tokens in place, the same words as llama.cpp and as GenAI's generator."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from test_export import edit_json
from test_onnx import by_optimum

from edgedc.backends import open_backend
from edgedc.backends.grammar import ListGrammar
from edgedc.backends.onnx import OnnxBackend
from edgedc.backends.onnx_graph import Graph, has_cuda
from edgedc.decomposition import parse
from edgedc.errors import NoGpu
from edgedc.prompts import decompose_messages
from edgedc.tasks.microworld import problems
from export.onnx.first_score import add_first_score
from export.onnx.to_onnx import to_onnx

CONTEXT = 2048
QUESTIONS = [decompose_messages(p.question, style="compact-1", cap=5) for p in problems("train", 4)]
LONG = np.random.default_rng(0).integers(5, 400, 300).tolist()  # more than one part


@pytest.fixture(scope="module")
def model(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small trained model, with a longer context than it was trained with."""
    folder = Path(shutil.copytree(model_folder, tmp_path_factory.mktemp("model") / "longer"))
    edit_json(folder / "config.json", max_position_embeddings=CONTEXT)
    return folder


@pytest.fixture(scope="module")
def built(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph in int8, which writes into the buffers that it is given."""
    folder = tmp_path_factory.mktemp("built") / "int8"
    to_onnx(model, folder, "int8")
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def told(built: Path) -> Path:
    """The same graph, which takes `first_score`."""
    folder = Path(shutil.copytree(built.parent, built.parent.with_name("told")))
    add_first_score(folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def grown(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of optimum's, which gives longer keys and values back."""
    pytest.importorskip("optimum.exporters.onnx", reason="optimum, which needs transformers 4.57, is not installed")
    root = tmp_path_factory.mktemp("grown")
    to_onnx(by_optimum(model, root / "model"), root / "onnx")
    return root / "onnx" / "model.onnx"


@pytest.fixture(params=["grown", "built", "told"])
def graph_file(request: pytest.FixtureRequest) -> Path:
    file: Path = request.getfixturevalue(request.param)
    return file


def test_a_prompt_in_parts_scores_as_its_tokens_one_by_one(graph_file: Path) -> None:
    whole = Graph(graph_file, CONTEXT, 1).logits(LONG, start=0)
    assert whole.shape[0] == len(LONG)
    graph = Graph(graph_file, CONTEXT, 1)
    graph.make_room(len(LONG))
    singly = [graph.logits(LONG[:1], start=0)[0], *(graph.step(token).copy() for token in LONG[1:])]
    assert np.allclose(np.stack(singly), whole, atol=0.05 * np.abs(whole).max())
    assert (np.stack(singly).argmax(-1) == whole.argmax(-1)).mean() > 0.97


@pytest.mark.parametrize("start", [0, 1, 127, 128, 200, 299])
def test_only_the_scores_that_are_asked_for_come_back(start: int, graph_file: Path) -> None:
    graph = Graph(graph_file, CONTEXT, 1)
    whole = graph.logits(LONG, start=0)
    some = graph.logits(LONG, start=start)
    assert graph.reused == start
    assert some.shape == (len(LONG) - start, whole.shape[1])
    assert (some.argmax(-1) == whole[start:].argmax(-1)).mean() > 0.97


def test_a_graph_that_is_told_where_to_begin_scores_no_more_than_that(built: Path, told: Path) -> None:
    import onnxruntime

    assert told.stat().st_size < built.stat().st_size + 1000
    sessions = [onnxruntime.InferenceSession(str(path)) for path in (built, told)]
    assert sessions[0].get_inputs()[0].name == sessions[1].get_inputs()[0].name
    feeds = {
        given.name: np.zeros((1, given.shape[1], 0, 64), np.float32)
        for given in sessions[0].get_inputs()
        if given.name.startswith("past")
    }
    feeds |= {"input_ids": np.array([LONG[:9]]), "attention_mask": np.ones((1, 9), np.int64)}
    as_before, left_to_itself = (s.run(["logits"], feeds)[0] for s in sessions)
    assert np.array_equal(left_to_itself, as_before)  # who does not know of it sees no change
    last = sessions[1].run(["logits"], {**feeds, "first_score": np.array([8])})[0]
    assert last.shape[1] == 1
    assert np.allclose(last[0, 0], as_before[0, -1], atol=0.01 * np.abs(as_before).max())


def test_genais_generator_says_the_same_of_a_graph_that_is_told(told: Path, model: Path) -> None:
    import onnxruntime_genai

    backend = OnnxBackend(told, model, threads=1)
    loaded = onnxruntime_genai.Model(str(told.parent))
    for messages in QUESTIONS:
        ids = backend.encode(messages)
        generator = onnxruntime_genai.Generator(loaded, onnxruntime_genai.GeneratorParams(loaded))
        generator.append_tokens(ids)
        while not generator.is_done():
            generator.generate_next_token()
        theirs = generator.get_sequence(0)[len(ids) :].tolist()
        ours = backend.complete(ids, max_tokens=CONTEXT - len(ids))
        assert (ours.usage.output_tokens, ours.finish_reason) == (len(theirs) + 1, "stop")  # the end token
        assert ours.text == backend.text_of(theirs)
    backend.close()


def test_it_says_what_llamacpp_says_at_eight_bits(told: Path, model: Path, bundle_folder: Path) -> None:
    ours = OnnxBackend(told, model, threads=1)
    _, theirs = open_backend(bundle_folder, format="gguf", quantization="q8_0", threads=1)
    for grammar in (None, ListGrammar(5)):
        for messages in QUESTIONS:
            assert ours.encode(messages) == theirs.encode(messages)
            made = [b.generate(messages, max_tokens=100, grammar=grammar) for b in (ours, theirs)]
            assert made[0].text == made[1].text
            assert parse(made[0].text).status == "decomposed"
            assert made[0].usage.output_tokens == made[1].usage.output_tokens
    for backend in (ours, theirs):
        backend.close()


def test_a_reply_comes_in_pieces_and_is_held_to_a_list(graph_file: Path, bundle_folder: Path) -> None:
    backend = OnnxBackend(graph_file, bundle_folder, threads=1)
    pieces: list[str] = []
    whole = backend.generate(QUESTIONS[1], max_tokens=100, on_text=pieces.append)
    assert len(pieces) > 5
    assert "".join(pieces) == whole.text
    assert len(parse(whole.text).subquestions) > 1
    one = backend.generate(QUESTIONS[1], max_tokens=100, grammar=ListGrammar(1))
    assert one.text == whole.text.partition("\n")[0]
    assert one.finish_reason == "stop"
    backend.close()


def test_a_longer_prompt_makes_room_and_changes_nothing(told: Path, model: Path) -> None:
    fresh, used = (OnnxBackend(told, model, threads=1) for _ in range(2))
    before = used.generate(QUESTIONS[0], max_tokens=60).text
    ids = (LONG * 5)[:1400]  # there is room for 1024 at first
    assert used.complete(ids, max_tokens=20).text == fresh.complete(ids, max_tokens=20).text
    again = used.generate(QUESTIONS[0], max_tokens=60)
    assert again.text == before


@pytest.mark.skipif(has_cuda(), reason="this onnxruntime offers CUDA")
def test_a_graph_for_cuda_is_refused_where_there_is_none(built: Path) -> None:
    with pytest.raises(NoGpu, match=r"made for CUDA, which .* pip install 'edgedc\[onnx-gpu\]'"):
        Graph(built, CONTEXT, 1, "cuda")


@pytest.mark.skipif(has_cuda(), reason="this onnxruntime offers CUDA")
def test_a_graph_for_cuda_is_refused_where_onnxruntime_finds_no_gpu(built: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr("edgedc.backends.onnx_graph.has_cuda", lambda: True)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(NoGpu, match=r"found no GPU .* driver"),
    ):
        Graph(built, CONTEXT, 1, "cuda")
    assert capfd.readouterr() == ("", "")
