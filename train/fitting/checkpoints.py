"""What a killed run left, and what a later one may go on from.

.OUT.KEY.work/         beside the folder to be made; the key is of everything that determines the weights
    run.json           what the key is of
    checkpoint-500     all that the next step needs; the newest alone
    best-400           the weights with the lowest held-out loss, where there is validation

A log for TensorBoard, where it is installed, is not in there: it stays, as OUT.tensorboard/KEY.
"""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from edgedc.errors import EdgedcError, InputError
from edgedc.files import key_of, lock, read_object, write_text

from ..settings import WITHOUT_EFFECT, TrainSettings
from .base import Base
from .data import Encoded
from .processes import is_first, together

RUN = "run.json"
PARTIAL = ".partial"


def identity(settings: TrainSettings, base: Base, fit: Sequence[Encoded], held: Sequence[Encoded]) -> dict[str, Any]:
    """Everything that determines the weights. Values are JSON's."""
    chosen = {k: v for k, v in dataclasses.asdict(settings).items() if k not in WITHOUT_EFFECT}
    made_from = {
        "data": _digest(fit),
        "held-out data": _digest(held),
        "base's files": key_of(base.revision, base.sha256, base.config_sha256),
    }
    return json.loads(json.dumps(chosen | made_from, default=str))


def work_folder(out: Path, what: dict[str, Any]) -> tuple[Path, list[str]]:
    """The folder for a run's checkpoints, made if need be; and a line about each one that another run to `out` left.

    Raises InputError where no folder can be made.
    """
    work = out.with_name(f".{out.name}.{key_of(what)[:8]}.work")
    notes = []
    for other in _works(out):
        if other != work and (newest := latest(other)):
            notes.append(
                f"{newest}: not gone on from, as it was made with {_difference(read_object(other / RUN), what)}; "
                "remove its folder if you don't need it"
            )
    try:
        if not (work / RUN).is_file():
            write_text(work / RUN, json.dumps(what, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"{out}: cannot be made: {error.strerror}; give another folder") from error
    return work, notes


@contextmanager
def alone(work: Path, out: Path) -> Iterator[None]:
    """Have a run's folder, and `out`, to ourselves: two processes would write into each other's checkpoints, and with
    other settings the one that ends last would replace what the other has made.

    What is left in the folder at the end is what a later run goes on from; without a checkpoint it is removed, and so
    is what killed runs to `out` left without one. Raises InputError where another process trains to `out`.
    """
    with ExitStack() as held:
        with together():
            if is_first():
                lock(held.enter_context((work / RUN).open("ab")), out)
                held.callback(_sweep, work)
                for other in _works(out):
                    if other != work:
                        _sweep_dead(other, out)
        yield


@contextmanager
def full_disk_told(work: Path) -> Iterator[None]:
    """Raises EdgedcError when the block fails for want of room."""
    try:
        yield
    except Exception as error:  # of three libraries that write; only one of them keeps the reason
        no_room = getattr(error, "errno", None) == errno.ENOSPC or f"os error {errno.ENOSPC}" in str(error)
        if not no_room and not (isinstance(error, RuntimeError) and shutil.disk_usage(work).free < 1 << 20):
            raise
        newest = latest(work)
        rest = f"make room, and run again to go on from {newest.name}" if newest else "make room, and run again"
        raise EdgedcError(f"{work}: the disk is full: {rest}") from error


def _sweep(work: Path) -> None:
    shutil.rmtree(work / PARTIAL if latest(work) else work, ignore_errors=True)


def _sweep_dead(work: Path, out: Path) -> None:
    with suppress(OSError), (work / RUN).open("rb") as file:
        lock(file, out)  # held by a run that lives
        if not latest(work):
            _sweep(work)


def _works(out: Path) -> list[Path]:
    """The folders of all runs to `out`, whatever their settings."""
    return sorted(out.parent.glob(f".{_escaped(out.name)}.*.work")) if out.parent.is_dir() else []


def discard(work: Path) -> None:
    """Remove a run's folder. What a kill leaves of it holds no checkpoint, as half a one would be gone on from."""
    begin(work / "discarded")
    for folder in work.glob("checkpoint-*"):
        folder.rename(work / PARTIAL / folder.name)
    shutil.rmtree(work, ignore_errors=True)


def latest(work: Path) -> Path | None:
    """The newest whole checkpoint."""
    return max(work.glob("checkpoint-*"), key=step_of, default=None)


def step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def begin(folder: Path) -> Path:
    """An empty folder to write to, which `finish` makes `folder`. What a kill left in it is gone."""
    shutil.rmtree(folder.parent / PARTIAL, ignore_errors=True)
    stage = folder.parent / PARTIAL / folder.name
    stage.mkdir(parents=True)
    return stage


def finish(folder: Path) -> None:
    """Flush what was written since `begin`, and give it its name."""
    stage = folder.parent / PARTIAL / folder.name
    for path in [*stage.rglob("*"), stage]:
        _flush(path)
    if folder.exists():
        shutil.rmtree(folder)
    stage.rename(folder)
    _flush(folder.parent)


def prune(work: Path, *, checkpoint: int, best: int | None) -> None:
    """Remove what these steps' folders have made needless."""
    for folder in (*work.glob("checkpoint-*"), *work.glob("best-*")):
        if step_of(folder) != (checkpoint if folder.name.startswith("checkpoint") else best):
            shutil.rmtree(folder)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(rows: Sequence[Encoded]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.prompt, row.ids]).encode())
    return digest.hexdigest()[:24]


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    names = [name for name in new if old.get(name) != new[name]]
    hashes = ("data", "held-out data", "base's files")
    return ", ".join(
        f"other {name}" if name in hashes else f"--{name.replace('_', '-')} {old.get(name)}" for name in names
    )


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
