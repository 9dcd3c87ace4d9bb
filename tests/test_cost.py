"""Costs and break-even, against figures worked out by hand."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgedc.bench.cost import CostSettings, PerQuery, Question, break_even, compare, questions, sensitivity
from edgedc.bench.energy import Energy
from edgedc.bench.latency import Asked, Latency
from edgedc.bench.metrics import Call, Record, Summary, summarise
from edgedc.bench.pair import About, Results
from edgedc.cli import cli
from edgedc.commands.bench.cost import joules_in
from edgedc.errors import InputError
from edgedc.machine import this_machine
from edgedc.prices import Price

PRICE = Price("big", input=1e-6, output=2e-6, cached=1e-6, date="2026-01-02", source="a test")


def decomposed(where: str, seconds: list[float]) -> Summary:
    """A system's figures whose decompositions took so long."""
    records = []
    for number, took in enumerate(seconds):
        decompose = Call("decompose", where, 30, 0, 20, "server", None, took, "stop", 0)
        solve = Call("solve", "remote", 100, 0, 10, "server", None, 1.0, "stop", 0)
        records.append(Record(where, str(number), "static", correct=True, calls=(decompose, solve), seconds=took + 1))
    about = {"system": where, "mode": "static", "decomposer": where, "identity": where}
    return summarise(records, **about, solver_price=PRICE, decomposer_price=PRICE if where == "remote" else None)


REMOTE = replace(decomposed("remote", [0.9]), solve_usd_per_1000=0.04, decompose_usd_per_1000=0.05, accuracy=0.9)
LOCAL = replace(
    decomposed("local", [0.2]),
    system="local llamacpp q8_0",
    solve_usd_per_1000=0.04,
    decompose_s=0.1,
    decompose_mean_s=0.2,
    accuracy=0.8,
)
QUESTION = Question("local", PerQuery(4e-5, 5e-5), 4e-5, 0.2, None, "", 0.9, 0.8)


def put(path: Path, *systems: Summary, simulated: bool = False) -> Path:
    """The results of a bench of these."""
    solver = About("big", "127.0.0.1:8000", simulated, "", PRICE)
    results = Results("0.1.0", "2026-01-02T03:04:05Z", this_machine(), {}, solver, systems, "bench.rows.jsonl")
    path.write_text(results.to_json())
    return path


def test_a_question_s_costs_are_those_worked_out_by_hand():
    settings = CostSettings(kwh_price=0.36, watts=10, hardware_price=31.536, lifetime=1, utilisation=0.5, fixed=9)
    made = compare(QUESTION, settings)
    assert made.local.electricity == pytest.approx(2 / 3.6e6 * 0.36)  # 10 W for 0.2 s
    assert made.local.hardware == pytest.approx(31.536 / (365 * 86400 * 0.5) * 0.2)  # 2 millionths a second
    assert made.local.marginal == pytest.approx(4e-5 + 2e-7)
    assert made.queries == pytest.approx(9 / (9e-5 - (4e-5 + 2e-7 + 4e-7)))
    assert made.days == pytest.approx(made.queries / 1000)
    assert made.remote_correct == pytest.approx(9e-5 / 0.9)
    assert made.local_correct == pytest.approx(made.local.total / 0.8)
    assert made.energy == "estimate: 10 W for 0.2 s"


def test_where_nothing_is_known_to_be_right_no_right_answer_has_a_cost():
    made = compare(replace(QUESTION, remote_accuracy=None, local_accuracy=0.0), CostSettings())
    assert (made.remote_correct, made.local_correct) == (None, None)


def test_what_saves_nothing_never_pays():
    assert break_even(10, 0.001, 0.001) is None
    assert break_even(10, 0.001, 0.002) is None
    assert break_even(0, 0.002, 0.001) == 0
    assert break_even(10, 0.002, 0.001) == pytest.approx(10_000)


