"""Files that survive a kill: rows appended one at a time, artifacts written beside and renamed."""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from edgedc.errors import EdgedcError, InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Row = dict[str, Any]

_LONGEST_LINE = 1 << 24  # bytes: no question or demonstration is that long, and a line is held in memory


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
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    with file:
        yield from rows_in(file, path)


def rows_in(file: IO[bytes], name: object) -> Iterator[tuple[int, Row]]:
    """The same of a file that is open, as stdin is; errors call it `name`. Holds one line at a time."""
    number = 0
    try:
        while line := file.readline(_LONGEST_LINE):
            number += 1
            if len(line) == _LONGEST_LINE:
                raise InputError(f"{name}:{number}: a line of {_LONGEST_LINE >> 20} MB or more: leave it out")
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if text.strip():
                yield number, _row(text, f"{name}:{number}")
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name}:{number + (not number)}: not UTF-8 text: {error}") from error


def _row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        said = str(error).replace(": line 1 column", " at column")  # the line that it stands in is named before
        raise InputError(f"{where}: not JSON: {said}; each line must be a JSON object") from error
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


class RowAppender:
    """Appends JSONL rows that begin with a `key`, and keeps none of them in memory.

    Opening gives each row that is there to `seen`, which may raise; then it drops a last line that a kill left
    incomplete. Raises InputError for a file that holds anything else than such rows, or that another process appends
    to, and leaves it as it was. A row outlives this process when `write` returns, and a loss of power at most `sync_s`
    seconds later, or when the block ends. A file that was empty, or not there, and stays so is removed then.
    """

    def __init__(self, path: Path, seen: Callable[[Row], None], *, sync_s: float = 0.0) -> None:
        self.path, self._sync_s, self._synced = path, sync_s, time.monotonic()
        _check_place(path)
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            lock(self._file, path)
            self._new = not os.fstat(self._file.fileno()).st_size
            self._end, ended = _go_through(path, seen)
            self._file.truncate(self._end)
            if not ended:
                self._end += self._file.write(b"\n")
        except BaseException:
            self._file.close()
            raise

    def write(self, row: Row) -> None:
        """Raises EdgedcError when there is no room for it; whole rows remain."""
        # A lone surrogate, which a server may send, has no UTF-8; its \udXXX is the JSON for it.
        data = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
            if time.monotonic() - self._synced >= self._sync_s:
                self._sync()
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise self._failed(error) from error
        self._end += len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if self._new and not self._end:
                _target(self.path).unlink(missing_ok=True)
                return
            try:
                self._sync()
            except OSError as failed:
                raise self._failed(failed) from failed

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _failed(self, error: OSError) -> EdgedcError:
        return EdgedcError(f"{self.path}: cannot be written: {error.strerror}; run again to go on from there")


class RowWriter(RowAppender):
    """A RowAppender that keeps its rows: `rows`, by their keys. A row is on the disk before `write` returns."""

    def __init__(self, path: Path) -> None:
        self.rows: dict[str, Row] = {}
        super().__init__(path, self._keep)

    def write(self, row: Row) -> None:
        super().write(row)
        self._keep(row)

    def _keep(self, row: Row) -> None:
        self.rows[row["key"]] = row


