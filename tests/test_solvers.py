"""The OpenAI client against servers that are wrong, over a real socket."""

import gzip
import itertools
import json
import socket
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedc.errors import BudgetError, InputError, SolverError, SolverReply, SolverTimeout, SolverUnreachable
from edgedc.ledger import Budget, Price, Usage
from edgedc.solvers.failures import Failed
from edgedc.solvers.openai import DECOMPOSER_KEY, KEYS, OpenAISolver, decomposer_keys, open_solver
from edgedc.solvers.scripted import ScriptedSolver
from edgedc.solvers.speech import Speech

KEY = "sk-very-secret-0123456789"
ASKED = [{"role": "user", "content": "How many?"}]
PRICE = Price("m", input=1e-6, output=1e-5, cached=1e-7, date="2026-08", source="test")

Act = bytes | Callable[[socket.socket], None]


def http(status: str, kind: str, body: bytes, *headers: str) -> bytes:
    head = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def error(status: str, message: str, *headers: str) -> bytes:
    return http(status, "application/json", json.dumps({"error": {"message": message}}).encode(), *headers)


def sse(*events: dict | str) -> bytes:
    lines = [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events]
    return http("200 OK", "text/event-stream; charset=utf-8", "".join(lines).encode())


def delta(finish: str | None = None, **parts: object) -> dict:
    return {"choices": [{"index": 0, "delta": parts, "finish_reason": finish}]}


USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 8}}
GOOD = sse(
    delta(content="The answer"), delta(content=" is: 7"), delta("stop"), {"choices": [], "usage": USAGE}, "[DONE]"
)


