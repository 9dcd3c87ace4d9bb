"""The comparison of local with remote decomposition: figures against known answers, resuming, failures, labels."""

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgedc.answers import Stage
from edgedc.backends.scripted import ScriptedBackend
from edgedc.bench.changes import read_bench
from edgedc.bench.cost import CostSettings
from edgedc.bench.metrics import Call, Record, Summary, call_of, summarise
from edgedc.bench.pair import MAX_FAILURES, Provider, Results, records_of, rows_beside, run_bench
from edgedc.bench.pair_tables import answers, show
from edgedc.bench.systems import BASELINES, System, remote_system
from edgedc.cli import cli
from edgedc.commands.bench.report import write_report
from edgedc.decomposer import Decomposer, Where
from edgedc.decomposition import decomposition_of, render
from edgedc.errors import BudgetError, ContextError, InputError, SolverReply, SolverTimeout
from edgedc.files import read_rows
from edgedc.generation import Generation, Message
from edgedc.ledger import Budget
from edgedc.prices import Price
from edgedc.solvers.loopback import Timing, serve
from edgedc.solvers.openai import OPENAI, OpenAISolver
from edgedc.solvers.simulated import MODEL, SimulatedSolver, Skill, simulated_server
from edgedc.tasks import Example, Selection, load_examples
from edgedc.tasks.microworld import problems, score
from edgedc.usage import Usage

PRICE = Price("big", input=1e-6, output=2e-6, cached=0.5e-6, date="2026-01-02", source="a test")
SPLIT = "1. How many apples?\n2. How many are left?"


class Fixed:
    """Says what it was given, in order, with the measurements it was given; an exception is raised instead."""

    def __init__(self, *replies: Generation | Exception, simulated: bool = False) -> None:
        self.model = "big"
        self.replies = list(replies)
        self.calls = 0
        self.simulated = simulated

    def solve(self, messages: Sequence[Message], *, max_tokens: int) -> Generation:
        self.calls += 1
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    generate = solve

    def close(self) -> None:
        pass


def reply(
    text: str, seconds: float, *, first: float | None = None, tokens: tuple[int, int] = (100, 10), sent: int = 0
) -> Generation:
    return Generation(text, Usage(*tokens, source="server"), first, seconds, "stop", sent)


def questions(count: int) -> list[Example]:
    gold = decomposition_of(["How many apples?", "How many are left?"])
    return [Example(str(k), f"Question {k}?", answer=str(k), decomposition=gold) for k in range(count)]


def same(text: str, example: Example) -> bool:
    return text.endswith(f"The answer is: {example.answer}")


def say(number: int, seconds: float = 1.0) -> Generation:
    return reply(f"The answer is: {number}", seconds, first=0.5, sent=1000)


def local(*replies: Generation | Exception, name: str = "local") -> System:
    backend = Fixed(*replies)
    return System(name, "static", Decomposer(name, "local", backend.generate, "compact-1"), identity=name)


def remote(*replies: Generation | Exception) -> System:
    decomposer = Decomposer("big", "remote", Fixed(*replies).solve, "instruct-1")
    return System("remote", "static", decomposer, identity="big", price=PRICE)


def bench(folder: Path, systems: list[System], solver: Fixed, count: int, **given: object) -> Results:
    provider = Provider(solver, PRICE, "http://name:secret@127.0.0.1:1/v1")
    return run_bench(systems, questions(count), provider=provider, score=same, output=folder / "bench.json", **given)


