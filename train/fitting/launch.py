"""Training in several processes of this machine, which are started here and end together.

On several machines `accelerate launch -m edgedc train ...` starts them, on each.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from edgedc.backends.cores import physical_cores
from edgedc.child import end_with_parent
from edgedc.errors import EdgedcError, InputError
from edgedc.workshop import workshop

from ..settings import TrainSettings

_CAUSE_S = 2.0  # one process's end makes the others fail too: how long to wait for the one that says why
_TELLING = ("input", "error", "died", "bug")  # which of several failures says most about the cause
_EXIT_S = 30.0  # for processes that are done to take leave of each other


def train(
    data: Path, out: Path, settings: TrainSettings, report: Callable[[Any], None], warn: Callable[[str], None]
) -> Any:
    """What `sft.train` does, in `settings.num_processes` processes, and its result.

    Of processes that accelerate or torchrun has started, all but the first get None. Raises what `sft.train` raises,
    and EdgedcError when a process dies; the others are ended then.
    """
    check(settings)
    if settings.num_processes > 1 and "WORLD_SIZE" not in os.environ:
        return _in_children(data, out, settings, report, warn)
    sft, processes = workshop("train.fitting.sft"), workshop("train.fitting.processes")
    try:
        trained = sft.train(data, out, settings, report, warn)
    finally:
        processes.leave()
    return trained if processes.is_first() else None


def check(settings: TrainSettings) -> None:
    """Raises InputError for processes that cannot be, and MissingExtra without torch."""
    count = settings.num_processes
    if count < 1:
        raise InputError(f"--num-processes {count}: must be at least 1")
    processes = workshop("train.fitting.processes")
    if settings.fsdp:
        processes.check_fsdp(max(count, processes.count()))
    if count > 1 and "WORLD_SIZE" not in os.environ:
        _check_devices(count)


def _check_devices(count: int) -> None:
    import torch

    if torch.cuda.is_available() and count > torch.cuda.device_count():
        raise InputError(f"--num-processes {count}: each takes a GPU, and this machine has {torch.cuda.device_count()}")


def _in_children(
    data: Path, out: Path, settings: TrainSettings, report: Callable[[Any], None], warn: Callable[[str], None]
) -> Any:
    context = multiprocessing.get_context("spawn")
    descriptor, name = tempfile.mkstemp(prefix="edgedc-", suffix=".log")
    os.close(descriptor)
    log, port = Path(name), _free_port()
    children: dict[Connection, BaseProcess] = {}
    keep = False
    try:
        for place in range(settings.num_processes):
            receiver, sender = context.Pipe(duplex=False)
            given = (sender, log, _environment(settings, place, port), data, out, settings)
            children[receiver] = context.Process(target=_work, args=given, daemon=True)
            children[receiver].start()
            sender.close()
        trained, failures = _listen(children, report, warn)
        if not failures:
            for process in children.values():
                process.join(_EXIT_S)
            return trained
        kind, said = min(failures, key=lambda failure: _TELLING.index(failure[0]))
        if kind in ("input", "error"):
            raise (InputError if kind == "input" else EdgedcError)(said)
        keep = True
        raise EdgedcError(f"one of {len(children)} training processes {said}; everything they wrote is in {log}")
    finally:
        for receiver, process in children.items():
            if process.pid:
                process.kill()
                process.join()
            receiver.close()
        if not keep:
            log.unlink(missing_ok=True)


def _environment(settings: TrainSettings, place: int, port: int) -> dict[str, str]:
    """As torchrun sets it. The processes divide the cores, unless they are told how many threads to take."""
    count = settings.num_processes
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "RANK": str(place),
        "LOCAL_RANK": str(place),
        "OMP_NUM_THREADS": str(settings.threads or max(1, physical_cores() // count)),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listen(
    children: dict[Connection, BaseProcess], report: Callable[[Any], None], warn: Callable[[str], None]
) -> tuple[Any, list[tuple[str, str]]]:
    """Pass on what the children say until all are done: the first one's result, and what went wrong, by its kind."""
    trained, failures, until = None, list[tuple[str, str]](), None
    talking: list[Any] = list(children)
    while talking and (until is None or time.monotonic() < until):
        for receiver in wait(talking, until and max(until - time.monotonic(), 0)):
            try:
                kind, said = receiver.recv()  # type: ignore[union-attr]
            except EOFError:
                kind, said = "died", _ending(children[receiver])  # type: ignore[index]
            if kind == "report":
                report(said)
            elif kind == "warn":
                warn(said)
            else:
                talking.remove(receiver)
                trained = said if kind == "done" and said is not None else trained
                if kind != "done":
                    failures.append((kind, said))
                    until = until or time.monotonic() + _CAUSE_S
    return trained, failures


def _ending(process: BaseProcess) -> str:
    process.join(_CAUSE_S)
    code = process.exitcode or 0
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _work(
    sender: Connection, log: Path, environment: dict[str, str], data: Path, out: Path, settings: TrainSettings
) -> None:
    """One of the processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then ends this process
    threading.Thread(target=end_with_parent, args=(log,), daemon=True).start()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)

    def tell(kind: str) -> Callable[[Any], None]:
        return lambda said: sender.send((kind, said))

    try:
        tell("done")(train(data, out, settings, tell("report"), tell("warn")))
    except SystemExit:
        tell("done")(None)  # another one tells why
    except EdgedcError as error:
        tell("input" if isinstance(error, InputError) else "error")(str(error))
    except Exception as error:  # other packages raise anything; the log keeps the traceback
        traceback.print_exc()
        tell("bug")(f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
