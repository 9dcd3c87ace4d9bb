"""`edgedc doctor` says what is installed, and finds and names what is wrong with a bundle."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from test_export import edit_json, make_model

import edgedc.doctor
from edgedc.bundle import Artifact, Manifest, hashes_beside, read_manifest, write_manifest
from edgedc.cli import cli
from edgedc.commands.doctor import NO_AMX
from edgedc.errors import EdgedcError, InputError
from edgedc.files import sha256_of
from export.ship import Order, ship

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gated bundle of a random model: GGUF and ONNX."""
    folder = tmp_path_factory.mktemp("doctor")
    questions = folder / "questions.jsonl"
    questions.write_text('{"question": "How many apples does Tom have?"}\n')
    order = Order(("gguf", "onnx"), quantizations="f16", prompts=questions)
    ship(make_model(folder / "tiny"), folder / "bundle", order, print)

    # a random model's reply hangs on every bit: what the gate thinks of it is not the point here
    def passed(artifact: Artifact) -> Artifact:
        return dataclasses.replace(artifact, passed=True)

    rewrite(folder / "bundle", lambda m: dataclasses.replace(m, artifacts=tuple(map(passed, m.artifacts))))
    return folder / "bundle"


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def doctor(*args: object) -> Result:
    return CliRunner().invoke(cli, ["doctor", *map(str, args)])


