"""Reach a solver over the OpenAI chat protocol, at any server that speaks it."""

import email.utils
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from edgedc.errors import InputError, SolverError, SolverReply, SolverTimeout, SolverUnreachable
from edgedc.generation import Generation, Message
from edgedc.ledger import Budget, Usage, estimate_tokens
from edgedc.solvers import SIMULATED
from edgedc.solvers.stream import Reply, read_error, read_stream, read_whole

OPENAI = "https://api.openai.com/v1"
TIMEOUT_S = 120.0
RETRIES = 2

_CONNECT_S = 5.0
_LONGEST_WAIT_S = 20.0
_MENDS = {
    401: "set EDGEDC_API_KEY or OPENAI_API_KEY to a key of this server",
    403: "this key may not use the model: check the key and --solver-model",
    404: "check --solver-model, and that --solver-url ends where /chat/completions begins (often in /v1)",
    429: "the server's rate limit or the account's quota is reached: wait, or use another key",
}


@dataclass(eq=False)
class _Failed(Exception):
    """One attempt failed. `sent`: the body has left; `billed`: the server may charge for it; `wait`: its Retry-After,
    in seconds; `complaint`: what it says is wrong with the request."""

    error: SolverError
    retry: bool
    sent: bool = True
    billed: bool = True
    wait: float | None = None
    complaint: str = ""


def open_solver(
    model: str, url: str = "", *, budget: Budget | None = None, timeout_s: float = TIMEOUT_S, seed: int | None = None
) -> "OpenAISolver":
    """A solver at `url`, else EDGEDC_BASE_URL, OPENAI_BASE_URL, OpenAI; its key from EDGEDC_API_KEY, OPENAI_API_KEY.

    Raises InputError when OpenAI's own server is meant and there is no key.
    """
    url = url or os.environ.get("EDGEDC_BASE_URL") or os.environ.get("OPENAI_BASE_URL") or OPENAI
    key = (os.environ.get("EDGEDC_API_KEY") or os.environ.get("OPENAI_API_KEY") or "").strip()
    solver = OpenAISolver(model, url, key or None, budget=budget, timeout_s=timeout_s, seed=seed)
    if not key and solver.host == urlsplit(OPENAI).netloc:
        solver.close()
        raise InputError("no key for api.openai.com: set EDGEDC_API_KEY or OPENAI_API_KEY, or give --solver-url")
    return solver


