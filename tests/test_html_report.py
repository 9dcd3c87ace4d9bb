"""The HTML report: what stands in it, and that a browser draws all of it without asking anybody for anything."""

import json
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgedc.bench.changes import changes, differences, read_bench, summary
from edgedc.bench.cost import CostSettings, compare, questions
from edgedc.bench.latency import Latency, Speed
from edgedc.bench.metrics import Call, Record, summarise
from edgedc.bench.pair import About, Results, results_from
from edgedc.bench.report import render
from edgedc.bundle import read_manifest
from edgedc.cli import cli
from edgedc.errors import InputError
from edgedc.machine import this_machine
from edgedc.prices import Price

PRICE = Price("gpt-4o-mini", 1.5e-7, 6e-7, 7.5e-8, "2026-01-01", "the test's own")
LOCAL = "local llamacpp q8_0"
FIVE_BEFOREHAND = CostSettings(fixed=5)
CHROME = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


def records(system: str, n: int, right: int, seconds: float, decompose: str | None) -> list[Record]:
    """`n` questions of which the first `right` are right; the times differ a little from question to question."""
    made = []
    for k in range(n):
        calls = [Call("solve", "remote", 200, 0, 40, "server", 0.2, seconds, "stop", 900)]
        if decompose:
            calls.insert(0, Call("decompose", decompose, 100, 0, 30, "server", 0.1, 0.3, "stop", 500))
        total = sum(call.total_s for call in calls) + k / 100
        made.append(
            Record(system, str(k), "static", correct=k < right, calls=tuple(calls), simulated=True, seconds=total)
        )
    return made


def bench(right: int = 20, n: int = 40) -> tuple[Results, list[Record]]:
    systems = (
        ("cot", records("cot", n, 30, 0.9, None), None),
        ("remote", records("remote", n, 34, 0.8, "remote"), "remote"),
        (LOCAL, records(LOCAL, n, right, 0.8, "local"), "local"),
    )
    summaries = tuple(
        summarise(
            made,
            system=name,
            mode="static",
            decomposer=where,
            identity=name,
            solver_price=PRICE,
            decomposer_price=PRICE if where == "remote" else None,
        )
        for name, made, where in systems
    )
    solver = About("simulated", "127.0.0.1:8000", True, "gpt-4o-mini", PRICE)
    selection = {"task": "<b>microworld</b>", "limit": n}
    results = Results("0.1.0", "2026-01-02T03:04:05Z", this_machine(), selection, solver, summaries, "bench.rows.jsonl")
    return results, [record for _, made, _ in systems for record in made]


def html_of(results: Results, rows: list[Record], settings: CostSettings = FIVE_BEFOREHAND, **more) -> str:
    compared = [compare(question, settings) for question in questions(results.systems, {})]
    return render(results, rows, compared, settings, **more)


def put(folder: Path, name: str, right: int) -> Path:
    results, rows = bench(right)
    path = folder / f"{name}.json"
    path.write_text(results.to_json())
    lines = [json.dumps({"key": f"{r.system} {r.id}", **vars(r), "calls": [vars(c) for c in r.calls]}) for r in rows]
    (folder / "bench.rows.jsonl").write_text("\n".join(lines) + "\n")
    return path


def test_the_answer_the_sources_and_the_label_are_there_and_data_is_no_markup():
    text = html_of(*bench())
    assert "The solver (simulated) is SIMULATED" in text
    assert "accuracy 50 % against 85 % remote" in text
    assert "2026-01-01, the test&#x27;s own" in text
    assert "Energy of local llamacpp q8_0: estimate: 15 W" in text
    assert "<b>microworld" not in text
    charts = json.loads(re.search(r"const charts = (\{.*\});", text)[1])
    assert set(charts) == {"pareto", "waits", "split", "even"}
    assert [row["accuracy"] for row in charts["pareto"]["data"]["values"]] == [0.75, 0.85, 0.5]
    assert len(charts["waits"]["data"]["values"]) == 120


def test_a_legend_names_what_is_drawn_and_figures_have_room():
    text = html_of(*bench())
    charts = json.loads(re.search(r"const charts = (\{.*\});", text)[1])
    even = charts["even"]
    drawn = list(dict.fromkeys(row["system"] for row in even["data"]["values"]))
    assert even["encoding"]["color"]["legend"] == even["encoding"]["strokeDash"]["legend"] == {"values": drawn}
    assert drawn == ["remote", LOCAL]
    assert all(spec["config"]["axisX"]["labelFlush"] is False for spec in charts.values())
    assert "td:not(:first-child) { white-space: nowrap; }" in text