class Server:
    """Plays its acts in order, one per connection, and keeps the requests."""

    def __init__(self, acts: tuple[Act, ...]) -> None:
        self.acts = acts
        self.requests: list[tuple[str, dict]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        self.over = threading.Event()

    def play(self) -> None:
        for act in self.acts:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self._serve(connection, act)
                except ConnectionError:
                    continue  # the client hung up, as it should

    def _serve(self, connection: socket.socket, act: Act) -> None:
        with connection.makefile("rb") as file:
            head = b"".join(iter(file.readline, b"\r\n")).decode()
            length = next(
                int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-le")
            )
            self.requests.append((head, json.loads(file.read(length))))
        if isinstance(act, bytes):
            connection.sendall(act)
        else:
            act(connection)


@contextmanager
def server(*acts: Act) -> Iterator[Server]:
    made = Server(acts)
    thread = threading.Thread(target=made.play, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.over.set()
        made.listener.shutdown(socket.SHUT_RDWR)
        made.listener.close()
        thread.join(5)


@contextmanager
def solver_at(url: str, **settings: object) -> Iterator[OpenAISolver]:
    solver = OpenAISolver("m", url, KEY, **{"timeout_s": 5.0, "retries": 0, **settings})
    try:
        yield solver
    finally:
        solver.close()


def failure(*acts: Act, kind: type[SolverError], **settings: object) -> str:
    """The one line of the error that the acts lead to; it must never hold the key."""
    with server(*acts) as made, solver_at(made.url, **settings) as solver:
        with pytest.raises(kind) as caught:
            solver.solve(ASKED, max_tokens=10)
        assert KEY not in "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(solver)
        assert len(made.requests) == len(acts)
    message = str(caught.value)
    assert message.startswith("127.0.0.1:")
    assert "\n" not in message
    assert message.isprintable()
    return message


def test_a_reply_has_text_and_measurements() -> None:
    with server(GOOD) as made, solver_at(made.url) as solver:
        reply = solver.solve(ASKED, max_tokens=10)
        head, body = made.requests[0]
    assert reply.text == "The answer is: 7"
    assert reply.finish_reason == "stop"
    assert reply.usage == Usage(20, 5, 8, "server")
    assert reply.first_token_s is not None
    assert 0 < reply.first_token_s <= reply.total_s
    assert reply.bytes_sent == len(json.dumps(body).encode())
    assert f"Authorization: Bearer {KEY}" in head
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("m", 10, 0.0)
    assert not solver.simulated


def test_chunks_that_split_a_character_and_hold_many_tokens_are_read() -> None:
    def slowly(connection: socket.socket) -> None:
        event = 'data: {"choices": [{"delta": {"content": "Zürich is it"}, "finish_reason": "stop"}]}\r\n'.encode()
        middle = event.index("ü".encode()) + 1
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\r\n" + event[:middle])
        time.sleep(0.05)
        connection.sendall(event[middle:] + b"data: [DONE]")

    with server(slowly) as made, solver_at(made.url) as solver:
        assert solver.solve(ASKED, max_tokens=10).text == "Zürich is it"


def test_reasoning_counts_as_the_first_token_and_not_as_text() -> None:
    def act(connection: socket.socket) -> None:
        whole = sse(delta(reasoning_content="Hmm, so"), delta(content="7"), delta("stop"), "[DONE]")
        middle = whole.index(b"data:", whole.index(b"data:") + 1)
        connection.sendall(whole[:middle])
        time.sleep(0.3)
        connection.sendall(whole[middle:])

    with server(act) as made, solver_at(made.url) as solver:
        reply = solver.solve(ASKED, max_tokens=10)
    assert reply.text == "7"
    assert reply.first_token_s is not None
    assert reply.total_s - reply.first_token_s > 0.2


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_counted_and_stays_out_of_the_text(name: str) -> None:
    thought = delta(**{name: "Let me think about eggs."})
    details = {"completion_tokens_details": {"reasoning_tokens": 30}}
    inside = {"prompt_tokens": 20, "completion_tokens": 35, "total_tokens": 55, **details}
    apart = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 55, **details}
    for usage in (inside, apart):  # some servers leave it out of the completion, and have it in the total
        act = sse(thought, delta(content="7"), delta("stop"), {"choices": [], "usage": usage}, "[DONE]")
        with server(act) as made, solver_at(made.url) as solver:
            reply = solver.solve(ASKED, max_tokens=10)
        assert (reply.text, reply.usage, reply.reasoning_tokens) == ("7", Usage(20, 35, source="server"), 30)
    with server(sse(thought, delta(content="7"), delta("stop"), "[DONE]")) as made, solver_at(made.url) as solver:
        reply = solver.solve(ASKED, max_tokens=10)
    assert (reply.usage.source, reply.reasoning_tokens, reply.usage.output_tokens) == ("estimate", 6, 7)


def test_a_server_that_does_not_stream_is_understood() -> None:
    choice = {"message": {"role": "assistant", "content": "7"}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": USAGE}).encode()
    with server(http("200 OK", "application/json", body)) as made, solver_at(made.url) as solver:
        reply = solver.solve(ASKED, max_tokens=10)
    assert (reply.text, reply.usage.source, reply.first_token_s) == ("7", "server", None)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": "many", "completion_tokens": 5},
        {"prompt_tokens": -1},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 20, "completion_tokens": 0},
        {"prompt_tokens": 10**400, "completion_tokens": 5},
        {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 10**400},
    ],
)
def test_usage_that_is_absent_or_nonsense_is_estimated_and_marked(usage: object) -> None:
    act = sse(delta(content="12345678"), delta("stop"), {"choices": [], "usage": usage}, "[DONE]")
    budget = Budget(1.0, PRICE)
    with server(act) as made, solver_at(made.url, budget=budget) as solver:
        assert solver.solve(ASKED, max_tokens=10).usage == Usage(3, 2, source="estimate")
    assert budget.spent == pytest.approx(WORST)


def test_a_reply_that_hit_the_limit_says_so() -> None:
    with server(sse(delta(content="The"), delta("length"), "[DONE]")) as made, solver_at(made.url) as solver:
        assert solver.solve(ASKED, max_tokens=1).finish_reason == "length"


@pytest.mark.parametrize(
    "first",
    [
        error("429 Too Many Requests", "slow down", "Retry-After: 0"),
        error("500 Internal Server Error", "oops", "Retry-After: 0"),
        error("503 Service Unavailable", "busy", "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT"),
        b"",
    ],
)
def test_a_passing_fault_is_retried(first: bytes) -> None:
    with server(first, GOOD) as made, solver_at(made.url, retries=1) as solver:
        reply = solver.solve(ASKED, max_tokens=10)
        size = len(json.dumps(made.requests[0][1]).encode())
    assert reply.text == "The answer is: 7"
    assert solver.retried == 1
    assert reply.bytes_sent == 2 * size


def broken_off(connection: socket.socket) -> None:
    connection.sendall(GOOD[:150])


