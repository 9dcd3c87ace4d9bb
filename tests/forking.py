"""Processes of edgedc that start in no time: copies of one that has imported it. To be killed by the hundred."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MOTHER = """
import json, os, sys
import edgedc.commands.ask, edgedc.commands.flush
from edgedc.cli import main
for line in sys.stdin:
    verb, *given = json.loads(line)
    if verb == "run":
        args, out, err = given
        child = os.fork()
        if not child:
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
            main(args)
        print(child, flush=True)
    else:
        child, status = os.waitpid(given[0], 0 if verb == "wait" else os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if child else None), flush=True)
"""


class Mother:
    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        command = [sys.executable, "-c", _MOTHER]
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
        )

    def say(self, *words: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def run(self, args: Sequence[str], *, into: Path | None = None) -> "Child":
        """`into`: what it prints to."""
        self._count += 1
        out, err = (self._folder / f"{name}-{self._count}" for name in ("out", "err"))
        out = into or out
        return Child(self, self.say("run", list(args), str(out), str(err)), out, err)

    def close(self) -> None:
        self._process.communicate()


class Child:
    def __init__(self, mother: Mother, pid: int, out: Path, err: Path) -> None:
        self._mother, self.pid, self._out, self._err = mother, pid, out, err
        self.code: int | None = None

    def ended(self) -> bool:
        if self.code is None:
            self.code = self._mother.say("poll", self.pid)
        return self.code is not None

    def wait(self) -> int:
        if self.code is None:
            self.code = self._mother.say("wait", self.pid)
        assert self.code is not None
        return self.code

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def rows(self) -> list[dict[str, Any]]:
        """The whole lines that it has printed."""
        lines = self._out.read_text().splitlines(keepends=True) if self._out.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    @property
    def err(self) -> str:
        return self._err.read_text()

    def until(self, condition: Any) -> None:
        """Wait for it, or for the end."""
        while not condition() and not self.ended():
            time.sleep(0.002)


@contextmanager
def mother(folder: Path) -> Iterator[Mother]:
    folder.mkdir()
    made = Mother(folder)
    try:
        yield made
    finally:
        made.close()
