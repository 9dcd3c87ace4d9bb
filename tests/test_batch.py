"""Many questions at once: bounded memory, kills, and what can be wrong with a file."""

import gc
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from edgedc.backends import Choice
from edgedc.bundle import Manifest
from edgedc.commands._batch import Progress, keyed, open_output, run
from edgedc.commands._local import Local, LocalDecomposer, Settings
from edgedc.commands._questions import Item
from edgedc.errors import ContextError, EdgedcError, InputError
from edgedc.generation import Generation, Message
from edgedc.tasks.microworld import problems
from edgedc.usage import Usage


class Scripted:
    """Says the same to everybody, and refuses long prompts; takes a few requests before it gives the first reply."""

    name = "scripted"

    def __init__(self, breaks_at: int | None = None) -> None:
        self.breaks_at, self.asked = breaks_at, 0

    def generate(self, messages: Sequence[Message], **_: object) -> Generation:
        self.asked += 1
        if self.asked == self.breaks_at:
            raise EdgedcError("the engine broke")
        if len(messages[0]["content"]) > 10_000:
            raise ContextError("more than the model's context")
        return Generation("1. Who?\n2. Why?", Usage(9, 8), 0.1, 0.2, "stop")

    def generate_many(self, requests: Iterable[Sequence[Message]], **_: object) -> Iterator[Generation | EdgedcError]:
        requests = iter(requests)
        while ahead := list(islice(requests, 8)):
            for messages in ahead:
                try:
                    yield self.generate(messages)
                except EdgedcError as error:
                    yield error


MANIFEST = Manifest(kind="model", name="said", base="said", method="untrained", prompt_style="compact-1")
LOCAL = Local(Choice(Path("said"), MANIFEST, None, "transformers"), Settings(), 5)


def decompose(items: Iterable[Item], out: Path, backend: Scripted, total: int | None = None) -> int:
    """What `edgedc decompose --input` does behind the choice of a model. Returns how many rows were there before."""
    said = LocalDecomposer(
        name=backend.name, where="local", generate=backend.generate, style="compact-1", backend=backend, grammar=None
    )
    pairs = keyed("key", items)
    with open_output(out) as output:
        done = output.match(key for key, _ in pairs)
        with closing(run(LOCAL, said, pairs, total, "decompose", done=done)) as rows:
            for row in rows:
                output.write(row)
    return done


def many(count: int) -> Iterator[Item]:
    return (Item(k, f"How many legs do {k} cats and {k} birds have together?") for k in range(count))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# -- memory


def peak(count: int, out: Path) -> int:
    """Bytes of Python's own memory that a batch of so many rows took at most."""
    gc.collect()
    tracemalloc.start()
    try:
        decompose(many(count), out, Scripted())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_rows_nor_with_those_that_are_there(tmp_path):
    out = tmp_path / "d.jsonl"
    decompose(many(10), tmp_path / "first.jsonl", Scripted())
    few = peak(200, tmp_path / "few.jsonl")
    assert peak(1500, out) < few + 50_000  # the rows themselves are 700 kB
    assert peak(1700, out) < few + 50_000  # goes through 1500 rows, and makes 200
    assert [row["id"] for row in read(out)] == list(range(1700))


