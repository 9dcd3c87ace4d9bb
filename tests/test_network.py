"""Emulated networks: what a link adds to a call, and what stays as it is without one."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from paced import SLACK, Plan, bench, records, say, server, usage

from edgedc.bench.network import PROFILES, Network, network_of, through
from edgedc.bench.pair import results_from
from edgedc.bench.pair_tables import show
from edgedc.errors import InputError, SolverError, SolverTimeout, SolverUnreachable
from edgedc.solvers.openai import OpenAISolver

LINK = Network("link", rtt_ms=400, down_mbit_s=0.8, up_mbit_s=8)


def test_a_round_trip_and_the_bandwidth_are_added(tmp_path: Path) -> None:
    long = " " * 50_000
    plans = [say(0.1), *2 * [say(0.1), Plan([(0.1, f"The answer is: 1{long}")], usage(1, 1))]]
    with server(lambda k: plans[k]) as made, through(LINK, made.url) as (via,):
        bench(tmp_path, made.url, 5, network=LINK, via=via)
    host = urlsplit(made.url).netloc
    assert {asked["Host"] for asked in made.asked} == {host}
    gone = OpenAISolver("m", made.url, retries=0, via=via)  # the relay is
    with closing(gone), pytest.raises(SolverUnreachable, match=f"{host}: cannot be reached"):
        gone.solve([{"role": "user", "content": "How many?"}], max_tokens=5)
    connected, *others = (record.seconds for record in records(tmp_path))
    kept, big = others[::2], others[1::2]
    # Never sooner than the link allows; once later by less than a round trip, as a machine may be busy.
    assert connected >= 0.4 + 0.4 + 0.1 - 0.01  # one round trip to connect, one for the call
    for taken, seconds in ((kept, 0.4 + 0.1), (big, 0.4 + 0.1 + 0.5)):  # 50 kB at 100 kB/s
        assert seconds - 0.01 <= min(taken) < seconds + 0.39, others
    assert "EMULATED network: link (+400 ms round trip" in show(results_from(saved(tmp_path), tmp_path))


def saved(folder: Path) -> dict[str, object]:
    return json.loads((folder / "bench.json").read_text())


def test_all_connections_share_the_link_and_every_byte_arrives() -> None:
    sent = bytes(random.Random(1).randbytes(60_000))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        heard: dict[int, bytes] = {}

        def listen(number: int) -> None:
            end, _ = listener.accept()
            with end:
                got = b""
                while piece := end.recv(65536):
                    got += piece
                heard[number] = got

        listeners = [threading.Thread(target=listen, args=(k,), daemon=True) for k in range(2)]
        for thread in listeners:
            thread.start()
        slow = Network("slow", rtt_ms=0, down_mbit_s=1, up_mbit_s=1.2)  # 150 kB/s
        with through(slow, f"http://127.0.0.1:{listener.getsockname()[1]}") as (via,):
            port, started = int(str(via).rpartition(":")[2]), time.monotonic()
            ends = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
            for end in ends:
                end.sendall(sent)
                end.shutdown(socket.SHUT_WR)
            for thread in listeners:
                thread.join(10)
            took = time.monotonic() - started
            for end in ends:
                end.close()
    assert heard == {0: sent, 1: sent}
    assert took == pytest.approx(0.8, abs=0.2)


@pytest.mark.skipif(
    not shutil.which("openssl") or sys.platform != "linux", reason="needs openssl and a second loopback address"
)
def test_tls_passes_through_with_its_name_and_its_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, pem = "127.0.0.2", tmp_path / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={host}"),
            *("-addext", f"subjectAltName=IP:{host}", "-keyout", pem, "-out", tmp_path / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    with pem.open("a") as file:
        file.write((tmp_path / "cert.pem").read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    fast = Network("link", rtt_ms=300, down_mbit_s=100, up_mbit_s=100)
    with server(lambda k: say(0.0), tls=(pem, host)) as made, through(fast, made.url) as (via,):
        assert via is None
        bench(tmp_path, made.url, 2, network=fast)
        (asked, _), port = made.asked, made.url.rpartition(":")[2].partition("/")[0]
    connected, kept = (record.seconds for record in records(tmp_path))
    assert asked["Host"] == f"{host}:{port}"
    assert kept == pytest.approx(0.3, abs=SLACK)
    assert connected >= 0.3 * 3  # to connect, TLS 1.3's one round trip, and the call


def unreached(url: str, via: str | None = None) -> tuple[str, SolverError]:
    """What is said of a server that is not there."""
    with closing(OpenAISolver("m", url, retries=0, via=via, timeout_s=20)) as solver:
        with pytest.raises(SolverError) as caught:
            solver.solve([{"role": "user", "content": "How many?"}], max_tokens=5)
        return str(caught.value), caught.value


@pytest.mark.parametrize("where", ["127.0.0.1:{dead}", "no-such-host.invalid"])
def test_a_server_that_is_down_is_told_as_without_a_network(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = taken.getsockname()[1]
    url = f"http://{where.format(dead=dead)}/v1"
    alone, _ = unreached(url)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # who would not reach a relay on this machine
    with through(Network("link", 20, 50, 50), url) as (via,):
        said, error = unreached(url, via)
    assert said == alone
    assert "cannot be reached ([Errno" in said
    assert (type(error), error.bytes_sent, error.doubtful) == (SolverUnreachable, 0, 0)


def test_a_server_that_does_not_accept_is_told_as_without_a_network() -> None:
    with socket.socket() as full, socket.socket() as first:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())  # the next one waits
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        with (
            through(Network("link", 20, 50, 50), url) as (via,),
            closing(OpenAISolver("m", url, retries=0, via=via, connect_s=0.5)) as solver,
            pytest.raises(SolverTimeout, match=r"no connection within 0\.5 s") as caught,
        ):
            solver.solve([{"role": "user", "content": "How many?"}], max_tokens=5)
    assert (caught.value.bytes_sent, caught.value.doubtful) == (0, 0)


def test_a_server_that_is_down_behind_tls_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    url = "https://no-such-host.invalid/v1"
    with through(Network("link", 20, 50, 50), url):
        said, error = unreached(url)
    assert said.startswith("no-such-host.invalid: cannot be reached (502 [Errno ")
    assert error.doubtful == 0


@pytest.mark.parametrize("url", ["http://x:port/v1", "http://x:99999/v1", "https://[::1/v1", "nowhere"])
def test_a_url_that_is_none_is_left_to_whoever_opens_it(url: str) -> None:
    with through(LINK, url) as (via,), pytest.raises(InputError, match="--solver-url"):
        OpenAISolver("m", url, via=via)


def test_what_cannot_be_put_between_is_refused() -> None:
    with pytest.raises(InputError, match="http for a server on this machine"), through(LINK, "https://localhost:1/v1"):
        pass


def test_a_proxy_of_the_environments_lies_behind_the_network_and_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    asked = b"CONNECT solver.example:443 HTTP/1.1\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        own = f"http://user:word@127.0.0.1:{proxy.getsockname()[1]}"
        monkeypatch.setenv("https_proxy", own)
        with through(Network("link", 20, 50, 50), "https://solver.example/v1") as vias:
            assert vias == [None]
            named = urlsplit(os.environ["https_proxy"])
            assert os.environ["HTTPS_PROXY"] == named.geturl() != own
            assert (named.username, named.password, os.environ["no_proxy"]) == ("user", "word", "")
            with socket.create_connection((named.hostname, named.port)) as client:
                client.sendall(asked)
                client.shutdown(socket.SHUT_WR)
                with proxy.accept()[0] as end, end.makefile("rb") as heard:
                    assert heard.read() == asked
                    end.sendall(b"HTTP/1.1 407 Who are you?\r\n\r\n")
                assert client.makefile("rb").read() == b"HTTP/1.1 407 Who are you?\r\n\r\n"
    assert os.environ["https_proxy"] == own
    assert not {"HTTPS_PROXY", "no_proxy", "NO_PROXY"} & os.environ.keys()


def test_proxies_that_cannot_lie_behind_the_network_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = "https://near.example/v1", "https://far.example/v1"
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "near.example")
    with pytest.raises(InputError, match="measure them apart"), through(LINK, near, far):
        pass
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(InputError, match=r"far\.example is behind a proxy that is not http"), through(LINK, far):
        pass
    with through(LINK, near):  # no proxy is asked for it
        pass


def test_a_network_is_a_profile_or_a_file(tmp_path: Path) -> None:
    assert network_of("4g") is PROFILES["4g"]
    toml, text = tmp_path / "train.toml", "rtt_ms = 90\ndown_mbit_s = 3\nup_mbit_s = 0.5\n"
    toml.write_text(text)
    row = {"rtt_ms": 90, "down_mbit_s": 3, "up_mbit_s": 0.5}
    (tmp_path / "train.json").write_text(json.dumps(row))
    assert network_of(str(toml)) == Network("train", 90, 3, 0.5, "train.toml")
    assert network_of(str(tmp_path / "train.json")).rtt_ms == 90
    for bad, says in (
        ("rtt_ms = -1", "rtt_ms is -1"),
        ("rtt_ms = true", "rtt_ms is True"),
        ("rtt_ms = 1e6", "rtt_ms is 1000000.0"),
        ("rtt_ms = 90\ndown_mbit_s = 0", "down_mbit_s is 0"),
        ("rtt_ms = 90\ndown_mbit_s = 3", "up_mbit_s is None"),
        ("loss = 1", "loss: give rtt_ms"),
        ("rtt_ms = ", "not TOML"),
    ):
        toml.write_text(bad)
        with pytest.raises(InputError, match=says):
            network_of(str(toml))
    with pytest.raises(InputError, match="give 4g, wifi, satellite or a TOML or JSON file"):
        network_of("5g")
