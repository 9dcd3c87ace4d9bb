"""One model for any number of threads: what they ask at the same time is worked on together."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from edgedc.decomposer import Generate
from edgedc.errors import EdgedcError
from edgedc.generation import Generation, Message, OnText, Request

# A ModelBackend's `generate_as_they_come`.
Run = Callable[[Iterable[Request | None]], Iterator[tuple[int, Generation | EdgedcError]]]


@contextmanager
def together(run: Run) -> Iterator[Generate]:
    """A `generate` for any number of threads; at the end of the block nothing runs any more.

    `run` is called in one thread. What it raises is raised by each call that was at work then.
    """
    worker = _Worker(run)
    thread = threading.Thread(target=worker.work, name="edgedc-decomposer", daemon=True)
    thread.start()
    try:
        yield worker.generate
    finally:
        worker.end()
        thread.join()


class _Broken(EdgedcError):
    """What heard a reply wants no more of it, for the `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("nobody hears it any more")
        self.cause = cause


class _Call:
    def __init__(self, messages: Sequence[Message], max_tokens: int, on_text: OnText | None) -> None:
        self._on_text = on_text
        self.request = Request(messages, max_tokens, self._hear if on_text else None)
        self.made = Future[Generation]()

    def _hear(self, text: str) -> None:
        assert self._on_text
        try:
            self._on_text(text)
        except Exception as error:
            raise _Broken(error) from error

    def end(self, result: Generation | BaseException) -> None:
        if isinstance(result, Generation):
            self.made.set_result(result)
        else:
            self.made.set_exception(result.cause if isinstance(result, _Broken) else result)


class _Worker:
    def __init__(self, run: Run) -> None:
        self._run, self._ended = run, False
        self._asked = queue.SimpleQueue[_Call | None]()

    def generate(self, messages: Sequence[Message], *, max_tokens: int, on_text: OnText | None = None) -> Generation:
        call = _Call(messages, max_tokens, on_text)
        self._asked.put(call)
        return call.made.result()

    def end(self) -> None:
        self._asked.put(None)

    def work(self) -> None:
        while call := self._next(wait=True):
            at_work: dict[int, _Call] = {}
            try:
                for number, result in self._run(self._requests(call, at_work)):
                    at_work.pop(number).end(result)
            except BaseException as error:
                for left in at_work.values():
                    left.end(error)

    def _requests(self, call: _Call | None, at_work: dict[int, _Call]) -> Iterator[Request | None]:
        """This call's, and those of all that come until none is at work any more."""
        number = 0
        while call or at_work:
            if call:
                at_work[number] = call
                number += 1
            yield call.request if call else None
            call = self._next(wait=False)

    def _next(self, *, wait: bool) -> _Call | None:
        """None at the end, and where none waits."""
        if self._ended:
            return None
        try:
            call = self._asked.get(wait)
        except queue.Empty:
            return None
        self._ended = call is None
        return call
