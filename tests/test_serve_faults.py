"""The endpoint when its solver fails, its clients leave, stall or come too many, and when it is told to end."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from faulty import FAULTS, faulty
from prometheus_client.parser import text_string_to_metric_families
from serving import LIST, PRICE, Running, Says, endpoint

from edgedc.generation import Generation
from edgedc.ledger import Budget
from edgedc.solvers.openai import OpenAISolver
from edgedc.usage import Usage

USER = {"role": "user", "content": "How many legs do 3 cats and 2 birds have?"}
JSON = {"Content-Type": "application/json"}
SOLVER_KEY = "sk-of-the-solver-0123456789"


class Solver:
    """A server whose reply to each call is made by `act(handler, number of the call)`."""

    def __init__(self, act: Callable[[BaseHTTPRequestHandler, int], None]) -> None:
        self.prompts: list[str] = []
        self.left = threading.Event()  # a client hung up in the middle
        lock = threading.Lock()
        solver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    solver.prompts.append(body["messages"][-1]["content"])
                    number = len(solver.prompts)
                try:
                    act(self, number)
                except (ConnectionError, TimeoutError):
                    solver.left.set()
                self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


def say(handler: BaseHTTPRequestHandler, *texts: str, end: bool = True) -> None:
    """A stream of these texts; without an end it breaks off."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Connection", "close")
    handler.end_headers()
    for text in texts:
        event(handler, {"choices": [{"index": 0, "delta": {"content": text}}]})
    if end:
        event(handler, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        event(handler, {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 5}})
        handler.wfile.write(b"data: [DONE]\n\n")


def event(handler: BaseHTTPRequestHandler, value: dict) -> None:
    handler.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
    handler.wfile.flush()


def refuse(handler: BaseHTTPRequestHandler, status: int, message: str) -> None:
    body = json.dumps({"error": {"message": message}}).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def for_ever(handler: BaseHTTPRequestHandler, _: int) -> None:
    say(handler, end=False)
    while True:
        event(handler, {"choices": [{"index": 0, "delta": {"content": "more "}}]})
        time.sleep(0.02)


def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
    say(handler, "The answer", " is: 16")


@contextmanager
def behind(
    act: Callable[[BaseHTTPRequestHandler, int], None], says: Says | None = None, **settings: object
) -> Iterator[tuple[Running, Solver]]:
    """The endpoint in front of such a solver."""
    of_solver = {name: settings.pop(name) for name in ("budget", "timeout_s") if name in settings}
    made = Solver(act)
    threading.Thread(target=made.server.serve_forever, args=(0.05,), daemon=True).start()
    solver = OpenAISolver("big-model", made.url, SOLVER_KEY, **{"timeout_s": 20.0, "retries": 0, **of_solver})
    try:
        with endpoint(solver, says, **settings) as running:
            yield running, made
    finally:
        solver.close()
        made.server.shutdown()
        made.server.server_close()


def metrics_of(running: Running) -> dict[str, float]:
    """Name and labels' values to value, as Prometheus reads it."""
    text = httpx.get(running.url.removesuffix("/v1") + "/metrics").text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {" ".join([s.name, *(v for _, v in sorted(s.labels.items()))]): s.value for s in samples}


def eventually(true: Callable[[], object], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(true())


# ---- the solver fails


def test_a_solver_that_is_down_is_503_with_the_decomposition_and_when_to_come_again() -> None:
    solver = OpenAISolver("big-model", "http://127.0.0.1:1/v1", SOLVER_KEY, retries=0)
    with endpoint(solver) as running, running.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="edgedc", messages=[USER])
        counted = metrics_of(running)
    solver.close()
    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["retry-after"]) > 0
    assert "cannot be reached" in caught.value.body["message"]
    more = caught.value.body["edgedc"]
    assert more["partial"]
    assert len(more["decomposition"]["subquestions"]) == 3
    assert counted["edgedc_requests_total partial"] == 1


def test_in_a_stream_the_decomposition_is_there_before_the_error() -> None:
    with behind(lambda handler, _: say(handler, "The quick", end=False)) as (running, _), running.client() as client:
        stream = client.chat.completions.create(model="edgedc", messages=[USER], stream=True)
        chunks = []
        with pytest.raises(openai.APIError) as caught:
            chunks += stream
    more = [chunk.model_extra.get("edgedc", {}) for chunk in chunks]
    assert any("decomposition" in part for part in more)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "The quick"
    assert caught.value.body["edgedc"]["decomposition"]["status"] == "decomposed"


