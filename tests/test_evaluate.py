import json
import shutil
from contextlib import ExitStack
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedc.bench.quality import Share, quality_of, score_decomposition, wilson_interval
from edgedc.bundle import read_manifest
from edgedc.catalogue import pulled
from edgedc.commands._local import Settings
from edgedc.commands.evaluate.systems import Decomposers
from edgedc.decomposition import Decomposition, decomposition_of
from edgedc.prompts import MAX_SUBQUESTIONS
from edgedc.tasks.microworld import problems

TWO = decomposition_of(["How many?", "What is #1 times 2?"])
NONE = decomposition_of([])
UNPARSED = Decomposition((), "unparsed", "mumble")


@pytest.mark.parametrize(
    ("made", "known", "exact", "parsed", "status", "count"),
    [
        (TWO, TWO, True, True, True, True),
        (NONE, NONE, True, True, True, True),
        (decomposition_of(["How many?", "What is #1 times 3?"]), TWO, False, True, True, True),
        (decomposition_of(reversed(TWO.texts)), TWO, False, True, True, True),
        (decomposition_of(["How many?"]), TWO, False, True, True, False),
        (NONE, TWO, False, True, False, False),
        (UNPARSED, TWO, False, False, False, False),
        (UNPARSED, NONE, False, False, False, False),
    ],
)
def test_a_decomposition_is_scored(made, known, exact, parsed, status, count):
    match = score_decomposition(made, known)
    assert (match.exact, match.parsed, match.status, match.count) == (exact, parsed, status, count)


def test_shares_are_counted():
    quality = quality_of(score_decomposition(made, TWO) for made in (TWO, TWO, NONE, UNPARSED))
    assert quality.n == 4
    assert [s.hits for s in (quality.exact, quality.parsed, quality.status, quality.count)] == [2, 3, 2, 2]
    assert str(quality.exact) == "50.0% (15.0% to 85.0%)"
    with pytest.raises(ValueError, match="no decompositions"):
        quality_of([])


def test_wilson_gives_the_published_figures():
    # Newcombe 1998, table I, method 3 (score)
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_stays_within_0_and_1(hits_of):
    hits, n = hits_of
    low, high = Share(hits, n).interval
    assert 0 <= low <= hits / n <= high <= 1


@pytest.fixture
def run(edgedc, bundle_folder):
    return partial(edgedc, "evaluate", "--model", bundle_folder, "--threads", "1")


def test_evaluate_scores_a_bundle_and_resumes(run, tmp_path):
    output = tmp_path / "rows.jsonl"
    code, out, _ = run("--limit", 4, "--max-tokens", 60, "--json", "--output", output)
    first = json.loads(out)
    assert (code, first["n"], first["task"], first["split"]) == (0, 4, "microworld", "test")
    assert 0 <= first["exact"]["hits"] <= first["status"]["hits"] <= first["parsed"]["hits"] <= 4
    assert len(first["exact"]["interval_95"]) == 2

    code, out, err = run("--limit", 6, "--max-tokens", 60, "--json", "--output", output)
    second = json.loads(out)
    assert (code, second["n"]) == (0, 6)
    assert "4 of 6 rows are there already" in err
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == 6
    exact = sum(
        row["status"] == row["expected_status"] and [s["text"] for s in row["subquestions"]] == row["expected"]
        for row in rows
    )
    assert second["exact"]["hits"] == exact

    code, out, _ = run("--limit", 6, "--max-tokens", 60)
    assert code == 0
    assert f"{exact} of 6" in out


def test_a_task_without_known_decompositions_cannot_be_scored(run, tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "Who?", "answer": "me"}\n')
    code, out, err = run("--task", "jsonl", "--data", path)
    assert (code, out) == (2, "")
    assert "decomposition is not known" in err
    assert run("--task", "nothing")[0] == 2


@pytest.fixture
def evaluate(edgedc, alone):
    return partial(edgedc, "evaluate")


SIMULATED = ("--solver-model", "simulated-solver", "--price-as", "gpt-4o-mini")