def test_hardware_and_the_assumptions_behind_costs_are_shown():
    """Break-even counts hardware, so the chart of where the money goes must not leave it out."""
    text = html_of(*bench(), CostSettings(kwh_price=0.25, hardware_price=1200, lifetime=3, utilisation=0.2))
    assert "Electricity: $0.25 per kWh. Hardware: $1,200.00, spread over 3 years in which it works 20 % of" in text
    charts = json.loads(re.search(r"const charts = (\{.*\});", text)[1])
    ours = {row["part"]: row["dollars"] for row in charts["split"]["data"]["values"] if row["system"] == LOCAL}
    assert ours["hardware"] == pytest.approx(1000 * 1200 / (3 * 365 * 86400 * 0.2) * 0.3)
    assert "none is bought for this" in html_of(*bench())


def test_nothing_in_it_is_loaded_from_elsewhere():
    text = html_of(*bench())
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    assert "@import" not in text


def test_failures_alone_one_sample_and_no_gold_are_no_nan():
    results, rows = bench(n=40)
    failed = [Record(row.system, row.id, error="down") for row in rows]
    dead = Results(
        **{
            **vars(results),
            "systems": tuple(
                summarise(
                    [f for f in failed if f.system == s.system],
                    system=s.system,
                    mode=s.mode,
                    decomposer=s.decomposer,
                    identity=s.identity,
                    solver_price=PRICE,
                    decomposer_price=PRICE,
                )
                for s in results.systems
            ),
        }
    )
    text = render(dead, failed)
    assert "NaN" not in text.partition("<script>")[0]
    assert json.loads(re.search(r"const charts = (\{.*\});", text)[1]) == {}
    one, row = bench(n=1)
    assert "const charts" in html_of(one, row)


def test_results_are_read_back_as_they_were(tmp_path):
    results, _ = bench()
    again = results_from(json.loads(results.to_json()), tmp_path)
    assert again == results
    with pytest.raises(InputError, match="bench pair"):
        results_from({"systems": []}, tmp_path)


def test_bundles_of_one_name_are_not_shown_as_one(tmp_path, bundle_folder):
    copy = shutil.copytree(bundle_folder, tmp_path / "copy")
    report = ["bench", "report", str(put(tmp_path, "bench", 20)), str(tmp_path / "report.html")]
    assert CliRunner().invoke(cli, [*report, "--bundle", str(copy)]).exit_code == 0
    result = CliRunner().invoke(cli, [*report, "--bundle", str(bundle_folder), "--bundle", str(copy)])
    assert str(result.exception).startswith(f"--bundle {copy}: another one is named nano")


def test_a_report_takes_the_place_of_a_report_and_of_nothing_else(tmp_path):
    results = put(tmp_path, "bench", 20)
    (tmp_path / "notes.html").write_text("<!doctype html><title>years of work</title>")
    held = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for mine in held:
        result = CliRunner().invoke(cli, ["bench", "report", str(results), str(mine)])
        assert str(result.exception).startswith(f"{mine}: not a report of  edgedc bench; it would be overwritten")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == held
    for _ in range(2):
        assert CliRunner().invoke(cli, ["bench", "report", str(results), str(tmp_path / "r.html")]).exit_code == 0