def test_a_reply_that_breaks_off_is_asked_for_again() -> None:
    with server(broken_off, GOOD) as made, solver_at(made.url, retries=1) as solver:
        assert solver.solve(ASKED, max_tokens=10).text == "The answer is: 7"


def test_the_wait_that_a_server_asks_for_is_kept() -> None:
    with (
        server(error("429 Too Many", "later", "Retry-After: 1"), GOOD) as made,
        solver_at(made.url, retries=1) as solver,
    ):
        started = time.monotonic()
        solver.solve(ASKED, max_tokens=10)
        assert 1 <= time.monotonic() - started < 3


def test_a_seed_of_the_call_goes_before_that_of_the_solver() -> None:
    with server(GOOD, GOOD) as made, solver_at(made.url, seed=3, temperature=0.7) as solver:
        solver.solve(ASKED, max_tokens=10)
        solver.solve(ASKED, max_tokens=10, seed=0)
    assert [(body["seed"], body["temperature"]) for _, body in made.requests] == [(3, 0.7), (0, 0.7)]


@pytest.mark.parametrize("streamed", [True, False])
def test_a_refusal_is_told_from_an_answer(streamed: bool) -> None:
    message = {"content": None, "refusal": "I can't help with that."}
    whole = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE}).encode()
    act = sse(delta(refusal="I can't help "), delta(refusal="with that."), delta("stop"), "[DONE]")
    with server(act if streamed else http("200 OK", "application/json", whole)) as made, solver_at(made.url) as solver:
        reply = solver.solve(ASKED, max_tokens=10)
    assert (reply.text, reply.finish_reason) == ("I can't help with that.", "refusal")


def test_a_key_that_the_model_repeats_is_not_in_its_text() -> None:
    with server(sse(delta(content=f"It is {KEY}."), delta("stop"), "[DONE]")) as made, solver_at(made.url) as solver:
        assert solver.solve(ASKED, max_tokens=10).text == "It is ***."


def test_a_word_that_servers_without_keys_are_given_may_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDC_API_KEY", "none")
    with server(sse(delta(content="There are none."), delta("stop"), "[DONE]")) as made:
        solver = open_solver("m", made.url)
        assert solver.solve(ASKED, max_tokens=10).text == "There are none."
        solver.close()


@given(st.text(), st.data())
def test_however_a_text_is_cut_whole_characters_are_heard_and_never_the_key(text: str, data: st.DataObject) -> None:
    said = text.replace("!", KEY).encode("utf-16-le", "surrogatepass")
    units = [said[k : k + 2].decode("utf-16-le", "surrogatepass") for k in range(0, len(said), 2)]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(units)), max_size=8)))
    heard: list[str] = []
    speech = Speech(heard.append, [KEY])
    for start, end in itertools.pairwise([0, *cuts, len(units)]):
        speech.add("".join(units[start:end]))
    whole = speech.end()
    assert "".join(heard) == whole == text.replace("!", "***")


def test_pieces_are_heard_as_they_come() -> None:
    heard: list[tuple[float, str]] = []

    def slowly(connection: socket.socket) -> None:
        middle = GOOD.index(b"data:", GOOD.index(b"data:") + 1)
        connection.sendall(GOOD[:middle])
        time.sleep(0.4)
        connection.sendall(GOOD[middle:])

    with server(slowly) as made, solver_at(made.url) as solver:
        reply = solver.solve(ASKED, max_tokens=10, on_text=lambda text: heard.append((time.monotonic(), text)))
    assert "".join(text for _, text in heard) == reply.text == "The answer is: 7"
    assert heard[-1][0] - heard[0][0] > 0.3


def test_retries_are_bounded() -> None:
    again = error("429 Too Many Requests", "slow down", "Retry-After: 0")
    assert "after 3 attempts" in failure(again, again, again, kind=SolverReply, retries=2)


def test_a_wait_that_would_not_end_in_time_is_not_begun() -> None:
    started = time.monotonic()
    failure(error("429 Too Many", "later", "Retry-After: 3600"), kind=SolverReply, retries=5, timeout_s=2.0)
    assert time.monotonic() - started < 2


