"""Runs work in a process of its own, so that an abort in native code is an error line and its chatter stays away."""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
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
    log: Path | None = None
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, function, args), daemon=True)
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
            elif kind == "log":
                log = Path(value)
            elif kind == "done":
                process.join(EXIT_S)
                return
            elif kind == "input":
                raise InputError(value)
            elif kind == "error":
                raise EdgedcError(value)
            else:
                keep = log is not None
                raise EdgedcError(f"{what}: {value}" + (f"; everything it wrote is in {log}" if log else ""))
    finally:
        process.kill()
        process.join()
        receiver.close()
        if log and not keep:
            log.unlink(missing_ok=True)


def _run(sender: Connection, function: Callable[..., Iterator[Any]], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then ends this process
    file, log = tempfile.mkstemp(prefix="edgedc-", suffix=".log")
    threading.Thread(target=end_with_parent, args=(Path(log),), daemon=True).start()
    for stream in (1, 2):
        os.dup2(file, stream)
    keep = False
    with contextlib.suppress(BrokenPipeError):  # the parent was killed, as the other thread may be about to notice
        sender.send(("log", log))
        keep = _tell(sender, function, args)
    if not keep:  # the parent may be killed before it does so
        Path(log).unlink(missing_ok=True)


def _tell(sender: Connection, function: Callable[..., Iterator[Any]], args: tuple[Any, ...]) -> bool:
    """Send what the function yields, and how it ended; say whether what the process wrote is wanted."""
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
        return True
    return False


def end_with_parent(log: Path) -> None:
    """For a thread of a process that multiprocessing started: a parent that gets a SIGKILL cannot end the process.

    It would go on for minutes and write. Its log goes with it.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    log.unlink(missing_ok=True)
    os._exit(1)


def _ending(process: BaseProcess, log: Path | None) -> str:
    process.join()
    code = process.exitcode or 0
    ended = f"ended with exit code {code}"
    if code < 0:
        ended = f"killed by signal {-code}"
        with contextlib.suppress(ValueError):
            ended = f"killed by {signal.Signals(-code).name}"
    written = log.read_text("utf-8", "replace") if log else ""
    said = [line for line in written.splitlines() if line.strip()]
    return f"{ended} after {said[-1].strip()[:200]!r}" if said else ended
