"""Reach a solver over the OpenAI chat protocol, at any server that speaks it."""

import json
import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from edgedc.errors import InputError, SolverError
from edgedc.generation import Generation, Message
from edgedc.ledger import Budget, Usage, estimate_tokens
from edgedc.solvers.endpoint import Endpoint, Failed
from edgedc.solvers.pace import Pace

OPENAI = "https://api.openai.com/v1"
TIMEOUT_S = 120.0
RETRIES = 2


def most_tokens(messages: Sequence[Message]) -> int:
    """An upper bound: no tokenizer makes more tokens than bytes; a server's own words around them are allowed for."""
    return 256 + sum(len(message["content"].encode("utf-8", "surrogatepass")) + 16 for message in messages)


def open_solver(model: str, url: str = "", **settings: Any) -> "OpenAISolver":
    """A solver at `url`, else EDGEDC_BASE_URL, OPENAI_BASE_URL, OpenAI; its key from EDGEDC_API_KEY, OPENAI_API_KEY.

    `settings` are those of OpenAISolver. Raises InputError when OpenAI's own server is meant and there is no key.
    """
    url = url or os.environ.get("EDGEDC_BASE_URL") or os.environ.get("OPENAI_BASE_URL") or OPENAI
    key = (os.environ.get("EDGEDC_API_KEY") or os.environ.get("OPENAI_API_KEY") or "").strip()
    solver = OpenAISolver(model, url, key or None, **settings)
    if not key and solver.host == urlsplit(OPENAI).netloc:
        solver.close()
        flag = solver._endpoint.url_flag
        raise InputError(f"no key for api.openai.com: set EDGEDC_API_KEY or OPENAI_API_KEY, or give {flag}")
    return solver