def test_a_cap_is_the_cells_or_the_decomposers_own(bundle_folder):
    with ExitStack() as stack:
        sources = Decomposers(stack, Settings(model=bundle_folder, threads=1))
        for name, own in (("local", read_manifest(bundle_folder).max_subquestions), ("gold", MAX_SUBQUESTIONS)):
            made = [sources.system(name, [], "static", None, cap).decomposer for cap in ("own", 2, "none")]
            assert [one.cap for one in made] == [own, 2, None]
        few = Decomposers(stack, Settings(model=bundle_folder, threads=1, max_subquestions=3))
        assert [few.system(name, [], "static", None).decomposer.cap for name in ("local", "gold")] == [3, 3]


def test_a_model_at_hand_is_a_decomposer_by_its_name(evaluate, bundle_folder):
    shutil.copytree(bundle_folder, pulled() / "mine")
    code, out, _ = evaluate("--decomposer", "mine", "--decomposer", "gold", "--limit", 2, "--json")
    assert (code, len(out.splitlines())) == (0, 2)
    assert evaluate("--decomposer", "yours", "--limit", 2)[0] == 2


@pytest.mark.parametrize("name", ["gold", "remote"])
def test_a_folder_that_is_called_like_a_decomposer_is_not_taken_for_it(evaluate, tmp_path, name):
    (tmp_path / name).mkdir()
    assert evaluate("--decomposer", name, *SIMULATED, "--limit", 1)[0] == 0


def test_rows_of_a_replay_at_another_pace_are_not_its_seconds(evaluate):
    evaluate("--decomposer", "cot", *SIMULATED, "--limit", 2, "--record", "calls.jsonl")
    again = ("--decomposer", "cot", "--split", "test", "--limit", 2, "--replay", "calls.jsonl", "--output", "r.jsonl")
    assert evaluate(*again)[0] == 0  # at once, and its seconds are not shown
    code, out, _ = evaluate(*again, "--timing", "emulated", "--first-token-s", 0.2, "--per-token-s", 0, "--json")
    assert code == 0
    assert json.loads(out)["seconds"] >= 0.2


def test_decomposers_are_compared_on_the_same_questions(evaluate):
    systems = ("--decomposer", "gold", "--decomposer", "none", "--decomposer", "cot", "--decomposer", "remote")
    code, out, _ = evaluate(*systems, *SIMULATED, "--limit", 30, "--json", "--output", "rows.jsonl")
    assert code == 0
    gold, none, cot, remote = (json.loads(line) for line in out.splitlines())
    assert gold["score"]["value"] > none["score"]["value"]
    assert (none["modes"], cot["modes"]) == ({"single-stage": 30}, {"cot": 30})
    assert remote["remote_tokens"] > gold["remote_tokens"]  # its decompositions are paid for
    (against,) = none["against_first"]
    assert (against["first"], against["second"], against["measure"]) == ("gold", "none", "accuracy")
    assert against["difference"]["value"] == pytest.approx(none["score"]["value"] - gold["score"]["value"])
    assert against["difference"]["p"] <= against["p_holm"] <= 1
    assert gold["against_first"] == []

    code, out, err = evaluate(*systems, *SIMULATED, "--limit", 30, "--output", "rows.jsonl")
    assert code == 0
    assert "120 of 120 rows are there already" in err
    assert "McNemar, exact" in out
    assert "SIMULATED" in out