def test_sensitivity_moves_one_assumption_at_a_time():
    settings = CostSettings(fixed=9, hardware_price=100, utilisation=0.8)
    usual = compare(QUESTION, settings)
    varied = {(what, factor): made for what, factor, made in sensitivity(QUESTION, settings)}
    assert varied["fixed cost", 2.0].queries == pytest.approx(2 * usual.queries)
    assert varied["prices of tokens", 2.0].queries < usual.queries < varied["prices of tokens", 0.5].queries
    assert varied["tokens of a remote decomposition", 2.0].remote == replace(usual.remote, decompose=10e-5)
    assert varied["price per kWh", 2.0].local.electricity == pytest.approx(2 * usual.local.electricity)
    assert varied["utilisation", 0.5].local.hardware == pytest.approx(2 * usual.local.hardware)
    assert ("utilisation", 1.25) in varied  # twice 80 % is more than there is
    assert all(made.remote.solve == usual.remote.solve for (w, _), made in varied.items() if w != "prices of tokens")


def test_a_few_slow_decompositions_are_paid_for():
    """Nine of 0.1 s and one of 9.1 s are 10 s for ten questions: 1 s each, where the median is 0.1 s."""
    near, far = decomposed("local", [0.1] * 9 + [9.1]), decomposed("remote", [1.0] * 10)
    assert (near.decompose_s, near.decompose_mean_s) == (pytest.approx(0.1), pytest.approx(1.0))
    [question] = questions([near, far], {})
    # 36 W for 1 s are 36 J, a hundred thousandth of a kWh; and a device of $31.536 is a millionth of a dollar a second
    settings = CostSettings(kwh_price=0.1, watts=36, hardware_price=31.536, lifetime=1, utilisation=1, fixed=7)
    made = compare(question, settings)
    assert made.local.electricity == pytest.approx(1e-6)
    assert made.local.hardware == pytest.approx(1e-6)
    assert made.local.total == pytest.approx(1.2e-4 + 2e-6)
    assert made.queries == pytest.approx(7 / (7e-5 - 2e-6))  # a remote decomposition's tokens are 7e-5 dollars
    assert (made.average, made.energy) == ("mean", "estimate: 36 W for 1 s")


def test_results_without_a_mean_are_counted_by_their_median_and_say_so(tmp_path):
    old, row = put(tmp_path / "old", REMOTE, LOCAL), json.loads(put(tmp_path / "new", REMOTE, LOCAL).read_text())
    del row["systems"][1]["decompose_mean_s"]
    old.write_text(json.dumps(row))
    run = CliRunner().invoke(cli, ["bench", "cost", str(tmp_path / "old"), "--json"])
    [made] = json.loads(run.output)["comparisons"]
    assert (made["average"], made["energy"]) == ("median", "estimate: 15 W for 0.1 s")
    said = "Seconds of local llamacpp q8_0: the median, as these results have no mean"
    assert said in CliRunner().invoke(cli, ["bench", "cost", str(tmp_path / "old")]).output
    assert said not in CliRunner().invoke(cli, ["bench", "cost", str(tmp_path / "new")]).output


def test_metered_joules_go_before_watts():
    [question] = questions([REMOTE, LOCAL], {LOCAL.system: (5.0, "RAPL (1 package)")})
    made = compare(question, CostSettings(watts=15))  # 3 J, as estimated
    assert made.energy == "RAPL (1 package)"
    assert made.local.electricity == pytest.approx(5 / 3.6e6 * 0.30)


def test_a_bench_without_a_pair_to_compare_is_refused():
    for systems in ([REMOTE], [LOCAL], [LOCAL, replace(REMOTE, solve_usd_per_1000=None)]):
        with pytest.raises(InputError, match="bench pair"):
            questions(systems, {})


def test_a_system_whose_questions_all_failed_is_left_out():
    failed = replace(LOCAL, system="local onnx int4", solve_usd_per_1000=None, decompose_s=None, decompose_mean_s=None)
    assert [question.name for question in questions([REMOTE, failed, LOCAL], {})] == [LOCAL.system]