class OpenAISolver:
    """A model behind `/chat/completions`, streamed, with the one retry loop of this project.

    `timeout_s` limits a whole call, retries and the waits between them included; silence may last half of it, so that
    a stalled attempt leaves room for another; what `pace` lets it wait is not counted. `seed` is that of calls which
    bring none. `flags` are those that name model and URL, for errors. `simulated` is True once a server has said that
    it is a simulation.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        api_key: str | None = None,
        *,
        temperature: float = 0.0,
        seed: int | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        budget: Budget | None = None,
        pace: Pace | None = None,
        flags: tuple[str, str] = ("--solver-model", "--solver-url"),
    ) -> None:
        self.model = model
        self.retried = 0
        self._endpoint = Endpoint(base_url, api_key, timeout_s=timeout_s, flags=flags)
        self._timeout_s, self._retries, self._budget, self._pace = timeout_s, retries, budget, pace or Pace()
        self._temperature, self._seed = temperature, seed
        self._limit_field = "max_tokens"
        self._unsupported: list[str] = []
        self._lock = threading.Lock()

    @property
    def host(self) -> str:
        return self._endpoint.host

    @property
    def url(self) -> str:
        """Without a password or a key that may stand in it."""
        return self._endpoint.url

    @property
    def simulated(self) -> bool:
        return self._endpoint.simulated

    @property
    def remarks(self) -> list[str]:
        """Which fields this server did not take."""
        who = f"{self.model} at {self.host}"
        return [f"{who} does not take our {name}: its default was used" for name in self._unsupported]

    def close(self) -> None:
        self._endpoint.close()

    def solve(self, messages: Sequence[Message], *, max_tokens: int, seed: int | None = None) -> Generation:
        """One reply. The worst case of all attempts is reserved in the budget first, and settled afterwards.

        `bytes_sent` counts the bodies of all attempts that reached the server. A SolverError's `cost` is what was
        booked for attempts that the server may bill.
        """
        seed = self._seed if seed is None else seed
        if self._budget is None:
            return self._solve(messages, max_tokens, seed, [])
        attempts = 1 + self._retries
        worst = self._budget.reserve(attempts * most_tokens(messages), attempts * max_tokens, wait=True)
        doubtful: list[Failed] = []
        cost = worst / attempts  # what an interrupted attempt may cost
        try:
            generation = self._solve(messages, max_tokens, seed, doubtful)
            if generation.usage.source == "server":
                cost = self._budget.price.cost(generation.usage)
        except SolverError as error:
            cost = 0.0  # the attempts that failed are all in doubtful
            error.cost = len(doubtful) * worst / attempts
            raise
        finally:
            booked = cost + len(doubtful) * worst / attempts
            self._budget.settle(worst, booked)
        return replace(generation, booked=booked)

    def _solve(
        self, messages: Sequence[Message], max_tokens: int, seed: int | None, doubtful: list[Failed]
    ) -> Generation:
        """Try until there is a reply, no retry is left or time is up; failures that may be billed go to `doubtful`."""
        prompt_tokens = sum(estimate_tokens(message["content"]) for message in messages)
        tokens = prompt_tokens + max_tokens
        self._pace.wait(tokens)
        started = time.monotonic()
        deadline = started + self._timeout_s
        tried = bytes_sent = 0
        while True:
            fields = self._fields(messages, max_tokens, seed)
            body = json.dumps(fields).encode()
            try:
                reply = self._endpoint.attempt(body, deadline)
                break
            except Failed as failed:
                bytes_sent += len(body) if failed.sent else 0
                if failed.billed:
                    doubtful.append(failed)
                if not self._adapt(failed.complaint, fields):
                    tried += 1
                    self._wait_to_retry(failed, tried, deadline)
            deadline += self._pace.wait(tokens)
        text = reply.text or reply.refusal
        usage = reply.usage or Usage(prompt_tokens, estimate_tokens(text + " " * reply.thought), source="estimate")
        self._pace.give_back(max(0, tokens - usage.tokens))
        return Generation(
            self._endpoint.without_key(text),
            usage,
            first_token_s=None if reply.first_token is None else reply.first_token - started,
            total_s=(reply.last_token or time.monotonic()) - started,
            finish_reason="refusal" if reply.refusal else reply.finish_reason,
            bytes_sent=bytes_sent + len(body),
            unsupported=tuple(name for name in ("temperature", "seed") if name in self._unsupported),
        )

    def _wait_to_retry(self, failed: Failed, tried: int, deadline: float) -> None:
        """Sleep as long as the server asks, or a while. Raises the error where there is to be no other attempt."""
        wait = 0.5 * 2**tried * random.uniform(0.5, 1.0) if failed.wait is None else failed.wait
        if not failed.retry or tried > self._retries or time.monotonic() + wait > deadline:
            after = f" (after {tried} attempts)" if tried > 1 else ""
            raise type(failed.error)(f"{failed.error}{after}") from None
        if failed.wait is not None:
            self._pace.hold(wait)  # it was said to all of us
        with self._lock:
            self.retried += 1
        time.sleep(wait)

    def _fields(self, messages: Sequence[Message], max_tokens: int, seed: int | None) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "model": self.model,
            "messages": list(messages),
            "stream": True,
            self._limit_field: max_tokens,
            "temperature": self._temperature,
            "stream_options": {"include_usage": True},
        } | ({} if seed is None else {"seed": seed})
        return {name: value for name, value in fields.items() if name not in self._unsupported}

    def _adapt(self, complaint: str, sent: dict[str, Any]) -> bool:
        """Leave out or rename the field that a server complains about. False when it complains of something else.

        What counts is what was sent: another thread may have had the same complaint, and have mended it already.
        """
        if "max_completion_tokens" in complaint and "max_tokens" in sent:
            self._limit_field = "max_completion_tokens"
            return True
        for name in ("stream_options", "temperature", "seed"):
            if name in complaint and name in sent:
                with self._lock:
                    if name not in self._unsupported:
                        self._unsupported.append(name)
                return True
        return False
