import os
import platform
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from edgedc.errors import EdgedcError, InputError
from edgedc.files import (
    Row,
    RowAppender,
    RowWriter,
    check_replaceable,
    check_writable,
    key_of,
    numbered_rows,
    read_rows,
    read_text,
    sha256_of,
    staged_folder,
    write_text,
)

# A job of 5 items that is killed in the middle of writing the item it is told.
JOB = """
import os, signal, sys
from pathlib import Path
from edgedc.files import RowWriter
with RowWriter(Path(sys.argv[1])) as out:
    for k in range(5):
        if str(k) in out.rows:
            print("had", k)
            continue
        if k == int(sys.argv[2]):
            half = '{"key": "%d", "text": "a half' % k
            os.write(out._file.fileno(), half.encode())
            os.kill(os.getpid(), signal.SIGKILL)
        out.write({"key": str(k), "text": "é" * k})
"""


def run_job(path: Path, killed_at: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", JOB, str(path), str(killed_at)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_killed_job_resumes_and_loses_only_the_row_in_flight(tmp_path: Path) -> None:
    path = tmp_path / "out" / "rows.jsonl"
    assert run_job(path, 2).returncode == -signal.SIGKILL
    assert path.read_bytes().endswith(b'"a half')
    assert run_job(path, 4).returncode == -signal.SIGKILL
    last = run_job(path, -1)
    assert last.returncode == 0, last.stderr
    assert last.stdout.split() == ["had", "0", "had", "1", "had", "2", "had", "3"]
    assert [row["key"] for row in read_rows(path)] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("cut", [1, 9, 14, 20])
def test_a_last_row_cut_anywhere_is_written_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.jsonl"
    with RowWriter(path) as out:
        out.write({"key": "a", "text": "eins"})
    whole = path.read_bytes()
    path.write_bytes(whole + '{"key": "b", "text": "zwölf"}'.encode()[:cut])
    with RowWriter(path) as out:
        assert list(out.rows) == ["a"]
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "text",
    [
        *("my notes", "my notes\n", "my\nnotes", "[1"),
        *('{"question": "mine"}\n', '{"key": "a"}\n[1]\n', '{"key": 7}\n', '{"key": ["a"]}\n'),
        *('{"api":"settings","list":[1]}', '{"question": "mine"}', '{"api":"sett', '{"keys": "a', '{"key": 7}'),
    ],
)
def test_a_file_that_edgedc_did_not_write_is_left_as_it_was(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"notes\.txt"):
        RowWriter(path)
    assert path.read_text() == text


def test_a_last_row_without_the_end_of_its_line_is_one(tmp_path: Path) -> None:
    """As some editors leave it."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "a"}\n{"key": "b"}')
    with RowWriter(path) as out:
        assert list(out.rows) == ["a", "b"]
        out.write({"key": "c"})
    assert path.read_text() == '{"key": "a"}\n{"key": "b"}\n{"key": "c"}\n'


def test_a_file_that_stays_empty_is_removed_and_one_that_held_something_is_not(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"")
    with RowWriter(path):
        assert path.exists()
    assert not path.exists()
    path.write_bytes(b'{"key": "a ha')
    with RowWriter(path):
        pass
    assert path.read_bytes() == b""
    path.unlink()
    with pytest.raises(ZeroDivisionError), RowWriter(path):
        _ = 1 // 0
    assert not path.exists()
    with RowWriter(path) as out:
        out.write({"key": "a"})
    with RowWriter(path):
        pass
    assert [row["key"] for row in read_rows(path)] == ["a"]


def test_one_process_writes_at_a_time_and_a_killed_one_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with RowWriter(path) as out:
        out.write({"key": "a"})
        with pytest.raises(InputError, match="another process is writing to it"):
            RowWriter(path)
    assert run_job(path, 2).returncode == -signal.SIGKILL
    with RowWriter(path) as out:
        assert list(out.rows) == ["a", "0", "1"]


def test_rows_that_the_reader_refuses_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"key": "a"}\n{"key": "b"}\n{"key": "c')
    before, seen = path.read_bytes(), []

    def refuse(row: Row) -> None:
        seen.append(row["key"])
        raise InputError("not ours")

    with pytest.raises(InputError, match="not ours"):
        RowAppender(path, refuse)
    assert (path.read_bytes(), seen) == (before, ["a"])


def no_more_than(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_row_for_which_there_is_no_room_leaves_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    job = f"""
from pathlib import Path
from edgedc.errors import EdgedcError
from edgedc.files import RowWriter
with RowWriter(Path({str(path)!r})) as out:
    try:
        for k in range(9):
            out.write({{"key": str(k), "text": "x" * 100}})
    except EdgedcError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", job],
        preexec_fn=partial(no_more_than, 500),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"{path}: cannot be written: File too large; run again to go on from there\n"
    assert [row["key"] for row in read_rows(path)] == ["0", "1", "2", "3"]
    assert path.read_bytes().endswith(b"}\n")


