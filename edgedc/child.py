"""Runs work in a process of its own, so that an abort in native code is an error line and its chatter stays away."""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from edgedc.errors import EdgedcError, InputError, MissingExtra

EXIT_S = 10.0  # for a process that has done its work to give back what it shares, as the semaphore of a progress bar


def in_child(what: str, function: Callable[..., Iterator[Any]], *args: Any) -> Iterator[Any]:
    """Yield what a generator function of a module yields in a fresh process. `what` begins the error line.

    Raises what it raises of edgedc's own errors. For any other end before its time an EdgedcError that names a file
    with everything the process wrote.
    """
    descriptor, name = tempfile.mkstemp(prefix="edgedc-", suffix=".log")
    os.close(descriptor)
    log = Path(name)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, name, function, args), daemon=True)
    process.start()
    sender.close()
    keep = False
    try:
        while True:
            try:
                kind, value = receiver.recv()
            except EOFError:
                kind, value = "died", _ending(process, log)
            if kind == "item":
                yield value
            elif kind == "done":
                process.join(EXIT_S)
                return
            elif kind == "input":
                raise InputError(value)
            elif kind == "error":
                raise EdgedcError(value)
            else:
                keep = True
                raise EdgedcError(f"{what}: {value}; everything it wrote is in {log}")
    finally:
        process.kill()
        process.join()
        receiver.close()
        if not keep:
            log.unlink(missing_ok=True)


def _run(sender: Connection, log: str, function: Callable[..., Iterator[Any]], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then ends this process
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    try:
        for item in function(*args):
            sender.send(("item", item))
        sender.send(("done", None))
    except ModuleNotFoundError as error:
        sender.send(("input", str(MissingExtra(error.name or str(error), "export"))))
    except InputError as error:
        sender.send(("input", str(error)))
    except EdgedcError as error:
        sender.send(("error", str(error)))
    except Exception as error:  # other packages raise anything; the log keeps the traceback
        traceback.print_exc()
        sys.stderr.flush()
        sender.send(("bug", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"))


def _ending(process: BaseProcess, log: Path) -> str:
    process.join()
    code = process.exitcode or 0
    ended = f"ended with exit code {code}"
    if code < 0:
        ended = f"killed by signal {-code}"
        with contextlib.suppress(ValueError):
            ended = f"killed by {signal.Signals(-code).name}"
    said = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return f"{ended} after {said[-1].strip()[:200]!r}" if said else ended