def test_compare_says_what_changed_and_what_did_not(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    before, same, after = put(tmp_path / "a", "x", 10), put(tmp_path / "b", "x", 10), put(tmp_path / "c", "x", 35)
    nothing = changes(read_bench(before), read_bench(same))
    assert not any(change.real for change in nothing)
    assert summary(nothing).startswith("No evidence of a change")
    found = {(c.compared.task, c.compared.measure): c for c in changes(read_bench(before), read_bench(after))}
    assert {key for key, change in found.items() if change.real} == {(LOCAL, "accuracy")}
    accuracy = found[LOCAL, "accuracy"]
    assert (accuracy.before, accuracy.after) == (0.25, 0.875)
    assert accuracy.compared.difference.interval[0] > 0.3
    assert differences(read_bench(before), read_bench(after)) == []


def test_a_question_is_compared_with_itself_alone(tmp_path):
    """Ids that count lines are the same in every file."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    before, after = put(tmp_path / "a", "x", 10), put(tmp_path / "b", "x", 10)
    for path, kept in ((before, "first file"), (after, "second file")):
        beside = path.with_name("bench.rows.jsonl")
        rows = [json.loads(line) | {"example": kept} for line in beside.read_text().splitlines()]
        rows[0]["example"] = "in both"  # cot's first
        beside.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = changes(read_bench(before), read_bench(after))
    assert {(one.compared.task, one.compared.difference.n) for one in found} == {("cot", 1)}


def test_compare_says_that_a_solver_is_simulated(tmp_path):
    path = put(tmp_path, "x", 10)
    printed = CliRunner().invoke(cli, ["compare", str(path), str(path)])
    assert "SIMULATED" in printed.output
    as_json = CliRunner().invoke(cli, ["compare", str(path), str(path), "--json"])
    assert json.loads(as_json.output)["simulated"] is True


def test_speeds_and_memory_are_those_of_bench_latency_and_other_files_are_refused(tmp_path, bundle_folder):
    manifest = read_manifest(bundle_folder)
    artifact = manifest.artifacts[0]
    speeds = (Speed("pp128", 128, 0, (1, 1), (700.0, 900.0), None), Speed("tg64", 0, 64, (1,), (23.0,), None))
    about = (manifest.name, artifact.path, artifact.quantization, 1, 1, "llamacpp", 1, 0.1, 0.1, 0.1, 77_000_000)
    made = asdict(Latency(*about, speeds, asked=(), energy=None, warnings=(), machine=this_machine()))
    latency, html = tmp_path / "latency.json", tmp_path / "report.html"
    report = ["bench", "report", str(put(tmp_path, "bench", 20)), str(html), "--latency", str(latency)]
    latency.write_text(json.dumps([made]))
    done = CliRunner().invoke(cli, [*report, "--bundle", str(bundle_folder)])
    assert done.exit_code == 0, done.output
    line = f"{manifest.name} {artifact.format} {artifact.quantization}"
    [row] = [row for row in html.read_text().split("<tr>") if line in row]
    assert re.findall(r">([^<>]+)</td>", row)[-3:] == ["800", "23", "77"]
    html.unlink()
    for rubbish in ({}, [1], [{"model": "a"}], [made | {"peak_bytes": None}], [made | {"speeds": [{}]}]):
        latency.write_text(json.dumps(rubbish))
        done = CliRunner().invoke(cli, [*report, "--bundle", str(bundle_folder)])
        assert str(done.exception).startswith(f"{latency}: not what  edgedc bench latency --output  wrote (")
        assert not html.exists()


def test_compare_names_what_else_is_different_and_refuses_rubbish(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    before, after = put(tmp_path / "a", "x", 10), put(tmp_path / "b", "x", 10)
    row = json.loads(after.read_text())
    row["solver"]["model"] = "another"
    after.write_text(json.dumps(row))
    assert differences(read_bench(before), read_bench(after)) == ["solver: simulated before, another after"]
    after.write_text("{}")
    with pytest.raises(InputError, match="bench pair"):
        read_bench(after)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": None}, "rows: None is not text"),
        ({"rows": "../other.jsonl"}, "Invalid name '../other.jsonl'"),
        ({"machine": []}, r"machine: \[\] is not an object"),
        ({"systems": [None]}, r"systems\[0\]: None is not an object"),
        ({"keys": {"cot": None}}, "keys.cot: None is not a list"),
        ({"load": {"concurrency": 0}}, "--concurrency 0"),
        ({"network": {"name": "mine"}}, "network.rtt_ms: missing"),
    ],
)
@pytest.mark.parametrize(
    "verb", [["compare", "{}", "{}"], ["bench", "cost", "{}"], ["bench", "report", "{}", "{}.html"]]
)
def test_results_with_something_else_in_them_are_one_line(tmp_path, change, said, verb):
    path = put(tmp_path, "x", 10)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    done = CliRunner().invoke(cli, [word.format(path) for word in verb])
    assert isinstance(done.exception, InputError), done.exception
    assert re.match(f"{path}: not the results of  edgedc bench pair  \\(.*{said}", str(done.exception))


@pytest.mark.parametrize(
    "change", [{"calls": None}, {"seconds": "1"}, {"correct": float("nan")}, {"system": "cot", "more": 1}]
)
def test_rows_with_something_else_in_them_are_one_line(tmp_path, change):
    path = put(tmp_path, "x", 10)
    beside = path.with_name("bench.rows.jsonl")
    first, *others = beside.read_text().splitlines()
    beside.write_text("\n".join([json.dumps(json.loads(first) | change), *others]))
    with pytest.raises(InputError, match=r"bench.rows.jsonl: not the raw rows of these results \("):
        read_bench(path)


@pytest.mark.skipif(not CHROME, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_draws_every_chart_and_asks_nobody(tmp_path, dark):
    path = tmp_path / "report.html"
    path.write_text(html_of(*bench()), "utf-8")
    command = [
        CHROME,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        "--log-level=0",
        f"--log-net-log={tmp_path / 'net.json'}",
        "--virtual-time-budget=10000",
        "--window-size=390,844",
        *(["--force-dark-mode"] if dark else []),
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert 'data-drawn="4"' in done.stdout
    assert done.stdout.count("<svg") == 4
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    asked = {str(e.get("params", {}).get("url")) for e in json.loads((tmp_path / "net.json").read_text())["events"]}
    own = ("google", "gvt1.com")  # the browser's, for its dictionaries and updates
    assert not [url for url in asked if url.startswith(("http://", "https://")) and not any(o in url for o in own)]