def test_the_figures_are_those_computed_by_hand(tmp_path: Path) -> None:
    here = local(
        reply(SPLIT, 0.2, first=0.1, tokens=(30, 11)),  # 10 intervals in 0.1 s: 100 tokens/s
        reply(SPLIT, 0.4, first=0.2, tokens=(30, 1)),  # one token has no interval
        reply("1. How many apples?", 0.3, first=0.3, tokens=(30, 5)),  # all at once: no interval either
    )
    there = remote(
        reply(SPLIT, 2.0, first=1.0, tokens=(130, 21), sent=500),  # 20 tokens/s
        reply(SPLIT, 4.0, first=1.5, tokens=(130, 26), sent=500),  # 10 tokens/s
        reply(SPLIT, 3.0, first=2.0, tokens=(130, 41), sent=500),  # 40 tokens/s
    )
    # the systems take turns: local, remote, local, remote, ...
    solver = Fixed(say(0, 1.0), say(0, 1.0), say(1, 2.0), say(9, 2.0), say(9, 3.0), say(9, 3.0))
    results = bench(tmp_path, [here, there], solver, 3)
    near, far = results.systems

    assert near.accuracy == pytest.approx(2 / 3)
    assert far.accuracy == pytest.approx(1 / 3)
    assert near.exact == pytest.approx(2 / 3)
    assert far.exact == 1
    assert near.decompose_first_s == pytest.approx(0.2)
    assert near.decompose_s == pytest.approx(0.3)
    assert near.decompose_tokens_per_s == pytest.approx(100)
    assert far.decompose_tokens_per_s == pytest.approx(20)
    assert (near.decompose_tokens_in, near.decompose_tokens_out) == (30, pytest.approx(17 / 3))
    assert (near.solve_tokens_in, near.solve_tokens_out) == (100, 10)
    # solver: 100 in and 10 out are $0.00012; remote decomposer: 130 in and (21 + 26 + 41) / 3 out
    assert near.solve_usd_per_1000 == pytest.approx(0.12)
    assert near.decompose_usd_per_1000 == 0
    assert far.decompose_usd_per_1000 == pytest.approx(0.13 + 2e-3 * 88 / 3)
    assert near.usd_per_correct == pytest.approx(3 * 0.00012 / 2)
    assert far.usd_per_correct == pytest.approx(3 * 0.00012 + (390 + 176) * 1e-6)
    assert (near.bytes_per_question, far.bytes_per_question) == (1000, 1500)
    assert answers(results) == [
        "Local decomposition: accuracy 67 % against 33 % remote, 0.30 s against 3.00 s to decompose, "
        "$0.12 against $0.31 per 1,000 questions."
    ]


@pytest.mark.parametrize(("count", "p90"), [(19, None), (20, 18.1)])
def test_a_percentile_needs_enough_questions(count: int, p90: float | None) -> None:
    records = [Record("cot", str(k), "cot", seconds=k + 1.0) for k in range(count)]
    about = {"system": "cot", "mode": "cot", "decomposer": None, "identity": ""}
    summary = summarise(records, **about, solver_price=PRICE, decomposer_price=None)
    assert summary.whole_s == (count + 1) / 2
    assert summary.whole_p90_s == (None if p90 is None else pytest.approx(p90))


def test_one_question_and_no_tokens_are_stated_not_invented(tmp_path: Path) -> None:
    here = local(reply("", 0.3, tokens=(30, 0)))
    results = bench(tmp_path, [here, System("single-stage", "single-stage")], Fixed(say(9), say(9)), 1)
    near, alone = results.systems
    assert (near.decompose_first_s, near.decompose_tokens_per_s, near.whole_p90_s) == (None, None, None)
    assert (near.decompose_tokens_out, near.accuracy, near.usd_per_correct) == (0, 0, None)
    assert near.modes == {"cot": 1}
    assert (alone.decompose_s, alone.decompose_usd_per_1000, alone.decompose_tokens_in) == (None, None, None)
    text = show(results)
    assert "local: 1 of 1 asked in mode cot instead of static (0 need no decomposition, 1 could not be read)" in text
    assert "nan" not in text.lower()
    assert "None" not in text


