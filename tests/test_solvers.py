"""The OpenAI client: what it reads from a server, and what it asks of one, over a real socket."""

import itertools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import ASKED, GOOD, KEY, PRICE, USAGE, WORST, delta, error, http, server, solver_at, sse

from edgedc.errors import SolverError
from edgedc.ledger import Budget
from edgedc.solvers import SIMULATED
from edgedc.solvers.openai import open_solver
from edgedc.solvers.speech import Hushed, Speech
from edgedc.usage import Usage


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
    for line in (f"Authorization: Bearer {KEY}", "Content-Type: application/json", "Accept-Encoding: identity"):
        assert f"\r\n{line}\r\n" in head
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


@pytest.mark.parametrize("said", ["eos", "eos_token", "stop_sequence"])
def test_the_end_of_a_whole_reply_has_one_name(said: str) -> None:
    with server(sse(delta(content="7"), delta(said), "[DONE]")) as made, solver_at(made.url) as solver:
        assert solver.solve(ASKED, max_tokens=10).finish_reason == "stop"


def test_a_server_that_does_not_stream_is_understood() -> None:
    choice = {"message": {"role": "assistant", "content": "7"}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": USAGE}).encode()
    with server(http("200 OK", "application/json", body)) as made, solver_at(made.url) as solver:
        reply = solver.solve(ASKED, max_tokens=10)
    assert (reply.text, reply.usage.source, reply.first_token_s) == ("7", "server", None)


WHOLE = json.dumps({"choices": [{"message": {"content": "7"}, "finish_reason": "stop"}], "usage": USAGE}).encode()

WHOLE_EVENT = WHOLE.replace(b'"message"', b'"delta"')


def labelled(kind: str, act: bytes, before: bytes = b"") -> bytes:
    return http("200 OK", kind, before + act.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    "act",
    [
        http("200 OK", "application/json", WHOLE.replace(b'"stop"', b"null")),
        http("200 OK", "application/json", WHOLE.replace(b', "finish_reason": "stop"', b"")),
        http("200 OK", "application/json", WHOLE.replace(b'"7"', b'[{"type": "text", "text": "7"}]')),
        http("200 OK", "application/json", b"\xef\xbb\xbf \n" + WHOLE),
        http("200 OK", "application/json", b'{"id": "' + b"x" * 300_000 + b'", ' + WHOLE[1:]),
        http("200 OK", "text/event-stream", WHOLE),
        http("200 OK", "text/plain; charset=utf-8", WHOLE),
        labelled("application/json", sse(delta(content="7"), delta("stop"), {"choices": [], "usage": USAGE})),
        labelled("text/plain", sse(delta("stop", content="7"), {"usage": USAGE})),
        http("200 OK", "text/event-stream", b'data: {"choices": [], "usage": null}\n\ndata: ' + WHOLE_EVENT),
        sse({"choices": [{"delta": None}]}, delta(content="7"), delta("stop"), {"choices": [], "usage": USAGE}),
        sse(delta("stop", content="7"), delta("length", content=" more"), {"choices": None, "usage": USAGE}),
        sse(
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Hmm"}]}]),
            delta(content=[{"type": "text", "text": "7"}]),
            delta("stop"),
            {"usage": USAGE},
        ),
        labelled("text/event-stream", sse(delta("stop", content="7"), {"usage": USAGE}), b"\xef\xbb\xbf"),
    ],
)
def test_an_answer_that_is_there_is_taken_however_it_is_put_and_labelled(act: bytes) -> None:
    with server(act) as made, solver_at(made.url) as solver:
        reply = solver.solve(ASKED, max_tokens=10)
    assert (reply.text, reply.finish_reason, reply.usage) == ("7", "stop", Usage(20, 5, 8, "server"))


def test_a_server_that_has_said_that_it_is_a_simulation_stays_one() -> None:
    body = b'{"choices": [{"message": {"content": "7"}, "finish_reason": "stop"}]}'
    said = http("200 OK", "Application/JSON; charset=utf-8", body, f"{SIMULATED}: true")
    with server(said, GOOD) as made, solver_at(made.url) as solver:
        assert solver.solve(ASKED, max_tokens=10).text == "7"
        assert solver.simulated
        solver.solve(ASKED, max_tokens=10)
        assert solver.simulated


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": "many", "completion_tokens": 5},
        {"prompt_tokens": -1},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": True, "completion_tokens": True},
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


FILTERED = b'{"choices": [{"finish_reason": "content_filter"}]}'


@pytest.mark.parametrize(
    ("act", "text", "reason"),
    [
        (sse(delta(content="The"), delta("length"), "[DONE]"), "The", "length"),
        (http("200 OK", "application/json", WHOLE.replace(b"stop", b"length")), "7", "length"),
        (http("200 OK", "application/json", FILTERED), "", "content_filter"),
    ],
)
def test_a_reply_that_did_not_end_by_itself_says_so(act: bytes, text: str, reason: str) -> None:
    with server(act) as made, solver_at(made.url) as solver:
        reply = solver.solve(ASKED, max_tokens=1)
    assert (reply.text, reply.finish_reason) == (text, reason)


def test_a_seed_of_the_call_goes_before_that_of_the_solver() -> None:
    with server(GOOD, GOOD) as made, solver_at(made.url, seed=3, temperature=0.7) as solver:
        solver.solve(ASKED, max_tokens=10)
        solver.solve(ASKED, max_tokens=10, seed=0)
    assert [(body["seed"], body["temperature"]) for _, body in made.requests] == [(3, 0.7), (0, 0.7)]


@pytest.mark.parametrize("streamed", [True, False])
def test_a_server_that_counts_no_tokens_of_no_text_has_counted(streamed: bool) -> None:
    usage = {"prompt_tokens": 20, "completion_tokens": 0}
    whole = json.dumps({"choices": [{"message": {"content": ""}, "finish_reason": "stop"}], "usage": usage}).encode()
    act = sse(delta("stop"), {"choices": [], "usage": usage}) if streamed else http("200 OK", "application/json", whole)
    budget = Budget(1.0, PRICE)
    with server(act) as made, solver_at(made.url, budget=budget) as solver:
        assert solver.solve(ASKED, max_tokens=10).usage == Usage(20, 0, source="server")
    assert budget.spent == pytest.approx(20 * PRICE.input)


@pytest.mark.parametrize("streamed", [True, False])
def test_bytes_that_are_no_text_do_not_lose_the_rest(streamed: bool) -> None:
    whole = http("200 OK", "application/json", WHOLE.replace(b'"7"', b'"7?"'))
    act = sse(delta("stop", content="7?")) if streamed else whole
    with server(act.replace(b"7?", b"7\xff")) as made, solver_at(made.url) as solver:
        assert solver.solve(ASKED, max_tokens=10).text == "7\ufffd"


@pytest.mark.parametrize("streamed", [True, False])
def test_a_refusal_is_told_from_an_answer(streamed: bool) -> None:
    message = {"content": None, "refusal": "I can't help with that."}
    whole = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE}).encode()
    act = sse(delta(refusal="I can't help "), delta(refusal="with that."), delta("stop"), "[DONE]")
    with server(act if streamed else http("200 OK", "application/json", whole)) as made, solver_at(made.url) as solver:
        heard: list[str] = []
        reply = solver.solve(ASKED, max_tokens=10, on_text=heard.append)
    assert (reply.text, reply.finish_reason) == ("I can't help with that.", "refusal")
    assert "".join(heard) == ""  # it is no part of an answer


