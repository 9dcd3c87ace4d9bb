import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from test_export import make_model

from edgedc.commands._say import say
from edgedc.decomposition import decomposition_of, render
from edgedc.tasks.microworld import problems

QUESTIONS = [problem.question for problem in problems("train", 5)]


@pytest.fixture
def run(edgedc):
    return partial(edgedc, "decompose", "--threads", "1")


def write_jsonl(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_jsonl(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def batch(bundle, source, output, *more):
    return "--model", bundle, "--max-tokens", 60, "--input", source, "--output", output, *more


# -- one question


def test_json_text_and_stdin_agree(run, bundle_folder, monkeypatch):
    code, out, err = run("--model", bundle_folder, "--backend", "llamacpp", "--json", QUESTIONS[0])
    row = json.loads(out)
    assert (code, err) == (0, "")
    assert row["question"] == QUESTIONS[0]
    made = decomposition_of(s["text"] for s in row["subquestions"])
    assert row["status"] == made.status
    assert [s["needs"] for s in row["subquestions"]] == [list(s.needs) for s in made.subquestions]
    assert row["prompt_tokens"] > 10
    assert row["output_tokens"] > 1
    assert 0 < row["first_token_s"] <= row["total_s"]
    assert row["backend"].startswith("llama.cpp")
    assert row["over_cap"] is False

    code, text, _ = run("--model", bundle_folder, "--backend", "llamacpp", QUESTIONS[0])
    assert (code, text) == (0, render(made) + "\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(QUESTIONS[0].encode("utf-8-sig") + b"\r\n")))
    assert run("--model", bundle_folder, "--backend", "llamacpp", "-") == (0, text, "")


def test_backends_print_the_same(run, bundle_folder, model_folder):
    reference = run("--model", model_folder, QUESTIONS[1])
    assert reference[0] == 0
    assert run("--model", bundle_folder, "--backend", "llamacpp", "--quantization", "f16", QUESTIONS[1]) == reference
    assert run("--model", bundle_folder, "--backend", "onnx", QUESTIONS[1]) == reference


def test_the_newest_bundle_is_taken_and_named(run, bundle_folder, monkeypatch):
    monkeypatch.chdir(bundle_folder.parent)
    code, out, err = run(QUESTIONS[0])
    assert (code, out) == run("--model", bundle_folder, QUESTIONS[0])[:2]
    assert str(bundle_folder) in err


def test_a_reply_that_is_cut_is_unparsed_and_fails(run, bundle_folder):
    code, out, err = run("--model", bundle_folder, "--max-tokens", 1, QUESTIONS[0])
    assert code == 1
    assert out.strip() in run("--model", bundle_folder, QUESTIONS[0])[1]
    assert "cut at 1 token\n" in err
    code, out, _ = run("--model", bundle_folder, "--max-tokens", 1, "--json", QUESTIONS[0])
    assert (code, json.loads(out)["status"]) == (1, "unparsed")


def test_more_subquestions_than_asked_for_are_pointed_out_not_dropped(run, bundle_folder):
    row = json.loads(run("--model", bundle_folder, "--max-subquestions", 1, "--json", QUESTIONS[0])[1])
    assert row["over_cap"] is (len(row["subquestions"]) > 1)
    assert ("more than the 1" in row["note"]) is row["over_cap"]


class Terminal(io.StringIO):
    """A terminal that remembers what was on it after each write."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def isatty(self):
        return True

    def write(self, text):
        super().write(text)
        self.seen.append(self.getvalue())
        return len(text)


def test_on_a_terminal_the_list_appears_as_it_forms(run, bundle_folder, monkeypatch):
    code, text, _ = run("--model", bundle_folder, QUESTIONS[0])
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run("--model", bundle_folder, QUESTIONS[0])[0] == code == 0
    assert terminal.getvalue() == text
    assert len(terminal.seen) > 5
    assert all(text.startswith(seen) for seen in terminal.seen)

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run("--model", bundle_folder, "--json", QUESTIONS[0])[0] == 0
    assert json.loads(terminal.getvalue())["raw"] == text.rstrip("\n")


def test_text_gives_a_terminal_no_orders(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    say("1. What is \x1b]0;owned\x07 a \x9b31mred thing\t?\r\n2. \ud800", nl=False)
    assert sys.stdout.getvalue() == "1. What is \ufffd]0;owned\ufffd a \ufffd31mred thing\t?\ufffd\n2. \\ud800"


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_full_disk_is_one_line(bundle_folder, how):
    command = [sys.executable, "-m", "edgedc", "decompose", "--model", bundle_folder, *how, "How many legs?"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("edgedc: stdout: cannot be written: No space left on device\n")
    assert done.returncode == 1


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A model of random weights, which writes anything but lists."""
    return make_model(tmp_path_factory.mktemp("untrained") / "random", max_position_embeddings=4096)


def test_the_grammar_makes_a_list_of_what_would_be_none_and_says_so(run, untrained):
    given = ("--model", untrained, "--max-tokens", 30, "--json", QUESTIONS[0])
    code, out, _ = run("--no-grammar", *given)
    assert (code, json.loads(out)["status"], json.loads(out)["constrained"]) == (1, "unparsed", False)
    _, out, _ = run(*given)
    row = json.loads(out)
    assert row["raw"].startswith("1. ") or row["raw"] == "No decomposition"
    assert row["constrained"] is True


def test_a_trained_model_writes_the_same_with_the_grammar_and_without(run, bundle_folder):
    for question in QUESTIONS:
        given = ("--model", bundle_folder, "--json", question)
        held, free = (json.loads(run(*given, grammar)[1]) for grammar in ("--grammar", "--no-grammar"))
        assert held["raw"] == free["raw"]
        assert not held["constrained"]
        assert not free["constrained"]


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--model", "BUNDLE", ""], "the question is empty"),
        (["--model", "BUNDLE", "  \n"], "the question is empty"),
        (["--model", "BUNDLE"], "give a question"),
        (["--model", "BUNDLE", "--output", "x.jsonl", "Who?"], "--output needs --input"),
        (["--model", "BUNDLE", "--input", "q.jsonl"], "q.jsonl: cannot be read: No such file"),
        (["--model", "BUNDLE", "--input", "-", "Who?"], "--input takes its questions from the file"),
        (["--model", "BUNDLE", "--input", "q.jsonl", "--output", "q.jsonl"], "both --input and --output"),
        (["--model", "BUNDLE", "--input", "absent.jsonl", "--output", "x.jsonl"], "absent.jsonl: cannot be read"),
        (["--model", "absent", "Who?"], "absent: no such folder"),
        (["--model", "BUNDLE", "--quantization", "q3_k_s", "Who?"], "no q3_k_s here"),
        (["--model", "BUNDLE", "--backend", "transformers", "Who?"], "not bundles"),
        (["--model", "BUNDLE", "word " * 5000], "more than the model's context"),
        (["--model", "BUNDLE", "--threads", "100000", "Who?"], "'--threads': 100000 is not in the range 1<=x<=512"),
        (["--model", "BUNDLE", "half \udcff character"], "lone surrogate"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(run, bundle_folder, tmp_path, monkeypatch, args, reason):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*(bundle_folder if arg == "BUNDLE" else arg for arg in args))
    assert (code, out) == (2, "")
    assert reason in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


# -- a file of questions


def test_rows_keep_the_order_and_the_duplicates(run, bundle_folder, tmp_path):
    given = [{"question": q} for q in QUESTIONS] + [{"question": QUESTIONS[0], "id": "again", "premise": None}]
    source, output = write_jsonl(tmp_path / "q.jsonl", given), tmp_path / "d.jsonl"
    code, out, err = run(*batch(bundle_folder, source, output))
    rows = read_jsonl(output)
    assert (code, out) == (0, "")
    assert [row["question"] for row in rows] == [row["question"] for row in given]
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5, "again"]
    assert len({row["key"] for row in rows}) == 6
    assert rows[0]["raw"] == rows[5]["raw"]
    assert "decompose: 6 of 6" in err

    before = output.read_bytes()
    code, _, err = run(*batch(bundle_folder, source, output))
    assert (code, output.read_bytes()) == (0, before)
    assert "6 of 6 rows are there already" in err


def test_columns_can_be_named(run, bundle_folder, tmp_path):
    source = write_jsonl(tmp_path / "q.jsonl", [{"q": QUESTIONS[0], "text": "It rains."}])
    one, two = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    assert run(*batch(bundle_folder, source, one, "--question-column", "q"))[0] == 0
    assert run(*batch(bundle_folder, source, two, "--question-column", "q", "--premise-column", "text"))[0] == 0
    assert read_jsonl(one)[0]["prompt_tokens"] < read_jsonl(two)[0]["prompt_tokens"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ('{"question": "Who?"}\n{"quest\n', "q.jsonl:2: not JSON"),
        ('{"question": "Who?"}\n[1]\n', "q.jsonl:2: each line must be a JSON object"),
        (
            '{"question": "Who?"}\n{"query": "Who?", "n": 1}\n',
            "q.jsonl:2: no column 'question'; its columns are: query, n",
        ),
        ('{"question": 7}\n', "q.jsonl:1: column 'question' is 7, not text"),
        ('{"question": " "}\n', "q.jsonl:1: the question is empty"),
        ('{"question": "\\ud83d"}\n', "q.jsonl:1: column 'question': not valid Unicode"),
        ("", "no questions"),
    ],
)
def test_a_bad_row_is_found_before_any_work(run, bundle_folder, tmp_path, lines, reason):
    source, output = tmp_path / "q.jsonl", tmp_path / "d.jsonl"
    source.write_text(lines)
    code, _, err = run(*batch(bundle_folder, source, output))
    assert code == 2
    assert reason in err
    assert not output.exists()


def test_a_prompt_that_is_too_long_fails_alone(run, bundle_folder, tmp_path):
    given = [{"question": QUESTIONS[0]}, {"question": "word " * 5000}, {"question": QUESTIONS[1]}]
    source, output = write_jsonl(tmp_path / "q.jsonl", given), tmp_path / "d.jsonl"
    code, _, err = run(*batch(bundle_folder, source, output))
    rows = read_jsonl(output)
    assert code == 1
    assert "1 of 3 questions failed" in err
    assert rows[1]["status"] == "failed"
    assert "more than the model's context" in rows[1]["error"]
    assert rows[0]["raw"]
    assert rows[2]["raw"]


def test_rows_of_another_run_are_not_mixed_in(run, bundle_folder, tmp_path):
    source, output = write_jsonl(tmp_path / "q.jsonl", [{"question": q} for q in QUESTIONS[:2]]), tmp_path / "d.jsonl"
    assert run(*batch(bundle_folder, source, output))[0] == 0
    before = output.read_bytes()
    first = {"question": QUESTIONS[0]}
    others = [
        write_jsonl(tmp_path / f"{k}.jsonl", [row, {"question": QUESTIONS[1]}])
        for k, row in enumerate([{"question": QUESTIONS[2]}, first | {"premise": "Long ago."}, first | {"id": "a"}])
    ]
    retold = shutil.copytree(bundle_folder, tmp_path / "retold")  # the same weights behind another template
    template = retold / "chat_template.jinja"
    template.write_text(f"Well.{template.read_text()}")
    for args in (
        batch(retold, source, output),
        batch(bundle_folder, source, output, "--backend", "onnx"),
        batch(bundle_folder, source, output, "--no-grammar"),
        batch(bundle_folder, source, output, "--max-subquestions", 2),
        batch(bundle_folder, source, output, "--max-tokens", 61),
        *[batch(bundle_folder, other, output) for other in others],
    ):
        code, _, err = run(*args)
        assert code == 2
        assert "row 1 is not this run's" in err
        assert output.read_bytes() == before


@pytest.mark.parametrize("content", ['{"mine": 1}\n', "a note without an end of line"])
def test_a_file_of_somebody_elses_is_left_alone(run, bundle_folder, tmp_path, content):
    source, output = write_jsonl(tmp_path / "q.jsonl", [{"question": "Who?"}]), tmp_path / "notes.txt"
    output.write_text(content)
    code, _, err = run(*batch(bundle_folder, source, output))
    assert code == 2
    assert "edgedc wrote" in err
    assert output.read_text() == content


def _start(bundle, source, output):
    code = "from edgedc.cli import main; main()"
    args = ["decompose", "--threads", "1", *map(str, batch(bundle, source, output))]
    return subprocess.Popen([sys.executable, "-c", code, *args], stderr=subprocess.PIPE, text=True)


def _wait_for_rows(process, output: Path, count: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if output.exists() and output.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.002)
    pytest.fail(f"no {count} rows: {process.communicate()}")


MANY = 200


@pytest.fixture
def many(tmp_path):
    return write_jsonl(tmp_path / "q.jsonl", [{"question": p.question} for p in problems("test", MANY)])


def test_a_kill_loses_nothing_and_doubles_nothing(run, bundle_folder, many, tmp_path):
    output = tmp_path / "d.jsonl"
    process = _start(bundle_folder, many, output)
    _wait_for_rows(process, output, 3)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    with output.open("ab") as file:
        file.write(b'{"key": "half a ro')  # what a kill in the middle of a write leaves
    there = output.read_bytes().count(b"\n")
    assert 3 <= there < MANY

    code, _, err = run(*batch(bundle_folder, many, output))
    assert code == 0
    assert f"{there} of {MANY} rows are there already" in err
    rows = read_jsonl(output)
    assert [row["question"] for row in rows] == [p.question for p in problems("test", MANY)]
    assert len({row["key"] for row in rows}) == MANY


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_an_interrupt_exits_130_and_leaves_whole_rows(bundle_folder, many, tmp_path):
    output = tmp_path / "d.jsonl"
    process = _start(bundle_folder, many, output)
    _wait_for_rows(process, output, 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.read_bytes().endswith(b"\n")
    assert 2 <= len(read_jsonl(output)) < MANY
    *_, kept, _, last = err.splitlines()
    assert last == "edgedc: interrupted"
    assert re.fullmatch(rf"Kept in {output}: \d+ rows\. The same command goes on from there\.", kept)
