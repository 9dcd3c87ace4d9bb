"""Questions that wait for a solver, in one SQLite file, and what has been answered of them so far.

A question is put here before the solver is asked, every reply is kept as it comes, and the question is removed once
its answer has been shown. So a kill, an empty battery or a broken network loses nothing, and no reply that was
received is paid for again. Whoever works on a question holds a lock of the operating system on it, which a process
loses with its life and not before: no clock is involved.
"""

import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgedc.database import Database
from edgedc.errors import InputError
from edgedc.files import Row
from edgedc.locks import Locks

State = Literal["waiting", "refused"]

_VERSION = 1
_SCHEMA = """
CREATE TABLE question (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    asked REAL NOT NULL,
    batch TEXT NOT NULL,
    job TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    begun TEXT NOT NULL DEFAULT 'null',
    error TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    calling INTEGER NOT NULL DEFAULT 0,
    doubtful INTEGER NOT NULL DEFAULT 0,
    shown INTEGER NOT NULL DEFAULT 0
)
"""


@dataclass(frozen=True)
class Question:
    """One row. `asked` is in seconds since 1970.

    `job` is what was asked, of whom and how; it never holds a key. `begun` is what has been received of the answer,
    which may be all of it; None where nothing has. `batch` is the file of the batch that it belongs to, "" where it
    belongs to none. `attempts` counts how often it has failed, and `error` says how at last. `doubtful` counts calls
    that were sent and came to nothing, by a kill, Ctrl-C or a failure: a server may bill those too. `shown`: its answer
    may have been shown before.
    """

    id: int
    key: str
    asked: float
    batch: str
    job: Row
    state: State
    begun: Row | None
    error: str
    attempts: int
    doubtful: int
    shown: bool


class Outbox:
    """The questions in a file. A process opens one of them, which any number of threads may use.

    A question that was added or claimed is this process's until `release`, `remove` or its end. Raises what Database
    raises.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = Database(path, _SCHEMA, _VERSION)
        self._locks = Locks(path.with_name(path.name + ".locks"))

    def close(self) -> None:
        self._locks.close()
        self._database.close()

    def add(self, job: Row, *, key: str = "", batch: str = "") -> Question:
        """Put a question in, and claim it. `key`: its row's in the batch; "": a new one."""
        with self._database.transaction() as sql:
            made = sql.execute(
                "INSERT INTO question (key, asked, batch, job) VALUES (?, ?, ?, ?)",
                (key or secrets.token_hex(12), time.time(), batch, json.dumps(job)),
            )
            assert made.lastrowid is not None
            self._locks.take(made.lastrowid)
            return self._read(sql.execute("SELECT * FROM question WHERE id = ?", (made.lastrowid,)).fetchone())

    def claim(self, *, after: int = 0) -> Question | None:
        """The next that waits behind the id `after`, that nobody works on and that is no batch's; None: no more."""
        return self._claim("batch = '' AND state = 'waiting' AND id > ? ORDER BY id", after)

    def claim_key(self, key: str) -> Question | None:
        """The question of this key, in any state; None where there is none, or somebody else works on it."""
        return self._claim("key = ?", key)

    def _claim(self, which: str, *values: object) -> Question | None:
        # Whoever finishes a question writes that before it gives the lock back. So a row that is read, and then
        # locked, while nobody else can write, is as it was left.
        with self._database.transaction() as sql:
            for row in sql.execute(f"SELECT * FROM question WHERE {which}", values).fetchall():
                if not self._locks.take(row["id"]):
                    continue
                sql.execute(
                    "UPDATE question SET doubtful = doubtful + calling, calling = 0 WHERE id = ? AND calling > 0",
                    (row["id"],),
                )
                return self._read(sql.execute("SELECT * FROM question WHERE id = ?", (row["id"],)).fetchone())
        return None

    def questions(self) -> list[Question]:
        """All of them, the oldest first, whoever works on them."""
        return [self._read(row) for row in self._database.rows("SELECT * FROM question ORDER BY id")]

    def keys(self, batch: str) -> set[str]:
        """Those of the batch's questions, whoever works on them."""
        return {row["key"] for row in self._database.rows("SELECT key FROM question WHERE batch = ?", batch)}

    def calling(self, id: int) -> None:
        """A call begins to leave this device: whatever becomes of it, it may be billed."""
        self._set(id, "calling = calling + 1")

    def failed_call(self, id: int, doubtful: int) -> None:
        """One that was sent has come to nothing; so many of its attempts may be billed."""
        self._set(id, "calling = max(calling - 1, 0), doubtful = doubtful + ?", doubtful)

    def keep(self, id: int, begun: Row, *, call: bool = True) -> None:
        """What there is of the answer by now. `call`: one that was sent has come to a reply."""
        self._set(id, "calling = max(calling - ?, 0), begun = ?", int(call), json.dumps(begun))

    def failed(self, id: int, error: str, *, refused: bool = False) -> None:
        """No answer this time; `refused`: nor at any other. What is still being called is doubtful from now on."""
        state: State = "refused" if refused else "waiting"
        counts = "attempts = attempts + 1, doubtful = doubtful + calling, calling = 0"
        self._set(id, f"state = ?, error = ?, {counts}", state, error[:1000])

    def showing(self, id: int) -> None:
        """Its answer is about to be shown."""
        self._set(id, "shown = 1")

    def remove(self, id: int) -> None:
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM question WHERE id = ?", (id,))
        self._locks.give_back(id)

    def release(self, id: int) -> None:
        """Somebody else may go on with it."""
        self._locks.give_back(id)

    def _set(self, id: int, what: str, *values: object) -> None:
        with self._database.transaction() as sql:
            sql.execute(f"UPDATE question SET {what} WHERE id = ?", (*values, id))

    def _read(self, row: Any) -> Question:
        try:
            read = {name: json.loads(row[name]) for name in ("job", "begun")}
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.path}: question {row['key']} is damaged ({error}): move the file away") from error
        plain = {name: row[name] for name in ("id", "key", "asked", "batch", "state", "error", "attempts", "doubtful")}
        return Question(**plain, **read, shown=bool(row["shown"]))