def checks(bundle: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """(of, check) -> (outcome, detail), and the exit as the rows say it."""
    done = doctor("--json", "--threads", 1, bundle)
    row = json.loads(done.stdout)
    assert row["passed"] is (done.exit_code == 0), done.output
    if not row["passed"]:
        assert isinstance(done.exception, EdgedcError)
        assert done.exception.exit_code == 1
        assert "\n" not in str(done.exception)
    return {(c["of"], c["check"]): (c["outcome"], c["detail"]) for c in row["checks"]}


def failures(bundle: Path) -> dict[tuple[str, str], str]:
    return {key: detail for key, (outcome, detail) in checks(bundle).items() if outcome == "FAILED"}


def rewrite(bundle: Path, change: Callable[[Manifest], Manifest]) -> None:
    write_manifest(bundle, change(read_manifest(bundle)))


def called_right(bundle: Path) -> None:
    """A manifest that has the hashes of the files as they are now: what only a look inside can find out."""

    def now(artifact: Artifact) -> Artifact:
        return dataclasses.replace(artifact, sha256=tuple(sha256_of(bundle / file) for file in artifact.files))

    rewrite(bundle, lambda m: dataclasses.replace(m, artifacts=tuple(map(now, m.artifacts))))
    rewrite(bundle, lambda m: dataclasses.replace(m, files=hashes_beside(bundle, m.artifacts)))


GGUF, ONNX, TEMPLATE = "tiny-f16.gguf", "onnx/model.onnx", "chat_template.jinja"


def test_a_whole_bundle_is_found_well(bundle: Path) -> None:
    done = checks(bundle)
    assert {outcome for outcome, _ in done.values()} == {"ok"}
    for artifact in (GGUF, ONNX):
        for check in ("sha256", "BOS/EOS", "template", "smoke prompt"):
            assert (artifact, check) in done
    for file in ("tokenizer.json", "config.json", TEMPLATE, "README.md", "export_report.json"):
        assert (file, "sha256") in done


def test_a_file_that_may_not_be_read_is_one_of_its_findings(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> str:
        if path.name in (GGUF, TEMPLATE):
            raise InputError(f"{path}: cannot be read: Permission denied")
        return sha256_of(path)

    monkeypatch.setattr(edgedc.doctor, "sha256_of", refused)
    found = failures(copy)
    assert found[GGUF, "sha256"] == f"{copy / GGUF}: cannot be read: Permission denied"
    assert (TEMPLATE, "template") in found
    assert (ONNX, "sha256") not in found


def test_a_moved_bundle_is_shown_as_a_table(copy: Path) -> None:
    done = doctor("--threads", 1, copy.rename(copy.with_name("elsewhere")))
    assert done.exit_code == 0, done.output
    assert re.search(rf"{re.escape(GGUF)}\s+smoke prompt\s+ok", done.stdout)


def _flip(bundle: Path) -> None:
    data = bytearray((bundle / GGUF).read_bytes())
    data[-1000] ^= 0x40
    (bundle / GGUF).write_bytes(data)


def test_a_flipped_byte_in_the_weights_is_found(copy: Path) -> None:
    _flip(copy)
    done = checks(copy)
    assert done[GGUF, "sha256"] == ("FAILED", "changed since it was exported: copy the bundle again")
    assert done[GGUF, "smoke prompt"] == ("skipped", "its files are not those that were exported")
    assert done[ONNX, "smoke prompt"][0] == "ok"


def test_weights_that_answer_otherwise_are_found_whatever_the_hashes_say(copy: Path) -> None:
    data = bytearray((copy / GGUF).read_bytes())
    data[-200_000:] = b"\x11\x3c" * 100_000  # f16 a little above 1
    (copy / GGUF).write_bytes(data)
    called_right(copy)
    (found,) = failures(copy).items()
    assert found[0] == (GGUF, "smoke prompt")
    assert "its reply is not what it was when it was exported" in found[1]


def test_another_template_is_found(copy: Path) -> None:
    path = copy / TEMPLATE
    path.write_text(path.read_text("utf-8").replace("<|end|>", ""), "utf-8")
    found = failures(copy)
    assert {(TEMPLATE, "sha256"), (TEMPLATE, "template"), (ONNX, "template"), (GGUF, "smoke prompt")} <= set(found)
    assert "its rendered prompt is not what it was" in found[GGUF, "smoke prompt"]
    called_right(copy)
    assert (TEMPLATE, "template") in failures(copy)


def test_a_template_that_writes_the_day_is_right_on_another(tmp_path: Path) -> None:
    """As Llama 3.2's does. Microseconds stand for the days."""
    model = make_model(tmp_path / "tiny")
    template = model / TEMPLATE
    template.write_text("{{ strftime_now('%f') }}\n" + template.read_text("utf-8"), "utf-8")
    (tmp_path / "questions.jsonl").write_text('{"question": "How many apples does Tom have?"}\n')
    order = Order(("gguf",), quantizations="f16", prompts=tmp_path / "questions.jsonl")
    ship(model, tmp_path / "bundle", order, lambda _: None)
    rewrite(
        tmp_path / "bundle",
        lambda m: dataclasses.replace(m, artifacts=tuple(dataclasses.replace(a, passed=True) for a in m.artifacts)),
    )
    assert checks(tmp_path / "bundle")[GGUF, "smoke prompt"] == ("ok", "")


def test_a_swapped_tokenizer_is_found(copy: Path) -> None:
    row = json.loads((copy / "tokenizer.json").read_text("utf-8"))
    row["model"]["merges"] = row["model"]["merges"][::-1]
    (copy / "tokenizer.json").write_text(json.dumps(row), "utf-8")
    found = failures(copy)
    assert ("tokenizer.json", "sha256") in found
    assert "its token ids is not what it was" in found[ONNX, "smoke prompt"]
    assert (GGUF, "smoke prompt") not in found  # it has a tokenizer of its own


def test_a_wrong_eos_is_found(copy: Path) -> None:
    """In the GGUF, with its hash made right; and in the configs, which ONNX is run by."""
    import gguf

    reader = gguf.GGUFReader(copy / GGUF, "r+")
    field = reader.fields["tokenizer.ggml.eos_token_id"]
    right = int(field.parts[field.data[0]][0])
    field.parts[field.data[0]][0] = right + 1
    del reader, field
    edit_json(copy / "tokenizer_config.json", eos_token="<|user|>")
    called_right(copy)
    found = failures(copy)
    assert found[GGUF, "BOS/EOS"] == f"EOS is token {right + 1}, the model's is {right}"
    assert found[ONNX, "BOS/EOS"].startswith("EOS is token")


def test_an_artifact_that_ends_its_process_is_a_row(copy: Path) -> None:
    data = bytearray((copy / GGUF).read_bytes())
    at = data.index(b"tokenizer.ggml.merges")
    data[at : at + 21] = b"tokenizer.ggml.mergex"
    (copy / GGUF).write_bytes(data)
    called_right(copy)
    found = failures(copy)
    assert found[GGUF, "smoke prompt"].startswith("does not run: ")
    assert (ONNX, "smoke prompt") not in found


def test_what_cannot_be_checked_is_skipped_and_says_why(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ungated(artifact: Artifact) -> Artifact:
        passed = None if artifact.format == "gguf" else False
        return dataclasses.replace(artifact, gate={}, passed=passed, details={"not_gated": "--no-gate"})

    rewrite(
        copy,
        lambda m: dataclasses.replace(
            m, artifacts=tuple(map(ungated, m.artifacts)), files={}, special_ids=None, chat_template_sha256=""
        ),
    )
    done = checks(copy)
    assert done[GGUF, "smoke prompt"][0] == done[GGUF, "BOS/EOS"][0] == done["other files", "sha256"][0] == "skipped"
    assert "it was not gated (--no-gate)" in done[GGUF, "smoke prompt"][1]
    assert done[ONNX, "smoke prompt"] == ("skipped", "it failed its gate when it was exported")
    found = edgedc.doctor.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "llama_cpp" else found(name))
    assert "pip install 'edgedc[llamacpp]'" in checks(copy)[GGUF, "smoke prompt"][1]


@pytest.mark.parametrize("smoke", [{"messages": 3}, {"messages": [], "rendered": 1, "token_ids": None}])
def test_a_manifest_that_asks_nonsense_is_a_failure(copy: Path, smoke: dict[str, Any]) -> None:
    def changed(artifact: Artifact) -> Artifact:
        return dataclasses.replace(artifact, gate={"smoke": smoke})

    rewrite(copy, lambda m: dataclasses.replace(m, artifacts=tuple(changed(a) for a in m.artifacts[:1])))
    assert "malformed" in failures(copy)[GGUF, "smoke prompt"]


def test_only_a_bundle_can_be_checked(copy: Path, tmp_path: Path) -> None:
    assert isinstance(doctor(tmp_path).exception, InputError)
    rewrite(copy, lambda m: dataclasses.replace(m, kind="model", artifacts=()))
    assert "a model folder; name a bundle" in str(doctor(copy).exception)


def test_a_bundle_may_be_named_as_models_names_it() -> None:
    done = doctor("default")
    assert done.exit_code == 0
    assert re.search(r"smoke prompt +ok", done.stdout)


def test_without_a_bundle_it_says_what_is_installed() -> None:
    done = doctor()
    assert done.exit_code == 0
    assert re.search(r"^llamacpp\s+llama-cpp-python\s+\d", done.stdout, re.MULTILINE)
    row = json.loads(doctor("--json").stdout)
    assert row["packages"]["onnx"]["onnxruntime"]
    assert "CPUExecutionProvider" in row["providers"]
    assert set(row["missing"]) == {e for e, versions in row["packages"].items() if None in versions.values()}


@pytest.mark.parametrize("module", ["llama_cpp", "onnxruntime"])
def test_a_package_that_does_not_load_is_named_and_the_rest_told(tmp_path: Path, module: str) -> None:
    """As one that was built for another machine."""
    (tmp_path / f"{module}.py").write_text("raise RuntimeError('GLIBC_9.99 not found')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "edgedc", "doctor"]
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert re.search(r"^serve +starlette +\d", done.stdout, re.MULTILINE)
    [line] = done.stderr.splitlines()
    assert "is installed and does not load: RuntimeError: GLIBC_9.99 not found" in line


def test_a_missing_extra_comes_with_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(edgedc.doctor.EXTRAS, "hub", ("edgedc-no-such-package",))
    assert "to have hub:  pip install 'edgedc[hub]'" in doctor().stdout


def test_its_extras_are_those_of_the_project() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for extra, names in edgedc.doctor.EXTRAS.items():
        own = [re.split(r"[<>=\[; ]", line)[0] for line in declared[extra]]
        assert {name for name in own if name != "edgedc"} == set(names)
    assert set(declared) - set(edgedc.doctor.EXTRAS) == {"all", "onnx-gpu"}


def test_llama_cpp_is_built_again_as_the_makefile_builds_it() -> None:
    (flags,) = re.findall(r"^LLAMA_CMAKE \?= (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert f"CMAKE_ARGS='{flags}' pip install" in NO_AMX
