"""A bench under load: known delays and token counts give the figures worked out by hand; arrivals and limits."""

import itertools
import json
import math
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from paced import COT, PRICE, SLACK, Plan, bench, questions, records, say, server, usage

from edgedc.backends.greedy import one_by_one
from edgedc.bench.load import Limits, Load, served, spread
from edgedc.bench.metrics import record_from
from edgedc.bench.network import Network
from edgedc.bench.pair import Provider, results_from, rows_beside, run_bench
from edgedc.bench.pair_tables import show
from edgedc.bench.percentiles import percentiles
from edgedc.bench.systems import System
from edgedc.cli import cli
from edgedc.decomposer import Decomposer
from edgedc.errors import InputError, SolverReply
from edgedc.files import read_rows
from edgedc.generation import Generation, Message, OnText
from edgedc.ledger import Budget
from edgedc.server.together import together
from edgedc.solvers.loopback import Timing
from edgedc.solvers.openai import OpenAISolver, most_tokens
from edgedc.solvers.simulated import MODEL, simulated_server
from edgedc.tasks.microworld import problems
from edgedc.usage import Usage
from tests.faulty import faulty

# -- known answers


def test_fixed_delays_and_counts_give_the_figures_worked_out_by_hand(tmp_path: Path) -> None:
    # 12 tokens in 3 chunks, at 0.3, 0.5 and 0.7 s; of 100 tokens read 40 came from a cache, 5 of 12 were reasoning
    pieces = [(0.3, "The answer"), (0.2, " is:"), (0.2, " 1")]
    with server(lambda k: Plan(pieces, usage(100, 12, cached=40, thought=5))) as made:
        results = bench(tmp_path, made.url, 3, limits=Limits(limit_ttft=0.6, limit_e2e=1.0))
    (fared,), (summary,) = results.served, results.systems
    assert fared.first_token.p50.value == pytest.approx(0.3, abs=SLACK)
    assert fared.itl_s == pytest.approx(0.4 / 11, abs=SLACK / 11)  # by tokens, not by chunks
    assert fared.whole.p50.value == pytest.approx(0.7, abs=SLACK)
    assert fared.wall_s == pytest.approx(2.1, abs=3 * SLACK)
    assert fared.answered_per_s == pytest.approx(3 / fared.wall_s)
    assert fared.tokens_per_s == pytest.approx(36 / fared.wall_s)
    assert (fared.met, fared.goodput) == (3, pytest.approx(3 / fared.wall_s))
    assert fared.waited.p50.value == pytest.approx(0, abs=SLACK)
    assert summary.usd_per_1000 == pytest.approx(1000 * (60 * 1e-6 + 40 * 0.5e-6 + 12 * 2e-6))
    assert (summary.cached_tokens, summary.reasoning_tokens) == (40, 5)
    assert "40.0 were read from a cache and 5.0 written as reasoning" in show(results)


def test_goodput_counts_what_meets_every_limit_and_needs_no_new_calls(tmp_path: Path) -> None:
    plans = [say(0.1), say(0.7), say(0.1, 0.8), say(0.1)]  # TTFT good, bad, good, good; E2E good, good, bad, good
    with server(lambda k: plans[k]) as made:
        first = bench(tmp_path, made.url, 4, limits=Limits(limit_ttft=0.4)).served[0]
        late = bench(tmp_path, made.url, 4, limits=Limits(limit_e2e=0.4)).served[0]
        both = bench(tmp_path, made.url, 4, limits=Limits(limit_ttft=0.4, limit_e2e=0.8)).served[0]
        none = bench(tmp_path, made.url, 4).served[0]
        assert len(made.asked) == 4
    assert (first.met, late.met, both.met, none.met) == (3, 2, 2, None)
    assert both.wall_s == pytest.approx(0.1 + 0.7 + 0.9 + 0.1, abs=4 * SLACK)
    assert both.goodput == 2 / both.wall_s
    assert none.goodput is None


def test_at_a_given_concurrency_the_calls_overlap(tmp_path: Path) -> None:
    with server(lambda k: say(0.4)) as made:
        (fared,) = bench(tmp_path, made.url, 6, load=Load(concurrency=3)).served
    assert fared.wall_s == pytest.approx(0.8, abs=3 * SLACK)
    assert fared.answered_per_s == pytest.approx(6 / fared.wall_s)
    assert fared.whole.p50.value == pytest.approx(0.4, abs=2 * SLACK)