def test_the_waits_before_a_retry_are_spread_over_all_of_their_time() -> None:
    """Full jitter: clients that failed together come back one by one."""
    solver = OpenAISolver("m", "http://127.0.0.1:1/v1", retries=9)
    failed = Failed(SolverUnreachable("h: down"), retry=True)
    for tried, limit in ((1, 1.0), (3, 4.0), (9, 16.0)):
        waits = [solver._wait(failed, tried, time.monotonic() + 1e6) or 0.0 for _ in range(300)]
        assert 0 <= min(waits) < 0.1 * limit
        assert 0.9 * limit < max(waits) <= limit
        assert sum(waits) / len(waits) == pytest.approx(limit / 2, rel=0.2)
    solver.close()


def test_a_wait_that_is_not_begun_is_told() -> None:
    again = error("503 Service Unavailable", "busy", "Retry-After: 3600")
    assert "asks to wait for 3600 s" in failure(again, kind=SolverReply, retries=5)


def test_a_call_that_was_given_up_leaves_no_thread_and_no_connection() -> None:
    """The server goes on sending the head of its reply, a byte at a time."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    started = time.monotonic()
    failure(drip, kind=SolverTimeout, timeout_s=0.6)
    assert time.monotonic() - started < 3
    until = time.monotonic() + 5
    while any(thread.name == "edgedc-call" for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.02)
    assert not [thread for thread in threading.enumerate() if thread.name == "edgedc-call"]


def test_what_a_client_did_wrong_is_not_retried_and_has_a_mend() -> None:
    line = failure(error("401 Unauthorized", f"bad key {KEY}"), kind=SolverReply, retries=2)
    assert "EDGEDC_API_KEY" in line
    assert "bad key ***" in line
    assert "--solver-model" in failure(error("404 Not Found", "no such model"), kind=SolverReply, retries=2)
    assert "new address" in failure(http("307 Moved", "text/html", b"", "Location: /x"), kind=SolverReply)


def test_the_servers_message_is_cut_and_made_printable() -> None:
    line = failure(error("400 Bad Request", "\x1b[2J" + "very long " * 100), kind=SolverReply)
    assert len(line) < 300


@pytest.mark.parametrize(
    ("act", "kind", "said"),
    [
        (http("200 OK", "text/html", b"<html>Log in</html>"), SolverReply, "text/html"),
        (http("200 OK", "application/octet-stream", b"\0\1"), SolverReply, "application/octet-stream"),
        (http("200 OK", "application/json", b'{"choices": [{"mess'), SolverReply, "not JSON"),
        (http("200 OK", "application/json", b"[" * 100_000), SolverReply, "not JSON"),
        (http("200 OK", "application/json", b'{"choices": []}'), SolverReply, "no choices"),
        (sse('{"choices": [{"de'), SolverReply, "not JSON"),
        (sse("[1, 2]"), SolverReply, "not a JSON object"),
        (sse({"choices": {"a": 1}}), SolverReply, "choices"),
        (sse(delta(content=["7"])), SolverReply, "not text"),
        (sse({"error": {"message": "overloaded"}}), SolverReply, "overloaded"),
        (sse(delta(content="The ans")), SolverReply, "ended before"),
        (sse(delta(content="The ans"), "[DONE]"), SolverReply, "ended before"),
        (sse(delta(content="The answer is: 7"))[:-20], SolverUnreachable, "in the middle"),
        (GOOD[:20], SolverUnreachable, "before the reply"),
    ],
)
def test_what_is_not_a_whole_reply_is_an_error_and_not_an_answer(
    act: bytes, kind: type[SolverError], said: str
) -> None:
    assert said in failure(act, kind=kind)


def test_a_stall_ends() -> None:
    def stall(connection: socket.socket) -> None:
        connection.sendall(GOOD[:150])
        connection.recv(1)  # returns when the client hangs up

    started = time.monotonic()
    assert "--timeout" in failure(stall, kind=SolverTimeout, timeout_s=0.8, retries=3)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_an_endless_reply_ends(pause: float) -> None:
    """Too much of it, or too slow a drip: each has its bound."""

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        event = b"data: " + json.dumps(delta(content="and " * (1 if pause else 10_000))).encode() + b"\n\n"
        while True:
            connection.sendall(event)
            time.sleep(pause)

    kind, timeout_s = (SolverTimeout, 0.5) if pause else (SolverReply, 60.0)
    failure(flood, kind=kind, timeout_s=timeout_s)


def test_a_long_reply_is_read_however_much_stands_around_each_token() -> None:
    token = {"id": "c", "padding": "x" * 300, "choices": [{"index": 0, "delta": {"content": " and"}}]}
    act = sse(*[json.dumps(token)] * 30_000, delta("stop"), {"choices": [], "usage": USAGE}, "[DONE]")
    assert len(act) > 10 * 2**20
    with server(act) as made, solver_at(made.url, timeout_s=60.0) as solver:
        reply = solver.solve(ASKED, max_tokens=30_000)
    assert (reply.text, reply.finish_reason, reply.usage.source) == (" and" * 30_000, "stop", "server")


@pytest.mark.parametrize(
    ("status", "kind"),
    [("200 OK", "application/json"), ("200 OK", "text/event-stream"), ("500 Oops", "application/json")],
)
def test_a_body_of_50_megabytes_does_not_fill_the_memory(status: str, kind: str) -> None:
    piece = b"x" * 2**20

    def act(connection: socket.socket) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {50 * 2**20}\r\n\r\n"
        connection.sendall(head.encode() + b"data: ")
        for _ in range(50):
            connection.sendall(piece)

    tracemalloc.start()
    try:
        failure(act, kind=SolverReply)
        assert tracemalloc.get_traced_memory()[1] < 30 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("status", ["200 OK", "500 Oops"])
def test_a_reply_that_is_packed_twice_does_not_fill_the_memory(status: str) -> None:
    body = gzip.compress(gzip.compress(b"x" * 2**28))
    assert len(body) < 10_000
    tracemalloc.start()
    try:
        line = failure(http(status, "application/json", body, "Content-Encoding: gzip, gzip"), kind=SolverReply)
        assert tracemalloc.get_traced_memory()[1] < 30 * 2**20
    finally:
        tracemalloc.stop()
    assert "coding gzip, gzip" in line or "500" in line


def test_a_reply_that_is_packed_unasked_is_read() -> None:
    choice = {"message": {"role": "assistant", "content": "7"}, "finish_reason": "stop"}
    body = gzip.compress(json.dumps({"choices": [choice]}).encode())
    act = http("200 OK", "application/json", body, "Content-Encoding: gzip")
    with server(act) as made, solver_at(made.url) as solver:
        assert solver.solve(ASKED, max_tokens=10).text == "7"


def test_a_refused_port_and_an_unknown_host_are_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    for address in (url, "http://no-such-host.invalid/v1"):
        with solver_at(address) as solver, pytest.raises(SolverUnreachable, match="--solver-url") as caught:
            solver.solve(ASKED, max_tokens=10)
        assert (caught.value.doubtful, caught.value.bytes_sent) == (0, 0)


def test_a_proxy_or_a_tls_handshake_that_fails_lets_nothing_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy takes the connection and is silent; then it is no TLS that answers."""
    budget = Budget(1.0, PRICE)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with (
            solver_at("https://solver.example/v1", read_s=0.3, budget=budget) as solver,
            pytest.raises(SolverTimeout, match="no connection within") as caught,
        ):
            solver.solve(ASKED, max_tokens=10)
        assert (caught.value.doubtful, caught.value.bytes_sent, budget.spent) == (0, 0, 0)
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            with plain.accept()[0] as end:
                end.recv(1)
                end.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with (
            solver_at(f"https://127.0.0.1:{plain.getsockname()[1]}/v1", budget=budget) as solver,
            pytest.raises(SolverUnreachable, match="cannot be reached") as caught,
        ):
            solver.solve(ASKED, max_tokens=10)
        assert (caught.value.doubtful, caught.value.bytes_sent, budget.spent) == (0, 0, 0)


