"""One request to a chat completion endpoint, and every way in which it can fail."""

import email.utils
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from edgedc.errors import InputError, SolverError, SolverReply, SolverTimeout, SolverUnreachable
from edgedc.solvers import SIMULATED
from edgedc.solvers.stream import Reply, read_error, read_stream, read_whole

_CONNECT_S = 5.0
_MENDS = {
    401: "set EDGEDC_API_KEY or OPENAI_API_KEY to a key of this server",
    403: "this key may not use the model: check the key and {model}",
    404: "check {model}, and that {url} ends where /chat/completions begins (often in /v1)",
    429: "the server's rate limit or the account's quota is reached: wait, or use another key",
}


@dataclass(eq=False)
class Failed(Exception):
    """One attempt failed. `sent`: the body has left; `billed`: the server may charge for it; `wait`: its Retry-After,
    in seconds; `complaint`: what it says is wrong with the request."""

    error: SolverError
    retry: bool
    sent: bool = True
    billed: bool = True
    wait: float | None = None
    complaint: str = ""


class Endpoint:
    """A server's `/chat/completions`, to be used from any number of threads.

    `timeout_s` limits an attempt's silence to half of it. `flags` are those that name the model and the URL, for
    errors; no error, and neither `host` nor `url`, holds the key. `simulated` is True once the server has said that it
    is a simulation. Raises InputError for a URL or a key that cannot be one.
    """

    def __init__(self, base_url: str, api_key: str | None, *, timeout_s: float, flags: tuple[str, str]) -> None:
        self.model_flag, self.url_flag = flags
        try:
            parts = urlsplit(base_url)
            host, _ = parts.hostname, httpx.URL(base_url)
        except (ValueError, httpx.InvalidURL):
            parts, host = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not host:
            raise InputError(f"the server's URL is not of the form http(s)://HOST[:PORT]/v1: check {self.url_flag}")
        if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise InputError("the server's key holds white space or other characters that no key has: check it")
        self.host = parts.netloc.rpartition("@")[2]
        self.url = parts._replace(netloc=self.host, query="", fragment="").geturl()
        self.simulated = False
        self._url = parts._replace(path=parts.path.rstrip("/") + "/chat/completions", fragment="").geturl()
        self._timeout_s, self._secret = timeout_s, api_key
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        # A proxy named in the environment must not get what is meant for this machine.
        loopback = host in ("localhost", "127.0.0.1", "::1")
        # The caller's threads are the limit: one that waited here for a connection would look like a silent server.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.Client(headers=headers, trust_env=not loopback, limits=limits)

    def close(self) -> None:
        self._client.close()

    def without_key(self, text: str) -> str:
        """The text with the key, which a server may echo, made unreadable."""
        return text.replace(self._secret, "***") if self._secret else text

    def attempt(self, body: bytes, deadline: float) -> Reply:
        """One request. Raises Failed; a reply that is whole but wrong would be as wrong again, and is not retried."""
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
                    with suppress(httpx.HTTPError, Failed):
                        next(stream, None)  # a body read to its end leaves the connection fit for the next call
                    return reply
                if kind == "application/json":
                    return read_whole(chunks(response))
                wrong = (
                    f"answers with {kind[:60] or 'no content type'}, not with a chat completion: check {self.url_flag}"
                )
                raise self._failed(SolverReply, wrong, retry=False)
        except httpx.ConnectTimeout:
            slow = f"no connection within {timeout.connect:g} s"
            raise self._failed(SolverTimeout, slow, retry=True, sent=False, billed=False) from None
        except httpx.ConnectError as error:
            down = f"cannot be reached ({error}): check {self.url_flag} and the network"
            raise self._failed(SolverUnreachable, down, retry=True, sent=False, billed=False) from None
        except httpx.TimeoutException:
            slow = f"sent nothing for {silence:.3g} s: try again, or raise --timeout"
            raise self._failed(SolverTimeout, slow, retry=True) from None
        except httpx.RequestError as error:
            where = "in the middle of the reply" if begun else "before the reply"
            raise self._failed(SolverUnreachable, f"the connection broke {where} ({error})", retry=True) from None
        except ValueError as error:
            raise self._failed(SolverReply, f"not a chat completion: {error}", retry=False) from None

    def _refusal(self, response: httpx.Response, said: str) -> Failed:
        status = response.status_code
        mend = _MENDS.get(status, "").format(model=self.model_flag, url=self.url_flag)
        if response.is_redirect:
            mend = f"the server has moved: give its new address with {self.url_flag}"
        text = ": ".join(part for part in (f"{status} {response.reason_phrase}".strip(), mend) if part)
        return self._failed(
            SolverReply,
            f"{text} (it says: {said})" if said else text,
            retry=status == 429 or status >= 500,
            billed=status >= 500,
            wait=_retry_after(response.headers.get("retry-after", "")),
            complaint=said if status in (400, 422) else "",
        )

    def _failed(self, kind: type[SolverError], what: str, *, retry: bool, **rest: Any) -> Failed:
        """The failure, said without the key, which a server may echo, and without what could steer a terminal."""
        text = "".join(c if c.isprintable() else " " for c in self.without_key(what))
        return Failed(kind(f"{self.host}: {text}"), retry, **rest)


def _retry_after(value: str) -> float | None:
    """Seconds to wait, from a number or a date."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds == seconds else None
