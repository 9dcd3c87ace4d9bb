"""Replies as servers in use sent them, shortened by ids and tokens: what edgedc makes of them, and says."""

import json
from pathlib import Path

import pytest
from conftest import Run
from wire import ASKED, PRICE, WORST, error, failure, server, solver_at

from edgedc.decomposer import Decomposer
from edgedc.errors import SolverReply
from edgedc.ledger import Budget
from edgedc.pipeline import answer
from edgedc.usage import Usage


def streamed(*pieces: str, more: str = "") -> bytes:
    """As uvicorn and cpp-httplib send a stream: each piece a chunk; the last one ends it."""
    head = f"HTTP/1.1 200 OK\r\nserver: uvicorn\r\n{more}content-type: text/event-stream; charset=utf-8\r\n"
    chunks = "".join(f"{len(piece.encode()):x}\r\n{piece}\r\n" for piece in (*pieces, ""))
    return f"{head}Transfer-Encoding: chunked\r\n\r\n{chunks}".encode()


def llama_cpp_python(delta: str, reason: str = "null") -> str:
    """A chunk of llama_cpp.server (llama-cpp-python 0.3.36)."""
    choice = f'{{"index": 0, "delta": {delta}, "logprobs": null, "finish_reason": {reason}}}'
    about = '"id": "chatcmpl-c9491efc", "model": "box", "created": 1795997663, "object": "chat.completion.chunk"'
    return f'data: {{{about}, "choices": [{choice}]}}\n\n'


ROLE, DONE = llama_cpp_python('{"role": "assistant"}'), "data: [DONE]\n\n"
DROPPED = streamed(ROLE, DONE)  # another call has come, for which it leaves this one
TOO_LONG = streamed()  # a prompt that does not fit; its log alone says so
UNCOUNTED = streamed(ROLE, llama_cpp_python('{"content": "1. How many?"}'), llama_cpp_python("{}", '"stop"'), DONE)


def test_a_call_that_was_dropped_for_another_is_made_again_and_paid_for_twice_at_most() -> None:
    budget = Budget(1.0, PRICE)
    with server(DROPPED, UNCOUNTED) as made, solver_at(made.url, retries=1, budget=budget) as solver:
        reply = solver.solve(ASKED, max_tokens=10)
    assert (reply.text, reply.finish_reason, reply.usage.source) == ("1. How many?", "stop", "estimate")
    assert (solver.retried, solver.retried_doubtful) == (1, 1)
    assert budget.spent == pytest.approx(2 * WORST)


def test_a_server_that_drops_calls_or_fails_unsaid_is_told_of() -> None:
    assert "ask one at a time" in failure(DROPPED, kind=SolverReply)
    assert "its log may say why" in failure(TOO_LONG, kind=SolverReply)


@pytest.fixture
def priced(alone: Path, edgedc: Run) -> Run:
    """Runs edgedc with a price for the model m."""
    prices = alone.parent / "prices.json"
    prices.write_text(json.dumps({"m": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-5}}))
    return lambda *args: edgedc(*args, "--prices", str(prices), "--max-cost", "1")


def test_an_answer_that_nobody_counted_is_booked_at_its_worst_and_not_said_to_have_failed(priced: Run) -> None:
    with server(UNCOUNTED) as made:
        code, _, said = priced("ask", "--mode", "cot", "--solver-model", "m", "--solver-url", made.url, "How many?")
    assert code == 0
    assert "(estimated)" in said
    assert "with what failed or was not counted (price of m" in said