def test_a_call_that_is_ended_before_anything_was_sent_costs_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    budget = Budget(1.0, PRICE)
    with solver_at(url, retries=2, budget=budget) as solver, pytest.raises(KeyboardInterrupt):
        solver.solve(ASKED, max_tokens=10, on_text=interrupt)
    assert (budget.spent, budget.reserved) == (0, 0)
    budget = Budget(1.0, PRICE)
    with server(GOOD) as made, solver_at(made.url, budget=budget) as solver, pytest.raises(KeyboardInterrupt):
        solver.solve(ASKED, max_tokens=10, on_text=interrupt)
    assert budget.spent == pytest.approx(WORST)


def interrupt(_: str) -> None:
    raise KeyboardInterrupt


def test_what_was_given_up_before_it_was_sent_is_never_sent() -> None:
    """Its connection comes just as the time to connect is up."""
    with server(GOOD) as made, solver_at(made.url) as solver:
        line = solver._endpoint._lines.take()
        hear, heard = line.trace(lambda: heard.append(True), relayed=False), []
        line.cut(line.turn)
        with pytest.raises(httpx.ConnectError):
            line.client.post(made.url, json={}, extensions={"trace": hear})
        line.client.close()
    assert heard == []
    assert made.requests == []


def test_fields_that_a_server_does_not_take_are_left_out_and_that_is_said() -> None:
    acts = (
        error("400 Bad Request", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        error("400 Bad Request", "Unsupported value: 'temperature' does not support 0.0 with this model."),
        error("422 Unprocessable", "stream_options: extra fields not permitted"),
        GOOD,
    )
    with server(*acts) as made, solver_at(made.url) as solver:
        assert solver.solve(ASKED, max_tokens=10).text == "The answer is: 7"
        last = made.requests[-1][1]
    assert last["max_completion_tokens"] == 10
    assert not {"max_tokens", "temperature", "stream_options"} & set(last)
    assert any("temperature" in remark for remark in solver.remarks)
    assert solver.retried == 0


def test_several_threads_may_hear_the_same_complaint() -> None:
    """Both have sent a seed before the first of them learns that the server takes none."""
    both = threading.Barrier(2)

    class Strict(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "seed" in asked:
                both.wait(5)
                self.wfile.write(error("400 Bad Request", "seed: extra inputs are not permitted"))
            else:
                self.wfile.write(GOOD)

    strict = ThreadingHTTPServer(("127.0.0.1", 0), Strict)
    threading.Thread(target=strict.serve_forever, args=(0.05,), daemon=True).start()
    with solver_at(f"http://127.0.0.1:{strict.server_port}/v1") as solver, ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda seed: solver.solve(ASKED, max_tokens=10, seed=seed), (1, 2)))
    strict.shutdown()
    strict.server_close()
    assert [reply.unsupported for reply in replies] == [("seed",), ("seed",)]