def test_who_asks_again_does_not_pay_again_for_what_had_come() -> None:
    def act(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number == 3:
            return refuse(handler, 500, "oops")
        return say(handler, "The answer is: 12")

    says = Says()
    with behind(act, says) as (running, solver), running.client() as client:
        asked = {"model": "edgedc/interactive", "messages": [USER]}
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**asked)
        made = client.chat.completions.create(**asked)
    assert made.choices[0].message.content == "The answer is: 12"
    steps = [prompt for prompt in solver.prompts if "Next subquestion" in prompt]
    assert len(solver.prompts) == 5  # three steps and the question, and the one call that failed
    assert len(steps) - len(set(steps)) == 1
    assert len(says.asked) == 1


def test_what_had_come_is_for_the_same_request_alone() -> None:
    says, same = Says(), {"model": "edgedc", "messages": [USER]}
    others = [
        {"model": "edgedc/interactive"},
        {"messages": [{"role": "user", "content": "Why?"}]},
        {"messages": [{"role": "user", "content": "Hello."}, USER]},
        {"messages": [{"role": "system", "content": "Be brief."}, USER]},
        {"max_tokens": 60},
        {"temperature": 0.5},
        {"seed": 3},
    ]
    with behind(lambda handler, _: refuse(handler, 500, "oops"), says) as (running, _), running.client() as client:
        for change in ({}, *others, {}):
            with pytest.raises(openai.InternalServerError):
                client.chat.completions.create(**same | change)
    assert len(says.asked) == 1 + len(others)


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_that_no_retry_mends_is_502_and_not_tried_again(status: int) -> None:
    with behind(lambda handler, _: refuse(handler, status, f"not {SOLVER_KEY}")) as (running, solver):
        client = running.client(max_retries=2)
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="edgedc", messages=[USER])
    assert caught.value.status_code == 502
    assert len(solver.prompts) == 1
    assert SOLVER_KEY not in str(caught.value) + "".join(running.lines)


def test_a_spent_budget_is_429_and_not_tried_again() -> None:
    budget = Budget(0.0000001, PRICE)
    with behind(answer, budget=budget) as (running, solver):
        client = running.client(max_retries=2)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="edgedc", messages=[USER])
    assert caught.value.code == "insufficient_quota"
    assert caught.value.body["edgedc"]["decomposition"]["status"] == "decomposed"
    assert solver.prompts == []
    assert len(running.lines) == 1


def test_a_refusing_model_is_a_refusal() -> None:
    def act(handler: BaseHTTPRequestHandler, _: int) -> None:
        say(handler, end=False)
        event(handler, {"choices": [{"index": 0, "delta": {"refusal": "I will not."}, "finish_reason": "stop"}]})

    with behind(act) as (running, solver), running.client() as client:
        made = client.chat.completions.create(model="edgedc", messages=[USER])
        chunks = list(client.chat.completions.create(model="edgedc", messages=[USER], stream=True))
        said = made.choices[0].message.model_dump()
        again = client.chat.completions.create(model="edgedc", messages=[USER, said, USER])
    assert (made.choices[0].message.refusal, made.choices[0].message.content) == ("I will not.", None)
    assert "".join(chunk.choices[0].delta.refusal or "" for chunk in chunks) == "I will not."
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ""
    assert again.choices[0].message.refusal
    assert "Assistant: I will not." in solver.prompts[-1]


FAULTY = sorted(set(FAULTS) - {"good"})


@pytest.mark.parametrize("mode", ["static", "interactive"])
def test_whatever_the_solver_does_each_question_ends_and_each_dollar_is_booked(mode: str) -> None:
    """Every fault, a dozen at a time, each in front of an endpoint of its own, with and without a stream."""
    cases = [(fault, stream) for fault in FAULTY for stream in (False, True)]
    with ThreadPoolExecutor(12) as pool:
        ended = set(pool.map(lambda case: put(*case, mode), cases))
    assert ended == {"answered", "partial"}