def test_without_gold_there_is_no_accuracy(tmp_path: Path) -> None:
    results = run_bench(
        [System("cot", "cot")],
        [Example("a", "Why?")],
        provider=Provider(Fixed(say(1)), PRICE),
        score=same,
        output=tmp_path / "b.json",
    )
    (summary,) = results.systems
    assert (summary.scored, summary.accuracy, summary.exact, summary.usd_per_correct) == (0, None, None, None)


def test_what_the_calls_of_failed_questions_cost_is_kept_apart() -> None:
    def call(stage: str, where: Where) -> Call:
        return Call(stage, where, 100, 0, 10, "server", None, 1.0, "stop", 500)

    def summary(where: Where) -> Summary:
        decompose = call("decompose", where)
        done = Record("s", "0", "static", correct=True, calls=(decompose, call("solve", "remote")))
        failed = Record("s", "1", error="big: 503", calls=(decompose, call("step 1", "remote")))
        about = {"system": "s", "mode": "static", "decomposer": where, "identity": "s"}
        return summarise([done, failed], **about, solver_price=PRICE, decomposer_price=dear)

    dear = replace(PRICE, input=1e-3)
    near, far = summary("local"), summary("remote")
    assert (near.failed_usd, far.failed_usd) == pytest.approx((0.00012, 0.00012 + 0.10002))
    assert (near.usd_per_1000, far.usd_per_1000) == pytest.approx((0.12, 0.12 + 100.02))
    assert (near.bytes_per_question, near.usd_per_correct) == (1000, pytest.approx(0.00012))


def test_what_attempts_may_cost_beyond_their_tokens_is_unknown_where_nobody_kept_count(tmp_path: Path) -> None:
    def doubtful(where: Where, booked: float | None) -> float | None:
        return call_of(Stage("decompose", where, replace(say(1), booked=booked)), PRICE).doubtful_usd

    assert (doubtful("local", None), doubtful("remote", None)) == (0, None)
    assert doubtful("remote", 0.001) == pytest.approx(0.001 - 0.00012)
    (near,) = bench(tmp_path, [local(reply(SPLIT, 0.1))], Fixed(replace(say(0), booked=0.00012)), 1).systems
    assert near.doubtful_usd == pytest.approx(0)
    (far,) = bench(tmp_path / "other", [remote(reply(SPLIT, 0.1))], Fixed(replace(say(0), booked=0.00012)), 1).systems
    assert far.doubtful_usd is None


def test_without_all_gold_there_is_no_cost_of_a_right_answer() -> None:
    """What the others cost would be in it, right or not."""
    solve = Call("solve", "remote", 100, 0, 10, "server", None, 1.0, "stop", 500)
    records = [Record("cot", str(k), "cot", correct=correct, calls=(solve,)) for k, correct in enumerate((True, None))]
    about = {"system": "cot", "mode": "cot", "decomposer": None, "identity": ""}
    made = summarise(records, **about, solver_price=PRICE, decomposer_price=None)
    assert (made.scored, made.accuracy, made.usd_per_correct) == (1, 1.0, None)