def test_without_a_solver_decomposers_are_compared_by_what_they_ask(evaluate, tmp_path):
    rows = [{"question": p.question, "raw": f"1. {p.decomposition.texts[0]}"} for p in problems("test", 12)]
    (tmp_path / "firsts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    systems = ("--decomposer", "gold", "--decomposer", "firsts.jsonl", "--split", "test", "--limit", 12)
    code, out, _ = evaluate(*systems, "--json")
    assert code == 0
    gold, firsts = (json.loads(line) for line in out.splitlines())
    assert (gold["exact"]["share"], gold["usd"], gold["against_first"]) == (1.0, None, [])
    exact, rouge = firsts["against_first"]
    assert (exact["measure"], rouge["measure"]) == ("exactly right", "ROUGE-L")
    assert exact["difference"]["value"] == pytest.approx(firsts["exact"]["share"] - 1)
    assert -1 < rouge["difference"]["value"] < 0
    assert "ROUGE-L" in evaluate(*systems)[1]


def test_the_ceiling_on_money_holds_and_the_rest_comes_with_more(evaluate, tmp_path):
    args = ("--decomposer", "cot", *SIMULATED, "--limit", 12, "--output", "rows.jsonl")
    code, out, err = evaluate(*args, "--max-cost", "0.0001")
    assert (code, out) == (4, "")
    assert not (tmp_path / "rows.jsonl").exists()  # not one call was made
    worst = float(err.partition("could cost $")[2].partition(",")[0])
    code, out, err = evaluate(*args, "--max-cost", f"{1.1 * worst:.6f}")
    assert (code, out) == (4, "")
    assert "Kept in rows.jsonl" in err
    there = len((tmp_path / "rows.jsonl").read_text().splitlines())
    assert 0 < there < 12
    code, _, err = evaluate(*args, "--max-cost", "1")
    assert code == 0
    assert f"{there} of 12 rows are there already" in err
    assert not (tmp_path / "home" / "spending.sqlite3").exists()  # simulated money is not spent


def test_money_that_real_calls_cost_counts_in_a_rerun(evaluate, tmp_path):
    from edgedc.solvers.loopback import Timing, serve

    tasks = ("--task", "jsonl", "--data", "q.jsonl", "--split", "test", "--decomposer", "cot", "--output", "rows.jsonl")
    with serve(lambda *_, **__: "The answer is: 4", "m", port=0, timing=Timing(0, 0), simulated=False) as url:
        args = (*tasks, "--solver-model", "m", "--solver-url", url, "--price-as", "gpt-4o-mini")
        one = '{"question": "What is 2 + 2?", "answer": "4"}\n'
        (tmp_path / "q.jsonl").write_text(one)
        assert evaluate(*args, "--max-cost", "0.0025")[0] == 0
        booked = json.loads((tmp_path / "rows.jsonl").read_text())["calls"][0]["booked"]
        assert booked > 0
        (tmp_path / "q.jsonl").write_text(one + one.replace("2 + 2", "1 + 3"))
        ceiling = booked + 0.0001  # less than the worst case of another call
        code, _, err = evaluate(*args, "--max-cost", ceiling)
        assert code == 4
        assert f"${booked:.6f} of --max-cost" in err
        code, _, err = evaluate(*args, "--max-cost-per-day", ceiling)
        assert code == 4
        assert "--max-cost-per-day" in err
        code, out, _ = evaluate(*args)
        assert (code, "100.0%" in out) == (0, True)


def test_empty_replies_are_counted_where_they_can_be_seen(evaluate, tmp_path):
    from edgedc.solvers.loopback import Timing, serve

    (tmp_path / "q.jsonl").write_text('{"question": "What is 2 + 2?", "answer": "4"}\n')
    with serve(lambda *_, **__: "", "m", port=0, timing=Timing(0, 0), simulated=False) as url:
        where = ("--task", "jsonl", "--data", "q.jsonl", "--decomposer", "cot")
        code, out, _ = evaluate(*where, "--solver-model", "m", "--solver-url", url)
    assert code == 0
    assert "jsonl, cot: 1 of 1 replies of the solver were empty, and count as they are" in out


def test_several_tasks_are_scored_each_by_its_own_measure(evaluate, tmp_path):
    drop = {"context": "Passage: The Lions won 12-3.\nQuestion: Who won?\nAnswer:", "ref_text": "Lions|the Lions"}
    (tmp_path / "d.jsonl").write_text(json.dumps(drop) + "\n")
    (tmp_path / "b.json").write_text('[{"Question": "Who won?", "answer": ["The Lions"]}]')
    from edgedc.solvers.loopback import Timing, serve

    with serve(lambda *_, **__: "The answer is: Lions 12", "m", port=0, timing=Timing(0, 0), simulated=False) as url:
        args = ("--decomposer", "cot", "--solver-model", "m", "--solver-url", url, "--split", "test", "--paper")
        code, out, _ = evaluate(*args, "--tasks", "drop=d.jsonl,bamboogle=b.json", "--json")
        drop, bamboogle = (json.loads(line) for line in out.splitlines())
        assert (code, drop["score"]["metric"], bamboogle["score"]["metric"]) == (0, "F1", "accuracy")
        assert (drop["score"]["value"], drop["paper"]["value"]) == (0.67, 1.0)
        assert (bamboogle["score"]["value"], bamboogle["paper"]["value"]) == (0.0, 0.0)
        assert drop["usd"] is None  # no price is known, and that is not 0
        out = evaluate(*args, "--tasks", "drop=d.jsonl")[1]
        assert "+33.0" in out  # what the released code's matching adds
        assert evaluate(*args, "--tasks", "dorp=d.jsonl")[0] == 2
        assert evaluate(*args, "--tasks", ",")[0] == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--decomposer", "none"), "needs a solver"),
        (("--decomposer", "nobody.jsonl"), "no such file"),
        (("--solver-url", "http://127.0.0.1:1/v1"), "--solver-model"),
        (("--replay", "nothing.jsonl"), "no such file"),
        (("--timing", "original"), "--replay"),
        (("--solver-model", "m", "--max-cost", "-1"), "more than 0"),
        (("--solver-model", "m", "--solver-max-tokens", "-1"), "at least 1"),
        (("--solver-model", "m", "--timeout", "0"), "more than 0"),
        (("--solver-model", "m", "--timeout", "nan"), "more than 0"),
        (
            ("--solver-model", "simulated-solver", "--task", "gsm8k", "--data", "q.jsonl", "--decomposer", "cot"),
            "microworld",
        ),
        (("--matrix", "m.toml"), "m.toml"),
    ],
)
def test_what_cannot_be_run_is_one_line(evaluate, tmp_path, args, said):
    (tmp_path / "q.jsonl").write_text('{"question": "How many?", "answer": "#### 4"}\n')
    code, out, err = evaluate(*args)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1


