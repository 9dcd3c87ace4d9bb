"""One request to a chat completion endpoint, which ends in time."""

import base64
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from queue import Empty, SimpleQueue
from urllib.parse import unquote, urlsplit

import httpx

from edgedc.errors import InputError
from edgedc.generation import OnText
from edgedc.solvers import SIMULATED
from edgedc.solvers.failures import Failed, Failures, Names, Timeouts
from edgedc.solvers.speech import Speech, secrets_of
from edgedc.solvers.stream import BrokenOff, Reply, is_stream, opening, read_error, read_stream, read_whole
from edgedc.solvers.wire import Line, Lines

# Hears, in any thread, that a request is about to leave: from then on the server may bill it.
OnSending = Callable[[], None]

# How long a reply that is whole waits for its usage, and a connection for its next use.
_LAST_WORDS_S = 1.0
_IDLE_S = 30.0
# No socket waits for ever, as `--timeout inf` would have it.
_LONGEST_SILENCE_S = 86_400.0
# Codings that some servers use unasked. They make at most about a thousand bytes of one; others, and several in a row,
# make millions, which httpx would hold at once.
_BOUNDED = ("gzip", "deflate")


@dataclass
class _Progress:
    """How far a request has come, as its thread says; `whole` is a reply that lacks at most its usage.

    Only the outcome wakes whoever waits for it: the rest is looked at now and then.
    """

    on_sending: OnSending
    outcome: SimpleQueue[Reply | Failed | BaseException] = field(default_factory=SimpleQueue)
    sent: bool = False
    whole: Reply | None = None

    def sending(self) -> None:
        self.on_sending()
        self.sent = True

    def is_whole(self, reply: Reply) -> None:
        self.whole = reply


