import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedc.bench.quality import Share, quality_of, score_decomposition, wilson_interval
from edgedc.cli import main
from edgedc.decomposition import Decomposition, decomposition_of

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
def run(capsys, bundle_folder):
    def call(*args):
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", "--model", str(bundle_folder), "--threads", "1", *map(str, args)])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return call


def test_evaluate_scores_a_bundle_and_resumes(run, tmp_path):
    output = tmp_path / "rows.jsonl"
    code, out, _ = run("--limit", 4, "--max-tokens", 60, "--json", "--output", output)
    first = json.loads(out)
    assert (code, first["n"], first["task"]) == (0, 4, "microworld")
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