MATRIX = """
[decomposers.gold]
[decomposers.alone]
use = "none"
[decomposers.written]
use = "said.jsonl"
published = "S_D-T"
[decomposers.cot]
[decomposers.chat]
published = "S_D-T"
[solvers.pretend]
model = "simulated-solver"
price_as = "gpt-4o-mini"
published = "GPT-3.5"
[solvers.theirs]
replay = "runs/mini"
published = "GPT-3.5"
[tasks.small]
task = "microworld"
limit = 6
[tasks.gsm8k]
data = "g.jsonl"
[[tables]]
name = "main"
decomposers = ["gold", "alone", "written"]
solvers = ["pretend"]
[[tables]]
name = "modes and caps"
decomposers = ["gold", "cot"]
solvers = ["pretend"]
tasks = ["small"]
modes = ["static", "interactive"]
caps = ["own", 2]
[[tables]]
name = "recorded"
decomposers = ["chat"]
solvers = ["theirs"]
tasks = ["gsm8k"]
"""


def test_a_matrix_is_filled_cell_by_cell(evaluate, tmp_path):
    rows = [{"question": "What is 2 + 2?", "answer": "What is it? ** 4\n#### 4"}]
    (tmp_path / "g.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "said.jsonl").write_text('{"question": "What is 2 + 2?", "raw": "1. What?"}\n')
    (tmp_path / "runs" / "mini").mkdir(parents=True)
    run = {"problem": "What is 2 + 2?", "questions": "Q1: What?", "answers": "Final answer: 4", "answer": 4.0}
    (tmp_path / "runs" / "mini" / "eval_chat.jsonl").write_text(json.dumps(run) + "\n")
    (tmp_path / "m.toml").write_text(MATRIX)
    code, out, _ = evaluate("--matrix", "m.toml", "--output", "rows.jsonl", "--json")
    assert code == 0
    cells = {tuple(one["cell"].values()): one for one in json.loads(out)}
    assert len(cells) == 14
    gold = cells["gold", "pretend", "small", "static", "own"]
    assert (gold["graded"]["n"], gold["simulated"], gold["why"]) == (6, True, "")
    dynamic = cells["gold", "pretend", "small", "interactive", "own"]
    assert dynamic["tokens"] > gold["tokens"]  # a call a step
    for cell in (("alone", "pretend", "gsm8k", "static", "own"), ("written", "pretend", "gsm8k", "static", "own")):
        assert cells[cell]["graded"] is None  # not a 0
        assert "microworld" in cells[cell]["why"]
    assert cells["alone", "pretend", "gsm8k", "static", "own"]["published"][0]["value"] == 20.32
    assert cells["written", "pretend", "gsm8k", "static", "own"]["published"][0]["value"] == 67.02
    assert "no cap changes them" in cells["gold", "pretend", "small", "static", 2]["why"]
    assert cells["cot", "pretend", "small", "static", "own"]["graded"]["n"] == 6
    for mode, cap in (("static", 2), ("interactive", "own"), ("interactive", 2)):
        assert "has no decomposition" in cells["cot", "pretend", "small", mode, cap]["why"]
    recorded = cells["chat", "theirs", "gsm8k", "static", "own"]
    assert (recorded["graded"]["value"], recorded["published"][0]["value"]) == (1.0, 67.02)

    before = (tmp_path / "rows.jsonl").read_text()
    code, out, err = evaluate("--matrix", "m.toml", "--output", "rows.jsonl")
    assert code == 0
    assert (tmp_path / "rows.jsonl").read_text() == before  # nothing is asked again
    assert "6 of 6 rows are there already" in err
    assert "20.32" in out
    assert "not run [1]" in out
    assert "[1] not run: simulated-solver knows microworld" in out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('use = "none"', "use = 3"), "[decomposers.alone] use = 3"),
        (('use = "none"', 'user = "x"'), "has no 'user'"),
        (('decomposers = ["chat"]', 'decomposers = ["chet"]'), "no [decomposers.chet]"),
        (('"interactive"]', '"dynamic"]'), "'dynamic'"),
        (('caps = ["own", 2]', "caps = [0]"), "caps: 0"),
        (("[tasks.small]", "[task.small]"), "unknown 'task'"),
        (('task = "microworld"', 'task = "minworld"'), "is no task"),
        (("[[tables]]", "[tables]"), "TOML"),
    ],
)
def test_a_bad_matrix_is_one_line(evaluate, tmp_path, change, said):
    (tmp_path / "m.toml").write_text(MATRIX.replace(*change))
    code, out, err = evaluate("--matrix", "m.toml", "--output", "rows.jsonl")
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "--matrix needs --output"),
        (("--output", "rows.jsonl", "--solver-model", "m"), "leave out --solver-model"),
        (("--output", "rows.jsonl", "--solver-url", "http://127.0.0.1:1/v1"), "leave out --solver-model, --solver-url"),
        (("--output", "rows.jsonl", "--replay", "calls.jsonl"), "--solver-url and --replay"),
        (("--output", "rows.jsonl", "--decomposer", "cot"), "--matrix has no use for --decomposer: leave one of them"),
        (("--output", "rows.jsonl", "--limit", "3"), "--matrix has no use for --limit: leave one of them out"),
    ],
)
def test_a_matrix_has_its_own_solvers_and_keeps_its_rows(evaluate, tmp_path, args, said):
    (tmp_path / "m.toml").write_text(MATRIX)
    code, out, err = evaluate("--matrix", "m.toml", *args)
    assert (code, out) == (2, "")
    assert said in err
    assert not (tmp_path / "rows.jsonl").exists()