def test_the_wait_for_a_local_models_turn_is_part_of_the_latency(tmp_path: Path) -> None:
    at_work: list[int] = []

    def generate(messages: Sequence[Message], *, max_tokens: int, on_text: OnText | None = None) -> Generation:
        at_work.append(1)
        assert len(at_work) == 1
        time.sleep(0.3)
        at_work.pop()
        return Generation("1. How many?\n2. And then?", Usage(30, 11), 0.1, 0.3, "stop")

    with server(lambda k: say(0.1)) as made, together(partial(one_by_one, generate)) as in_turn:
        local = System("local", "static", Decomposer("local", "local", in_turn, "compact-1"), identity="x")
        bench(tmp_path, made.url, 3, local, load=Load(concurrency=3))
    made_ = sorted(records(tmp_path), key=lambda record: record.seconds)
    assert [record.turn_s for record in made_] == pytest.approx([0, 0.3, 0.6], abs=2 * SLACK)
    assert [record.seconds for record in made_] == pytest.approx([0.4, 0.7, 1.0], abs=2 * SLACK)
    assert [record.first_token_s for record in made_] == pytest.approx([0.4, 0.7, 1.0], abs=2 * SLACK)
    assert all(record.mode == "static" for record in made_)


# -- open loop


def test_arrivals_are_poisson_and_the_same_for_a_seed() -> None:
    load = Load(rate=4.0)
    times = load.arrivals(20_000)
    assert times == load.arrivals(20_000) != Load(rate=4.0, arrival_seed=1).arrivals(20_000)
    gaps = [b - a for a, b in itertools.pairwise([0.0, *times])]
    assert statistics.fmean(gaps) == pytest.approx(1 / 4, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(1 / 4, rel=0.03)  # of an exponential: its mean
    assert Load().arrivals(3) is None
    assert str(load) == "open loop, 4 questions/s at random times (Poisson, seed 0)"


def test_after_a_stall_the_wait_of_those_behind_it_is_counted(tmp_path: Path) -> None:
    load = Load(rate=10.0, concurrency=1)
    service = [1.5, *[0.05] * 7]  # what a call takes; only one is 'slow' to whoever forgets the queue
    expected, end = [], 0.0
    for arrival, takes in zip(load.arrivals(8), service, strict=True):
        end = max(arrival, end) + takes
        expected.append(end - arrival)
    with server(lambda k: say(service[k])) as made:
        results = bench(tmp_path, made.url, 8, load=load)
    got = sorted(records(tmp_path), key=lambda record: record.asked_s)
    assert [record.asked_s for record in got] == pytest.approx(load.arrivals(8), abs=0.01)
    assert [record.seconds for record in got] == pytest.approx(expected, abs=4 * SLACK)
    for record in got[1:]:
        assert record.queued_s == pytest.approx(record.seconds - 0.05, abs=SLACK)
    (fared,) = results.served
    assert fared.whole.p50.value > 0.5 > 10 * 0.04
    assert fared.waited.p50.value == pytest.approx(fared.whole.p50.value - 0.05, abs=SLACK)
    assert fared.wall_s == pytest.approx(end, abs=4 * SLACK)
    assert "open loop, 10 questions/s at random times (Poisson, seed 0), at most 1 at a time" in show(results)


def test_without_a_bound_nobody_waits_behind_a_stall(tmp_path: Path) -> None:
    with server(lambda k: say(1.0 if k == 0 else 0.05)) as made:
        bench(tmp_path, made.url, 6, load=Load(rate=10.0))
    got = sorted(records(tmp_path), key=lambda record: record.asked_s)
    assert max(record.queued_s for record in got) < SLACK
    assert [record.seconds > 0.7 for record in got] == [True] + [False] * 5


# -- what must not break it


def test_an_error_begins_nothing_more_and_what_is_under_way_is_kept() -> None:
    begun, kept = [], []

    def work(number: int, _: float) -> int:
        begun.append(number)
        if number == 1:
            raise InputError("no")
        time.sleep(0.3)
        return number

    with pytest.raises(InputError, match="no"):
        spread(9, Load(concurrency=2), work, lambda number, _: kept.append(number))
    assert (sorted(begun), kept) == ([0, 1], [0])


def test_a_clock_that_jumps_moves_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, jumps = time.time, itertools.cycle([-86400.0, 7200.0, 0.0])
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    with server(lambda k: say(0.2, 0.2)) as made:
        (fared,) = bench(tmp_path, made.url, 2).served
    assert fared.first_token.p50.value == pytest.approx(0.2, abs=SLACK)
    assert fared.whole.p50.value == pytest.approx(0.4, abs=SLACK)


def test_a_server_that_counts_nothing_and_an_empty_reply_are_stated(tmp_path: Path) -> None:
    plans = [Plan([(0.0, "The answer is: 1")]), Plan([])]
    with server(lambda k: plans[k]) as made:
        results = bench(tmp_path, made.url, 2, limits=Limits(limit_ttft=5))
    (fared,), text = results.served, show(results)
    assert (fared.answered, fared.first_token.n, fared.met) == (2, 1, 1)
    assert "cot: 1 of 2 answers came without a first token; they count as too late" in text
    assert "cot: some tokens are estimates" in text
    assert "nan" not in text.lower()
    assert "None" not in text
    assert results_from(json.loads(results.to_json()), tmp_path) == results


def test_one_sample_has_no_interval_and_failures_no_figures(tmp_path: Path) -> None:
    def broken(messages: Sequence[Message], *, max_tokens: int) -> Generation:
        raise SolverReply("m: 503")

    far = System("remote", "static", Decomposer("m", "remote", broken, "instruct-1"), identity="m", price=PRICE)
    with server(lambda k: say(0.0)) as made:
        results = bench(tmp_path, made.url, 1, COT, far, load=Load(concurrency=2), limits=Limits(limit_e2e=9))
    one, none = results.served
    assert one.whole.p50.interval is None
    assert one.whole.p90 is None
    assert (none.answered, none.met, none.goodput, none.whole.p50, none.itl_s) == (0, 0, 0, None, None)
    text = show(results)
    assert "nan" not in text.lower()
    assert results_from(json.loads((tmp_path / "bench.json").read_text()), tmp_path) == results


def test_nothing_measured_is_no_figure() -> None:
    fared = served([], Load(), Limits(limit_e2e=1))
    assert (fared.wall_s, fared.goodput, fared.tokens_per_s, fared.whole.n) == (0, None, None, 0)


def test_an_attempt_that_broke_off_is_shown_apart_at_its_worst(tmp_path: Path) -> None:
    with (
        faulty("reset_midway") as made,
        closing(OpenAISolver("m", made.url, budget=Budget(math.inf, PRICE))) as solver,
    ):
        provider = Provider(solver, PRICE, "http://solver.test/v1")
        run = {"provider": provider, "score": lambda text, example: True, "output": tmp_path / "bench.json"}
        results = run_bench([COT], questions(1), max_tokens=50, **run)
        read, written = made.answered
        worst = PRICE.cost(Usage(most_tokens(made.requests[0].chat["messages"]), 50))
    (summary,) = results.systems
    assert summary.usd_per_1000 == pytest.approx(1000 * PRICE.cost(Usage(read, written)))
    assert summary.doubtful_usd == pytest.approx(worst)
    assert "for attempts that failed and may be billed" in show(results)


def test_rows_of_another_network_of_the_same_name_are_not_mixed_in(tmp_path: Path) -> None:
    """A user's own one is called by its file, which may have been edited since."""
    with server(lambda k: say(0.0)) as made:
        bench(tmp_path, made.url, 1, network=Network("mine", 100, 10, 10))
        with pytest.raises(InputError, match="another load or network"):
            bench(tmp_path, made.url, 1, network=Network("mine", 500, 10, 10))


def test_rows_of_another_load_are_not_mixed_in(tmp_path: Path) -> None:
    with server(lambda k: say(0.0)) as made:
        bench(tmp_path, made.url, 2, load=Load(concurrency=2))
        again = bench(tmp_path, made.url, 2, load=Load(concurrency=2))
        assert len(made.asked) == 2
        with pytest.raises(InputError, match=r"another load or network \(closed loop, 2 at a time.*--output"):
            bench(tmp_path, made.url, 2)
        assert len(made.asked) == 2
    assert again.served[0].sittings == 1


def test_a_bench_gone_on_with_adds_its_sittings(tmp_path: Path) -> None:
    with server(lambda k: say(0.2)) as made:
        bench(tmp_path, made.url, 1)
        results = bench(tmp_path, made.url, 3)
        assert len(made.asked) == 3
    assert results.served[0].sittings == 2
    assert results.served[0].wall_s == pytest.approx(0.6, abs=3 * SLACK)
    assert "cot: measured in 2 sittings" in show(results)


@pytest.mark.parametrize("given", [{"concurrency": 0}, {"rate": 0.0}, {"rate": math.nan}, {"rate": math.inf}])
def test_a_load_that_cannot_be_names_its_flag(given: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(given))}"):
        Load(**given)
    with pytest.raises(InputError, match="--limit-e2e"):
        Limits(limit_e2e=-1)


