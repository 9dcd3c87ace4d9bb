"""Reach a solver over the OpenAI chat protocol, at any server that speaks it."""

import copy
import json
import os
import random
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from edgedc.errors import InputError, SolverError
from edgedc.generation import Generation, Message, OnText
from edgedc.ledger import Budget
from edgedc.solvers import SIMULATED_MODEL
from edgedc.solvers.breaker import Breaker
from edgedc.solvers.endpoint import Endpoint, OnSending
from edgedc.solvers.failures import Failed, Names, Timeouts
from edgedc.solvers.pace import Pace
from edgedc.solvers.stream import Reply
from edgedc.usage import Usage, estimate_tokens

OPENAI = "https://api.openai.com/v1"
KEYS = ("EDGEDC_API_KEY", "OPENAI_API_KEY")
DECOMPOSER_KEY = "EDGEDC_DECOMPOSER_API_KEY"
TIMEOUT_S = 120.0
CONNECT_S = 5.0
RETRIES = 2

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 16.0

# What a request can do without, where a server complains of it.
_DISPENSABLE = ("stream_options", "temperature", "seed")


def most_tokens(messages: Sequence[Message]) -> int:
    """An upper bound: no tokenizer makes more tokens than bytes; a server's own words around them are allowed for."""
    return 256 + sum(len(message["content"].encode("utf-8", "surrogatepass")) + 16 for message in messages)


def server_of(url: str) -> str:
    """The URL itself, else the environment's, else OpenAI's."""
    given = (url, *(os.environ.get(name, "") for name in ("EDGEDC_BASE_URL", "OPENAI_BASE_URL")))
    return next((stripped for one in given if (stripped := one.strip())), OPENAI)


def host_of(url: str) -> str:
    """With its port, and without a password."""
    return urlsplit(server_of(url)).netloc.rpartition("@")[2]


def decomposer_keys(url: str, solver_url: str) -> tuple[str, ...]:
    """Where the key of a remote decomposer stands: the solver's is not for another server's eyes."""
    return (DECOMPOSER_KEY, *KEYS) if host_of(url) == host_of(solver_url) else (DECOMPOSER_KEY,)


def open_solver(model: str, url: str = "", *, keys: Sequence[str] = KEYS, **settings: Any) -> "OpenAISolver":
    """A solver at `url`, else EDGEDC_BASE_URL, OPENAI_BASE_URL, OpenAI; its key from the first variable of `keys`.

    `settings` are those of OpenAISolver. Raises InputError when OpenAI's own server is meant and there is no key, or
    when the model is the simulated one.
    """
    url = server_of(url)
    key = next((value for name in keys if (value := os.environ.get(name, "").strip())), None)
    solver = OpenAISolver(model, url, key, keys=tuple(keys), **settings)
    if solver.host == urlsplit(OPENAI).netloc and (not key or model == SIMULATED_MODEL):
        solver.close()
        flag = solver.names.url
        if model == SIMULATED_MODEL:
            raise InputError(f"{model} is not at OpenAI: start it with  edgedc simulate  and give {flag}, its URL")
        raise InputError(f"no key for api.openai.com: set {' or '.join(keys)}, or give {flag}")
    return solver


def check_server(model: str, url: str, **settings: Any) -> None:
    """Raises InputError as `open_solver` does; nobody is asked. Before any price is looked for, which another server
    may not need."""
    open_solver(model, url, **settings).close()


