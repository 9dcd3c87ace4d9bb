"""edgedc pull and models: the real huggingface_hub against a hub of a few models on this machine."""

import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgedc.cli import cli
from edgedc.errors import EdgedcError
from edgedc.hub import RemoteFile, _asked, missing_bytes

DEMO_BASE = Path(__file__).parents[1] / "edgedc" / "models" / "demo-base"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Repositories by name; `lies` are files of which other bytes come than are listed, `cut` those that break off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.lies: set[str] = set()
        self.cut: dict[str, int] = {}
        self.ranges: list[str] = []
        self.refusal: tuple[int, str] | None = None
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """As much of the hub's protocol as reading a model takes."""

    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self.about(found[1], found[2])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self.file(self.server.repositories.get(found[1], {}).get(found[2]), found[2])
        else:
            self.send(404, b"")

    def about(self, name: str, revision: str | None) -> None:
        if self.server.refusal:
            status, code = self.server.refusal
            return self.send(status, b"{}", {"X-Error-Code": code} if code else {})
        files = self.server.repositories.get(name)
        if files is None:
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if revision not in (None, "main", COMMIT):
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        listed = [{"rfilename": n, "size": len(c), "blobId": git(c)} | large(n, c) for n, c in files.items()]
        return self.send(200, json.dumps({"id": name, "sha": COMMIT, "siblings": listed}).encode())

    def file(self, content: bytes | None, name: str) -> None:
        if content is None:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        if name in self.server.lies:
            content = content[:-1] + bytes([content[-1] ^ 1])
        headers = {"ETag": f'"{git(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        start = 0
        if self.command == "GET" and (wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
            start = int(wanted[1])
            self.server.ranges.append(f"{name} from {start}")
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.send(206 if start else 200, content[start:], headers, self.server.cut.pop(name, None))

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None, only: int | None = None) -> None:
        self.send_response(status)
        for name, value in ((headers or {}) | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:only])
            self.wfile.flush()
        else:
            self.server.cut |= {} if only is None else {self.path.rpartition("/")[2]: only}
        self.close_connection = True


