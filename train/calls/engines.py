"""Run one function over many items, in threads of this process or on Ray, and hand the rows back as they are made."""

import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Generic, Literal, Protocol, TypeVar

from edgedc.errors import BudgetError, ContextError, EdgedcError, InputError
from edgedc.files import Row

Item = TypeVar("Item")
Taken = TypeVar("Taken", contravariant=True)
Engine = Literal["threads", "ray"]

MOST_FAILURES = 20  # in a row; then the other side is down, and asking on would only cost time
GRACE_S = 2.0  # how long Ctrl-C waits for what is in flight


class Job(Protocol[Taken]):
    """What is done to each item. Picklable: it holds settings, and no sockets."""

    def open(self, share: float) -> AbstractContextManager[Callable[[Taken], Row]]:
        """The function, ready to be called from several threads; leaving the context frees what it holds.

        `share` is the part of the ceiling on spending and of the rates per minute that this worker may use.
        """


@dataclass(frozen=True)
class Failure(Generic[Item]):
    """An item whose call failed after its retries. A rerun asks again."""

    item: Item
    error: EdgedcError


# What a worker has to say of an item; an error without one means that the workers themselves are gone.
Outcome = tuple[Item | None, Row | Exception]


class Workers(Protocol[Item]):
    """Calls going on elsewhere. Up to `window` items may be handed over and not have come back, `group` at a time."""

    window: int
    group: int
    outcomes: "SimpleQueue[Outcome[Item] | None]"

    def hand_over(self, items: list[Item]) -> None: ...


def run(
    job: Job[Item], items: Iterable[Item], *, engine: Engine, concurrency: int
) -> Generator[Row | Failure[Item], None, None]:
    """A row or a failure per item, in any order, as they are made; items are taken only as there is room for them.

    A call that raises an EdgedcError becomes a Failure. After 20 of them with nothing in between, not counting prompts
    that are too long, nothing more is asked, and the error is raised once what is in flight has come; so is a
    BudgetError, at the first, and whatever else a call or `items` raises. Ctrl-C asks nothing more, waits two seconds
    for what is in flight, and then raises KeyboardInterrupt; until then the caller is not interrupted, so that a row is
    written whole.

    The caller writes the rows. It should close the iterator if it leaves it early (`contextlib.closing`).
    """
    if engine == "ray":
        from .ray_engine import open_workers  # heavy
    else:
        open_workers = _threads
    with open_workers(job, concurrency) as workers:
        yield from _drive(iter(items), workers)


def _drive(items: Iterator[Item], workers: Workers[Item]) -> Iterator[Row | Failure[Item]]:
    in_flight = in_a_row = 0
    asking = True
    reason: Exception | None = None  # what to raise at the end
    until: float | None = None  # when to stop waiting for what is in flight
    with _ctrl_c(lambda: workers.outcomes.put(None)) as pressed:
        while True:
            while asking and not pressed.is_set() and in_flight + workers.group <= workers.window:
                group: list[Item] = []
                try:
                    group.extend(islice(items, workers.group))  # keeps what came before an error
                except Exception as error:
                    reason = error
                asking = reason is None and len(group) == workers.group
                if group:
                    workers.hand_over(group)
                    in_flight += len(group)
            if not in_flight:
                break
            try:
                outcome = workers.outcomes.get(timeout=until and max(until - time.monotonic(), 0))
            except Empty:
                break
            if outcome is None:
                asking, until = False, time.monotonic() + GRACE_S
                continue
            item_done, result = outcome
            in_flight -= 1
            match result:
                case dict():
                    in_a_row = 0
                    yield result
                case EdgedcError() if item_done is not None and not isinstance(result, BudgetError):
                    in_a_row += not isinstance(result, ContextError)  # a long prompt: the other side is well
                    if in_a_row >= MOST_FAILURES:
                        asking, reason = False, reason or result
                    yield Failure(item_done, result)
                case _:
                    asking, reason = False, reason or result
                    if item_done is None:
                        break
    if pressed.is_set():
        raise KeyboardInterrupt
    if reason is not None:
        raise reason


@contextmanager
def _ctrl_c(tell: Callable[[], None]) -> Iterator[threading.Event]:
    """The first Ctrl-C calls `tell` and sets the event; the next one interrupts as it always does."""
    pressed = threading.Event()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield pressed
        return

    def press(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pressed.set()
        tell()

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Threads(Generic[Item]):
    """`concurrency` threads that call one function. They are daemons: a call that hangs does not keep the program."""

    def __init__(self, call: Callable[[Item], Row], concurrency: int) -> None:
        self.window, self.group = concurrency, 1
        self.outcomes: SimpleQueue[Outcome[Item] | None] = SimpleQueue()
        self._call = call
        self._items: SimpleQueue[tuple[Item] | None] = SimpleQueue()
        for started in range(concurrency):
            try:
                threading.Thread(target=self._work, daemon=True).start()
            except RuntimeError as error:
                raise InputError(f"--concurrency {concurrency}: this machine starts no more than {started}") from error

    def hand_over(self, items: list[Item]) -> None:
        for item in items:
            self._items.put((item,))

    def close(self) -> None:
        for _ in range(self.window):
            self._items.put(None)

    def _work(self) -> None:
        while given := self._items.get():
            try:
                result: Row | Exception = self._call(given[0])
            except Exception as error:
                result = error
            self.outcomes.put((given[0], result))


@contextmanager
def _threads(job: Job[Item], concurrency: int) -> Iterator[_Threads[Item]]:
    with job.open(1.0) as call:
        workers = _Threads(call, concurrency)
        try:
            yield workers
        finally:
            workers.close()
