import json

import pytest
from click.testing import CliRunner

from edgedc.cli import cli
from edgedc.errors import InputError, SolverTimeout
from edgedc.generation import Generation
from edgedc.ledger import Usage
from edgedc.pipeline import Decomposer
from edgedc.solvers.loopback import Timing
from edgedc.solvers.simulated import simulated_server
from edgedc.tasks import Example, Selection, load_examples
from edgedc.tasks.microworld import problems
from train.data import read_training_rows
from train.teach import teach

EXAMPLES = load_examples(Selection(limit=12))


def quiet(done, total):
    pass


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Teacher:
    """Gives the same reply to everything, and fails where it is told to."""

    def __init__(self, reply="1. First?\n2. Then?", fail_at=None, finish="stop"):
        self.reply, self.fail_at, self.finish, self.asked = reply, fail_at, finish, 0

    def __call__(self, messages, *, max_tokens):
        self.asked += 1
        if self.asked == self.fail_at:
            raise SolverTimeout("teacher: no answer")
        return Generation(self.reply, Usage(10, 5, source="server"), 0.1, 0.2, self.finish)

    def decomposer(self, cap=5):
        return Decomposer("teacher", "remote", self, "instruct-1", cap)


def test_gold_rows_can_be_trained_on(tmp_path):
    counts = teach(EXAMPLES, None, tmp_path / "rows.jsonl", report=quiet)
    rows, left_out = read_training_rows(tmp_path / "rows.jsonl")
    assert [row["subquestions"] for row in rows] == [e.decomposition.texts for e in EXAMPLES]
    assert sum(counts.values()) == 12
    assert not left_out


def test_a_rerun_asks_for_nothing_twice(tmp_path):
    out, teacher = tmp_path / "rows.jsonl", Teacher(fail_at=6)
    with pytest.raises(SolverTimeout):
        teach(EXAMPLES, teacher.decomposer(), out, concurrency=2, report=quiet)
    kept = len(rows_of(out))
    assert 4 <= kept < 12
    second = Teacher()
    teach(EXAMPLES, second.decomposer(), out, concurrency=3, report=quiet)
    assert second.asked == 12 - kept
    assert sorted(row["id"] for row in rows_of(out)) == sorted(e.id for e in EXAMPLES)
    teach(EXAMPLES, second.decomposer(), out, report=quiet)
    assert second.asked == 12 - kept


def test_another_cap_or_teacher_is_another_row(tmp_path):
    out = tmp_path / "rows.jsonl"
    teach(EXAMPLES[:2], Teacher().decomposer(cap=5), out, report=quiet)
    teach(EXAMPLES[:2], Teacher().decomposer(cap=3), out, report=quiet)
    assert [row["cap"] for row in rows_of(out)] == [5, 5, 3, 3]


@pytest.mark.parametrize(
    ("teacher", "status"),
    [
        (Teacher("I would rather not."), "unparsed"),
        (Teacher("No decomposition"), "not_needed"),
        (Teacher(finish="length"), "unparsed"),
        (Teacher("1. a?\n2. b?\n3. c?\n4. d?\n5. e?\n6. f?"), "over the cap"),
    ],
)
def test_odd_replies_are_kept_and_counted(tmp_path, teacher, status):
    assert teach(EXAMPLES[:3], teacher.decomposer(), tmp_path / "rows.jsonl", report=quiet) == {status: 3}
    assert {row["raw"] for row in rows_of(tmp_path / "rows.jsonl")} == {teacher.reply}


def test_without_a_teacher_the_examples_must_have_decompositions(tmp_path):
    with pytest.raises(InputError, match="question 7 has no decomposition of its own: name a model with --teacher"):
        teach([Example("7", "Why?")], None, tmp_path / "rows.jsonl", report=quiet)
    assert not (tmp_path / "rows.jsonl").exists()


def test_the_verb_teaches_over_http_within_its_budget(tmp_path):
    out = tmp_path / "rows.jsonl"
    with simulated_server(problems("train", 8), timing=Timing(0.0, 0.0)) as url:
        args = ["teach", "--limit", "8", "--teacher", "simulated-solver", "--teacher-url", url, "--price-as", "gpt-4o"]
        poor = CliRunner().invoke(cli, [*args, "--max-cost", "0.000001", str(out)])
        assert type(poor.exception).__name__ == "BudgetError"
        done = CliRunner().invoke(cli, [*args, "--max-cost", "1", str(out)])
    assert done.exit_code == 0, done.output
    assert "8 rows" in done.output
    assert "simulated" in done.output
    assert [row["subquestions"] for row in sorted(rows_of(out), key=lambda row: int(row["id"].split("-")[-1]))] == [
        p.decomposition.texts for p in problems("train", 8)
    ]
