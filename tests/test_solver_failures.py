"""The OpenAI client against servers that are wrong, over a real socket."""

import email.utils
import gzip
import json
import re
import socket
import threading
import time
import tracemalloc

import httpx
import pytest
from wire import ASKED, GOOD, KEY, PRICE, USAGE, WORST, delta, error, failure, http, server, solver_at, sse

from edgedc.errors import SolverError, SolverRefused, SolverReply, SolverTimeout, SolverUnreachable
from edgedc.ledger import Budget
from edgedc.solvers.failures import Failed
from edgedc.solvers.openai import OpenAISolver


@pytest.mark.parametrize(
    "first",
    [
        *(error(f"{status} No", "later", "Retry-After: 0") for status in (408, 409, 425, 429)),
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


HEAD, _, BODY = GOOD.partition(b"\r\n\r\n")
UNMEASURED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("head", [HEAD + b"\r\n\r\n", UNMEASURED])
@pytest.mark.parametrize("size", [0, 30, BODY.index(b"\n\n") + 2])  # before, in and behind the first event
def test_a_reply_that_breaks_off_is_asked_for_again(head: bytes, size: int) -> None:
    """Where no length is stated, the end of the connection is all that there is to be seen of it."""
    with server(head + BODY[:size], GOOD) as made, solver_at(made.url, retries=1) as solver:
        assert solver.solve(ASKED, max_tokens=10).text == "The answer is: 7"


def test_a_reply_that_breaks_off_before_anything_was_heard_is_asked_for_again() -> None:
    heard: list[str] = []
    begun = UNMEASURED + sse(delta(content="", role="assistant"), delta(reasoning="Hmm")).partition(b"\r\n\r\n")[2]
    with server(begun, GOOD) as made, solver_at(made.url, retries=1) as solver:
        solver.solve(ASKED, max_tokens=10, on_text=heard.append)
    assert "".join(heard) == "The answer is: 7"


def test_the_wait_that_a_server_asks_for_is_kept() -> None:
    with (
        server(error("429 Too Many", "later", "Retry-After: 1"), GOOD) as made,
        solver_at(made.url, retries=1) as solver,
    ):
        started = time.monotonic()
        solver.solve(ASKED, max_tokens=10)
        assert 1 <= time.monotonic() - started < 3


def test_a_wait_that_is_no_time_to_come_is_none_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = list[float]()
    monkeypatch.setattr("edgedc.solvers.openai._sleep", lambda seconds, _: waits.append(seconds))
    monkeypatch.setattr("random.uniform", lambda _, most: most)
    said = ("-5", "Thu, 01 Jan 1970 00:00:00 GMT", "soon", "Thu, 01 Jan 99999 00:00:00 GMT", "nan", "0")
    acts = [error("429 Busy", "slow down", f"Retry-After: {value}") for value in said]
    with server(*acts, GOOD) as made, solver_at(made.url, retries=len(acts), timeout_s=60) as solver:
        solver.solve(ASKED, max_tokens=10)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 0.0]


def test_retries_are_bounded() -> None:
    again = error("429 Too Many Requests", "slow down", "Retry-After: 0")
    line = failure(again, again, again, kind=SolverReply, retries=2)
    assert "after 3 attempts" in line
    assert "the account's quota is reached" in line


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
    for asked in ("3600", email.utils.formatdate(time.time() + 3600, usegmt=True)):
        again = error("503 Service Unavailable", "busy", f"Retry-After: {asked}")
        assert re.search(r"asks to wait for (3600|359\d) s", failure(again, kind=SolverReply, retries=5))


def calls_end() -> None:
    until = time.monotonic() + 5
    while any(thread.name == "edgedc-call" for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if thread.name == "edgedc-call"]


def test_calls_one_after_the_other_share_a_connection() -> None:
    kept = GOOD.replace(b"Connection: close\r\n", b"")

    def twice(connection: socket.socket) -> None:
        connection.sendall(kept)
        assert connection.recv(4096).startswith(b"POST /v1/chat/completions ")
        connection.sendall(kept)

    with server(twice) as made, solver_at(made.url) as solver:
        for _ in range(2):
            assert solver.solve(ASKED, max_tokens=10).text == "The answer is: 7"
            calls_end()


def test_a_reply_may_take_longer_than_a_connection() -> None:
    heard: list[str] = []

    def slow(connection: socket.socket) -> None:
        time.sleep(0.6)
        connection.sendall(GOOD)

    with server(slow) as made, solver_at(made.url, connect_s=0.2) as solver:
        assert solver.solve(ASKED, max_tokens=10, on_text=heard.append).text == "The answer is: 7"
    assert len(heard) < 6  # two pieces, and silence only now and then


def test_a_call_that_was_given_up_leaves_no_thread_and_no_connection() -> None:
    """The server goes on sending the head of its reply, a byte at a time."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    started = time.monotonic()
    assert "no whole answer within 0.6 s" in failure(drip, kind=SolverTimeout, timeout_s=0.6)
    assert time.monotonic() - started < 3
    calls_end()


KEYLESS = "set EDGEDC_API_KEY or OPENAI_API_KEY to a key of this server"
NOT_MINE = "this key may not use the model: check the key and --solver-model"
NOT_HERE = "check --solver-model, and that --solver-url ends where /chat/completions begins (often in /v1)"
MOVED = "the server has moved: give its new address with --solver-url"


@pytest.mark.parametrize(
    ("act", "line"),
    [
        (error("401 Unauthorized", f"bad key {KEY}"), f"401 Unauthorized: {KEYLESS} (it says: bad key ***)"),
        (http("401 Unauthorized", "text/plain", b""), f"401 Unauthorized: {KEYLESS}"),
        (
            error("403 No", "no"),
            f"403 No: {NOT_MINE} (it says: no)",
        ),
        (http("404 Not Found", "text/html", b"\n <html>nothing here</html>"), f"404 Not Found: {NOT_HERE}"),
        (http("307 Moved", "text/html", b"", "Location: /x"), f"307 Moved: {MOVED}"),
        *(
            (http("418", kind, body), f"418 (it says: {said})" if said else "418")
            for kind, body, said in (
                ("application/json", b'{"detail": "short"}', "short"),
                ("application/json", b'{"error": "and"}', "and"),
                ("application/json", b'{"error": {"message": "", "detail": [{"loc": "body"}]}}', '[{"loc": "body"}]'),
                ("application/json", b'{"object": "error", "message": "stout"}', "stout"),
                ("application/json", b"[" * 50_000, "[" * 200),
                ("text/plain", b"this is\r\n  my handle", "this is my handle"),
                ("text/plain", b"x" * 70_000, ""),
            )
        ),
    ],
)
def test_what_a_client_did_wrong_is_not_retried_and_has_a_mend(act: bytes, line: str) -> None:
    assert failure(act, kind=SolverRefused, retries=2).partition(": ")[2] == line


def test_the_servers_message_is_cut_and_made_printable() -> None:
    line = failure(error("400 Bad Request", "\x1b[2J" + "very long " * 100), kind=SolverReply)
    assert len(line) < 300


@pytest.mark.parametrize(
    ("act", "kind", "said"),
    [
        (http("200 OK", "text/html", b"<html>Log in</html>"), SolverReply, "text/html"),
        (http("200 OK", "text/html", b'{"choices": [{"message": {"content": "7"}}]}'), SolverReply, "text/html"),
        (http("200 OK", "text/plain", b"Log in"), SolverReply, "text/plain"),
        (http("200 OK", "application/json", b'{"choices": [{"index": 0}]}'), SolverReply, "no message"),
        (http("200 OK", "application/json", b'{"choices": [{"message": "7"}]}'), SolverReply, "holds no message"),
        (http("200 OK", "application/octet-stream", b"\0\1"), SolverReply, "application/octet-stream"),
        (http("200 OK", "", b"\0\1"), SolverReply, "answers with no content type"),
        (http("200 OK", "application/json", b"\0\1", "Content-Encoding: br"), SolverReply, "answers in the coding br"),
        (http("200 OK", "application/json", b'{"choices": [{"mess'), SolverReply, "not JSON"),
        (http("200 OK", "application/json", b"[" * 100_000), SolverReply, "not JSON"),
        (http("200 OK", "application/json", b'{"choices": []}'), SolverReply, "no choices"),
        (sse('{"choices": [{"de'), SolverReply, """not JSON: '{"choices": [{"de'"""),
        (sse("[1, 2]"), SolverReply, "not a JSON object: '[1, 2]'"),
        (sse({"choices": {"a": 1}}), SolverReply, "choices"),
        (sse(delta(content=["7"])), SolverReply, "not text"),
        (sse(delta(content=[{"type": "text", "text": 7}])), SolverReply, "not text"),
        (sse(delta(reasoning=["7"])), SolverReply, "not text"),
        (sse(delta(refusal=["7"])), SolverReply, "not text"),
        (sse({"error": {"message": "overloaded"}}), SolverReply, "overloaded"),
        (sse(delta(content="The ans")), SolverReply, "ended before"),
        (sse(delta(content="The ans"), "[DONE]"), SolverReply, "no finish_reason"),
        (sse(delta(content="The answer is: 7"))[:-20], SolverUnreachable, "in the middle"),
        (GOOD[:20], SolverUnreachable, "before the reply"),
        (GOOD[: GOOD.index(b"\r\n\r\n") + 4], SolverUnreachable, "before the reply"),
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


@pytest.mark.parametrize("limits", [{"timeout_s": 2.0}, {"timeout_s": 30.0, "read_s": 0.3}])
def test_an_attempt_that_stalls_leaves_time_for_another(
    limits: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default silence may last half of a call's time."""

    def stall(connection: socket.socket) -> None:
        connection.recv(1)  # returns when the client hangs up

    monkeypatch.setattr("random.uniform", lambda *_: 0.0)
    started = time.monotonic()
    with server(stall, GOOD) as made, solver_at(made.url, retries=1, **limits) as solver:
        assert solver.solve(ASKED, max_tokens=10).text == "The answer is: 7"
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_an_endless_reply_ends(pause: float) -> None:
    """Too much of it, or too slow a drip: each has its bound."""

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        event = b"data: " + json.dumps(delta(content="and " * (1 if pause else 10_000))).encode() + b"\n\n"
        while True:
            connection.sendall(event)
            time.sleep(pause)

    if pause:
        assert "no whole answer within 0.5 s" in failure(flood, kind=SolverTimeout, timeout_s=0.5)
    else:
        assert "longer than" in failure(flood, kind=SolverReply, timeout_s=60.0)


def test_a_reply_that_lacks_nothing_but_its_usage_is_not_waited_for_long() -> None:
    def keep(connection: socket.socket) -> None:
        connection.sendall(GOOD[: GOOD.index(b'data: {"choices": []')])
        connection.recv(1)  # returns when the client hangs up

    started = time.monotonic()
    with server(keep) as made, solver_at(made.url, timeout_s=60) as solver:
        reply = solver.solve(ASKED, max_tokens=10)
    assert (reply.text, reply.usage.source) == ("The answer is: 7", "estimate")
    assert reply.total_s < 0.9  # until the last token
    assert time.monotonic() - started < 20


def test_nothing_is_heard_once_a_call_has_ended() -> None:
    """Whoever hears a piece when the time is up is waited for."""
    at_work = []

    def slow(piece: str) -> None:
        at_work.append(piece)
        time.sleep(0.6 if piece else 0)
        at_work.pop()

    def act(connection: socket.socket) -> None:
        connection.sendall(GOOD[: GOOD.index(b"data:", GOOD.index(b"data:") + 1)])
        connection.recv(1)

    with server(act) as made, solver_at(made.url, timeout_s=0.3) as solver:
        with pytest.raises(SolverTimeout):
            solver.solve(ASKED, max_tokens=10, on_text=slow)
        assert not at_work


def test_a_listener_hears_of_silence_and_may_end_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedc.solvers.endpoint._LAST_WORDS_S", 0.05)
    heard: list[str] = []

    def listen(piece: str) -> None:
        heard.append(piece)
        if len(heard) == 3:
            raise KeyError("gone")

    def silent(connection: socket.socket) -> None:
        connection.recv(1)  # returns when the client hangs up

    started = time.monotonic()
    with server(silent) as made, solver_at(made.url) as solver, pytest.raises(KeyError, match="gone"):
        solver.solve(ASKED, max_tokens=10, on_text=listen)
    assert heard == ["", "", ""]
    assert 3 * 0.05 <= time.monotonic() - started < 3


def test_who_may_not_send_ends_the_call() -> None:
    def no() -> None:
        raise ValueError("not that much")

    with server(GOOD) as made, solver_at(made.url) as solver:
        with pytest.raises(ValueError, match="not that much"):
            solver.solve(ASKED, max_tokens=10, on_sending=no)
        assert made.requests == []


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


@pytest.mark.parametrize("limits", [{"connect_s": 0.1, "timeout_s": 10}, {"connect_s": 10, "timeout_s": 0.1}])
def test_a_search_for_a_name_that_does_not_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, float]
) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(20) and [])
    began = time.monotonic()
    with (
        solver_at("http://solver.example/v1", **limits) as solver,
        pytest.raises(SolverTimeout, match=r"no connection within 0\.1 s"),
    ):
        solver.solve(ASKED, max_tokens=10)
    over.set()
    assert time.monotonic() - began < 5


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


