"""Run the endpoint: its socket, patience with slow clients, and an orderly end."""

import asyncio
import signal
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgedc.errors import InputError
from edgedc.server.work import Workers

# How long a connection may lie idle between requests: longer than clients keep theirs, which is 5 s with OpenAI's, or
# one that they take up again would be closed under their hands.
_KEEP_ALIVE_S = 75

# How much of a request is read and thrown away after the reply to it, which may have refused the request half-way.
_MOST_UNREAD = 64_000_000  # bytes


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises InputError for an address that cannot be used."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise InputError(f"{host}:{port} cannot be used ({error}): give another --host or --port") from error


def url_of(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def serve(server: "Server", listener: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what has been begun; a second Ctrl-C drops it.

    Returns after SIGTERM; raises KeyboardInterrupt after Ctrl-C.
    """
    before = signal.signal(signal.SIGTERM, _nothing)  # uvicorn raises the signal again when it is done
    try:
        server.run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
    if server.dropped:
        raise KeyboardInterrupt


class Server(uvicorn.Server):
    """`on_stop` hears what becomes of the questions that are begun, and `dropped` says whether they were not finished.

    See _Connection for `patience_s`.
    """

    def __init__(
        self, app: ASGIApp, workers: Workers, *, on_stop: Callable[[str], None], patience_s: float = 20.0
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=partial(_Connection, patience_s),  # type: ignore[arg-type]
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE_S,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        super().__init__(config)
        self.dropped = False
        self._workers, self._on_stop = workers, on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        begun = self._workers.running + self._workers.waiting
        questions = f"{begun} question{'s' * (begun != 1)}"
        if sig == signal.SIGINT and self.should_exit:
            self.dropped = True
            asyncio.get_running_loop().call_soon_threadsafe(self._drop)
            self._on_stop(f"dropping {questions}")
        else:
            super().handle_exit(sig, frame)
            if begun:
                self._on_stop(f"finishing {questions}; Ctrl-C drops what is left")

    def _drop(self) -> None:
        """With nothing begun any more, uvicorn ends."""
        self._workers.drop()
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class _Connection(H11Protocol):
    """Hangs up on a client that takes longer than `patience_s` to send a request whole, or to read what is sent.

    uvicorn would wait for ever. A client that is still sending when its request is refused gets the same time, for
    _MOST_UNREAD bytes: see _Lingering.
    """

    def __init__(self, patience_s: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience_s, self._idle = patience_s, False
        self._unread = 0  # bytes of a request that came after the reply to it
        self._sending: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _Lingering(transport, self._still_sending)))
        self._expect_request(self._patience_s)

    def data_received(self, data: bytes) -> None:
        if self._idle:
            self._idle = False
            self._expect_request(self._patience_s)
        if self.cycle is None or self.cycle.response_complete:
            self._unread += len(data)
        if self._unread > _MOST_UNREAD:
            self.transport.abort()
        elif not self.transport.is_closing():
            super().data_received(data)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unread, self._idle = 0, not self._still_sending()
        self._expect_request(self._patience_s + _KEEP_ALIVE_S * self._idle)
        if self.transport.is_closing():
            self.flow.resume_reading()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self.transport.close()  # at once: the end of the server does not wait for who is refused

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading = self.loop.call_later(self._patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._reading)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        _cancel(self._sending)
        _cancel(self._reading)

    def _still_sending(self) -> bool:
        """Whether a request has begun and is not whole, or was no HTTP, so that nobody knows where it ends."""
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    def _expect_request(self, within_s: float) -> None:
        _cancel(self._sending)
        self._sending = self.loop.call_later(within_s, self._end_patience)

    def _end_patience(self) -> None:
        """Unless the request is here whole, and is being answered."""
        if self.cycle is None or self.cycle.more_body or self.cycle.response_complete:
            self.transport.abort()


class _Lingering:
    """A transport that closes only its own direction at first, while a client is `sending`.

    Closed with bytes of the client's unread, a socket is reset, and the client loses the reply that was on its way to
    it (RFC 9112, section 9.6). What still comes is to be thrown away. The client's end, or a second `close`, closes it.
    """

    def __init__(self, transport: asyncio.Transport, sending: Callable[[], bool]) -> None:
        self._transport, self._sending, self._half = transport, sending, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._half or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing() or not self._sending():
            self._transport.close()
        else:
            self._half = True
            self._transport.write_eof()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer:
        timer.cancel()


def _nothing(*_: Any) -> None: ...
