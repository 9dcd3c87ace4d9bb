"""A small SQLite file that several processes share, for one user's eyes, and its errors in one line."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgedc.errors import EdgedcError, InputError

_BUSY_S = 30.0


class Database:
    """An open file in WAL mode whose every commit is on the disk; to be used from any number of threads.

    A new file has mode 0600 and the tables of `schema`. What is deleted is overwritten. Raises InputError for a file
    that is damaged, something else's or of a newer version than `version`, and EdgedcError where the disk is full or
    nothing can be written.
    """

    def __init__(self, path: Path, schema: str, version: int) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Only where there is no file: to close one that this process has open would end the locks that SQLite has
            # on it (fcntl(2)).
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from error
        with self._plain():
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            with self._plain():
                self._prepare(schema, version)
        except BaseException:
            self.close()
            raise

    def _prepare(self, schema: str, version: int) -> None:
        self._connection.row_factory = sqlite3.Row
        self._to_wal()
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA secure_delete = ON")
        with self.transaction():
            (there,) = self._connection.execute("PRAGMA user_version").fetchone()
            if there > version:
                raise InputError(f"{self.path}: a newer edgedc wrote it: use that one, or move the file away")
            if there == 0:
                if self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    raise InputError(f"{self.path}: not a file of edgedc's: move it away")
                for statement in filter(str.strip, schema.split(";")):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {version}")

    def _to_wal(self) -> None:
        """Several processes may open a new file at once, and SQLite does not wait for its turn to change the mode."""
        end = time.monotonic() + _BUSY_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if _name(error) not in ("SQLITE_BUSY", "SQLITE_LOCKED") or time.monotonic() > end:
                    raise
            time.sleep(0.01)

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Alone with the file, among all threads and processes; what was written is undone where the block raises."""
        with self._lock, self._plain():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock, self._plain():
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _plain(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _plainly(self.path, error) from error


def _name(error: sqlite3.Error) -> str:
    """The error's primary name, without what SQLite adds to it (SQLITE_IOERR_WRITE); "" for one of Python's own."""
    name = getattr(error, "sqlite_errorname", "")
    return "_".join(name.split("_")[:2])


def _plainly(path: Path, error: sqlite3.Error) -> EdgedcError:
    match _name(error):
        case "SQLITE_FULL":
            return EdgedcError(f"{path}: the disk is full: make room")
        case "SQLITE_NOTADB" | "SQLITE_CORRUPT":
            return InputError(f"{path}: damaged ({error}): move it away, and a new one is made")
        case "SQLITE_BUSY":
            return EdgedcError(f"{path}: another program has held it for {_BUSY_S:g} s: try again")
        case "SQLITE_CANTOPEN" | "SQLITE_READONLY" | "SQLITE_IOERR" | "SQLITE_PERM":
            return EdgedcError(f"{path}: cannot be read or written ({error}): check the disk and the file's mode")
    return InputError(f"{path}: not as edgedc wrote it ({error}): move it away, and a new one is made")
