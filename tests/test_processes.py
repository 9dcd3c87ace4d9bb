"""Several processes that train together learn what one would have learnt."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import demonstrations, write_rows
from safetensors.torch import load_file

from edgedc.errors import InputError
from train.fitting.launch import train
from train.settings import TrainSettings

# 14 rows in batches of 4: the last batch of a pass has two rows for two processes, and one for each of two parts none
QUICK = TrainSettings(
    from_scratch="nano",
    vocabulary=512,
    max_steps=9,
    batch_size=4,
    checkpoint_every=3,
    precision="float32",
    threads=1,
)
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", demonstrations(14))


def run(rows: Path, out: Path, **changes: object) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """A run's history without what the clock and the machine say, and the weights it ended with."""
    train(rows, out, dataclasses.replace(QUICK, **changes), lambda progress: None, lambda warning: None)
    return result(out)


def result(out: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    history = json.loads((out / "training.json").read_text())["history"]
    timed = ("tokens_per_s", "seconds", "memory_bytes")
    (weights,) = out.glob("*.safetensors")
    return [{k: v for k, v in entry.items() if k not in timed} for entry in history], load_file(weights)


def assert_alike(one: object, other: object, tolerance: float = 1e-3) -> None:
    (history, weights), (their_history, their_weights) = one, other
    assert len(history) == len(their_history)
    for entry, theirs in zip(history, their_history, strict=True):
        held, their_held = entry.pop("held_out", {}), theirs.pop("held_out", {})
        # Adam makes a whole step of a gradient that is nothing but rounding, which the next gradients then show.
        assert entry.pop("grad_norm", 0) == pytest.approx(theirs.pop("grad_norm", 0), rel=0.1)
        assert entry == pytest.approx(theirs, rel=tolerance)
        # What a model writes that has hardly been trained hangs on near-ties; its loss does not.
        assert held.keys() == their_held.keys()
        assert held.get("loss", 0) == pytest.approx(their_held.get("loss", 0), rel=tolerance)
    assert weights.keys() == their_weights.keys()
    for name, weight in weights.items():
        alike = torch.isclose(weight.float(), their_weights[name].float(), rtol=1e-2, atol=1e-3)
        # For the same reason.
        assert alike.float().mean() > 0.999, name


@pytest.mark.parametrize(
    "changes",
    [
        {"packing": True, "accumulation": 2, "validation": 3, "validation_every": 3, "validation_questions": 1},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"from_scratch": None, "gradient_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param({"batch_size": 6, "num_processes": 3}, marks=pytest.mark.slow),
    ],
    ids=["packed, in parts, measured", "padded", "lora", "three"],
)
def test_two_processes_have_the_losses_of_one(rows, tmp_path, changes):
    one = run(rows, tmp_path / "one", **changes | {"num_processes": 1})
    two = run(rows, tmp_path / "two", **{"num_processes": 2} | changes)
    assert_alike(one, two)
    said = json.loads((tmp_path / "two" / "training.json").read_text())["settings"]
    assert said["num_processes"] == changes.get("num_processes", 2)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_cannot_be_is_one_error_and_leaves_nothing(rows, tmp_path):
    (broken := tmp_path / "broken.jsonl").write_text('{"question": "no more"}\n')
    with pytest.raises(InputError, match=r"broken\.jsonl:1"):
        run(broken, tmp_path / "out", num_processes=2)
    assert list(tmp_path.iterdir()) == [broken]
    with pytest.raises(InputError, match="--num-processes 0"):
        run(rows, tmp_path / "out", num_processes=0)
    with pytest.raises(InputError, match="--fsdp divides a model between processes"):
        run(rows, tmp_path / "out", fsdp=True)


@pytest.mark.slow
def test_a_batch_that_cannot_be_divided_and_fsdp_without_gpus_are_refused(rows, tmp_path):
    with pytest.raises(InputError, match="--batch-size 4: must be a multiple of 3"):
        run(rows, tmp_path / "out", num_processes=3)
    if torch.cuda.device_count() < 2:
        with pytest.raises(InputError, match="needs GPUs"):
            run(rows, tmp_path / "out", num_processes=2, fsdp=True)


def start(*words: object) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True)


def edgedc(rows: Path, out: Path, steps: int, *flags: str) -> list[object]:
    words = ["edgedc", "train", "--from-scratch", "nano", "--vocabulary", "512", "--max-steps", steps]
    words += ["--batch-size", "4", "--checkpoint-every", "3", "--precision", "float32", "--threads", "1"]
    return ["-m", *words, *flags, rows, out]


def alive(session: int) -> list[str]:
    """The command lines of a session's living processes."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "sess=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split(None, 2) for line in listed.splitlines())
    return [args for number, state, args in rows if int(number) == session and not state.startswith("Z")]


def assert_none_lives(session: int) -> None:
    """Within half a minute: multiprocessing's own helper ends by itself when it sees the others gone."""
    deadline = time.monotonic() + 30
    while alive(session) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(session) == []


def trainers(parent: int) -> list[int]:
    listed = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(parent)]
    children = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.splitlines()
    return [int(line.split()[0]) for line in children if "spawn import spawn_main" in line]


