"""A run that is killed ends with the weights of one that is not: on a CPU, in float32, to the last bit."""

import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import demonstrations, write_rows
from safetensors import SafetensorError
from safetensors.torch import load_file

from edgedc.errors import EdgedcError, InputError
from train.fitting import checkpoints
from train.fitting.checkpoints import alone, full_disk_told
from train.fitting.sft import train
from train.settings import TrainSettings

QUICK = TrainSettings(
    from_scratch="nano",
    vocabulary=512,
    max_steps=14,
    batch_size=4,
    checkpoint_every=4,
    precision="float32",
    threads=1,
)
EVERYTHING = {
    "packing": True,
    "accumulation": 2,
    "gradient_checkpointing": True,
    "validation": 3,
    "validation_every": 3,
    "validation_questions": 1,
    "learning_rate": 5e-2,  # so that the best weights need not be the last ones
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", demonstrations(14))


def _start(rows, out, settings) -> int:
    """A run in a process of its own, which inherits what is imported here."""
    pid = os.fork()
    if pid:
        return pid
    try:
        train(rows, out, settings, lambda progress: None)
        os._exit(0)
    finally:
        os._exit(1)


def _ended(pid: int) -> bool:
    done, status = os.waitpid(pid, os.WNOHANG)
    assert not done or os.waitstatus_to_exitcode(status) == 0
    return bool(done)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _run_with_kills(rows, out, settings, moments) -> list[str]:
    """Kill run after run: after so many seconds of training, or (None) while a checkpoint is being written."""
    interrupted = []
    for moment in moments:
        pid = _start(rows, out, settings)
        while not _ended(pid):
            works = list(out.parent.glob(f".{out.name}.*.work"))
            writing = [p for work in works for p in work.glob(".partial/*")]
            if writing if moment is None else works:
                time.sleep(moment or 0)
                if _ended(pid):  # another run would begin anew, and what is killed of that stays
                    return interrupted
                _kill(pid)
                interrupted += ["writing" if moment is None else "training"]
                break
            time.sleep(0.001)
        else:
            break
    # One killed while it removes its work folder has made what it should, and a later run removes the rest.
    if not out.exists() or list(out.parent.glob(f".{out.name}.*.work")):
        train(rows, out, settings, lambda progress: None)
    return interrupted


def _same(one, other) -> None:
    (name,) = (path.name for path in one.glob("*.safetensors"))
    ours, theirs = load_file(one / name), load_file(other / name)
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert ours[key].equal(theirs[key]), key
    timed = ("tokens_per_s", "seconds", "memory_bytes")
    histories = [json.loads((folder / "training.json").read_text())["history"] for folder in (one, other)]
    without = [[{k: v for k, v in entry.items() if k not in timed} for entry in entries] for entries in histories]
    assert without[0] == without[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"from_scratch": None, "lora_dropout": 0.2, "max_steps": 7, "checkpoint_every": 2, "batch_size": 2},
        pytest.param(EVERYTHING, marks=pytest.mark.slow),
        {**EVERYTHING, "max_steps": 7, "checkpoint_every": 2, "validation_questions": 0},
        {"optimizer": "muon", "max_steps": 7, "checkpoint_every": 2},
    ],
    ids=["lora with dropout", "with decompositions", "everything at once", "muon"],
)
def test_a_run_killed_again_and_again_ends_with_the_same_weights(rows, tmp_path, changes, model_folder):
    settings = dataclasses.replace(QUICK, base=str(model_folder), **changes)
    train(rows, tmp_path / "whole", settings, lambda progress: None)
    rng = random.Random()
    moments = [None, rng.uniform(0.2, 2), None, rng.uniform(0.5, 3)]
    interrupted = _run_with_kills(rows, tmp_path / "killed", settings, moments)
    assert "writing" in interrupted, moments
    _same(tmp_path / "whole", tmp_path / "killed")
    assert not list(tmp_path.glob(".killed.*.work"))


def test_a_run_killed_when_all_steps_are_done_trains_no_more(rows, tmp_path):
    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step == 6 and progress.held_out:
            raise Killed

    settings = dataclasses.replace(QUICK, max_steps=6, checkpoint_every=6, validation=3, validation_questions=0)
    train(rows, tmp_path / "whole", settings, lambda progress: None)
    with pytest.raises(Killed):  # after the last step, before its checkpoint
        train(rows, tmp_path / "killed", settings, kill)
    assert not list(tmp_path.glob(".killed.*"))

    def put_in_the_way(progress):
        if progress.step == 6:
            (tmp_path / "killed").write_text("in the way")

    with pytest.raises(EdgedcError, match="not made by edgedc"):  # after the last checkpoint
        train(rows, tmp_path / "killed", settings, put_in_the_way)
    (tmp_path / "killed").unlink()
    steps = []
    train(rows, tmp_path / "killed", settings, lambda progress: steps.append(progress.step))
    assert steps == []
    _same(tmp_path / "whole", tmp_path / "killed")