# -- percentiles


def test_percentiles_stand_only_where_the_values_support_them() -> None:
    assert percentiles([]).p50 is None
    assert percentiles([3.0]).p50.value == 3
    assert (percentiles(range(9)).p50.interval, percentiles(range(19)).p90) == (None, None)
    assert percentiles(range(20)).p90.value == pytest.approx(17.1)
    assert percentiles(range(10)).p50.interval is not None
    assert percentiles(range(99)).p99 is None
    assert percentiles(range(100)).p99.value == pytest.approx(98.01)


def test_the_interval_is_that_of_many_bootstrap_samples() -> None:
    rng = random.Random(5)
    values = [rng.expovariate(1) for _ in range(101)]  # the median is one of them, and so is the 90th percentile
    drawn = [sorted(rng.choices(values, k=101)) for _ in range(4000)]
    for found, rank in ((percentiles(values).p50, 50), (percentiles(values).p90, 90)):
        sampled = sorted(sample[rank] for sample in drawn)
        ordered = sorted(values)
        for end, share in zip(found.interval, (0.025, 0.975), strict=True):
            assert abs(ordered.index(end) - ordered.index(sampled[round(share * 3999)])) <= 1


def test_the_interval_is_exact() -> None:
    """A sample's median is the 6th of 11 draws: at most the 2nd value with 0.7 %, the 3rd 5.1, the 8th 94.9, the 9th
    99.3. Of ten it lies between two: the 5th at most the 1st with 0.2 %, the 2nd 3.3; the 6th the 8th 96.7, the 9th
    99.8."""
    assert percentiles(range(11)).p50.interval == (2, 8)
    assert percentiles(range(10)).p50.interval == (1, 8)
    assert percentiles(range(21)).p90.interval == (14, 20)  # the 19th: at most the 14th with 1.3 %, the 15th 3.7


