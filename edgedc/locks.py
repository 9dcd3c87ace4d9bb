"""Locks of the operating system, which a process loses with its life and not before: no clock is involved."""

import os
import sys
from pathlib import Path

from edgedc.errors import EdgedcError, InputError


class Locks:
    """A byte of a file for each number. A lock on it is the process's, and ends with it.

    A process opens a file of them once at a time: to close it ends all that the process has there (fcntl(2)).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from error
        self.mine: set[int] = set()

    def take(self, number: int) -> bool:
        """False where another process has it, or this one has it already."""
        if number in self.mine or not self._lock(number):
            return False
        self.mine.add(number)
        return True

    def held(self, number: int) -> bool:
        """Whether a process that lives has it. For whoever knows that nobody wants to take it at the same time."""
        if number in self.mine or not self._lock(number):
            return True
        _unlock(self._file, number)
        return False

    def _lock(self, number: int) -> bool:
        try:
            _lock(self._file, number)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise EdgedcError(
                f"{self.path}: cannot be locked ({error.strerror}): set EDGEDC_HOME to a local folder"
            ) from error
        return True

    def give_back(self, number: int) -> None:
        if number in self.mine:
            self.mine.discard(number)
            _unlock(self._file, number)

    def close(self) -> None:
        self.mine.clear()  # what is given back later must not touch whatever has the file's number then
        os.close(self._file)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, byte: int) -> None:
        os.lseek(file, byte, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _unlock(file: int, byte: int) -> None:
        os.lseek(file, byte, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: int, byte: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)

    def _unlock(file: int, byte: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, byte)