@pytest.mark.parametrize("timeout_s", [float("inf"), 1e300])
def test_a_call_may_take_for_ever(timeout_s: float) -> None:
    with server(GOOD) as made, solver_at(made.url, timeout_s=timeout_s) as solver:
        assert solver.solve(ASKED, max_tokens=10).text == "The answer is: 7"


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


def test_a_cut_that_comes_too_late_is_not_the_next_call_s() -> None:
    with server(GOOD) as made, solver_at(made.url) as solver:
        lines = solver._endpoint._lines
        line = lines.take()
        turn = line.turn
        lines.give_back(line)  # for the next call, just before the last one is given up
        line.cut(turn)
        assert solver.solve(ASKED, max_tokens=10).text == "The answer is: 7"


@pytest.mark.parametrize(
    ("pieces", "kind", "line"),
    [
        ([], SolverUnreachable, "cannot be reached (the relay has closed the connection)"),
        ([b"no route", b" to it\n"], SolverUnreachable, "cannot be reached (no route to it)"),
        (None, SolverTimeout, "no connection within 0.3 s"),
    ],
)
def test_a_relay_that_does_not_reach_the_server_says_why(
    pieces: list[bytes] | None, kind: type[SolverError], line: str
) -> None:
    budget = Budget(1.0, PRICE)
    with socket.create_server(("127.0.0.1", 0)) as relay:

        def say() -> None:
            with relay.accept()[0] as end:
                for piece in pieces or ():
                    end.sendall(piece)
                    time.sleep(0.05)
                if pieces is None:
                    end.recv(1)  # returns when the client hangs up

        threading.Thread(target=say, daemon=True).start()
        via = f"127.0.0.1:{relay.getsockname()[1]}"
        with (
            solver_at("http://solver.example/v1", via=via, connect_s=0.3, budget=budget) as solver,
            pytest.raises(kind, match=re.escape(f"solver.example: {line}: check --solver-url")) as caught,
        ):
            solver.solve(ASKED, max_tokens=10)
    assert (caught.value.doubtful, caught.value.bytes_sent, budget.spent) == (0, 0, 0)
