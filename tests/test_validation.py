import dataclasses
import json

import pytest
from conftest import demonstrations, write_rows
from safetensors.torch import load_file

from edgedc.bench.quality import rouge_l
from edgedc.bundle import read_manifest
from edgedc.errors import EdgedcError, InputError
from train.fitting import trainer
from train.fitting.sft import train
from train.fitting.validation import held_out
from train.sets.pairs import Pair, read_pairs
from train.settings import TrainSettings

QUICK = TrainSettings(
    from_scratch="nano", vocabulary=512, max_steps=6, batch_size=4, precision="float32", threads=1, validation_every=2
)


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "rows.jsonl", demonstrations(12))


def _pairs(count):
    return [Pair(str(k), f"Question {k}?", "", [{"role": "user", "content": "x"}], "y", line=k) for k in range(count)]


def test_a_share_of_the_questions_is_held_out_and_new_ones_move_none():
    few, many = _pairs(400), _pairs(800)
    chosen = held_out(few, 0.1)
    assert 20 < sum(chosen) < 60
    assert held_out(many, 0.1)[:400] == chosen
    assert sum(held_out(few, 7)) == 7
    assert not any(held_out(few, 0))


def test_a_question_is_never_on_both_sides():
    pairs = [dataclasses.replace(pair, question=pair.question.upper() + " ") for pair in _pairs(200)]
    for amount in (0.3, 20):
        assert held_out(pairs, amount) == held_out(_pairs(200), amount)
        assert held_out([*pairs, *_pairs(200)], amount) == held_out(_pairs(200), amount) * 2


@pytest.mark.parametrize("prompt", ["", "Question:"])
def test_documents_are_held_out_one_by_one_though_all_begin_alike(prompt):
    documents = [Pair(str(k), "", "", [], f"Text {k}.", prompt, k) for k in range(50)]
    assert sum(held_out(documents, 7)) == 7


@pytest.mark.parametrize(("amount", "what"), [(12, "nothing to train on"), (1e-9, "nothing to measure on")])
def test_holding_out_all_or_nothing_is_refused(rows, tmp_path, amount, what):
    with pytest.raises(InputError, match=rf"--validation \S+: of 12 questions that leaves {what}"):
        train(rows, tmp_path / "out", dataclasses.replace(QUICK, validation=amount), lambda progress: None)


@pytest.fixture(scope="module")
def spoilt(model_folder, tmp_path_factory):
    """A run over the tiny model, which knows all six problems by heart: (its end, what it reported).

    The warm-up begins at a learning rate of 0, so that the first step changes nothing; those behind it spoil the model.
    """
    folder, seen = tmp_path_factory.mktemp("spoilt"), []
    data = write_rows(folder / "rows.jsonl", demonstrations(6))
    settings = dataclasses.replace(
        QUICK,
        from_scratch=None,
        base=str(model_folder),
        tuning="full",
        learning_rate=1e-2,
        warmup=0.5,
        max_steps=4,
        validation=3,
        validation_every=1,
    )
    return train(data, folder / "out", settings, seen.append), seen


def test_the_best_weights_are_kept_and_not_the_last(spoilt, model_folder):
    trained, _ = spoilt
    assert trained.best_step == 1
    before, after = (load_file(folder / "model.safetensors") for folder in (model_folder, trained.folder))
    assert before.keys() == after.keys()
    assert all(before[key].equal(after[key]) for key in before)


def test_a_held_out_loss_that_is_no_number_stops_the_run(rows, tmp_path, monkeypatch):
    losses = iter((3.0, float("nan")))
    monkeypatch.setattr(trainer, "mean_loss", lambda *given: next(losses))
    settings = dataclasses.replace(QUICK, validation=3, validation_questions=0, checkpoint_every=2)
    with pytest.raises(
        EdgedcError, match=r"the held-out loss is nan at step 4: lower --learning-rate; the last good .*checkpoint-2$"
    ):
        train(rows, tmp_path / "out", settings, lambda progress: None)
    assert not (tmp_path / "out").exists()
    (work,) = tmp_path.glob(".out.*.work")
    assert sorted(path.name for path in work.iterdir()) == ["best-2", "checkpoint-2", "run.json"]


def test_all_figures_are_written_beside_the_weights(spoilt):
    trained, seen = spoilt
    record = json.loads((trained.folder / "training.json").read_text())
    measured = {entry["step"]: entry["held_out"] for entry in record["history"] if "held_out" in entry}
    assert sorted(measured) == [1, 2, 3, 4]
    assert {progress.step: progress.held_out for progress in seen if progress.held_out} == measured
    assert trained.held_out == measured[1]
    assert all(figures["loss"] > 10 * measured[1]["loss"] for step, figures in measured.items() if step > 1)
    for figures in measured.values():
        assert figures["questions"] == 3
        assert all(0 <= figures[name] <= 1 for name in ("parsed", "count", "exact", "rouge_l"))
    assert measured[1]["exact"] == 1
    assert measured[4]["exact"] < 1
    assert (record["rows"], record["held_out_rows"], record["steps"]) == (3, 3, 4)
    assert record["kept"]["step"] == 1
    assert record["peak_memory_bytes"] > 1e8
    assert 4 * 3 * 50 < record["tokens"] < 4 * 3 * 500
    assert {"torch", "transformers", "peft"} <= record["versions"].keys()
    assert read_manifest(trained.folder).recipe["training"]["kept"]["held_out"] == measured[1]


def test_a_student_that_knows_the_held_out_answers_is_measured_as_right(model_folder, tmp_path):
    """The tiny model knows these problems by heart, and hardly learns a thing here."""
    data = write_rows(tmp_path / "rows.jsonl", demonstrations(6))
    settings = dataclasses.replace(
        QUICK, from_scratch=None, base=str(model_folder), learning_rate=1e-6, max_steps=1, validation=3
    )
    trained = train(data, tmp_path / "out", settings, lambda progress: None)
    assert trained.held_out["loss"] < 0.1
    assert [trained.held_out[name] for name in ("parsed", "count", "exact", "rouge_l")] == [1, 1, 1, 1]


def test_a_solver_is_measured_by_its_loss_alone(tmp_path):
    rows = [{**row, "answer": str(k)} for k, row in enumerate(demonstrations(8))]
    settings = dataclasses.replace(QUICK, method="Direct", validation=2, max_steps=2)
    data = write_rows(tmp_path / "rows.jsonl", rows)
    assert {pair.completion for pair in read_pairs(data, "Direct", "compact-1", 5)[0]} > {"The answer is: 0"}
    trained = train(data, tmp_path / "out", settings, lambda progress: None)
    assert trained.held_out.keys() == {"loss"}
    assert read_manifest(trained.folder).method == "from scratch"


@pytest.mark.parametrize(
    ("made", "known", "f1"),
    [
        ("How many pens?", "how many pens", 1.0),
        ("a b c d", "a c", 2 * 2 / 6),
        ("x a y b z", "b a", 2 * 1 / 7),  # the order counts
        ("one two", "three four", 0.0),
        ("", "", 1.0),
        ("", "some", 0.0),
    ],
)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence_of_words(made, known, f1):
    assert rouge_l(made, known) == pytest.approx(f1)
    assert rouge_l(known, made) == pytest.approx(f1)