def git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def large(name: str, content: bytes) -> dict[str, Any]:
    if not name.endswith((".gguf", ".safetensors", ".bin")):
        return {}
    return {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}}


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def box(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one GGUF."""
    folder = tmp_path_factory.mktemp("box") / "box"
    words = ["export", "--quantization", "q8_0", "--no-gate", str(model_folder), str(folder)]
    assert CliRunner().invoke(cli, words).exit_code == 0
    return folder


@pytest.fixture
def edgedc(hub, tmp_path):
    # In a process of its own: the hub's library reads its environment once, when it is imported.
    env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "EDGEDC_HOME": str(tmp_path / "home")}
    env |= {"NO_PROXY": "*", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}

    def run(*arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgedc", *arguments]
        how |= {"capture_output": True, "text": True, "timeout": 120, "check": False}
        return subprocess.run(command, env=os.environ | env, cwd=tmp_path, **how)

    return run


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_bundle_is_pulled_listed_and_run_by_its_name(hub, edgedc, box):
    hub.repositories["someone/box"] = files_of(box)
    done = edgedc("pull", "someone/box")
    assert done.returncode == 0, done.stderr
    assert COMMIT in done.stderr
    assert Path(done.stdout.strip()).name == "box"
    [listed] = [r for r in map(json.loads, edgedc("models", "--json").stdout.splitlines()) if r["where"] == "pulled"]
    assert (listed["name"], listed["kind"], listed["revision"]) == ("box", "bundle", COMMIT)
    question = "Max buys 7 rulers, and each ruler costs $6. How much does Max pay?"
    words = ("decompose", "--threads", "1", "--model")
    assert edgedc(*words, "box", question).stdout == edgedc(*words, str(box), question).stdout != ""


def test_a_name_that_stands_for_another_model_is_not_given(hub, edgedc, box):
    hub.repositories |= {"someone/default": files_of(box), "someone/box": files_of(box)}
    done = edgedc("pull", "someone/default")
    assert done.stderr.endswith(f"edgedc decompose --model {done.stdout}")
    assert edgedc("pull", "someone/box").stderr.endswith("edgedc decompose --model box\n")


def test_a_gguf_of_somebody_else_becomes_a_bundle_that_runs(hub, edgedc, box):
    [gguf] = box.glob("*.gguf")
    hub.repositories["someone/Small-GGUF"] = {"Small-Q8_0.gguf": gguf.read_bytes(), "README.md": b"hello"}
    done = edgedc("pull", "someone/Small-GGUF")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((Path(done.stdout.strip()) / "manifest.json").read_text())
    assert [a["quantization"] for a in manifest["artifacts"]] == ["q8_0"]
    assert (manifest["base_revision"], manifest["prompt_style"]) == (COMMIT, "instruct-1")
    assert edgedc(
        "decompose", "--threads", "1", "--model", "Small-GGUF", "--json", "How old is Ann?"
    ).stdout.startswith("{")


def test_of_several_ggufs_one_is_named(hub, edgedc, box):
    [gguf] = box.glob("*.gguf")
    hub.repositories["someone/many"] = dict.fromkeys(("a-q4_0.gguf", "a-q8_0.gguf"), gguf.read_bytes())
    refused = edgedc("pull", "someone/many")
    assert refused.returncode == 2
    assert "--file; there are a-q4_0.gguf, a-q8_0.gguf" in refused.stderr
    assert edgedc("pull", "someone/many", "--file", "*q8_0*").returncode == 0


def test_a_model_folder_comes_without_pickles_and_can_be_trained(hub, edgedc, tmp_path):
    base = DEMO_BASE
    weights = {name: content for name, content in files_of(base).items() if name != "manifest.json"}
    hub.repositories["someone/base"] = weights | {"pytorch_model.bin": b"x", "modeling_evil.py": b"x"}
    done = edgedc("pull", "someone/base@main")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert not (folder / "pytorch_model.bin").exists()
    assert not (folder / "modeling_evil.py").exists()
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question": "How old is Ann?", "subquestions": ["When was Ann born?"]}) + "\n")
    trained = edgedc("train", "--base", "base", "--max-steps", "1", "rows.jsonl", "adapter")
    assert trained.returncode == 0, trained.stderr


def test_a_download_that_broke_off_goes_on(hub, edgedc):
    """The library writes ten MiB at a time, and goes on behind the last ten that came."""
    weights = os.urandom(24 * 2**20)
    hub.repositories["someone/base"] = files_of(DEMO_BASE) | {"more.safetensors": weights}
    del hub.repositories["someone/base"]["manifest.json"]
    hub.cut["more.safetensors"] = 21 * 2**20
    done = edgedc("pull", "someone/base")
    if done.returncode:  # the library gives up or tries again by itself, as its version likes
        assert "failed" in done.stderr.strip().splitlines()[-1]
        assert not [r for r in edgedc("models", "--json").stdout.splitlines() if json.loads(r)["where"] == "pulled"]
        done = edgedc("pull", "someone/base")
    assert done.returncode == 0, done.stderr
    assert hub.ranges == [f"more.safetensors from {20 * 2**20}"]
    assert (Path(done.stdout.strip()) / "more.safetensors").read_bytes() == weights


def test_a_disk_that_is_full_is_not_the_hub_s_fault_and_what_has_come_is_kept(hub, edgedc):
    weights = os.urandom(24 * 2**20)
    hub.repositories["someone/base"] = files_of(DEMO_BASE) | {"more.safetensors": weights}
    del hub.repositories["someone/base"]["manifest.json"]
    at_most = (15 * 2**20, 15 * 2**20)  # of a file: what the disk has room for, as the library sees it
    done = edgedc("pull", "someone/base", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, at_most))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "edgedc: someone/base/more.safetensors: cannot be written: File too large; make room, and pull it again: what "
        "came whole is kept"
    )
    done = edgedc("pull", "someone/base")
    assert done.returncode == 0, done.stderr
    goes_on = int(version("huggingface_hub").split(".")[0]) < 2  # in the middle of a file
    assert hub.ranges == ([f"more.safetensors from {at_most[0]}"] if goes_on else [])
    assert (Path(done.stdout.strip()) / "more.safetensors").read_bytes() == weights


def test_what_came_before_a_stop_needs_no_room_again(tmp_path):
    files = [RemoteFile("config.json", 100, "git:1"), RemoteFile("model.safetensors", 1000, "sha256:2")]
    assert missing_bytes(tmp_path, files) == 1100
    (tmp_path / "config.json").write_bytes(b"x" * 100)
    begun = tmp_path / ".cache" / "huggingface" / "download" / "abc.def.incomplete"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b"x" * 900)
    assert missing_bytes(tmp_path, files) == 100
    begun.rename(begun.with_name("abc.def.0a1b2c3d.incomplete"))  # as version 2 of the hub's library calls it
    assert missing_bytes(tmp_path, files) == 1000


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (
            (401, "GatedRepo"),
            "the hub gives it only to people who accepted its terms: accept them on its page, and set HF_TOKEN",
        ),
        (
            (403, "GatedRepo"),
            "the hub gives it only to people who accepted its terms: accept them on its page, and set HF_TOKEN",
        ),
        ((401, "RepoNotFound"), "the hub has no such model, or not for you: check the name, or set HF_TOKEN"),
        ((401, ""), "the hub refuses it (401): check HF_TOKEN"),
        ((403, ""), "the hub refuses it (403): check HF_TOKEN"),
    ],
)
def test_what_the_hub_does_not_give_is_one_line_and_leaves_nothing(hub, edgedc, tmp_path, refusal, said):
    hub.refusal = refusal
    done = edgedc("pull", "someone/box")
    assert done.returncode == 2
    assert done.stderr == f"edgedc: someone/box: {said}\n"
    assert not (tmp_path / "home").exists()


def test_what_is_not_what_the_hub_lists_is_refused(hub, edgedc, box):
    hub.repositories["someone/box"] = files_of(box)
    for name in ("chat_template.jinja", next(box.glob("*.gguf")).name):  # in the order in which they are fetched
        hub.lies = {name}
        done = edgedc("pull", "someone/box")
        assert done.returncode == 1
        assert f"{name}: what came is not what the hub lists" in done.stderr
    hub.lies = set()
    assert edgedc("pull", "someone/box").returncode == 0


def test_a_second_pull_compares_and_does_not_fetch(hub, edgedc, box):
    hub.repositories["someone/box"] = files_of(box)
    folder = Path(edgedc("pull", "someone/box").stdout.strip())
    hub.lies = set(files_of(box))  # would be seen if anything was fetched
    assert edgedc("pull", "someone/box").returncode == 0
    (folder / "README.md").write_text("changed")
    done = edgedc("pull", "someone/box")
    assert done.returncode == 2
    assert "changed since it was pulled" in done.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("box", "give OWNER/NAME"),
        ("someone/nothing", "no such model"),
        ("someone/box@v9", "no such revision"),
        ("../box", "give OWNER/NAME"),
        ("someone/..", "give OWNER/NAME"),
        ("someone/empty", "no bundle, no GGUF and no safetensors"),
    ],
)
def test_what_cannot_be_pulled_is_one_line(hub, edgedc, asked, said):
    hub.repositories |= {"someone/box": {"README.md": b""}, "someone/empty": {"README.md": b"hello"}}
    done = edgedc("pull", asked)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_home_that_cannot_be_written_is_one_line(hub, edgedc, tmp_path):
    hub.repositories["someone/box"] = files_of(DEMO_BASE)
    (tmp_path / "home").write_text("not a folder")
    done = edgedc("pull", "someone/box")
    assert done.returncode == 2
    assert f"{tmp_path / 'home' / 'models'}: cannot be made: Not a directory; set EDGEDC_HOME" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_that_cannot_be_reached_is_one_line(hub, edgedc):
    hub.shutdown()
    hub.server_close()
    done = edgedc("pull", "someone/box")
    assert done.returncode == 1
    assert "the hub cannot be reached" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_whatever_the_library_raises_is_one_line():
    """Its version 2 lets errors through that are neither OSErrors nor httpx's."""

    class ConnectError(Exception):
        pass

    def ask(hub):
        raise ConnectError("Name or service not known\nand more")

    with pytest.raises(
        EdgedcError, match=r"^someone/box: the hub cannot be reached, or failed: Name or service not known$"
    ):
        _asked("someone/box", ask)