def put(fault: str, stream: bool, mode: str) -> str:
    """Ask an endpoint whose solver has this fault; returns how that ended."""
    budget = Budget(1.0, PRICE)
    with faulty(ever=fault) as server:
        settings = {"timeout_s": 2.5, "read_s": 0.8, "connect_s": 2.0, "retries": 1, "budget": budget}
        solver = OpenAISolver("m", server.url, SOLVER_KEY, **settings)
        with closing(solver), endpoint(solver, price=PRICE, booked=lambda: budget.spent) as running:
            asked = {"model": f"edgedc/{mode}", "messages": [USER], "stream": stream}
            reply = httpx.post(f"{running.url}/chat/completions", json=asked, timeout=60)
            counted = metrics_of(running)
    assert SOLVER_KEY not in reply.text + "".join(running.lines)
    if reply.headers["content-type"].startswith("text/event-stream"):
        assert reply.status_code == 200
        events = [line[6:] for line in reply.text.split("\n") if line.startswith("data: ")]
        last = json.loads(events[-2] if events[-1] == "[DONE]" else events[-1])
    else:
        last = reply.json()
    whole = last["edgedc"] if "error" not in last else last["error"]["edgedc"]
    outcome = "partial" if "error" in last else "answered"
    assert outcome == "answered" or (stream or reply.status_code in (502, 503, 504))
    assert whole["partial"] == (outcome == "partial")
    assert len(whole["decomposition"]["subquestions"]) == 3
    assert counted[f"edgedc_requests_total {outcome}"] == 1
    assert counted["edgedc_booked_dollars"] == budget.spent
    assert budget.reserved == 0
    assert budget.spent >= PRICE.cost(Usage(*server.billed)) - 1e-12
    assert whole["bytes_sent"] == counted["edgedc_sent_bytes_total"] <= server.bytes_received
    return outcome


# ---- clients leave, stall, or are too many


def test_a_client_that_leaves_a_stream_stops_the_solver() -> None:
    with behind(for_ever) as (running, solver), running.client() as client:
        stream = client.chat.completions.create(model="edgedc", messages=[USER], stream=True)
        while not (next(stream).choices[0].delta.content or ""):
            pass
        assert not solver.left.is_set()
        stream.close()
        assert solver.left.wait(5)
        assert eventually(lambda: metrics_of(running).get("edgedc_requests_total gone") == 1)
        assert metrics_of(running)["edgedc_requests_running"] == 0


def test_a_client_that_leaves_without_a_stream_stops_the_solver() -> None:
    with behind(for_ever) as (running, solver), running.client(timeout=0.5) as client:
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="edgedc", messages=[USER])
        assert solver.left.wait(5)


def test_a_client_that_leaves_stops_the_local_model() -> None:
    says = Says(word_s=0.1)
    with behind(answer, says) as (running, solver), running.client(timeout=0.3) as client:
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="edgedc", messages=[USER])
        assert eventually(lambda: not says.at_work)
        assert 0 < says.heard < len(LIST.split(" "))
        assert eventually(lambda: metrics_of(running).get("edgedc_requests_total gone") == 1)
    assert solver.prompts == []


def test_who_waits_and_leaves_is_never_asked_about() -> None:
    says = Says(word_s=0.03)
    with endpoint(says=says, parallel=1, queue=3) as running, running.client() as client:
        ask = {"model": "edgedc-decomposer", "messages": [USER]}
        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(client.chat.completions.create, **ask)
            assert eventually(lambda: says.asked)
            late = [pool.submit(client.with_options(timeout=0.2).chat.completions.create, **ask) for _ in range(2)]
            for future in late:
                with pytest.raises(openai.APITimeoutError):
                    future.result()
            assert eventually(lambda: metrics_of(running)["edgedc_requests_waiting"] == 0)
            assert first.result().choices
    assert len(says.asked) == 1


def test_more_than_it_takes_on_gets_429_and_a_time() -> None:
    says = Says(word_s=0.02)
    request = {"model": "edgedc-decomposer", "messages": [USER]}
    with endpoint(says=says, parallel=1, queue=1) as running:

        def ask(_: int) -> httpx.Response:
            return httpx.post(f"{running.url}/chat/completions", json=request, timeout=20)

        with ThreadPoolExecutor(6) as pool:
            replies = sorted(pool.map(ask, range(6)), key=lambda reply: reply.status_code)
        counted = metrics_of(running)
    assert [reply.status_code for reply in replies] == [200, 200, 429, 429, 429, 429]
    for busy in replies[2:]:
        assert busy.json()["error"]["code"] == "server_busy"
        assert 1 <= int(busy.headers["retry-after"]) <= 60
        assert "x-should-retry" not in busy.headers  # OpenAI's client then comes again by itself
    assert (counted["edgedc_requests_total answered"], counted["edgedc_requests_total busy"]) == (2, 4)
    assert says.most_at_work == 1


