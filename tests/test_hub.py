"""gsm8k from the hub: the real `datasets` library against a hub of one data set on this machine."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"
CARD = """---
configs:
- config_name: socratic
  data_files:
  - split: train
    path: socratic/train.jsonl
---
"""
ROWS = [
    {"question": f"What do {n} pens cost?", "answer": f"How many pens? ** {n} pens.\n#### {n}"} for n in range(2, 6)
]
FILES = {"README.md": CARD.encode(), "socratic/train.jsonl": "".join(json.dumps(r) + "\n" for r in ROWS).encode()}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as reading one data set takes."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/datasets/openai/gsm8k/resolve/[^/]+/(.+)", path):
            self.file(FILES.get(found[1]))
        elif found := re.fullmatch(r"/api/datasets/openai/gsm8k/tree/[^/]+/?(.*)", path):
            listed = [name for name in FILES if name.startswith(found[1])]
            self.reply([{"type": "file", "path": name, "size": len(FILES[name]), "oid": REVISION} for name in listed])
        elif re.fullmatch(r"/api/datasets/openai/gsm8k(/revision/[^/]+)?", path):
            self.reply({"id": "openai/gsm8k", "sha": REVISION, "siblings": [{"rfilename": name} for name in FILES]})
        else:
            self.file(None)

    def reply(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def file(self, content: bytes | None) -> None:
        if content is None:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            part = content[int(wanted[1]) : int(wanted[2] or len(content)) + 1]
            self.send(
                206, part, {"Content-Range": f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(content)}"}
            )
        else:
            self.send(200, content, {"ETag": f'"{len(content)}"', "X-Repo-Commit": REVISION})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def teach(endpoint, tmp_path, *more):
    # In a process of its own: the hub's library reads its environment once, when it is imported.
    env = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hub"), "NO_PROXY": "*"}
    command = [sys.executable, "-m", "edgedc", "teach", "--task", "gsm8k", *more, str(tmp_path / "rows.jsonl")]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_gsm8k_comes_from_the_hub_when_no_file_is_named(hub, tmp_path):
    done = teach(hub, tmp_path, "--limit", "3")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["question"] for row in rows] == [row["question"] for row in ROWS[:3]]
    assert rows[0]["subquestions"] == ["How many pens?"]


def test_a_split_that_the_hub_does_not_have_is_told_in_one_line(hub, tmp_path):
    done = teach(hub, tmp_path, "--split", "validation")
    assert done.returncode == 1
    assert "validation" in done.stderr
    assert done.stderr.strip().count("\n") == 0