RECORDED = """
[decomposers.NAME]
[solvers.theirs]
replay = "runs/mini"
[tasks.gsm8k]
data = "g.jsonl"
[[tables]]
name = "recorded"
modes = ["static", "interactive"]
"""


@pytest.mark.parametrize(
    ("name", "said"), [("chat", "1 of the 2 questions were not recorded"), ("gold", "no run of gold")]
)
def test_a_recorded_cell_that_was_not_run_says_so(evaluate, tmp_path, name, said):
    rows = [{"question": f"What is 2 + {k}?", "answer": f"What is it? ** 4\n#### {2 + k}"} for k in (2, 3)]
    (tmp_path / "g.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "runs" / "mini").mkdir(parents=True)
    run = {"problem": "What is 2 + 2?", "questions": "Q1: What?", "answers": "Final answer: 4", "answer": 4.0}
    (tmp_path / "runs" / "mini" / "eval_chat.jsonl").write_text(json.dumps(run) + "\n")
    (tmp_path / "m.toml").write_text(RECORDED.replace("NAME", name))
    code, out, err = evaluate("--matrix", "m.toml", "--output", "rows.jsonl")
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]


def test_a_cell_that_cannot_be_scored_is_not_paid_for(evaluate, tmp_path):
    from edgedc.solvers.loopback import Timing, serve

    asked = []

    def reply(*_, **__):
        asked.append(1)
        return "The answer is: 4"

    (tmp_path / "q.jsonl").write_text('{"question": "What is 2 + 2?"}\n')
    with serve(reply, "m", port=0, timing=Timing(0, 0), simulated=False) as url:
        tables = '[tasks.jsonl]\ndata = "q.jsonl"\n[[tables]]\nname = "t"\n'
        (tmp_path / "m.toml").write_text(f'[decomposers.none]\n[solvers.m]\nmodel = "m"\nurl = "{url}"\n{tables}')
        code, out, err = evaluate("--matrix", "m.toml", "--output", "rows.jsonl")
    assert (code, out, asked) == (2, "", [])
    assert "its answer is not known" in err