BIG = """
import resource, sys
from pathlib import Path
from edgedc.commands._questions import Questions
from test_batch import Scripted, decompose
questions = Questions(Path(sys.argv[1]))
total = sum(1 for _ in questions)
decompose(questions, Path(sys.argv[2]), Scripted(), total)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_million_rows_take_the_memory_of_a_thousand(tmp_path):
    def most_memory(count: int) -> int:
        source, out = tmp_path / f"q{count}.jsonl", tmp_path / f"d{count}.jsonl"
        with source.open("w") as file:
            file.writelines(json.dumps({"question": item.question}) + "\n" for item in many(count))
        paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        command = [sys.executable, "-c", BIG, str(source), str(out)]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=True
        )
        with out.open("rb") as file:
            assert sum(1 for _ in file) == count
        return int(done.stdout)

    assert most_memory(1_000_000) < most_memory(1000) + 8_000  # kB


# -- order, errors and progress


def test_rows_keep_their_order_and_a_prompt_that_is_too_long_fails_alone(tmp_path):
    items = [*many(20)]
    items[7] = Item(7, "word " * 5000)
    assert decompose(items, tmp_path / "d.jsonl", Scripted()) == 0
    rows = read(tmp_path / "d.jsonl")
    assert [row["id"] for row in rows] == list(range(20))
    assert [row["id"] for row in rows if row["status"] == "failed"] == [7]
    assert "context" in rows[7]["error"]
    assert decompose(items, tmp_path / "d.jsonl", Scripted()) == 20


def test_an_engine_that_breaks_ends_the_run_and_the_next_goes_on(tmp_path):
    with pytest.raises(EdgedcError, match="the engine broke"):
        decompose(many(20), tmp_path / "d.jsonl", Scripted(breaks_at=13))
    assert [row["id"] for row in read(tmp_path / "d.jsonl")] == list(range(12))
    assert decompose(many(20), tmp_path / "d.jsonl", Scripted()) == 12
    assert [row["id"] for row in read(tmp_path / "d.jsonl")] == list(range(20))


def test_a_bad_question_ends_the_run_behind_those_before_it(tmp_path):
    def items() -> Iterator[Item]:
        yield from many(11)
        raise InputError("stdin:12: not JSON")

    with pytest.raises(InputError, match="stdin:12"):
        decompose(items(), tmp_path / "d.jsonl", Scripted())
    assert [row["id"] for row in read(tmp_path / "d.jsonl")] == list(range(11))


def test_progress_says_rate_and_what_is_left_where_the_total_is_known(capsys):
    for total, done in ((10, 4), (None, 0)):
        progress = Progress("decompose", total, done)
        progress.every_s = 0.0
        progress.started -= 2.0
        for _ in range(4):
            progress.step()
    known, unknown = (
        line for line in capsys.readouterr().err.splitlines() if line.startswith("decompose: 8 of") or "4, " in line
    )
    assert re.fullmatch(r"decompose: 8 of 10, [12]\.\d a second, 1 s left", known)
    assert re.fullmatch(r"decompose: 4, [12]\.\d a second", unknown)


# -- stdin and stdout


def start(bundle: Path, *args: object, **more: Any) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "edgedc",
        "decompose",
        "--threads",
        "1",
        "--model",
        bundle,
        "--max-tokens",
        60,
        *args,
    ]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, **more)


def lines(count: int) -> list[bytes]:
    return [json.dumps({"question": p.question}).encode() + b"\n" for p in problems("test", count)]


def without_measurements(data: bytes) -> bytes:
    return re.sub(rb'"(first_token_s|total_s|cached_tokens)": [^,}]*', rb'"\1": _', data)


def test_a_question_is_answered_before_the_next_one_is_written(bundle_folder):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with start(bundle_folder, "--input", "-", **pipes) as process:
        for line in lines(3):
            process.stdin.write(line)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["question"] == json.loads(line)["question"]
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"decompose: 3, " in err


def test_stdin_resumes_and_gives_what_a_file_gives(bundle_folder, tmp_path):
    source, one, two = tmp_path / "q.jsonl", tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    source.write_bytes(b"".join(lines(6)))
    assert start(bundle_folder, "--input", source, "--output", one).communicate(timeout=60)[1]
    for count, bad in ((4, b"{\n"), (6, b"")):
        process = start(bundle_folder, "--input", "-", "--output", two, stdin=subprocess.PIPE)
        _, err = process.communicate(b"".join(lines(count)) + bad, timeout=60)
        assert process.returncode == (2 if bad else 0)
        assert (b"stdin:5: not JSON" in err) is bool(bad)
        assert (b"4 rows are there already" in err) is not bool(bad)
    assert without_measurements(two.read_bytes()) == without_measurements(one.read_bytes())


def test_rows_go_to_stdout_and_a_reader_that_leaves_ends_it(bundle_folder, tmp_path):
    source = tmp_path / "q.jsonl"
    source.write_bytes(b"".join(lines(30)))
    with start(bundle_folder, "--input", source, stdout=subprocess.PIPE) as process:
        assert json.loads(process.stdout.readline())["id"] == 1
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 1
    with Path("/dev/full").open("wb") as full, start(bundle_folder, "--input", source, stdout=full) as process:
        assert process.stderr.read().endswith(b"edgedc: stdout: cannot be written: No space left on device\n")
    assert process.returncode == 1


# -- kills


def batch_with_kills(
    bundle: Path, folder: Path, given: Sequence[bytes], kills: int, until: Callable[[Any, Path, float], None]
) -> list[tuple[int, int]]:
    """Kills a living batch so often, each time after `until(process, output, seconds of an undisturbed run)`.

    It goes on from where it was killed, begins anew whenever it gets through, and may finish at the end. Returns how
    many rows there were before and after each killed process.
    """
    source, whole, out = folder / "q.jsonl", folder / "whole.jsonl", folder / "d.jsonl"
    source.write_bytes(b"".join(given))
    run_it = partial(start, bundle, "--backend", "llamacpp", "--input", source, "--output")
    began = time.monotonic()
    assert run_it(whole).communicate(timeout=300)[1]
    life_s = time.monotonic() - began
    undisturbed = without_measurements(whole.read_bytes())
    assert [row["id"] for row in read(whole)] == list(range(1, len(given) + 1))
    killed: list[tuple[int, int]] = []
    before = 0
    while len(killed) < kills:
        process = run_it(out)
        until(process, out, life_s)
        process.kill()
        process.communicate(timeout=60)
        there = out.read_bytes() if out.exists() else b""
        assert undisturbed.startswith(without_measurements(there[: there.rfind(b"\n") + 1]))
        if process.returncode == -signal.SIGKILL:
            killed.append((before, before := there.count(b"\n")))
        else:
            assert process.returncode == 0
            assert without_measurements(there) == undisturbed
            out.unlink()
            before = 0
    process = run_it(out)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert without_measurements(out.read_bytes()) == undisturbed
    assert {path.name for path in folder.iterdir()} == {"q.jsonl", "whole.jsonl", "d.jsonl"}
    return killed


def _wait_for_more(process: subprocess.Popen[bytes], out: Path, more: int) -> None:
    """Until it has written so many rows, or has ended; for none, a part of the time that it takes to begin."""
    if not more:
        time.sleep(0.3)
        return
    before = out.read_bytes().count(b"\n") if out.exists() else 0
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if out.exists() and out.read_bytes().count(b"\n") >= before + more:
            return
        time.sleep(0.001)


def test_a_killed_batch_ends_as_an_undisturbed_one(bundle_folder, tmp_path):
    chance = random.Random(0)

    def among_the_rows(process: subprocess.Popen[bytes], out: Path, _: float) -> None:
        _wait_for_more(process, out, chance.randrange(6))
        time.sleep(chance.uniform(0, 0.03))

    batch_with_kills(bundle_folder, tmp_path, lines(24), 3, among_the_rows)


@pytest.mark.slow
def test_a_batch_killed_at_100_random_moments_ends_as_an_undisturbed_one(bundle_folder, tmp_path):
    """Over its whole life: while Python starts, while the model loads, among the rows and at the end."""

    def some_time(process: subprocess.Popen[bytes], _: Path, life_s: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, 1.1 * life_s))

    # Short questions, as a run that goes on works through the whole group again in which it was killed; three groups.
    given = [json.dumps({"question": f"How many legs do {k} cats have?"}).encode() + b"\n" for k in range(300)]
    killed = batch_with_kills(bundle_folder, tmp_path, given, 100, some_time)
    wrote = sum(before < after for before, after in killed)
    print(f"{len(killed)} living processes killed, {wrote} of them after they had written rows")
    assert len(killed) == 100
    assert 0 < wrote < 100


# -- what can be wrong with files


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Exit code and the last line on stderr."""
    _, err = process.communicate(timeout=120)
    assert b"Traceback" not in err
    return process.returncode, err.decode().splitlines()[-1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x7fELF\x02\x01\x01\x00\xff\xfe", "q.jsonl:1: not UTF-8 text"),
        (b'{"question": "Who?"}\n{"question": "caf\xe9"}\n', "q.jsonl:2: not UTF-8 text"),
        (b'{"question": "Who?"}\n\x00\x01\n', "q.jsonl:2: not JSON"),
        (b'{"question": "Who?"}\n{"question": "' + b"a" * 50_000_000 + b'"}\n', "q.jsonl:2: a line of 16 MB or more"),
        (b'{"question": "Who?"', "q.jsonl:1: not JSON"),
    ],
    ids=["binary", "latin-1", "nul", "50 MB", "cut"],
)
def test_input_that_is_no_text_is_one_line_and_no_output(bundle_folder, tmp_path, data, reason):
    source, out = tmp_path / "q.jsonl", tmp_path / "d.jsonl"
    source.write_bytes(data)
    code, said = ended(start(bundle_folder, "--input", source, "--output", out))
    assert code == 2
    assert reason in said
    assert len(said) < 300
    assert not out.exists()