def test_the_local_model_does_one_thing_at_a_time() -> None:
    says = Says(word_s=0.002)
    with behind(answer, says) as (running, _), running.client() as client, ThreadPoolExecutor(8) as pool:
        for made in pool.map(lambda _: client.chat.completions.create(model="edgedc", messages=[USER]), range(16)):
            assert made.choices[0].message.content == "The answer is: 16"
    assert says.most_at_work == 1
    assert len(says.asked) == 16


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/chat/comp",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{",
    ],
)
def test_a_client_that_never_ends_its_request_is_hung_up_on(sent: bytes) -> None:
    with endpoint(patience_s=0.5) as running, running.client() as client:
        parts = urlsplit(running.url)
        with socket.create_connection((parts.hostname, parts.port)) as slow:
            slow.sendall(sent)
            # meanwhile others are served
            assert client.chat.completions.create(model="edgedc-decomposer", messages=[USER]).choices
            assert hung_up(slow, b"x" if sent else b"")


def hung_up(connection: socket.socket, trickle: bytes, seconds: float = 4.0) -> bool:
    """Whether the server ends a connection on which a few bytes come now and then."""
    connection.settimeout(0.1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            connection.sendall(trickle)
            if connection.recv(1000) == b"":
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
LONG = b"Content-Length: 5000000\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (POST + b"Content-Type: application/json\r\n" + LONG, 413),
        (POST + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", 413),
        (POST + b"Content-Type: text/plain\r\n" + LONG, 415),
        (POST + b"Content-Type: text/plain\r\nConnection: close\r\n" + LONG, 415),
        (b"POST /nowhere HTTP/1.0\r\nHost: 127.0.0.1\r\n" + LONG, 404),
        (POST.replace(b"127.0.0.1", b"evil.example") + b"Connection: close\r\n" + LONG, 403),
        (POST + b"no colon\r\n" + LONG, 400),
    ],
    ids=["too long", "in pieces", "not JSON", "not JSON, close", "no such path", "not this machine", "no HTTP"],
)
def test_who_is_refused_while_sending_can_still_read_why(head: bytes, status: int) -> None:
    """Closed at once, the connection would be reset, and the reply lost with it."""
    chunked = b"chunked" in head
    body = b"4c4b40\r\n" * chunked + b" " * 5_000_000 + b"\r\n0\r\n\r\n" * chunked
    with endpoint() as running:
        parts = urlsplit(running.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as sending:
            sending.sendall(head + b"\r\n" + body[:100_000])
            time.sleep(0.2)  # refused by now
            for start in range(100_000, len(body), 1_000_000):
                sending.sendall(body[start : start + 1_000_000])
                time.sleep(0.02)
            reply = sending.recv(100_000)
    assert reply.startswith(f"HTTP/1.1 {status} ".encode())
    if status != 400:
        assert json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["message"]


@pytest.mark.parametrize("kind", [b"application/json", b"text/plain"])  # refused with and without Connection: close
@pytest.mark.parametrize("piece", [b"x", b"x" * 1_000_000], ids=["a byte at a time", "a megabyte at a time"])
def test_who_is_refused_and_never_stops_sending_is_hung_up_on(kind: bytes, piece: bytes) -> None:
    """After some time, and sooner after so many bytes."""
    patience_s = 0.5 if len(piece) == 1 else 60.0
    with endpoint(patience_s=patience_s) as running, running.client() as client:
        parts = urlsplit(running.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as endless:
            endless.sendall(POST + b"Content-Type: " + kind + b"\r\nContent-Length: 999999999999\r\n\r\n")
            assert endless.recv(10_000).startswith(b"HTTP/1.1 41")
            sent = send_for_ever(endless, piece)
        assert client.chat.completions.create(model="edgedc-decomposer", messages=[USER]).choices
    assert sent < 200_000_000


def send_for_ever(connection: socket.socket, piece: bytes, seconds: float = 10.0) -> int:
    """Bytes until it is reset."""
    sent, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            connection.sendall(piece)
        except ConnectionError:
            return sent
        sent += len(piece)
        time.sleep(0.01)
    pytest.fail(f"{sent} bytes were taken, and no end of it")


@pytest.mark.parametrize("kind", [b"application/json", b"text/plain"])
def test_a_refused_client_that_is_still_sending_does_not_keep_the_server_from_ending(kind: bytes) -> None:
    with endpoint() as running:
        parts = urlsplit(running.url)
        refused = socket.create_connection((parts.hostname, parts.port), timeout=5)
        refused.sendall(POST + b"Content-Type: " + kind + b"\r\n" + LONG + b"\r\n   ")
        assert refused.recv(10_000).startswith(b"HTTP/1.1 41")
        started = time.monotonic()
    assert time.monotonic() - started < 5
    refused.close()


def test_a_client_that_does_not_read_its_stream_is_hung_up_on() -> None:
    def flood(handler: BaseHTTPRequestHandler, _: int) -> None:
        say(handler, *["x" * 10_000] * 700, end=False)
        for_ever(handler, 1)

    with behind(flood, patience_s=0.5) as (running, solver):
        parts = urlsplit(running.url)
        body = json.dumps({"model": "edgedc", "messages": [USER], "stream": True}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        with socket.create_connection((parts.hostname, parts.port)) as deaf:
            deaf.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
            assert solver.left.wait(10)
            assert eventually(lambda: metrics_of(running).get("edgedc_requests_total gone") == 1)


# ---- edgedc itself fails


def test_a_bug_is_500_in_openais_form_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Says):
        def generate(self, *args: object, **how: object) -> Generation:
            if not self.asked:
                self.asked.append("")
                raise RuntimeError("a bug")
            return super().generate(*args, **how)

    with endpoint(says=Broken()) as running, running.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="edgedc-decomposer", messages=[USER])
        assert client.chat.completions.create(model="edgedc-decomposer", messages=[USER]).choices
    assert caught.value.body["type"] == "server_error"
    assert "a bug" not in str(caught.value)
    assert "RuntimeError: a bug" in caplog.text
    assert running.lines[0].startswith("failed")


# ---- what is counted


def test_an_account_that_another_process_holds_stops_nobody_else() -> None:
    held, free = threading.Event(), threading.Event()

    def booked() -> float:
        if threading.current_thread() is not threading.main_thread():  # it is made in the main one
            held.set()
            free.wait(10)
        return 0.0

    with behind(answer, booked=booked) as (running, _), ThreadPoolExecutor(1) as pool:
        scraped = pool.submit(metrics_of, running)
        assert held.wait(5)
        assert httpx.get(running.url + "/models", timeout=5).status_code == 200
        free.set()
        assert scraped.result(5)["edgedc_booked_dollars"] == 0


def test_counts_add_up() -> None:
    def act(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number % 3 == 0:
            return refuse(handler, 500, "oops")
        return answer(handler, number)

    with behind(act) as (running, solver), running.client() as client:
        replies = []
        for k in range(9):
            try:
                replies.append(client.chat.completions.create(model="edgedc/cot", messages=[USER], seed=k))
            except openai.InternalServerError:
                continue
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="edgedc", messages=[USER], n=3)
        counted = metrics_of(running)
    outcomes = {name.partition(" ")[2]: n for name, n in counted.items() if name.startswith("edgedc_requests_total")}
    assert outcomes == {"answered": 6, "partial": 3, "refused": 1}
    assert counted["edgedc_request_seconds_count"] == 10 == len(running.lines)
    assert counted["edgedc_tokens_total output remote"] == sum(reply.usage.completion_tokens for reply in replies) == 30
    assert counted["edgedc_call_seconds_count remote"] == len(solver.prompts) == 9
    assert counted["process_resident_memory_bytes"] > 1e6


def test_a_client_that_leaves_while_the_solver_is_silent_stops_it() -> None:
    def silent(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.connection.settimeout(20)
        if handler.connection.recv(1) == b"":
            raise ConnectionError

    with behind(silent) as (running, solver), running.client(timeout=0.5) as client:
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="edgedc", messages=[USER])
        assert solver.left.wait(5)
        assert eventually(lambda: metrics_of(running).get("edgedc_requests_total gone") == 1)