class OpenAISolver:
    """A model behind `/chat/completions`, streamed, with the one retry loop of this project.

    `timeout_s` limits a whole call, retries and the waits between them included; what `pace` lets it wait is not
    counted. Silence may last `read_s`, by default half of that, so that a stalled attempt leaves room for another.
    `seed` is that of calls which bring none. `breaker` is that of the server, where its failures are to be remembered.
    `flags` name the model and the URL, and `keys` the key, in errors. `via` is where to connect to instead, HOST:PORT.
    `simulated` is True once a server has said that it is a simulation.
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
        read_s: float | None = None,
        connect_s: float = CONNECT_S,
        retries: int = RETRIES,
        budget: Budget | None = None,
        pace: Pace | None = None,
        breaker: Breaker | None = None,
        flags: tuple[str, str] = ("--solver-model", "--solver-url"),
        keys: tuple[str, ...] = KEYS,
        via: str | None = None,
    ) -> None:
        self.model = model
        self.retried = self.retried_doubtful = 0  # attempts that were repeated, and those of them that may be billed
        self.names = Names(*flags, keys)
        timeouts = Timeouts(timeout_s, timeout_s / 2 if read_s is None else read_s, connect_s)
        self._endpoint = Endpoint(base_url, api_key, timeouts=timeouts, names=self.names, via=via)
        self._timeout_s, self._retries, self._budget, self._pace = timeout_s, retries, budget, pace or Pace()
        self._breaker = breaker
        self._temperature, self._seed = temperature, seed
        self._refused: set[str] = set()  # by the server, however it is asked: `at` shares them
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
        return [
            f"{who} does not take our {name}: its default was used" for name in _DISPENSABLE if not self._takes(name)
        ]

    def close(self) -> None:
        self._endpoint.close()

    def at(self, temperature: float) -> "OpenAISolver":
        """The same solver, its connections, budget and breaker too, asked at another temperature."""
        other = copy.copy(self)
        other._temperature = temperature
        return other

    def solve(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        seed: int | None = None,
        on_text: OnText | None = None,
        on_sending: OnSending | None = None,
    ) -> Generation:
        """One reply. The worst case of all attempts is reserved in the budget first, and settled afterwards.

        What `on_text` has heard cannot be taken back, so that an attempt which breaks off then is not repeated.
        `on_sending` hears of each attempt. `bytes_sent` counts the bodies of all attempts that reached the server. A
        SolverError's `cost` is what was booked for attempts that the server may bill.
        """
        seed = self._seed if seed is None else seed
        doubt = _Doubt(on_sending)
        if self._budget is None:
            return self._solve(messages, max_tokens, seed, on_text, doubt)
        attempts = 1 + self._retries
        hold = self._budget.reserve(most_tokens(messages), max_tokens, attempts=attempts, wait=True)
        worst, cost = hold.worst / attempts, 0.0
        try:
            generation = self._solve(messages, max_tokens, seed, on_text, doubt)
            counted = generation.usage.source == "server"
            cost = self._budget.price.cost(generation.usage) if counted else worst
            doubt.in_the_air = False
        except SolverError as error:
            error.cost = doubt.attempts * worst
            raise
        finally:
            booked = cost + (doubt.attempts + doubt.in_the_air) * worst
            self._budget.settle(hold, booked)
        return replace(generation, booked=booked, beyond=cost > worst)

    def _solve(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        seed: int | None,
        on_text: OnText | None,
        doubt: "_Doubt",
    ) -> Generation:
        """Try until there is a reply, no retry is left or time is up."""
        prompt_tokens = sum(estimate_tokens(message["content"]) for message in messages)
        tokens = prompt_tokens + max_tokens
        self._pace.wait(tokens)
        started = time.monotonic()
        deadline = started + self._timeout_s
        tried = bytes_sent = 0
        while True:
            fields = self._fields(messages, max_tokens, seed)
            body = json.dumps(fields).encode()
            outcome = self._attempt(body, deadline, on_text, doubt.sending)
            bytes_sent += len(body) if isinstance(outcome, Reply) or outcome.sent else 0
            if isinstance(outcome, Reply):
                return self._generation(outcome, prompt_tokens, tokens, started, bytes_sent)
            doubt.attempts += outcome.billed
            doubt.in_the_air = False
            if not self._adapt(outcome.complaint, fields):
                tried += 1
                wait = self._wait(outcome, tried, deadline)
                if wait is None:
                    raise _raised(outcome, tried, bytes_sent, doubt.attempts)
                _sleep(wait, on_text)
            deadline += self._pace.wait(tokens)

    def _attempt(self, body: bytes, deadline: float, on_text: OnText | None, on_sending: OnSending) -> Reply | Failed:
        if self._breaker is None:
            return self._endpoint.attempt(body, deadline, on_text, on_sending)
        if pause := self._breaker.closed_for():
            return self._endpoint.failures.paused(pause)
        outcome = self._endpoint.attempt(body, deadline, on_text, on_sending)
        # A server that says no is there.
        self._breaker.tell(well=isinstance(outcome, Reply) or (outcome.sent and not outcome.billed))
        return outcome

    def _generation(self, reply: Reply, prompt_tokens: int, tokens: int, started: float, bytes_sent: int) -> Generation:
        written = estimate_tokens(reply.text + " " * reply.thought)
        # A server that says that a text took no tokens has not counted them.
        counted = reply.usage if reply.usage and (reply.usage.output_tokens or not written) else None
        usage = counted or Usage(prompt_tokens, written, source="estimate")
        self._pace.give_back(max(0, tokens - usage.tokens))
        return Generation(
            reply.text,
            usage,
            first_token_s=None if reply.first_token is None else reply.first_token - started,
            total_s=(reply.last_token or time.monotonic()) - started,
            finish_reason="refusal" if reply.refused else reply.finish_reason,
            bytes_sent=bytes_sent,
            unsupported=tuple(name for name in ("temperature", "seed") if not self._takes(name)),
            reasoning_tokens=reply.reasoning_tokens or (0 if counted else estimate_tokens(" " * reply.thought)),
        )

    def _wait(self, failed: Failed, tried: int, deadline: float) -> float | None:
        """Seconds until the next attempt; None where there is to be none.

        As long as the server asks, or anything up to a limit that doubles ("full jitter"), so that many clients which
        failed together do not come back together. Nobody waits beyond the time of the call.
        """
        limit = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (tried - 1))
        wait = random.uniform(0, limit) if failed.wait is None else failed.wait
        if not failed.retry or tried > self._retries or time.monotonic() + wait > deadline:
            return None
        if failed.wait is not None:
            self._pace.hold(wait)  # it was said to all of us
        with self._lock:
            self.retried += 1
            self.retried_doubtful += failed.billed
        return wait

    def _fields(self, messages: Sequence[Message], max_tokens: int, seed: int | None) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "model": self.model,
            "messages": list(messages),
            "stream": True,
            "max_tokens" if self._takes("max_tokens") else "max_completion_tokens": max_tokens,
            "temperature": self._temperature,
            "stream_options": {"include_usage": True},
        } | ({} if seed is None else {"seed": seed})
        return {name: value for name, value in fields.items() if self._takes(name)}

    def _takes(self, name: str) -> bool:
        """Whether the server takes this field, as far as is known."""
        return self._as_refused(name) not in self._refused

    def _as_refused(self, name: str) -> str:
        """A temperature is refused for its value: a server that takes none above 1 is still asked at 0."""
        return f"{name} {self._temperature}" if name == "temperature" else name

    def _adapt(self, complaint: str, sent: dict[str, Any]) -> bool:
        """Leave out or rename the field that a server complains about. False when it complains of something else.

        What counts is what was sent: another thread may have had the same complaint, and have mended it already.
        """
        if "max_completion_tokens" in complaint and "max_tokens" in sent:
            self._refused.add("max_tokens")
            return True
        for name in _DISPENSABLE:
            if name in sent and re.search(rf"\b{name}\b", complaint):  # one may quote a question about seeds
                self._refused.add(self._as_refused(name))
                return True
        return False


@dataclass
class _Doubt:
    """Of one call: the attempts that failed and may be billed, and whether one has left whose outcome is not known."""

    on_sending: OnSending | None
    attempts: int = 0
    in_the_air: bool = False

    def sending(self) -> None:
        if self.on_sending:
            self.on_sending()
        self.in_the_air = True


def _sleep(seconds: float, on_text: OnText | None) -> None:
    """Whoever hears the reply may end the call meanwhile."""
    end = time.monotonic() + seconds
    while (rest := end - time.monotonic()) > 0:
        if on_text:
            on_text("")
        time.sleep(min(rest, 0.5))


def _raised(failed: Failed, tried: int, bytes_sent: int, doubtful: int) -> SolverError:
    """The error of the last attempt, with what all of them sent."""
    after = f" (after {tried} attempts)" if tried > 1 else ""
    asked = f"; it asks to wait for {failed.wait:.0f} s" if failed.wait and failed.wait > 1 else ""
    error = type(failed.error)(f"{failed.error}{asked}{after}")
    error.bytes_sent, error.doubtful = bytes_sent, doubtful
    return error