def test_a_question_as_long_as_a_book_fails_alone(bundle_folder, tmp_path):
    source, out = tmp_path / "q.jsonl", tmp_path / "d.jsonl"
    source.write_bytes(json.dumps({"question": "How many words? " * 50_000}).encode() + b"\n" + lines(1)[0])
    code, said = ended(start(bundle_folder, "--input", source, "--output", out))
    assert (code, said.startswith("edgedc:")) == (1, True)
    assert "1 of 2 questions failed" in said
    assert [row["status"] for row in read(out)] == ["failed", "decomposed"]


@pytest.mark.parametrize("engine", ["llamacpp", "onnx"])
def test_a_question_of_16_megabytes_is_refused_before_it_is_tokenized(bundle_folder, tmp_path, engine):
    """Which took 0.7 GB with llama.cpp's tokenizer, and 3 GB with tokenizers."""

    def most_memory(question: str) -> int:
        source, out = tmp_path / "q.jsonl", tmp_path / "d.jsonl"
        source.write_bytes(json.dumps({"question": question}).encode() + b"\n")
        with start(bundle_folder, "--backend", engine, "--input", source, "--output", out) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        (row,) = read(out)
        out.unlink()
        assert (row["status"] == "failed") is (len(question) > 1000)
        assert "more than the model's context" in row.get("error", "more than the model's context")
        return used.ru_maxrss

    assert most_memory("How many words? " * 990_000) < most_memory("How many words?") + 200_000  # kB


