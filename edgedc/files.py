"""Files that survive a kill: rows appended one at a time, artifacts written beside and renamed."""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from edgedc.errors import EdgedcError, InputError

Row = dict[str, Any]


def read_text(path: Path) -> str:
    """A whole text file. Raises InputError when it cannot be read, or is not UTF-8."""
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error}") from error


def read_rows(path: Path) -> Iterator[Row]:
    """The objects of a JSONL file, in order. Raises InputError naming the line that is not one."""
    for _, row in numbered_rows(path):
        yield row


def numbered_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The objects of a JSONL file, each with its line number from 1. Raises InputError as `read_rows` does."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _row(line, f"{path}:{number}")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error}") from error


def _row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: each line must be a JSON object, not a {type(row).__name__}")
    return row


def read_object(path: Path) -> Row:
    """The JSON object in a file. Raises InputError when it cannot be read, or is something else."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: must be a JSON object, not a {type(value).__name__}")
    return value


def key_of(*parts: object) -> str:
    """A short hash of everything that determines a row, so that a rerun finds what is already there."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:24]


class RowWriter:
    """Appends JSONL rows that carry a `key`; knows which keys the file already has.

    Opening drops a last line that a kill left incomplete. A row is on the disk before `write` returns. Raises
    InputError for a file that holds anything else than such rows, and leaves it as it was.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            whole, end = _whole_rows(path)
            self.rows = {row["key"]: row for row in whole}
            # A lone surrogate, which a server may send, has no UTF-8; its \udXXX is the JSON for it.
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from error
        self._file.truncate(end)

    def write(self, row: Row) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows[row["key"]] = row

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _whole_rows(path: Path) -> tuple[list[Row], int]:
    """The rows of a file that a RowWriter wrote, and the byte behind the last whole one."""
    data = path.read_bytes() if path.exists() else b""
    end = data.rfind(b"\n") + 1
    rows = []
    for number, line in enumerate(data[:end].decode("utf-8", errors="replace").split("\n"), start=1):
        if not line.strip():
            continue
        row = _row(line, f"{path}:{number}")
        if "key" not in row:
            raise InputError(f"{path}:{number}: not a row that edgedc wrote (no `key`); give another file to write to")
        rows.append(row)
    if not b'{"'.startswith(data[end : end + 2]):
        raise InputError(f"{path}: its last line is not one that edgedc wrote; give another file to write to")
    return rows, end


def write_text(path: Path, text: str) -> None:
    """Write a whole file, or leave the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as stage:
        stage.write_text(text, "utf-8")


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Where to write a file; it becomes `path` when the block ends well, and is removed when it does not.

    What was at `path` before stays until then. Raises EdgedcError when the block fails for want of room.
    """
    _sweep(path)
    stage = path.with_name(f".{path.name}.{_owner()}")
    try:
        yield stage
        with stage.open("rb") as file:
            os.fsync(file.fileno())
        stage.replace(path)
    except OSError as error:
        # numpy's tofile says how much it wrote, and not why it stopped
        if error.errno == errno.ENOSPC or (error.errno is None and not shutil.disk_usage(path.parent).free):
            raise EdgedcError(f"{path}: the disk is full: make room") from error
        raise
    finally:
        stage.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, until the block ends. What killed processes left of theirs is removed first."""
    _sweep(path)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.{_owner()}.", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it becomes `path` when the block ends well, and is removed when it does not.

    What was at `path` before stays until then. Only a folder that edgedc made, or an empty one, is replaced.
    """
    if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or (path / "manifest.json").exists())):
        raise InputError(f"{path}: exists and was not made by edgedc; give another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made: {error.strerror}; give another folder") from error
    with scratch_folder(path) as stage:
        stage.chmod(0o755)
        yield stage
        if path.exists() and _exchange(stage, path):
            return
        old = stage.with_name(f"{stage.name}{_OLD}")
        if path.exists():
            path.rename(old)
        try:
            stage.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)


_OLD = ".old"


def _owner() -> str:
    """Part of what is staged: this process, and the machine, as others may see the folder and number their own."""
    return f"{os.getpid()}@{platform.node()}"


def _sweep(path: Path) -> None:
    """Remove what processes of this machine that are gone staged for `path`: after a SIGKILL nobody else does."""
    if os.name != "posix" or not path.parent.is_dir():  # elsewhere a process cannot be asked without ending it
        return
    staged = re.compile(rf"\.{re.escape(path.name)}\.(\d+)@{re.escape(platform.node())}(\.|$)")
    for left in path.parent.iterdir():
        found = staged.match(left.name)
        if not found or _lives(int(found[1])):
            continue
        if left.name.endswith(_OLD) and not path.exists():  # killed between two renames
            left.rename(path)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders at one stroke, so that a kill finds either; False where the system cannot (only Linux can).

    renameat2(2), with AT_FDCWD for either folder and RENAME_EXCHANGE.
    """
    import ctypes

    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return bool(rename(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
