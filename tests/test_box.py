"""The decomposer in the box: small, offline, and what its manifest says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgedc.bundle import hashes_beside, read_manifest, verify
from edgedc.catalogue import BOX, find_model, find_weights
from edgedc.decomposition import parse
from edgedc.workshop import workshop

ROBE = "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?"
LARGEST = 24_000_000  # bytes of what ships of it
# Whoever asks for an address beyond this machine ends the program: nothing of it may need one.
OFFLINE = """
import socket, sys
def refuse(*given, **named): raise SystemExit("a connection was asked for")
socket.socket.connect = socket.getaddrinfo = refuse
from edgedc.cli import main
main()
"""


def edgedc(where: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", OFFLINE, *map(str, words)]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=120, check=False)


def test_it_decomposes_offline_without_being_named_and_says_once_what_it_is(tmp_path: Path) -> None:
    done = edgedc(tmp_path, "decompose", "--threads", "1", ROBE)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("model: default, a small one") == 1
    made = parse(done.stdout)
    assert made.status == "decomposed"
    assert 1 <= len(made.subquestions) <= 5
    assert all(text.endswith("?") for text in made.texts)
    assert "fiber" in done.stdout  # which it has to copy
    assert not list(tmp_path.iterdir())


def test_many_rows_say_it_once_too(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": ROBE}) + "\n" + json.dumps({"question": ROBE}) + "\n")
    done = edgedc(tmp_path, "decompose", "--threads", "1", "--input", "q.jsonl", "--output", "d.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("model: default, a small one") == 1
    assert len((tmp_path / "d.jsonl").read_text().splitlines()) == 2


def test_a_bundle_of_ones_own_goes_before_it(tmp_path: Path, bundle_folder: Path) -> None:
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    done = edgedc(tmp_path, "decompose", "--threads", "1", ROBE)
    assert f"model: {tmp_path / 'bundle'}" in done.stderr
    assert "default" not in done.stderr


def test_it_is_whole_small_and_made_from_the_weights_beside_it() -> None:
    bundle, weights = find_model(Path(BOX)), find_weights(Path(BOX))
    manifest = read_manifest(bundle)
    (artifact,) = manifest.artifacts
    verify(bundle, artifact)
    assert artifact.passed
    assert hashes_beside(bundle, manifest.artifacts) == manifest.files
    assert workshop("export.staging").bundle_manifest(weights, "", None).weights_sha256 == manifest.weights_sha256
    files = [path for folder in (bundle, weights) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST


def test_its_card_has_figures_of_what_it_never_saw() -> None:
    card = (find_model(Path(BOX)) / "README.md").read_text("utf-8")
    for name in (
        "gsm8k test",
        "break",
        "corpus held out",
        "microworld held out",
        "strategyqa held out",
        "GPT-2 medium",
    ):
        assert name in card


def test_it_can_be_trained_on(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the train extra is not installed")
    rows = [
        {"question": f"How many are {k} and {k}?", "subquestions": [f"What is {k}?", "And twice?"]} for k in range(4)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("train", "--base", BOX, "--max-steps", "2", "--batch-size", "2", "--threads", "1", "rows.jsonl", "adapter")
    done = edgedc(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "adapter").base == BOX
