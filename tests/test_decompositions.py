"""The measures of decompositions, by hand, and on decompositions that were recorded."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgedc.bench.decompositions import bootstrap, score, summarise
from edgedc.bench.statistics import Estimate
from edgedc.bundle import read_manifest
from edgedc.decomposition import Decomposition, decomposition_of, parse
from edgedc.files import read_rows, sha256_of

ROOT = Path(__file__).parents[1]
QUESTION = "A shop sells twelve pens for $3 each and 1,500 nails. How much does it earn?"
KNOWN = decomposition_of(["How much do the pens bring?", "How much does the shop earn?"])


def test_the_known_decomposition_is_perfect() -> None:
    one = score(QUESTION, KNOWN, KNOWN)
    assert (one.parsed, one.exact, one.right_count, one.rouge, one.repeated) == (True, True, True, 1.0, 0)


def test_rouge_is_of_all_subquestions_as_one_text() -> None:
    made = decomposition_of(["How much do pens bring", "how much does the SHOP earn?"])
    # 11 words against 12, of which 11 are common in order
    assert score(QUESTION, made, KNOWN).rouge == pytest.approx(2 * 11 / (11 + 12))
    swapped = decomposition_of(reversed(KNOWN.texts))
    assert score(QUESTION, swapped, KNOWN).rouge < 0.7


def test_what_cannot_be_read_is_worth_nothing() -> None:
    one = score(QUESTION, Decomposition((), "unparsed", "How much do the"), KNOWN)
    assert (one.parsed, one.exact, one.right_count, one.rouge) == (False, False, False, 0.0)


def test_no_decomposition_is_right_where_none_is_needed() -> None:
    none = decomposition_of([])
    assert score("How old is Tom?", none, none).exact
    one = score("How old is Tom?", KNOWN, none)
    assert (one.exact, one.right_count, one.rouge) == (False, False, 0.0)
    assert score("How old is Tom?", Decomposition((), "unparsed", "Tom"), none).rouge == 0.0


@pytest.mark.parametrize(
    ("subquestion", "numbers", "copied"),
    [
        ("How much do the 12 pens cost?", 1, 1),  # in words in the question
        ("How many of the 1500 nails are sold?", 1, 1),  # with a comma there
        ("How much do 13 pens cost at $3.50?", 2, 0),
        ("How much do 13 pens cost at $3?", 2, 1),
        ("What is #1 plus #2?", 0, 0),  # references are no numbers
        ("How much do thirteen pens cost?", 0, 0),  # and neither are words, which may mean anything
        ("How many pens are left after 7 are sold?", 1, 1),  # a known subquestion says 7
    ],
)
def test_numbers_that_are_neither_told_nor_asked_for_are_made_up(subquestion: str, numbers: int, copied: int) -> None:
    known = decomposition_of(["How many pens are sold on day 7?"])
    one = score(QUESTION, decomposition_of([subquestion]), known)
    assert (one.numbers, one.copied) == (numbers, copied)


def test_repeated_subquestions_are_counted_whatever_their_case_and_punctuation() -> None:
    made = decomposition_of(["How much is it?", "how much is it", "How much is it in all?", "How much is it?"])
    assert score(QUESTION, made, KNOWN).repeated == 2


def test_the_summary_has_an_interval_around_every_figure() -> None:
    half = [decomposition_of(["How much do the 12 pens bring?", "How much do the 12 pens bring?"]), KNOWN]
    few, many = (summarise(score(QUESTION, half[k % 2], KNOWN) for k in range(n)) for n in (20, 400))
    assert (few.questions, few.exact.value, few.right_count.value, few.count.value) == (20, 0.5, 1.0, 2.0)
    assert few.repeated
    assert many.repeated
    assert few.repeated.value == many.repeated.value == 0.25
    assert few.copied == Estimate(1.0, None)  # alike in every question
    for figure in (few.rouge, few.repeated):
        assert figure
        assert figure.interval
        assert figure.interval[0] <= figure.value <= figure.interval[1]
    assert many.rouge.interval
    assert few.rouge.interval
    assert many.rouge.interval[1] - many.rouge.interval[0] < few.rouge.interval[1] - few.rouge.interval[0]
    assert few == summarise(score(QUESTION, half[k % 2], KNOWN) for k in range(20))


def test_a_share_of_nothing_is_unknown() -> None:
    assert summarise([score(QUESTION, KNOWN, KNOWN)]).copied is None  # no number in it
    assert summarise([score(QUESTION, decomposition_of([]), KNOWN)]).repeated is None
    with pytest.raises(ValueError, match="no decompositions"):
        summarise([])


def test_the_bootstrap_covers_what_it_should() -> None:
    """The interval of the mean of a fair coin, thrown 400 times: 1.96 standard errors each way, or nearly."""
    throws = [k % 2 for k in range(400)]
    mean = bootstrap({"heads": (throws, [1] * 400)})["heads"]
    assert mean
    assert mean.value == 0.5
    assert mean.interval == pytest.approx((0.451, 0.549), abs=0.006)


@pytest.mark.parametrize(
    ("decomposer", "rouge"), [("finetune_dist", 0.561), ("finetune_medium", 0.580), ("chat", 0.620)]
)
def test_recorded_decomposers_have_their_published_rouge(data_folder: Path, decomposer: str, rouge: float) -> None:
    human = read_rows(data_folder / "gsm8k" / "test_socratic_first660.jsonl")
    made = read_rows(data_folder / "replay" / "chatgpt" / f"eval_{decomposer}_first660.jsonl")
    scores = []
    for gold, row in zip(human, made, strict=True):
        asked = [line.partition(" ** ")[0] for line in gold["answer"].splitlines() if " ** " in line]
        scores.append(score(gold["question"], parse(row["questions"]), decomposition_of(asked)))
    mean = sum(one.rouge for one in scores) / len(scores)
    assert mean == pytest.approx(rouge, abs=0.0006)


def box_model(*flags: object) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(ROOT / "benchmarks" / "box_model.py"), *map(str, flags)]
    return subprocess.run(script, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True)


def test_the_benchmark_tells_the_recorded_decomposers_apart(data_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "box.json"
    done = box_model("--data", data_folder, "--limit", 40, "--out", out)
    rouge = {line["decomposer"]: line["quality"]["rouge"]["value"] for line in json.loads(out.read_text())["lines"]}
    assert rouge.pop("(human)") == 1.0
    assert len(rouge) == 5
    assert max(rouge, key=rouge.__getitem__) == "ChatGPT (teacher)"
    assert all(name in done.stdout for name in rouge)


def test_the_benchmark_writes_its_figures_into_the_card_once(
    data_folder: Path, bundle_folder: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    for _ in range(2):
        box_model("--data", data_folder, "--limit", 1, "--out", tmp_path / "box.json", "--model", bundle, "--card")
    card = (bundle / "README.md").read_text()
    assert card.count("| gsm8k test | GPT-2 medium (355M) | 1 |") == 1
    assert card.count("| strategyqa held out | ") == 2  # with the grammar and without
    assert card.count("\nMade by edgedc ") == 1
    assert read_manifest(bundle).files["README.md"] == sha256_of(bundle / "README.md")
