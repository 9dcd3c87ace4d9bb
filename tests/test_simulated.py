"""The simulated solver over its real socket: it speaks the protocol, says what it is, and decomposition pays."""

import json
import socket

import httpx
import pytest

from edgedc.answers import MODES, Mode
from edgedc.decomposer import Decomposer
from edgedc.decomposition import parse
from edgedc.errors import InputError
from edgedc.pipeline import answer
from edgedc.prompts import decompose_messages
from edgedc.solvers.loopback import Timing
from edgedc.solvers.openai import OpenAISolver
from edgedc.solvers.scripted import ScriptedSolver
from edgedc.solvers.simulated import MODEL, Skill, simulated_server
from edgedc.tasks import Example
from edgedc.tasks.microworld import Problem, problems, score

AT_ONCE = Timing(0, 0)
KNOWN = list(problems("test", 200))
FLAWLESS = Skill(0, 0, 0)
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Answer."}]}


def solved(mode: Mode, known: list[Problem], skill: Skill, seed: int = 0) -> list[bool]:
    """Whether each problem is answered rightly, the known decomposition being given."""
    with simulated_server(known, skill, timing=AT_ONCE, seed=seed) as url:
        solver = OpenAISolver(MODEL, url)
        teacher = Decomposer(MODEL, "remote", solver.solve, "instruct-1")
        made = [answer(p.question, mode=mode, solver=solver, decomposer=teacher) for p in known]
        solver.close()
    assert solver.simulated
    return [score(one.text, Example(p.id, p.question, "", p.answer)) for one, p in zip(made, known, strict=True)]


def test_decomposition_pays_visibly() -> None:
    right = {mode: sum(solved(mode, KNOWN, Skill())) for mode in MODES}
    assert right["static"] >= right["cot"] + 20
    assert right["cot"] >= right["single-stage"] + 20
    assert right["interactive"] >= right["cot"] + 20


@pytest.mark.parametrize("mode", MODES)
def test_without_errors_it_is_always_right_and_with_certain_ones_always_wrong(mode: Mode) -> None:
    assert all(solved(mode, KNOWN[:40], FLAWLESS))
    assert not any(solved(mode, KNOWN[:40], Skill(1, 1, 1)))


def test_it_is_right_as_often_as_its_rates_say() -> None:
    """Every step right: the product of (1 - rate) over the steps; four standard errors either way."""
    right = sum(solved("cot", KNOWN, Skill()))
    chances = [(1 - Skill().reasoned) ** len(p.steps) for p in KNOWN]
    spread = sum(chance * (1 - chance) for chance in chances) ** 0.5
    assert abs(right - sum(chances)) < 4 * spread


def test_two_runs_agree_and_another_seed_does_not() -> None:
    first = solved("cot", KNOWN[:60], Skill())
    assert solved("cot", KNOWN[:60], Skill()) == first
    assert solved("cot", KNOWN[:60], Skill(), seed=1) != first


@pytest.mark.parametrize("style", ["instruct-1", "compact-1"])
@pytest.mark.parametrize("cap", [None, 1, 5])
def test_as_a_teacher_it_gives_the_known_decomposition(style: str, cap: int | None) -> None:
    with simulated_server(KNOWN[:20], timing=AT_ONCE) as url:
        solver = OpenAISolver(MODEL, url)
        teacher = Decomposer(MODEL, "remote", solver.solve, style, cap)
        for problem in KNOWN[:20]:
            made = answer(problem.question, mode="static", solver=solver, decomposer=teacher)
            assert made.decomposition == problem.decomposition
        solver.close()


def test_sampled_as_a_teacher_it_leaves_out_a_subquestion_as_often_as_it_says() -> None:
    many = [p for p in KNOWN if len(p.steps) > 1][:80]

    def drawn(seed: int) -> list[list[str]]:
        messages = [decompose_messages(p.question, style="instruct-1", cap=None, shots=1) for p in many]
        return [parse(solver.solve(m, max_tokens=256, seed=seed).text).texts for m in messages]

    with simulated_server(many, Skill(drawn=0.5), timing=AT_ONCE) as url:
        solver = OpenAISolver(MODEL, url, temperature=0.7)
        first, again, other = drawn(1), drawn(1), drawn(2)
        solver.close()
    assert first == again != other
    whole = sum(texts == p.decomposition.texts for texts, p in zip(first, many, strict=True))
    assert abs(whole - len(many) / 2) < 4 * (len(many) / 4) ** 0.5
    assert all(set(texts) <= set(p.decomposition.texts) for texts, p in zip(first, many, strict=True))


def test_only_subquestions_that_ask_for_a_step_help() -> None:
    problem = next(p for p in KNOWN if len(p.steps) >= 3)
    asks = [step.ask for step in problem.steps]
    with simulated_server([problem], Skill(asked=0, reasoned=1), timing=AT_ONCE) as url:
        solver = OpenAISolver(MODEL, url)
        finals = []
        for texts in (asks, ["What is the weather?", *asks], asks[1:]):
            given = "\n".join(f"{k}. {text}" for k, text in enumerate(texts, start=1))
            local = Decomposer("given", "local", ScriptedSolver([given]).solve, "compact-1", None)
            made = answer(problem.question, mode="static", solver=solver, decomposer=local)
            finals.append(made.final)
            assert ("I do not know" in made.text) == ("weather" in given)
        solver.close()
    assert finals[0] == finals[1] == problem.answer
    assert finals[2] != problem.answer


