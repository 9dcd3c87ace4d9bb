import dataclasses
import json
import shutil

import pytest
import torch
from conftest import demonstrations, write_rows
from transformers import AutoTokenizer

from edgedc.backends import open_backend
from edgedc.bundle import read_manifest
from edgedc.decomposition import parse
from edgedc.errors import EdgedcError, InputError
from edgedc.prompts import decompose_messages
from train.data import IGNORED, RoughlyAlike, encode, read_training_rows
from train.merge import merge
from train.scratch import make_tokenizer
from train.settings import MergeSettings, TrainSettings
from train.sft import collate, find_base, train

QUICK = TrainSettings(from_scratch="nano", vocabulary=512, max_steps=4, batch_size=4, threads=1)


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "rows.jsonl", demonstrations(12))


@pytest.fixture(scope="module")
def adapter(model_folder, tmp_path_factory):
    """A LoRA adapter on the tiny model, trained on problems that it does not know."""
    folder = tmp_path_factory.mktemp("adapter")
    data = write_rows(folder / "rows.jsonl", demonstrations(8)[6:])
    settings = TrainSettings(base=str(model_folder), max_steps=100, batch_size=2, learning_rate=1e-2, threads=1)
    return train(data, folder / "adapter", settings, print)


def test_only_the_completion_has_labels(model_folder, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", demonstrations(6))
    rows, _ = read_training_rows(data)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    for row, feature in zip(rows, encode(data, rows, tokenizer, QUICK), strict=True):
        labelled = [i for i in feature["labels"] if i != IGNORED]
        prompt = feature["input_ids"][: len(feature["input_ids"]) - len(labelled)]
        messages = decompose_messages(row["question"], style="compact-1", cap=5)
        assert prompt == tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert labelled[-1] == tokenizer.eos_token_id
        assert parse(tokenizer.decode(labelled[:-1])).texts == row["subquestions"]
        assert feature["labels"][: len(prompt)] == [IGNORED] * len(prompt)


def test_padding_is_masked_and_has_no_label():
    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]}, {"input_ids": [8] * 9, "labels": [8] * 9}]
    batch = collate(rows, pad=0)
    assert {name: tensor.shape for name, tensor in batch.items()} == dict.fromkeys(batch, (2, 16))
    assert batch["attention_mask"].tolist() == [[1] * 3 + [0] * 13, [1] * 9 + [0] * 7]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7] + [IGNORED] * 13, [8] * 9 + [IGNORED] * 7]
    assert batch["input_ids"].tolist() == [[5, 6, 7] + [0] * 13, [8] * 9 + [0] * 7]


def test_batches_hold_rows_of_like_length_in_an_order_without_drift():
    lengths = [10] * 40 + [100] * 81
    order = RoughlyAlike(lengths, 8, seed=0)
    rows = list(order)
    assert sorted(rows) == list(range(121))
    assert rows == list(order)
    batches = [[lengths[row] for row in rows[at : at + 8]] for at in range(0, 120, 8)]
    assert sum(len(set(batch)) > 1 for batch in batches) <= 1  # these lengths lie too far apart to be mixed
    firsts = [batch[0] for batch in batches]
    assert firsts not in (sorted(firsts), sorted(firsts, reverse=True))
    order.set_epoch(1)
    assert list(order) != rows


def test_lengths_that_are_nearly_alike_share_batches():
    lengths = list(range(50, 70)) * 8
    rows = list(RoughlyAlike(lengths, 8, seed=0))
    spread = [max(batch) - min(batch) for batch in ([lengths[r] for r in rows[k : k + 8]] for k in range(0, 160, 8))]
    assert sum(spread) / len(spread) > 5


def test_a_tokenizer_from_scratch_splits_digits_and_fills_its_rows():
    tokenizer = make_tokenizer(["How many pens? 123"] * 5, 512)
    assert len(tokenizer) % 256 == 0
    assert tokenizer.tokenize("123") == ["1", "2", "3"]
    for text in ("naïve 🙂", "  two  spaces\n", "<|end|>"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_replies_that_cannot_be_used_are_counted(tmp_path):
    good, *_ = demonstrations(1)
    data = write_rows(
        tmp_path / "rows.jsonl", [good, {**good, "status": "unparsed", "subquestions": []}, {**good, "over_cap": True}]
    )
    rows, left_out = read_training_rows(data)
    assert len(rows) == 1
    assert left_out == {"unparsed": 1, "more subquestions than the cap": 1}


def test_the_adapter_learns_and_the_merged_model_says_what_it_was_taught(adapter, tmp_path):
    assert adapter.losses[-1][1] < adapter.losses[0][1] / 2
    assert read_manifest(adapter.folder).kind == "adapter"
    model = merge(adapter.folder, tmp_path / "merged", MergeSettings())
    manifest, backend = open_backend(model)
    assert manifest.kind == "model"
    assert manifest.data[0].rows == 2
    row = demonstrations(8)[7]
    messages = decompose_messages(row["question"], style=manifest.prompt_style, cap=manifest.max_subquestions)
    assert parse(backend.generate(messages, max_tokens=200).text).texts == row["subquestions"]


def test_merged_logits_are_the_adapters(adapter, model_folder, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    merged = AutoModelForCausalLM.from_pretrained(merge(adapter.folder, tmp_path / "m", MergeSettings(dtype="float32")))
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), adapter.folder)
    ids = torch.arange(40, 80)[None]
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, tuned(ids).logits, atol=1e-4, rtol=1e-4)


