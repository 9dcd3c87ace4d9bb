"""The outbox, in real files, between real processes."""

import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgedc.errors import EdgedcError
from edgedc.outbox import Outbox, Question

JOB = {"question": "Wie viele Äpfel?", "premise": "", "mode": "static"}

# What another process does with the outbox of its first argument, a line for each thing done; it stays until killed.
OTHER = """
import sys, time
from pathlib import Path
from edgedc.outbox import Outbox
box = Outbox(Path(sys.argv[1]))
{work}
print("done", flush=True)
time.sleep(300)
"""


def other(path: Path, work: str) -> subprocess.Popen[str]:
    script = OTHER.format(work=work)
    return subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> list[str]:
    """Its lines up to `done`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        if line == "done\n":
            return lines
        lines.append(line.strip())
    pytest.fail(f"it ended early: {lines}")


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def claimed(box: Outbox) -> list[Question]:
    found: list[Question] = []
    while question := box.claim(after=found[-1].id if found else 0):
        found.append(question)
    return found


def test_what_was_put_in_is_there_for_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "outbox.sqlite"
    box = Outbox(path)
    question = box.add(JOB)
    box.calling(question.id)
    box.keep(question.id, {"solved": [["Wie viele?", "3"]]})
    box.failed(question.id, "no network")
    box.close()
    box = Outbox(path)
    (there,) = box.questions()
    assert (there.job, there.begun, there.error) == (JOB, {"solved": [["Wie viele?", "3"]]}, "no network")
    assert (there.state, there.attempts, there.doubtful, there.key) == ("waiting", 1, 0, question.key)
    box.close()


def test_a_question_is_one_process_s_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    box = Outbox(path)
    for _ in range(2):
        box.release(box.add(JOB).id)
    process = other(path, "print(box.claim().id)")
    try:
        assert said(process) == ["1"]
        assert [question.id for question in claimed(box)] == [2]
        assert claimed(box) == []  # nor twice by the same process
    finally:
        kill(process)
    assert [question.id for question in claimed(box)] == [1]
    box.close()


def test_processes_that_share_the_work_never_take_the_same_question(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    box = Outbox(path)
    for _ in range(40):
        box.release(box.add(JOB).id)
    work = "while q := box.claim():\n    print(q.id)\n    time.sleep(0.005)\n    box.remove(q.id)"
    processes = [other(path, work) for _ in range(3)]
    try:
        taken = [line for process in processes for line in said(process)]
    finally:
        for process in processes:
            kill(process)
    assert sorted(map(int, taken)) == list(range(1, 41))
    assert box.questions() == []
    box.close()


def test_a_call_that_a_kill_cut_off_is_counted_and_what_came_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    process = other(path, f"q = box.add({JOB!r}); box.calling(q.id); box.keep(q.id, {{'a': 1}}); box.calling(q.id)")
    said(process)
    kill(process)
    box = Outbox(path)
    (question,) = claimed(box)
    assert (question.doubtful, question.begun) == (1, {"a": 1})
    box.close()


def test_whatever_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    Outbox(path).close()
    chance = random.Random(0)
    known = 0
    for _ in range(3):
        script = OTHER.format(work=f"while True:\n    print(box.add({JOB!r}).id, flush=True)")
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].splitlines(keepends=True)
        known += 1 + sum(line.endswith("\n") for line in rest)
        box = Outbox(path)
        there = box.questions()
        box.close()
        assert len(there) - known in (0, 1)  # one may have been put in and not yet said so
        assert all(question.job == JOB for question in there)
        known = len(there)


def test_a_batch_has_its_questions_for_itself(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "outbox.sqlite")
    question = box.add(JOB, key="k", batch="/a.jsonl")
    assert box.claim_key("k") is None  # it is being worked on
    box.release(question.id)
    assert box.claim() is None
    again = box.claim_key("k")
    assert again is not None
    assert (again.id, again.batch) == (question.id, "/a.jsonl")
    box.close()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_nobody_else_may_read_it_and_what_is_removed_is_gone_from_the_disk(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        box = Outbox(tmp_path / "home" / "outbox.sqlite")
        question = box.add(JOB | {"question": "a very private question"})
        files = list((tmp_path / "home").iterdir())
        assert len(files) >= 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    finally:
        os.umask(old)
    assert any(b"very private" in file.read_bytes() for file in files)
    box.remove(question.id)
    box.close()
    assert not any(b"very private" in file.read_bytes() for file in (tmp_path / "home").iterdir())


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as sql:
        sql.execute("CREATE TABLE t (x)")


def newer(path: Path) -> None:
    Outbox(path).close()
    with sqlite3.connect(path) as sql:
        sql.execute("PRAGMA user_version = 99")


def cut(path: Path) -> None:
    box = Outbox(path)
    for _ in range(30):
        box.add(JOB | {"premise": "x" * 500})
    box.close()
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\x55" * (len(data) - 4096))


def unreadable(path: Path) -> None:
    box = Outbox(path)
    box.add(JOB)
    box.close()
    with sqlite3.connect(path) as sql:
        sql.execute("UPDATE question SET job = '{'")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(b"hello" * 1000), "damaged"),
        (cut, "damaged"),
        (unreadable, "damaged"),
        (foreign, "not a file of edgedc's"),
        (newer, "newer edgedc"),
        (Path.mkdir, "cannot be read or written"),
    ],
)
def test_a_file_that_is_no_outbox_is_one_line_that_names_it(tmp_path: Path, spoil, words: str) -> None:
    path = tmp_path / "outbox.sqlite"
    spoil(path)
    with pytest.raises(EdgedcError) as caught:
        Outbox(path).questions()
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "\n" not in message


def test_a_full_disk_is_one_line_and_what_was_there_stays(tmp_path: Path) -> None:
    work = """
from edgedc.errors import EdgedcError
count = 0
try:
    while True:
        box.add({"question": "x" * 2000})
        count += 1
except EdgedcError as error:
    print(error)
print(count, len(box.questions()))
raise SystemExit
"""
    script = OTHER.format(work=work)
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = [sys.executable, "-c", script, str(mounted / "outbox.sqlite")]
    inside = f'mount -t tmpfs -o size=512k none {mounted} && exec "$@"'
    if not shutil.which("unshare"):
        pytest.skip("no unshare here to mount a small disk with")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", inside, "sh", *command], capture_output=True, text=True)
    if done.returncode and "outbox" not in done.stderr:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    error, counts = done.stdout.splitlines()
    assert error == f"{mounted / 'outbox.sqlite'}: the disk is full: make room"
    added, there = counts.split()
    assert int(added) == int(there) > 10


def test_a_lock_that_is_held_for_ever_is_waited_for_and_then_said(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("edgedc.database._BUSY_S", 0.2)
    box = Outbox(tmp_path / "outbox.sqlite")
    with sqlite3.connect(tmp_path / "outbox.sqlite", isolation_level=None) as sql:
        sql.execute("BEGIN IMMEDIATE")
        with pytest.raises(EdgedcError, match="another program has held it"):
            box.add(JOB)
        sql.execute("ROLLBACK")
    assert box.add(JOB).id == 1
    box.close()