def test_a_failure_is_counted_and_shown_and_asked_again(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    first = bench(
        tmp_path,
        [System("cot", "cot")],
        Fixed(say(0), SolverTimeout("big: no answer in 5 s"), say(2)),
        3,
        progress=lambda done, total, record: seen.append((done, total, record.error)),
    )
    (summary,) = first.systems
    assert (summary.questions, summary.failed, summary.scored, summary.accuracy) == (3, 1, 2, 1)
    assert "cot: 1 of 3 failed, the first: big: no answer in 5 s" in show(first)
    assert seen == [(1, 3, ""), (2, 3, "big: no answer in 5 s"), (3, 3, "")]

    solver = Fixed(say(1))
    (again,) = bench(tmp_path, [System("cot", "cot")], solver, 3).systems
    assert (solver.calls, again.failed, again.scored) == (1, 0, 3)


def test_a_solver_that_is_down_ends_the_bench_and_the_rows_stay(tmp_path: Path) -> None:
    solver = Fixed(say(0), *(SolverReply("big: 503") for _ in range(MAX_FAILURES)))
    with pytest.raises(SolverReply, match="503"):
        bench(tmp_path, [System("cot", "cot")], solver, 9)
    rows = list(read_rows(rows_beside(tmp_path / "bench.json")))
    assert [bool(row["error"]) for row in rows] == [False] + [True] * MAX_FAILURES
    assert not (tmp_path / "bench.json").exists()


@pytest.mark.parametrize("count", [1, 2])
def test_a_bench_of_nothing_but_failures_fails(tmp_path: Path, count: int) -> None:
    with pytest.raises(SolverReply, match="503"):
        bench(tmp_path, [System("cot", "cot")], Fixed(*(SolverReply("big: 503") for _ in range(count))), count)


def test_a_dead_solver_is_noticed_across_systems_and_a_dead_decomposer_within_one(tmp_path: Path) -> None:
    systems = [System("single-stage", "single-stage"), System("cot", "cot")]
    solver = Fixed(say(0), *(SolverReply("big: 503") for _ in range(9)))
    with pytest.raises(SolverReply):
        bench(tmp_path, systems, solver, 9)
    assert solver.calls == 1 + MAX_FAILURES

    dead = remote(*(SolverReply("decomposer: 503") for _ in range(9)))
    solver = Fixed(*(say(k) for k in range(9)))
    with pytest.raises(SolverReply, match="decomposer"):
        bench(tmp_path / "other", [System("cot", "cot"), dead], solver, 9)
    assert solver.calls == MAX_FAILURES


def test_a_question_too_long_for_the_decomposer_is_a_failed_row(tmp_path: Path) -> None:
    here = local(ContextError("too long"), reply(SPLIT, 0.1))
    (near,) = bench(tmp_path, [here], Fixed(say(1)), 2).systems
    assert (near.failed, near.first_error, near.accuracy) == (1, "too long", 1)


def test_a_killed_bench_resumes_without_paying_twice(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    systems = [System("single-stage", "single-stage"), System("cot", "cot")]
    with pytest.raises(Killed):
        bench(tmp_path, systems, Fixed(say(0), say(0), say(1), Killed()), 2)
    solver = Fixed(say(9))
    results = bench(tmp_path, systems, solver, 2)
    assert solver.calls == 1
    assert [summary.accuracy for summary in results.systems] == [1, 0.5]


def test_another_price_needs_no_new_calls(tmp_path: Path) -> None:
    bench(tmp_path, [System("cot", "cot")], Fixed(say(0)), 1)
    dear = Price("big", input=1e-3, output=0, cached=0, date="2026-01-02", source="a test")
    (summary,) = run_bench(
        [System("cot", "cot")],
        questions(1),
        provider=Provider(Fixed(), dear, "http://name:secret@127.0.0.1:1/v1"),
        score=same,
        output=tmp_path / "bench.json",
    ).systems
    assert summary.usd_per_1000 == pytest.approx(100)


def test_another_model_is_not_the_same_row(tmp_path: Path) -> None:
    bench(tmp_path, [local(reply(SPLIT, 0.1))], Fixed(say(0)), 1)
    other = local(reply(SPLIT, 0.1), name="other")
    solver = Fixed(say(0))
    bench(tmp_path, [other], solver, 1)
    assert solver.calls == 1


def test_whatever_determines_a_row_makes_another_and_its_price_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = questions(1)

    def key(
        example: Example = example,
        *,
        model: str = "big",
        url: str = "http://here/v1",
        price: Price = PRICE,
        solution: int = 600,
        **decomposer: object,
    ) -> str:
        made = Decomposer("local", "local", Fixed(reply(SPLIT, 0.1)).generate, **{"style": "compact-1"} | decomposer)
        solver = Fixed(say(0))
        solver.model = model
        results = run_bench(
            [System("local", "static", made, identity="local")],
            [example],
            provider=Provider(solver, price, url),
            score=same,
            output=tmp_path / "bench.json",
            max_tokens=solution,
        )
        return results.keys["local"][0]

    keys = [
        key(),
        key(replace(example, premise="Five apples.")),
        key(replace(example, answer="7")),
        key(model="other"),
        key(url="http://there/v1"),
        key(solution=60),
        key(style="instruct-1"),
        key(cap=2),
        key(max_tokens=60),
    ]
    assert key(price=replace(PRICE, output=1.0)) == keys[0]
    monkeypatch.setattr("edgedc.bench.pair.__version__", "9.9")
    assert len({*keys, key()}) == 10


def test_rows_of_another_run_are_in_no_figure(tmp_path: Path) -> None:
    """The file keeps them, as they are paid for; a name says nothing of the model behind it."""
    solver = Fixed(*[say(0)] * 5)
    bench(tmp_path, [local(reply(SPLIT, 0.1), reply(SPLIT, 0.1), reply(SPLIT, 0.1))], solver, 3)
    retrained = replace(local(reply(SPLIT, 9.0), reply(SPLIT, 9.0)), identity="another")
    results = bench(tmp_path, [retrained], solver, 2)
    path = tmp_path / "bench.json"
    (made,) = records_of(results, rows_beside(path)).values()
    assert [record.calls[0].total_s for record in made] == [9.0, 9.0]
    (kept,) = read_bench(path).records.values()
    assert [record.calls[0].total_s for record in kept.values()] == [9.0, 9.0]
    write_report(tmp_path / "report.html", path, results, CostSettings())
    charts = re.search(r"const charts = (\{.*\});", (tmp_path / "report.html").read_text())
    assert charts
    assert len(json.loads(charts[1])["waits"]["data"]["values"]) == 2
    rows_beside(path).write_text("")
    with pytest.raises(InputError, match="raw rows"):
        read_bench(path)


def test_systems_are_checked_before_any_call(tmp_path: Path) -> None:
    solver = Fixed()
    decomposer = Decomposer("big", "remote", solver.solve, "instruct-1")
    with pytest.raises(InputError, match="needs a price"):
        bench(tmp_path, [System("remote", "static", decomposer)], solver, 1)
    with pytest.raises(InputError, match="named twice"):
        bench(tmp_path, [System("cot", "cot"), System("cot", "cot")], solver, 1)
    assert solver.calls == 0


def test_the_json_says_how_and_holds_no_secret(tmp_path: Path) -> None:
    systems = [local(reply(SPLIT, 0.1)), remote(reply(SPLIT, 1.0))]
    results = bench(tmp_path, systems, Fixed(say(0), say(0), simulated=True), 1, selection={"task": "microworld"})
    text = (tmp_path / "bench.json").read_text()
    assert "secret" not in text
    assert str(tmp_path) not in text
    saved = json.loads(text)
    assert saved["solver"]["simulated"] is True
    assert saved["solver"]["host"] == "127.0.0.1:1"
    assert saved["solver"]["price"]["date"] == "2026-01-02"
    assert saved["selection"] == {"task": "microworld"}
    assert saved["machine"]["cores"] >= 1
    assert (tmp_path / saved["rows"]).is_file()
    shown = show(results)
    assert "SIMULATED" in shown.splitlines()[0]
    assert "SIMULATED" in shown.splitlines()[-1]
    assert max(map(len, shown.splitlines()[:14])) <= 120


AT_ONCE = Timing(0, 0)


def test_over_a_real_socket_nothing_is_asked_twice(tmp_path: Path) -> None:
    count = 6
    known = list(problems("test", count))
    mind, requests = SimulatedSolver(known, Skill(asked=0, reasoned=1, in_head=1), 0), []

    def counted(messages: Sequence[Message]) -> str:
        requests.append(messages)
        return mind.reply(messages)

    def run(url: str) -> Results:
        solver = solvers.enter_context(closing(OpenAISolver(MODEL, url)))
        backend = ScriptedBackend([render(problem.decomposition) for problem in known])
        decomposer = Decomposer(backend.name, "local", backend.generate, "compact-1")
        near = System("local", "static", decomposer, identity="abc")
        far = remote_system(solver, PRICE, solver.url, "static")
        provider = Provider(solver, PRICE, solver.url)
        examples = load_examples(Selection(split="test", limit=count))
        return run_bench([*BASELINES, far, near], examples, provider=provider, score=score, output=tmp_path / "b.json")

    with ExitStack() as solvers, serve(counted, MODEL, port=0, timing=AT_ONCE, simulated=True) as url:
        results = run(url)
        asked = len(requests)
        again = run(url)
    assert asked == 5 * count  # single-stage, cot, decompose + solve, solve
    assert len(requests) == asked
    assert again.systems == results.systems
    assert again.solver.simulated
    assert again.solver.priced_as == "big"
    alone, reasoned, far, near = again.systems
    assert (alone.accuracy, reasoned.accuracy) == (0, 0)
    split = sum(bool(problem.decomposition.texts) for problem in known) / count
    assert (far.accuracy, near.accuracy) == (split, split)
    assert (far.exact, near.exact) == (1, 1)
    assert near.bytes_per_question < far.bytes_per_question  # type: ignore[operator]
    assert near.usd_per_1000 < far.usd_per_1000  # type: ignore[operator]


def cli_bench(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, ["bench", "pair", *map(str, args)])


def test_the_verb_prints_tables_and_writes_json(tmp_path: Path, bundle_folder: Path) -> None:
    output = tmp_path / "out.json"
    with simulated_server(problems("test", 2), timing=AT_ONCE) as url:
        given = ("--model", bundle_folder, "--limit", "2", "--solver-url", url, "--price-as", "gpt-4o-mini")
        common = ("--solver-model", MODEL, "--output", output)
        shown = cli_bench(*given, *common)
        as_json = cli_bench(*given, *common, "--json")
    assert shown.exit_code == 0, shown.output
    assert "SIMULATED" in shown.stdout.splitlines()[0]
    assert "priced as gpt-4o-mini" in shown.stdout.splitlines()[0]
    assert shown.stdout.splitlines()[-1].startswith(f"With a SIMULATED solver ({MODEL}, priced as gpt-4o-mini): Local")
    saved, printed = json.loads(output.read_text()), json.loads(as_json.stdout)
    assert [system["system"] for system in saved["systems"]][:3] == ["single-stage", "cot", "remote"]
    assert saved["systems"] == printed["systems"]
    assert saved["solver"]["simulated"] is True
    assert str(tmp_path) not in output.read_text()


def test_what_is_recorded_can_be_evaluated_offline(tmp_path: Path, bundle_folder: Path) -> None:
    output, calls = tmp_path / "b.json", tmp_path / "calls.jsonl"
    with simulated_server(problems("test", 2), timing=AT_ONCE) as url:
        given = ("--model", bundle_folder, "--limit", "2", "--solver-url", url, "--price-as", "gpt-4o-mini")
        made = cli_bench(*given, "--solver-model", MODEL, "--output", output, "--record", calls)
    assert made.exit_code == 0, made.output
    rows = list(read_rows(rows_beside(output)))
    remote = [call for row in rows for call in row["calls"] if call["where"] == "remote"]
    assert len(list(read_rows(calls))) == len(remote) == 2 * (1 + 1 + 2 + 1)  # a remote decomposer is a call of its own
    asked = ["evaluate", "--decomposer", "cot", "--limit", "2", "--replay", str(calls), "--json"]
    again = CliRunner().invoke(cli, asked)
    assert again.exit_code == 0, again.output
    there = json.loads(again.stdout)
    assert (there["failed"], there["simulated"]) == (0, True)
    right = [row["correct"] for row in rows if row["system"] == "cot"]
    assert there["score"]["value"] == sum(right) / len(right)


def test_a_ceiling_ends_the_verb_before_the_call(tmp_path: Path, bundle_folder: Path) -> None:
    with simulated_server(problems("test", 2), timing=AT_ONCE) as url:
        given = ("--model", bundle_folder, "--limit", "2", "--solver-url", url, "--price-as", "gpt-4o")
        ended = cli_bench(*given, "--solver-model", MODEL, "--output", tmp_path / "b.json", "--max-cost", "0.001")
    assert isinstance(ended.exception, BudgetError)
    assert "goes on from there" in ended.stderr
    assert not (tmp_path / "b.rows.jsonl").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--solver-model", "unheard-of"), "no price is known for 'unheard-of'.*--price-as"),
        (("--solver-model", "gpt-4o", "--remote-model", "unheard-of"), "no price is known for 'unheard-of'"),
        (("--solver-model", "gpt-4o", "--prices", "absent.json"), "absent.json: cannot read"),
        (("--solver-model", "gpt-4o", "--model", "absent"), "absent: no such folder"),
        (("--solver-model", MODEL, "--solver-url", OPENAI), "start it with  edgedc simulate  and give --solver-url"),
        (("--solver-model", "unheard-of", "--solver-url", OPENAI), "no key for api.openai.com"),
        (("--solver-model", "gpt-4o", "--remote-url", "nowhere"), "check --remote-url"),
        ((), "no solver"),
    ],
)
def test_the_verb_refuses_before_it_asks_anyone(
    tmp_path: Path, given: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # no bundle is here: what a command says wrong of its flags comes before that
    refused = cli_bench("--limit", "1", "--solver-url", "http://127.0.0.1:1/v1", "--output", "b.json", *given)
    with pytest.raises(InputError, match=says):
        raise refused.exception or AssertionError(refused.output)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--output", "notes.txt"), "notes.txt: cannot be read as JSON.*; it would be overwritten"),
        (("--task", "jsonl", "--data", "mine.jsonl", "--output", "mine.jsonl"), "mine.jsonl: not the results of"),
        (("--html", "notes.txt"), "notes.txt: not a report"),
        (("--html", "b.json"), "b.json: two files would be written there"),
        (("--html", "b.rows.jsonl"), "b.rows.jsonl: two files"),
        (("--html", "calls.jsonl", "--record", "calls.jsonl"), "calls.jsonl: two files"),
        (("--output", "calls.jsonl", "--record", "calls.jsonl"), "calls.jsonl: two files"),
        (("--html", "notes.txt/b.html"), "notes.txt is not a folder"),
    ],
)
def test_nothing_is_overwritten_that_the_verb_did_not_write(
    tmp_path: Path, given: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that is said before anything is paid for."""
    monkeypatch.chdir(tmp_path)
    held = {"notes.txt": "years of work", "mine.jsonl": '{"question": "Why?", "answer": "me"}\n'}
    for name, text in held.items():
        Path(name).write_text(text)
    reached = ("--solver-model", MODEL, "--solver-url", "http://127.0.0.1:1/v1", "--price-as", "gpt-4o-mini")
    refused = cli_bench(*reached, "--output", "b.json", *given)
    with pytest.raises(InputError, match=says):
        raise refused.exception or AssertionError(refused.output)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == held


def test_two_budgets_at_one_ceiling_spend_together() -> None:
    cheap = Budget(1.0, PRICE)
    dear = cheap.at(Price("huge", input=1e-3, output=1e-3, cached=0, date="", source=""))
    cheap.settle(cheap.reserve(100, 0), 0.6)
    with pytest.raises(BudgetError):
        dear.reserve(500, 0)
    dear.settle(dear.reserve(300, 0), 0.3)
    assert cheap.spent == pytest.approx(0.9)
