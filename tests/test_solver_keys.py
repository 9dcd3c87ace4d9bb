"""Addresses, keys and passwords of servers: which are used, and that none is shown."""

import re
import socket
import sys
import traceback
from contextlib import closing

import pytest
from wire import ASKED, GOOD, KEY, error, http, server, solver_at

from edgedc.errors import InputError, SolverReply, SolverUnreachable
from edgedc.solvers import SIMULATED_MODEL
from edgedc.solvers.openai import DECOMPOSER_KEY, KEYS, OpenAISolver, decomposer_keys, open_solver
from edgedc.solvers.scripted import ScriptedSolver


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:1/v1",
        "ftp://x/v1",
        "http://",
        "http://x:port/v1",
        "http://127.0.0.1:99999/v1",
        "http://127.0.0.1:0/v1",
        "http://[::1/v1",
        "http://a..b/v1",
        f"http://{'a' * 64}.com/v1",
        "http://x/\x01",
    ],
)
def test_a_bad_url_is_the_users_mistake(url: str) -> None:
    with pytest.raises(InputError, match="--solver-url"):
        OpenAISolver("m", url)


@pytest.mark.parametrize("key", ["sk-abc\n", "sk abc", "sk-\xe9"])
def test_a_key_that_cannot_be_sent_is_not_repeated(key: str) -> None:
    with pytest.raises(InputError, match="the server's key") as caught:
        OpenAISolver("m", "http://127.0.0.1:1/v1", key)
    assert "sk" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("all_proxy", f"socks5://user:{KEY}@127.0.0.1:1080", "pip install 'httpx[socks]'"),
        ("http_proxy", f"ftp://user:{KEY}@127.0.0.1:1080", "HTTP_PROXY"),
        ("http_proxy", f"http://user:{KEY}/x@127.0.0.1:1080", "HTTP_PROXY"),
        ("no_proxy", "[::1],.example", "NO_PROXY"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "SSL_CERT_FILE"),
        ("SSL_CERT_FILE", __file__, "SSL_CERT_FILE"),
    ],
)
def test_what_the_environment_has_wrong_is_one_line_before_anything_is_asked(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        OpenAISolver("m", "https://solver.example/v1", KEY)
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_proxy_of_the_environment_s_does_not_get_what_is_meant_for_this_machine(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        with solver_at(f"http://{host}:1/v1") as solver, pytest.raises(SolverUnreachable, match="cannot be reached"):
            solver.solve(ASKED, max_tokens=10)
        proxy.settimeout(0)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_a_password_in_the_url_is_never_shown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with solver_at(f"http://user:{KEY}@127.0.0.1:{port}/v1") as solver:
        with pytest.raises(SolverUnreachable) as caught:
            solver.solve(ASKED, max_tokens=10)
        assert KEY not in str(caught.value) + solver.url + solver.host


@pytest.mark.parametrize("echoed", ["a%20planted%20password", "a planted password", "dTphIHBsYW50ZWQgcGFzc3dvcmQ="])
def test_a_login_that_the_server_echoes_is_not_in_the_error(echoed: str) -> None:
    with server(error("401 Unauthorized", f"who is {echoed}?")) as made:
        url = made.url.replace("//", "//u:a%20planted%20password@")
        with solver_at(url) as solver, pytest.raises(SolverReply, match=r"who is \*\*\*\?"):
            solver.solve(ASKED, max_tokens=10)
        assert "\r\nAuthorization: Basic dTphIHBsYW50ZWQgcGFzc3dvcmQ=\r\n" in made.requests[0][0]


@pytest.mark.parametrize("echoed", ["another%20planted=key", "another planted=key"])
def test_a_key_in_the_query_that_the_server_echoes_is_not_in_the_error(echoed: str) -> None:
    with server(error("404 Not Found", f"no path /?key={echoed}&api-version=2024-02-15-preview")) as made:
        with (
            solver_at(f"{made.url}?key=another%20planted=key&api-version=2024-02-15-preview") as solver,
            pytest.raises(SolverReply, match=r"/\?key=\*\*\*&api-version=2024-02-15-preview"),
        ):
            solver.solve(ASKED, max_tokens=10)
        assert "POST /v1/chat/completions?key=another%20planted=key&" in made.requests[0][0]


def test_azure_s_version_stays_in_the_url_that_is_kept_and_a_key_does_not() -> None:
    for query in (f"key={KEY}&api-version=2024-02-15-preview", f"api-version=2024-02-15-preview&{KEY}"):
        with solver_at(f"http://127.0.0.1:1/v1?{query}#{KEY}") as solver:
            assert solver.url == "http://127.0.0.1:1/v1?api-version=2024-02-15-preview"


def test_the_environment_names_server_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGEDC_API_KEY", "OPENAI_API_KEY", "EDGEDC_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="EDGEDC_API_KEY"):
        open_solver("m")
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    monkeypatch.setenv("EDGEDC_API_KEY", f"{KEY}\n")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/wrong")
    with server(GOOD) as made:
        monkeypatch.setenv("EDGEDC_BASE_URL", f"{made.url}/")
        solver = open_solver("m")
        solver.solve(ASKED, max_tokens=10)
        solver.close()
        assert made.requests[0][0].startswith("POST /v1/chat/completions ")
        assert f"Bearer {KEY}\r\n" in made.requests[0][0]


def test_a_server_of_one_s_own_needs_no_key_and_the_first_that_is_named_is_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("EDGEDC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", " http://third:1/v1\n")
    for url, mine, meant in (
        (" http://first:1/v1 ", "http://second:1/v1", "http://first:1/v1"),
        ("", "http://second:1/v1", "http://second:1/v1"),
        ("", " ", "http://third:1/v1"),
    ):
        monkeypatch.setenv("EDGEDC_BASE_URL", mine)
        with closing(open_solver("m", url)) as solver:
            assert solver.url == meant
    with server(GOOD) as made, closing(open_solver("m", made.url)) as solver:
        solver.solve(ASKED, max_tokens=10)
        assert "Authorization" not in made.requests[0][0]
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with closing(open_solver("m")) as solver:
        assert solver.url == "https://api.openai.com/v1"


def test_a_decomposer_s_errors_name_its_own_variables_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGEDC_BASE_URL", "OPENAI_BASE_URL", DECOMPOSER_KEY):
        monkeypatch.delenv(name, raising=False)
    theirs = {"keys": (DECOMPOSER_KEY,), "flags": ("--decomposer", "--decomposer-url")}
    with pytest.raises(InputError, match=f"set {DECOMPOSER_KEY}, or give --decomposer-url$"):
        open_solver("m", **theirs)
    monkeypatch.setenv(DECOMPOSER_KEY, KEY)
    for status, said in (
        ("401 No", f"set {DECOMPOSER_KEY} to a key"),
        ("404 No", "--decomposer, and that --decomposer-u"),
    ):
        with (
            server(http(status, "text/plain", b"")) as made,
            closing(open_solver("m", made.url, **theirs)) as solver,
            pytest.raises(SolverReply, match=said),
        ):
            solver.solve(ASKED, max_tokens=10)
        assert f"Bearer {KEY}\r\n" in made.requests[0][0]


def test_a_script_is_followed_to_its_end() -> None:
    solver = ScriptedSolver(["one", "two " * 10])
    assert solver.solve(ASKED, max_tokens=5).text == "one"
    assert solver.solve(ASKED, max_tokens=5).finish_reason == "length"
    with pytest.raises(SolverReply):
        solver.solve(ASKED, max_tokens=5)
    assert len(solver.asked) == 3


@pytest.mark.parametrize("key", ["", KEY])
def test_the_simulated_solver_is_not_asked_of_openai(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGEDC_BASE_URL", "OPENAI_BASE_URL", "EDGEDC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError, match="start it with  edgedc simulate  and give --solver-url"):
        open_solver(SIMULATED_MODEL)


def test_a_decomposer_on_another_server_does_not_get_the_solver_s_key(monkeypatch):
    monkeypatch.setenv("EDGEDC_BASE_URL", "http://here:1/v1")
    assert decomposer_keys("http://there:1/v1", "http://here:1/v1") == (DECOMPOSER_KEY,)
    assert decomposer_keys("http://here:2/v1", "http://here:1/v1") == (DECOMPOSER_KEY,)
    assert decomposer_keys("", "http://user:secret@here:1/v2") == (DECOMPOSER_KEY, *KEYS)
