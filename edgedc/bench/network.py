"""An emulated network between the bench and the solver: added delay, and limited bandwidth in each direction.

Connections go through a relay on this machine that holds every byte back for half a round trip and lets no more through
than the link carries; all connections share the link. It adds to the path that there really is. It opens a connection
one round trip late, as TCP's handshake would, and says why where it cannot; it has no packet loss, no slow start and no
jitter, so that a real network of that kind is slower rather than faster. TLS passes through unread: a server behind
https is reached by CONNECT, for which the relay is named as the proxy of this process, and so its name and its
certificate stay its own.
"""

import os
import socket
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from queue import Queue
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from edgedc.errors import InputError
from edgedc.files import read_object, read_text

_PIECE = 4096  # bytes that pass as one: 3.6 ms on the slowest link below
_WAITING = 4096  # pieces between the ends; more than that is left to TCP
_CONNECT_S = 30.0
_LONGEST_HEAD = 2**16


@dataclass(frozen=True)
class Network:
    """A link: the round trip that it adds, and megabits a second to this device and from it."""

    name: str
    rtt_ms: float
    down_mbit_s: float
    up_mbit_s: float
    source: str = ""

    def __str__(self) -> str:
        said = f"+{self.rtt_ms:g} ms round trip, {self.down_mbit_s:g} Mbit/s down, {self.up_mbit_s:g} up"
        return f"{self.name} ({said}{f'; {self.source}' if self.source else ''})"


PROFILES = {
    # github.com/WPO-Foundation/webpagetest, www/settings/connectivity.ini.sample
    "4g": Network("4g", 170, 9, 9, "WebPageTest's profile 4G"),
    # firefox-source-docs.mozilla.org, Network Monitor, Throttling
    "wifi": Network("wifi", 2, 30, 15, "Firefox's throttling profile Wi-Fi"),
    # Light takes 477 ms for 4 x 35,786 km; the rest, and the bandwidths, are round figures.
    "satellite": Network("satellite", 600, 25, 3, "assumed for a geostationary one"),
}


def network_of(name: str) -> Network:
    """One of PROFILES, or a TOML or JSON file with `rtt_ms`, `down_mbit_s`, `up_mbit_s` and, if need be, `source`.

    Raises InputError when it is neither.
    """
    if name in PROFILES:
        return PROFILES[name]
    path = Path(name)
    if not path.is_file():
        raise InputError(f"--network {name}: give {', '.join(PROFILES)} or a TOML or JSON file")
    if path.suffix.lower() == ".toml":
        try:
            row = tomllib.loads(read_text(path))
        except ValueError as error:
            raise InputError(f"{path}: not TOML: {error}") from error
    else:
        row = read_object(path)
    numbers = {"rtt_ms": 0.0, "down_mbit_s": 0.001, "up_mbit_s": 0.001}
    if unknown := row.keys() - {f.name for f in fields(Network)}:
        raise InputError(f"{path}: {', '.join(sorted(unknown))}: give {', '.join(numbers)} and, if need be, source")
    for key, least in numbers.items():
        value = row.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < 1e6:
            raise InputError(f"{path}: {key} is {value!r}: give a number, at least {least:g}")
    rtt, down, up = (float(row[key]) for key in numbers)
    return Network(path.stem, rtt, down, up, str(row.get("source", "")) or path.name)


@contextmanager
def through(network: Network | None, *urls: str) -> Iterator[list[str | None]]:
    """Where to connect to for each of these servers, so that the network lies between: HOST:PORT, None for the server.

    Raises InputError where it cannot be put between: an https server on this machine, or behind a proxy of another kind
    than http.
    """
    with ExitStack() as stack:
        if network is None:
            yield [None] * len(urls)
            return
        link = _Link(network)
        made: dict[str, str | None] = {}
        for url in dict.fromkeys(urls):
            scheme, host, port = _server_of(url)
            if scheme == "https" and host in ("localhost", "127.0.0.1", "::1"):
                raise InputError(f"https://{host}: --network needs http for a server on this machine")
            if scheme == "http":
                made[url] = f"127.0.0.1:{stack.enter_context(_relay(link, (host, port), _to_solver))}"
            else:
                made[url] = None
        if secure := [url for url in made if _server_of(url)[0] == "https"]:
            upstreams = {url: _proxy_of(url) for url in secure}
            if len(set(upstreams.values())) > 1:
                raise InputError("--network: some servers are behind a proxy and some are not; measure them apart")
            upstream = upstreams[secure[0]]
            proxy = urlsplit(upstream) if upstream else None
            target = (proxy.hostname or "", proxy.port or 80) if proxy else None
            # A proxy behind the relay answers a CONNECT by itself.
            told = (lambda _: b"") if target else _to_client_of_proxy
            port = stack.enter_context(_relay(link, target, told))
            login, at, _ = proxy.netloc.rpartition("@") if proxy else ("", "", "")
            stack.enter_context(_environment(https_proxy=f"http://{login}{at}127.0.0.1:{port}", no_proxy=""))
        yield [made[url] for url in urls]


def _server_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port; the scheme is "" for what is not a server's: whoever opens it says so."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", "", 0
    known = parts.scheme in ("http", "https") and parts.hostname
    return (parts.scheme, parts.hostname or "", port) if known else ("", "", 0)