def test_a_problem_that_it_was_not_given_is_not_answered() -> None:
    with simulated_server(KNOWN[:1], timing=AT_ONCE) as url:
        solver = OpenAISolver(MODEL, url)
        made = answer("How long is a piece of string?", mode="cot", solver=solver)
        solver.close()
    assert made.final == "I do not know"


def test_it_says_that_it_is_simulated() -> None:
    with simulated_server(KNOWN[:1], timing=AT_ONCE) as url, httpx.Client(trust_env=False) as client:
        models = client.get(f"{url}/models")
        assert models.json()["data"][0]["simulated"] is True
        for reply in (models, client.post(f"{url}/chat/completions", json=CHAT), client.get(f"{url}/other")):
            assert reply.headers["x-edgedc-simulated"] == "true"


def test_without_streaming_it_gives_the_same_text_and_usage() -> None:
    problem = KNOWN[0]
    content = f"Answer the question. Think step by step before you answer.\nQuestion: {problem.question}"
    messages = [{"role": "user", "content": content}]
    with simulated_server(KNOWN[:1], FLAWLESS, timing=AT_ONCE) as url, httpx.Client(trust_env=False) as client:
        solver = OpenAISolver(MODEL, url)
        streamed = solver.solve(messages, max_tokens=100)
        solver.close()
        asked = {"model": MODEL, "messages": messages, "max_tokens": None}  # as some clients say nothing
        whole = client.post(f"{url}/chat/completions", json=asked).json()
        cut = client.post(
            f"{url}/chat/completions", json={"model": MODEL, "messages": messages, "max_tokens": 2}
        ).json()
    assert whole["choices"][0]["message"]["content"] == streamed.text
    assert whole["usage"]["prompt_tokens"] == streamed.usage.input_tokens
    assert whole["usage"]["completion_tokens"] == streamed.usage.output_tokens
    assert (cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 2)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b"{}", 400),
        (b'{"model": "simulated-solver", "messages": [{"role": "user", "content": [1]}]}', 400),
        (b'{"model": "simulated-solver", "messages": [{"role": "user", "content": ""}], "max_tokens": "x"}', 400),
        (b'{"model": "simulated-solver", "messages": [{"role": "user", "content": ""}], "temperature": "hot"}', 400),
        (b'{"model": "gpt-9", "messages": [{"role": "user", "content": ""}]}', 404),
        (b"x" * (2**20 + 1), 413),
    ],
)
def test_a_bad_request_gets_an_error_and_the_server_goes_on(content: bytes, status: int) -> None:
    with simulated_server(KNOWN[:1], timing=AT_ONCE) as url, httpx.Client(trust_env=False) as client:
        reply = client.post(f"{url}/chat/completions", content=content)
        assert reply.status_code == status
        assert reply.json()["error"]["message"]
        assert client.post(f"{url}/chat/completions", json=CHAT).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("n", 2), ("stop", ["\n"]), ("logprobs", True), ("response_format", {"type": "json_object"})),
        *(("tools", [{"type": "function", "function": {"name": "f"}}]), ("tool_choice", "required")),
    ],
)
def test_what_its_text_cannot_be_is_refused_by_name(field: str, value: object) -> None:
    neutral = {"n": 1, "stop": None, "logprobs": False, "response_format": {"type": "text"}, "tools": [], "top_p": 0.9}
    with simulated_server(KNOWN[:1], timing=AT_ONCE) as url, httpx.Client(trust_env=False) as client:
        reply = client.post(f"{url}/chat/completions", json=CHAT | {field: value})
        assert client.post(f"{url}/chat/completions", json=CHAT | neutral).status_code == 200
    assert reply.status_code == 400
    assert f": {field} " in reply.json()["error"]["message"]


def test_other_clients_find_what_they_look_for() -> None:
    with simulated_server(KNOWN[:1], timing=AT_ONCE) as url, httpx.Client(trust_env=False) as client:
        stream = client.post(f"{url}/chat/completions", json=CHAT | {"stream": True}).text
        listed = client.get(f"{url}/models").json()["data"]
        assert client.get(f"{url}/models/{MODEL}").json() == listed[0]
        assert "/v1/chat/completions" in client.post(f"{url}/responses", json={}).json()["error"]["message"]
    first = json.loads(stream.splitlines()[0].removeprefix("data: "))
    assert first["choices"][0]["delta"]["role"] == "assistant"  # OpenAI's client for JavaScript fails without


@pytest.mark.parametrize("length", [b"\xb2", b"9" * 5000])
def test_a_length_that_is_none_is_refused(length: bytes) -> None:
    with simulated_server(problems("test", 1), timing=Timing(0, 0)) as url:
        where = httpx.URL(url)
        with socket.create_connection((where.host, where.port or 0), timeout=10) as end:
            end.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\n")
            assert end.recv(64).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_time_or_a_chance_that_is_none_names_its_flag(value: float) -> None:
    with pytest.raises(InputError, match=f"--per-token-s {value}: give seconds"):
        Timing(per_token_s=value)
    with pytest.raises(InputError, match=f"--in-head {value}: give a chance"):
        Skill(in_head=value)


def test_a_port_that_is_taken_is_the_users_mistake() -> None:
    with simulated_server([], timing=AT_ONCE) as url, pytest.raises(InputError, match="--port"):  # noqa: SIM117
        with simulated_server([], port=int(url.split(":")[2].removesuffix("/v1"))):
            pass