class OpenAISolver:
    """A model behind `/chat/completions`, streamed, with the one retry loop of this project.

    `timeout_s` limits a whole call, retries and the waits between them included; silence may last half of it, so that
    a stalled attempt leaves room for another. `simulated` is True once a server has said that it is a simulation.
    `remarks` says which fields this server did not take.
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
    ) -> None:
        try:
            parts = urlsplit(base_url)
            host, _ = parts.hostname, httpx.URL(base_url)
        except (ValueError, httpx.InvalidURL):
            parts, host = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not host:
            raise InputError("the solver's URL is not of the form http(s)://HOST[:PORT]/v1: check --solver-url")
        if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise InputError("the solver's key holds white space or other characters that no key has: check it")
        self.model = model
        self.host = parts.netloc.rpartition("@")[2]
        self.url = parts._replace(netloc=self.host, query="", fragment="").geturl()  # holds no secret
        self.simulated = False
        self.retried = 0
        self.remarks: list[str] = []
        self._url = parts._replace(path=parts.path.rstrip("/") + "/chat/completions", fragment="").geturl()
        self._timeout_s, self._retries, self._budget = timeout_s, retries, budget
        self._fields: dict[str, Any] = {"temperature": temperature, "stream_options": {"include_usage": True}}
        self._fields |= {} if seed is None else {"seed": seed}
        self._limit_field = "max_tokens"
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        self._secret = api_key
        # A proxy named in the environment must not get what is meant for this machine.
        loopback = host in ("localhost", "127.0.0.1", "::1")
        self._client = httpx.Client(headers=headers, trust_env=not loopback)

    def close(self) -> None:
        self._client.close()

    def solve(self, messages: Sequence[Message], *, max_tokens: int) -> Generation:
        """One reply. The worst case of all attempts is reserved in the budget first, and settled afterwards.

        `bytes_sent` counts the bodies of all attempts that reached the server.
        """
        if self._budget is None:
            return self._solve(messages, max_tokens, [])
        # No tokenizer makes more tokens than bytes; a server's own words around the messages are allowed for.
        longest = 256 + sum(len(message["content"].encode()) + 16 for message in messages)
        attempts = 1 + self._retries
        worst = self._budget.reserve(attempts * longest, attempts * max_tokens)
        doubtful: list[_Failed] = []
        cost = worst / attempts  # what an interrupted attempt may cost
        try:
            generation = self._solve(messages, max_tokens, doubtful)
            if generation.usage.source == "server":
                cost = self._budget.price.cost(generation.usage)
        except SolverError:
            cost = 0.0  # the attempts that failed are all in doubtful
            raise
        finally:
            self._budget.settle(worst, cost + len(doubtful) * worst / attempts)
        return generation

    def _solve(self, messages: Sequence[Message], max_tokens: int, doubtful: list[_Failed]) -> Generation:
        """Try until there is a reply, no retry is left or time is up; failures that may be billed go to `doubtful`."""
        started = time.monotonic()
        deadline = started + self._timeout_s
        tried = bytes_sent = 0
        while True:
            body = self._body(messages, max_tokens)
            try:
                reply = self._attempt(body, deadline)
                break
            except _Failed as failed:
                bytes_sent += len(body) if failed.sent else 0
                if failed.billed:
                    doubtful.append(failed)
                if self._adapt(failed.complaint):
                    continue
                tried += 1
                wait = 0.5 * 2**tried * random.uniform(0.5, 1.0) if failed.wait is None else failed.wait
                if not failed.retry or tried > self._retries or time.monotonic() + wait > deadline:
                    after = f" (after {tried} attempts)" if tried > 1 else ""
                    raise type(failed.error)(f"{failed.error}{after}") from None
                self.retried += 1
            time.sleep(wait)
        usage = reply.usage or Usage(
            sum(estimate_tokens(message["content"]) for message in messages),
            estimate_tokens(reply.text + " " * reply.thought),
            source="estimate",
        )
        return Generation(
            reply.text,
            usage,
            first_token_s=None if reply.first_token is None else reply.first_token - started,
            total_s=(reply.last_token or time.monotonic()) - started,
            finish_reason=reply.finish_reason,
            bytes_sent=bytes_sent + len(body),
        )

    def _body(self, messages: Sequence[Message], max_tokens: int) -> bytes:
        fields = {"model": self.model, "messages": list(messages), "stream": True, self._limit_field: max_tokens}
        return json.dumps(fields | self._fields).encode()

    def _adapt(self, complaint: str) -> bool:
        """Leave out or rename the field that a server complains about. False when it complains of something else."""
        if "max_completion_tokens" in complaint and self._limit_field == "max_tokens":
            self._limit_field = "max_completion_tokens"
            return True
        for name in ("stream_options", "temperature", "seed"):
            if name in complaint and name in self._fields:
                del self._fields[name]
                self.remarks.append(f"{self.model} at {self.host} does not take our {name}: its default was used")
                return True
        return False

    def _attempt(self, body: bytes, deadline: float) -> Reply:
        """One request. Raises _Failed, with a retry allowed as long as no byte of a reply has come."""
        silence = max(0.001, min(self._timeout_s / 2, deadline - time.monotonic()))
        timeout = httpx.Timeout(silence, connect=min(_CONNECT_S, silence))
        begun = False

        def chunks(response: httpx.Response) -> Iterator[bytes]:
            nonlocal begun
            for chunk in response.iter_bytes():
                if time.monotonic() > deadline:
                    late = f"no whole answer within {self._timeout_s:g} s: raise --timeout or lower --max-tokens"
                    raise self._failed(SolverTimeout, late, retry=False)
                begun = True
                yield chunk

        headers = {"Content-Type": "application/json"}
        try:
            with self._client.stream("POST", self._url, content=body, headers=headers, timeout=timeout) as response:
                self.simulated = self.simulated or response.headers.get(SIMULATED) == "true"
                if response.status_code != 200:
                    raise self._refusal(response, read_error(chunks(response)))
                kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind == "text/event-stream":
                    stream = chunks(response)
                    reply = read_stream(stream)
                    with suppress(httpx.HTTPError, _Failed):
                        next(stream, None)  # a body read to its end leaves the connection fit for the next call
                    return reply
                if kind == "application/json":
                    return read_whole(chunks(response))
                wrong = f"answers with {kind[:60] or 'no content type'}, not with a chat completion: check --solver-url"
                raise self._failed(SolverReply, wrong, retry=False)
        except httpx.ConnectTimeout:
            slow = f"no connection within {timeout.connect:g} s"
            raise self._failed(SolverTimeout, slow, retry=True, sent=False, billed=False) from None
        except httpx.ConnectError as error:
            down = f"cannot be reached ({error}): check --solver-url and the network"
            raise self._failed(SolverUnreachable, down, retry=True, sent=False, billed=False) from None
        except httpx.TimeoutException:
            slow = f"sent nothing for {silence:.3g} s: try again, or raise --timeout"
            raise self._failed(SolverTimeout, slow, retry=not begun) from None
        except httpx.RequestError as error:
            where = "in the middle of the reply" if begun else "before the reply"
            raise self._failed(SolverUnreachable, f"the connection broke {where} ({error})", retry=not begun) from None
        except ValueError as error:
            raise self._failed(SolverReply, f"not a chat completion: {error}", retry=False) from None

    def _refusal(self, response: httpx.Response, said: str) -> _Failed:
        status = response.status_code
        mend = _MENDS.get(status, "")
        if response.is_redirect:
            mend = "the server has moved: give its new address with --solver-url"
        text = ": ".join(part for part in (f"{status} {response.reason_phrase}".strip(), mend) if part)
        return self._failed(
            SolverReply,
            f"{text} (it says: {said})" if said else text,
            retry=status == 429 or status >= 500,
            billed=status >= 500,
            wait=_retry_after(response.headers.get("retry-after", "")),
            complaint=said if status in (400, 422) else "",
        )

    def _failed(self, kind: type[SolverError], what: str, *, retry: bool, **rest: Any) -> _Failed:
        """The failure, said without the key, which a server may echo, and without what could steer a terminal."""
        text = what.replace(self._secret, "***") if self._secret else what
        text = "".join(c if c.isprintable() else " " for c in text)
        return _Failed(kind(f"{self.host}: {text}"), retry, **rest)


def _retry_after(value: str) -> float | None:
    """Seconds to wait, from a number or a date, at most _LONGEST_WAIT_S."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), _LONGEST_WAIT_S) if seconds == seconds else None
