"""One model for many threads: what is asked together is worked on together, and each hears its own."""

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from test_llamacpp import questions, random_backend

from edgedc.backends import open_backend
from edgedc.backends.greedy import one_by_one
from edgedc.backends.llamacpp import LlamaCppBackend
from edgedc.errors import ContextError, EdgedcError
from edgedc.generation import Generation, Message, Request
from edgedc.prompts import decompose_messages
from edgedc.server.together import Run, together
from edgedc.usage import Usage


class LeftError(Exception):
    """The client has gone."""


@pytest.fixture(scope="module")
def backend(bundle_folder: Path) -> Iterator[LlamaCppBackend]:
    _, opened = open_backend(bundle_folder, format="gguf", quantization="f16", threads=1)
    assert isinstance(opened, LlamaCppBackend)
    yield opened
    opened.close()


def counted(backend: LlamaCppBackend, at_work: list[int]) -> Run:
    """Its `generate_as_they_come`; `at_work` has how many requests were open whenever one had been answered."""

    def run(requests: Iterable[Request | None]) -> Iterator[tuple[int, Generation | EdgedcError]]:
        asked = 0

        def watched() -> Iterator[Request | None]:
            nonlocal asked
            for request in requests:
                asked += request is not None
                yield request

        for answered, result in enumerate(backend.generate_as_they_come(watched())):
            at_work.append(asked - answered)
            yield result

    return run


def test_threads_that_ask_at_the_same_time_get_together_what_each_gets_alone(backend: LlamaCppBackend) -> None:
    asked, at_work = questions(24), list[int]()
    alone = [backend.generate(messages, max_tokens=80) for messages in asked]
    heard: list[list[str]] = [[] for _ in asked]
    with together(counted(backend, at_work)) as generate, ThreadPoolExecutor(24) as pool:
        calls = [
            pool.submit(generate, messages, max_tokens=80, on_text=pieces.append)
            for messages, pieces in zip(asked, heard, strict=True)
        ]
        made = [call.result() for call in calls]
    assert [(m.text, m.finish_reason) for m in made] == [(m.text, m.finish_reason) for m in alone]
    assert ["".join(pieces) for pieces in heard] == [m.text for m in alone]
    assert min(map(len, heard)) > 5
    assert max(at_work) > 8


def test_who_comes_later_is_taken_in_and_who_is_ready_does_not_wait(backend: LlamaCppBackend) -> None:
    first, second = questions(2)
    begun, ends = threading.Event(), list[str]()

    def ask(name: str, messages: list[Message], max_tokens: int) -> None:
        generate(messages, max_tokens=max_tokens, on_text=lambda _: begun.set() or time.sleep(0.005))
        ends.append(name)

    with together(backend.generate_as_they_come) as generate:
        long = threading.Thread(target=ask, args=("long", first, 400))
        long.start()
        assert begun.wait(20)
        ask("short", second, 3)
        long.join(60)
    assert ends == ["short", "long"]


def test_who_leaves_ends_alone(backend: LlamaCppBackend) -> None:
    asked = questions(6)
    alone = [backend.generate(messages, max_tokens=80).text for messages in asked]
    heard: list[str] = []

    def leave(text: str) -> None:
        heard.append(text)
        if len(heard) == 3:
            raise LeftError

    with together(backend.generate_as_they_come) as generate, ThreadPoolExecutor(6) as pool:
        left = pool.submit(generate, asked[0], max_tokens=80, on_text=leave)
        stay = [pool.submit(generate, messages, max_tokens=80) for messages in asked[1:]]
        with pytest.raises(LeftError):
            left.result()
        assert [call.result().text for call in stay] == alone[1:]
        assert generate(asked[0], max_tokens=80).text == alone[0]
    assert len(heard) == 3


def test_an_error_of_one_is_its_own(backend: LlamaCppBackend) -> None:
    good, long = questions(1)[0], decompose_messages("word " * 5000, style="compact-1", cap=5)
    with together(backend.generate_as_they_come) as generate, ThreadPoolExecutor(2) as pool:
        wrong, right = (pool.submit(generate, messages, max_tokens=40) for messages in (long, good))
        with pytest.raises(ContextError):
            wrong.result()
        assert right.result().text == generate(good, max_tokens=40).text


@pytest.mark.parametrize("error", [EdgedcError("the engine broke"), RuntimeError("a bug")])
def test_an_engine_that_breaks_fails_what_is_at_work_and_goes_on(error: Exception) -> None:
    broken = threading.Event()

    def run(requests: Iterable[Request | None]) -> Iterator[tuple[int, Generation | EdgedcError]]:
        for number, _ in enumerate(requests):
            if not broken.is_set():
                broken.set()
                raise error
            yield number, Generation("1. Who?", Usage(1, 1), 0.0, 0.0, "stop")

    with together(run) as generate:
        with pytest.raises(type(error), match=str(error)):
            generate([], max_tokens=9)
        assert generate([], max_tokens=9).text == "1. Who?"


def test_at_the_end_nothing_runs_any_more() -> None:
    ended = list[float]()

    def slow(*_: object, **__: object) -> Generation:
        time.sleep(0.3)
        ended.append(time.monotonic())
        return Generation("1. Who?", Usage(1, 1), 0.0, 0.0, "stop")

    with together(partial(one_by_one, slow)) as generate:
        caller = threading.Thread(target=generate, args=([],), kwargs={"max_tokens": 9})
        caller.start()
        time.sleep(0.1)
    assert ended
    caller.join(5)


def test_many_long_prompts_take_the_memory_of_a_few(tmp_path: Path) -> None:
    backend = random_backend(tmp_path, max_position_embeddings=8192)
    asked = [[Message(role="user", content="a b " * 1000 + str(k))] for k in range(12)]
    needed = [len(backend.encode(messages)) + 4 for messages in asked]
    room = list[int]()
    with together(backend.generate_as_they_come) as generate, ThreadPoolExecutor(12) as pool:
        for made in pool.map(lambda messages: generate(messages, max_tokens=4), asked):
            assert made.usage.output_tokens
            room.append(backend._context.cells)
    backend.close()
    assert max(needed) < max(room) <= 16 * 1024 < sum(needed)