def test_places_that_cannot_be_written_or_read_are_one_line(bundle_folder, tmp_path):
    source, folder = tmp_path / "q.jsonl", tmp_path / "folder"
    source.write_bytes(lines(1)[0])
    folder.mkdir()
    for given, out, reason in (
        (folder, tmp_path / "d.jsonl", "folder: cannot be read: Is a directory"),
        (source, folder, "folder: cannot be written: not a regular file"),
        (source, source / "d.jsonl", "q.jsonl is not a folder"),
        (source, Path("/dev/null"), "/dev/null: cannot be written: not a regular file"),
    ):
        code, said = ended(start(bundle_folder, "--input", given, "--output", out))
        assert (code, reason in said) == (2, True), said
    assert ended(start(bundle_folder, "--input", source, "--output", tmp_path / "new" / "folder" / "d.jsonl"))[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"q.jsonl", "folder", "new"}


def test_two_processes_do_not_write_to_one_output(bundle_folder, tmp_path):
    source, out = tmp_path / "q.jsonl", tmp_path / "d.jsonl"
    source.write_bytes(b"".join(lines(2)))
    first = start(bundle_folder, "--input", "-", "--output", out, stdin=subprocess.PIPE)
    first.stdin.write(lines(1)[0])
    first.stdin.flush()
    _wait_for_more(first, out, 1)
    code, said = ended(start(bundle_folder, "--input", source, "--output", out))
    assert code == 2
    assert "d.jsonl: another process is writing to it" in said
    first.communicate(lines(2)[1], timeout=60)
    assert [row["id"] for row in read(out)] == [1, 2]


def no_more_than(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_no_room_for_a_row_leaves_whole_rows_and_a_rerun_goes_on(bundle_folder, tmp_path):
    source, out = tmp_path / "q.jsonl", tmp_path / "d.jsonl"
    source.write_bytes(b"".join(lines(8)))
    limited = start(bundle_folder, "--input", source, "--output", out, preexec_fn=partial(no_more_than, 3000))
    code, said = ended(limited)
    assert code == 1
    assert "d.jsonl: cannot be written: File too large; run again to go on from there" in said
    assert out.read_bytes().endswith(b"}\n")
    assert 0 < len(read(out)) < 8
    assert ended(start(bundle_folder, "--input", source, "--output", out))[0] == 0
    assert [row["id"] for row in read(out)] == list(range(1, 9))


@pytest.mark.slow
def test_a_full_disk_leaves_whole_rows_and_a_rerun_goes_on(bundle_folder, tmp_path):
    source, disk = tmp_path / "q.jsonl", tmp_path / "disk"
    source.write_bytes(b"".join(lines(40)))
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "none", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("a disk of 16 kB can be mounted by root only")
    try:
        code, said = ended(start(bundle_folder, "--input", source, "--output", disk / "d.jsonl"))
        assert code == 1
        assert "cannot be written: No space left on device; run again" in said
        there = read(disk / "d.jsonl")
        assert 0 < len(there) < 40
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        assert ended(start(bundle_folder, "--input", source, "--output", disk / "d.jsonl"))[0] == 0
        assert [row["id"] for row in read(disk / "d.jsonl")] == list(range(1, 41))
    finally:
        subprocess.run(["umount", disk], check=True)