def test_the_verb_reads_files_and_says_never(tmp_path):
    put(tmp_path / "bench.json", REMOTE, LOCAL)
    energy = Energy("RAPL", True, seconds=2, gross=14, idle_watts=2)
    (tmp_path / "latency.json").write_text(json.dumps([metered("mine", "llamacpp", "q8_0", energy, questions=2)]))
    run = CliRunner().invoke(
        cli,
        [
            "bench",
            "cost",
            str(tmp_path / "bench.json"),
            "--latency",
            str(tmp_path / "latency.json"),
            "--fixed",
            "5",
            "--json",
        ],
    )
    assert run.exit_code == 0, run.output
    [made] = json.loads(run.output)["comparisons"]
    assert made["local"]["electricity"] == pytest.approx((14 - 4) / 2 / 3.6e6 * 0.30)
    dear = CliRunner().invoke(cli, ["bench", "cost", str(tmp_path / "bench.json"), "--kwh-price", "1000"])
    assert "never" in dear.output


def metered(model: str, backend: str, kind: str, energy: Energy, questions: int = 1) -> dict[str, object]:
    """As `edgedc bench latency --output` writes it."""
    asked = (Asked(30, 0, 20, 0.1, 0.01, 0.3),) * questions
    one = Latency(model, "m.gguf", kind, 1, 1, backend, 1, 0.1, 0.1, 0.1, 1, (), asked, energy, (), this_machine())
    return asdict(one)


def rapl(model: str, joules: float) -> Energy:
    return Energy(f"RAPL of {model}", True, seconds=1, gross=joules)


def test_joules_are_those_of_the_model_that_was_compared(tmp_path):
    latency = tmp_path / "latency.json"
    made = [metered("a", "llamacpp", "q8_0", rapl("a", 1)), metered("b", "llamacpp", "q8_0", rapl("b", 2))]
    latency.write_text(json.dumps([*made, metered("c", "transformers", "fp32", rapl("c", 3))]))
    systems = ["remote", "local a llamacpp q8_0", "local b llamacpp q8_0", "local transformers"]
    found = joules_in(latency, systems)
    assert found == dict(zip(systems[1:], [(1, "RAPL of a"), (2, "RAPL of b"), (3, "RAPL of c")], strict=True))
    with pytest.raises(InputError, match="both a and b may be 'local llamacpp q8_0'"):
        joules_in(latency, [LOCAL.system])


def test_a_small_amount_is_not_printed_as_nothing(tmp_path):
    put(tmp_path / "bench.json", REMOTE, LOCAL)
    lines = CliRunner().invoke(cli, ["bench", "cost", str(tmp_path / "bench.json"), "--watts", "1"]).output.splitlines()
    (ours,) = [line.split() for line in lines if line.startswith("local llamacpp q8_0  $")]  # 0.2 J are $1.7e-8
    assert ours[5:7] == ["<$0.0001", "$0.0000"]  # electricity, and the hardware that nobody bought


def test_costs_with_a_simulated_solver_say_so(tmp_path):
    path = put(tmp_path / "bench.json", REMOTE, LOCAL, simulated=True)
    assert "SIMULATED" in CliRunner().invoke(cli, ["bench", "cost", str(path)]).output
    assert json.loads(CliRunner().invoke(cli, ["bench", "cost", str(path), "--json"]).output)["simulated"] is True


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        ("[]", [], "must be a JSON object"),
        ("{}", [], "not the results of  edgedc bench pair"),
        ("{}", ["--utilisation", "2"], "--utilisation 2.0"),
        ("{}", ["--utilisation", "0"], "--utilisation 0.0"),
        ("{}", ["--kwh-price", "nan"], "--kwh-price nan"),
        ("{}", ["--fixed", "inf"], "--fixed inf"),
        ("{}", ["--watts", "0"], "--watts 0.0"),
        ("{}", ["--lifetime", "inf"], "--lifetime inf"),
    ],
)
def test_rubbish_is_one_line(tmp_path, text, flags, said):
    (tmp_path / "bench.json").write_text(text)
    run = CliRunner().invoke(cli, ["bench", "cost", str(tmp_path / "bench.json"), *flags])
    assert isinstance(run.exception, InputError)
    assert said in str(run.exception)