# -- the verb


def test_the_verb_takes_a_load_limits_a_network_and_auto(tmp_path: Path, bundle_folder: Path) -> None:
    (tmp_path / "link.toml").write_text("rtt_ms = 40\ndown_mbit_s = 50\nup_mbit_s = 50\n")
    output = tmp_path / "b.json"
    with simulated_server(problems("test", 3), timing=Timing(0.0, 0.0)) as url:
        made = CliRunner().invoke(
            cli,
            [
                *("bench", "pair", "--model", str(bundle_folder), "--limit", "1", "--mode", "auto"),
                *("--solver-url", url),
                *("--solver-model", MODEL, "--price-as", "gpt-4o-mini", "--output", str(output), "--concurrency", "2"),
                *("--limit-e2e", "600", "--network", str(tmp_path / "link.toml")),
            ],
        )
        port = url.rpartition(":")[2]
    assert made.exit_code == 0, made.output
    results = results_from(json.loads(output.read_text()), output)
    assert results.network == Network("link", 40, 50, 50, "link.toml")
    assert results.solver.host == f"127.0.0.1:{port}".partition("/")[0]
    assert all(fared.met == fared.answered == 1 for fared in results.served)
    assert min(record.seconds for record in map(record_from, read_rows(rows_beside(output)))) >= 0.04
    assert "EMULATED network: link" in made.stdout.splitlines()[0]
    assert "closed loop, 2 at a time" in made.stdout
    assert {summary.mode for summary in results.systems} == {"single-stage", "cot", "auto"}