def test_a_killed_run_goes_on_from_its_checkpoint(rows, tmp_path):
    settings = dataclasses.replace(QUICK, max_steps=40, checkpoint_every=10)

    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step >= 30:
            raise Killed

    with pytest.raises(Killed):
        train(rows, tmp_path / "out", settings, kill)
    assert not (tmp_path / "out").exists()
    steps = []
    train(rows, tmp_path / "out", settings, lambda progress: steps.append(progress.step))
    assert steps[0] > 20
    assert not list(tmp_path.glob(".out*"))


def test_a_loss_that_is_no_number_stops_the_run(rows, tmp_path):
    with pytest.raises(EdgedcError, match=r"the loss is (nan|inf) at step \d+: lower --learning-rate"):
        train(rows, tmp_path / "out", dataclasses.replace(QUICK, max_steps=200, learning_rate=1e30), print)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vocabulary": 500}, "--vocabulary 500: must be a multiple of 256"),
        ({"batch_size": 0}, "--batch-size 0: must be above 0"),
        ({"max_length": 8}, r"row 1 has \d+ tokens, more than --max-length 8"),
        ({"from_scratch": None, "base": "nowhere"}, "nowhere: no such base model"),
    ],
)
def test_bad_settings_are_refused_before_training(rows, tmp_path, change, reason):
    with pytest.raises(InputError, match=reason):
        train(rows, tmp_path / "out", dataclasses.replace(QUICK, **change), print)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_rows_of_another_kind_are_refused(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"question": "Why?"}\n')
    with pytest.raises(InputError, match=r"rows.jsonl:1: not a row of  edgedc teach"):
        read_training_rows(data)


def test_a_base_without_chat_template_or_with_pickles_is_refused(model_folder, rows, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(model_folder, base)
    (base / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="pickled weights"):
        find_base(str(base))
    (base / "pytorch_model.bin").unlink()
    (base / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        train(rows, tmp_path / "out", dataclasses.replace(QUICK, from_scratch=None, base=str(base)), print)


def test_what_is_no_adapter_cannot_be_merged(model_folder, adapter, tmp_path):
    with pytest.raises(InputError, match="not an adapter"):
        merge(model_folder, tmp_path / "out", MergeSettings())
    wrong = tmp_path / "wrong"
    shutil.copytree(adapter.folder, wrong)
    config = json.loads((wrong / "adapter_config.json").read_text())
    (wrong / "adapter_config.json").write_text(json.dumps({**config, "r": 4}))
    with pytest.raises(InputError, match="does not fit its base"):
        merge(wrong, tmp_path / "out", MergeSettings())
    assert not (tmp_path / "out").exists()


def test_train_on_gsm8k(data_folder, tmp_path, adapter):
    """Real questions with human subquestions: the loss falls, and the model loads and runs."""
    from edgedc.tasks import Selection, load_examples
    from train.teach import teach

    examples = load_examples(Selection("gsm8k", str(data_folder / "gsm8k" / "train_socratic.jsonl"), limit=400))
    teach(examples, None, tmp_path / "rows.jsonl", report=lambda done, total: None)
    settings = TrainSettings(
        from_scratch="nano", vocabulary=1024, max_steps=200, batch_size=4, max_subquestions=None, learning_rate=2e-3
    )
    trained = train(tmp_path / "rows.jsonl", tmp_path / "gsm8k", settings, print)
    assert trained.losses[-1][1] < 0.7 * trained.losses[0][1]
    manifest, backend = open_backend(trained.folder)
    messages = decompose_messages(examples[0].question, style=manifest.prompt_style, cap=None)
    assert backend.generate(messages, max_tokens=64).usage.output_tokens > 0