def test_rows_with_any_text_come_back(tmp_path: Path) -> None:
    row = {"key": key_of("\ud800", 1), "text": "half a pair \ud800, \u2028, \x85, é, \n and \\ud800"}
    with RowWriter(tmp_path / "rows.jsonl") as out:
        out.write(row)
    assert list(read_rows(tmp_path / "rows.jsonl")) == [row]
    with RowWriter(tmp_path / "rows.jsonl") as out:
        assert list(out.rows.values()) == [row]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "rows.jsonl"):
        with pytest.raises(InputError, match="cannot be"):
            RowWriter(path)
    with pytest.raises(InputError, match="cannot be made"), staged_folder(tmp_path / "file" / "model"):
        pass


def test_keys_depend_on_everything_and_only_on_that() -> None:
    assert key_of("m", {"a": 1, "b": 2}) == key_of("m", {"b": 2, "a": 1})
    assert len({key_of("m", 1), key_of("m", 2), key_of("n", 1), key_of("m1", ""), key_of("m", "1")}) == 5


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": "\xe2\x80\xa8"}\r\n\r\n{"a": 2}\n{"a": \n')
    rows = numbered_rows(path)
    assert [next(rows), next(rows)] == [(1, {"a": "\u2028"}), (3, {"a": 2})]
    with pytest.raises(InputError, match=r"rows\.jsonl:4: not JSON"):
        next(rows)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xfe{", "UTF-8"),
        (b"[1]", ":1: each line must be a JSON object, not a list"),
        (b"[" * 100_000, ":1: not JSON"),
        (b'{"a": 1}\n{"b"}', ":2: not JSON: Expecting ':' delimiter at column 5 (char 4); each line must be a JSON"),
        (b'{"a": 1}\n{"a": "\xe9"}', ":2: not UTF-8 text"),
        (b'{"a": 1}\n' + b" " * (1 << 24), ":2: a line of 16 MB or more"),
    ],
)
def test_what_is_not_rows_is_said_in_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        list(read_rows(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_text_is_named(tmp_path: Path) -> None:
    for read in (read_text, sha256_of):
        with pytest.raises(InputError, match="nothing: cannot be read: No such file"):
            read(tmp_path / "nothing")


def test_write_text_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def made(path: Path, text: str) -> None:
    with staged_folder(path) as stage:
        (stage / "weights").write_text(text)
        (stage / "manifest.json").write_text('{"kind": "model", "edgedc": "0.1.0"}')


def test_a_staged_folder_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "models" / "student"
    made(path, "old")
    with pytest.raises(ZeroDivisionError), staged_folder(path) as stage:
        (stage / "weights").write_text("half" * (1 // 0))
    assert (path / "weights").read_text() == "old"
    with staged_folder(path) as stage:
        (stage / "weights").write_text("new")
        assert (path / "weights").read_text() == "old"
    assert (path / "weights").read_text() == "new"
    assert not (path / "manifest.json").exists()
    assert list(path.parent.iterdir()) == [path]


def test_a_kill_while_staging_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "student"
    made(path, "old")
    job = f"""
import os, signal
from pathlib import Path
from edgedc.files import staged_folder
with staged_folder(Path({str(path)!r})) as stage:
    (stage / "weights").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", job], timeout=60, check=False).returncode == -signal.SIGKILL
    assert (path / "weights").read_text() == "old"
    made(path, "new")
    assert (path / "weights").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_staged_is_removed_by_the_next_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "student"
    job = f"""
import os, signal, sys
from pathlib import Path
from edgedc.files import scratch_folder, staged_folder
with staged_folder(Path({str(path)!r})) as stage, scratch_folder(Path({str(path)!r})):
    print("staged", flush=True)
    sys.stdin.readline()
"""
    start = [sys.executable, "-c", job]
    with (
        subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed,
        subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living,
    ):
        for process in (killed, living):
            assert process.stdout is not None
            assert process.stdout.readline() == b"staged\n"
        killed.kill()
        killed.wait(60)
        elsewhere = tmp_path / f".student.{killed.pid}@another-machine.x"
        elsewhere.mkdir()
        others = [tmp_path / ".student.notes", tmp_path / f".students.{killed.pid}@{platform.node()}"]
        for other in others:
            other.write_text("mine")
        made(path, "new")
        left = {name.name for name in tmp_path.iterdir()} - {"student", elsewhere.name, *(o.name for o in others)}
        assert len(left) == 2
        assert all(name.startswith(f".student.{living.pid}@") for name in left)
        living.kill()
        living.wait(60)
    made(path, "newer")
    assert {name.name for name in tmp_path.iterdir()} == {"student", elsewhere.name, *(o.name for o in others)}


def test_a_file_that_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "weights.gguf"
    job = f"""
import os, signal
from pathlib import Path
from edgedc.files import beside
with beside(Path({str(path)!r})) as file:
    file.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", job], timeout=60, check=False).returncode == -signal.SIGKILL
    assert [left.name.startswith(".weights.gguf.") for left in tmp_path.iterdir()] == [True]
    write_text(path, "whole")
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_taken_away_by_a_kill_between_two_renames_comes_back(tmp_path: Path) -> None:
    """Where folders cannot be swapped at one stroke, there is a moment without either."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    path = tmp_path / "student"
    made(path, "old")
    path.rename(tmp_path / f".student.{gone.pid}@{platform.node()}.x.old")
    with pytest.raises(ZeroDivisionError), staged_folder(path):
        _ = 1 // 0
    assert (path / "weights").read_text() == "old"


def test_a_folder_that_edgedc_did_not_make_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    (tmp_path / "file").write_text("x")
    (tmp_path / "app").mkdir()
    for manifest in ('{"name": "my PWA", "start_url": "/"}', "[]", "{"):
        (tmp_path / "app" / "manifest.json").write_text(manifest)
        with pytest.raises(InputError, match="was not made by edgedc"), staged_folder(tmp_path / "app"):
            pass
        assert (tmp_path / "app" / "manifest.json").read_text() == manifest
    for name in ("thesis", "file"):
        with pytest.raises(InputError, match="was not made by edgedc"), staged_folder(tmp_path / name):
            pass
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    made(tmp_path / "empty", "new")
    assert (tmp_path / "empty" / "weights").exists()


def test_a_link_stays_one_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    for name in ("model", "report"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    for text in ("old", "new"):
        made(tmp_path / "model", text)
        write_text(tmp_path / "report", text)
        assert (tmp_path / "disk" / "model" / "weights").read_text() == text
        assert (tmp_path / "disk" / "report").read_text() == text
    assert {path.name for path in tmp_path.rglob("*")} == {"disk", "model", "report", "weights", "manifest.json"}
    assert all((tmp_path / name).is_symlink() for name in ("model", "report"))


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path(os.devnull), Path("-")):
        before = path.exists() and path.stat().st_mode
        for write in (partial(write_text, text="text"), RowWriter, partial(check_writable, reader=read_text)):
            with pytest.raises(InputError, match=r"not a regular file|cannot be stdout"):
                write(path)
        assert before == (path.exists() and path.stat().st_mode)


def refuse(path: Path) -> None:
    raise InputError(f"{path}: not ours")


def test_where_a_file_may_be_written_is_known_before(tmp_path: Path) -> None:
    new, mine = tmp_path / "out" / "new.html", tmp_path / "mine.txt"
    mine.write_text("years of work")
    for _ in range(2):
        check_writable(new, refuse, mine, None)
        new.touch()  # an empty one holds nothing
    check_writable(mine, read_text)
    with pytest.raises(InputError, match=r"mine\.txt: not ours; it would be overwritten: give another"):
        check_writable(mine, refuse)
    (tmp_path / "link").symlink_to(mine)
    with pytest.raises(InputError, match=r"mine\.txt: two files would be written there; give another"):
        check_writable(mine, read_text, new, tmp_path / "link")
    for path in (mine / "x.html", mine / "deeper" / "x.html", tmp_path / ("x" * 250), tmp_path / ("x" * 300)):
        with pytest.raises(EdgedcError, match="cannot be written"):
            check_writable(path, read_text)
        with pytest.raises(EdgedcError, match="cannot be written"):
            write_text(path, "text")
    assert mine.read_text() == "years of work"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "mine.txt", "link"}


@pytest.mark.skipif(not hasattr(os, "setresuid") or os.getuid() != 0, reason="root alone can become another user")
def test_a_folder_that_is_not_ours_to_write_is_one_line() -> None:
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        os.setresuid(65534, 65534, 0)
        try:
            for write in (partial(write_text, text="text"), partial(check_writable, reader=read_text)):
                with pytest.raises(EdgedcError, match=r"x\.html: cannot be written: Permission denied"):
                    write(Path(name, "x.html"))
            with pytest.raises(InputError, match=rf"model: cannot be made: {name} is no folder that can be written to"):
                check_replaceable(Path(name, "new", "model"))
        finally:
            os.setresuid(0, 0, 0)
        assert not list(Path(name).iterdir())


def test_a_file_that_grows_too_large_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    job = f"""
from pathlib import Path
from edgedc.errors import EdgedcError
from edgedc.files import write_text
try:
    write_text(Path({str(path)!r}), "x" * 1000)
except EdgedcError as error:
    print(error)
"""
    start = [sys.executable, "-c", job]
    done = subprocess.run(start, preexec_fn=partial(no_more_than, 500), capture_output=True, text=True, check=True)
    assert done.stdout == f"{path}: cannot be written: File too large\n"
    assert not list(tmp_path.iterdir())


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
