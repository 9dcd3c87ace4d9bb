"""A run that is killed ends with the weights of one that is not: on a CPU, in float32, to the last bit."""

import dataclasses
import json
import os
import random
import signal
import time

import pytest
from conftest import demonstrations, write_rows
from safetensors.torch import load_file

from edgedc.errors import EdgedcError
from train.fitting.checkpoints import latest
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
    if not out.exists():
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
    assert latest(next(tmp_path.glob(".killed.*.work"))) is None
    (tmp_path / "killed").write_text("in the way")
    with pytest.raises(EdgedcError, match="not made by edgedc"):  # after the last checkpoint
        train(rows, tmp_path / "killed", settings, lambda progress: None)
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