def test_a_key_that_the_model_repeats_is_not_in_its_text() -> None:
    with server(sse(delta(content=f"It is {KEY}."), delta("stop"), "[DONE]")) as made, solver_at(made.url) as solver:
        assert solver.solve(ASKED, max_tokens=10).text == "It is ***."


def test_a_word_that_servers_without_keys_are_given_may_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDC_API_KEY", "none")
    with server(sse(delta(content="There are none."), delta("stop"), "[DONE]")) as made:
        solver = open_solver("m", made.url)
        assert solver.solve(ASKED, max_tokens=10).text == "There are none."
        solver.close()


# Random text alone would hardly ever be cut within a key.
TEXTS = st.lists(st.sampled_from(["!", KEY[:1], KEY[:9], "é", "🥚"]) | st.text(max_size=3)).map("".join)


@given(TEXTS, st.data())
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


def test_half_a_character_that_stays_alone_is_said_to_be_missing() -> None:
    heard: list[str] = []
    speech = Speech(heard.append, [KEY])
    for piece in ("an \ud83e", "egg\udd5a", "\ud83e"):
        speech.add(piece)
    assert speech.end() == "".join(heard) == "an \ufffdegg\ufffd\ufffd"


def test_nothing_is_said_to_one_who_has_gone() -> None:
    heard: list[str] = []
    speech = Speech(heard.append, [])
    speech.add("The answer")
    speech.hush()
    with pytest.raises(Hushed):
        speech.add(" is: 7")
    assert heard == ["The answer"]


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
    assert solver.remarks == [
        f"m at {solver.host} does not take our {name}: its default was used"
        for name in ("stream_options", "temperature")
    ]
    assert solver.retried == 0


def test_what_a_server_does_not_take_is_known_at_every_temperature_and_a_temperature_by_its_value() -> None:
    acts = (
        error("400 Bad Request", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        error("400 Bad Request", "temperature: at most 1"),
        *(GOOD, GOOD, GOOD),
    )
    with server(*acts) as made, solver_at(made.url) as solver:
        hot, warm, cold = (s.solve(ASKED, max_tokens=10) for s in (solver.at(1.5), solver.at(0.7), solver))
        asked = [body for _, body in made.requests]
    assert [("max_tokens" in body, body.get("temperature")) for body in asked] == [
        *((True, 1.5), (False, 1.5), (False, None), (False, 0.7), (False, 0.0))
    ]
    assert [reply.unsupported for reply in (hot, warm, cold)] == [("temperature",), (), ()]


@pytest.mark.parametrize(
    "refused",
    [
        error("400 Bad Request", "against our rules: 'How many seeds are in a kilogram of poppies?'"),
        error("403 Forbidden", "against our rules: seed"),
    ],
)
def test_what_is_no_complaint_about_the_seed_leaves_it_in(refused: bytes) -> None:
    with server(refused, GOOD) as made, solver_at(made.url, seed=3) as solver:
        with pytest.raises(SolverError, match="against our rules"):
            solver.solve(ASKED, max_tokens=10)
        solver.solve(ASKED, max_tokens=10)
    assert [body["seed"] for _, body in made.requests] == [3, 3]


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
