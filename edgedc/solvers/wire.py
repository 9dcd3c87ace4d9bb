"""Connections to one server that another thread can cut.

httpx limits how long a connection, or a silence, may last, but not a request as a whole: not the search for a name, and
not a server that sends the head of its reply a byte a minute. So a request runs in a thread of its own, whose socket is
shut when its time is up.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx


class Line:
    """A client with at most one connection. `turn` counts who has it, so that nobody cuts a successor's call."""

    def __init__(self, client: httpx.Client) -> None:
        self.client, self.turn, self.dead = client, 0, False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def trace(self, sending: Callable[[], None], *, relayed: bool) -> Callable[[str, dict[str, Any]], None]:
        """For httpx's `trace` extension. `sending` is called when the request begins to leave, but never once the line
        has been cut. `relayed`: the connection is one to a relay, see `_reached`."""

        def hear(event: str, info: dict[str, Any]) -> None:
            if event.endswith(("connect_tcp.complete", "start_tls.complete")):
                end = info["return_value"].get_extra_info("socket")
                with self._lock:
                    self._socket = end
                    if self.dead:
                        self._shut()
                if relayed:
                    _reached(end)
            elif event.endswith("send_request_headers.started") and info["request"].method == b"POST":
                with self._lock:
                    if self.dead:
                        raise httpx.ConnectError("cut before anything was sent")
                    sending()

        return hear

    def cut(self, turn: int) -> None:
        """End whatever this turn does."""
        with self._lock:
            if self.turn == turn:
                self.dead = True
                self._shut()

    def next_turn(self) -> bool:
        """False when the line is dead."""
        with self._lock:
            self.turn += 1
            return not self.dead

    def _shut(self) -> None:
        if self._socket:
            with suppress(OSError, ValueError):
                # Not SSLSocket's own, which takes the TLS layer from under a thread that reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _reached(relay: socket.socket) -> None:
    """Wait for the line with which a relay says that it has reached the server, an empty one, or why it cannot.

    Without it a server that is down would look like one that has taken the request and then fallen silent. Raises what
    httpx would have raised at the server itself.
    """
    said = b""
    try:
        while not said.endswith(b"\n"):
            if not (piece := relay.recv(512)):
                raise ConnectionResetError("the relay has closed the connection")
            said += piece
        if reason := said.decode("utf-8", "replace").strip():
            raise ConnectionRefusedError(reason)
    except OSError as error:
        relay.close()  # httpx does not know it yet
        # How long it may take httpx has set: as long as to connect.
        kind = httpx.ConnectTimeout if isinstance(error, TimeoutError) else httpx.ConnectError
        raise kind(str(error)) from error


class Lines:
    """As many lines as there are calls at the same time; they are kept for the next ones.

    The first is there from the start, so that what `make` raises is raised before anything is asked.
    """

    def __init__(self, make: Callable[[], httpx.Client]) -> None:
        self._make = make
        self._idle = [Line(make())]
        self._closed = False
        self._lock = threading.Lock()

    def take(self) -> Line:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Line(self._make())

    def give_back(self, line: Line) -> None:
        alive = line.next_turn()
        with self._lock:
            if alive and not self._closed:
                self._idle.append(line)
                return
        line.client.close()

    def close(self) -> None:
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
        for line in idle:
            line.client.close()