def lock(file: IO[bytes], path: Path) -> None:
    """Have an open file to ourselves until it is closed, which a kill does too. `path` is what an error calls it.

    Raises InputError where another process has it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = not os.fstat(file.fileno()).st_nlink  # removed, as it stayed empty, while we opened it
    except OSError as error:  # some network folders know no locks
        taken = error.errno in (errno.EAGAIN, errno.EACCES)
    if taken:
        raise InputError(f"{path}: another process is writing to it; wait for it to end, or write to another")


_BEGINNING = b'{"key": "'  # of every row


def _go_through(path: Path, seen: Callable[[Row], None]) -> tuple[int, bool]:
    """Give `seen` each row of a file that a RowAppender wrote.

    Returns the byte behind the last whole row, and whether its line ends there: an editor may have left that out. A
    last line that is not whole is the rest of a killed write only where it begins as a row does.
    """
    end, ended = 0, True
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n") and not _is_json(line):
                if line[: len(_BEGINNING)] != _BEGINNING[: len(line)]:
                    raise InputError(f"{path}: its last line is not one that edgedc wrote; write to another file")
                break
            end, ended = end + len(line), line.endswith(b"\n")
            if not line.strip():
                continue
            row = _row(line.decode("utf-8", errors="replace"), f"{path}:{number}")
            if not isinstance(row.get("key"), str):
                raise InputError(
                    f"{path}:{number}: not a row that edgedc wrote (no `key`); give another file to write to"
                )
            seen(row)
    return end, ended


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _check_place(path: Path) -> None:
    """Make the folder that a file is to stand in. Raises InputError where no file can be, or something else is."""
    if str(path) == "-":
        raise InputError("-: cannot be stdout; name a file")
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: cannot be written: not a regular file; give another")
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputError(f"{path}: cannot be written: {error.filename} is not a folder") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def check_writable(path: Path, reader: Callable[[Path], object], *others: Path | None) -> None:
    """Raises InputError where `write_text` must not put a file, or cannot, so that this is known before the work.

    It must not replace what `reader` refuses, which reads what is written there, nor one of the `others` that are
    written too. What a verb reads is another kind of file than what it writes, and so is safe as well.
    """
    for other in others:
        if other and os.path.realpath(other) == os.path.realpath(path):
            raise InputError(f"{path}: two files would be written there; give another for one of them")
    _check_place(path)
    if path.exists() and path.stat().st_size:
        try:
            reader(path)
        except InputError as error:
            raise InputError(f"{error}; it would be overwritten: give another file to write to") from error
    with _blamed(path, stage := _stage(_target(path))):
        stage.touch()
        stage.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a whole file, or leave the old one."""
    with beside(path) as stage:
        stage.write_text(text, "utf-8")


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Where to write a file; it becomes `path` when the block ends well, and is removed when it does not.

    What was at `path` before stays until then; a link stays one. Raises EdgedcError where the file cannot be written.
    """
    _check_place(path)
    target = _target(path)
    _sweep(target)
    stage = _stage(target)
    try:
        with _blamed(path, stage):
            yield stage
            with stage.open("rb") as file:
                os.fsync(file.fileno())
            stage.replace(target)
    finally:
        with suppress(OSError):
            stage.unlink(missing_ok=True)


def _target(path: Path) -> Path:
    """The file or folder itself, where `path` is a link to it: a rename would take the place of the link."""
    return Path(os.path.realpath(path))


def _stage(target: Path) -> Path:
    return target.with_name(f".{target.name}.{_owner()}")


@contextmanager
def _blamed(path: Path, stage: Path) -> Iterator[None]:
    """Trouble in writing `stage` becomes an EdgedcError of `path`. What the block reads has troubles of its own."""
    try:
        yield
    except OSError as error:
        # numpy's tofile says how much it wrote, and not why it stopped
        if error.errno == errno.ENOSPC or (error.errno is None and not shutil.disk_usage(stage.parent).free):
            raise EdgedcError(f"{path}: the disk is full: make room") from error
        if error.errno in (errno.EFBIG, errno.EDQUOT) or error.filename == str(stage):
            raise EdgedcError(f"{path}: cannot be written: {error.strerror}") from error
        raise


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, until the block ends. What killed processes left of theirs is removed first."""
    path = _target(path)
    _sweep(path)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.{_owner()}.", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_replaceable(path: Path, *read: Path) -> None:
    """Raises InputError where `staged_folder` must not put a folder, so that this is known before the work.

    It must not replace what is `read` to make it: that would be gone.
    """
    if not path.name:
        raise InputError(f"{path}: a new folder needs a name of its own; give another folder")
    for each in read:
        if each.exists() and each.resolve().is_relative_to(path.resolve()):
            raise InputError(f"{path}: would replace {each}, which it is made from; give another folder")
    if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or _is_made(path))):
        raise InputError(f"{path}: exists and was not made by edgedc; give another folder")
    there = next(parent for parent in _target(path).parents if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise InputError(f"{path}: cannot be made: {there} is no folder that can be written to; give another folder")


def _is_made(folder: Path) -> bool:
    """Whether an edgedc of any version made it: web apps and browser extensions have a manifest.json too."""
    try:
        return {"edgedc", "kind"} <= read_object(folder / "manifest.json").keys()
    except InputError:
        return False


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it becomes `path` when the block ends well, and is removed when it does not.

    What was at `path` before stays until then; a link stays one. Only a folder that edgedc made, or an empty one, is
    replaced.
    """
    check_replaceable(path)
    path = _target(path)
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
    if os.name != "posix":  # elsewhere a process cannot be asked without ending it
        return
    staged = re.compile(rf"\.{re.escape(path.name)}\.(\d+)@{re.escape(platform.node())}(\.|$)")
    with suppress(OSError):  # no folder, one that one may not list, or another user's file in it
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
    """Raises InputError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
