"""Work in threads: so many at a time, so many that wait, and an end to those whose client has gone."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from edgedc.server.reply import BUSY, Piece, Refused, Reply


class Stopped(Exception):
    """Raised in the thread of a task that was stopped, by the next thing that it says."""


class Task:
    """A function for a thread of its own, which hands over pieces of a reply by `say`, and in the end the reply.

    `check`, `say` and `run` are for that thread; all else is for the event loop in which it was made.
    """

    reply: Reply

    def __init__(self, work: "Callable[[Task], Reply]") -> None:
        self.begun = False
        self.ended = asyncio.Event()
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._error: BaseException | None = None
        self._stopped = threading.Event()

    async def next(self) -> Piece | None:
        """What it says next; None when it is done and `reply` is there. Raises what the function raised."""
        piece = await self._pieces.get()
        if piece is None and self._error:
            raise self._error
        return piece

    def stop(self) -> None:
        """It ends when it next says something; what has not begun does not begin."""
        self._stopped.set()
        if not self.begun:
            self.end(Stopped())

    def end(self, error: BaseException | None = None) -> None:
        self._error = error
        self.ended.set()
        self._pieces.put_nowait(None)

    def check(self) -> None:
        """Raises Stopped when nobody wants the reply any more."""
        if self._stopped.is_set():
            raise Stopped

    def say(self, piece: Piece) -> None:
        """Raises Stopped as `check` does."""
        self.check()
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def run(self) -> None:
        error = None
        try:
            self.reply = self._work(self)
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed: the server was made to end at once
            self._loop.call_soon_threadsafe(self.end, error)


class Workers:
    """At most `parallel` tasks at work, and at most `queue` that wait for their turn, in the order they came."""

    def __init__(self, parallel: int, queue: int) -> None:
        self.running = 0
        self._parallel, self._queue = parallel, queue
        self._slots = asyncio.Semaphore(parallel)
        self._typical_s = 1.0
        self._turns: dict[Task, asyncio.Task[None]] = {}

    @property
    def waiting(self) -> int:
        return len(self._turns) - self.running

    def start(self, task: Task) -> None:
        """Run it when it is its turn. Raises Refused (429) where there is no room to wait."""
        if len(self._turns) >= self._parallel + self._queue:
            wait = min(60, math.ceil(self._typical_s * (1 + self.waiting / self._parallel)))
            message = f"as many questions are at work and wait as may: try again in {wait} s"
            raise Refused(429, message, code=BUSY, retry_after=wait)
        self._turns[task] = asyncio.create_task(self._turn(task))
        self._turns[task].add_done_callback(lambda _: self._turns.pop(task))

    def stop(self, task: Task) -> None:
        """Its client has gone. One that waits gives its place away at once; one at work keeps it until it ends."""
        task.stop()
        if not task.begun and task in self._turns:
            self._turns[task].cancel()

    def drop(self) -> None:
        """The process is to end: what is at work is not waited for any more."""
        for task in list(self._turns):
            self.stop(task)
            task.end(Stopped())

    async def _turn(self, task: Task) -> None:
        await self._slots.acquire()
        self.running += 1
        started = time.monotonic()
        try:
            task.begun = True
            threading.Thread(target=task.run, name="edgedc-serve", daemon=True).start()
            await task.ended.wait()
            self._typical_s += 0.1 * (time.monotonic() - started - self._typical_s)
        finally:
            self.running -= 1
            self._slots.release()