WORST = PRICE.cost(Usage(256 + 16 + len("How many?"), 10))  # of one attempt of ASKED


def test_a_call_that_could_go_over_budget_is_not_made() -> None:
    budget = Budget(3 * WORST * 0.99, PRICE)
    with server(GOOD) as made, solver_at(made.url, retries=2, budget=budget) as solver:
        with pytest.raises(BudgetError):
            solver.solve(ASKED, max_tokens=10)
        assert made.requests == []
    assert budget.spent == 0


def test_a_budget_is_settled_at_what_the_server_counted() -> None:
    budget = Budget(1.0, PRICE)
    with server(GOOD) as made, solver_at(made.url, budget=budget) as solver:
        reply = solver.solve(ASKED, max_tokens=10)
    assert budget.spent == pytest.approx(PRICE.cost(reply.usage))
    assert budget.reserved == pytest.approx(0)


def test_calls_of_unknown_cost_are_booked_at_their_worst() -> None:
    failing = error("500 Internal Server Error", "oops", "Retry-After: 0")
    limited = error("429 Too Many Requests", "slow down", "Retry-After: 0")
    uncounted = sse(delta(content="7"), delta("stop"), "[DONE]")
    for acts, booked in (
        ((failing, uncounted), 2 * WORST),
        ((limited, uncounted), WORST),
        ((failing, failing), 2 * WORST),
        ((limited, limited), 0.0),
    ):
        budget = Budget(1.0, PRICE)
        with server(*acts) as made, solver_at(made.url, retries=1, budget=budget) as solver:
            try:
                told = solver.solve(ASKED, max_tokens=10).booked
            except SolverReply as failed:
                assert acts[1] in (failing, limited)
                told = failed.cost
        assert budget.spent == pytest.approx(booked)
        assert told == pytest.approx(booked)
        assert budget.reserved == pytest.approx(0)


