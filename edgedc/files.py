"""Files that survive a kill: rows appended one at a time, artifacts written beside and renamed."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from edgedc.errors import InputError

Row = dict[str, Any]


def read_rows(path: Path) -> Iterator[Row]:
    """The objects of a JSONL file, in order. Raises InputError naming the line that is not one."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{path}:{number}: not JSON: {error}") from error
                if not isinstance(row, dict):
                    raise InputError(f"{path}:{number}: each line must be a JSON object, not a {type(row).__name__}")
                yield row
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error}") from error


def key_of(*parts: object) -> str:
    """A short hash of everything that determines a row, so that a rerun finds what is already there."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class RowWriter:
    """Appends JSONL rows that carry a `key`; knows which keys the file already has.

    Opening drops a last line that a kill left incomplete. A row is on the disk before `write` returns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_incomplete_line(path)
        self.rows = {row["key"]: row for row in read_rows(path) if "key" in row} if path.exists() else {}
        self._file = path.open("a", encoding="utf-8")

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


def _drop_incomplete_line(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb+") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)


def write_text(path: Path, text: str) -> None:
    """Write a whole file, or leave the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it becomes `path` when the block ends well, and is removed when it does not.

    What was at `path` before stays until then. Only a folder that edgedc made, or an empty one, is replaced.
    """
    if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or (path / "manifest.json").exists())):
        raise InputError(f"{path}: exists and was not made by edgedc; give another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    stage.chmod(0o755)
    try:
        yield stage
        old = stage.with_name(f"{stage.name}.old")
        if path.exists():
            path.rename(old)
        stage.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
