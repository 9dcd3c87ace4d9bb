"""What one of several training processes knows of the others. Started alone, it is the first of one."""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as distributed
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from edgedc.errors import EdgedcError, InputError

from ..settings import TrainSettings

# What `accelerate launch --use_fsdp` would set, and a config file of accelerate's sets otherwise.
_FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}

# Kept until the process ends. A thread of gloo's lets go of an exchange some time after it is done; were it the last
# one to, it would need Python to free the tensors, and abort where Python is at its end (PyTorch's issue 117762).
_EXCHANGES: list[distributed.Work] = []


def count() -> int:
    """How many processes train together, as torchrun, accelerate and launch.py say it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def place() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this is the process that writes and reports."""
    return place() == 0


def join(settings: TrainSettings) -> TrainSettings:
    """Meet the other processes, and say in the settings how many there really are, and whether they share the weights.

    Raises InputError where the settings want something else than what has been started.
    """
    fsdp = settings.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if count() > 1:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            PartialState()
        else:
            os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"  # it would be cpu:1, and checkpoints can't be read to there
            PartialState(cpu=True, backend="gloo")
    with together():
        _check(settings.num_processes, fsdp)
    if settings.fsdp:
        os.environ.update(_FSDP)
    return dataclasses.replace(settings, num_processes=count(), fsdp=fsdp)


def _check(wanted: int, fsdp: bool) -> None:
    if wanted not in (1, count()):
        raise InputError(f"--num-processes {wanted}: this run was started in {count()} processes: leave the flag out")
    if fsdp:
        check_fsdp(count())


def check_fsdp(processes: int) -> None:
    """Raises InputError where there is nothing to divide a model between."""
    if processes == 1:
        raise InputError("--fsdp divides a model between processes: give it --num-processes as well")
    if not torch.cuda.is_available():
        raise InputError("--fsdp needs GPUs, and PyTorch finds none: on a CPU every process holds the whole model")


@contextmanager
def together() -> Iterator[None]:
    """A block that all processes go through, or none: one's EdgedcError ends all, and one of them tells it.

    That one raises the error, the others SystemExit with its exit code.
    """
    mine: EdgedcError | None = None
    try:
        yield
    except EdgedcError as error:
        mine = error
    codes = _gathered(mine.exit_code if mine else 0)
    failed = [process for process, code in enumerate(codes) if code]
    if failed:
        raise mine if mine and failed[0] == place() else SystemExit(codes[failed[0]])


def _gathered(code: int) -> list[int]:
    """All processes' codes."""
    if count() == 1:
        return [code]
    codes = torch.zeros(count(), dtype=torch.int64, device=PartialState().device)
    codes[place()] = code
    exchange = distributed.all_reduce(codes, async_op=True)
    exchange.wait()
    _EXCHANGES.append(exchange)
    return codes.tolist()


def from_first(value: Any) -> Any:
    """The first process's value, in all of them."""
    return broadcast_object_list([value])[0] if count() > 1 else value


def leave() -> None:
    if count() > 1 and distributed.is_initialized():
        distributed.destroy_process_group()