def test_recorded_runs_are_shown_with_what_they_say_of_a_new_decomposer(evaluate, data_folder, tmp_path):
    code, out, _ = evaluate("--replay", data_folder / "replay", "--json", "--limit", 30)
    assert code == 0
    found = json.loads(out)
    runs = {(one["solver"], one["decomposer"]): one for one in found["runs"]}
    assert len(runs) == 10
    chat = runs["chatgpt", "ChatGPT"]
    assert chat["accuracy"]["n"] == 660  # the runs themselves are never cut
    assert chat["accuracy"]["share"] == pytest.approx(chat["published"]["published"], abs=0.02)
    assert {len(one) for one in found["left_out"].values()} == {5}
    assert found["estimates"] == []
    out = evaluate("--replay", data_folder / "replay", "--limit", 30)[1]
    assert "r, chatgpt" in out
    assert "Errors, root mean square:" in out

    recording = data_folder / "replay" / "chatgpt" / "eval_finetune_medium_first660.jsonl"
    args = ("--replay", data_folder / "replay", "--decomposer", recording, "--limit", 30)
    code, out, _ = evaluate(*args)
    assert code == 0
    assert "ESTIMATES for these questions: no solver was asked" in out
    assert "ROUGE-L F1" in out
    assert [line.partition(":")[0] for line in out.splitlines()[-2:]] == sorted({solver for solver, _ in runs})
    code, out, _ = evaluate(*args, "--json")
    for made in json.loads(out)["estimates"]:
        assert made["interval"][0] < made["value"] < made["interval"][1]
        assert made["outside"] is False
        assert made["decompositions"]["questions"] == 30


def test_a_bundle_gets_an_estimate_of_its_accuracy(evaluate, bundle_folder, data_folder):
    args = ("--model", bundle_folder, "--threads", 1, "--max-tokens", 60, "--limit", 3)
    code, out, err = evaluate("--replay", data_folder / "replay", *args)
    assert code == 0, err
    assert "estimated accuracy" in out
    assert "Extrapolated" in out  # it knows six questions of another world by heart


def test_recorded_runs_are_written_nowhere(evaluate, tmp_path):
    (tmp_path / "runs").mkdir()
    code, _, err = evaluate("--replay", "runs", "--output", "rows.jsonl")
    assert code == 2
    assert "--replay DIR has no use for --output: leave one of them out" in err
    assert not (tmp_path / "rows.jsonl").exists()


def test_too_few_recorded_decomposers_give_accuracies_and_no_estimate(evaluate, tmp_path):
    (tmp_path / "runs" / "mini").mkdir(parents=True)
    run = {"problem": "What is 2 + 2?", "questions": "Q1: What?", "answers": "Final answer: 4", "answer": 4.0}
    (tmp_path / "runs" / "mini" / "eval_chat.jsonl").write_text(json.dumps(run) + "\n")
    gold = {"question": "What is 2 + 2?", "answer": "What is it? ** 4\n#### 4"}
    (tmp_path / "g.jsonl").write_text(json.dumps(gold) + "\n")
    code, out, _ = evaluate("--replay", "runs", "--data", "g.jsonl")
    assert (code, "100.0%" in out, "Errors" in out) == (0, True, False)
    assert evaluate("--replay", "runs", "--data", "g.jsonl", "--json")[0] == 0
    code, _, err = evaluate("--replay", "runs", "--data", "g.jsonl", "--decomposer", "gold")
    assert (code, "4 recorded decomposers" in err) == (2, True)
    code, _, err = evaluate("--replay", "runs")
    assert (code, "--data" in err) == (2, True)