def test_a_run_does_not_go_on_from_one_with_other_settings_or_data(rows, tmp_path):
    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step >= 10:
            raise Killed

    with pytest.raises(Killed):
        train(rows, tmp_path / "out", QUICK, kill)
    notes, steps = [], []
    changed = dataclasses.replace(QUICK, learning_rate=1e-3, max_steps=4, threads=None)
    train(rows, tmp_path / "out", changed, lambda progress: steps.append(progress.step), notes.append)
    assert steps == [4]
    (note,) = notes
    assert "checkpoint-8: not gone on from, as it was made with" in note
    assert "--max-steps 14" in note
    assert "--learning-rate 0.002" in note
    assert "--threads" not in note
    notes.clear()
    fewer = write_rows(tmp_path / "fewer.jsonl", demonstrations(9))
    train(fewer, tmp_path / "out", dataclasses.replace(QUICK, max_steps=2), lambda progress: None, notes.append)
    assert "other data" in notes[0]


def test_what_a_kill_leaves_while_checkpoints_are_removed_is_not_gone_on_from(rows, tmp_path, monkeypatch):
    """The run is done by then; the next one, started alike, begins anew."""

    class Killed(Exception):
        pass

    real = shutil.rmtree

    def killed_half_way(folder, **how):
        if folder.name.endswith(".work"):
            for weights in folder.rglob("*.safetensors"):
                weights.unlink()
            raise Killed
        real(folder, **how)

    settings = dataclasses.replace(QUICK, max_steps=2, checkpoint_every=2, validation=3, validation_questions=0)
    monkeypatch.setattr(checkpoints.shutil, "rmtree", killed_half_way)
    with pytest.raises(Killed):
        train(rows, tmp_path / "out", settings, lambda progress: None)
    monkeypatch.undo()
    (tmp_path / "out").rename(tmp_path / "whole")
    steps = []
    train(rows, tmp_path / "out", settings, lambda progress: steps.append(progress.step))
    assert steps == [2, 2]
    _same(tmp_path / "whole", tmp_path / "out")
    assert not list(tmp_path.glob(".out.*"))


def test_what_a_killed_run_left_without_a_checkpoint_goes_with_the_next_run_whatever_its_settings(rows, tmp_path):
    pid = _start(rows, tmp_path / "out", dataclasses.replace(QUICK, max_steps=100_000, checkpoint_every=100_000))
    while not (left := list(tmp_path.glob(".out.*.work/run.json"))):
        time.sleep(0.01)
    quick = dataclasses.replace(QUICK, max_steps=1)
    with pytest.raises(InputError, match="out: another process is writing to it"):
        train(rows, tmp_path / "out", quick, lambda progress: None)
    assert left[0].exists()  # as its run lives
    _kill(pid)
    train(rows, tmp_path / "out", quick, lambda progress: None)
    assert not list(tmp_path.glob(".out.*"))


@pytest.mark.parametrize("changes", [{}, {"seed": 1}], ids=["alike", "other settings"])
def test_two_runs_do_not_write_to_one_folder(rows, tmp_path, changes):
    settings = dataclasses.replace(QUICK, max_steps=2)

    def start_another(progress):
        with pytest.raises(InputError, match="out: another process is writing to it"):
            train(rows, tmp_path / "out", dataclasses.replace(settings, **changes), lambda progress: None)

    assert train(rows, tmp_path / "out", settings, start_another).folder.is_dir()


def test_where_nothing_may_be_written_is_said_before_anything_is_trained(rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").touch()
    steps = []
    for out, why in (("full", "not made by edgedc"), (".", "needs a name of its own"), ("file/x", "cannot be made")):
        with pytest.raises(InputError, match=why):
            train(rows, Path(out), QUICK, lambda progress: steps.append(progress.step))
    assert not steps


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 6562048 vs 6561936"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=["safetensors", "torch", "text"],
)
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(tmp_path, monkeypatch, error):
    """The errors are those that each library raised on a full disk."""
    (tmp_path / "checkpoint-4").mkdir()
    checkpoints.begin(tmp_path / "checkpoint-6")
    with pytest.raises(type(error)), full_disk_told(tmp_path):
        raise type(error)("something else")
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    told = pytest.raises(EdgedcError, match="the disk is full: make room, and run again to go on from checkpoint-4")
    with told, alone(tmp_path, tmp_path), full_disk_told(tmp_path):
        raise error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", checkpoints.RUN]