def _proxy_of(url: str) -> str:
    """The proxy that this process would take for it; "" for none."""
    host = urlsplit(url).hostname or ""
    proxies = getproxies()
    proxy = "" if proxy_bypass(host) else proxies.get("https") or proxies.get("all") or ""
    if proxy and urlsplit(proxy).scheme != "http":
        raise InputError(f"--network: {host} is behind a proxy that is not http: it cannot be put between")
    return proxy


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Variables of this process while the block runs, in both spellings."""
    names = [spelt for name in values for spelt in (name, name.upper())]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: values[name.lower()] for name in names})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Way:
    """One direction of the link. A piece is sent when those before it are, and arrives half a round trip later."""

    def __init__(self, delay_s: float, mbit_s: float) -> None:
        self._delay_s, self._per_byte_s = delay_s, 8 / (mbit_s * 1e6)
        self._free, self._lock = 0.0, threading.Lock()

    def arrives(self, size: int) -> float:
        """When a piece that is sent now is there, of time.monotonic."""
        with self._lock:
            self._free = max(self._free, time.monotonic()) + size * self._per_byte_s
            return self._free + self._delay_s


class _Link:
    def __init__(self, network: Network) -> None:
        self.rtt_s = network.rtt_ms / 1000
        self.up = _Way(self.rtt_s / 2, network.up_mbit_s)
        self.down = _Way(self.rtt_s / 2, network.down_mbit_s)


@dataclass
class _Ends:
    """The sockets that are open, so that they can be closed at the end."""

    open: set[socket.socket] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: bool = False

    def add(self, end: socket.socket) -> None:
        with self.lock:
            self.open.add(end)
            if self.over:
                _shut(end)

    def remove(self, end: socket.socket) -> None:
        with self.lock:
            self.open.discard(end)
        end.close()

    def close(self) -> None:
        with self.lock:
            self.over = True
            for end in self.open:
                _shut(end)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _to_solver(error: OSError | None) -> bytes:
    """What edgedc/solvers/wire.py waits for: a line, empty or with the reason."""
    return f"{error or ''}\n".encode()


def _to_client_of_proxy(error: OSError | None) -> bytes:
    """The reply to its CONNECT (RFC 9110, 9.3.6)."""
    status = f"502 {error}" if error else "200 Connection established"
    return f"HTTP/1.1 {status}\r\n\r\n".encode()


@contextmanager
def _relay(link: _Link, target: tuple[str, int] | None, told: Callable[[OSError | None], bytes]) -> Iterator[int]:
    """A port of this machine that leads over the link to `target`; without one, to where an HTTP CONNECT asks.

    Whoever connects is `told` first what came of the connection to there.
    """
    ends = _Ends()
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:

        def listen() -> None:
            with suppress(OSError):  # closed
                while True:
                    near, _ = listener.accept()
                    ends.add(near)
                    threading.Thread(target=serve, args=(near,), name="edgedc-relay", daemon=True).start()

        def serve(near: socket.socket) -> None:
            try:
                where = target or _asked(near)
                try:
                    far = socket.create_connection(where, timeout=_CONNECT_S)
                except OSError as error:
                    time.sleep(link.rtt_s)
                    near.sendall(told(error))
                    return
                with far:
                    far.settimeout(None)
                    time.sleep(link.rtt_s)
                    near.sendall(told(None))
                    ends.add(far)
                    _exchange(near, far, link)
                    ends.remove(far)
            except (OSError, ValueError):
                pass  # whoever connected sees the connection end
            finally:
                ends.remove(near)

        thread = threading.Thread(target=listen, name="edgedc-relay", daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            _shut(listener)
            ends.close()
            thread.join(1.0)


def _asked(near: socket.socket) -> tuple[str, int]:
    """Where a CONNECT request leads (RFC 9110, 9.3.6). Raises ValueError for anything else."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = near.recv(1)  # no further than its end: what follows is not ours
        if not byte or len(head) > _LONGEST_HEAD:
            raise ValueError("no CONNECT")
        head += byte
    method, _, rest = head.decode("latin-1").partition(" ")
    host, _, port = rest.partition(" ")[0].rpartition(":")
    if method != "CONNECT":
        raise ValueError(f"{method} instead of CONNECT")
    return host.strip("[]"), int(port)


def _exchange(near: socket.socket, far: socket.socket, link: _Link) -> None:
    """Until both sides have ended."""
    ways = ((near, far, link.up), (far, near, link.down))
    pumps = [threading.Thread(target=_pump, args=way, name="edgedc-relay", daemon=True) for way in ways]
    for pump in pumps:
        pump.start()
    for pump in pumps:
        pump.join()


def _pump(source: socket.socket, sink: socket.socket, way: _Way) -> None:
    for end in (source, sink):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # small pieces must not wait for one another
    pieces: Queue[tuple[float, bytes]] = Queue(_WAITING)

    def read() -> None:
        piece = b"more"
        while piece:
            try:
                piece = source.recv(_PIECE)
            except OSError:
                piece = b""
            pieces.put((way.arrives(len(piece)), piece))

    threading.Thread(target=read, name="edgedc-relay", daemon=True).start()
    working = True
    while True:
        due, piece = pieces.get()
        time.sleep(max(0.0, due - time.monotonic()))
        if not piece:
            break
        if working:
            try:
                sink.sendall(piece)
            except OSError:  # gone: the other side hears of it by its own end
                working = False
                _shut(source)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
