"""What an attempt that failed says: in one line, with its mend, and without the key."""

import email.utils
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from edgedc.errors import SolverError, SolverRefused, SolverReply, SolverTimeout, SolverUnreachable
from edgedc.solvers.speech import without

_PASSING = (408, 409, 425, 429)  # of a client's errors, those that a later call may not meet
_MENDS = {
    401: "set {keys} to a key of this server",
    403: "this key may not use the model: check the key and {model}",
    404: "check {model}, and that {url} ends where /chat/completions begins (often in /v1)",
    429: "the server's rate limit or the account's quota is reached: wait, or use another key",
}
_UNSAID = "check {model}; if the server is yours, its log may say why"  # transformers' has no words for a wrong model


@dataclass(frozen=True)
class Timeouts:
    """Seconds: for a whole call, retries and the waits between them included; of silence; to connect."""

    total_s: float
    read_s: float
    connect_s: float


@dataclass(frozen=True)
class Names:
    """What the user calls the model, the URL and the key: two flags, and variables of the environment."""

    model: str
    url: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """One attempt failed. `sent`: the body has left; `billed`: the server may charge for it; `wait`: its Retry-After,
    in seconds; `complaint`: what it says is wrong with the request.

    It is no exception: an error that is made of one has no chain, in which httpx would keep the request with its key.
    """

    error: SolverError
    retry: bool
    sent: bool = True
    billed: bool = True
    wait: float | None = None
    complaint: str = ""


@dataclass(frozen=True)
class Failures:
    """Every way in which a request to `host` can fail. The secrets are in none of them."""

    host: str
    names: Names
    timeouts: Timeouts
    secrets: Sequence[str]

    def refused(self, response: httpx.Response, said: str) -> Failed:
        """The server answered with another status than 200."""
        status = response.status_code
        passing = status in _PASSING or status >= 500
        keys = " or ".join(self.names.keys)
        said = "" if said == response.reason_phrase else said
        unsaid = _UNSAID if status == 500 and not said else ""
        mend = _MENDS.get(status, unsaid).format(model=self.names.model, url=self.names.url, keys=keys)
        if response.is_redirect:
            mend = f"the server has moved: give its new address with {self.names.url}"
        text = ": ".join(part for part in (f"{status} {response.reason_phrase}".strip(), mend) if part)
        return self._failed(
            SolverReply if passing else SolverRefused,
            f"{text} (it says: {said})" if said else text,
            retry=passing,
            billed=status >= 500,
            wait=_retry_after(response.headers) if passing else None,
            complaint=said if status in (400, 422) else "",
        )

    def wrong(self, what: str, *, retry: bool = False) -> Failed:
        """What came is not the protocol."""
        return self._failed(SolverReply, what, retry=retry)

    def broken(self, error: httpx.RequestError, *, sent: bool, begun: bool) -> Failed:
        """httpx gave up. `sent`: the request had begun to leave; `begun`: some of a reply had come."""
        if isinstance(error, httpx.TimeoutException):
            if not sent:  # a proxy may be silent too
                return self.unconnected()
            silent = f"sent nothing for {self.timeouts.read_s:.3g} s: try again, or raise --timeout"
            return self._failed(SolverTimeout, silent, retry=True)
        if not sent:
            down = f"cannot be reached ({error}): check {self.names.url} and the network"
            return self._failed(SolverUnreachable, down, retry=True, sent=False, billed=False)
        where = "in the middle of the reply" if begun else "before the reply"
        return self._failed(SolverUnreachable, f"the connection broke {where} ({error})", retry=True)

    def unconnected(self) -> Failed:
        within = min(self.timeouts.connect_s, self.timeouts.total_s)
        slow = f"no connection within {within:g} s: check {self.names.url} and the network"
        return self._failed(SolverTimeout, slow, retry=True, sent=False, billed=False)

    def late(self) -> Failed:
        """The time of the whole call is up."""
        slow = f"no whole answer within {self.timeouts.total_s:g} s: raise --timeout or lower --max-tokens"
        return self._failed(SolverTimeout, slow, retry=False)

    def paused(self, seconds: float) -> Failed:
        """The circuit breaker is open."""
        left = f"failed again and again, and is not asked for another {seconds:.0f} s"
        return self._failed(SolverUnreachable, left, retry=False, sent=False, billed=False)

    def _failed(self, kind: type[SolverError], what: str, *, retry: bool, **rest: Any) -> Failed:
        """The failure, said without the key, which a server may echo, and without what could steer a terminal."""
        text = "".join(c if c.isprintable() else " " for c in without(self.secrets, what))
        return Failed(kind(f"{self.host}: {text}"), retry, **rest)


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds to wait, from a number or a date; None where it names no time that is to come."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return seconds if seconds >= 0 else None  # false for NaN too
