"""A SIGKILL at any moment of an export leaves the old bundle or the new one, and the next run leaves nothing else."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_export import make_model

from edgedc.bundle import read_manifest, verify

FORMATS = ("--format", "gguf", "--format", "onnx", "--precision", "int4")


def export(model: Path, out: Path, scratch: Path, *flags: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "edgedc", "export", "--no-gate", *flags, str(model), str(out)]
    places = {"TMPDIR": str(scratch)}
    return subprocess.Popen(command, env=os.environ | places, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def is_whole(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest.artifacts
    for artifact in manifest.artifacts:
        verify(bundle, artifact)


@pytest.mark.slow
def test_a_kill_at_any_moment(tmp_path: Path) -> None:
    model = make_model(tmp_path / "tiny")
    place, scratch = tmp_path / "place", tmp_path / "scratch"
    place.mkdir()
    scratch.mkdir()
    started = time.perf_counter()
    assert export(model, place / "out", scratch, *FORMATS).wait(300) == 0
    whole = time.perf_counter() - started
    chance = random.Random(0)
    for _ in range(12):
        process = export(model, place / "out", scratch, *FORMATS)
        time.sleep(chance.uniform(0.1, 1.0) * whole)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        is_whole(place / "out")
    time.sleep(2)  # a child notices at once that nobody waits for it; it may be in the middle of a system call
    assert export(model, place / "out", scratch, "--quantization", "f16").wait(300) == 0
    is_whole(place / "out")
    assert [path.name for path in place.iterdir()] == ["out"]
    assert not [path.name for path in scratch.iterdir() if path.name.startswith("edgedc-")]


def test_a_child_ends_with_a_killed_parent(tmp_path: Path) -> None:
    """It would go on for minutes, and write into what the next run has removed."""
    job = """
import os, signal
from edgedc.child import in_child
from test_kill import waits
if __name__ == "__main__":
    for pid in in_child("waiting", waits):
        print(pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""
    places = {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    (tmp_path / "job.py").write_text(job)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "job.py")],
        env=os.environ | places,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    child = int(done.stdout)
    for _ in range(200):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("it lives")
    assert [path.name for path in tmp_path.iterdir()] == ["job.py"]


def waits() -> Iterator[int]:
    yield os.getpid()
    time.sleep(300)
