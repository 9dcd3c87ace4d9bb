"""The endpoint, as the official client, curl and hostile programs meet it; the solver is behind a real socket."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
import openai
import pytest
from serving import LIST, PRICE, Running, Says, endpoint

from edgedc.generation import Message
from edgedc.solvers.loopback import Timing
from edgedc.solvers.loopback import serve as serve_model
from edgedc.solvers.openai import OpenAISolver

QUESTION = "How many legs do 3 cats and 2 birds have?"
USER = {"role": "user", "content": QUESTION}
SOLVER_KEY = "sk-of-the-solver-0123456789"


class Mind:
    """The solver behind the socket: what it was asked, and a reply by what the prompt says is to be done."""

    def __init__(self) -> None:
        self.asked: list[Sequence[Message]] = []

    @property
    def prompts(self) -> list[str]:
        return [messages[-1]["content"] for messages in self.asked]

    def reply(self, messages: Sequence[Message], *, seed: int = 0) -> str:
        self.asked.append(messages)
        return "The answer is: 12" if "Next subquestion" in messages[-1]["content"] else "12 + 4. The answer is: 16"


@contextmanager
def solver_of(mind: Mind, timing: Timing = Timing(0, 0), **settings: object) -> Iterator[OpenAISolver]:  # noqa: B008
    with serve_model(mind.reply, "big-model", port=0, timing=timing, simulated=False) as url:
        solver = OpenAISolver("big-model", url, SOLVER_KEY, **{"timeout_s": 20.0, "retries": 0, **settings})
        try:
            yield solver
        finally:
            solver.close()


@contextmanager
def paired(mind: Mind | None = None, **settings: object) -> Iterator[Running]:
    with solver_of(mind or Mind()) as solver, endpoint(solver, **settings) as running:
        yield running


@contextmanager
def solver_at(url: str, **settings: object) -> Iterator[OpenAISolver]:
    solver = OpenAISolver("big-model", url, SOLVER_KEY, **{"timeout_s": 10.0, "retries": 0, **settings})
    try:
        yield solver
    finally:
        solver.close()


# ---- what a client gets


def test_a_client_changes_its_base_url_and_nothing_else() -> None:
    mind = Mind()
    with paired(mind, price=PRICE) as running, running.client() as client:
        system = {"role": "system", "content": "Be brief."}
        made = client.chat.completions.create(model="big-model", messages=[system, USER], temperature=0, user="me")
        listed = [model.id for model in client.models.list()]
        one = client.models.retrieve("edgedc/interactive")
    assert made.choices[0].message.content == "12 + 4. The answer is: 16"
    assert made.choices[0].finish_reason == "stop"
    assert (made.object, made.model) == ("chat.completion", "big-model")
    more = made.model_extra["edgedc"]
    assert more["decomposition"]["status"] == "decomposed"
    assert [s["text"] for s in more["decomposition"]["subquestions"]] == [line[3:] for line in LIST.split("\n")]
    assert more["decomposition"]["subquestions"][2]["needs"] == [1, 2]
    assert (more["answer"], more["mode"], more["partial"]) == ("16", "static", False)
    assert [stage["name"] for stage in more["stages"]] == ["decompose", "solve"]
    assert made.usage.prompt_tokens == sum(stage["usage"]["input_tokens"] for stage in more["stages"])
    assert made.usage.completion_tokens == sum(stage["usage"]["output_tokens"] for stage in more["stages"])
    solved = more["stages"][1]["usage"]
    assert more["cost_usd"] == pytest.approx(solved["input_tokens"] * 1e-6 + solved["output_tokens"] * 1e-5)
    assert more["bytes_sent"] == more["stages"][1]["bytes_sent"] > len(QUESTION)
    assert mind.asked[0][0] == system  # the system's words go to the solver as such
    assert "Be brief" not in mind.prompts[0]
    assert {"big-model", "edgedc", "edgedc/static", "edgedc-decomposer"} <= set(listed)
    assert one.id == "edgedc/interactive"


def test_a_stream_brings_the_decomposition_first_and_then_the_answer() -> None:
    with paired() as running, running.client() as client:
        stream = client.chat.completions.create(
            model="edgedc", messages=[USER], stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    more = [chunk.model_extra.get("edgedc", {}) for chunk in chunks]
    assert "".join(part["delta"] for part in more if part.get("stage") == "decompose") == LIST
    whole = next(k for k, part in enumerate(more) if "decomposition" in part)
    contents = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(contents) == "12 + 4. The answer is: 16"
    assert not "".join(contents[:whole])  # nothing of the answer before the decomposition is whole
    assert len([part for part in contents if part]) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert more[-2]["answer"] == "16"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == more[-2]["usage"]["output_tokens"] > 0
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_model_names_the_mode() -> None:
    mind = Mind()
    with paired(mind) as running, running.client() as client:
        for mode in ("single-stage", "cot", "static", "interactive"):
            made = client.chat.completions.create(model=f"edgedc/{mode}", messages=[USER])
            assert made.model_extra["edgedc"]["mode"] == mode
    assert len(mind.asked) == 3 + 4  # interactive: a call for each of the three subquestions, then the question


def test_what_is_answered_on_the_way_is_not_part_of_the_answer() -> None:
    with paired() as running, running.client() as client:
        chunks = list(client.chat.completions.create(model="edgedc/interactive", messages=[USER], stream=True))
    more = [chunk.model_extra.get("edgedc", {}) for chunk in chunks]
    for step in ("step 1", "step 2", "step 3"):
        assert "".join(part["delta"] for part in more if part.get("stage") == step) == "The answer is: 12"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "12 + 4. The answer is: 16"


def test_a_question_that_needs_no_decomposition_is_asked_at_once() -> None:
    with paired(says=Says("No decomposition")) as running, running.client() as client:
        made = client.chat.completions.create(model="edgedc", messages=[USER])
    assert made.model_extra["edgedc"]["mode"] == "single-stage"
    assert made.model_extra["edgedc"]["decomposition"]["status"] == "not_needed"


def test_the_decomposer_alone_replies_with_the_list() -> None:
    with endpoint() as running, running.client() as client:
        made = client.chat.completions.create(model="edgedc-decomposer", messages=[USER])
        chunks = list(client.chat.completions.create(model="edgedc-decomposer", messages=[USER], stream=True))
        cut = client.chat.completions.create(model="edgedc-decomposer", messages=[USER], max_tokens=3)
        assert [model.id for model in client.models.list()] == ["edgedc-decomposer"]
        with pytest.raises(openai.NotFoundError, match="edgedc-decomposer"):
            client.chat.completions.create(model="edgedc", messages=[USER])
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(model="edgedc-decomposer", messages=[USER], temperature=1)
    assert made.choices[0].message.content == LIST
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == LIST
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (5, len(LIST.split(" ")))
    assert cut.choices[0].finish_reason == "length"
    assert cut.model_extra["edgedc"]["decomposition"]["status"] == "unparsed"


def test_what_was_said_before_is_the_context() -> None:
    mind, says = Mind(), Says()
    with paired(mind, says=says) as running, running.client() as client:
        before = [{"role": "user", "content": "A cat has 4 legs."}]
        client.chat.completions.create(model="edgedc", messages=[*before, USER])
        before.append({"role": "assistant", "content": "I see."})
        parts = {"role": "user", "content": [{"type": "text", "text": "How many"}, {"type": "text", "text": "then?"}]}
        client.chat.completions.create(model="edgedc", messages=[*before, parts])
    for asked in (says.asked[0], mind.prompts[0]):
        assert f"Context: A cat has 4 legs.\nQuestion: {QUESTION}" in asked
    for asked in (says.asked[1], mind.prompts[1]):
        assert "Context: User: A cat has 4 legs.\nAssistant: I see.\nQuestion: How many\nthen?" in asked


def test_max_tokens_limits_the_reply_and_says_so() -> None:
    with paired() as running, running.client() as client:
        for name in ("max_tokens", "max_completion_tokens"):
            made = client.chat.completions.create(model="edgedc", messages=[USER], **{name: 2})
            assert (made.choices[0].message.content, made.choices[0].finish_reason) == ("12 +", "length")
            assert any("cut at 2 tokens" in note for note in made.model_extra["edgedc"]["notes"])


# ---- what it will not do


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("logprobs", True),
        ("top_p", 0.5),
        ("stop", ["."]),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]),
        ("reasoning_effort", "high"),
        ("temperature", 3),
        ("temperature", "hot"),
        ("temperature", float("nan")),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("seed", "x"),
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
        ("messages", []),
        ("messages", "hello"),
        ("messages[0].role", [{"role": "king", "content": "x"}]),
        ("messages[0].content", [{"role": "user", "content": " "}]),
        ("messages[0].content", [{"role": "user"}]),
        ("messages[0].content", [{"role": "user", "content": "half \ud83d"}]),
        ("messages[1].role", [USER, {"role": "assistant", "content": "x"}]),
        ("messages[0].tool_calls", [{"role": "assistant", "tool_calls": [{}]}, USER]),
        ("messages[0].content[0].type", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        ("messages[0].content[0].type", [{"role": "user", "content": [{"type": "input_audio"}]}]),
        ("model", None),
        ("model", 7),
        ("new_field_of_next_year", 1),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(field: str, value: object, refusing: Running) -> None:
    request = {"model": "edgedc", "messages": [USER]} | {field.partition("[")[0]: value}
    headers = {"Content-Type": "application/json"}
    reply = httpx.post(f"{refusing.url}/chat/completions", content=json.dumps(request), headers=headers)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["param"], error["type"]) == (field, "invalid_request_error")
    assert field in error["message"]


@pytest.fixture(scope="module")
def refusing() -> Iterator[Running]:
    """One whose solver cannot be reached, for what must not get that far."""
    with solver_at("http://127.0.0.1:1/v1") as solver, endpoint(solver, max_body=5_000) as running:
        yield running


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff\xfe{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"model": ', 400),
        (b"[" * 4_900, 400),
        (b'{"n": ' + b"9" * 4_800 + b"}", 400),
        (b" " * 5_001, 413),
        (b" " * 5_000_000, 413),
    ],
)
def test_a_malformed_or_huge_body_is_a_stated_error(body: bytes, status: int, refusing: Running) -> None:
    for content in (body, iter([body[:2], body[2:]])):  # with a length, and in pieces
        reply = httpx.post(
            f"{refusing.url}/chat/completions", content=content, headers={"Content-Type": "application/json"}
        )
        assert reply.status_code == status
        assert reply.json()["error"]["message"]
    assert httpx.get(f"{refusing.url}/models").status_code == 200


def test_a_page_in_a_browser_cannot_ask(refusing: Running) -> None:
    """It may send plain text anywhere, and has its own name in Host even where that name is made to mean 127.0.0.1."""
    request = json.dumps({"model": "edgedc", "messages": [USER]})
    reply = httpx.post(f"{refusing.url}/chat/completions", content=request, headers={"Content-Type": "text/plain"})
    assert reply.status_code == 415
    reply = httpx.get(f"{refusing.url}/models", headers={"Host": "evil.example"})
    assert reply.status_code == 403
    assert httpx.get(refusing.url.replace("127.0.0.1", "localhost") + "/models").status_code == 200
    for host, status in (
        *(("LocalHost:8080", 200), ("127.0.0.2:8080", 200), ("[::1]:8080", 200), ("[::1]", 200)),
        *(("127.0.0.1.evil.example:8080", 403), ("10.0.0.1", 403), ("", 403)),
    ):
        assert httpx.get(f"{refusing.url}/models", headers={"Host": host}).status_code == status


def test_unknown_paths_and_methods_are_errors_in_openais_form(refusing: Running) -> None:
    for reply in (httpx.get(refusing.url + "/nowhere"), httpx.get(refusing.url + "/chat/completions")):
        assert reply.status_code in (404, 405)
        assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/completions", "/v1/embeddings", "/chat/completions"])
def test_a_client_that_speaks_another_protocol_is_told_which_there_is(refusing: Running, path: str) -> None:
    """The newest clients of OpenAI's and Vercel's take /responses unless told otherwise."""
    reply = httpx.post(refusing.url.removesuffix("/v1") + path, json={"model": "edgedc", "input": "How many?"})
    assert reply.status_code == 404
    assert reply.json()["error"]["message"].endswith(
        f"POST {path}: Not Found; here is POST /v1/chat/completions: set the client to chat completions, its base URL "
        "ending in /v1"
    )


def test_fields_that_come_together_are_refused_together(refusing: Running) -> None:
    """LangChain and Instructor send tool_choice with tools; without it the tools would be refused next."""
    asked = {"model": "edgedc", "messages": [{"role": "user", "content": "How many?"}]}
    asked |= {"tool_choice": "required", "stop": None, "tools": [{"type": "function", "function": {"name": "f"}}]}
    error = httpx.post(refusing.url + "/chat/completions", json=asked).json()["error"]
    assert error["param"] == "tool_choice"
    assert error["message"].startswith("tool_choice: is not supported here")
    assert error["message"].endswith("leave it out; tools too")


def test_with_a_key_only_who_has_it_is_served() -> None:
    key = "key-of-this-server"
    with paired(key=key) as running:
        base = running.url.removesuffix("/v1")
        for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": key}, {"Authorization": b"\xff"}):
            for path in ("/v1/models", "/metrics", "/nowhere"):
                reply = httpx.get(base + path, headers=headers)
                assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
        assert httpx.get(base + "/health").json() == {"status": "ok"}
        with running.client() as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        with running.client(api_key=key) as client:
            assert client.chat.completions.create(model="edgedc", messages=[USER]).choices
        assert httpx.get(base + "/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_the_temperature_and_the_seed_of_a_request_reach_the_solver() -> None:
    heard: list[int] = []

    class Sampling(Mind):
        def reply(self, messages: Sequence[Message], *, seed: int = -1) -> str:
            heard.append(seed)
            return super().reply(messages)

    with paired(Sampling()) as running, running.client() as client:
        for temperature in (0, 0.7):
            client.chat.completions.create(model="edgedc", messages=[USER], temperature=temperature, seed=5)
    assert heard == [-1, 5]  # the server samples, with this seed, only above 0