def wait_for(what, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_no_process_and_goes_on_to_the_same_weights(rows, tmp_path):
    whole = run(rows, tmp_path / "whole", num_processes=2)
    process = start(*edgedc(rows, tmp_path / "killed", 9, "--num-processes", "2"))
    wait_for(lambda: list(tmp_path.glob(".killed.*.work/checkpoint-*")), process)
    process.kill()
    process.communicate()
    assert_none_lives(process.pid)
    assert not (tmp_path / "killed").exists()
    again = run(rows, tmp_path / "killed", num_processes=2)
    assert again[0] == whole[0]
    for name, weight in whole[1].items():
        assert weight.equal(again[1][name]), name


@pytest.mark.slow
def test_ctrl_c_and_the_death_of_one_process_end_all_with_one_line(rows, tmp_path):
    process = start(*edgedc(rows, tmp_path / "out", 100_000, "--num-processes", "2"))
    wait_for(lambda: list(tmp_path.glob(".out.*.work/checkpoint-*")), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    printed, said = process.communicate(timeout=60)
    assert (printed, process.returncode) == ("", 130)
    assert said.splitlines()[-1] == "edgedc: interrupted"
    assert_none_lives(process.pid)

    process = start(*edgedc(rows, tmp_path / "out", 100_000, "--num-processes", "2"))
    wait_for(lambda: len(trainers(process.pid)) == 2, process)
    os.kill(trainers(process.pid)[1], signal.SIGKILL)
    printed, said = process.communicate(timeout=60)
    assert (printed, process.returncode) == ("", 1)
    assert "edgedc: one of 2 training processes was killed by SIGKILL; everything they wrote is in" in said
    assert_none_lives(process.pid)
    Path(said.split()[-1]).unlink()


@pytest.mark.slow
def test_accelerate_starts_it_too(rows, tmp_path):
    one = run(rows, tmp_path / "one")
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    launch += ["--main_process_port", "0"]
    process = start(*launch, *edgedc(rows, tmp_path / "two", 9))
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert [line.split(":")[0] for line in printed.splitlines()] == [str(tmp_path / "two")]  # one of them tells
    assert said.count("step 9/9") == 1
    assert_alike(one, result(tmp_path / "two"))

    (broken := tmp_path / "broken.jsonl").write_text('{"question": "no more"}\n')
    process = start(*launch, *edgedc(broken, tmp_path / "three", 9))
    printed, said = process.communicate(timeout=300)
    assert process.returncode != 0
    assert len([line for line in said.splitlines() if line.startswith("edgedc: ")]) == 1
    assert not list(tmp_path.glob("*three*"))


# gloo's threads tell that an exchange is done by this call, and let go of it then: here, some time after
LATE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int pthread_cond_broadcast(pthread_cond_t *condition) {
    int (*real)(pthread_cond_t *) = dlvsym(RTLD_NEXT, "pthread_cond_broadcast", "GLIBC_2.3.2");
    int result = real(condition);
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof name);
    if (!strcmp(name, "pt_gloo_runloop")) usleep(atoi(getenv("LATE_US")));
    return result;
}
"""
MEETING = """
from train.fitting import processes
from train.settings import TrainSettings
processes.join(TrainSettings(num_processes=2))
"""


@pytest.mark.skipif(not (sys.platform == "linux" and shutil.which("gcc")), reason="needs gcc and glibc")
@pytest.mark.parametrize("late", [1000, 3000, 5000])
def test_no_process_aborts_where_gloo_lets_go_late_of_what_was_exchanged(tmp_path, late):
    (source := tmp_path / "late.c").write_text(LATE)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "late.so", source, "-ldl"], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": str(ROOT)}
    shared |= {"LD_PRELOAD": str(tmp_path / "late.so"), "LATE_US": str(late), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([sys.executable, "-c", MEETING], env=os.environ | shared | {"RANK": place}) for place in "01"
    ]
    assert [process.wait(120) for process in started] == [0, 0]


# accelerate divides weights on GPUs alone; told that the CPUs were some, PyTorch does it over gloo just as well
ON_CPUS = """
import os, signal, sys
from pathlib import Path
from accelerate import PartialState
from accelerate.utils import DistributedType
from train.fitting import launch, processes
from train.settings import TrainSettings

of_cpus = PartialState.__init__

def of_gpus(self, *given, **named):
    of_cpus(self, *given, **named)
    PartialState._shared_state["distributed_type"] = self.distributed_type = DistributedType.MULTI_XPU

PartialState.__init__ = of_gpus
processes._check = lambda *given: None
data, out = map(Path, sys.argv[1:3])

def report(progress):
    if progress.step == 6 and not (killed := out.with_name("killed")).exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)

launch.train(data, out, TrainSettings(**eval(sys.argv[3])), report, print)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"from_scratch": None, "tuning": "lora"}, {"from_scratch": None, "tuning": "qlora"}],
    ids=["all weights", "lora", "qlora"],
)
def test_processes_that_divide_the_weights_have_the_losses_of_one_and_go_on_when_killed(rows, tmp_path, changes):
    changes |= {"validation": 3, "validation_every": 3, "validation_questions": 1, "packing": True}
    one = run(rows, tmp_path / "one", **changes)
    settings = dataclasses.asdict(dataclasses.replace(QUICK, **changes, fsdp=True))
    (script := tmp_path / "on_cpus.py").write_text(ON_CPUS)
    started = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, rows, tmp_path / "two"]
    process = start(*started, repr(settings))
    process.communicate(timeout=300)
    assert (tmp_path / "killed").exists()
    assert not (tmp_path / "two").exists()
    process = start(*started, repr(settings))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert_alike(one, result(tmp_path / "two"))
