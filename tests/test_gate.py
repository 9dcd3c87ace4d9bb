"""The gate passes artifacts that behave like their model, and catches and names those that do not."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_export import make_model

from edgedc.bundle import Artifact, Manifest, read_manifest, write_manifest
from edgedc.cli import main
from edgedc.errors import EdgedcError
from edgedc.files import sha256_of
from edgedc.prompts import decompose_messages
from edgedc.tasks.microworld import problems
from export.child import in_child
from export.gate import ODD_STRINGS, THRESHOLDS, Observation, Prompt, compare, gate, observe
from export.quantize import TYPES
from export.ship import Order, ship
from export.to_onnx import PRECISIONS

QUESTIONS = [Prompt(q, decompose_messages(q, style="compact-1", cap=3)) for q in ("How many apples?", "Who paid 12?")]
PROMPTS = [*QUESTIONS, *(Prompt(t, [{"role": "user", "content": t}], generate=False) for t in ODD_STRINGS)]
CONTEXT = 80


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("gate") / "tiny")


@pytest.fixture(scope="module")
def bundle(model: Path) -> Path:
    out = model.with_name("bundle")
    ship(model, out, Order(("gguf", "onnx"), quantizations="q8_0", gated=False), print)
    return out


@pytest.fixture(scope="module")
def reference(model: Path) -> list[Observation]:
    return observe(model, PROMPTS, CONTEXT)


def artifacts(bundle: Path) -> tuple[Artifact, Artifact]:
    gguf, onnx = read_manifest(bundle).artifacts
    return gguf, onnx


def test_an_equal_artifact_passes(bundle: Path, reference: list[Observation]) -> None:
    done = gate(bundle, artifacts(bundle)[1], PROMPTS, reference, CONTEXT)
    assert done.passed
    assert (done.questions, done.odd_strings) == (2, len(ODD_STRINGS))
    assert (done.token_ids, done.text, done.decomposition) == (1.0, 1.0, 1.0)
    assert done.first_difference is None
    assert all(observation.text for observation in reference[:2])


def test_another_template_is_caught(bundle: Path, reference: list[Observation], tmp_path: Path) -> None:
    sabotaged = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    template = sabotaged / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("<|end|>", ""), "utf-8")
    for artifact in artifacts(bundle):
        done = gate(sabotaged, artifact, PROMPTS, reference, CONTEXT)
        assert not done.passed
        assert done.token_ids == 0.0
        position = len(reference[0].ids) - 3  # <|end|>, a line break, <|assistant|>
        assert f"'How many apples?': token {position} is" in str(done.first_difference)


def test_other_weights_are_caught(reference: list[Observation], tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", seed=1)
    ship(other, tmp_path / "out", Order(("gguf",), quantizations="f16", gated=False), print)
    (artifact,) = read_manifest(tmp_path / "out").artifacts
    done = gate(tmp_path / "out", artifact, PROMPTS, reference, CONTEXT)
    assert not done.passed
    assert (done.token_ids, done.text) == (1.0, 0.0)
    assert "'How many apples?': from character" in str(done.first_difference)


def test_an_artifact_that_does_not_load_fails(bundle: Path, reference: list[Observation], tmp_path: Path) -> None:
    sabotaged = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    artifact, onnx = artifacts(bundle)
    path = sabotaged / artifact.path
    path.write_bytes(path.read_bytes()[:5000])
    artifact = dataclasses.replace(artifact, sha256=(sha256_of(path),))
    manifest: Manifest = dataclasses.replace(read_manifest(bundle), artifacts=(artifact, onnx))
    write_manifest(sabotaged, manifest)
    done = gate(sabotaged, artifact, PROMPTS, reference, CONTEXT)
    assert not done.passed
    assert "does not run" in str(done.first_difference)


def test_shares_and_first_differences() -> None:
    equal = [Observation((1, 2, 3), "1. How many?\n2. How much?")] * 2 + [Observation((7,))] * len(ODD_STRINGS)

    spaced = [Observation((1, 2, 3), "1. How many?\n2.  How much?"), *equal[1:]]
    done = compare(PROMPTS, equal, spaced, 0.5)
    assert (done.text, done.decomposition, done.passed) == (0.5, 1.0, True)
    assert done.first_difference is not None
    assert "from character 16" in done.first_difference

    longer = [equal[0], Observation((1, 2, 3, 4), equal[1].text), *equal[2:]]
    done = compare(PROMPTS, equal, longer, 0.5)
    assert not done.passed
    assert done.first_difference == "prompt 'Who paid 12?': token 3 is 4, the model's is the end"


def test_two_replies_that_cannot_be_parsed_are_not_the_same() -> None:
    one, two = ([Observation((1,), text)] * 2 + [Observation((1,))] * len(ODD_STRINGS) for text in ("@@ x", "%% y"))
    assert compare(PROMPTS, one, two, 0.5).decomposition == 0.0


def test_a_trained_model_passes_in_every_form(model_folder: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": p.question}) + "\n" for p in problems("train", 6)), "utf-8")
    order = Order(("gguf", "onnx"), quantizations="f16,q8_0", prompts=questions)
    manifest, made = ship(model_folder, tmp_path / "out", order, print)
    assert [(a.quantization, a.passed, a.gate["text"]) for a in made] == [
        ("f16", True, 1.0),
        ("q8_0", True, 1.0),
        ("fp32", True, 1.0),
    ]
    assert read_manifest(tmp_path / "out") == manifest
    assert manifest.prompt_style == "compact-1"


def test_a_failed_artifact_exits_3_and_is_kept_and_marked(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A random model's replies hang on every bit, so two bits a weight change them."""
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "How many apples does Tom have?"}\n')
    with pytest.raises(SystemExit) as ended:
        main(["export", "--quantization", "q2_k", "--prompts", str(questions), str(model), str(tmp_path / "out")])
    assert ended.value.code == 3
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("edgedc: not equal enough")
    assert "'How many apples does Tom have?': from character" in said.err
    assert " NO" in said.out
    (artifact,) = read_manifest(tmp_path / "out").artifacts
    assert artifact.passed is False
    assert (tmp_path / "out" / artifact.path).is_file()


def test_every_type_has_a_threshold() -> None:
    assert set(THRESHOLDS) == {*TYPES, *PRECISIONS}


def _abort() -> Iterator[int]:
    os.write(2, b"ggml.c: something is wrong\n")
    yield 1
    os.abort()


def _bug() -> Iterator[int]:
    yield from [][1]


def test_an_abort_is_an_error_line_that_names_a_log() -> None:
    items = in_child("running it", _abort)
    assert next(items) == 1
    with pytest.raises(EdgedcError, match=r"running it: killed by SIGABRT after 'ggml.c: something") as caught:
        next(items)
    Path(str(caught.value).rpartition(" ")[2]).unlink()


def test_a_bug_in_a_child_keeps_its_traceback_in_the_log() -> None:
    with pytest.raises(EdgedcError, match="running it: IndexError") as caught:
        list(in_child("running it", _bug))
    log = Path(str(caught.value).rpartition(" ")[2])
    assert "yield from [][1]" in log.read_text("utf-8")
    log.unlink()
