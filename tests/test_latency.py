"""edgedc bench latency: every artifact, in its own process, with all its samples."""

import csv
import io
import json
import shutil
import time

import pytest
from click.testing import CliRunner

from edgedc.backends import choose
from edgedc.bench.latency import Latency, LatencySettings, Speed, measure
from edgedc.cli import cli
from edgedc.commands.bench.latency import _markdown
from edgedc.errors import InputError
from edgedc.machine import this_machine

FEW = ("--prompt-tokens", 16, "--gen-tokens", 8, "--questions", 3, "--repetitions", 2, "--threads", 1)


def run(*args):
    return CliRunner().invoke(cli, ["bench", "latency", *map(str, args)])


def test_prompt_generation_and_questions_are_measured_for_every_artifact(bundle_folder, tmp_path):
    kept, started = tmp_path / "latency.json", time.monotonic()
    done = run(bundle_folder, *FEW, "--watts", 10, "-o", "json", "--output", kept)
    assert done.exit_code == 0, done.output
    measured = json.loads(done.stdout)
    assert json.loads(kept.read_text()) == measured
    assert {(m["backend"], m["type"]) for m in measured} >= {("llamacpp", "f16"), ("onnx", "fp32")}
    for made in measured:
        tests = {speed["test"]: speed for speed in made["speeds"]}
        assert set(tests) == {"pp16", "tg8"}
        assert all(len(speed["samples_ns"]) == len(speed["samples_ts"]) == 2 for speed in tests.values())
        assert tests["tg8"]["samples_ts"][0] == pytest.approx(8e9 / tests["tg8"]["samples_ns"][0])
        for name, tokens in (("pp16", 16), ("tg8", 8)):  # the one that warms up takes energy, too
            joules = 3 * tokens * tests[name]["joules_per_token"]
            assert 10 * sum(tests[name]["samples_ns"]) / 1e9 < joules < 10 * (time.monotonic() - started)
        assert len(made["asked"]) == 3
        for asked in made["asked"]:
            assert 0 < asked["ttft_s"] <= asked["e2e_s"]
            if asked["output_tokens"] > 1:
                spread = (asked["e2e_s"] - asked["ttft_s"]) / (asked["output_tokens"] - 1)
                assert asked["itl_s"] == pytest.approx(spread)
        assert made["asked"][0]["cached_tokens"] == 0 < made["asked"][1]["cached_tokens"]
        assert made["load_s"] > 0 < made["peak_bytes"]
        if made["backend"] == "llamacpp":
            assert made["size"] == (bundle_folder / made["artifact"]).stat().st_size
        assert made["energy"]["source"] == "estimate: 10 W stated"
        assert made["energy"]["gross"] == pytest.approx(10 * made["energy"]["seconds"], rel=0.05)


def test_the_table_and_the_csv_have_llama_bench_s_columns(bundle_folder):
    done = run(bundle_folder, *FEW, "--quantization", "f16")
    assert "| model | size | params | backend | threads | test | t/s |" in done.stdout
    assert "No energy" in done.stdout or "J a question" in done.stdout
    rows = list(csv.DictReader(io.StringIO(run(bundle_folder, *FEW, "--quantization", "f16", "-o", "csv").stdout)))
    assert [row["n_prompt"] for row in rows] == ["16", "0"]
    assert {"model_filename", "model_size", "model_n_params", "avg_ts", "stddev_ts"} <= set(rows[0])
    assert not [name for name in rows[0] if name.startswith("samples_")]  # lists have no cell; -o jsonl has them


def test_averages_and_deviations_are_as_llama_bench_has_them():
    measured = Latency(
        **{"model": "m", "artifact": "m-f16.gguf", "type": "f16", "size": 1, "n_params": 2, "backend": "llamacpp"},
        **{"n_threads": 1, "load_s": 1.0, "tokenize_s": 1.0, "sample_s": 1.0, "peak_bytes": 1, "asked": ()},
        speeds=(
            Speed("pp4", 4, 0, (1_000_000_000, 2_000_000_000), (4.0, 2.0), None),
            Speed("tg4", 0, 4, (1_000_000_000,), (4.0,), None),
        ),
        energy=None,
        warnings=(),
        machine=this_machine(),
    )
    several, one = measured.rows()
    assert (several["avg_ns"], several["stddev_ns"]) == (1_500_000_000, 707_106_781)
    assert (several["avg_ts"], several["stddev_ts"]) == (3.0, pytest.approx(2**0.5))
    assert (one["avg_ns"], one["stddev_ns"], one["avg_ts"], one["stddev_ts"]) == (1_000_000_000, 0, 4.0, 0.0)


def test_the_peak_of_memory_is_not_that_of_the_process_that_measures(bundle_folder):
    held = b"x" * 800_000_000
    made = measure(choose(bundle_folder, engine="llamacpp"), LatencySettings(0, 0, questions=1))
    assert 0 < made.peak_bytes < len(held) / 2


def test_a_model_that_is_gone_is_one_line(bundle_folder, tmp_path):
    choice = choose(bundle_folder, engine="llamacpp")
    gone = tmp_path / "bundle"
    shutil.copytree(bundle_folder, gone)
    (gone / choice.artifact.path).write_bytes(b"GGUF rubbish")
    with pytest.raises(InputError, match="changed since it was exported"):
        measure(choose(gone, engine="llamacpp", quantization=choice.artifact.quantization), LatencySettings(threads=1))


@pytest.mark.parametrize(
    "settings",
    [
        {"prompt_tokens": -1},
        {"repetitions": 0},
        {"questions": 1000},
        {"threads": 0},
        {"threads": 513},
        {"prompt_tokens": 0, "gen_tokens": 0, "questions": 0},
    ],
)
def test_settings_that_measure_nothing_are_refused(settings):
    with pytest.raises(InputError):
        LatencySettings(**settings)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_form_without_room_for_questions_is_refused_where_there_is_nothing_else(bundle_folder, form):
    done = run(bundle_folder, "--prompt-tokens", 0, "--gen-tokens", 0, "-o", form)
    assert isinstance(done.exception, InputError)
    assert f"-o {form}" in str(done.exception)


@pytest.mark.parametrize("place", ["config.json", "config.json/l.json", "-"])
def test_where_figures_cannot_be_kept_is_known_before_they_are_measured(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text('{"list": [1]}')
    said = str(run("no such model", "--output", place).exception)
    assert said.startswith(f"{place}: ")
    assert said.endswith(("give another file to write to", "config.json is not a folder", "name a file"))
    assert (tmp_path / "config.json").read_text() == '{"list": [1]}'


def test_a_bar_in_a_name_is_no_new_column():
    assert _markdown(["model", "t/s"], [["a|b", 1]]).splitlines()[-1] == "| a\\|b | 1 |"


def test_a_quantization_that_is_not_there_is_refused_and_not_left_out(bundle_folder):
    done = run(bundle_folder, *FEW, "--quantization", "f16", "--quantization", "nope")
    assert isinstance(done.exception, InputError)
    assert "no nope here" in str(done.exception)