def test_a_budget_holds_over_many_calls() -> None:
    budget = Budget(4 * WORST, PRICE)
    with server(*[GOOD] * 200) as made, solver_at(made.url, budget=budget) as solver:
        with suppress(BudgetError):
            for _ in range(200):
                solver.solve(ASKED, max_tokens=10)
        assert 4 < len(made.requests) < 200
    assert budget.spent <= budget.ceiling


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:1/v1",
        "ftp://x/v1",
        "http://",
        "http://x:port/v1",
        "http://127.0.0.1:99999/v1",
        "http://127.0.0.1:0/v1",
        "http://[::1/v1",
        "http://a..b/v1",
        f"http://{'a' * 64}.com/v1",
    ],
)
def test_a_bad_url_is_the_users_mistake(url: str) -> None:
    with pytest.raises(InputError, match="--solver-url"):
        OpenAISolver("m", url)


@pytest.mark.parametrize("key", ["sk-abc\n", "sk abc", "sk-\xe9"])
def test_a_key_that_cannot_be_sent_is_not_repeated(key: str) -> None:
    with pytest.raises(InputError) as caught:
        OpenAISolver("m", "http://127.0.0.1:1/v1", key)
    assert "sk" not in str(caught.value)


def test_a_password_in_the_url_is_never_shown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with solver_at(f"http://user:{KEY}@127.0.0.1:{port}/v1") as solver:
        with pytest.raises(SolverUnreachable) as caught:
            solver.solve(ASKED, max_tokens=10)
        assert KEY not in str(caught.value) + solver.url + solver.host


@pytest.mark.parametrize("echoed", ["a%20planted%20password", "a planted password", "dTphIHBsYW50ZWQgcGFzc3dvcmQ="])
def test_a_login_that_the_server_echoes_is_not_in_the_error(echoed: str) -> None:
    with server(error("401 Unauthorized", f"who is {echoed}?")) as made:
        url = made.url.replace("//", "//u:a%20planted%20password@")
        with solver_at(url) as solver, pytest.raises(SolverReply, match=r"who is \*\*\*\?"):
            solver.solve(ASKED, max_tokens=10)
        assert "\r\nAuthorization: Basic dTphIHBsYW50ZWQgcGFzc3dvcmQ=\r\n" in made.requests[0][0]


def test_a_key_in_the_query_that_the_server_echoes_is_not_in_the_error() -> None:
    with server(error("404 Not Found", f"no path /?key={KEY}&api-version=2024-02-15-preview")) as made:
        with (
            solver_at(f"{made.url}?key={KEY}&api-version=2024-02-15-preview") as solver,
            pytest.raises(SolverReply, match=r"/\?key=\*\*\*&api-version=2024-02-15-preview"),
        ):
            solver.solve(ASKED, max_tokens=10)
        assert f"POST /v1/chat/completions?key={KEY}&" in made.requests[0][0]


def test_the_environment_names_server_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGEDC_API_KEY", "OPENAI_API_KEY", "EDGEDC_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="EDGEDC_API_KEY"):
        open_solver("m")
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    monkeypatch.setenv("EDGEDC_API_KEY", f"{KEY}\n")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/wrong")
    with server(GOOD) as made:
        monkeypatch.setenv("EDGEDC_BASE_URL", f"{made.url}/")
        solver = open_solver("m")
        solver.solve(ASKED, max_tokens=10)
        solver.close()
        assert made.requests[0][0].startswith("POST /v1/chat/completions ")
        assert f"Bearer {KEY}\r\n" in made.requests[0][0]


def test_a_script_is_followed_to_its_end() -> None:
    solver = ScriptedSolver(["one", "two " * 10])
    assert solver.solve(ASKED, max_tokens=5).text == "one"
    assert solver.solve(ASKED, max_tokens=5).finish_reason == "length"
    with pytest.raises(SolverReply):
        solver.solve(ASKED, max_tokens=5)
    assert len(solver.asked) == 3


def test_a_decomposer_on_another_server_does_not_get_the_solver_s_key(monkeypatch):
    monkeypatch.setenv("EDGEDC_BASE_URL", "http://here:1/v1")
    assert decomposer_keys("http://there:1/v1", "http://here:1/v1") == (DECOMPOSER_KEY,)
    assert decomposer_keys("http://here:2/v1", "http://here:1/v1") == (DECOMPOSER_KEY,)
    assert decomposer_keys("", "http://user:secret@here:1/v2") == (DECOMPOSER_KEY, *KEYS)