def test_rows_that_nobody_counted_and_draws_that_are_all_the_same_are_told_of(priced: Run) -> None:
    """As where a server takes no temperature: transformers', for a model whose own settings do not sample."""
    task = ("--limit", "4", "--draws", "2", "--temperature", "0.7", "--concurrency", "1")
    with server(*[UNCOUNTED] * 8) as made:
        code, _, said = priced("teach", "--teacher", "m", "--teacher-url", made.url, *task, "rows.jsonl")
    assert code == 0
    assert "8 rows without a count of tokens, so that the most they may cost is counted" in said
    assert "the draws of each question are all the same: the server may take no temperature" in said
    solver = ("--solver-model", "m", "--concurrency", "1", "--solver-url")
    with server(*[UNCOUNTED] * 8) as made:
        code, shown, _ = priced("screen", *solver, made.url, "rows.jsonl", "screened.jsonl")
    assert code == 0
    assert "without a count of tokens, so that the most they may cost is counted: 8\n" in shown


# transformers 5.24: usage beside the finish_reason, no [DONE]; of a model that it has not it says no more than this
ABOUT = '"created":1795998276,"model":"student","object":"chat.completion.chunk","system_fingerprint":""'
TRANSFORMERS = streamed(
    f'data: {{"id":"6c6ad444","choices":[{{"delta":{{"role":"assistant"}},"index":0}}],{ABOUT}}}\n\n',
    f'data: {{"id":"6c6ad444","choices":[{{"delta":{{"content":"7"}},"index":0}}],{ABOUT}}}\n\n',
    f'data: {{"id":"6c6ad444","choices":[{{"delta":{{}},"index":0,"finish_reason":"length"}}],{ABOUT},'
    '"usage":{"completion_tokens":1,"prompt_tokens":19,"total_tokens":20}}\n\n',
    more="x-request-id: 6c6ad444\r\n",
)
NO_MODEL = (
    b"HTTP/1.1 500 Internal Server Error\r\nserver: uvicorn\r\ncontent-length: 21\r\n"
    b"content-type: text/plain; charset=utf-8\r\n\r\nInternal Server Error"
)


def test_a_usage_beside_the_last_piece_is_the_servers_own() -> None:
    with server(TRANSFORMERS) as made, solver_at(made.url) as solver:
        reply = solver.solve(ASKED, max_tokens=1)
    assert (reply.text, reply.finish_reason, reply.usage) == ("7", "length", Usage(19, 1, 0, "server"))


def test_a_server_that_fails_is_quoted_or_without_a_word_its_log_pointed_to() -> None:
    litellm = "litellm.InternalServerError: InternalServerError: OpenAIException - Connection error."
    explained = failure(error("500 Internal Server Error", litellm), kind=SolverReply)
    assert explained.endswith(f"500 Internal Server Error (it says: {litellm})")
    said = failure(NO_MODEL, kind=SolverReply)
    assert said.endswith("500 Internal Server Error: check --solver-model; if the server is yours, its log may say why")


# llama-server (the llama.cpp in llama-cpp-python 0.3.36) with 512 tokens of context for a prompt of 506
FULL = streamed(
    'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}]}\n\n'
    'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" many does"}}],"model":"box"}\n\n',
    'data: {"choices":[{"finish_reason":"length","index":0,"delta":{}}],"model":"box"}\n\n'
    'data: {"choices":[],"model":"box","usage":{"completion_tokens":6,"prompt_tokens":506,"total_tokens":512,'
    '"prompt_tokens_details":{"cached_tokens":462}},"timings":{"cache_n":462,"prompt_n":44,"prompt_ms":12.573}}\n\n',
    DONE,
)


def test_a_reply_that_a_full_context_cut_is_not_said_to_be_as_long_as_it_may_be() -> None:
    with server(FULL, FULL) as made, solver_at(made.url) as solver:
        elsewhere = Decomposer("m", "remote", solver.solve, "instruct-1", max_tokens=256)
        result = answer("How many?", mode="static", solver=solver, decomposer=elsewhere, max_tokens=600)
    assert result.notes == (
        "the decomposition was cut at 6 tokens, before the 256 it may have: its context may be full",
        "there is no decomposition: asked in mode cot instead of static",
        "the solver's reply (solve) was cut at 6 tokens, before the 600 it may have: its context may be full",
    )