class Endpoint:
    """A server's `/chat/completions`, to be used from any number of threads.

    `names` are for errors; no error, and neither `host` nor `url`, holds the key. `via` is where to connect to in the
    place of a server behind http, HOST:PORT. `simulated` is True once the server has said that it is a simulation.
    Raises InputError for a URL or a key that cannot be one, and for proxies or certificates of the environment's that
    cannot be used.
    """

    def __init__(
        self, base_url: str, api_key: str | None, *, timeouts: Timeouts, names: Names, via: str | None = None
    ) -> None:
        try:
            parts = urlsplit(base_url)
            host = parts.hostname if parts.port != 0 else None  # a port that is none raises
            httpx.URL(base_url).raw_host.decode().encode("idna")  # as the search for a name has it
        except (ValueError, httpx.InvalidURL):  # a UnicodeError is one
            parts, host = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not host:
            raise InputError(f"the server's URL is not of the form http(s)://HOST[:PORT]/v1: check {names.url}")
        if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise InputError("the server's key holds white space or other characters that no key has: check it")
        self.host = parts.netloc.rpartition("@")[2]
        self.url = parts._replace(netloc=self.host, query=_plain(parts.query), fragment="").geturl()
        self.simulated = False
        path = parts.path.rstrip("/") + "/chat/completions"
        self._relayed = via is not None
        self._url = parts._replace(netloc=via or self.host, path=path, fragment="").geturl()
        self._timeouts = timeouts
        # A name and password leave the URL for a header: httpx writes URLs to its log.
        login = (unquote(parts.username or ""), unquote(parts.password or "")) if parts.username else None
        self._secrets = secrets_of(api_key, parts.password, *_in_login(login), *_in_query(parts.query))
        self.failures = Failures(self.host, names, timeouts, self._secrets)
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        headers |= {"Host": self.host} if via else {}
        # A proxy named in the environment must not get what is meant for this machine.
        loopback = via is not None or host in ("localhost", "127.0.0.1", "::1")
        limits = httpx.Limits(max_connections=1, keepalive_expiry=_IDLE_S)
        tls = _certificates()  # takes a while, so that all clients share it
        try:
            self._lines = Lines(
                lambda: httpx.Client(headers=headers, auth=login, verify=tls, trust_env=not loopback, limits=limits)
            )
        except ImportError:  # httpx's own extra for it
            raise InputError("a SOCKS proxy is named in the environment: run  pip install 'httpx[socks]'") from None
        except (ValueError, httpx.InvalidURL):  # its words may hold a piece of the proxy's password
            raise InputError(
                "the environment names a proxy that cannot be one: check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY"
            ) from None

    def close(self) -> None:
        self._lines.close()

    def attempt(self, body: bytes, deadline: float, on_text: OnText | None, on_sending: OnSending) -> Reply | Failed:
        """One request, until `deadline` of time.monotonic. Raises what `on_text` and `on_sending` raise.

        A reply that is whole but wrong would be as wrong again, and is not to be retried; nor is one of which something
        has been heard, as that cannot be taken back.
        """
        line, speech, progress = self._lines.take(), Speech(on_text, self._secrets), _Progress(on_sending)
        turn = line.turn
        work = partial(self._work, line, body, deadline, speech, progress)
        threading.Thread(target=work, name="edgedc-call", daemon=True).start()
        outcome: Reply | Failed | BaseException | None = None
        try:
            outcome = self._outcome(progress, deadline, speech)
        finally:
            if outcome is None:
                speech.hush()
                line.cut(turn)
        if outcome is None:  # only now is it certain whether the request has begun to leave
            outcome = progress.whole or (self.failures.late() if progress.sent else self.failures.unconnected())
        if isinstance(outcome, BaseException):
            raise speech.trouble or outcome
        return replace(outcome, retry=False) if isinstance(outcome, Failed) and speech.heard else outcome

    def _outcome(self, progress: _Progress, deadline: float, speech: Speech) -> Reply | Failed | BaseException | None:
        """What the request's thread says of it; None when its time is up."""
        # The search for the name has what the connection and TLS leave of their time.
        connected_by = min(deadline, time.monotonic() + 2 * self._timeouts.connect_s)
        while True:
            waiting = bool(progress.whole)
            until = deadline if progress.sent else connected_by
            with suppress(Empty):
                return progress.outcome.get(timeout=max(0.0, min(_LAST_WORDS_S, until - time.monotonic())))
            if waiting or time.monotonic() >= (deadline if progress.sent else connected_by):
                return None
            speech.pulse()

    def _work(self, line: Line, body: bytes, deadline: float, speech: Speech, progress: _Progress) -> None:
        """In a thread of its own."""
        silence = max(0.001, min(self._timeouts.read_s, deadline - time.monotonic(), _LONGEST_SILENCE_S))
        timeout = httpx.Timeout(silence, connect=min(self._timeouts.connect_s, silence))
        try:
            with line.client.stream(
                "POST",
                self._url,
                content=body,
                headers={"Content-Type": "application/json"},
                timeout=timeout,
                extensions={"trace": line.trace(progress.sending, relayed=self._relayed)},
            ) as response:
                rest = self._read(response, speech, progress)
                with suppress(httpx.HTTPError):
                    next(rest, None)  # a body read to its end leaves the connection fit for the next call
        except httpx.RequestError as error:
            progress.outcome.put(self.failures.broken(error, sent=progress.sent, begun=False))
        except BaseException as error:
            progress.outcome.put(error)
        finally:
            self._lines.give_back(line)

    def _read(self, response: httpx.Response, speech: Speech, progress: _Progress) -> Iterator[bytes]:
        """Tell what comes of a response; returns what is left of its body."""
        put = progress.outcome.put
        broken: list[httpx.RequestError] = []
        begun = False

        def chunks() -> Iterator[bytes]:
            """A reply may be whole before its connection breaks: whoever reads decides, from what has come."""
            nonlocal begun
            try:
                for chunk in response.iter_bytes():
                    begun = True
                    yield chunk
            except httpx.RequestError as error:
                broken.append(error)

        coding = response.headers.get("content-encoding", "").strip().lower()
        plain = coding in ("", "identity", *_BOUNDED)
        rest = chunks() if plain else iter(())
        self.simulated = self.simulated or response.headers.get(SIMULATED) == "true"
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if response.status_code != 200:
                put(self.failures.refused(response, read_error(rest)))
            elif not plain:
                put(self.failures.wrong(f"answers in the coding {coding[:60]}, though it was asked for none"))
            else:
                start = opening(rest)
                body, streamed = chain((start,), rest), is_stream(start, kind)
                if streamed is None and not broken:
                    what, where = kind[:60] or "no content type", self.failures.names.url
                    put(self.failures.wrong(f"answers with {what}, not with a chat completion: check {where}"))
                elif streamed:
                    put(read_stream(body, speech, progress.is_whole))
                else:
                    put(read_whole(body, speech))
        except ValueError as error:
            if broken:
                put(self.failures.broken(broken[0], sent=True, begun=begun))
            else:
                # A connection without a length breaks like this: its end is all that comes.
                put(self.failures.wrong(f"not a chat completion: {error}", retry=isinstance(error, BrokenOff)))
        return rest


def _certificates() -> ssl.SSLContext:
    """The authorities that servers are checked by: the environment's, else certifi's."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # an SSLError is one
        raise InputError(
            f"the certificates that the environment names cannot be read ({error.strerror or error}): check "
            "SSL_CERT_FILE and SSL_CERT_DIR"
        ) from error


def _in_login(login: tuple[str, str] | None) -> Iterator[str]:
    """What a server could echo of it: the password, and the header's value."""
    if login:
        yield login[1]
        yield base64.b64encode(":".join(login).encode()).decode()


def _is_plain(part: str) -> bool:
    """Any part of a query may be a key; but Azure's version is told by name."""
    return part.startswith("api-version=")


def _plain(query: str) -> str:
    """What of a query may be shown and kept, for who asks there again."""
    return "&".join(part for part in query.split("&") if _is_plain(part))


def _in_query(query: str) -> Iterator[str]:
    """Its values that may be keys, as they stand and as they are meant."""
    for part in query.split("&"):
        if not _is_plain(part):
            value = part.partition("=")[2]
            yield value
            yield unquote(value)
