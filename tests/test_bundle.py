import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgedc.bundle import Artifact, Data, Manifest, find_artifact, newest, read_manifest, verify, write_manifest
from edgedc.errors import InputError
from edgedc.files import sha256_of


def artifact(folder: Path, name: str, size: int, **changes: Any) -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x" * size)
    made = Artifact((name,), "gguf", name.split(".")[0], size, (sha256_of(folder / name),), passed=True)
    return dataclasses.replace(made, **changes)


def manifest(**changes: Any) -> Manifest:
    return dataclasses.replace(Manifest(kind="bundle", name="student", base="tiny", method="S_D-T"), **changes)


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = manifest(
        data=(Data("demonstrations.jsonl", 10, "ab" * 32),),
        artifacts=(artifact(tmp_path, "q8_0.gguf", 5, gate={"kl": 1e-7}, details={"opset": 17}),),
        recipe={"steps": 100, "name": "é"},
        max_subquestions=None,
    )
    write_manifest(tmp_path, written)
    assert read_manifest(tmp_path) == written


ARTIFACT = {"files": ["a.gguf"], "format": "gguf", "quantization": "f16", "bytes": 1, "sha256": ["ab"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("not json", "not a manifest"),
        ("[]", "not a manifest"),
        ("{}", "not a manifest"),
        ("[" * 100_000, "not a manifest"),
        ({"kind": "banana"}, "kind: 'banana' is not one of adapter, model, bundle"),
        ({"prompt_style": "haiku-9"}, "prompt_style: 'haiku-9' is not one of"),
        ({"from_the_future": 1}, "from_the_future: unknown"),
        ({"artifacts": [{"files": ["a"]}]}, "artifacts[0].format: missing"),
        ({"artifacts": None}, "artifacts: None is not a list"),
        ({"context_length": None}, "context_length: None is not a whole number"),
        ({"files": None}, "files: None is not an object"),
        ({"special_ids": []}, "special_ids: [] is not an object"),
        ({"special_ids": {"bos": 1, "eos": 2, "ends": [[2]], "adds_bos": True}}, "special_ids.ends[0]: [2] is not a"),
        ({"artifacts": [ARTIFACT | {"bytes": None}]}, "artifacts[0].bytes: None is not a whole number"),
        ({"artifacts": [ARTIFACT | {"format": "exe"}]}, "artifacts[0].format: 'exe' is not one of gguf, onnx"),
        ({"artifacts": [ARTIFACT | {"files": [1]}]}, "artifacts[0].files[0]: 1 is not text"),
        ({"artifacts": [ARTIFACT | {"details": None}]}, "artifacts[0].details: None is not an object"),
    ],
)
def test_a_malformed_manifest_is_one_line(tmp_path: Path, change: Any, said: str) -> None:
    row = dataclasses.asdict(manifest())
    (tmp_path / "manifest.json").write_text(change if isinstance(change, str) else json.dumps(row | change))
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path)
    assert said in str(caught.value)
    assert "manifest.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("files", [("../../secret",), ("/etc/passwd",), ("a/../../b",), (), ("a", "b")])
def test_an_artifact_outside_its_bundle_is_refused(tmp_path: Path, files: tuple[str, ...]) -> None:
    write_manifest(tmp_path, manifest(artifacts=(Artifact(files, "gguf", "f16", 1, ("ab",)),)))
    with pytest.raises(InputError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did not finish"):
        read_manifest(tmp_path)


def test_the_newest_folder_of_a_kind_is_found(tmp_path: Path) -> None:
    for name, kind, created in [
        ("old", "model", "2026-01-01T00:00:00Z"),
        ("runs/new", "model", "2026-03-01T00:00:00Z"),
        ("adapter", "adapter", "2026-04-01T00:00:00Z"),
        (".student.abc", "model", "2026-05-01T00:00:00Z"),  # being staged
        ("a/b/c/deep", "model", "2026-06-01T00:00:00Z"),
    ]:
        (tmp_path / name).mkdir(parents=True)
        write_manifest(tmp_path / name, manifest(kind=kind, created=created))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    assert newest("model", tmp_path) == tmp_path / "runs" / "new"
    assert newest("adapter", tmp_path) == tmp_path / "adapter"
    with pytest.raises(InputError, match="edgedc export"):
        newest("bundle", tmp_path)


def test_of_two_made_in_the_same_second_the_later_is_the_newest(tmp_path: Path) -> None:
    for name, mtime in (("z", 1000), ("a", 2000)):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, manifest(created="2026-01-01T00:00:00Z"))
        os.utime(tmp_path / name / "manifest.json", (mtime, mtime))
    assert newest("bundle", tmp_path) == tmp_path / "a"


def test_the_smallest_artifact_that_did_not_fail_is_run(tmp_path: Path) -> None:
    made = (
        artifact(tmp_path, "f16.gguf", 30),
        artifact(tmp_path, "q8_0.gguf", 20),
        artifact(tmp_path, "q4_0.gguf", 10, passed=False),
        artifact(tmp_path, "fp32.onnx", 40, format="onnx"),
    )
    write_manifest(tmp_path, manifest(artifacts=made))
    assert find_artifact(tmp_path)[1].path == "q8_0.gguf"
    assert find_artifact(tmp_path, "onnx")[1].path == "fp32.onnx"
    assert find_artifact(tmp_path, "gguf", "F16")[1].path == "f16.gguf"
    with pytest.raises(InputError, match="failed its gate"):
        find_artifact(tmp_path, quantization="q4_0")
    with pytest.raises(InputError, match="no onnx q8_0 here; it holds gguf f16, gguf q8_0"):
        find_artifact(tmp_path, "onnx", "q8_0")
    (tmp_path / "q8_0.gguf").unlink()
    with pytest.raises(InputError, match=r"q8_0\.gguf: missing"):
        find_artifact(tmp_path)


def test_an_artifact_with_one_changed_byte_is_refused(tmp_path: Path) -> None:
    made = artifact(tmp_path, "f16.gguf", 30)
    verify(tmp_path, made)
    (tmp_path / "f16.gguf").write_bytes(b"x" * 29 + b"y")
    with pytest.raises(InputError, match="changed since it was exported"):
        verify(tmp_path, made)
